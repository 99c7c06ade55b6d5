/* Coded spans: what comes back, what is refused, and what messages become. Whole runs are replayed elsewhere
 * (test_replay.c), and every strategy's in test_conformance.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { IN = 30, HIDDEN = 17, OUT = 5, COUNT = IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT };

static fst_graph *graph;
static float x[COUNT];

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static int set_up(void **state)
{
    fst_error err;
    fst_rng r;
    (void)state;
    ok(fst_graph_new(&graph, &err), &err);
    fst_value v = fst_graph_linear(graph, fst_graph_input(graph, &FST_SHAPE(IN)), "a", HIDDEN, true);
    ok(fst_graph_finish(graph, fst_graph_linear(graph, fst_graph_relu(graph, v), "b", OUT, true), &err), &err);
    fst_rng_init(&r, 3, "test.codec", 0);
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(fst_rng_normal(&r) * (i < IN * HIDDEN ? 1 : 0.01));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fst_graph_free(graph);
    return 0;
}

/* What comes back from the bytes of `in`; their number. */
static size_t round_trip(const fst_codec *codec, const float *in, float *out, fst_rng *rng)
{
    fst_coder *c = NULL;
    const uint8_t *bytes;
    size_t len;
    fst_error err;
    ok(fst_coder_new(&c, codec, graph, &err), &err);
    assert_int_equal(fst_coder_count(c), COUNT);
    ok(fst_coder_encode(c, in, rng, &bytes, &len, &err), &err);
    assert_true(len <= fst_coder_most(c));
    uint8_t *copy = malloc(len);
    memcpy(copy, bytes, len);
    ok(fst_coder_decode(c, copy, len, out, &err), &err);
    free(copy);
    fst_coder_free(c);
    return len;
}

static void test_half_precision_is_exact(void **state)
{
    static float in[COUNT], out[COUNT];
    (void)state;
    for (int i = 0; i < COUNT; i++) /* every exponent, subnormal ones too */
        in[i] = fst_f32_from_f16((uint16_t)((i * 104729) % 0x7c00 | (i % 2) << 15));
    assert_int_equal(round_trip(&(fst_codec){.kind = FST_CODEC_F16}, in, out, NULL), 1 + 2 * COUNT);
    assert_memory_equal(in, out, sizeof in);
    assert_true(round_trip(&(fst_codec){.kind = FST_CODEC_F16, .zstd = true}, in, out, NULL) <= 1 + 2 * COUNT);
    assert_memory_equal(in, out, sizeof in);
}

static float largest(const float *v, int n)
{
    float top = 0;
    for (int i = 0; i < n; i++)
        top = fabsf(v[i]) > top ? fabsf(v[i]) : top;
    return top;
}

/* No element is further off than half a step of its parameter, or with channels of its row. */
static void test_whole_numbers(void **state)
{
    static float out[COUNT];
    (void)state;
    assert_int_equal(round_trip(&(fst_codec){.kind = FST_CODEC_INT8}, x, out, NULL), 1 + 4 * 4 + COUNT);
    float step = largest(x, IN * HIDDEN) / 127;
    for (int i = 0; i < IN * HIDDEN; i++)
        assert_true(fabsf(out[i] - x[i]) <= step / 2 * 1.0001f);
    float bias = largest(x + IN * HIDDEN, HIDDEN) / 127;
    for (int i = IN * HIDDEN; i < IN * HIDDEN + HIDDEN; i++)
        assert_true(fabsf(out[i] - x[i]) <= bias / 2 * 1.0001f);
    assert_int_equal(round_trip(&(fst_codec){.kind = FST_CODEC_INT4, .per_channel = true}, x, out, NULL),
                     1 + 4 * (HIDDEN + 1 + OUT + 1) + (COUNT + 1) / 2);
    for (int row = 0; row < HIDDEN; row++) {
        step = largest(x + row * IN, IN) / 7;
        for (int i = row * IN; i < (row + 1) * IN; i++)
            assert_true(fabsf(out[i] - x[i]) <= step / 2 * 1.0001f);
    }
}

