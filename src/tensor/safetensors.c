/*
 * safetensors, reader and writer. The reader trusts nothing: the header is checked against the file's
 * size, every tensor's range against its shape, and ranges may not overlap, before any data is read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "npy_private.h"

enum { MAX_TENSORS = 1 << 20 };

struct entry {
    const char *name; /* owned by the header's JSON */
    fst_dtype dtype;
    fst_shape shape;
    uint64_t begin, end; /* relative to the data */
    size_t inner;        /* complex numbers: how many have their real parts together; 0: a real tensor */
};

struct fst_safetensors {
    char *name;
    int fd; /* -1 when over memory */
    const unsigned char *memory;
    uint64_t data_at, data_len;
    json_t *header, *meta;
    struct entry *entries;
    size_t count;
    const char **meta_keys; /* of meta, in order */
};

void fst_safetensors_free(fst_safetensors *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    json_decref(f->header);
    fst_free(f->meta_keys);
    fst_free(f->entries);
    fst_free(f->name);
    fst_free(f);
}

static fst_status read_at(const fst_safetensors *f, uint64_t at, void *dst, size_t len, fst_error *err)
{
    unsigned char *p = dst;
    if (f->fd < 0) {
        memcpy(dst, f->memory + at, len);
        return FST_OK;
    }
    while (len) {
        ssize_t r = pread(f->fd, p, len, (off_t)at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return fst_fail_errno(err, "%s", f->name);
        if (r == 0)
            return fst_fail(err, FST_E_FORMAT, "%s: the file became shorter while it was read", f->name);
        p += r;
        at += (uint64_t)r;
        len -= (size_t)r;
    }
    return FST_OK;
}

static fst_status parse_shape(const fst_safetensors *f, struct entry *e, json_t *j, fst_error *err)
{
    if (!json_is_array(j) || json_array_size(j) > FST_MAX_RANK)
        return fst_fail(err, FST_E_FORMAT, "%s: tensor \"%s\": shape must be a list of at most %d numbers", f->name,
                        e->name, FST_MAX_RANK);
    e->shape.rank = (int)json_array_size(j);
    for (int i = 0; i < e->shape.rank; i++) {
        int64_t *d = &e->shape.dim[i];
        if (!fst_json_is_whole(json_array_get(j, (size_t)i), d) || *d < 0)
            return fst_fail(err, FST_E_FORMAT, "%s: tensor \"%s\": dimension %d is not a whole number >= 0", f->name,
                            e->name, i);
    }
    return FST_OK;
}

static fst_status parse_entry(const fst_safetensors *f, struct entry *e, json_t *j, fst_error *err)
{
    json_t *dtype = json_object_get(j, "dtype"), *range = json_object_get(j, "data_offsets");
    bool complex = json_is_string(dtype) && !strcmp(json_string_value(dtype), "C64");
    if (!complex && (!json_is_string(dtype) || !fst_dtype_parse(json_string_value(dtype), &e->dtype)))
        return fst_fail(err, FST_E_FORMAT, "%s: tensor \"%s\": unknown dtype", f->name, e->name);
    fst_status s = parse_shape(f, e, json_object_get(j, "shape"), err);
    if (s)
        return s;
    if (complex) {
        e->dtype = FST_F32;
        if (fst_shape_count(&e->shape) < 0 || !fst__complex_shape(&e->shape, &e->inner))
            return fst_fail(err, FST_E_LIMIT, "%s: tensor \"%s\": a complex tensor with too many dimensions", f->name,
                            e->name);
    }
    int64_t begin, end;
    if (json_array_size(range) != 2 || !fst_json_is_whole(json_array_get(range, 0), &begin) ||
        !fst_json_is_whole(json_array_get(range, 1), &end) || begin < 0 || end < begin || (uint64_t)end > f->data_len)
        return fst_fail(err, FST_E_FORMAT, "%s: tensor \"%s\": data_offsets do not lie inside the file", f->name,
                        e->name);
    e->begin = (uint64_t)begin;
    e->end = (uint64_t)end;
    int64_t count = fst_shape_count(&e->shape), bytes;
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)fst_dtype_size(e->dtype), &bytes) ||
        (uint64_t)bytes != e->end - e->begin)
        return fst_fail(err, FST_E_FORMAT, "%s: tensor \"%s\": %llu bytes do not fit its shape and type", f->name,
                        e->name, (unsigned long long)(e->end - e->begin));
    return FST_OK;
}

