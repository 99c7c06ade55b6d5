/*
 * IDX, the format of MNIST and its relatives: two zero bytes, the element type, the rank, the
 * dimensions (big-endian), then the elements. Both headers are read and compared first, then labels; then images are
 * inflated straight into the block that the source keeps: with a limit only those that it leaves, which the labels say,
 * up to the last of them. Only unsigned bytes are read, since nothing else is published in this format.
 *
 * EMNIST holds several sets in one folder, with names of their own, and its images are stored transposed (columns
 * first): they are turned here, so that letters stand upright as MNIST's digits do.
 */
#include <stdio.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable = {"idx", fst__held_get, fst__held_close};

/* MNIST's own spelling first, then the one that some mirrors use; each plain, then gzip. */
static const char *const spellings[] = {"%s-%s-idx%d-ubyte", "%s-%s-idx%d-ubyte.gz", "%s-%s.idx%d-ubyte",
                                        "%s-%s.idx%d-ubyte.gz"};
static const char *const emnist[] = {"emnist-balanced", "emnist-byclass", "emnist-bymerge",
                                     "emnist-digits",   "emnist-letters", "emnist-mnist"};
enum { SPELLINGS = sizeof spellings / sizeof *spellings, EMNIST = sizeof emnist / sizeof *emnist };
enum { UNSIGNED_BYTE = 8, LABELS = 256 };

/* ---- finding the files ------------------------------------------------------------------------------ */

/* Where a data set's files are, and how its images lie. */
struct set {
    char *folder;
    const char *name; /* of EMNIST's; NULL: MNIST's own file names */
};

static void file_name(char out[64], int spelling, const char *set, const char *split, const char *what, int rank)
{
    char first[40];
    bool test = !strcmp(split, "test");
    if (set)
        snprintf(first, sizeof first, "%s-%s", set, test ? "test" : "train");
    else
        snprintf(first, sizeof first, "%s", test ? "t10k" : "train");
    snprintf(out, 64, spellings[spelling], first, what, rank);
}

static bool has(const struct set *set, const char *split, const char *what, int rank)
{
    char name[64];
    bool there = false;
    for (int i = 0; !there && i < SPELLINGS; i++) {
        file_name(name, i, set->name, split, what, rank);
        there = fst__has(set->folder, name);
    }
    return there;
}

static fst_status find(char **out, const struct set *set, const char *split, const char *what, int rank, fst_error *err)
{
    char name[64];
    for (int i = 0; i < SPELLINGS; i++) {
        file_name(name, i, set->name, split, what, rank);
        if (fst__has(set->folder, name)) {
            *out = fst_path_join(set->folder, name);
            return *out ? FST_OK : fst_fail_memory(err, strlen(set->folder));
        }
    }
    file_name(name, 0, set->name, split, what, rank);
    bool half = has(set, split, "images", 3) || has(set, split, "labels", 1);
    return fst_fail(err, half || !strcmp(split, "train") ? FST_E_IO : FST_E_ABSENT, "%s: there is no %s, plain or .gz",
                    set->folder, name);
}

static bool has_images(const char *folder, const char *set)
{
    char name[64];
    for (int i = 0; i < 2 * SPELLINGS; i++) {
        file_name(name, i / 2, set, i % 2 ? "test" : "train", "images", 3);
        if (fst__has(folder, name))
            return true;
    }
    return false;
}

/* FOLDER/emnist-letters: not a file, but what the names of a set's files begin with. */
static const char *named_set(const char *path, size_t *folder)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    *folder = (size_t)(name - path);
    for (int i = 0; i < EMNIST; i++)
        if (!strcmp(name, emnist[i]))
            return emnist[i];
    return NULL;
}

/* The sets that stand at path: *n of them, the first in *out, whose folder the caller frees. */
static fst_status locate(struct set *out, int *n, const char *path, fst_error *err)
{
    static const char *const inside[] = {"",           "raw",       "gzip", "MNIST/raw", "FashionMNIST/raw",
                                         "KMNIST/raw", "EMNIST/raw"};
    size_t len = 0;
    const char *name = named_set(path, &len);
    *n = 0;
    if (name && !fst__is_folder(path)) {
        char *folder = fst_strdup(len ? path : ".");
        if (!folder)
            return fst_fail_memory(err, len);
        if (len)
            folder[len] = 0;
        *n = has_images(folder, name);
        *out = (struct set){folder, name};
        return FST_OK;
    }
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        char *folder = fst_path_join(path, inside[i]);
        struct set found = {folder, NULL};
        if (!folder)
            return fst_fail_memory(err, strlen(path));
        int here = has_images(folder, NULL);
        for (int k = 0; k < EMNIST && fst__is_folder(folder); k++)
            if (has_images(folder, emnist[k])) {
                found.name = here++ ? found.name : emnist[k];
            }
        if (here && !out->folder)
            *out = found;
        else
            fst_free(folder);
        *n += here;
    }
    return FST_OK;
}

static bool probe(const char *path)
{
    struct set set = {0};
    int n = 0;
    fst_status s = locate(&set, &n, path, NULL);
    fst_free(set.folder);
    return !s && n > 0;
}