/* Rounded by chance, a mean of many is closer to the value than a step can be; and the stream decides. */
static void test_stochastic_rounding(void **state)
{
    enum { TRIALS = 400 };
    static float out[COUNT], again[COUNT];
    static double sum[COUNT];
    const fst_codec codec = {.kind = FST_CODEC_INT4, .stochastic = true};
    (void)state;
    float step = largest(x, IN * HIDDEN) / 7;
    for (int t = 0; t < TRIALS; t++) {
        fst_rng r;
        fst_rng_init(&r, 1, "test.round", (uint64_t)t);
        round_trip(&codec, x, out, &r);
        for (int i = 0; i < IN * HIDDEN; i++)
            sum[i] += (double)out[i];
    }
    for (int i = 0; i < IN * HIDDEN; i++) /* six standard deviations */
        assert_true(fabs(sum[i] / TRIALS - (double)x[i]) < 6 * 0.5 * (double)step / sqrt(TRIALS));
    fst_rng r;
    fst_rng_init(&r, 1, "test.round", TRIALS - 1);
    round_trip(&codec, x, again, &r);
    assert_memory_equal(out, again, sizeof out);
}

/* The largest elements as they are, all others 0. Of equals the first. */
static void test_largest(void **state)
{
    static float out[COUNT], in[COUNT];
    const fst_codec codec = {.kind = FST_CODEC_TOP_K, .share = 0.1, .values = FST_VALUES_F32};
    size_t kept = 0, want = (size_t)ceil(0.1 * COUNT);
    float least = INFINITY, left = 0;
    (void)state;
    size_t len = round_trip(&codec, x, out, NULL);
    assert_true(len < 1 + 4 + want * 4 + want); /* less than a byte a place */
    for (int i = 0; i < COUNT; i++)
        if (out[i] != 0) {
            assert_true(out[i] == x[i]);
            least = fabsf(x[i]) < least ? fabsf(x[i]) : least;
            kept++;
        } else {
            left = fabsf(x[i]) > left ? fabsf(x[i]) : left;
        }
    assert_int_equal(kept, want);
    assert_true(left <= least);
    for (int i = 0; i < COUNT; i++)
        in[i] = i % 3 ? 2.0f : 0.0f;
    in[COUNT - 1] = -3;
    round_trip(&codec, in, out, NULL);
    kept = 0;
    for (int i = 0; i + 1 < COUNT; i++) {
        assert_true(out[i] == (kept < want - 1 ? in[i] : 0));
        kept += out[i] != 0;
    }
    assert_true(out[COUNT - 1] == -3);
    memset(in, 0, sizeof in);
    in[7] = 5;
    round_trip(&codec, in, out, NULL); /* fewer than may be sent */
    assert_memory_equal(in, out, sizeof in);
}

static void test_low_rank(void **state)
{
    static float out[COUNT], in[COUNT];
    fst_codec codec = {.kind = FST_CODEC_LOW_RANK, .energy = 0.999, .values = FST_VALUES_F32};
    (void)state;
    memcpy(in, x, sizeof in);
    for (int i = 0; i < IN * HIDDEN; i++) /* rank 1 */
        in[i] = x[i % IN] * x[100 + i / IN];
    assert_true(round_trip(&codec, in, out, NULL) < 4 * (IN + HIDDEN + HIDDEN + HIDDEN * OUT + OUT) + 20);
    for (int i = 0; i < IN * HIDDEN; i++)
        assert_true(fabsf(out[i] - in[i]) < 1e-5f);
    assert_memory_equal(in + IN * HIDDEN, out + IN * HIDDEN, HIDDEN * sizeof *in); /* a bias has no shorter form */
    codec.energy = 1;
    round_trip(&codec, x, out, NULL);
    assert_memory_equal(x, out, sizeof x); /* nothing is left out: no matrix has a shorter form */
}

/* ---- what is refused ---- */

static fst_status decode(const fst_codec *codec, const void *data, size_t len, fst_error *err)
{
    static float out[COUNT];
    fst_coder *c = NULL;
    fst_error why;
    ok(fst_coder_new(&c, codec, graph, &why), &why);
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, data, len);
    uint64_t before = fst_alloc_count();
    fst_status st = fst_coder_decode(c, copy, len, out, err);
    assert_true(fst_alloc_count() == before);
    free(copy);
    fst_coder_free(c);
    return st;
}

