/*
 * PyTorch's files of torch.save: what tensors the pickle names, and where their elements lie. New files are zip
 * archives with data.pkl and a member for each storage; old ones are pickles one behind the other, with the storages
 * at the end. Every storage is read once and checked against what the pickle says of it.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "pickle_private.h"

enum { MAX_TENSORS = 1 << 20, MAX_VISITS = 1 << 22, MAX_DEPTH = 16, MAX_NAME = 512, MAX_KEY = 64 };

/* A tensor on its way. */
struct entry {
    fst_tensor tensor;
    const fst__torch_tensor *source;
    size_t order;
};

struct fst_pth {
    fst_tensor *tensors;
    size_t count;
    void **blocks; /* storages, and copies of tensors that do not lie in one piece */
    size_t block_count;
};

struct job {
    const char *name;
    fst_pickle *pickle;
    struct entry *entries;
    size_t count, room, visits;
    size_t bytes, max_bytes;
    void **blocks; /* one for each storage, then one for each tensor that needs one */
    size_t block_count;
    fst_error *err;
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

static void job_release(struct job *j)
{
    for (size_t i = 0; i < j->count; i++)
        fst_free((void *)(uintptr_t)j->entries[i].tensor.name);
    for (size_t i = 0; i < j->block_count; i++)
        fst_free(j->blocks[i]);
    fst_free(j->entries);
    fst_free(j->blocks);
    fst_pickle_free(j->pickle);
}

/* ---- which tensors there are ---------------------------------------------------------------- */

static fst_status add_tensor(struct job *j, const char *name, const fst__torch_tensor *t)
{
    if (j->count == MAX_TENSORS)
        return fst_fail(j->err, FST_E_LIMIT, "%s: more than %d tensors", j->name, MAX_TENSORS);
    if (j->count == j->room) {
        size_t room = j->room ? 2 * j->room : 64;
        struct entry *more = fst_realloc(j->entries, j->count * sizeof *more, room * sizeof *more);
        if (!more)
            return fst_fail_memory(j->err, room * sizeof *more);
        j->entries = more;
        j->room = room;
    }
    char *own = fst_strdup(name);
    if (!own)
        return fst_fail_memory(j->err, strlen(name));
    j->entries[j->count] = (struct entry){{own, t->storage->dtype, t->shape, NULL}, t, j->count};
    j->count++;
    return FST_OK;
}

/* Appends ".key" to the name; the new length, 0 when it is too long or no text. */
static size_t append_key(char *name, size_t at, const fst_pickle_value *key)
{
    char digits[24];
    const char *text = digits;
    size_t n;
    if (key->kind == FST_PICKLE_TEXT || key->kind == FST_PICKLE_BYTES) {
        text = key->text.data;
        n = key->text.length;
    } else if (key->kind == FST_PICKLE_INT) {
        n = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)key->integer);
    } else {
        return 0;
    }
    if (n == 0 || at + n + 2 > MAX_NAME || memchr(text, 0, n))
        return 0;
    if (at)
        name[at++] = '.';
    memcpy(name + at, text, n);
    name[at + n] = 0;
    return at + n;
}

static bool is_utf8(const char *text)
{
    json_t *s = json_string(text);
    bool yes = s != NULL;
    json_decref(s);
    return yes;
}

/* Whether tensors may stand below it. */
static bool is_inner(const fst_pickle_value *v)
{
    return v->kind == FST_PICKLE_DICT || v->kind == FST_PICKLE_LIST || v->kind == FST_PICKLE_TUPLE;
}

static fst_status walk(struct job *j, const fst_pickle_value *v, char *name, size_t at, int depth);

static fst_status walk_item(struct job *j, const fst_pickle_value *key, const fst_pickle_value *v, char *name,
                            size_t at, int depth)
{
    if (v->kind != FST__PICKLE_TENSOR && !is_inner(v))
        return FST_OK;
    size_t len = append_key(name, at, key);
    if (!len || !is_utf8(name))
        return v->kind == FST__PICKLE_TENSOR
                   ? fst_fail(j->err, FST_E_FORMAT, "%s: a tensor whose name is no text of 1 to %d letters", j->name,
                              MAX_NAME)
                   : FST_OK;
    fst_status s =
        v->kind == FST__PICKLE_TENSOR ? add_tensor(j, name, fst__pickle_tensor(v)) : walk(j, v, name, len, depth + 1);
    name[at] = 0;
    return s;
}

static fst_status walk(struct job *j, const fst_pickle_value *v, char *name, size_t at, int depth)
{
    fst_status s = FST_OK;
    fst_pickle_value index = {.kind = FST_PICKLE_INT};
    bool dict = v->kind == FST_PICKLE_DICT;
    if (depth > MAX_DEPTH)
        return fst_fail(j->err, FST_E_LIMIT, "%s: dictionaries nested more than %d deep", j->name, MAX_DEPTH);
    for (size_t i = 0; !s && i < v->list.count; i += dict ? 2 : 1) {
        if (++j->visits > MAX_VISITS)
            return fst_fail(j->err, FST_E_LIMIT, "%s: more than %d values", j->name, MAX_VISITS);
        index.integer = (int64_t)i;
        s = dict ? walk_item(j, v->list.items[i], v->list.items[i + 1], name, at, depth)
                 : walk_item(j, &index, v->list.items[i], name, at, depth);
    }
    return s;
}

