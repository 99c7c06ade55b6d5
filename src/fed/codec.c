/* Coders of spans: the frame around what each kind of codec writes. Nothing here knows models, messages or rounds.
 *
 * Coded bytes are a mark, then a body: 0, the body as the kind wrote it; 1, the body packed by zstd. All memory is
 * taken when a coder is made, so that what comes from outside can make it allocate nothing. */
#include <math.h>
#include <string.h>

#include "codec_private.h"

enum { LEVEL = 3 };

static const struct fst__codec_type *const types[] = {
    [FST_CODEC_F16] = &fst__codec_f16,           [FST_CODEC_INT8] = &fst__codec_int8,
    [FST_CODEC_INT4] = &fst__codec_int4,         [FST_CODEC_TOP_K] = &fst__codec_top_k,
    [FST_CODEC_LOW_RANK] = &fst__codec_low_rank, [FST_CODEC_LEVELS] = &fst__codec_levels,
};
enum { TYPES = sizeof types / sizeof *types };

const char *fst_codec_name(fst_codec_kind kind)
{
    return kind > FST_CODEC_NONE && (size_t)kind < TYPES ? types[kind]->name : "none";
}

fst_status fst_codec_check(const fst_codec *c, fst_error *err)
{
    if (c->kind < FST_CODEC_NONE || (size_t)c->kind >= TYPES || c->values < FST_VALUES_F32 ||
        c->values > FST_VALUES_INT8)
        return fst_fail(err, FST_E_CONFIG, "there is no such codec");
    if (c->kind == FST_CODEC_TOP_K && !(c->share > 0 && c->share <= 1))
        return fst_fail(err, FST_E_CONFIG, "top_k: share is %g; above 0 and at most 1 is needed", c->share);
    if (c->kind == FST_CODEC_LOW_RANK && !(c->energy > 0 && c->energy <= 1))
        return fst_fail(err, FST_E_CONFIG, "low_rank: energy is %g; above 0 and at most 1 is needed", c->energy);
    if (c->kind == FST_CODEC_LOW_RANK && c->values == FST_VALUES_INT8)
        return fst_fail(err, FST_E_CONFIG, "low_rank: values are f32 or f16");
    if (c->kind == FST_CODEC_LEVELS && (c->bits < 1 || c->bits > FST_CFD_MAX_BITS))
        return fst_fail(err, FST_E_CONFIG, "levels: bits is %d; 1 to %d are allowed", c->bits, (int)FST_CFD_MAX_BITS);
    return FST_OK;
}

/* ---- making ---- */

static bool make_top_k(fst_coder *c)
{
    double want = ceil(c->codec.share * (double)c->count);
    c->keep = want < 1 ? 1 : want > (double)c->count ? c->count : (size_t)want;
    c->tally = fst_calloc((size_t)1 << 16, sizeof *c->tally);
    c->place = fst_calloc(c->keep, sizeof *c->place);
    c->value = fst_calloc(c->keep, sizeof *c->value);
    return c->tally && c->place && c->value;
}

static bool make_low_rank(fst_coder *c)
{
    c->value = fst_calloc(c->count, sizeof *c->value);
    c->rank = fst_calloc(c->matrices.count, sizeof *c->rank);
    return c->value && c->rank;
}

static bool make_zstd(fst_coder *c)
{
    if (!c->codec.zstd)
        return true;
    c->packed_room = ZSTD_compressBound(c->most);
    c->packed = fst_alloc(1 + c->packed_room);
    c->press = ZSTD_createCCtx();
    c->unpress = ZSTD_createDCtx();
    return c->packed && c->press && c->unpress;
}

static bool make_rows(fst_coder *c)
{
    c->value = fst_calloc(c->count, sizeof *c->value);
    if (c->codec.kind != FST_CODEC_LEVELS)
        return c->value;
    c->level = fst_calloc(c->count, sizeof *c->level);
    c->known = fst_calloc(c->count, sizeof *c->known);
    return c->value && c->level && c->known;
}

/* c->matrices are made. */
static fst_status finish(fst_coder *c, fst_coder **out, fst_error *err)
{
    bool ok = true;
    c->count = c->matrices.params;
    if (!c->count || c->count > UINT32_MAX / 8) {
        fst_coder_free(c);
        return fst_fail(err, FST_E_LIMIT, "a span of %zu floats cannot be coded", c->count);
    }
    if (c->codec.kind == FST_CODEC_TOP_K)
        ok = make_top_k(c);
    if (c->codec.kind == FST_CODEC_LOW_RANK)
        ok = make_low_rank(c);
    if (c->rows)
        ok = make_rows(c);
    c->most = types[c->codec.kind]->most(c);
    c->body = fst_alloc(1 + c->most);
    if (!ok || !c->body || !make_zstd(c)) {
        size_t bytes = c->most;
        fst_coder_free(c);
        return fst_fail_memory(err, bytes);
    }
    *out = c;
    return FST_OK;
}

static fst_status begin(fst_coder **out, const fst_codec *codec, fst_error *err)
{
    fst_status st = fst_codec_check(codec, err);
    if (!st && codec->kind == FST_CODEC_NONE)
        st = fst_fail(err, FST_E_ARGUMENT, "the codec none has no coder");
    if (st)
        return st;
    fst_coder *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->codec = *codec;
    *out = c;
    return FST_OK;
}

fst_status fst_coder_new(fst_coder **out, const fst_codec *codec, const fst_graph *graph, fst_error *err)
{
    fst_coder *c = NULL;
    fst_status st = codec->kind == FST_CODEC_LEVELS
                        ? fst_fail(err, FST_E_CONFIG, "levels codes probabilities, not the parameters of a network")
                        : begin(&c, codec, err);
    if (!st && (st = fst__matrices_init(&c->matrices, graph, err)))
        fst_coder_free(c);
    return st ? st : finish(c, out, err);
}