static size_t encode_of(const fst_codec *codec, const float *in, uint8_t out[8 * COUNT])
{
    fst_coder *c = NULL;
    const uint8_t *bytes;
    size_t len;
    fst_error err;
    ok(fst_coder_new(&c, codec, graph, &err), &err);
    ok(fst_coder_encode(c, in, NULL, &bytes, &len, &err), &err);
    memcpy(out, bytes, len);
    fst_coder_free(c);
    return len;
}

static size_t encode(const fst_codec *codec, uint8_t out[8 * COUNT])
{
    return encode_of(codec, x, out);
}

static void test_lengths(void **state)
{
    static uint8_t bytes[8 * COUNT];
    static const fst_codec codecs[] = {{.kind = FST_CODEC_F16},
                                       {.kind = FST_CODEC_INT8, .zstd = true},
                                       {.kind = FST_CODEC_INT4, .per_channel = true},
                                       {.kind = FST_CODEC_TOP_K, .share = 0.05, .values = FST_VALUES_INT8},
                                       {.kind = FST_CODEC_TOP_K, .share = 0.5, .zstd = true},
                                       {.kind = FST_CODEC_LOW_RANK, .energy = 0.5, .values = FST_VALUES_F16}};
    (void)state;
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        fst_error err;
        size_t len = encode(&codecs[i], bytes);
        bytes[len] = 0;
        ok(decode(&codecs[i], bytes, len, &err), &err);
        for (size_t n = 0; n < len; n++)
            assert_int_equal(decode(&codecs[i], bytes, n, &err), FST_E_FORMAT);
        assert_int_equal(decode(&codecs[i], bytes, len + 1, &err), FST_E_FORMAT);
        bytes[0] = 2; /* no such mark */
        assert_int_equal(decode(&codecs[i], bytes, len, &err), FST_E_FORMAT);
    }
}

static void put_float(uint8_t *at, float v)
{
    memcpy(at, &v, sizeof v);
}

static void test_numbers(void **state)
{
    static uint8_t bytes[8 * COUNT];
    static const float scales[] = {NAN, INFINITY, -INFINITY, -1};
    const fst_codec whole = {.kind = FST_CODEC_INT8}, half = {.kind = FST_CODEC_F16},
                    few = {.kind = FST_CODEC_TOP_K, .share = 0.05, .values = FST_VALUES_INT8},
                    plain = {.kind = FST_CODEC_TOP_K, .share = 0.05, .values = FST_VALUES_F32};
    fst_error err;
    (void)state;
    for (int i = 0; i < 4; i++) {
        size_t len = encode(&whole, bytes);
        put_float(bytes + 1 + 4 * i, scales[i]);
        assert_int_equal(decode(&whole, bytes, len, &err), FST_E_FORMAT);
        len = encode(&few, bytes);
        put_float(bytes + 5, scales[i]);
        assert_int_equal(decode(&few, bytes, len, &err), FST_E_FORMAT);
    }
    size_t len = encode(&whole, bytes);
    put_float(bytes + 1, 3e38f);
    assert_int_equal(decode(&whole, bytes, len, &err), FST_E_NUMERIC); /* 127 times that */
    len = encode(&whole, bytes);
    bytes[len - 1] = 0x80;
    assert_int_equal(decode(&whole, bytes, len, &err), FST_E_FORMAT);
    len = encode(&half, bytes);
    bytes[len - 1] = 0x7c;
    assert_int_equal(decode(&half, bytes, len, &err), FST_E_NUMERIC);
    len = encode(&plain, bytes);
    put_float(bytes + 5, NAN);
    assert_int_equal(decode(&plain, bytes, len, &err), FST_E_NUMERIC);
    static float bad[COUNT];
    fst_coder *c = NULL;
    const uint8_t *out;
    ok(fst_coder_new(&c, &half, graph, &err), &err);
    bad[3] = 70000;
    assert_int_equal(fst_coder_encode(c, bad, NULL, &out, &len, &err), FST_E_NUMERIC);
    bad[3] = NAN;
    assert_int_equal(fst_coder_encode(c, bad, NULL, &out, &len, &err), FST_E_NUMERIC);
    fst_coder_free(c);
}

