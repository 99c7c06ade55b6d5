/* A source over arrays that the caller keeps alive. It copies nothing and frees nothing of theirs. */
#include "formats.h"

static const fst_source_vtable vtable = {"memory", fst__held_get, fst__held_close};

fst_status fst_source_from_memory(fst_source **out, const char *name, fst_dtype dtype, const fst_shape *shape,
                                  size_t count, const void *x, const int32_t *labels, int classes, fst_error *err)
{
    fst__held *h = NULL;
    size_t bytes = 0;
    if (dtype != FST_U8 && dtype != FST_F32)
        return fst_fail(err, FST_E_ARGUMENT, "%s: samples are U8 or F32, not %s", name, fst_dtype_name(dtype));
    if (classes < 0 || classes > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_ARGUMENT, "%s: classes must be 0 (as the labels show) ... %d, not %d", name,
                        FST_MAX_CLASSES, classes);
    fst_status s = fst__held_new(&h, &vtable, name, err);
    if (s)
        return s;
    s = fst__held_describe(h, dtype, shape, count, &bytes, err);
    h->data = x;
    if (!s)
        s = fst__held_finish(h, labels, count, classes, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}
