/* One pickle; its first byte says whether PyTorch's globals are known. Every value is walked, not too deep. */
#include <string.h>

#include "pickle_private.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static volatile unsigned char seen;

static void walk(const fst_pickle_value *v, int depth, int *budget)
{
    if (depth > 20 || --*budget < 0)
        return;
    if (v->kind == FST_PICKLE_TEXT || v->kind == FST_PICKLE_BYTES) {
        for (size_t i = 0; i < v->text.length; i++)
            seen ^= (unsigned char)v->text.data[i];
    } else if (v->kind == FST_PICKLE_ARRAY) {
        size_t bytes = (size_t)fst_shape_count(&v->array->shape) * fst_dtype_size(v->array->dtype);
        for (size_t i = 0; i < bytes; i++)
            seen ^= ((const unsigned char *)v->array->data)[i];
    } else if (v->kind == FST_PICKLE_TUPLE || v->kind == FST_PICKLE_LIST || v->kind == FST_PICKLE_DICT) {
        if (v->kind == FST_PICKLE_DICT && v->list.count % 2)
            __builtin_trap();
        for (size_t i = 0; i < v->list.count; i++)
            walk(v->list.items[i], depth + 1, budget);
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_pickle *p = NULL;
    fst_error err;
    int budget = 10000;
    if (size < 1)
        return 0;
    if (!fst__pickle_parse(&p, "fuzz", data + 1, size - 1, data[0] & 1, 1 << 24, NULL, &err))
        walk(fst_pickle_root(p), 0, &budget);
    fst_pickle_free(p);
    return 0;
}
