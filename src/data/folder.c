/*
 * Folders of PNG and JPEG files, one folder a class. Classes and files are taken in the order of their
 * names (bytes, not the locale), so that the same folder gives the same source everywhere. Images
 * are decoded once, at opening; nothing is scaled or cropped here.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable = {"folder", fst__held_get, fst__held_close};

enum { FILE_MAX_BYTES = 256 << 20 };

struct names {
    char **v;
    size_t n, cap;
};

static void names_release(struct names *l)
{
    for (size_t i = 0; i < l->n; i++)
        fst_free(l->v[i]);
    fst_free(l->v);
    *l = (struct names){0};
}

static fst_status names_add(struct names *l, const char *name, fst_error *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **v = fst_realloc(l->v, l->n * sizeof *v, cap * sizeof *v);
        if (!v)
            return fst_fail_memory(err, cap * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n] = fst_strdup(name);
    if (!l->v[l->n])
        return fst_fail_memory(err, strlen(name));
    l->n++;
    return FST_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_image(const char *folder, const char *name)
{
    (void)folder;
    return fst__ends_with(name, ".png") || fst__ends_with(name, ".jpg") || fst__ends_with(name, ".jpeg");
}

static bool is_subfolder(const char *folder, const char *name)
{
    char *path = fst_path_join(folder, name);
    bool yes = path && fst__is_folder(path);
    fst_free(path);
    return yes;
}

/* The sorted names in a folder that `wanted` accepts; hidden ones never. */
static fst_status list(struct names *out, const char *folder, bool (*wanted)(const char *, const char *),
                       fst_error *err)
{
    DIR *d = opendir(folder);
    struct names l = {0};
    struct dirent *e;
    fst_status s = FST_OK;
    if (!d)
        return fst_fail_errno(err, "%s", folder);
    errno = 0;
    while (!s && (e = readdir(d))) {
        if (e->d_name[0] != '.' && wanted(folder, e->d_name))
            s = names_add(&l, e->d_name, err);
        errno = 0;
    }
    if (!s && errno)
        s = fst_fail_errno(err, "%s", folder);
    closedir(d);
    if (s) {
        names_release(&l);
        return s;
    }
    if (l.n)
        qsort(l.v, l.n, sizeof *l.v, by_name);
    *out = l;
    return FST_OK;
}

static bool probe(const char *path)
{
    struct names l = {0};
    bool yes = fst__is_folder(path) && !list(&l, path, is_subfolder, NULL) && l.n > 0;
    names_release(&l);
    return yes;
}

/* Everything that opening needs on its way. */
struct job {
    const fst_source_spec *spec;
    char *classes_at; /* the folder whose subfolders are the classes: training's, also for a test split */
    char *images_at;  /* the folder that this split's images are in */
    struct names classes;
    fst__held *held;
    size_t want; /* samples to read */
    size_t done;
};

static fst_status find_split(struct job *j, fst_error *err)
{
    const char *path = j->spec->path;
    bool test = !strcmp(j->spec->split, "test"), split = is_subfolder(path, "train");
    const char *name = !test ? "train" : is_subfolder(path, "test") ? "test" : "val";
    if (!fst__is_folder(path))
        return fst_fail(err, FST_E_IO, "%s: not a folder", path);
    if (test && !(split && is_subfolder(path, name)))
        return fst_fail(err, FST_E_IO, "%s: a test split needs folders train and test (or val) here", path);
    j->classes_at = fst_path_join(path, split ? "train" : "");
    j->images_at = fst_path_join(path, split ? name : "");
    if (!j->classes_at || !j->images_at)
        return fst_fail_memory(err, strlen(path));
    return FST_OK;
}

static fst_status check_classes(const struct job *j, fst_error *err)
{
    size_t n = j->classes.n;
    if (n == 0 || n > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_FORMAT, "%s: %zu class folders, 1 to %d are needed", j->classes_at, n,
                        FST_MAX_CLASSES);
    if (j->spec->classes && (size_t)j->spec->classes != n)
        return fst_fail(err, FST_E_CONFIG, "%s: %zu class folders, but %d classes were asked for", j->classes_at, n,
                        j->spec->classes);
    if (!strcmp(j->classes_at, j->images_at))
        return FST_OK;
    /* A class of the test split that training does not know would shift all labels behind it. */
    struct names own = {0};
    fst_status s = list(&own, j->images_at, is_subfolder, err);
    for (size_t i = 0; !s && i < own.n; i++)
        if (!bsearch(&own.v[i], j->classes.v, n, sizeof *own.v, by_name))
            s = fst_fail(err, FST_E_MISMATCH, "%s: class \"%s\" is not in %s", j->images_at, own.v[i], j->classes_at);
    names_release(&own);
    return s;
}

