/* Is what a pickle has become the same in memory and in its file? For test_pickle.c and fuzz/fuzz_pickle.c. */
#ifndef FEDSTILL_TESTS_PICKLE_SAME_H
#define FEDSTILL_TESTS_PICKLE_SAME_H

#include <stdlib.h>

#include "pickle_private.h"

/* The n bytes at b, which are f's, are those at a. */
static bool same_bytes(const fst_pickle *f, const void *a, const void *b, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    fst_error err;
    bool same = copy && !fst_pickle_copy(f, copy, b, n, &err) && (!n || !memcmp(copy, a, n));
    free(copy);
    return same;
}

/* b is f's. Walks no deeper than 20, and no more than *budget values. */
static bool same_values(const fst_pickle *f, const fst_pickle_value *a, const fst_pickle_value *b, int depth,
                        int *budget)
{
    if (depth > 20 || --*budget < 0)
        return true;
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case FST_PICKLE_BOOL:
    case FST_PICKLE_INT:
        return a->integer == b->integer;
    case FST_PICKLE_FLOAT:
        return !memcmp(&a->real, &b->real, sizeof a->real);
    case FST_PICKLE_TEXT:
    case FST_PICKLE_BYTES:
        return a->text.length == b->text.length && same_bytes(f, a->text.data, b->text.data, a->text.length);
    case FST_PICKLE_ARRAY:
        return a->array->dtype == b->array->dtype && fst_shape_equal(&a->array->shape, &b->array->shape) &&
               same_bytes(f, a->array->data, b->array->data,
                          (size_t)fst_shape_count(&a->array->shape) * fst_dtype_size(a->array->dtype));
    case FST_PICKLE_TUPLE:
    case FST_PICKLE_LIST:
    case FST_PICKLE_DICT:
        for (size_t i = 0; i < a->list.count && i < b->list.count; i++)
            if (!same_values(f, a->list.items[i], b->list.items[i], depth + 1, budget))
                return false;
        return a->list.count == b->list.count;
    default:
        return true;
    }
}

#endif
