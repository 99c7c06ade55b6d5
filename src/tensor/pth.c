/*
 * PyTorch's files of torch.save: what tensors the pickle names, and where their elements lie. New files are zip
 * archives with data.pkl and a member for each storage; old ones are pickles one after the other, with the storages
 * at the end. Every storage is read once and checked against what the pickle says of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "pth_private.h"

enum { MAX_NAME = 512, MAX_KEY = 64 };

struct fst_pth {
    fst_tensor *tensors;
    size_t count;
    void **blocks; /* storages, and copies of tensors that do not lie in one piece */
    size_t block_count;
};

void fst_pth_free(fst_pth *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        fst_free((void *)(uintptr_t)p->tensors[i].name);
    for (size_t i = 0; i < p->block_count; i++)
        fst_free(p->blocks[i]);
    fst_free(p->tensors);
    fst_free(p->blocks);
    fst_free(p);
}

size_t fst_pth_count(const fst_pth *p)
{
    return p->count;
}

fst_tensor fst_pth_at(const fst_pth *p, size_t i)
{
    return p->tensors[i];
}

static void job_release(struct fst__pth_job *j)
{
    for (size_t i = 0; i < j->count; i++)
        fst_free((void *)(uintptr_t)j->entries[i].tensor.name);
    for (size_t i = 0; i < j->block_count; i++)
        fst_free(j->blocks[i]);
    fst_free(j->entries);
    fst_free(j->blocks);
    fst_pickle_free(j->pickle);
}

/* ---- storages ------------------------------------------------------------------------------- */

static int compare_storages(const fst__torch_storage *x, const fst__torch_storage *y)
{
    size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
    int d = memcmp(x->key, y->key, n);
    return d ? d : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

/* 0 when the elements' size is not known; the largest number when the product does not fit. */
static uint64_t bytes_of(const fst__torch_storage *s)
{
    uint64_t bytes;
    return __builtin_mul_overflow(s->count, (uint64_t)s->type->size, &bytes) ? UINT64_MAX : bytes;
}

static int by_storage(const void *a, const void *b)
{
    return compare_storages(((const struct fst__pth_entry *)a)->source->storage,
                            ((const struct fst__pth_entry *)b)->source->storage);
}

fst_status fst__pth_charge(struct fst__pth_job *j, uint64_t bytes)
{
    if (bytes > j->max_bytes - j->bytes)
        return fst_fail(j->err, FST_E_LIMIT,
                        "%s: its tensors take more than the %zu bytes that are allowed for a file of its size", j->name,
                        j->max_bytes);
    j->bytes += (size_t)bytes;
    return FST_OK;
}

/* Bytes for one more block, within the limit. */
static fst_status take_block(struct fst__pth_job *j, uint64_t count, fst_dtype dtype, void **out)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(count, (uint64_t)fst_dtype_size(dtype), &bytes))
        bytes = UINT64_MAX;
    fst_status s = fst__pth_charge(j, bytes);
    if (s)
        return s;
    *out = fst_alloc(bytes ? (size_t)bytes : 1);
    if (!*out)
        return fst_fail_memory(j->err, (size_t)bytes);
    j->blocks[j->block_count++] = *out;
    return FST_OK;
}

