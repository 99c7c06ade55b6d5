/*
 * RadioML's pickles as a source: {(label, snr): floats (N, 2, L)}, as RadioML 2016.10a and its kin have them, and the
 * split form {'train': (X, y), 'val': (X, y), 'test': (X, y)}. The pickle is read by fedstill/tensor.h's reader, which
 * runs nothing; of its arrays only the samples that are kept are read.
 * Classes of the first form are numbered in the order of their names, whatever order the file has. RadioML 2018's HDF5
 * is read in radioml_hdf5.c.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats.h"

static const fst_source_vtable vtable = {"radioml", fst__held_get, fst__held_close};

enum { MAX_CELLS = 1 << 20, MAX_LABEL = FST__MAX_NAME + 1 };

/* One entry of the dictionary. */
struct cell {
    char label[MAX_LABEL];
    float snr;
    const fst_tensor *x;
    size_t order; /* in the file */
    int32_t class;
};

/* RadioML 2016.10b calls its pickle .dat, as others call everything: it must begin as a pickle of a dictionary does. */
static bool begins_as_pickle(const char *path)
{
    char b[2] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool read_it = fd >= 0 && pread(fd, b, sizeof b, 0) == (ssize_t)sizeof b;
    if (fd >= 0)
        close(fd);
    return read_it && ((b[0] == '\x80' && b[1] >= 2 && b[1] <= 5) || (b[0] == '(' && b[1] == 'd') || b[0] == '}');
}

static bool probe(const char *path)
{
    return !fst__is_folder(path) && fst_file_exists(path) &&
           (fst__ends_with(path, ".pkl") || fst__ends_with(path, ".pickle") ||
            (fst__ends_with(path, ".dat") && begins_as_pickle(path)) || fst__is_hdf5(path));
}

/* ---- texts and arrays ----------------------------------------------------------------------- */

/* A label's text as UTF-8; what Python 2 wrote is Latin-1. */
static bool label_text(const fst_pickle_value *v, char out[MAX_LABEL])
{
    size_t n = 0;
    if (v->kind != FST_PICKLE_TEXT && v->kind != FST_PICKLE_BYTES)
        return false;
    for (size_t i = 0; i < v->text.length; i++) {
        unsigned char c = (unsigned char)v->text.data[i];
        bool wide = v->kind == FST_PICKLE_BYTES && c >= 0x80;
        if (n + wide + 1 >= MAX_LABEL)
            return false;
        if (wide)
            out[n++] = (char)(0xC0 | c >> 6);
        out[n++] = (char)(wide ? 0x80 | (c & 0x3F) : c);
    }
    out[n] = 0;
    return !fst__name_fault(out, n);
}

/* Floats (N, 2, L), N possibly 0. */
static bool is_signals(const fst_pickle_value *v)
{
    return v && v->kind == FST_PICKLE_ARRAY && (v->array->dtype == FST_F32 || v->array->dtype == FST_F64) &&
           v->array->shape.rank == 3 && v->array->shape.dim[1] == 2 && v->array->shape.dim[2] > 0;
}

static fst_status same_length(const char *name, const char *what, const fst_tensor *x, int64_t length, fst_error *err)
{
    char text[256];
    if (x->shape.dim[2] == length)
        return FST_OK;
    return fst_fail(err, FST_E_MISMATCH, "%s: %s has shape %s, others have %lld samples a window", name, what,
                    fst_shape_text(&x->shape, text, sizeof text), (long long)length);
}

/* Reads the n windows of x from `from` on into those of h from `at` on. */
static fst_status copy_windows(fst__held *h, size_t at, const fst_pickle *p, const fst_tensor *x, size_t from, size_t n,
                               fst_error *err)
{
    size_t each = (size_t)x->shape.dim[2] * 2, bytes = each * fst_dtype_size(x->dtype);
    const unsigned char *data = (const unsigned char *)x->data + from * bytes;
    float *to = (float *)(void *)h->own_data + at * each;
    if (x->dtype == FST_F32)
        return fst_pickle_copy(p, to, data, n * bytes, err);
    void *wide = fst_alloc(bytes);
    fst_status s = wide ? FST_OK : fst_fail_memory(err, bytes);
    for (size_t i = 0; !s && i < n; i++, data += bytes, to += each) {
        s = fst_pickle_copy(p, wide, data, bytes, err);
        if (!s)
            fst_f32_from(to, x->dtype, wide, each);
    }
    fst_free(wide);
    return s;
}