static fst_status choose(struct set *out, const char *path, fst_error *err)
{
    int n = 0;
    fst_status s = locate(out, &n, path, err);
    if (!s && n > 1)
        s = fst_fail(err, FST_E_CONFIG,
                     "%s: holds %d data sets: name the folder of one, or what its files begin with, for instance "
                     "%s/emnist-letters",
                     path, n, out->folder);
    if (!s && !out->folder) /* the message about what is missing names the path */
        s = (out->folder = fst_strdup(path)) ? FST_OK : fst_fail_memory(err, strlen(path));
    return s;
}

/* ---- headers ------------------------------------------------------------------------------------------- */

static const char *type_name(int code)
{
    switch (code) {
    case 8:
        return "unsigned bytes";
    case 9:
        return "signed bytes";
    case 11:
        return "16-bit integers";
    case 12:
        return "32-bit integers";
    case 13:
        return "floats";
    case 14:
        return "doubles";
    default:
        return "of an unknown type";
    }
}

/* Reads the header; `low` to `high` dimensions are wanted. */
static fst_status header(fst__reader *r, fst_shape *shape, int low, int high, fst_error *err)
{
    unsigned char b[4];
    fst_status s = fst__reader_exact(r, b, 4, "the IDX header", err);
    if (s)
        return s;
    if (b[0] || b[1])
        return fst_fail(err, FST_E_FORMAT, "%s: not IDX: it begins with %02x %02x instead of two zero bytes", r->name,
                        b[0], b[1]);
    if (b[2] != UNSIGNED_BYTE)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: its elements are %s (type %d), only unsigned bytes (8) are read",
                        r->name, type_name(b[2]), b[2]);
    if (b[3] < low || b[3] > high)
        return fst_fail(err, FST_E_FORMAT, "%s: %d dimensions, where %s has %d%s", r->name, b[3],
                        low == high ? "a list of labels" : "a list of images", low, low == high ? "" : " to 4");
    shape->rank = b[3];
    for (int i = 0; i < shape->rank; i++) {
        s = fst__reader_exact(r, b, 4, "the IDX header", err);
        if (s)
            return s;
        shape->dim[i] = (int64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
    }
    char text[128];
    int64_t count = fst_shape_count(shape);
    if (count <= 0)
        return fst_fail(err, FST_E_FORMAT, "%s: dimensions %s hold nothing", r->name,
                        fst_shape_text(shape, text, sizeof text));
    if ((uint64_t)count > fst__reader_most(r))
        return fst_fail(err, FST_E_FORMAT, "%s: dimensions %s promise more than a file of %llu bytes can hold", r->name,
                        fst_shape_text(shape, text, sizeof text), (unsigned long long)r->size);
    return FST_OK;
}

/* ---- labels ---------------------------------------------------------------------------------------------- */

/* Stores a block of labels. */
static fst_status take_block(fst__held *h, const fst__idx_how *how, const unsigned char *block, size_t at, size_t n,
                             fst_error *err)
{
    for (size_t i = 0; i < n; i++) {
        int label = block[i] - how->first_label;
        if (label < 0 || (how->classes && label >= how->classes))
            return fst_fail(err, FST_E_FORMAT, "%s: sample %zu has label %d, labels must be %d ... %d", h->base.name,
                            at + i, block[i], how->first_label,
                            how->first_label + (how->classes ? how->classes : LABELS) - 1);
        h->own_labels[at + i] = label;
    }
    return FST_OK;
}

/* Room for `need` labels; it doubles, so that what a compressed file only promises takes no memory. */
static fst_status grow(fst__held *h, size_t *room, size_t need, fst_error *err)
{
    if (need <= *room)
        return FST_OK;
    size_t more = need > 2 * *room ? need : 2 * *room;
    int32_t *labels = fst_realloc(h->own_labels, *room * sizeof *labels, more * sizeof *labels);
    if (!labels)
        return fst_fail_memory(err, more * sizeof *labels);
    h->own_labels = labels;
    *room = more;
    return FST_OK;
}

static fst_status read_labels(fst__held *h, fst__reader *r, const fst__idx_how *how, size_t n, fst_error *err)
{
    unsigned char block[4096];
    size_t room = 0;
    fst_status s = FST_OK;
    for (size_t at = 0; !s && at < n; at += sizeof block) {
        size_t part = n - at < sizeof block ? n - at : sizeof block;
        s = fst__reader_exact(r, block, part, "the list of labels", err);
        if (!s)
            s = grow(h, &room, at + part, err);
        if (!s)
            s = take_block(h, how, block, at, part, err);
    }
    return s ? s : fst__reader_finish(r, err);
}

/* ---- images ------------------------------------------------------------------------------------------------ */

/* (n, d) -> (d), (n, h, w) -> (1, h, w), (n, c, h, w) -> (c, h, w) */
static fst_shape sample_shape(const fst_shape *file)
{
    fst_shape s = {0};
    if (file->rank == 3)
        s.dim[s.rank++] = 1;
    for (int i = 1; i < file->rank; i++)
        s.dim[s.rank++] = file->dim[i];
    return s;
}

