/* Samples to files that the array format reads (array.c). Nothing is converted: what comes back has the same digest. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

enum { MOST_ARRAYS = 4 };

/* The arrays of a file on their way. */
struct arrays {
    fst_tensor t[MOST_ARRAYS];
    size_t count;
    void *own[MOST_ARRAYS]; /* gathered copies */
    char **names;           /* of classes */
};

static void arrays_release(struct arrays *a)
{
    for (int i = 0; i < MOST_ARRAYS; i++)
        fst_free(a->own[i]);
    fst_free(a->names);
}

static fst_status add(struct arrays *a, const char *name, fst_dtype dtype, const fst_shape *sample, size_t count,
                      void **data, fst_error *err)
{
    fst_shape shape = {.rank = 1, .dim = {(int64_t)count}};
    for (int i = 0; i < sample->rank; i++)
        shape.dim[shape.rank++] = sample->dim[i];
    size_t bytes = (size_t)fst_shape_count(&shape) * fst_dtype_size(dtype);
    *data = a->own[a->count] = fst_alloc(bytes);
    if (!*data)
        return fst_fail_memory(err, bytes);
    a->t[a->count++] = (fst_tensor){name, dtype, shape, *data};
    return FST_OK;
}

static void borrow(struct arrays *a, const fst_source *s)
{
    fst_shape shape = {.rank = 1, .dim = {(int64_t)s->count}};
    for (int i = 0; i < s->shape.rank; i++)
        shape.dim[shape.rank++] = s->shape.dim[i];
    a->t[a->count++] = (fst_tensor){"x", s->dtype, shape, (void *)(uintptr_t)((const fst__held *)s)->data};
}

static fst_status gather(struct arrays *a, const fst_source *s, const uint32_t *index, size_t count, fst_error *err)
{
    static const fst_shape scalar = {0};
    size_t bytes = fst_source_sample_bytes(s);
    void *x = NULL, *y = NULL, *snr = NULL, *group = NULL;
    bool whole = !index && s->v->get == fst__held_get; /* lies in memory as it is to be written */
    fst_status st = FST_OK;
    if (whole)
        borrow(a, s);
    else
        st = add(a, "x", s->dtype, &s->shape, count, &x, err);
    if (!st)
        st = add(a, "y", FST_I32, &scalar, count, &y, err);
    if (!st && s->snr)
        st = add(a, "snr", FST_F32, &scalar, count, &snr, err);
    if (!st && s->group)
        st = add(a, "burst", FST_I64, &scalar, count, &group, err);
    for (size_t i = 0; !st && i < count; i++) {
        size_t from = index ? index[i] : i;
        if (!whole) /* refuses a position that is none */
            st = s->v->get(s, from, (unsigned char *)x + i * bytes, err);
        if (st)
            break;
        ((int32_t *)y)[i] = s->labels[from];
        if (snr)
            ((float *)snr)[i] = s->snr[from];
        if (group)
            ((int64_t *)group)[i] = s->group[from];
    }
    return st;
}

fst_status fst__class_names(const fst_source *s, char ***out, fst_error *err)
{
    enum { DIGITS = 24 };
    size_t n = (size_t)s->classes;
    if (s->class_names)
        return fst__names_copy(out, s->class_names, n, err);
    char **names = fst_alloc(n * (sizeof *names + DIGITS));
    if (!names)
        return fst_fail_memory(err, n * (sizeof *names + DIGITS));
    for (size_t i = 0; i < n; i++) {
        names[i] = (char *)(names + n) + i * DIGITS;
        snprintf(names[i], DIGITS, "%zu", i);
    }
    *out = names;
    return FST_OK;
}

static fst_status write_safetensors(const struct arrays *a, int classes, const char *path, char *digest, fst_error *err)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (int i = 0; ok && i < classes; i++)
        ok = !json_array_append_new(list, json_string(a->names[i]));
    char *text = ok ? json_dumps(list, 0) : NULL;
    json_decref(list);
    if (!text)
        return fst_fail(err, FST_E_FORMAT, "%s: a name of a class is not UTF-8", path);
    fst_pair meta[] = {{"format", FST_DATA_FORMAT}, {"classes", text}};
    fst_status s = fst_safetensors_write(path, meta, 2, a->t, a->count, digest, err);
    free(text);
    return s;
}

fst_status fst_source_write(const fst_source *s, const uint32_t *index, size_t count, const char *path,
                            char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct arrays a = {0};
    bool npz = fst__ends_with(path, ".npz");
    if (!npz && !fst__ends_with(path, ".safetensors"))
        return fst_fail(err, FST_E_CONFIG, "%s: samples are written to .safetensors or .npz", path);
    count = index ? count : s->count;
    if (count == 0)
        return fst_fail(err, FST_E_ARGUMENT, "%s: there are no samples to write", path);
    fst_status st = gather(&a, s, index, count, err);
    if (!st)
        st = fst__class_names(s, &a.names, err);
    if (!st)
        st = npz ? fst_npz_write(path, a.t, a.count, "classes", a.names, (size_t)s->classes, digest, err)
                 : write_safetensors(&a, s->classes, path, digest, err);
    arrays_release(&a);
    return st;
}
