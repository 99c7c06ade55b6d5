/* Which format a file of weights has, and safetensors as one of them. Parsing is the tensor layer's. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "weights.h"

/* ---- safetensors ------------------------------------------------------------------------------- */

static bool safetensors_probe(const unsigned char *head, size_t len)
{
    return len > 8 && head[8] == '{';
}

static fst_status safetensors_open(void **file, const char *name, const void *data, size_t len, fst_error *err)
{
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

static const fst_safetensors *safetensors_itself(const void *file)
{
    return file;
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
    .safetensors = safetensors_itself,
};

/* ---- by content ---------------------------------------------------------------------------------- */

static const struct fst__weights_format *const formats[] = {&safetensors};

/* What is known and not read; NULL for what is not known. */
static const char *unread_format(const unsigned char *head, size_t len)
{
    if (len > 8 && head[8] == '{')
        return NULL;
    if (len >= 4 && !memcmp(head, "PK\3\4", 4))
        return "a zip archive, as torch.save writes";
    if (len >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5)
        return "a pickle, as old versions of torch.save write";
    if (len >= 4 && !memcmp(head, "\x89HDF", 4))
        return "HDF5";
    if (len >= 4 && !memcmp(head, "GGUF", 4))
        return "GGUF";
    return NULL;
}

static fst_status read_head(const char *path, unsigned char *head, size_t *len, fst_error *err)
{
    struct stat st;
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

fst_status fst__weights_open(struct fst__weights *w, const char *name, const void *data, size_t len, fst_error *err)
{
    unsigned char head[FST__WEIGHTS_HEAD];
    struct fst__weights n = {.format = &safetensors}; /* also says what is wrong with a file of no format */
    size_t have = len < sizeof head ? len : sizeof head;
    if (data)
        memcpy(head, data, have);
    fst_status s = data ? FST_OK : read_head(name, head, &have, err);
    if (s)
        return s;
    const struct fst__weights_format *found = NULL;
    for (size_t i = 0; !found && i < sizeof formats / sizeof *formats; i++)
        if (formats[i]->probe(head, have))
            found = formats[i];
    const char *other = found ? NULL : unread_format(head, have);
    if (other)
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s is %s; weights are read from safetensors: write them with safetensors.torch.save_file",
                        name, other);
    if (found)
        n.format = found;
    s = n.format->open(&n.file, name, data, len, err);
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
    if (w->file)
        w->format->free(w->file);
    *w = (struct fst__weights){0};
}