/* Those of `count` windows of x, which are the first, first + 1 ... of all, that were picked; *k counts the picks. */
static fst_status copy_picked(fst__held *h, const fst_pickle *p, const fst_tensor *x, size_t first,
                              const fst__picks *picks, size_t *k, fst_error *err)
{
    size_t next = first + (size_t)x->shape.dim[0];
    fst_status s = FST_OK;
    while (!s && *k < picks->count && fst__picked(picks, *k) < next) {
        size_t from = fst__picked(picks, *k), n = 1;
        while (*k + n < picks->count && fst__picked(picks, *k + n) == from + n && from + n < next)
            n++;
        s = copy_windows(h, *k, p, x, from - first, n, err);
        *k += n;
    }
    return s;
}

/* ---- {(label, snr): floats} ----------------------------------------------------------------- */

static bool as_cell(const fst_pickle_value *key, const fst_pickle_value *x, size_t order, struct cell *c)
{
    if (key->kind != FST_PICKLE_TUPLE || key->list.count != 2 || !is_signals(x))
        return false;
    const fst_pickle_value *snr = key->list.items[1];
    double db = snr->kind == FST_PICKLE_INT ? (double)snr->integer : snr->kind == FST_PICKLE_FLOAT ? snr->real : NAN;
    c->snr = (float)db;
    c->x = x->array;
    c->order = order;
    return label_text(key->list.items[0], c->label) && fabs(db) <= 1000;
}

static int by_label_and_snr(const void *a, const void *b)
{
    const struct cell *x = a, *y = b;
    int d = strcmp(x->label, y->label);
    if (d)
        return d;
    if (x->snr < y->snr || x->snr > y->snr)
        return x->snr < y->snr ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static fst_status read_cells(const char *name, const fst_pickle_value *root, struct cell **out, size_t *count,
                             fst_error *err)
{
    size_t n = root->list.count / 2;
    if (n == 0 || n > MAX_CELLS)
        return fst_fail(err, FST_E_FORMAT, "%s: a dictionary of %zu entries, 1 to %d are read", name, n, MAX_CELLS);
    struct cell *cells = fst_calloc(n, sizeof *cells);
    fst_status s = cells ? FST_OK : fst_fail_memory(err, n * sizeof *cells);
    for (size_t i = 0; !s && i < n; i++) {
        if (!as_cell(root->list.items[2 * i], root->list.items[2 * i + 1], i, &cells[i]))
            s = fst_fail(err, FST_E_FORMAT,
                         "%s: entry %zu of the dictionary is not (label, snr in dB): floats (N, 2, length)", name, i);
        else
            s = same_length(name, cells[i].label, cells[i].x, cells[0].x->shape.dim[2], err);
    }
    if (s) {
        fst_free(cells);
        return s;
    }
    qsort(cells, n, sizeof *cells, by_label_and_snr);
    *out = cells;
    *count = n;
    return FST_OK;
}

/* Numbers the sorted cells' labels; classes without any sample count too. */
static fst_status number_classes(const char *name, struct cell *cells, size_t n, char ***names, int *classes,
                                 fst_error *err)
{
    char **list = fst_calloc(n, sizeof *list);
    size_t k = 0;
    if (!list)
        return fst_fail_memory(err, n * sizeof *list);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(cells[i].label, cells[i - 1].label) != 0)
            list[k++] = cells[i].label;
        cells[i].class = (int32_t)(k - 1);
    }
    fst_status s = k <= FST_MAX_CLASSES
                       ? fst__names_copy(names, list, k, err)
                       : fst_fail(err, FST_E_LIMIT, "%s: %zu labels, at most %d are read", name, k, FST_MAX_CLASSES);
    *classes = (int)k;
    fst_free(list);
    return s;
}

/* The labels and SNR of all windows, cell by cell. */
static fst_status label_cells(fst__held *h, const struct cell *cells, size_t n, size_t total, fst_error *err)
{
    size_t at = 0;
    h->own_labels = fst_alloc(total * sizeof *h->own_labels);
    h->own_snr = fst_alloc(total * sizeof *h->own_snr);
    if (!h->own_labels || !h->own_snr)
        return fst_fail_memory(err, total * 8);
    for (size_t i = 0; i < n; i++)
        for (int64_t k = 0; k < cells[i].x->shape.dim[0]; k++) {
            h->own_labels[at] = cells[i].class;
            h->own_snr[at++] = cells[i].snr;
        }
    return FST_OK;
}