/* The dictionary that holds the model: the root, or the one of the usual names when the root has no tensors itself. */
static const fst_pickle_value *model_of(const fst_pickle_value *root)
{
    static const char *const usual[] = {"state_dict", "model_state_dict", "model", "net"};
    for (size_t i = 0; i + 1 < root->list.count; i += 2)
        if (root->list.items[i + 1]->kind == FST__PICKLE_TENSOR)
            return root;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        const fst_pickle_value *v = fst_pickle_find(root, usual[i]);
        if (v && v->kind == FST_PICKLE_DICT)
            return v;
    }
    return root;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->tensor.name, ((const struct entry *)b)->tensor.name);
}

static int by_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

static fst_status find_tensors(struct job *j)
{
    char name[MAX_NAME] = "";
    const fst_pickle_value *root = fst_pickle_root(j->pickle);
    if (root->kind != FST_PICKLE_DICT)
        return fst_fail(j->err, FST_E_FORMAT, "%s: holds no dictionary of tensors (a state_dict)", j->name);
    fst_status s = walk(j, model_of(root), name, 0, 0);
    if (!s && j->count == 0)
        s = fst_fail(j->err, FST_E_FORMAT, "%s: there is no tensor in it", j->name);
    if (s)
        return s;
    qsort(j->entries, j->count, sizeof *j->entries, by_name);
    for (size_t i = 1; i < j->count; i++)
        if (!strcmp(j->entries[i].tensor.name, j->entries[i - 1].tensor.name))
            return fst_fail(j->err, FST_E_FORMAT, "%s: tensor \"%.128s\" is there twice", j->name,
                            j->entries[i].tensor.name);
    return FST_OK;
}

/* ---- storages ------------------------------------------------------------------------------- */

static int compare_storages(const fst__torch_storage *x, const fst__torch_storage *y)
{
    size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
    int d = memcmp(x->key, y->key, n);
    return d ? d : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static int by_storage(const void *a, const void *b)
{
    return compare_storages(((const struct entry *)a)->source->storage, ((const struct entry *)b)->source->storage);
}

/* Bytes for one more block, within the limit. */
static fst_status take_block(struct job *j, uint64_t count, fst_dtype dtype, void **out)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(count, (uint64_t)fst_dtype_size(dtype), &bytes) || bytes > j->max_bytes - j->bytes)
        return fst_fail(j->err, FST_E_LIMIT, "%s: its tensors take more than the %zu bytes that are allowed", j->name,
                        j->max_bytes);
    *out = fst_alloc(bytes ? (size_t)bytes : 1);
    if (!*out)
        return fst_fail_memory(j->err, (size_t)bytes);
    j->bytes += (size_t)bytes;
    j->blocks[j->block_count++] = *out;
    return FST_OK;
}

/* How a kind of file yields a storage's bytes; *out belongs to j->blocks. */
typedef fst_status (*storage_fn)(struct job *j, void *ctx, const fst__torch_storage *s, void **out);

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

static fst_status set_data(struct job *j, struct entry *e, unsigned char *storage)
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
static fst_status read_storages(struct job *j, storage_fn read, void *ctx)
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
        else if (now->dtype != before->dtype || now->count != before->count)
            s = fst_fail(j->err, FST_E_FORMAT, "%s: one storage with two types or sizes", j->name);
        if (!s)
            s = set_data(j, &j->entries[i], storage);
    }
    if (!s)
        qsort(j->entries, j->count, sizeof *j->entries, by_order);
    return s;
}

static fst_status finish(struct job *j, fst_pth **out)
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

static fst_status find_pickle(struct job *j, struct archive *a, zip_uint64_t *index)
{
    static const char wanted[] = "data.pkl";
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    for (zip_int64_t i = 0; i < n; i++) {
        const char *member = zip_get_name(a->zip, (zip_uint64_t)i, 0);
        size_t len = member ? strlen(member) : 0, end = sizeof wanted - 1;
        bool hit = len >= end && !strcmp(member + len - end, wanted) && (len == end || member[len - end - 1] == '/');
        if (hit && len - end < sizeof a->prefix) {
            memcpy(a->prefix, member, len - end);
            a->prefix[len - end] = 0;
            *index = (zip_uint64_t)i;
            return FST_OK;
        }
    }
    return fst_fail(j->err, FST_E_FORMAT, "%s: a zip archive without data.pkl: not of torch.save", j->name);
}