/* Places beyond the end, too many of them, and none of the ones that are announced. A gap cannot say a place twice. */
static void test_places(void **state)
{
    static uint8_t bytes[8 * COUNT];
    const fst_codec few = {.kind = FST_CODEC_TOP_K, .share = 0.05, .values = FST_VALUES_INT8};
    uint32_t k;
    fst_error err;
    (void)state;
    size_t len = encode(&few, bytes), values = 1 + 4 + 4 + (size_t)ceil(0.05 * COUNT);
    memset(bytes + values, 0xff, len - values);
    assert_int_equal(decode(&few, bytes, len, &err), FST_E_FORMAT);
    len = encode(&few, bytes);
    for (int more = -1; more <= 1; more += 2) {
        memcpy(&k, bytes + 1, 4);
        k += (uint32_t)more;
        memcpy(bytes + 1, &k, 4);
        assert_int_equal(decode(&few, bytes, len, &err), FST_E_FORMAT);
        k -= (uint32_t)more;
        memcpy(bytes + 1, &k, 4);
    }
    k = UINT32_MAX;
    memcpy(bytes + 1, &k, 4);
    assert_int_equal(decode(&few, bytes, len, &err), FST_E_FORMAT);
    len = encode(&few, bytes);
    bytes[len - 1] |= 0x80; /* after the last place, unless that bit is one of its own */
    assert_int_equal(decode(&few, bytes, len, &err), FST_E_FORMAT);
}

static void test_ranks(void **state)
{
    static uint8_t bytes[8 * COUNT];
    static const int16_t ranks[] = {-2, 18, 17, 0x7fff};
    const fst_codec thin = {.kind = FST_CODEC_LOW_RANK, .energy = 0.5, .values = FST_VALUES_F32};
    fst_error err;
    (void)state;
    for (int i = 0; i < 4; i++) {
        size_t len = encode(&thin, bytes);
        memcpy(bytes + 1, &ranks[i], 2);
        assert_int_equal(decode(&thin, bytes, len, &err), FST_E_FORMAT);
    }
}

/* zstd's bytes say how long they will be: more than a span can have is refused before anything is unpacked, and so are
 * they where they were not agreed on. */
static void test_zstd(void **state)
{
    static uint8_t bytes[8 * COUNT];
    static const uint8_t bomb[] = {1, 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 3, 0, 0}; /* a frame of 1 GiB */
    const fst_codec with = {.kind = FST_CODEC_INT8, .zstd = true}, without = {.kind = FST_CODEC_INT8};
    fst_error err;
    (void)state;
    static float sparse[COUNT], out[COUNT];
    assert_int_equal(decode(&with, bomb, sizeof bomb, &err), FST_E_FORMAT);
    for (int i = 0; i < COUNT; i += 8)
        sparse[i] = x[i];
    assert_true(round_trip(&with, sparse, out, NULL) < round_trip(&without, sparse, out, NULL) / 2);
    size_t len = encode_of(&with, sparse, bytes);
    assert_int_equal(bytes[0], 1);
    ok(decode(&with, bytes, len, &err), &err);
    assert_int_equal(decode(&without, bytes, len, &err), FST_E_FORMAT);
}

/* ---- which strategies ---- */

static void test_refused_by_name(void **state)
{
    const fst_codecs half = {.up = {.kind = FST_CODEC_F16}}, down = {.down = {.kind = FST_CODEC_F16}},
                     few = {.down = {.kind = FST_CODEC_TOP_K, .share = 0.1}}, all = {.up = {.kind = FST_CODEC_TOP_K}};
    fst_error err;
    (void)state;
    for (size_t i = 0; fst_strategy_at(i); i++) {
        const fst_strategy_ops *ops = fst_strategy_at(i);
        fst_status up = fst_codecs_check(&half, ops, &err);
        bool shares = (ops->flags & FST_SAME_MODEL) && !(ops->flags & FST_MENTORS);
        bool says = !strcmp(ops->name, "fedmd") || !strcmp(ops->name, "dsfl") || !strcmp(ops->name, "fd") ||
                    !strcmp(ops->name, "fedproto");
        assert_int_equal(up, shares || says ? FST_OK : FST_E_CONFIG);
        if (up)
            assert_non_null(strstr(err.message, ops->name));
        fst_status both = fst_codecs_check(&down, ops, &err);
        assert_int_equal(both, says || (shares && !(ops->flags & FST_KEEPS_SHARED)) ? FST_OK : FST_E_CONFIG);
        if (both)
            assert_non_null(strstr(err.message, ops->name));
    }
    const fst_strategy_ops *fedavg = fst_strategy_find("fedavg");
    assert_int_equal(fst_codecs_check(&few, fedavg, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "change: true"));
    assert_int_equal(fst_codecs_check(&all, fedavg, &err), FST_E_CONFIG); /* a share of 0 */
}