/* Of the numbered cells' windows those that the limit leaves. */
static fst_status fill_cells(fst__held *h, const fst_pickle *file, const struct cell *cells, size_t n, int classes,
                             size_t limit, fst_error *err)
{
    uint64_t total = 0;
    size_t k = 0, first = 0;
    fst__picks p = {0};
    for (size_t i = 0; i < n; i++)
        total += (uint64_t)cells[i].x->shape.dim[0];
    fst_status s = label_cells(h, cells, n, (size_t)total, err);
    if (!s)
        s = fst__held_choose(h, (size_t)total, classes, true, limit, &p, err);
    if (!s)
        s = fst__held_reserve(h, FST_F32, &FST_SHAPE(2, cells[0].x->shape.dim[2]), p.count, err);
    for (size_t i = 0; !s && i < n; i++) {
        s = copy_picked(h, file, cells[i].x, first, &p, &k, err);
        first += (size_t)cells[i].x->shape.dim[0];
    }
    if (!s)
        s = fst__held_check_finite(h, &p, err);
    fst_free(p.index);
    return s;
}

static fst_status take_cells(fst__held *h, const fst_pickle *file, const fst_source_spec *spec, fst_source **out,
                             fst_error *err)
{
    const fst_pickle_value *root = fst_pickle_root(file);
    struct cell *cells = NULL;
    size_t n = 0;
    int classes = 0;
    if (strcmp(spec->split, "train"))
        return fst_fail(err, FST_E_ABSENT,
                        "%s: has no %s split: it is one dictionary of (label, snr); see fedstill data split",
                        h->base.name, spec->split);
    fst_status s = read_cells(h->base.name, root, &cells, &n, err);
    if (s)
        return s;
    s = number_classes(h->base.name, cells, n, &h->base.class_names, &classes, err);
    if (!s && spec->classes && spec->classes != classes)
        s = fst_fail(err, FST_E_CONFIG, "%s: has %d labels, but %d classes were asked for", h->base.name, classes,
                     spec->classes);
    if (!s)
        s = fill_cells(h, file, cells, n, classes, spec->limit, err);
    fst_free(cells);
    return s ? s : fst__held_finish(h, h->own_labels, h->base.count, classes, out, err);
}

/* ---- {'train': (X, y), ...} ----------------------------------------------------------------- */

/* Element i of a list of integers, or of an array of them, whose bytes are `data`. */
static bool integer_at(const fst_pickle_value *y, const unsigned char *data, size_t i, int64_t *out)
{
    if (y->kind == FST_PICKLE_LIST || y->kind == FST_PICKLE_TUPLE) {
        const fst_pickle_value *v = y->list.items[i];
        *out = v->integer;
        return v->kind == FST_PICKLE_INT;
    }
    fst_dtype t = y->array->dtype;
    size_t size = fst_dtype_size(t);
    uint64_t bits = 0;
    memcpy(&bits, data + i * size, size); /* little-endian */
    bool is_signed = t == FST_I8 || t == FST_I16 || t == FST_I32 || t == FST_I64;
    *out = is_signed          ? (int64_t)(bits << (64 - 8 * size)) >> (64 - 8 * size)
           : bits > INT64_MAX ? INT64_MAX
                              : (int64_t)bits;
    return t != FST_F32 && t != FST_F64 && t != FST_F16;
}

static size_t length_of(const fst_pickle_value *y)
{
    if (y->kind == FST_PICKLE_LIST || y->kind == FST_PICKLE_TUPLE)
        return y->list.count;
    if (y->kind == FST_PICKLE_ARRAY &&
        (y->array->shape.rank == 1 || (y->array->shape.rank == 2 && y->array->shape.dim[1] == 1)))
        return (size_t)y->array->shape.dim[0];
    return 0;
}

static fst_status take_labels(fst__held *h, const fst_pickle *p, const fst_pickle_value *y, const char *split, size_t n,
                              fst_error *err)
{
    size_t bytes = y->kind == FST_PICKLE_ARRAY ? n * fst_dtype_size(y->array->dtype) : 0;
    unsigned char *data = fst_alloc(bytes ? bytes : 1);
    h->own_labels = fst_alloc(n * sizeof *h->own_labels);
    fst_status s = data && h->own_labels ? FST_OK : fst_fail_memory(err, bytes + n * sizeof *h->own_labels);
    if (!s && bytes)
        s = fst_pickle_copy(p, data, y->array->data, bytes, err);
    for (size_t i = 0; !s && i < n; i++) {
        int64_t v = 0;
        if (!integer_at(y, data, i, &v))
            s = fst_fail(err, FST_E_FORMAT, "%s: label %zu of '%s' is no whole number", h->base.name, i, split);
        else if (v < 0 || v >= FST_MAX_CLASSES)
            s = fst_fail(err, FST_E_FORMAT, "%s: sample %zu of '%s' has label %" PRId64 ", labels must be 0 ... %d",
                         h->base.name, i, split, v, FST_MAX_CLASSES - 1);
        else
            h->own_labels[i] = (int32_t)v;
    }
    fst_free(data);
    return s;
}

