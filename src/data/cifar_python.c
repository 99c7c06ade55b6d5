/*
 * CIFAR-10 and CIFAR-100 as Python pickles, the form that torchvision downloads. A batch is a dictionary of `data`,
 * bytes (N, 3072), an image of 32 x 32 a row, channel by channel, and a list of labels. A pickle is a program: it is
 * read by the reader of fedstill/tensor.h, which runs none. Batches are read one after the other, so that only one is
 * in memory twice.
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

/* Room for n more samples. */
static fst_status grow(fst__held *h, size_t n, fst_error *err)
{
    size_t have = h->base.count, all = have + n;
    if (all > FST_SOURCE_MAX_BYTES / PIXELS)
        return fst_fail(err, FST_E_LIMIT, "%s: more than the %zu MB a source may hold", h->base.name,
                        FST_SOURCE_MAX_BYTES >> 20);
    unsigned char *data = fst_realloc(h->own_data, have * PIXELS, all * PIXELS);
    h->own_data = data ? data : h->own_data;
    int32_t *labels = fst_realloc(h->own_labels, have * sizeof *labels, all * sizeof *labels);
    h->own_labels = labels ? labels : h->own_labels;
    return data && labels ? FST_OK : fst_fail_memory(err, all * PIXELS);
}

fst_status fst__cifar_python_add(fst__held *h, const char *name, const fst_pickle *p, const char *key, int classes,
                                 size_t limit, fst_error *err)
{
    const fst_pickle_value *root = fst_pickle_root(p), *data = fst_pickle_find(root, "data"),
                           *labels = fst_pickle_find(root, key);
    fst_status s = check_batch(name, data, labels, key, err);
    if (s)
        return s;
    size_t n = labels->list.count, have = h->base.count;
    n = limit && n > limit - have ? limit - have : n;
    s = n ? grow(h, n, err) : FST_OK;
    for (size_t i = 0; !s && i < n; i++) {
        const fst_pickle_value *v = labels->list.items[i];
        if (v->kind != FST_PICKLE_INT || v->integer < 0 || v->integer >= classes)
            s = fst_fail(err, FST_E_FORMAT, "%s: label %zu is no whole number from 0 to %d", name, i, classes - 1);
        else
            h->own_labels[have + i] = (int32_t)v->integer;
    }
    if (s || !n)
        return s;
    memcpy(h->own_data + have * PIXELS, data->array->data, n * PIXELS);
    h->base.count += n;
    return FST_OK;
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

static fst_status read_batch(fst__held *h, const struct edition *e, const char *folder, const char *file,
                             fst_error *err)
{
    fst_pickle *p = NULL;
    char *path = fst_path_join(folder, file);
    if (!path)
        return fst_fail_memory(err, strlen(folder));
    fst_status s = fst__not_foreign(path, err);
    if (!s)
        s = fst_pickle_read(&p, path, MAX_PICKLE_BYTES, err);
    if (!s)
        s = fst__cifar_python_add(h, path, p, e->labels, e->classes, 0, err);
    fst_pickle_free(p);
    fst_free(path);
    return s;
}

/* Where the first batches have enough for a limit, the others may be missing. */
static fst_status read_all(fst__held *h, const struct edition *e, const char *folder, const fst_source_spec *spec,
                           fst_error *err)
{
    size_t bytes = 0;
    fst_status s = FST_OK;
    if (!strcmp(spec->split, "test"))
        s = read_batch(h, e, folder, e->test, err);
    else
        for (size_t i = 0; !s && e->train[i] && (!spec->limit || h->base.count < spec->limit || fst__has(folder, e->train[i]));
             i++)
            s = read_batch(h, e, folder, e->train[i], err);
    if (!s)
        s = fst__held_describe(h, FST_U8, &FST_SHAPE(3, 32, 32), h->base.count, &bytes, err);
    h->data = h->own_data;
    h->limit = spec->limit;
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
