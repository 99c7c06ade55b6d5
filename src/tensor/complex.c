/*
 * Complex arrays as real ones: this library's tensors are real, and signals have I and Q as channels. (N, L) becomes
 * (N, 2, L): all real parts of a row, then all imaginary ones. An array that has channels already, (N, C, ...), becomes
 * (N, 2C, ...): two for each, one after the other. It is a matter of order alone; no value changes.
 */
#include <string.h>

#include "npy_private.h"

enum { MOST_CHANNELS = 4 }; /* (N, H, W) of more rows than this has no channels */

bool fst__complex_shape(fst_shape *s, size_t *inner)
{
    bool channels = s->rank > 3 || (s->rank == 3 && s->dim[1] <= MOST_CHANNELS);
    int first = channels ? 2 : 1; /* of the dimensions that stay together */
    if (!channels && s->rank == FST_MAX_RANK)
        return false;
    fst_shape block = {0};
    for (int i = first; i < s->rank; i++)
        block.dim[block.rank++] = s->dim[i];
    *inner = (size_t)fst_shape_count(&block);
    if (channels)
        return !__builtin_mul_overflow(s->dim[1], 2, &s->dim[1]);
    if (s->rank == 0) { /* one number is a row of one */
        *s = FST_SHAPE(2);
        return true;
    }
    for (int i = s->rank++; i > 1; i--)
        s->dim[i] = s->dim[i - 1];
    s->dim[1] = 2;
    return true;
}

fst_status fst__split_complex(void *data, size_t count, size_t inner, size_t size, fst_error *err)
{
    size_t bytes = 2 * inner * size;
    unsigned char *to = data, *from = fst_alloc(bytes);
    if (!from)
        return fst_fail_memory(err, bytes);
    for (size_t at = 0; inner && at < count; at += inner, to += bytes) {
        memcpy(from, to, bytes);
        for (size_t i = 0; i < inner; i++) {
            memcpy(to + i * size, from + 2 * i * size, size);
            memcpy(to + (inner + i) * size, from + (2 * i + 1) * size, size);
        }
    }
    fst_free(from);
    return FST_OK;
}