/* What a codec cannot do with what a strategy sends. */
static void test_refused_of_predictions(void **state)
{
    static const struct {
        const char *strategy;
        fst_codec codec;
        const char *text;
    } wrong[] = {
        {"fedmd", {.kind = FST_CODEC_LEVELS, .bits = 2}, "f16, int8, int4"},
        {"fedmd", {.kind = FST_CODEC_TOP_K, .share = 0.1}, "logits"},
        {"dsfl", {.kind = FST_CODEC_LOW_RANK, .energy = 0.5}, "f16, int8, int4, levels"},
        {"dsfl", {.kind = FST_CODEC_INT8, .feedback = true}, "feedback has no effect"},
        {"dsfl", {.kind = FST_CODEC_LEVELS}, "bits is 0"},
        {"dsfl", {.kind = FST_CODEC_LEVELS, .bits = 17}, "bits is 17"},
        {"fd", {.kind = FST_CODEC_TOP_K, .share = 0.1}, "mean probabilities of labels"},
        {"fd", {.kind = FST_CODEC_LOW_RANK, .energy = 0.5}, "f16, int8, int4, levels"},
        {"fedproto", {.kind = FST_CODEC_LEVELS, .bits = 2}, "f16, int8, int4"},
        {"fedproto", {.kind = FST_CODEC_F16, .feedback = true}, "feedback has no effect"},
        {"fedavg", {.kind = FST_CODEC_LEVELS, .bits = 2}, "sends a model"},
    };
    const fst_codec levels = {.kind = FST_CODEC_LEVELS, .bits = 2}, few = {.kind = FST_CODEC_TOP_K, .share = 0.1};
    fst_coder *c = NULL;
    fst_error err;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int way = 0; way < 2; way++) {
            const fst_codecs codecs = {way ? (fst_codec){.kind = FST_CODEC_NONE} : wrong[i].codec,
                                       way ? wrong[i].codec : (fst_codec){.kind = FST_CODEC_NONE}};
            assert_int_equal(fst_codecs_check(&codecs, fst_strategy_find(wrong[i].strategy), &err), FST_E_CONFIG);
            assert_non_null(strstr(err.message, wrong[i].text));
            assert_non_null(strstr(err.message, way ? "down" : "up"));
        }
    assert_int_equal(fst_coder_new(&c, &levels, graph, &err), FST_E_CONFIG);
    assert_int_equal(fst_coder_new_matrix(&c, &levels, 3, 3, &err), FST_E_CONFIG);
    assert_int_equal(fst_coder_new_predictions(&c, &levels, 3, 3, false, &err), FST_E_CONFIG);
    assert_int_equal(fst_coder_new_predictions(&c, &few, 3, 3, true, &err), FST_E_CONFIG);
    assert_int_equal(fst_coder_new_predictions(&c, &levels, 0, 3, true, &err), FST_E_LIMIT);
    assert_null(c);
}

/* ---- predictions ---- */

enum { ROWS = 40, CLASSES = 7, CELLS = ROWS * CLASSES };

