/*
 * CIFAR-10 and CIFAR-100 as Python pickles, the form that torchvision downloads. A batch is a dictionary of `data`,
 * bytes (N, 3072), an image of 32 x 32 a row, channel by channel, and a list of labels. A pickle is a program: it is
 * read by the reader of fedstill/tensor.h, which runs none. Batches are read one after the other, first for their
 * labels and then for the images that a limit leaves, which are copied out of the file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable10 = {"cifar10", fst__held_get, fst__held_close};
static const fst_source_vtable vtable100 = {"cifar100", fst__held_get, fst__held_close};

enum { PIXELS = 3 * 32 * 32, MAX_BATCHES = 5 };
#define MAX_PICKLE_BYTES ((size_t)1 << 30)

struct edition {
    const fst_source_vtable *vtable;
    const char *folder; /* that the archive unpacks into */
    const char *train[MAX_BATCHES + 1], *test, *meta;
    const char *labels, *names; /* keys of a batch and of meta */
    int classes;
};

static const struct edition cifar10 = {&vtable10,
                                       "cifar-10-batches-py",
                                       {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"},
                                       "test_batch",
                                       "batches.meta",
                                       "labels",
                                       "label_names",
                                       10};
static const struct edition cifar100 = {&vtable100, "cifar-100-python", {"train"},          "test",
                                        "meta",     "fine_labels",      "fine_label_names", 100};

/* ---- one batch ------------------------------------------------------------------------------- */

static fst_status check_batch(const char *name, const fst_pickle_value *data, const fst_pickle_value *labels,
                              const char *key, fst_error *err)
{
    char text[256];
    if (!data || data->kind != FST_PICKLE_ARRAY || !labels || labels->kind != FST_PICKLE_LIST)
        return fst_fail(err, FST_E_FORMAT, "%s: not a batch of CIFAR: \"data\" must be an array and \"%s\" a list",
                        name, key);
    const fst_tensor *a = data->array;
    if (a->dtype != FST_U8 || a->shape.rank != 2 || a->shape.dim[1] != PIXELS)
        return fst_fail(err, FST_E_FORMAT, "%s: \"data\" is %s %s, not bytes (N, %d)", name, fst_dtype_name(a->dtype),
                        fst_shape_text(&a->shape, text, sizeof text), PIXELS);
    if ((uint64_t)a->shape.dim[0] != labels->list.count)
        return fst_fail(err, FST_E_MISMATCH, "%s: holds %lld images, but there are %zu labels", name,
                        (long long)a->shape.dim[0], labels->list.count);
    return FST_OK;
}

fst_status fst__cifar_python_labels(fst__held *h, const char *name, const fst_pickle *p, const char *key, int classes,
                                    size_t *count, fst_error *err)
{
    const fst_pickle_value *root = fst_pickle_root(p), *labels = fst_pickle_find(root, key);
    fst_status s = check_batch(name, fst_pickle_find(root, "data"), labels, key, err);
    if (s)
        return s;
    size_t n = labels->list.count, have = *count;
    int32_t *more = fst_realloc(h->own_labels, have * sizeof *more, (have + n) * sizeof *more);
    if (!more)
        return fst_fail_memory(err, (have + n) * sizeof *more);
    h->own_labels = more;
    for (size_t i = 0; i < n; i++) {
        const fst_pickle_value *v = labels->list.items[i];
        if (v->kind != FST_PICKLE_INT || v->integer < 0 || v->integer >= classes)
            return fst_fail(err, FST_E_FORMAT, "%s: label %zu is no whole number from 0 to %d", name, i, classes - 1);
        more[have + i] = (int32_t)v->integer;
    }
    *count = have + n;
    return FST_OK;
}

fst_status fst__cifar_python_images(fst__held *h, const char *name, const fst_pickle *p, const char *key,
                                    const fst__picks *picks, size_t *first, size_t *done, fst_error *err)
{
    const fst_pickle_value *root = fst_pickle_root(p), *data = fst_pickle_find(root, "data");
    fst_status s = check_batch(name, data, fst_pickle_find(root, key), key, err);
    if (s)
        return s;
    const unsigned char *images = data->array->data;
    size_t next = *first + (size_t)data->array->shape.dim[0];
    for (; !s && *done < picks->count && fst__picked(picks, *done) < next; ++*done)
        s = fst_pickle_copy(p, h->own_data + *done * PIXELS, images + (fst__picked(picks, *done) - *first) * PIXELS,
                            PIXELS, err);
    *first = next;
    return s;
}

/* ---- names of classes -------------------------------------------------------------------------- */

static fst_status take_names(fst_source *s, const char *path, const fst_pickle_value *list, fst_error *err)
{
    size_t n = (size_t)s->classes, bytes = n * sizeof(char *);
    if (!list || list->kind != FST_PICKLE_LIST || list->list.count != n)
        return fst_fail(err, FST_E_FORMAT, "%s: does not name %zu classes", path, n);
    for (size_t i = 0; i < n; i++) {
        const fst_pickle_value *v = list->list.items[i];
        if ((v->kind != FST_PICKLE_TEXT && v->kind != FST_PICKLE_BYTES) || v->text.length == 0 ||
            v->text.length > 255 || memchr(v->text.data, 0, v->text.length))
            return fst_fail(err, FST_E_FORMAT, "%s: the name of class %zu is no text of 1 to 255 bytes", path, i);
        bytes += v->text.length + 1;
    }
    char **names = fst_calloc(1, bytes), *at = (char *)(names + n);
    if (!names)
        return fst_fail_memory(err, bytes);
    for (size_t i = 0; i < n; i++) {
        const fst_pickle_value *v = list->list.items[i];
        names[i] = memcpy(at, v->text.data, v->text.length);
        at += v->text.length + 1;
    }
    s->class_names = names;
    return FST_OK;
}

static fst_status read_names(fst_source *s, const struct edition *e, const char *folder, fst_error *err)
{
    fst_pickle *p = NULL;
    char *path = NULL;
    if (!fst__has(folder, e->meta))
        return FST_OK;
    path = fst_path_join(folder, e->meta);
    fst_status st = path ? fst_pickle_read(&p, path, MAX_PICKLE_BYTES, err) : fst_fail_memory(err, strlen(folder));
    if (!st)
        st = take_names(s, path, fst_pickle_find(fst_pickle_root(p), e->names), err);
    fst_pickle_free(p);
    fst_free(path);
    return st;
}

/* ---- all batches --------------------------------------------------------------------------------- */

static fst_status read_batch(fst_pickle **out, char **path, const char *folder, const char *file, fst_error *err)
{
    *path = fst_path_join(folder, file);
    if (!*path)
        return fst_fail_memory(err, strlen(folder));
    fst_status s = fst__not_foreign(*path, err);
    return s ? s : fst_pickle_open(out, *path, MAX_PICKLE_BYTES, err);
}

/* What is read of the batches: first the labels of all, then the picked images. */
struct reading {
    const struct edition *e;
    const fst__picks *picks; /* NULL: labels */
    size_t count, done;      /* samples that passed by, and images that were copied */
};

static fst_status take_batch(fst__held *h, struct reading *r, const char *folder, const char *file, fst_error *err)
{
    fst_pickle *p = NULL;
    char *path = NULL;
    fst_status s = read_batch(&p, &path, folder, file, err);
    if (!s && r->picks)
        s = fst__cifar_python_images(h, path, p, r->e->labels, r->picks, &r->count, &r->done, err);
    else if (!s)
        s = fst__cifar_python_labels(h, path, p, r->e->labels, r->e->classes, &r->count, err);
    fst_pickle_free(p);
    fst_free(path);
    return s;
}

/* Where the first batches have enough for a limit, the others may be missing. */
static fst_status take_batches(fst__held *h, struct reading *r, const char *folder, const fst_source_spec *spec,
                               fst_error *err)
{
    const char *const *train = r->e->train;
    fst_status s = FST_OK;
    if (!strcmp(spec->split, "test") && !fst__has(folder, r->e->test))
        return fst_fail(err, FST_E_ABSENT, "%s: there is no %s", folder, r->e->test);
    if (!strcmp(spec->split, "test"))
        return take_batch(h, r, folder, r->e->test, err);
    for (size_t i = 0; !s && train[i]; i++) {
        if (spec->limit && r->count >= spec->limit && !fst__has(folder, train[i]))
            break;
        s = take_batch(h, r, folder, train[i], err);
    }
    return s;
}

static fst_status read_all(fst__held *h, const struct edition *e, const char *folder, const fst_source_spec *spec,
                           fst_error *err)
{
    struct reading labels = {.e = e}, images = {.e = e};
    fst__picks picks = {0};
    fst_status s = take_batches(h, &labels, folder, spec, err);
    if (!s)
        s = fst__held_choose(h, labels.count, e->classes, false, spec->limit, &picks, err);
    if (!s)
        s = fst__held_reserve(h, FST_U8, &FST_SHAPE(3, 32, 32), picks.count, err);
    images.picks = &picks;
    if (!s)
        s = take_batches(h, &images, folder, spec, err);
    if (!s && (images.count != labels.count || images.done != picks.count))
        s = fst_fail(err, FST_E_IO, "%s: its batches changed while they were read", h->base.name);
    fst_free(picks.index);
    return s;
}

static fst_status open_edition(fst_source **out, const struct edition *e, const fst_source_spec *spec, fst_error *err)
{
    fst__held *h = NULL;
    fst_source *source = NULL;
    if (spec->classes && spec->classes != e->classes)
        return fst_fail(err, FST_E_CONFIG, "%s: has %d classes, not %d", spec->path, e->classes, spec->classes);
    char *folder = fst_path_join(spec->path, fst__has(spec->path, e->folder) ? e->folder : "");
    fst_status s = folder ? fst__held_new(&h, e->vtable, spec->path, err) : fst_fail_memory(err, strlen(spec->path));
    if (!s)
        s = read_all(h, e, folder, spec, err);
    if (!s)
        s = fst__held_finish(h, h->own_labels, h->base.count, e->classes, &source, err);
    if (!s)
        s = read_names(source, e, folder, err);
    if (s)
        fst__held_close(h ? &h->base : NULL);
    else
        *out = source;
    fst_free(folder);
    return s;
}

bool fst__cifar10_python_probe(const char *path)
{
    return fst__has(path, "cifar-10-batches-py/data_batch_1") || fst__has(path, "data_batch_1") ||
           fst__has(path, "cifar-10-batches-py/test_batch") || fst__has(path, "test_batch");
}

fst_status fst__cifar10_python_open(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    return open_edition(out, &cifar10, spec, err);
}

/* Its files are called train, test and meta, which alone would say little. */
static bool probe100(const char *path)
{
    char *train = fst_path_join(path, "train");
    bool bare = train && fst__has(path, "train") && !fst__is_folder(train) && fst__has(path, "meta");
    fst_free(train);
    return bare || fst__has(path, "cifar-100-python/train");
}

static fst_status open100(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    return open_edition(out, &cifar100, spec, err);
}

const fst__format fst__format_cifar100 = {"cifar100", probe100, open100, false};