static int by_order(const void *a, const void *b)
{
    const struct fst__pth_entry *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* How a kind of file yields a storage's bytes; *out belongs to j->blocks. */
typedef fst_status (*storage_fn)(struct fst__pth_job *j, void *ctx, const fst__torch_storage *s, void **out);

static bool in_one_piece(const fst__torch_tensor *t)
{
    int64_t step = 1;
    for (int d = t->shape.rank - 1; d >= 0; d--) {
        if (t->shape.dim[d] != 1 && t->stride[d] != step)
            return false;
        step *= t->shape.dim[d];
    }
    return true;
}

/* The index counts up, last dimension first, and the source follows it by the strides. */
static void gather(unsigned char *dst, const unsigned char *src, const fst__torch_tensor *t, size_t size)
{
    int64_t at[FST_MAX_RANK] = {0}, count = fst_shape_count(&t->shape);
    uint64_t from = t->offset;
    for (int64_t i = 0; i < count; i++) {
        memcpy(dst + (size_t)i * size, src + from * size, size);
        for (int d = t->shape.rank - 1; d >= 0; d--) {
            from += (uint64_t)t->stride[d];
            if (++at[d] < t->shape.dim[d])
                break;
            from -= (uint64_t)t->stride[d] * (uint64_t)t->shape.dim[d];
            at[d] = 0;
        }
    }
}

static fst_status set_data(struct fst__pth_job *j, struct fst__pth_entry *e, unsigned char *storage)
{
    size_t size = fst_dtype_size(e->tensor.dtype);
    int64_t count = fst_shape_count(&e->tensor.shape);
    if (count == 0 || in_one_piece(e->source)) {
        e->tensor.data = count ? storage + e->source->offset * size : storage;
        return FST_OK;
    }
    fst_status s = take_block(j, (uint64_t)count, e->tensor.dtype, &e->tensor.data);
    if (!s)
        gather(e->tensor.data, storage, e->source, size);
    return s;
}

/* Entries with the same storage stand side by side. */
static fst_status read_storages(struct fst__pth_job *j, storage_fn read, void *ctx)
{
    void *storage = NULL;
    fst_status s = FST_OK;
    j->blocks = fst_calloc(2 * j->count, sizeof *j->blocks);
    if (!j->blocks)
        return fst_fail_memory(j->err, 2 * j->count * sizeof *j->blocks);
    qsort(j->entries, j->count, sizeof *j->entries, by_storage);
    for (size_t i = 0; !s && i < j->count; i++) {
        const fst__torch_storage *now = j->entries[i].source->storage;
        const fst__torch_storage *before = i ? j->entries[i - 1].source->storage : NULL;
        if (!before || compare_storages(now, before))
            s = read(j, ctx, now, &storage);
        else if (bytes_of(now) != bytes_of(before))
            s = fst_fail(j->err, FST_E_FORMAT, "%s: one storage with two sizes", j->name);
        if (!s)
            s = set_data(j, &j->entries[i], storage);
    }
    if (!s)
        qsort(j->entries, j->count, sizeof *j->entries, by_order);
    return s;
}

static fst_status finish(struct fst__pth_job *j, fst_pth **out)
{
    fst_pth *p = fst_calloc(1, sizeof *p);
    if (p)
        p->tensors = fst_calloc(j->count, sizeof *p->tensors);
    if (!p || !p->tensors) {
        fst_free(p);
        return fst_fail_memory(j->err, j->count * sizeof *p->tensors);
    }
    for (size_t i = 0; i < j->count; i++)
        p->tensors[i] = j->entries[i].tensor;
    p->count = j->count;
    p->blocks = j->blocks;
    p->block_count = j->block_count;
    j->count = 0; /* names and blocks have moved */
    j->blocks = NULL;
    j->block_count = 0;
    *out = p;
    return FST_OK;
}

/* ---- zip ------------------------------------------------------------------------------------ */

struct archive {
    zip_t *zip;
    char prefix[MAX_NAME]; /* of every member: "archive/" */
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

/* What else a zip archive is, by its members. */
static fst_status other_archive(struct fst__pth_job *j, const struct archive *a)
{
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *member = zip_get_name(a->zip, (zip_uint64_t)i, 0);
        if (member && ends_with(member, ".npy"))
            return fst_fail(
                j->err, FST_E_UNSUPPORTED,
                "%s: an npz of NumPy arrays (as Flower saves a round, without the parameters' names): weights are read "
                "by name from safetensors and from files of torch.save; in Python, put the arrays into a state_dict "
                "and "
                "torch.save it, or safetensors.torch.save_file",
                j->name);
        if (member && ends_with(member, ".weights.h5"))
            return fst_fail(j->err, FST_E_UNSUPPORTED,
                            "%s: a Keras model; weights are read from safetensors and from files of torch.save",
                            j->name);
    }
    return fst_fail(j->err, FST_E_FORMAT, "%s: a zip archive without data.pkl: not of torch.save", j->name);
}

static fst_status find_pickle(struct fst__pth_job *j, struct archive *a, zip_uint64_t *index)
{
    static const char wanted[] = "data.pkl";
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *member = zip_get_name(a->zip, (zip_uint64_t)i, 0);
        size_t len = member ? strlen(member) : 0, end = sizeof wanted - 1;
        bool hit = len >= end && ends_with(member, wanted) && (len == end || member[len - end - 1] == '/');
        if (hit && len - end < sizeof a->prefix) {
            memcpy(a->prefix, member, len - end);
            a->prefix[len - end] = 0;
            *index = (zip_uint64_t)i;
            return FST_OK;
        }
    }
    return other_archive(j, a);
}

