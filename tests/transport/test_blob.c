/* Blobs: coding, and fetching over a way that loses, doubles, reorders and spoils parts. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/blob.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* Bytes that do not shrink, or zeroes that do. */
static unsigned char *some(size_t n, bool shrinks)
{
    unsigned char *p = malloc(n);
    fst_rng r;
    fst_rng_init(&r, 1, "test.blob", n);
    for (size_t i = 0; i < n; i++)
        p[i] = shrinks ? (unsigned char)(i / 1000) : (unsigned char)fst_rng_u32(&r);
    return p;
}

static void code(size_t n, bool shrinks, fst_blob_codec codec)
{
    fst_error err = {0};
    fst_blob_manifest m;
    fst_buf coded = {0}, raw = {0};
    unsigned char *p = some(n, shrinks);
    ok(fst_blob_encode(p, n, &coded, &m, &err), &err);
    assert_int_equal(m.codec, codec);
    assert_int_equal(m.raw_bytes, n);
    assert_int_equal(m.bytes, codec == FST_BLOB_ZSTD ? coded.len : n);
    assert_true(codec == FST_BLOB_PLAIN ? coded.len == 0 : coded.len < n);
    ok(fst_blob_decode(&m, codec == FST_BLOB_ZSTD ? (void *)coded.data : p, n, &raw, &err), &err);
    assert_int_equal(raw.len, n);
    assert_memory_equal(raw.data, p, n);
    assert_int_equal(fst_blob_decode(&m, coded.data, n - 1, &raw, &err), FST_E_LIMIT);
    if (codec == FST_BLOB_ZSTD) { /* it says more, or less, than it holds */
        m.raw_bytes++;
        assert_int_equal(fst_blob_decode(&m, coded.data, 2 * n, &raw, &err), FST_E_FORMAT);
        m.raw_bytes -= 2;
        assert_int_equal(fst_blob_decode(&m, coded.data, 2 * n, &raw, &err), FST_E_FORMAT);
    }
    fst_buf_release(&coded);
    fst_buf_release(&raw);
    free(p);
}

static void test_coding(void **state)
{
    (void)state;
    code(1, false, FST_BLOB_PLAIN);
    code(3000000, false, FST_BLOB_PLAIN);
    code(3000000, true, FST_BLOB_ZSTD);
}

static void test_manifest(void **state)
{
    static const char *const bad[] = {
        "{}", "[]", "{\"blob\": \"00\", \"bytes\": 1, \"raw_bytes\": 1, \"codec\": \"plain\", \"parts\": 1}",
        /* 64 digits, but: no bytes, wrong parts, another codec, plain of two sizes, too much */
        "{\"blob\": \"%s\", \"bytes\": 0, \"raw_bytes\": 0, \"codec\": \"plain\", \"parts\": 0}",
        "{\"blob\": \"%s\", \"bytes\": 600000, \"raw_bytes\": 600000, \"codec\": \"plain\", \"parts\": 1}",
        "{\"blob\": \"%s\", \"bytes\": 5, \"raw_bytes\": 5, \"codec\": \"gzip\", \"parts\": 1}",
        "{\"blob\": \"%s\", \"bytes\": 5, \"raw_bytes\": 6, \"codec\": \"plain\", \"parts\": 1}",
        "{\"blob\": \"%s\", \"bytes\": 5, \"raw_bytes\": 99999999999999, \"codec\": \"zstd\", \"parts\": 1}"};
    fst_error err;
    fst_blob_manifest m = {.bytes = 600000, .raw_bytes = 600000, .codec = FST_BLOB_PLAIN, .parts = 2}, back;
    fst_buf text = {0};
    (void)state;
    memset(m.digest, 'a', 64);
    ok(fst_blob_manifest_write(&m, &text, &err), &err);
    json_t *j = json_loadb(text.data, text.len, 0, NULL);
    ok(fst_blob_manifest_read(&back, j, 0, &err), &err);
    assert_true(fst_blob_manifest_equal(&m, &back));
    assert_int_equal(fst_blob_manifest_read(&back, j, 500000, &err), FST_E_LIMIT);
    json_decref(j);
    fst_buf_release(&text);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[300];
        const char *at = strstr(bad[i], "%s");
        if (at)
            snprintf(line, sizeof line, "%.*s%s%s", (int)(at - bad[i]), bad[i], m.digest, at + 2);
        else
            snprintf(line, sizeof line, "%s", bad[i]);
        j = json_loads(line, 0, NULL);
        fst_status st = fst_blob_manifest_read(&back, j, 0, &err);
        assert_true(st == FST_E_FORMAT || st == FST_E_LIMIT);
        json_decref(j);
    }
}

