/* Which format a file of weights has; safetensors and PyTorch's own as two of them. Parsing is the tensor layer's. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "weights.h"

/* ---- safetensors ------------------------------------------------------------------------------- */

static bool safetensors_probe(const unsigned char *head, size_t len)
{
    return len > 8 && head[8] == '{';
}

static fst_status safetensors_open(void **file, const char *name, const void *data, size_t len, const char *prefix,
                                   fst_error *err)
{
    (void)prefix; /* all tensors are there by their full names */
    fst_safetensors *f = NULL;
    fst_status s = data ? fst_safetensors_open_memory(&f, name, data, len, err) : fst_safetensors_open(&f, name, err);
    if (!s)
        *file = f;
    return s;
}

static void safetensors_free(void *file)
{
    fst_safetensors_free(file);
}

static size_t safetensors_count(const void *file)
{
    return fst_safetensors_count(file);
}

static fst_tensor safetensors_at(const void *file, size_t i)
{
    return fst_safetensors_at(file, i);
}

static fst_status safetensors_read(const void *file, size_t i, void *dst, size_t bytes, fst_error *err)
{
    return fst_safetensors_read(file, i, dst, bytes, err);
}

static fst_status safetensors_read_f32(const void *file, size_t i, float *dst, size_t count, fst_error *err)
{
    return fst_safetensors_read_f32(file, i, dst, count, err);
}

static const char *safetensors_meta(const void *file, const char *key)
{
    return fst_safetensors_meta(file, key);
}

static const struct fst__weights_format safetensors = {
    .name = "safetensors",
    .probe = safetensors_probe,
    .open = safetensors_open,
    .free = safetensors_free,
    .count = safetensors_count,
    .at = safetensors_at,
    .read = safetensors_read,
    .read_f32 = safetensors_read_f32,
    .meta = safetensors_meta,
};

/* ---- PyTorch's files ------------------------------------------------------------------------------ */

static fst_status pth_open(void **file, const char *name, const void *data, size_t len, const char *prefix,
                           fst_error *err)
{
    fst_pth *p = NULL;
    fst_status s = data ? fst_pth_parse(&p, name, data, len, prefix, FST_ARRAY_MAX_BYTES, err)
                        : fst_pth_read(&p, name, prefix, FST_ARRAY_MAX_BYTES, err);
    if (!s)
        *file = p;
    return s;
}

static void pth_free(void *file)
{
    fst_pth_free(file);
}

static size_t pth_count(const void *file)
{
    return fst_pth_count(file);
}

static fst_tensor pth_at(const void *file, size_t i)
{
    fst_tensor t = fst_pth_at(file, i);
    t.data = NULL;
    return t;
}

static fst_status pth_read(const void *file, size_t i, void *dst, size_t bytes, fst_error *err)
{
    fst_tensor t = fst_pth_at(file, i);
    size_t own = (size_t)fst_shape_count(&t.shape) * fst_dtype_size(t.dtype);
    if (bytes != own)
        return fst_fail(err, FST_E_MISMATCH, "tensor \"%s\" has %zu bytes, %zu are wanted", t.name, own, bytes);
    if (bytes)
        memcpy(dst, t.data, bytes);
    return FST_OK;
}

static fst_status pth_read_f32(const void *file, size_t i, float *dst, size_t count, fst_error *err)
{
    fst_tensor t = fst_pth_at(file, i);
    if ((uint64_t)fst_shape_count(&t.shape) != count)
        return fst_fail(err, FST_E_MISMATCH, "tensor \"%s\" has %lld elements, %zu are wanted", t.name,
                        (long long)fst_shape_count(&t.shape), count);
    fst_f32_from(dst, t.dtype, t.data, count);
    return FST_OK;
}

static const struct fst__weights_format pth = {
    .name = "PyTorch",
    .probe = fst_pth_probe,
    .open = pth_open,
    .free = pth_free,
    .count = pth_count,
    .at = pth_at,
    .read = pth_read,
    .read_f32 = pth_read_f32,
};

/* ---- by content ---------------------------------------------------------------------------------- */

static const struct fst__weights_format *const formats[] = {
    &safetensors,
    &pth,
#ifdef FST_WITH_ONNX
    &fst__weights_onnx,
#endif
};

fst_status fst__weights_head(const char *path, unsigned char *head, size_t *len, fst_error *err)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return fst_fail(err, FST_E_IO, "%s: is a folder; a file of weights is needed", path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* a pipe would wait, and gives its bytes once */
        return fst_fail(err, FST_E_IO, "%s: not a file", path);
    FILE *f = fopen(path, "rb");
    if (!f)
        return fst_fail_errno(err, "%s", path);
    *len = fread(head, 1, FST__WEIGHTS_HEAD, f);
    fst_status s = ferror(f) ? fst_fail_errno(err, "%s", path) : FST_OK;
    fclose(f);
    return s;
}

fst_status fst__weights_open(struct fst__weights *w, const char *name, const void *data, size_t len, const char *prefix,
                             fst_error *err)
{
    unsigned char head[FST__WEIGHTS_HEAD];
    struct fst__weights n = {0};
    size_t have = len < sizeof head ? len : sizeof head;
    if (data)
        memcpy(head, data, have);
    fst_status s = data ? FST_OK : fst__weights_head(name, head, &have, err);
    if (s)
        return s;
    const struct fst__weights_format *found = NULL;
    for (size_t i = 0; !found && i < sizeof formats / sizeof *formats; i++)
        if (formats[i]->probe(head, have))
            found = formats[i];
    const char *other = found ? NULL : fst__foreign_kind(head, have);
    if (other)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s is %s", name, other);
    if (!found)
        return fst_fail(err, FST_E_FORMAT, "%s: neither safetensors nor a file of torch.save nor ONNX, or cut off",
                        name);
    n.format = found;
    s = n.format->open(&n.file, name, data, len, prefix, err);
    if (!s && n.format->count(n.file) > FST__WEIGHTS_MAX)
        s = fst_fail(err, FST_E_LIMIT, "%s: %zu tensors, at most %d are mapped", name, n.format->count(n.file),
                     FST__WEIGHTS_MAX);
    if (s) {
        fst__weights_release(&n);
        return s;
    }
    *w = n;
    return FST_OK;
}

void fst__weights_release(struct fst__weights *w)
{
    if (w->file && w->format)
        w->format->free(w->file);
    *w = (struct fst__weights){0};
}