static int by_range(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static fst_status parse_meta(fst_safetensors *f, json_t *meta, fst_error *err)
{
    const char *key;
    json_t *value;
    size_t n = json_object_size(meta), k = 0;
    if (!json_is_object(meta))
        return fst_fail(err, FST_E_FORMAT, "%s: __metadata__ is not an object", f->name);
    json_object_foreach(meta, key, value)
    {
        if (!json_is_string(value))
            return fst_fail(err, FST_E_FORMAT, "%s: __metadata__ entry \"%s\" is not a string", f->name, key);
    }
    f->meta_keys = fst_calloc(n + 1, sizeof *f->meta_keys);
    if (!f->meta_keys)
        return fst_fail_memory(err, n * sizeof *f->meta_keys);
    json_object_foreach(meta, key, value) f->meta_keys[k++] = key;
    qsort(f->meta_keys, n, sizeof *f->meta_keys, by_key);
    f->meta = meta;
    return FST_OK;
}

static fst_status parse_header(fst_safetensors *f, const char *text, size_t len, fst_error *err)
{
    json_error_t je;
    const char *key;
    json_t *value;
    fst_status fits = fst_json_fits(f->name, text, len, len, err); /* sound headers take half of it */
    if (fits)
        return fits;
    f->header = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(f->header))
        return fst_fail(err, FST_E_FORMAT, "%s: the header is not a JSON object: %s", f->name,
                        f->header ? "another type" : je.text);
    size_t n = json_object_size(f->header);
    if (n > MAX_TENSORS)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu tensors, at most %d are read", f->name, n, MAX_TENSORS);
    f->entries = fst_calloc(n + 1, sizeof *f->entries);
    if (!f->entries)
        return fst_fail_memory(err, n * sizeof *f->entries);
    json_object_foreach(f->header, key, value)
    {
        fst_status s;
        if (!strcmp(key, "__metadata__")) {
            s = parse_meta(f, value, err);
        } else {
            f->entries[f->count].name = key;
            s = parse_entry(f, &f->entries[f->count], value, err);
            f->count++;
        }
        if (s)
            return s;
    }
    qsort(f->entries, f->count, sizeof *f->entries, by_range);
    for (size_t i = 1; i < f->count; i++)
        if (f->entries[i].begin < f->entries[i - 1].end)
            return fst_fail(err, FST_E_FORMAT, "%s: tensors \"%s\" and \"%s\" overlap", f->name, f->entries[i - 1].name,
                            f->entries[i].name);
    return FST_OK;
}

static fst_status parse(fst_safetensors *f, uint64_t size, fst_error *err)
{
    unsigned char head[8];
    uint64_t len = 0;
    if (size < 8)
        return fst_fail(err, FST_E_FORMAT, "%s: %llu bytes is too short for a safetensors file", f->name,
                        (unsigned long long)size);
    fst_status s = read_at(f, 0, head, 8, err);
    if (s)
        return s;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | head[i];
    if (len > FST_SAFETENSORS_MAX_HEADER || len > size - 8)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: a header of %llu bytes does not fit (file of %llu bytes): cut off, or not safetensors",
                        f->name, (unsigned long long)len, (unsigned long long)size);
    f->data_at = 8 + len;
    f->data_len = size - f->data_at;
    char *text = fst_alloc(len + 1);
    if (!text)
        return fst_fail_memory(err, len);
    s = read_at(f, 8, text, len, err);
    if (!s)
        s = parse_header(f, text, len, err);
    fst_free(text);
    return s;
}

static fst_status start(fst_safetensors **out, const char *name, fst_error *err)
{
    fst_safetensors *f = fst_calloc(1, sizeof *f);
    if (!f)
        return fst_fail_memory(err, sizeof *f);
    f->fd = -1;
    f->name = fst_strdup(name);
    if (!f->name) {
        fst_free(f);
        return fst_fail_memory(err, strlen(name));
    }
    *out = f;
    return FST_OK;
}

fst_status fst_safetensors_open(fst_safetensors **out, const char *path, fst_error *err)
{
    fst_safetensors *f = NULL;
    struct stat st;
    fst_status s = start(&f, path, err);
    if (s)
        return s;
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st))
        s = fst_fail_errno(err, "%s", path);
    else if (!S_ISREG(st.st_mode))
        s = fst_fail(err, FST_E_IO, "%s: not a file", path);
    else
        s = parse(f, (uint64_t)st.st_size, err);
    if (s) {
        fst_safetensors_free(f);
        return s;
    }
    *out = f;
    return FST_OK;
}

fst_status fst_safetensors_open_memory(fst_safetensors **out, const char *name, const void *data, size_t len,
                                       fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = start(&f, name, err);
    if (s)
        return s;
    f->memory = data;
    s = parse(f, len, err);
    if (s) {
        fst_safetensors_free(f);
        return s;
    }
    *out = f;
    return FST_OK;
}

size_t fst_safetensors_count(const fst_safetensors *f)
{
    return f->count;
}