/* ---- fetching over a bad way ---- */

struct way {
    double lose, twice, spoil;
    int hold; /* parts that wait and are overtaken, at most */
};

struct held {
    fst_buf body;
    bool full;
};

static void arrive(fst_blob_fetch *f, double now, fst_buf *body, const struct way *w, fst_rng *r)
{
    if (fst_rng_uniform(r) < w->spoil) {
        size_t at = (size_t)fst_rng_below(r, body->len);
        body->data[at] = (char)(body->data[at] ^ 0x10);
    }
    fst_blob_fetch_part(f, now, body->data, body->len);
    if (fst_rng_uniform(r) < w->twice)
        fst_blob_fetch_part(f, now, body->data, body->len);
}

static void fetch_over(const struct way *w, size_t n, uint64_t seed, fst_blob_fetch_counters *count)
{
    enum { HELD = 8 };
    fst_error err = {0};
    fst_blob_manifest m;
    fst_blob_server *s;
    fst_blob_fetch *f;
    fst_buf coded = {0}, body = {0};
    struct held held[HELD] = {{.full = false}};
    unsigned char *p = some(n, false);
    const void *got;
    double now = 100;
    uint32_t who;
    fst_rng r;
    fst_rng_init(&r, seed, "test.way", 0);
    ok(fst_blob_encode(p, n, &coded, &m, &err), &err);
    ok(fst_blob_server_new(&s, 0, &err), &err);
    ok(fst_blob_server_add(s, &m, p, &err), &err);
    ok(fst_blob_fetch_new(&f, &(fst_blob_fetch_spec){.manifest = m, .most = n, .now = now}, &err), &err);
    while (fst_blob_fetch_where(f) == FST_FETCH_GOING && now < 100000) {
        fst_blob_get g, back;
        unsigned char bytes[FST_BLOB_GET];
        while (fst_blob_fetch_ask(f, now, 64, &g)) {
            fst_blob_get_write(&g, bytes);
            assert_true(fst_blob_get_read(&back, bytes, sizeof bytes));
            assert_true(fst_blob_fetch_in_flight(f) <= FST_BLOB_WINDOW);
            if (fst_rng_uniform(&r) >= w->lose)
                fst_blob_server_ask(s, 5, &back);
        }
        while (fst_blob_server_next(s, &who, &body)) {
            assert_int_equal(who, 5);
            if (fst_rng_uniform(&r) < w->lose)
                continue;
            struct held *h = &held[w->hold ? fst_rng_below(&r, (uint64_t)w->hold) : 0];
            if (w->hold) { /* changes place with one that came before */
                fst_buf other = h->body;
                bool full = h->full;
                h->body = body;
                h->full = true;
                body = other;
                if (!full)
                    continue;
            }
            arrive(f, now, &body, w, &r);
        }
        now += 0.01;
        if (fst_blob_fetch_due(f) > now && !isinf(fst_blob_fetch_due(f)))
            now = fst_blob_fetch_due(f);
    }
    ok(fst_blob_fetch_finish(f, &got, &err), &err);
    assert_memory_equal(got, p, n);
    *count = *fst_blob_fetch_count(f);
    fst_blob_fetch_free(f);
    fst_blob_server_free(s);
    for (int i = 0; i < HELD; i++)
        fst_buf_release(&held[i].body);
    fst_buf_release(&body);
    fst_buf_release(&coded);
    free(p);
}

static void test_fetching(void **state)
{
    fst_blob_fetch_counters c;
    const size_t n = 20 * (size_t)FST_BLOB_PART + 17;
    (void)state;
    fetch_over(&(struct way){0}, n, 1, &c);
    assert_true(c.taken == 21 && !c.again && !c.twice && !c.stalls && !c.spoiled);
    fetch_over(&(struct way){0}, 1, 1, &c);
    assert_int_equal(c.taken, 1);
    fetch_over(&(struct way){0}, FST_BLOB_PART, 1, &c);
    assert_int_equal(c.taken, 1);
    for (uint64_t seed = 0; seed < 20; seed++) {
        fetch_over(&(struct way){.lose = 0.3, .twice = 0.2, .hold = 4}, n, seed, &c);
        assert_true(c.again > 0);
    }
    fetch_over(&(struct way){.twice = 0.5}, n, 3, &c);
    assert_true(c.twice > 0 && !c.again);
    /* a part that was changed on its way and still looks like one: the digest says so, and all is fetched again */
    uint64_t spoiled = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        fetch_over(&(struct way){.spoil = 0.02}, n, seed, &c);
        spoiled += c.spoiled;
    }
    assert_true(spoiled > 0);
}