/* What comes back of x against base; the number of bytes. */
static size_t rows_trip(const fst_codec *codec, bool probabilities, const float *in, const float *base,
                        const bool *known, float *out)
{
    fst_coder *c = NULL;
    const uint8_t *bytes;
    size_t len;
    fst_error err;
    ok(fst_coder_new_predictions(&c, codec, ROWS, CLASSES, probabilities, &err), &err);
    ok(fst_coder_encode_rows(c, in, base, known, NULL, &bytes, &len, &err), &err);
    assert_true(len <= fst_coder_most(c));
    uint8_t *copy = malloc(len);
    memcpy(copy, bytes, len);
    ok(fst_coder_decode_rows(c, copy, len, base, known, out, &err), &err);
    free(copy);
    fst_coder_free(c);
    return len;
}

static void make_rows(float *z, float *p, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, 8, "test.rows", index);
    for (int i = 0; i < CELLS; i++)
        z[i] = (float)(4 * fst_rng_normal(&r));
    fst_softmax(z, ROWS, CLASSES, 1, p);
}

static void assert_probable(const float *p)
{
    for (int r = 0; r < ROWS; r++) {
        double mass = 0;
        for (int j = 0; j < CLASSES; j++) {
            assert_true(p[r * CLASSES + j] >= 0);
            mass += (double)p[r * CLASSES + j];
        }
        assert_true(fabs(mass - 1) < 1e-6);
    }
}

/* Logits: no element is further off than half a step, and a step is that of the difference where there is a base. */
static void test_logits_against_a_base(void **state)
{
    static float z[CELLS], p[CELLS], base[CELLS], out[CELLS];
    static bool known[ROWS];
    const fst_codec whole = {.kind = FST_CODEC_INT8}, rows = {.kind = FST_CODEC_INT8, .per_channel = true};
    (void)state;
    make_rows(z, p, 0);
    for (int i = 0; i < CELLS; i++)
        base[i] = z[i] + 0.01f * (float)(i % 5 - 2);
    for (int r = 0; r < ROWS; r++)
        known[r] = true;
    assert_int_equal(rows_trip(&whole, false, z, NULL, NULL, out), 1 + 4 + CELLS);
    float step = largest(z, CELLS) / 127;
    for (int i = 0; i < CELLS; i++)
        assert_true(fabsf(out[i] - z[i]) <= step / 2 * 1.001f);
    assert_int_equal(rows_trip(&whole, false, z, base, known, out), 1 + 4 + CELLS);
    for (int i = 0; i < CELLS; i++)
        assert_true(fabsf(out[i] - z[i]) <= 0.02f / 127 / 2 * 1.1f);
    known[3] = false; /* its row alone is as coarse as without a base, with scales of each */
    assert_int_equal(rows_trip(&rows, false, z, base, known, out), 1 + 4 * ROWS + CELLS);
    for (int r = 0; r < ROWS; r++) {
        float its = (r == 3 ? largest(z + r * CLASSES, CLASSES) : 0.02f) / 127;
        for (int i = r * CLASSES; i < (r + 1) * CLASSES; i++)
            assert_true(fabsf(out[i] - z[i]) <= its / 2 * 1.1f);
    }
    assert_true(fabsf(out[3 * CLASSES] - z[3 * CLASSES]) > 0); /* it was not taken from the base */
}

/* What comes back of probabilities are probabilities, also where nothing is left of a row. */
static void test_probabilities_stay_such(void **state)
{
    static float z[CELLS], p[CELLS], base[CELLS], out[CELLS];
    static bool known[ROWS];
    const fst_codec codecs[] = {{.kind = FST_CODEC_F16}, {.kind = FST_CODEC_INT8}, {.kind = FST_CODEC_INT4}};
    (void)state;
    make_rows(z, p, 0);
    make_rows(z, base, 1);
    for (int r = 0; r < ROWS; r++)
        known[r] = r % 3;
    for (int i = 0; i < 3; i++) {
        rows_trip(&codecs[i], true, p, base, known, out);
        assert_probable(out);
        for (int k = 0; k < CELLS; k++)
            assert_true(fabsf(out[k] - p[k]) < (i == 0 ? 2e-3f : i == 1 ? 0.05f : 0.5f));
    }
    for (int j = 0; j < CLASSES; j++) /* beside a row that is sure: less than half of a seventh */
        p[j] = j ? 0.05f : 0.7f;
    p[CLASSES] = 1;
    memset(p + CLASSES + 1, 0, (CLASSES - 1) * sizeof *p);
    for (int j = 0; j < CLASSES; j++)
        p[2 * CLASSES + j] = 0.01f; /* no row of probabilities, but one of which nothing is left */
    rows_trip(&codecs[2], true, p, NULL, NULL, out);
    for (int j = 0; j < CLASSES; j++) {
        assert_true(out[j] == (j ? 0 : 1));
        assert_true(fabsf(out[2 * CLASSES + j] - 1.0f / CLASSES) < 1e-7f);
    }
}