fst_status fst_coder_new_matrix(fst_coder **out, const fst_codec *codec, size_t rows, size_t columns, fst_error *err)
{
    fst_coder *c = NULL;
    fst_status st = codec->kind == FST_CODEC_LOW_RANK || codec->kind == FST_CODEC_LEVELS
                        ? fst_fail(err, FST_E_CONFIG, "%s does not code a matrix alone", fst_codec_name(codec->kind))
                        : begin(&c, codec, err);
    if (!st && (st = fst__matrices_init_one(&c->matrices, rows, columns, err)))
        fst_coder_free(c);
    return st ? st : finish(c, out, err);
}

fst_status fst_coder_new_predictions(fst_coder **out, const fst_codec *codec, size_t rows, int classes,
                                     bool probabilities, fst_error *err)
{
    fst_coder *c = NULL;
    if (codec->kind == FST_CODEC_TOP_K || codec->kind == FST_CODEC_LOW_RANK ||
        (codec->kind == FST_CODEC_LEVELS && !probabilities))
        return fst_fail(err, FST_E_CONFIG, "%s does not code %s", fst_codec_name(codec->kind),
                        probabilities ? "predictions" : "logits");
    if (!rows || classes < 1 || rows > UINT32_MAX / (size_t)classes)
        return fst_fail(err, FST_E_LIMIT, "predictions of %zu rows and %d classes cannot be coded", rows, classes);
    fst_status st = begin(&c, codec, err);
    if (!st && (st = fst__matrices_init_one(&c->matrices, rows, (size_t)classes, err)))
        fst_coder_free(c);
    if (st)
        return st;
    c->rows = c->most_rows = rows;
    c->classes = classes;
    c->probabilities = probabilities;
    return finish(c, out, err);
}

void fst_coder_free(fst_coder *c)
{
    if (!c)
        return;
    fst__matrices_release(&c->matrices);
    fst_free(c->body);
    fst_free(c->packed);
    fst_free(c->tally);
    fst_free(c->place);
    fst_free(c->value);
    fst_free(c->rank);
    fst_free(c->level);
    fst_free(c->known);
    ZSTD_freeCCtx(c->press);
    ZSTD_freeDCtx(c->unpress);
    fst_free(c);
}

size_t fst_coder_count(const fst_coder *c)
{
    return c->count;
}

size_t fst_coder_most(const fst_coder *c)
{
    return 1 + c->most;
}

/* ---- coding ---- */

enum { PLAIN, PRESSED };

fst_status fst_coder_encode(fst_coder *c, const float *x, fst_rng *rng, const uint8_t **out, size_t *len,
                            fst_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "element %zu is %g", i, (double)x[i]);
    fst_status st = types[c->codec.kind]->encode(c, x, rng, c->body + 1, &n, err);
    if (st)
        return st;
    c->body[0] = PLAIN;
    *out = c->body;
    *len = 1 + n;
    if (!c->press)
        return FST_OK;
    size_t got = ZSTD_compressCCtx(c->press, c->packed + 1, c->packed_room, c->body + 1, n, LEVEL);
    if (ZSTD_isError(got))
        return fst_fail(err, FST_E_MEMORY, "zstd: %s", ZSTD_getErrorName(got));
    if (got < n) {
        c->packed[0] = PRESSED;
        *out = c->packed;
        *len = 1 + got;
    }
    return FST_OK;
}

/* *data becomes the body in the coder's memory. One frame, which says how long it will be. */
static fst_status unpress(fst_coder *c, const uint8_t **data, size_t *len, fst_error *err)
{
    if (!c->unpress)
        return fst_fail(err, FST_E_FORMAT, "is packed by zstd, which was not agreed on");
    unsigned long long body = ZSTD_getFrameContentSize(*data, *len);
    if (body == ZSTD_CONTENTSIZE_ERROR || body == ZSTD_CONTENTSIZE_UNKNOWN || body > c->most)
        return fst_fail(err, FST_E_FORMAT, "is no frame of zstd of at most %zu bytes", c->most);
    size_t frame = ZSTD_findFrameCompressedSize(*data, *len);
    if (ZSTD_isError(frame) || frame != *len)
        return fst_fail(err, FST_E_FORMAT, "is not one frame of zstd");
    size_t got = ZSTD_decompressDCtx(c->unpress, c->body + 1, c->most, *data, *len);
    if (ZSTD_isError(got))
        return fst_fail(err, FST_E_FORMAT, "zstd: %s", ZSTD_getErrorName(got));
    *data = c->body + 1;
    *len = got;
    return FST_OK;
}

fst_status fst_coder_decode(fst_coder *c, const void *data, size_t len, float *x, fst_error *err)
{
    const uint8_t *body = data;
    fst_status st = FST_OK;
    if (len < 1 || body[0] > PRESSED)
        st = fst_fail(err, FST_E_FORMAT, "%zu bytes are not coded as %s", len, fst_codec_name(c->codec.kind));
    bool pressed = !st && body[0] == PRESSED;
    body++;
    len -= !st;
    if (pressed)
        st = unpress(c, &body, &len, err);
    if (!st && len > c->most)
        st = fst_fail(err, FST_E_FORMAT, "%zu bytes, such a span has at most %zu", len, c->most);
    if (!st)
        st = types[c->codec.kind]->decode(c, body, len, x, err);
    for (size_t i = 0; !st && i < c->count; i++) /* of scales and factors that are finite */
        if (!isfinite(x[i]))
            st = fst_fail(err, FST_E_NUMERIC, "element %zu is %g", i, (double)x[i]);
    return st;
}