/* The link was full: what was not asked for is asked for a little later, not at once. */
static void test_unasked(void **state)
{
    fst_error err = {0};
    fst_blob_manifest m = {
        .bytes = 10 * (uint64_t)FST_BLOB_PART, .raw_bytes = 10 * (uint64_t)FST_BLOB_PART, .parts = 10};
    fst_blob_fetch *f;
    fst_blob_get g;
    (void)state;
    memset(m.digest, 'a', 64);
    ok(fst_blob_fetch_new(&f, &(fst_blob_fetch_spec){.manifest = m, .now = 5}, &err), &err);
    assert_true(fst_blob_fetch_ask(f, 5, 64, &g));
    assert_int_equal(g.count, FST_BLOB_WINDOW);
    fst_blob_fetch_unasked(f, &g);
    assert_int_equal(fst_blob_fetch_in_flight(f), 0);
    assert_true(fst_blob_fetch_due(f) > 5);
    assert_true(fst_blob_fetch_ask(f, 6, 3, &g));
    assert_int_equal(g.from, 0);
    assert_int_equal(g.count, 3);
    fst_blob_fetch_free(f);
    m.bytes = 11;
    assert_int_equal(fst_blob_fetch_new(&f, &(fst_blob_fetch_spec){.manifest = m, .now = 5}, &err), FST_E_ARGUMENT);
    m = (fst_blob_manifest){.bytes = 11, .raw_bytes = 1000, .parts = 1, .codec = FST_BLOB_ZSTD};
    assert_int_equal(fst_blob_fetch_new(&f, &(fst_blob_fetch_spec){.manifest = m, .most = 999}, &err), FST_E_LIMIT);
}

/* Each who asks has a bound, and leaves nothing behind. */
static void test_serving(void **state)
{
    fst_error err = {0};
    const size_t n = 100 * (size_t)FST_BLOB_PART;
    unsigned char *p = calloc(1, n);
    fst_blob_manifest m = {.bytes = n, .raw_bytes = n, .parts = 100};
    fst_blob_server *s;
    fst_blob_get g = {.from = 0, .count = 64};
    fst_buf body = {0};
    fst_blob_part part;
    uint32_t who;
    (void)state;
    memset(m.digest, 'b', 64);
    memcpy(g.digest, m.digest, sizeof g.digest);
    ok(fst_blob_server_new(&s, 100, &err), &err);
    assert_int_equal(fst_blob_server_ask(s, 1, &g), 0); /* it is not there */
    ok(fst_blob_server_add(s, &m, p, &err), &err);
    assert_int_equal(fst_blob_server_ask(s, 1, &g), 64);
    assert_int_equal(fst_blob_server_ask(s, 1, &g), 0);
    g.from = 64;
    assert_int_equal(fst_blob_server_ask(s, 1, &g), 0); /* 64 wait for one that asks, at most */
    assert_int_equal(fst_blob_server_ask(s, 2, &g), 36);
    assert_int_equal(fst_blob_server_waiting(s), 100);
    assert_true(fst_blob_server_next(s, &who, &body));
    assert_int_equal(who, 1);
    assert_true(fst_blob_part_read(&part, body.data, body.len));
    assert_int_equal(part.index, 0);
    fst_blob_server_put_back(s);
    assert_true(fst_blob_server_next(s, &who, &body));
    assert_true(fst_blob_part_read(&part, body.data, body.len));
    assert_int_equal(part.index, 0);
    fst_blob_server_forget(s, 1);
    assert_true(fst_blob_server_next(s, &who, &body));
    assert_int_equal(who, 2);
    fst_blob_server_remove(s, m.digest);
    assert_int_equal(fst_blob_server_waiting(s), 0);
    assert_false(fst_blob_server_next(s, &who, &body));
    fst_blob_server_free(s);
    fst_buf_release(&body);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_coding), cmocka_unit_test(test_manifest),
                                       cmocka_unit_test(test_fetching), cmocka_unit_test(test_unasked),
                                       cmocka_unit_test(test_serving)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
