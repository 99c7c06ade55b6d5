/* One pickle; its first byte says whether PyTorch's globals are known. Every value is walked, not too deep. Without
 * them the same is read from a file, from which texts stay away that are longer than the rest of that byte. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tensor/pickle_same.h"

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

/* p NULL: it was refused. */
static void from_file(const fst_pickle *p, const unsigned char *data, size_t size, size_t hole)
{
    char path[40];
    fst_pickle *f = NULL;
    fst_error err;
    int budget = 10000, fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, size) == (ssize_t)size) {
        fst_status s = fst__pickle_open(&f, path, 1 << 24, hole, &err);
        if (!s != !!p || (p && !same_values(f, fst_pickle_root(p), fst_pickle_root(f), 0, &budget)))
            __builtin_trap();
    }
    fst_pickle_free(f);
    close(fd);
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
    if (size > 1 && !(data[0] & 1))
        from_file(p, data + 1, size - 1, 1 + (data[0] >> 1));
    fst_pickle_free(p);
    return 0;
}