/* Programs that torch.jit saved have constants.pkl, and code in place of names. */
static fst_status refuse_script(struct fst__pth_job *j, struct archive *a)
{
    char member[MAX_NAME + 16];
    snprintf(member, sizeof member, "%sconstants.pkl", a->prefix);
    if (zip_name_locate(a->zip, member, 0) < 0)
        return FST_OK;
    return fst_fail(j->err, FST_E_UNSUPPORTED,
                    "%s: TorchScript, a compiled program; save its weights: in Python, "
                    "torch.save(torch.jit.load(FILE).state_dict(), NEW)",
                    j->name);
}

/* Reads `bytes` bytes, which are all that the member may have. */
static fst_status read_member(struct fst__pth_job *j, struct archive *a, zip_uint64_t i, void *dst, uint64_t bytes)
{
    zip_file_t *f = NULL;
    uint64_t size = 0, at = 0;
    fst_status s = fst__archive_member(&f, a->zip, i, j->name, &size, j->err);
    if (s)
        return s;
    if (size != bytes)
        s = fst_fail(j->err, FST_E_FORMAT, "%s: member %s has %llu bytes, its pickle says %llu", j->name,
                     zip_get_name(a->zip, i, 0), (unsigned long long)size, (unsigned long long)bytes);
    while (!s && at < bytes) {
        zip_int64_t n = zip_fread(f, (unsigned char *)dst + at, bytes - at);
        if (n <= 0)
            s = fst_fail(j->err, FST_E_FORMAT, "%s: damaged: %s", j->name, n ? zip_file_strerror(f) : "cut off");
        else
            at += (uint64_t)n;
    }
    if (!s)
        s = fst__archive_end(f, j->name, j->err);
    zip_fclose(f);
    return s;
}

/* Before memory is taken for what the pickle says. */
static fst_status check_size(struct fst__pth_job *j, struct archive *a, zip_uint64_t i, uint64_t bytes)
{
    zip_stat_t st;
    if (zip_stat_index(a->zip, i, 0, &st) || !(st.valid & ZIP_STAT_SIZE) || st.size != bytes)
        return fst_fail(j->err, FST_E_FORMAT, "%s: member %s has %llu bytes, its pickle says %llu", j->name,
                        zip_get_name(a->zip, i, 0), (unsigned long long)(st.valid & ZIP_STAT_SIZE ? st.size : 0),
                        (unsigned long long)bytes);
    return FST_OK;
}

static fst_status storage_of_zip(struct fst__pth_job *j, void *ctx, const fst__torch_storage *st, void **out)
{
    struct archive *a = ctx;
    char member[MAX_NAME + MAX_KEY + 8];
    fst_status s = FST_OK;
    if (st->key_len == 0 || st->key_len > MAX_KEY || memchr(st->key, 0, st->key_len))
        return fst_fail(j->err, FST_E_FORMAT, "%s: the name of a storage is none", j->name);
    snprintf(member, sizeof member, "%sdata/%.*s", a->prefix, (int)st->key_len, st->key);
    zip_int64_t i = zip_name_locate(a->zip, member, 0);
    if (i < 0)
        return fst_fail(j->err, FST_E_FORMAT, "%s: member data/%.*s is missing", j->name, (int)st->key_len, st->key);
    s = check_size(j, a, (zip_uint64_t)i, bytes_of(st));
    if (!s)
        s = take_block(j, st->count, st->type->dtype, out);
    return s ? s : read_member(j, a, (zip_uint64_t)i, *out, bytes_of(st));
}

/* "little" in the member `byteorder`, which older files do not have. */
static fst_status check_order(struct fst__pth_job *j, struct archive *a)
{
    char member[MAX_NAME + 16], text[8] = "";
    snprintf(member, sizeof member, "%sbyteorder", a->prefix);
    zip_int64_t i = zip_name_locate(a->zip, member, 0);
    if (i < 0)
        return FST_OK;
    zip_file_t *f = zip_fopen_index(a->zip, (zip_uint64_t)i, 0);
    zip_int64_t n = f ? zip_fread(f, text, sizeof text - 1) : -1;
    if (f)
        zip_fclose(f);
    if (n == 6 && !strcmp(text, "little"))
        return FST_OK;
    return fst_fail(j->err, FST_E_UNSUPPORTED, "%s: its byte order is \"%s\"; little-endian files are read", j->name,
                    n == 3 && !strcmp(text, "big") ? text : "?");
}

