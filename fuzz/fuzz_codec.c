/* Coded spans as they come over the wire: what is accepted is finite, and where nothing more is lost by coding it once
 * more it comes back the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/codec.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void must(bool fine)
{
    if (!fine)
        abort();
}

static fst_graph *network(void)
{
    fst_graph *g = NULL;
    must(!fst_graph_new(&g, NULL));
    fst_value x = fst_graph_linear(g, fst_graph_input(g, &FST_SHAPE(5)), "a", 9, true);
    x = fst_graph_linear(g, fst_graph_relu(g, x), "b", 3, true);
    must(!fst_graph_finish(g, x, NULL));
    return g;
}

/* The first byte says which codec, the next whether zstd is agreed on, scales, and values. */
static fst_codec codec_of(const unsigned char *data)
{
    fst_codec c = {.kind = (fst_codec_kind)(FST_CODEC_F16 + data[0] % 5),
                   .zstd = data[1] & 1,
                   .per_channel = data[1] & 2,
                   .values = (fst_codec_values)(data[1] / 4 % 3),
                   .share = 0.25,
                   .energy = 1};
    if (c.kind == FST_CODEC_LOW_RANK && c.values == FST_VALUES_INT8)
        c.values = FST_VALUES_F16;
    return c;
}

static void again(fst_coder *c, const fst_codec *codec, const float *x, size_t n)
{
    const uint8_t *bytes = NULL;
    size_t len = 0;
    float *y = malloc(n * sizeof *y);
    unsigned char *copy = malloc(fst_coder_most(c));
    must(y && copy);
    fst_status st = fst_coder_encode(c, x, NULL, &bytes, &len, NULL);
    if (!st) {
        must(len <= fst_coder_most(c));
        st = fst_coder_decode(c, memcpy(copy, bytes, len), len, y, NULL);
    }
    must(!st || st == FST_E_NUMERIC);
    bool exact = codec->kind == FST_CODEC_F16 || (codec->kind == FST_CODEC_TOP_K && codec->values != FST_VALUES_INT8);
    for (size_t i = 0; !st && exact && i < n; i++)
        must(x[i] == y[i]);
    free(y);
    free(copy);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static fst_graph *g;
    fst_coder *c = NULL;
    fst_error err = {0};
    if (size < 2)
        return 0;
    g = g ? g : network();
    const fst_codec codec = codec_of(data);
    must(!fst_coder_new(&c, &codec, g, &err));
    size_t n = fst_coder_count(c), len = size - 2;
    float *x = malloc(n * sizeof *x);
    unsigned char *exact = malloc(len ? len : 1); /* so that a sanitizer sees what is read beyond */
    if (x && exact) {
        memcpy(exact, data + 2, len);
        uint64_t before = fst_alloc_count();
        fst_status st = fst_coder_decode(c, exact, len, x, &err);
        must(fst_alloc_count() == before);
        must(st ? (st == FST_E_FORMAT || st == FST_E_NUMERIC) && err.message[0] : true);
        for (size_t i = 0; !st && i < n; i++)
            must(isfinite(x[i]));
        if (!st)
            again(c, &codec, x, n);
    }
    free(x);
    free(exact);
    fst_coder_free(c);
    return 0;
}