/* Levels are those of CFD; rows that the reader has cost a bit each. */
static void test_levels(void **state)
{
    static float z[CELLS], p[CELLS], out[CELLS], again[CELLS];
    static uint16_t level[CELLS];
    static bool known[ROWS];
    (void)state;
    make_rows(z, p, 0);
    for (int r = 0; r < ROWS; r++)
        known[r] = true;
    for (int bits = 1; bits <= FST_CFD_MAX_BITS; bits++) {
        const fst_codec codec = {.kind = FST_CODEC_LEVELS, .bits = bits};
        size_t each = bits == 1 ? 3 : (size_t)bits * (CLASSES - 1); /* 7 classes in 3 bits */
        assert_int_equal(rows_trip(&codec, true, p, NULL, NULL, out), 1 + (1 + ROWS * each + 7) / 8);
        fst_cfd_quantise(p, ROWS, CLASSES, bits, level);
        fst_cfd_values(level, ROWS, CLASSES, bits, again);
        assert_memory_equal(out, again, sizeof out);
        assert_probable(out);
        assert_int_equal(rows_trip(&codec, true, p, p, known, again), 1 + (1 + ROWS + 7) / 8);
        assert_memory_equal(out, again, sizeof out);
        assert_int_equal(rows_trip(&codec, true, p, out, known, again) > 1 + (1 + ROWS + 7) / 8,
                         false); /* also against what came back */
        assert_memory_equal(out, again, sizeof out);
    }
    fst_coder *c = NULL;
    const uint8_t *bytes;
    size_t len;
    fst_error err;
    ok(fst_coder_new_predictions(&c, &(fst_codec){.kind = FST_CODEC_LEVELS, .bits = 2}, ROWS, CLASSES, true, &err),
       &err);
    assert_int_equal(fst_coder_encode_rows(c, z, NULL, NULL, NULL, &bytes, &len, &err), FST_E_NUMERIC); /* logits */
    memset(p, 0, CLASSES * sizeof *p);
    assert_int_equal(fst_coder_encode_rows(c, p, NULL, NULL, NULL, &bytes, &len, &err), FST_E_NUMERIC);
    fst_coder_free(c);
}

/* ---- messages ---- */

enum { CLIENTS = 3 };
static float start[COUNT];

static fst_strategy *strategy_of(const fst_codecs *codecs, fst_fed_state *global)
{
    fst_strategy *s = NULL;
    fst_error err;
    ok(fst_fed_state_init(global, fst_graph_fed_size(graph), &err), &err);
    for (int i = 0; i < COUNT; i++)
        global->params[i] = start[i] = 1.5f * x[i];
    const fst_server_env env = {
        .clients = CLIENTS, .classes = OUT, .global = global, .graph = graph, .codecs = *codecs};
    ok(fst_strategy_new(&s, fst_strategy_find("fedavg"), NULL, 0, &env, &err), &err);
    return s;
}

/* An update of a client whose model moved by x, as a client codes it. */
static void fold_one(fst_strategy *s, uint32_t client, const fst_codec *up, fst_error *err, fst_status want)
{
    static uint8_t bytes[8 * COUNT];
    fst_message m = fst_message_of("state");
    char name[FST_MESSAGE_NAME];
    m.client = client;
    m.round = m.base = s->round;
    m.samples = 1;
    snprintf(name, sizeof name, "params:%s", fst_codec_name(up->kind));
    size_t len = encode(up, bytes);
    ok(fst_message_add(&m, name, FST_U8, FST_SHAPE((int64_t)len), bytes, err), err);
    ok(fst_message_add(&m, "buffers", FST_F32, FST_SHAPE(0), NULL, err), err);
    ok(fst_message_add(&m, "counters", FST_I64, FST_SHAPE(0), NULL, err), err);
    assert_int_equal(fst_strategy_fold(s, &m, err), want);
    if (!want)
        assert_int_equal(fst_strategy_raw_bytes(s, &m), 4 * COUNT);
}