/* Calls fn for each image file of the split, class by class, until it has seen j->want. */
static fst_status each_image(struct job *j, fst_status (*fn)(struct job *, const char *path, int label, fst_error *),
                             fst_error *err)
{
    fst_status s = FST_OK;
    j->done = 0;
    for (size_t c = 0; !s && c < j->classes.n && j->done < j->want; c++) {
        struct names files = {0};
        char *folder = fst_path_join(j->images_at, j->classes.v[c]);
        if (!folder)
            return fst_fail_memory(err, strlen(j->images_at));
        if (fst__is_folder(folder))
            s = list(&files, folder, is_image, err);
        for (size_t i = 0; !s && i < files.n && j->done < j->want; i++) {
            char *path = fst_path_join(folder, files.v[i]);
            s = path ? fn(j, path, (int)c, err) : fst_fail_memory(err, strlen(folder));
            fst_free(path);
            j->done++;
        }
        names_release(&files);
        fst_free(folder);
    }
    return s;
}

static fst_status count_image(struct job *j, const char *path, int label, fst_error *err)
{
    (void)j;
    (void)path;
    (void)label;
    (void)err;
    return FST_OK;
}

/* The first image settles the shape, unless the specification does. */
static fst_status first_image(struct job *j, const fst_shape *found, fst_error *err)
{
    fst_shape shape = *found;
    if (j->spec->image_height)
        shape.dim[1] = j->spec->image_height;
    if (j->spec->image_width)
        shape.dim[2] = j->spec->image_width;
    fst_status s = fst__held_reserve(j->held, FST_U8, &shape, j->want, err);
    if (s)
        return s;
    j->held->own_labels = fst_alloc(j->want * sizeof *j->held->own_labels);
    return j->held->own_labels ? FST_OK : fst_fail_memory(err, j->want * sizeof *j->held->own_labels);
}

static fst_status keep_image(struct job *j, const char *path, int label, fst_error *err)
{
    fst_buf file = {0};
    unsigned char *pixels = NULL;
    fst_shape shape = {0};
    const fst_shape *want = &j->held->base.shape;
    int channels = j->spec->image_channels ? j->spec->image_channels : 3;
    fst_status s = fst_file_read(path, FILE_MAX_BYTES, &file, err);
    if (!s)
        s = fst_image_decode(&pixels, &shape, path, file.data, file.len, channels, 0, err);
    fst_buf_release(&file);
    if (!s && j->done == 0)
        s = first_image(j, &shape, err);
    if (!s && !fst_shape_equal(&shape, want))
        s = fst_fail(err, FST_E_MISMATCH,
                     "%s: %lld x %lld pixels (height x width), %lld x %lld are expected; scale all images to one size",
                     path, (long long)shape.dim[1], (long long)shape.dim[2], (long long)want->dim[1],
                     (long long)want->dim[2]);
    if (!s) {
        size_t bytes = fst_source_sample_bytes(&j->held->base);
        memcpy(j->held->own_data + j->done * bytes, pixels, bytes);
        j->held->own_labels[j->done] = label;
    }
    fst_free(pixels);
    return s;
}

static fst_status run(struct job *j, fst_source **out, fst_error *err)
{
    fst_status s = find_split(j, err);
    if (!s)
        s = list(&j->classes, j->classes_at, is_subfolder, err);
    if (!s)
        s = check_classes(j, err);
    if (s)
        return s;
    j->want = j->spec->limit ? j->spec->limit : SIZE_MAX;
    s = each_image(j, count_image, err);
    if (s)
        return s;
    if (j->done == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: no PNG or JPEG file in any class folder", j->images_at);
    j->want = j->done;
    s = each_image(j, keep_image, err);
    if (!s && j->done < j->want)
        s = fst_fail(err, FST_E_IO, "%s: files vanished while they were read", j->images_at);
    if (!s)
        s = fst__names_copy(&j->held->base.class_names, j->classes.v, j->classes.n, err);
    if (!s)
        s = fst__held_finish(j->held, j->held->own_labels, j->want, (int)j->classes.n, out, err);
    return s;
}

static fst_status open_folder(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    struct job j = {.spec = spec};
    if (spec->image_channels != 0 && spec->image_channels != 1 && spec->image_channels != 3)
        return fst_fail(err, FST_E_CONFIG, "%s: image_channels must be 1 or 3, not %d", spec->path,
                        spec->image_channels);
    if (spec->image_height < 0 || spec->image_width < 0)
        return fst_fail(err, FST_E_CONFIG, "%s: image_height and image_width must not be negative", spec->path);
    fst_status s = fst__held_new(&j.held, &vtable, spec->path, err);
    if (s)
        return s;
    s = run(&j, out, err);
    if (s)
        fst__held_close(&j.held->base);
    names_release(&j.classes);
    fst_free(j.classes_at);
    fst_free(j.images_at);
    return s;
}

const fst__format fst__format_folder = {"folder", probe, open_folder, false};