fst_tensor fst_safetensors_at(const fst_safetensors *f, size_t i)
{
    const struct entry *e = &f->entries[i];
    return (fst_tensor){e->name, e->dtype, e->shape, NULL};
}

bool fst_safetensors_find(const fst_safetensors *f, const char *name, size_t *out)
{
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->entries[i].name, name)) {
            *out = i;
            return true;
        }
    return false;
}

const char *fst_safetensors_meta(const fst_safetensors *f, const char *key)
{
    return f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
}

bool fst_safetensors_meta_at(const fst_safetensors *f, size_t i, fst_pair *out)
{
    if (i >= json_object_size(f->meta))
        return false;
    *out = (fst_pair){f->meta_keys[i], json_string_value(json_object_get(f->meta, f->meta_keys[i]))};
    return true;
}

fst_status fst_safetensors_read(const fst_safetensors *f, size_t i, void *dst, size_t bytes, fst_error *err)
{
    const struct entry *e = &f->entries[i];
    if (bytes != e->end - e->begin)
        return fst_fail(err, FST_E_MISMATCH, "%s: tensor \"%s\" has %llu bytes, %zu are wanted", f->name, e->name,
                        (unsigned long long)(e->end - e->begin), bytes);
    fst_status s = read_at(f, f->data_at + e->begin, dst, bytes, err);
    return s || !e->inner ? s : fst__split_complex(dst, bytes / 8, e->inner, 4, err);
}

fst_status fst_safetensors_read_rows(const fst_safetensors *f, size_t i, size_t first, size_t n, void *dst,
                                     size_t bytes, fst_error *err)
{
    const struct entry *e = &f->entries[i];
    uint64_t rows = e->shape.rank ? (uint64_t)e->shape.dim[0] : 0, row = rows ? (e->end - e->begin) / rows : 0;
    if (n > rows || first > rows - n)
        return fst_fail(err, FST_E_ARGUMENT, "%s: tensor \"%s\" has %llu rows, not %zu after the first %zu", f->name,
                        e->name, (unsigned long long)rows, n, first);
    if (bytes != n * row)
        return fst_fail(err, FST_E_MISMATCH, "%s: %zu rows of tensor \"%s\" have %llu bytes, %zu are wanted", f->name,
                        n, e->name, (unsigned long long)(n * row), bytes);
    fst_status s = read_at(f, f->data_at + e->begin + first * row, dst, bytes, err);
    return s || !e->inner ? s : fst__split_complex(dst, bytes / 8, e->inner, 4, err);
}

const void *fst_safetensors_data(const fst_safetensors *f, size_t i)
{
    const struct entry *e = &f->entries[i];
    return f->fd < 0 && !e->inner ? f->memory + f->data_at + e->begin : NULL;
}

static float element_f32(fst_dtype t, const unsigned char *p)
{
    union {
        float f32;
        double f64;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    memcpy(&v, p, fst_dtype_size(t));
    switch (t) {
    case FST_F32:
        return v.f32;
    case FST_F64:
        return (float)v.f64;
    case FST_F16:
        return fst_f32_from_f16(v.u16);
    case FST_BF16:
        v.u32 = (uint32_t)v.u16 << 16;
        return v.f32;
    case FST_U8:
    case FST_BOOL:
        return (float)*p;
    case FST_I8:
        return (float)*(const signed char *)p;
    case FST_U16:
        return (float)v.u16;
    case FST_I16:
        return (float)v.i16;
    case FST_U32:
        return (float)v.u32;
    case FST_I32:
        return (float)v.i32;
    case FST_U64:
        return (float)v.u64;
    default:
        return (float)v.i64;
    }
}

void fst_f32_from(float *dst, fst_dtype t, const void *src, size_t count)
{
    size_t size = fst_dtype_size(t);
    for (size_t i = 0; i < count; i++)
        dst[i] = element_f32(t, (const unsigned char *)src + i * size);
}

fst_status fst_safetensors_read_f32(const fst_safetensors *f, size_t i, float *dst, size_t count, fst_error *err)
{
    const struct entry *e = &f->entries[i];
    size_t size = fst_dtype_size(e->dtype);
    if (e->dtype == FST_F32)
        return fst_safetensors_read(f, i, dst, count * 4, err);
    if ((uint64_t)fst_shape_count(&e->shape) != count)
        return fst_fail(err, FST_E_MISMATCH, "%s: tensor \"%s\" has %lld elements, %zu are wanted", f->name, e->name,
                        (long long)fst_shape_count(&e->shape), count);
    unsigned char block[8192];
    for (size_t at = 0; at < count;) {
        size_t n = count - at < sizeof block / size ? count - at : sizeof block / size;
        fst_status s = read_at(f, f->data_at + e->begin + at * size, block, n * size, err);
        if (s)
            return s;
        fst_f32_from(dst + at, e->dtype, block, n);
        at += n;
    }
    return FST_OK;
}

/* ---- writer ------------------------------------------------------------------------------- */

static int by_size_then_name(const void *a, const void *b)
{
    const fst_tensor *x = *(const fst_tensor *const *)a, *y = *(const fst_tensor *const *)b;
    size_t sx = fst_dtype_size(x->dtype), sy = fst_dtype_size(y->dtype);
    if (sx != sy)
        return sx > sy ? -1 : 1;
    return strcmp(x->name, y->name);
}

static size_t tensor_bytes(const fst_tensor *t)
{
    return (size_t)fst_shape_count(&t->shape) * fst_dtype_size(t->dtype);
}

static json_t *header_entry(const fst_tensor *t, uint64_t at)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->shape.rank; i++)
        json_array_append_new(shape, json_integer(t->shape.dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", fst_dtype_name(t->dtype), "shape", shape, "data_offsets",
                     (json_int_t)at, (json_int_t)(at + tensor_bytes(t)));
}