/* The server adds what it decodes to what it sent, and only what was agreed on. */
static void test_up(void **state)
{
    static float moved[COUNT];
    const fst_codecs codecs = {.up = {.kind = FST_CODEC_INT8}};
    fst_fed_state global = {0};
    fst_error err;
    fst_message down;
    (void)state;
    fst_strategy *s = strategy_of(&codecs, &global);
    round_trip(&codecs.up, x, moved, NULL);
    fst_strategy_begin(s, 0);
    ok(fst_strategy_down(s, 0, &down, &err), &err);
    assert_non_null(fst_message_find(&down, "params"));
    assert_int_equal(fst_strategy_raw_bytes(s, &down), fst_message_bytes(&down));
    fold_one(s, 0, &(fst_codec){.kind = FST_CODEC_F16}, &err, FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "params:int8"));
    fold_one(s, 0, &codecs.up, &err, FST_OK);
    ok(fst_strategy_aggregate(s, NULL, NULL, &err), &err);
    for (int i = 0; i < COUNT; i++)
        assert_true(global.params[i] == start[i] + moved[i]);
    fst_strategy_free(s);
    fst_fed_state_release(&global);
}

/* What goes down is what the server's own model is then; those who were in the last step get its change, others all. */
static void test_down(void **state)
{
    static float sent[COUNT], step[COUNT];
    const fst_codecs codecs = {.up = {.kind = FST_CODEC_INT8},
                               .down = {.kind = FST_CODEC_TOP_K, .share = 0.1, .feedback = true, .change = true}};
    fst_fed_state global = {0};
    fst_error err;
    fst_message in, out;
    fst_buf saved = {0};
    (void)state;
    fst_strategy *s = strategy_of(&codecs, &global);
    for (uint64_t round = 0; round < 3; round++) {
        fst_strategy_begin(s, round);
        ok(fst_strategy_down(s, 0, &in, &err), &err);
        ok(fst_strategy_down(s, 1, &out, &err), &err);
        const fst_message_tensor *whole = fst_message_find(&out, "params"),
                                 *change = fst_message_find(&in, "step:top_k"),
                                 *version = fst_message_find(&in, "version");
        assert_non_null(whole);
        assert_int_equal(*(const uint64_t *)version->data, round);
        assert_memory_equal(whole->data, global.params, sizeof sent);
        assert_int_equal(change != NULL, round > 0);
        if (change) {
            fst_coder *c = NULL;
            ok(fst_coder_new(&c, &codecs.down, graph, &err), &err);
            ok(fst_coder_decode(c, change->data, (size_t)change->shape.dim[0], step, &err), &err);
            fst_coder_free(c);
            assert_true(fst_message_bytes(&in) < 4 * COUNT / 8);
            assert_int_equal(fst_strategy_raw_bytes(s, &in), 4 * COUNT);
            for (int i = 0; i < COUNT; i++)
                assert_true(global.params[i] == sent[i] + step[i]);
        }
        memcpy(sent, global.params, sizeof sent);
        fold_one(s, 0, &codecs.up, &err, FST_OK);
        ok(fst_strategy_aggregate(s, NULL, NULL, &err), &err);
        saved.len = 0;
        ok(fst_strategy_save(s, &saved, &err), &err);
    }
    for (size_t n = 0; n < saved.len; n += saved.len / 97)
        assert_int_equal(fst_strategy_load(s, saved.data, n, &err), FST_E_FORMAT);
    ok(fst_strategy_load(s, saved.data, saved.len, &err), &err);
    fst_buf_release(&saved);
    fst_strategy_free(s);
    fst_fed_state_release(&global);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_precision_is_exact),
        cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_stochastic_rounding),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_low_rank),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_refused_by_name),
        cmocka_unit_test(test_refused_of_predictions),
        cmocka_unit_test(test_logits_against_a_base),
        cmocka_unit_test(test_probabilities_stay_such),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_up),
        cmocka_unit_test(test_down),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