static fst_status read_zip(struct fst__pth_job *j, zip_t *zip, const char *prefix)
{
    struct archive a = {.zip = zip};
    zip_stat_t st;
    zip_uint64_t index = 0;
    void *text = NULL;
    fst_status s = find_pickle(j, &a, &index);
    if (!s)
        s = refuse_script(j, &a);
    if (!s)
        s = check_order(j, &a);
    if (s)
        return s;
    if (zip_stat_index(zip, index, 0, &st) || !(st.valid & ZIP_STAT_SIZE) || st.size > j->max_bytes)
        return fst_fail(j->err, FST_E_LIMIT, "%s: a data.pkl of more than %zu bytes", j->name, j->max_bytes);
    /* A promised size takes memory only when the packed bytes can keep it. */
    zip_file_t *f = NULL;
    uint64_t size = 0;
    s = fst__archive_member(&f, zip, index, j->name, &size, j->err);
    if (s)
        return s;
    zip_fclose(f);
    text = fst_alloc((size_t)size + 1);
    s = text ? read_member(j, &a, index, text, size) : fst_fail_memory(j->err, (size_t)size);
    if (!s)
        s = fst__pickle_parse(&j->pickle, j->name, text, (size_t)size, true, j->max_bytes, NULL, j->err);
    if (!s)
        s = fst__pth_find(j, prefix);
    if (!s)
        s = read_storages(j, storage_of_zip, &a);
    fst_free(text);
    return s;
}

/* ---- the older stream ----------------------------------------------------------------------- */

/* Every old file begins with a pickle of torch.serialization's MAGIC_NUMBER; where it ends, 0 for another file. Since
 * protocol 2 the number is bytes, after a frame since protocol 4; before that it is a line. */
