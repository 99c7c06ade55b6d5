/* Blobs: coding, and fetching over a way that loses, doubles, reorders and spoils parts. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
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

/* ---- in a file ---- */

/* Lets a fetch take at most `most` parts; returns how many it asked for. */
static unsigned pump(fst_blob_fetch *f, fst_blob_server *s, unsigned most)
{
    fst_buf body = {0};
    uint32_t who;
    unsigned asked = 0, taken = 0;
    double now = 1;
    for (int idle = 0; fst_blob_fetch_where(f) == FST_FETCH_GOING && taken < most && idle < 1000; idle++) {
        fst_blob_get g;
        while (fst_blob_fetch_ask(f, now, most - taken, &g)) {
            asked += g.count;
            fst_blob_server_ask(s, 0, &g);
        }
        while (taken < most && fst_blob_server_next(s, &who, &body))
            taken += fst_blob_fetch_part(f, now, body.data, body.len);
        now += 1;
    }
    fst_buf_release(&body);
    return asked;
}

struct large { /* a blob that is fetched into a file */
    size_t n;
    unsigned char *bytes;
    fst_blob_manifest m;
    fst_blob_server *s;
    char folder[32], path[48], list[56];
    fst_blob_fetch_spec spec;
};

static void make_large(struct large *l)
{
    fst_error err = {0};
    fst_buf coded = {0};
    *l = (struct large){.n = 20 * (size_t)FST_BLOB_PART + 17, .folder = "/tmp/fedstill-blob-XXXXXX"};
    assert_non_null(mkdtemp(l->folder));
    snprintf(l->path, sizeof l->path, "%s/blob", l->folder);
    snprintf(l->list, sizeof l->list, "%s.have", l->path);
    l->bytes = some(l->n, false);
    ok(fst_blob_encode(l->bytes, l->n, &coded, &l->m, &err), &err);
    ok(fst_blob_server_new(&l->s, 0, &err), &err);
    ok(fst_blob_server_add(l->s, &l->m, l->bytes, &err), &err);
    l->spec = (fst_blob_fetch_spec){.manifest = l->m, .file = l->path, .in_memory = l->n - 1};
    fst_buf_release(&coded);
}

static void end_large(struct large *l)
{
    assert_int_equal(rmdir(l->folder), 0); /* nothing is left in it */
    fst_blob_server_free(l->s);
    free(l->bytes);
}

static fst_blob_fetch *begin(const struct large *l)
{
    fst_error err = {0};
    fst_blob_fetch *f = NULL;
    ok(fst_blob_fetch_new(&f, &l->spec, &err), &err);
    return f;
}

static void finish(const struct large *l, fst_blob_fetch *f)
{
    fst_error err = {0};
    const void *got;
    ok(fst_blob_fetch_finish(f, &got, &err), &err);
    assert_memory_equal(got, l->bytes, l->n);
    fst_blob_fetch_drop(f);
}

/* A receiver that is gone in the middle: the next one asks for what is missing, and for nothing else. */
static void test_going_on(void **state)
{
    struct large l;
    (void)state;
    make_large(&l);
    fst_blob_fetch *f = begin(&l);
    (void)pump(f, l.s, 13);
    assert_int_equal(fst_blob_fetch_here(f), 13);
    fst_blob_fetch_free(f); /* as a kill leaves it */
    f = begin(&l);
    assert_int_equal(fst_blob_fetch_here(f), 13);
    assert_int_equal(pump(f, l.s, 100), 21 - 13);
    fst_blob_fetch_free(f); /* all is there, and not yet used */
    f = begin(&l);
    assert_int_equal(pump(f, l.s, 100), 0);
    finish(&l, f);
    /* what fits into memory is no file */
    l.spec.in_memory = l.n;
    f = begin(&l);
    assert_int_equal(access(l.path, F_OK), -1);
    (void)pump(f, l.s, 100);
    finish(&l, f);
    end_large(&l);
}

static void spoil(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_not_equal(fputc(c ^ 1, f), EOF); /* a '1' becomes '0', and the other way round */
    assert_int_equal(fclose(f), 0);
}

/* After a power cut anything may stand in the two files. */
static void test_spoiled_files(void **state)
{
    struct large l;
    (void)state;
    make_large(&l);
    for (int what = 0; what < 5; what++) {
        fst_blob_fetch *f = begin(&l);
        (void)pump(f, l.s, 13);
        fst_blob_fetch_free(f);
        if (what == 0) /* a byte of a part that is said to be there */
            spoil(l.path, 3 * (long)FST_BLOB_PART + 5);
        else if (what == 1) /* a part that is said to be there, and is not */
            spoil(l.list, FST_DIGEST_HEX + 19);
        else if (what == 2) /* of another blob */
            spoil(l.list, 7);
        else if (what == 3)
            assert_int_equal(truncate(l.path, 1000), 0);
        else
            assert_int_equal(truncate(l.list, 30), 0);
        f = begin(&l);
        assert_int_equal(fst_blob_fetch_here(f), what == 0 ? 13 : what == 1 ? 14 : 0);
        (void)pump(f, l.s, 1000);
        assert_int_equal(fst_blob_fetch_count(f)->spoiled, what < 2);
        finish(&l, f);
    }
    end_large(&l);
}

/* There is no room for it: that is said before anything is fetched. */
static void test_no_room(void **state)
{
    struct large l;
    fst_error err = {0};
    fst_blob_fetch *f = NULL;
    struct rlimit old, little;
    (void)state;
    make_large(&l);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    little = old;
    little.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    fst_status st = fst_blob_fetch_new(&f, &l.spec, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(st, FST_E_IO);
    assert_non_null(strstr(err.message, "no space for 10 MB in /tmp/fedstill-blob-"));
    unlink(l.path);
    unlink(l.list);
    end_large(&l);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_coding),        cmocka_unit_test(test_manifest),
                                       cmocka_unit_test(test_fetching),      cmocka_unit_test(test_going_on),
                                       cmocka_unit_test(test_spoiled_files), cmocka_unit_test(test_no_room),
                                       cmocka_unit_test(test_unasked),       cmocka_unit_test(test_serving)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