static char *header_text(const fst_pair *meta, size_t nmeta, const fst_tensor **order, size_t n)
{
    json_t *root = json_object(), *m = json_object();
    uint64_t at = 0;
    bool ok = root && m;
    for (size_t i = 0; ok && i < nmeta; i++)
        ok = !json_object_set_new(m, meta[i].key, json_string(meta[i].value));
    ok = ok && !json_object_set(root, "__metadata__", m);
    for (size_t i = 0; ok && i < n; i++) {
        ok = !json_object_set_new(root, order[i]->name, header_entry(order[i], at));
        at += tensor_bytes(order[i]);
    }
    char *text = ok ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(m);
    json_decref(root);
    return text;
}

/* A file with its digest or, when buffer is set, memory. */
struct sink {
    fst_atomic_file file;
    fst_sha256 sha;
    fst_buf *buffer;
};

static fst_status put(struct sink *k, const void *data, size_t len, fst_error *err)
{
    if (!len)
        return FST_OK;
    if (k->buffer)
        return fst_buf_append(k->buffer, data, len, err);
    fst_sha256_update(&k->sha, data, len);
    return fst_atomic_write(&k->file, data, len, err);
}

static fst_status write_all(struct sink *k, const char *text, const fst_tensor **order, size_t n, fst_error *err)
{
    size_t len = strlen(text), padded = (len + 7) / 8 * 8;
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    fst_status s = put(k, head, 8, err);
    if (!s)
        s = put(k, text, len, err);
    if (!s)
        s = put(k, "       ", padded - len, err);
    for (size_t i = 0; !s && i < n; i++)
        s = put(k, order[i]->data, tensor_bytes(order[i]), err);
    return s;
}

/* The header's text (free it with free) and the tensors in the order of their data. */
static fst_status arrange(const char *name, const fst_pair *meta, size_t nmeta, const fst_tensor *tensors, size_t n,
                          const fst_tensor ***order, char **text, fst_error *err)
{
    *order = fst_calloc(n + 1, sizeof **order);
    if (!*order)
        return fst_fail_memory(err, n * sizeof **order);
    for (size_t i = 0; i < n; i++)
        (*order)[i] = &tensors[i];
    qsort(*order, n, sizeof **order, by_size_then_name);
    *text = header_text(meta, nmeta, *order, n);
    return *text ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "%s: names and metadata must be UTF-8", name);
}

fst_status fst_safetensors_write(const char *path, const fst_pair *meta, size_t nmeta, const fst_tensor *tensors,
                                 size_t n, char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct sink k = {0};
    const fst_tensor **order = NULL;
    char *text = NULL;
    fst_status s = arrange(path, meta, nmeta, tensors, n, &order, &text, err);
    fst_sha256_init(&k.sha);
    if (!s)
        s = fst_atomic_open(&k.file, path, err);
    if (!s)
        s = write_all(&k, text, order, n, err);
    if (!s)
        s = fst_atomic_commit(&k.file, err);
    fst_atomic_abort(&k.file);
    free(text);
    fst_free(order);
    if (!s && digest)
        fst_sha256_final(&k.sha, digest);
    return s;
}

fst_status fst_safetensors_append(fst_buf *out, const char *name, const fst_pair *meta, size_t nmeta,
                                  const fst_tensor *tensors, size_t n, fst_error *err)
{
    struct sink k = {.buffer = out};
    size_t before = out->len;
    const fst_tensor **order = NULL;
    char *text = NULL;
    fst_status s = arrange(name, meta, nmeta, tensors, n, &order, &text, err);
    if (!s)
        s = write_all(&k, text, order, n, err);
    if (s)
        out->len = before;
    free(text);
    fst_free(order);
    return s;
}