static size_t magic_end(const unsigned char *data, size_t len)
{
    static const unsigned char number[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                           0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
    static const char line[] = "L119547037146038801333356L\n.";
    if (len >= sizeof line - 1 && !memcmp(data, line, sizeof line - 1))
        return sizeof line - 1;
    if (len < 2 || data[0] != 0x80 || data[1] < 2 || data[1] > 5)
        return 0;
    size_t at = len > 2 && data[2] == 0x95 ? 11 : 2;
    return len >= at + sizeof number && !memcmp(data + at, number, sizeof number) ? at + sizeof number : 0;
}

struct place {
    const fst__torch_storage *storage;
    size_t begin; /* of its elements; 0: not known */
};

struct stream {
    const unsigned char *data;
    size_t len, at;
    struct place *places; /* by key, each once */
    size_t count;
};

static uint64_t little64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static fst_status next_pickle(struct fst__pth_job *j, struct stream *st, bool torch, fst_pickle **out)
{
    size_t used = 0;
    fst_status s =
        fst__pickle_parse(out, j->name, st->data + st->at, st->len - st->at, torch, j->max_bytes, &used, j->err);
    st->at += used;
    return s;
}

static int by_key(const void *a, const void *b)
{
    return compare_storages(((const struct place *)a)->storage, ((const struct place *)b)->storage);
}

/* All storages that the pickle names, each once. */
static fst_status list_storages(struct fst__pth_job *j, struct stream *st)
{
    size_t n = 0, kept = 0;
    for (const fst__torch_storage *s = j->pickle->storages; s; s = s->next)
        n++;
    st->places = fst_calloc(n + 1, sizeof *st->places);
    if (!st->places)
        return fst_fail_memory(j->err, n * sizeof *st->places);
    n = 0;
    for (const fst__torch_storage *s = j->pickle->storages; s; s = s->next)
        st->places[n++].storage = s;
    qsort(st->places, n, sizeof *st->places, by_key);
    for (size_t i = 0; i < n; i++) {
        const fst__torch_storage *s = st->places[i].storage, *last = kept ? st->places[kept - 1].storage : NULL;
        if (!last || compare_storages(last, s))
            st->places[kept++].storage = s;
        else if (bytes_of(last) != bytes_of(s))
            return fst_fail(j->err, FST_E_FORMAT, "%s: one storage with two sizes", j->name);
    }
    st->count = kept;
    return FST_OK;
}

static struct place *find_place(const struct stream *st, const char *key, size_t len)
{
    fst__torch_storage wanted = {.key = key, .key_len = len};
    struct place p = {.storage = &wanted};
    return bsearch(&p, st->places, st->count, sizeof p, by_key);
}

/* Storages follow one another in the order of the list of their keys. */
static fst_status place_storages(struct fst__pth_job *j, struct stream *st, const fst_pickle_value *keys)
{
    for (size_t i = 0; i < keys->list.count; i++) {
        const fst_pickle_value *key = keys->list.items[i];
        bool words = key->kind == FST_PICKLE_TEXT || key->kind == FST_PICKLE_BYTES;
        struct place *p = words ? find_place(st, key->text.data, key->text.length) : NULL;
        uint64_t bytes;
        if (!p)
            return fst_fail(j->err, FST_E_FORMAT, "%s: storage %zu is not named by the pickle", j->name, i);
        if (!p->storage->type->size)
            return fst_fail(j->err, FST_E_UNSUPPORTED, "%s: a storage of type %s, which is not known here", j->name,
                            p->storage->type->name);
        if (st->len - st->at < 8 || little64(st->data + st->at) != p->storage->count ||
            __builtin_mul_overflow(p->storage->count, (uint64_t)p->storage->type->size, &bytes) ||
            bytes > st->len - st->at - 8)
            return fst_fail(j->err, FST_E_FORMAT, "%s: cut off: storage %zu is not whole", j->name, i);
        p->begin = st->at + 8;
        st->at += 8 + (size_t)bytes;
    }
    return FST_OK;
}

static fst_status storage_of_stream(struct fst__pth_job *j, void *ctx, const fst__torch_storage *s, void **out)
{
    const struct stream *st = ctx;
    const struct place *p = find_place(st, s->key, s->key_len);
    if (!p || !p->begin)
        return fst_fail(j->err, FST_E_FORMAT, "%s: a tensor's storage is missing", j->name);
    fst_status status = take_block(j, s->count, s->type->dtype, out);
    if (!status && s->count)
        memcpy(*out, st->data + p->begin, (size_t)bytes_of(s));
    return status;
}

static fst_status read_stream(struct fst__pth_job *j, const unsigned char *data, size_t len, const char *prefix)
{
    struct stream st = {.data = data, .len = len, .at = magic_end(data, len)};
    fst_pickle *version = NULL, *system = NULL, *keys = NULL;
    fst_status s = next_pickle(j, &st, false, &version);
    if (!s && (fst_pickle_root(version)->kind != FST_PICKLE_INT || fst_pickle_root(version)->integer != 1001))
        s = fst_fail(j->err, FST_E_UNSUPPORTED, "%s: not version 1001 of torch.save's older format", j->name);
    if (!s)
        s = next_pickle(j, &st, false, &system);
    const fst_pickle_value *little = s ? NULL : fst_pickle_find(fst_pickle_root(system), "little_endian");
    if (!s && !(little && little->kind == FST_PICKLE_BOOL && little->integer))
        s = fst_fail(j->err, FST_E_UNSUPPORTED, "%s: not little-endian", j->name);
    if (!s)
        s = next_pickle(j, &st, true, &j->pickle);
    if (!s)
        s = fst__pth_find(j, prefix);
    if (!s)
        s = next_pickle(j, &st, false, &keys);
    if (!s && fst_pickle_root(keys)->kind != FST_PICKLE_LIST)
        s = fst_fail(j->err, FST_E_FORMAT, "%s: the list of storages is none", j->name);
    if (!s)
        s = list_storages(j, &st);
    if (!s)
        s = place_storages(j, &st, fst_pickle_root(keys));
    if (!s)
        s = read_storages(j, storage_of_stream, &st);
    fst_free(st.places);
    fst_pickle_free(version);
    fst_pickle_free(system);
    fst_pickle_free(keys);
    return s;
}

/* ---- opening -------------------------------------------------------------------------------- */

bool fst_pth_probe(const unsigned char *head, size_t len)
{
    return (len >= 4 && !memcmp(head, "PK\3\4", 4)) || magic_end(head, len);
}

fst_status fst_pth_parse(fst_pth **out, const char *name, const void *data, size_t len, const char *prefix,
                         size_t max_bytes, fst_error *err)
{
    size_t budget = fst_budget(len);
    struct fst__pth_job j = {.name = name, .max_bytes = max_bytes < budget ? max_bytes : budget, .err = err};
    zip_t *z = NULL;
    bool old = magic_end(data, len);
    fst_status s =
        old ? read_stream(&j, data, len, prefix) : fst__archive_open_memory(&z, name, "PyTorch (zip)", data, len, err);
    if (!s && !old)
        s = read_zip(&j, z, prefix);
    if (z)
        zip_discard(z);
    if (!s)
        s = finish(&j, out);
    job_release(&j);
    return s;
}

fst_status fst_pth_read(fst_pth **out, const char *path, const char *prefix, size_t max_bytes, fst_error *err)
{
    fst_buf file = {0};
    fst_status s = fst_file_read(path, max_bytes, &file, err);
    if (!s)
        s = fst_pth_parse(out, path, file.data ? file.data : "", file.len, prefix, max_bytes, err);
    fst_buf_release(&file);
    return s;
}
