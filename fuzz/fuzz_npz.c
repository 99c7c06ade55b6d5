/* One npz archive: every array that it lists is read, whole, its first and last rows alone, and as texts. */
#include <string.h>

#include "npy_private.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* The first and the last row of an array are those of the whole. */
static void read_rows(const unsigned char *data, size_t size, const char *name, const fst_array *whole)
{
    const fst_shape *shape = &whole->shape;
    size_t of = shape->rank ? (size_t)shape->dim[0] : 0, bytes;
    fst_array a = {0};
    fst_error err;
    if (of < 2 || of > UINT32_MAX)
        return;
    bytes = (size_t)fst_shape_count(shape) / of * fst_dtype_size(whole->dtype);
    const fst_rows ends = {(uint32_t[]){0, (uint32_t)(of - 1)}, 2, of};
    if (fst__npz_read_memory(&a, "fuzz", data, size, name, &ends, 1 << 20, &err) || a.shape.dim[0] != 2 ||
        memcmp(a.data, whole->data, bytes) ||
        memcmp((const char *)a.data + bytes, (const char *)whole->data + (of - 1) * bytes, bytes))
        __builtin_trap();
    fst_array_release(&a);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char **names = NULL;
    size_t count = 0;
    fst_error err;
    if (fst__npz_list_memory("fuzz", data, size, &names, &count, &err))
        return 0;
    for (size_t i = 0; i < count && i < 16; i++) {
        fst_array a = {0};
        if (!fst__npz_read_memory(&a, "fuzz", data, size, names[i], NULL, 1 << 20, &err))
            read_rows(data, size, names[i], &a);
        fst_array_release(&a);
        char **texts = NULL;
        size_t n = 0;
        if (!fst__npz_texts_memory(&texts, &n, "fuzz", data, size, names[i], 1 << 20, &err) && n && !texts[n - 1])
            __builtin_trap();
        fst_free(texts);
    }
    fst_free(names);
    return 0;
}
