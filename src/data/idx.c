/*
 * IDX, the format of MNIST and its relatives: two zero bytes, the element type, the rank, the
 * dimensions (big-endian), then the elements. Images are inflated straight into the block that the
 * source keeps. Only unsigned bytes are read, since nothing else is published in this format.
 */
#include <stdio.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable = {"idx", fst__held_get, fst__held_close};

/* MNIST's own spelling first, then the one that some mirrors use; each plain, then gzip. */
static const char *const spellings[] = {"%s-%s-idx%d-ubyte", "%s-%s-idx%d-ubyte.gz", "%s-%s.idx%d-ubyte",
                                        "%s-%s.idx%d-ubyte.gz"};
enum { SPELLINGS = sizeof spellings / sizeof *spellings, UNSIGNED_BYTE = 8 };

static void file_name(char *out, size_t size, int spelling, const char *split, const char *what, int rank)
{
    snprintf(out, size, spellings[spelling], strcmp(split, "test") ? "train" : "t10k", what, rank);
}

static fst_status find(char **out, const char *folder, const char *split, const char *what, int rank, fst_error *err)
{
    char name[64];
    for (int i = 0; i < SPELLINGS; i++) {
        file_name(name, sizeof name, i, split, what, rank);
        if (fst__has(folder, name)) {
            *out = fst_path_join(folder, name);
            return *out ? FST_OK : fst_fail_memory(err, strlen(folder));
        }
    }
    file_name(name, sizeof name, 0, split, what, rank);
    return fst_fail(err, FST_E_IO, "%s: there is no %s, plain or .gz", folder, name);
}

static bool probe(const char *path)
{
    char name[64];
    for (int i = 0; i < 2 * SPELLINGS; i++) {
        file_name(name, sizeof name, i / 2, i % 2 ? "test" : "train", "images", 3);
        if (fst__has(path, name))
            return true;
    }
    return false;
}

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
        return fst_fail(err, FST_E_FORMAT, "%s: %d dimensions, %d to %d are expected", r->name, b[3], low, high);
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

/* All labels, also those behind a limit: they tell how many classes there are. */
static fst_status read_labels(fst__held *h, fst__reader *r, size_t *count, fst_error *err)
{
    fst_shape shape;
    unsigned char block[4096];
    fst_status s = header(r, &shape, 1, 1, err);
    if (s)
        return s;
    size_t n = (size_t)shape.dim[0];
    h->own_labels = fst_alloc(n * sizeof *h->own_labels);
    if (!h->own_labels)
        return fst_fail_memory(err, n * sizeof *h->own_labels);
    for (size_t at = 0; at < n;) {
        size_t part = n - at < sizeof block ? n - at : sizeof block;
        s = fst__reader_exact(r, block, part, "the list of labels", err);
        if (s)
            return s;
        for (size_t i = 0; i < part; i++)
            h->own_labels[at + i] = block[i];
        at += part;
    }
    *count = n;
    return fst__reader_finish(r, err);
}

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

static fst_status read_images(fst__held *h, fst__reader *r, size_t labels, size_t limit, fst_error *err)
{
    fst_shape shape;
    fst_status s = header(r, &shape, 2, 4, err);
    if (s)
        return s;
    if ((uint64_t)shape.dim[0] != labels)
        return fst_fail(err, FST_E_MISMATCH, "%s: holds %lld images, but there are %zu labels", r->name,
                        (long long)shape.dim[0], labels);
    if (!r->compressed && fst__reader_most(r) != 4 + 4 * (uint64_t)shape.rank + (uint64_t)fst_shape_count(&shape))
        return fst_fail(err, FST_E_FORMAT, "%s: %llu bytes, but its header asks for %llu", r->name,
                        (unsigned long long)r->size,
                        4 + 4 * (unsigned long long)shape.rank + (unsigned long long)fst_shape_count(&shape));
    fst_shape sample = sample_shape(&shape);
    uint64_t keep = fst__limited(labels, limit);
    s = fst__held_reserve(h, FST_U8, &sample, keep, err);
    if (!s)
        s = fst__reader_exact(r, h->own_data, (size_t)keep * (size_t)fst_shape_count(&sample), "the images", err);
    /* Behind a limit nothing is inflated just to see whether it is sound. */
    if (!s && keep == labels)
        s = fst__reader_finish(r, err);
    return s;
}

fst_status fst__idx_read(fst_source **out, const char *name, fst__reader *images, fst__reader *labels, int classes,
                         size_t limit, fst_error *err)
{
    fst__held *h = NULL;
    size_t count = 0;
    fst_status s = fst__held_new(&h, &vtable, name, err);
    if (s)
        return s;
    s = read_labels(h, labels, &count, err);
    if (!s)
        s = read_images(h, images, count, limit, err);
    if (!s)
        s = fst__held_finish(h, h->own_labels, count, classes, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}

static fst_status open_idx(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    char *images = NULL, *labels = NULL;
    fst__reader x = {.fd = -1}, y = {.fd = -1};
    fst_status s = find(&images, spec->path, spec->split, "images", 3, err);
    if (!s)
        s = find(&labels, spec->path, spec->split, "labels", 1, err);
    if (!s)
        s = fst__reader_open(&x, images, err);
    if (!s)
        s = fst__reader_open(&y, labels, err);
    if (!s)
        s = fst__idx_read(out, spec->path, &x, &y, spec->classes, spec->limit, err);
    fst__reader_close(&x);
    fst__reader_close(&y);
    fst_free(images);
    fst_free(labels);
    return s;
}

const fst__format fst__format_idx = {"idx", probe, open_idx, false};