/* Reads `bytes` bytes, which are all that the member may have. */
static fst_status read_member(struct job *j, struct archive *a, zip_uint64_t i, void *dst, uint64_t bytes)
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
static fst_status check_size(struct job *j, struct archive *a, zip_uint64_t i, uint64_t bytes)
{
    zip_stat_t st;
    if (zip_stat_index(a->zip, i, 0, &st) || !(st.valid & ZIP_STAT_SIZE) || st.size != bytes)
        return fst_fail(j->err, FST_E_FORMAT, "%s: member %s has %llu bytes, its pickle says %llu", j->name,
                        zip_get_name(a->zip, i, 0), (unsigned long long)(st.valid & ZIP_STAT_SIZE ? st.size : 0),
                        (unsigned long long)bytes);
    return FST_OK;
}

static fst_status storage_of_zip(struct job *j, void *ctx, const fst__torch_storage *st, void **out)
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
    s = check_size(j, a, (zip_uint64_t)i, st->count * fst_dtype_size(st->dtype));
    if (!s)
        s = take_block(j, st->count, st->dtype, out);
    return s ? s : read_member(j, a, (zip_uint64_t)i, *out, st->count * fst_dtype_size(st->dtype));
}

/* "little" in the member `byteorder`, which older files do not have. */
static fst_status check_order(struct job *j, struct archive *a)
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

static fst_status read_zip(struct job *j, zip_t *zip)
{
    struct archive a = {.zip = zip};
    zip_stat_t st;
    zip_uint64_t index = 0;
    void *text = NULL;
    fst_status s = find_pickle(j, &a, &index);
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
        s = find_tensors(j);
    if (!s)
        s = read_storages(j, storage_of_zip, &a);
    fst_free(text);
    return s;
}

/* ---- the older stream ----------------------------------------------------------------------- */

/* Pickle of torch.serialization's MAGIC_NUMBER, protocol 2, with which every old file begins. */
static const unsigned char legacy_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                             0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

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

static fst_status next_pickle(struct job *j, struct stream *st, bool torch, fst_pickle **out)
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
static fst_status list_storages(struct job *j, struct stream *st)
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
        else if (last->dtype != s->dtype || last->count != s->count)
            return fst_fail(j->err, FST_E_FORMAT, "%s: one storage with two types or sizes", j->name);
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
static fst_status place_storages(struct job *j, struct stream *st, const fst_pickle_value *keys)
{
    for (size_t i = 0; i < keys->list.count; i++) {
        const fst_pickle_value *key = keys->list.items[i];
        bool words = key->kind == FST_PICKLE_TEXT || key->kind == FST_PICKLE_BYTES;
        struct place *p = words ? find_place(st, key->text.data, key->text.length) : NULL;
        uint64_t bytes;
        if (!p)
            return fst_fail(j->err, FST_E_FORMAT, "%s: storage %zu is not named by the pickle", j->name, i);
        if (st->len - st->at < 8 || little64(st->data + st->at) != p->storage->count ||
            __builtin_mul_overflow(p->storage->count, (uint64_t)fst_dtype_size(p->storage->dtype), &bytes) ||
            bytes > st->len - st->at - 8)
            return fst_fail(j->err, FST_E_FORMAT, "%s: cut off: storage %zu is not whole", j->name, i);
        p->begin = st->at + 8;
        st->at += 8 + (size_t)bytes;
    }
    return FST_OK;
}

static fst_status storage_of_stream(struct job *j, void *ctx, const fst__torch_storage *s, void **out)
{
    const struct stream *st = ctx;
    const struct place *p = find_place(st, s->key, s->key_len);
    if (!p || !p->begin)
        return fst_fail(j->err, FST_E_FORMAT, "%s: a tensor's storage is missing", j->name);
    fst_status status = take_block(j, s->count, s->dtype, out);
    if (!status && s->count)
        memcpy(*out, st->data + p->begin, (size_t)s->count * fst_dtype_size(s->dtype));
    return status;
}

static fst_status read_stream(struct job *j, const unsigned char *data, size_t len)
{
    struct stream st = {.data = data, .len = len, .at = sizeof legacy_magic};
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
        s = find_tensors(j);
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

fst_status fst_pth_parse(fst_pth **out, const char *name, const void *data, size_t len, size_t max_bytes,
                         fst_error *err)
{
    struct job j = {.name = name, .max_bytes = max_bytes, .err = err};
    zip_t *z = NULL;
    bool old = len >= sizeof legacy_magic && !memcmp(data, legacy_magic, sizeof legacy_magic);
    fst_status s =
        old ? read_stream(&j, data, len) : fst__archive_open_memory(&z, name, "PyTorch (zip)", data, len, err);
    if (!s && !old)
        s = read_zip(&j, z);
    if (z)
        zip_discard(z);
    if (!s)
        s = finish(&j, out);
    job_release(&j);
    return s;
}

fst_status fst_pth_read(fst_pth **out, const char *path, size_t max_bytes, fst_error *err)
{
    fst_buf file = {0};
    fst_status s = fst_file_read(path, max_bytes, &file, err);
    if (!s)
        s = fst_pth_parse(out, path, file.data ? file.data : "", file.len, max_bytes, err);
    fst_buf_release(&file);
    return s;
}