static const fst_pickle_value *pair_of(const fst_pickle_value *root, const char *split)
{
    const fst_pickle_value *v = fst_pickle_find(root, split);
    bool pair = v && (v->kind == FST_PICKLE_TUPLE || v->kind == FST_PICKLE_LIST) && v->list.count == 2;
    return pair ? v : NULL;
}

static fst_status take_pair(fst__held *h, const fst_pickle *file, const fst_source_spec *spec, fst_source **out,
                            fst_error *err)
{
    char text[256];
    const fst_pickle_value *pair = pair_of(fst_pickle_root(file), spec->split);
    if (!pair)
        return fst_fail(err, fst_pickle_find(fst_pickle_root(file), spec->split) ? FST_E_FORMAT : FST_E_ABSENT,
                        "%s: '%s' is not there, or not a pair (X, y)", h->base.name, spec->split);
    const fst_pickle_value *x = pair->list.items[0], *y = pair->list.items[1];
    if (!is_signals(x))
        return fst_fail(err, FST_E_FORMAT, "%s: X of '%s' is not an array of floats (N, 2, length)", h->base.name,
                        spec->split);
    size_t n = (size_t)x->array->shape.dim[0];
    if (y->kind == FST_PICKLE_ARRAY && y->array->shape.rank > 0 && !length_of(y) && n)
        return fst_fail(err, FST_E_FORMAT, "%s: y of '%s' has shape %s; a whole number for each sample is needed",
                        h->base.name, spec->split, fst_shape_text(&y->array->shape, text, sizeof text));
    if (length_of(y) != n)
        return fst_fail(err, FST_E_MISMATCH, "%s: '%s' has %zu samples and %zu labels", h->base.name, spec->split, n,
                        length_of(y));
    fst__picks p = {0};
    size_t k = 0;
    fst_status s = take_labels(h, file, y, spec->split, n, err);
    if (!s)
        s = fst__held_choose(h, n, spec->classes, !spec->classes && !strcmp(spec->split, "train"), spec->limit, &p,
                             err);
    if (!s)
        s = fst__held_reserve(h, FST_F32, &FST_SHAPE(2, x->array->shape.dim[2]), p.count, err);
    if (!s)
        s = copy_picked(h, file, x->array, 0, &p, &k, err);
    if (!s)
        s = fst__held_check_finite(h, &p, err);
    fst_free(p.index);
    return s ? s : fst__held_finish(h, h->own_labels, h->base.count, h->base.classes, out, err);
}

/* ---- opening -------------------------------------------------------------------------------- */

fst_status fst__radioml_take(fst_source **out, const char *name, const fst_pickle *p, const fst_source_spec *spec,
                             fst_error *err)
{
    const fst_pickle_value *root = fst_pickle_root(p);
    fst__held *h = NULL;
    if (root->kind != FST_PICKLE_DICT)
        return fst_fail(
            err, FST_E_FORMAT,
            "%s: the pickle holds no dictionary: {(label, snr): floats (N, 2, length)} or {'train': (X, y), "
            "...} are read",
            name);
    fst_status s = fst__held_new(&h, &vtable, name, err);
    if (s)
        return s;
    bool split = fst_pickle_find(root, "train") || fst_pickle_find(root, "test");
    s = split ? take_pair(h, p, spec, out, err) : take_cells(h, p, spec, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}

static fst_status open_hdf5(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    fst__held *h = NULL;
    fst_status s = fst__held_new(&h, &vtable, spec->path, err);
    if (s)
        return s;
    s = fst__radioml_hdf5(h, spec, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}

static fst_status open_radioml(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    fst_pickle *p = NULL;
    if (fst__is_hdf5(spec->path))
        return open_hdf5(out, spec, err);
    fst_status s = fst_pickle_open(&p, spec->path, FST_SOURCE_MAX_BYTES, err);
    if (!s)
        s = fst__radioml_take(out, spec->path, p, spec, err);
    fst_pickle_free(p);
    return s;
}

const fst__format fst__format_radioml = {"radioml", probe, open_radioml, true};