static fst_status read_picked(fst__held *h, fst__reader *r, const fst__picks *p, size_t bytes, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0, at = 0; !s && i < p->count; at = p->index[i++] + 1) {
        s = fst__reader_skip(r, (uint64_t)(p->index[i] - at) * bytes, "the images", err);
        if (!s)
            s = fst__reader_exact(r, h->own_data + i * bytes, bytes, "the images", err);
    }
    return s;
}

static fst_status read_images(fst__held *h, fst__reader *r, const fst_shape *shape, const fst__idx_how *how,
                              fst_error *err)
{
    fst__picks p = {0};
    uint64_t whole = 4 + 4 * (uint64_t)shape->rank + (uint64_t)fst_shape_count(shape);
    if (!r->compressed && fst__reader_most(r) != whole)
        return fst_fail(err, FST_E_FORMAT, "%s: %llu bytes, but its header asks for %llu", r->name,
                        (unsigned long long)r->size, (unsigned long long)whole);
    fst_shape sample = sample_shape(shape);
    size_t bytes = (size_t)fst_shape_count(&sample);
    fst_status s =
        fst__held_choose(h, (size_t)shape->dim[0], how->classes, how->warn && !how->classes, how->limit, &p, err);
    if (!s)
        s = fst__held_reserve(h, FST_U8, &sample, p.count, err);
    if (!s && p.index)
        s = read_picked(h, r, &p, bytes, err);
    else if (!s)
        s = fst__reader_exact(r, h->own_data, p.count * bytes, "the images", err);
    if (!s && !p.index)
        s = fst__reader_finish(r, err);
    fst_free(p.index);
    return s;
}

/* Columns become rows. */
static fst_status turn(fst__held *h, fst_error *err)
{
    size_t high = (size_t)h->base.shape.dim[1], wide = (size_t)h->base.shape.dim[2], n = high * wide;
    unsigned char *from = fst_alloc(n), *to = h->own_data;
    if (!from)
        return fst_fail_memory(err, n);
    for (size_t k = 0; k < h->base.count; k++, to += n) {
        memcpy(from, to, n);
        for (size_t y = 0; y < high; y++)
            for (size_t x = 0; x < wide; x++)
                to[x * high + y] = from[y * wide + x];
    }
    h->base.shape = FST_SHAPE(1, (int64_t)wide, (int64_t)high);
    fst_free(from);
    return FST_OK;
}

/* ---- both ------------------------------------------------------------------------------------------------------- */

static fst_status read_both(fst__held *h, fst__reader *images, fst__reader *labels, const fst__idx_how *how,
                            fst_error *err)
{
    fst_shape x, y;
    fst_status s = header(labels, &y, 1, 1, err);
    if (!s)
        s = header(images, &x, 2, 4, err);
    if (s)
        return s;
    if (x.dim[0] != y.dim[0])
        return fst_fail(err, FST_E_MISMATCH, "%s: holds %lld images, but there are %lld labels", images->name,
                        (long long)x.dim[0], (long long)y.dim[0]);
    s = read_labels(h, labels, how, (size_t)x.dim[0], err);
    if (!s)
        s = read_images(h, images, &x, how, err);
    if (!s && how->transposed && x.rank == 3)
        s = turn(h, err);
    return s;
}

fst_status fst__idx_read(fst_source **out, const char *name, fst__reader *images, fst__reader *labels,
                         const fst__idx_how *how, fst_error *err)
{
    fst__held *h = NULL;
    fst_status s = fst__held_new(&h, &vtable, name, err);
    if (s)
        return s;
    s = read_both(h, images, labels, how, err);
    if (!s)
        s = fst__held_finish(h, h->own_labels, h->base.count, h->base.classes, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}

static fst_status open_idx(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    char *images = NULL, *labels = NULL;
    struct set set = {0};
    fst__reader x = {.fd = -1}, y = {.fd = -1};
    fst_status s = choose(&set, spec->path, err);
    if (!s)
        s = find(&images, &set, spec->split, "images", 3, err);
    if (!s)
        s = find(&labels, &set, spec->split, "labels", 1, err);
    if (!s)
        s = fst__not_foreign(images, err);
    if (!s)
        s = fst__not_foreign(labels, err);
    if (!s)
        s = fst__reader_open(&x, images, err);
    if (!s)
        s = fst__reader_open(&y, labels, err);
    const fst__idx_how how = {.classes = spec->classes,
                              .limit = spec->limit,
                              .transposed = set.name,
                              .first_label = set.name && !strcmp(set.name, "emnist-letters"),
                              .warn = !strcmp(spec->split, "train")};
    if (!s)
        s = fst__idx_read(out, spec->path, &x, &y, &how, err);
    fst__reader_close(&x);
    fst__reader_close(&y);
    fst_free(images);
    fst_free(labels);
    fst_free(set.folder);
    return s;
}

const fst__format fst__format_idx = {"idx", probe, open_idx, false};
