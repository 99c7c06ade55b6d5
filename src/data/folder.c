/*
 * Folders of images, one folder a class, as torchvision's ImageFolder reads them: folders in a class folder belong to
 * the class. Classes and files are taken in the order of their names (bytes, not the locale), so that the same folder
 * gives the same source everywhere. First the split's folder is found and all images are counted, so that skipped files
 * and empty classes are reported before anything is decoded; then each image is decoded once. Nothing is scaled or
 * cropped here.
 */
#define _GNU_SOURCE /* d_type */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "formats.h"

static const fst_source_vtable vtable = {"folder", fst__held_get, fst__held_close};

enum { FILE_MAX_BYTES = 256 << 20, MAX_WRAPS = 16 };

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

/* ---- what stands in a folder ------------------------------------------------------------------- */

/* What operating systems, archives and network disks leave among the images. Hidden files are ignored too. */
static bool is_litter(const char *name)
{
    static const char *const litter[] = {"__MACOSX",     "@eaDir",      "#recycle",
                                         "$RECYCLE.BIN", "Thumbs.db",   "ehthumbs.db",
                                         "lost+found",   "desktop.ini", "System Volume Information"};
    for (size_t i = 0; i < sizeof litter / sizeof *litter; i++)
        if (!strcasecmp(name, litter[i]))
            return true;
    return name[0] == '.';
}

static bool is_image(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (fst__ends_with(name, endings[i]))
            return true;
    return false;
}

enum kind { IMAGE, FOLDER, OTHER };

static enum kind kind_of(const char *folder, const struct dirent *e)
{
    bool is_folder = e->d_type == DT_DIR, is_file = e->d_type == DT_REG;
    if (e->d_type == DT_LNK || e->d_type == DT_UNKNOWN) {
        struct stat st;
        char *path = fst_path_join(folder, e->d_name);
        bool there = path && !stat(path, &st);
        is_folder = there && S_ISDIR(st.st_mode);
        is_file = there && S_ISREG(st.st_mode);
        fst_free(path);
    }
    return is_folder ? FOLDER : is_file && is_image(e->d_name) ? IMAGE : OTHER;
}

/* The sorted names of one kind in a folder, without litter. */
static fst_status list(struct names *out, const char *folder, enum kind kind, fst_error *err)
{
    DIR *d = opendir(folder);
    struct names l = {0};
    struct dirent *e;
    fst_status s = FST_OK;
    if (!d)
        return fst_fail_errno(err, "%s", folder);
    errno = 0;
    while (!s && (e = readdir(d))) {
        if (!is_litter(e->d_name) && kind_of(folder, e) == kind)
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

/* How many of a kind are in folder/name (or folder, name being ""). */
static size_t how_many(const char *folder, const char *name, enum kind kind)
{
    struct names l = {0};
    char *path = fst_path_join(folder, name);
    size_t n = path && fst__is_folder(path) && !list(&l, path, kind, NULL) ? l.n : 0;
    names_release(&l);
    fst_free(path);
    return n;
}

static bool probe(const char *path)
{
    return how_many(path, "", FOLDER) > 0;
}

/* A number of files and the first of their names, for a message. */
struct tally {
    size_t n, at;
    char names[240];
};

static void tally_add(struct tally *t, const char *folder, const char *name)
{
    if (t->n++ < 3) {
        int w = snprintf(t->names + t->at, sizeof t->names - t->at, "%s%.40s%s%.40s", t->at ? ", " : "", folder,
                         folder[0] ? "/" : "", name);
        t->at += w > 0 && (size_t)w < sizeof t->names - t->at ? (size_t)w : 0;
    }
}

/* Everything that opening needs on its way. */
struct job {
    const fst_source_spec *spec;
    char *root;       /* where the classes or the splits are: spec->path, or the one folder in it */
    char *classes_at; /* the folder whose subfolders are the classes: training's, also for the other splits */
    char *images_at;  /* the folder that this split's images are in */
    struct names classes;
    size_t *images; /* of each class */
    struct tally skipped;
    fst__held *held;
    fst__picks picks; /* which images are read, of all in their order */
    size_t seen;      /* images that reading came past */
    size_t want;      /* samples to read */
    size_t done;
};

/* ---- splits ------------------------------------------------------------------------------------------ */

enum split { TRAIN, TEST, VAL, SPLITS };

static bool is_split(const char *name, enum split split)
{
    static const char *const spellings[SPLITS][3] = {
        {"train", "training"}, {"test", "testing"}, {"val", "valid", "validation"}};
    for (int i = 0; i < 3; i++)
        if (spellings[split][i] && !strcasecmp(name, spellings[split][i]))
            return true;
    return false;
}

/* The folder of a split: it holds folders, the classes, since a folder `train` of images is a class of that name. */
static const char *find_folder(const char *path, const struct names *folders, enum split split)
{
    for (size_t i = 0; i < folders->n; i++)
        if (is_split(folders->v[i], split) && how_many(path, folders->v[i], FOLDER))
            return folders->v[i];
    return NULL;
}

/* Folders beside `train` that serve no split would be lost without a word: other names, a second spelling (Train beside
 * train), a split without folders of classes. */
static void warn_beside(const char *path, const struct names *folders, const char *const name[SPLITS])
{
    struct tally t = {0};
    for (size_t i = 0; i < folders->n; i++)
        if (folders->v[i] != name[TRAIN] && folders->v[i] != name[TEST] && folders->v[i] != name[VAL])
            tally_add(&t, "", folders->v[i]);
    if (t.n)
        fst__warn_once("%s: %s holds the training samples, so what stands beside it is not read: %s%s", path,
                       name[TRAIN], t.names, t.n > 3 ? ", ..." : "");
}

/* FST_E_ABSENT when no folder has the name of the split. */
static fst_status no_split(const struct names *folders, enum split split)
{
    for (size_t i = 0; i < folders->n; i++)
        if (is_split(folders->v[i], split))
            return FST_E_IO;
    return FST_E_ABSENT;
}

static fst_status find_split(struct job *j, const struct names *folders, fst_error *err)
{
    const char *path = j->root, *name[SPLITS];
    bool test = !strcmp(j->spec->split, "test"), val = !strcmp(j->spec->split, "val");
    for (int i = 0; i < SPLITS; i++)
        name[i] = find_folder(path, folders, (enum split)i);
    const char *tested = name[TEST] ? name[TEST] : name[VAL];
    if (test && (!name[TRAIN] || !tested))
        return fst_fail(err, no_split(folders, TEST),
                        "%s: a test split needs folders train and test (or val) here, with a folder for each class; or "
                        "keep a share of the training samples apart (test in the task file's data, for instance "
                        "test: 0.2)",
                        path);
    if (val && (!name[TRAIN] || !name[VAL]))
        return fst_fail(err, no_split(folders, VAL),
                        "%s: a split val needs folders train and val here, with a folder for each class; or keep a "
                        "share of the training samples apart (validation in the task file's data, for instance "
                        "validation: 0.2)",
                        path);
    if (!name[TRAIN] && tested)
        return fst_fail(err, FST_E_IO, "%s: there is a folder %s with classes, but no train", path, tested);
    if (name[TRAIN])
        warn_beside(path, folders, name);
    j->classes_at = fst_path_join(path, name[TRAIN] ? name[TRAIN] : "");
    j->images_at = fst_path_join(path, !name[TRAIN] ? "" : test ? tested : val ? name[VAL] : name[TRAIN]);
    return j->classes_at && j->images_at ? FST_OK : fst_fail_memory(err, strlen(path));
}

/* Goes down from a folder while all it holds is one folder; *out is where that ends, and *folders what is there. */
static fst_status go_down(const char *from, char **out, struct names *folders, fst_error *err)
{
    char *at = fst_strdup(from);
    fst_status s = at ? list(folders, at, FOLDER, err) : fst_fail_memory(err, strlen(from));
    for (int depth = 0; !s && folders->n == 1 && !how_many(at, "", IMAGE) && depth < MAX_WRAPS; depth++) {
        char *deeper = fst_path_join(at, folders->v[0]);
        fst_free(at);
        at = deeper;
        names_release(folders);
        s = at ? list(folders, at, FOLDER, err) : fst_fail_memory(err, strlen(from));
    }
    if (s)
        fst_free(at);
    else
        *out = at;
    return s;
}

/* An archive often unpacks into one folder that holds all, and that in another: one with a folder of training samples
 * is the root. */
static fst_status find_root(struct job *j, fst_error *err)
{
    const char *path = j->spec->path;
    struct names folders = {0};
    if (!fst__is_folder(path))
        return fst_fail(err, FST_E_IO, "%s: not a folder", path);
    fst_status s = list(&folders, path, FOLDER, err);
    bool splits = !s && find_folder(path, &folders, TRAIN);
    names_release(&folders);
    if (!s && !splits)
        s = go_down(path, &j->root, &folders, err);
    if (!s && (splits || !find_folder(j->root, &folders, TRAIN))) {
        fst_free(j->root);
        names_release(&folders);
        j->root = fst_path_join(path, "");
        s = j->root ? list(&folders, j->root, FOLDER, err) : fst_fail_memory(err, strlen(path));
    }
    if (!s)
        s = find_split(j, &folders, err);
    names_release(&folders);
    return s;
}

/* Where the only class folder has no images but folders of them, these are likely the classes. */
static void warn_only_class(const struct job *j)
{
    struct names folders = {0};
    char *class = fst_path_join(j->classes_at, j->classes.v[0]), *at = NULL;
    if (class && !go_down(class, &at, &folders, NULL) && folders.n > 1 && !how_many(at, "", IMAGE))
        fst__warn_once("%s: the only class is %s, whose folder holds no images but folders of them (%.40s, %.40s%s): "
                       "if these are the classes, the path is %s",
                       j->classes_at, j->classes.v[0], folders.v[0], folders.v[1], folders.n > 2 ? ", ..." : "", at);
    names_release(&folders);
    fst_free(class);
    fst_free(at);
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
    if (n == 1)
        warn_only_class(j);
    if (!strcmp(j->classes_at, j->images_at))
        return FST_OK;
    /* A class of another split that training does not know would shift all labels after it. */
    struct names own = {0};
    fst_status s = list(&own, j->images_at, FOLDER, err);
    for (size_t i = 0; !s && i < own.n; i++)
        if (!bsearch(&own.v[i], j->classes.v, n, sizeof *own.v, by_name))
            s = fst_fail(err, FST_E_MISMATCH, "%s: class \"%s\" is not in %s", j->images_at, own.v[i], j->classes_at);
    names_release(&own);
    return s;
}

/* ---- walking ------------------------------------------------------------------------------------------- */

/* The folders that lead to one, to notice links that go round in circles. */
struct above {
    const struct above *up;
    dev_t device;
    ino_t inode;
    int depth;
};

enum { MAX_DEPTH = 64 };

static fst_status enter(struct above *here, const struct above *up, const char *path, fst_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return fst_fail_errno(err, "%s", path);
    *here = (struct above){up, st.st_dev, st.st_ino, up ? up->depth + 1 : 0};
    for (; up; up = up->up)
        if (up->device == st.st_dev && up->inode == st.st_ino)
            return fst_fail(err, FST_E_FORMAT, "%s: a link to a folder that it is in", path);
    if (here->depth > MAX_DEPTH)
        return fst_fail(err, FST_E_LIMIT, "%s: folders are nested more than %d deep", path, MAX_DEPTH);
    return FST_OK;
}

/* Adds `name`, a folder in base, and all folders in it, as paths from base. */
static fst_status add_folders(struct names *out, const char *base, const char *name, const struct above *up,
                              fst_error *err)
{
    struct names inside = {0};
    struct above here;
    char *path = fst_path_join(base, name);
    fst_status s = path ? enter(&here, up, path, err) : fst_fail_memory(err, strlen(name));
    if (!s)
        s = names_add(out, name, err);
    if (!s)
        s = list(&inside, path, FOLDER, err);
    for (size_t i = 0; !s && i < inside.n; i++) {
        char *deeper = fst_path_join(name, inside.v[i]);
        s = deeper ? add_folders(out, base, deeper, &here, err) : fst_fail_memory(err, strlen(name));
        fst_free(deeper);
    }
    names_release(&inside);
    fst_free(path);
    return s;
}

/* What is done with one folder of images of a class. */
typedef fst_status (*folder_fn)(struct job *j, const char *folder, size_t class, fst_error *err);

/* Calls fn for a class's folders in the order of their paths, as ImageFolder has them. */
static fst_status each_of_class(struct job *j, size_t class, folder_fn fn, fst_error *err)
{
    struct names folders = {0};
    fst_status s = add_folders(&folders, j->images_at, j->classes.v[class], NULL, err);
    if (!s)
        qsort(folders.v, folders.n, sizeof *folders.v, by_name);
    for (size_t i = 0; !s && i < folders.n && j->done < j->want; i++) {
        char *folder = fst_path_join(j->images_at, folders.v[i]);
        s = folder ? fn(j, folder, class, err) : fst_fail_memory(err, strlen(j->images_at));
        fst_free(folder);
    }
    names_release(&folders);
    return s;
}

/* Calls fn for each folder of images, class by class, until j->want images are done. */
static fst_status each_folder(struct job *j, folder_fn fn, fst_error *err)
{
    fst_status s = FST_OK;
    j->done = 0;
    for (size_t c = 0; !s && c < j->classes.n && j->done < j->want; c++)
        if (fst__has(j->images_at, j->classes.v[c])) /* a test split may lack a class */
            s = each_of_class(j, c, fn, err);
    return s;
}

/* ---- counting -------------------------------------------------------------------------------------------- */

/* CLASS/train and CLASS/test are folders of the class like any others: who means splits by them would train on test. */
static void warn_inside(const struct job *j, const char *class)
{
    struct names inner = {0};
    bool has[SPLITS] = {false};
    char *path = fst_path_join(j->images_at, class);
    if (path && list(&inner, path, FOLDER, NULL) == FST_OK)
        for (size_t i = 0; i < inner.n; i++)
            for (int k = 0; k < SPLITS; k++)
                has[k] = has[k] || is_split(inner.v[i], (enum split)k);
    if (has[TRAIN] && (has[TEST] || has[VAL]))
        fst__warn_once("%s: the folders train and test (or val) of class %s are read as one: splits are folders train "
                       "and test with the class folders in them",
                       j->images_at, class);
    names_release(&inner);
    fst_free(path);
}

static fst_status count_folder(struct job *j, const char *folder, size_t class, fst_error *err)
{
    struct names images = {0}, others = {0};
    fst_status s = list(&images, folder, IMAGE, err);
    if (!s)
        s = list(&others, folder, OTHER, err);
    for (size_t i = 0; !s && i < others.n; i++)
        tally_add(&j->skipped, j->classes.v[class], others.v[i]);
    j->images[class] += images.n;
    j->done += images.n;
    names_release(&images);
    names_release(&others);
    return s;
}

/* Images beside the class folders belong to no class. */
static fst_status count_loose(struct job *j, fst_error *err)
{
    struct names images = {0};
    fst_status s = list(&images, j->images_at, IMAGE, err);
    for (size_t i = 0; !s && i < images.n; i++)
        tally_add(&j->skipped, "", images.v[i]);
    names_release(&images);
    return s;
}

/* Classes that have no image would be outputs that nothing trains; ImageFolder refuses them too. */
static fst_status check_counts(struct job *j, fst_error *err)
{
    struct tally *skipped = &j->skipped, empty = {0};
    char note[400] = "";
    for (size_t c = 0; c < j->classes.n; c++)
        if (!j->images[c])
            tally_add(&empty, "", j->classes.v[c]);
    if (skipped->n)
        snprintf(note, sizeof note, "%zu %s skipped (%s%s): PNG, JPEG, WebP and BMP in class folders are read",
                 skipped->n, skipped->n == 1 ? "file is" : "files are", skipped->names, skipped->n > 3 ? ", ..." : "");
    if (j->done == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: no PNG or JPEG file (or WebP, BMP) in any class folder%s%s",
                        j->images_at, note[0] ? "; " : "", note);
    if (empty.n && !strcmp(j->classes_at, j->images_at))
        return fst_fail(err, FST_E_FORMAT,
                        "%s: %zu of %zu class folders hold no image: %s%s; remove them or fill them%s%s", j->images_at,
                        empty.n, j->classes.n, empty.names, empty.n > 3 ? ", ..." : "", note[0] ? "; " : "", note);
    if (note[0])
        fst__warn_once("%s: %s", j->images_at, note);
    return FST_OK;
}

/* All classes are counted, whatever the limit. */
static fst_status count(struct job *j, fst_error *err)
{
    j->want = SIZE_MAX;
    j->images = fst_calloc(j->classes.n, sizeof *j->images);
    if (!j->images)
        return fst_fail_memory(err, j->classes.n * sizeof *j->images);
    fst_status s = each_folder(j, count_folder, err);
    if (!s)
        s = count_loose(j, err);
    if (!s)
        s = check_counts(j, err);
    for (size_t c = 0; !s && c < j->classes.n; c++)
        warn_inside(j, j->classes.v[c]);
    j->want = j->done;
    return s;
}

/* The labels are known before an image is decoded: with a limit only those that it leaves are. */
static fst_status choose_images(struct job *j, fst_error *err)
{
    size_t all = j->want, at = 0;
    int32_t *labels = fst_alloc(all * sizeof *labels);
    fst_status s = labels ? FST_OK : fst_fail_memory(err, all * sizeof *labels);
    for (size_t c = 0; !s && c < j->classes.n; c++)
        for (size_t i = 0; i < j->images[c]; i++)
            labels[at++] = (int32_t)c;
    if (!s)
        s = fst__pick(&j->picks, j->images_at, labels, all, j->spec->limit, err);
    fst_free(labels);
    j->want = j->picks.count;
    return s;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

/* The first image settles the shape; one that the specification wants was checked when it was decoded. */
static fst_status first_image(struct job *j, const fst_shape *found, fst_error *err)
{
    fst_status s = fst__held_reserve(j->held, FST_U8, found, j->want, err);
    if (s)
        return s;
    j->held->own_labels = fst_alloc(j->want * sizeof *j->held->own_labels);
    return j->held->own_labels ? FST_OK : fst_fail_memory(err, j->want * sizeof *j->held->own_labels);
}

static fst_status keep_image(struct job *j, const char *path, int label, fst_error *err)
{
    const fst_source_spec *spec = j->spec;
    fst_shape shape = {0},
              want = FST_SHAPE(spec->image_channels ? spec->image_channels : 3, spec->image_height, spec->image_width);
    fst_buf file = {0};
    unsigned char *pixels = NULL;
    fst_status s = fst_file_read(path, FILE_MAX_BYTES, &file, err);
    if (!s)
        s = fst__image_decode_as(&pixels, &shape, path, file.data, file.len, j->done ? &j->held->base.shape : &want, 0,
                                 err);
    fst_buf_release(&file);
    if (!s && j->done == 0)
        s = first_image(j, &shape, err);
    if (!s) {
        size_t bytes = fst_source_sample_bytes(&j->held->base);
        memcpy(j->held->own_data + j->done * bytes, pixels, bytes);
        j->held->own_labels[j->done] = label;
    }
    fst_free(pixels);
    return s;
}

static fst_status keep_folder(struct job *j, const char *folder, size_t class, fst_error *err)
{
    struct names files = {0};
    fst_status s = list(&files, folder, IMAGE, err);
    for (size_t i = 0; !s && i < files.n && j->done < j->want; i++) {
        if (fst__picked(&j->picks, j->done) != j->seen++)
            continue;
        char *path = fst_path_join(folder, files.v[i]);
        s = path ? keep_image(j, path, (int)class, err) : fst_fail_memory(err, strlen(folder));
        fst_free(path);
        j->done++;
    }
    names_release(&files);
    return s;
}

static fst_status run(struct job *j, fst_source **out, fst_error *err)
{
    fst_status s = find_root(j, err);
    if (!s)
        s = list(&j->classes, j->classes_at, FOLDER, err);
    if (!s)
        s = check_classes(j, err);
    if (!s)
        s = count(j, err);
    if (!s)
        s = choose_images(j, err);
    if (!s)
        s = each_folder(j, keep_folder, err);
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
    fst_free(j.images);
    fst_free(j.picks.index);
    fst_free(j.root);
    fst_free(j.classes_at);
    fst_free(j.images_at);
    return s;
}

const fst__format fst__format_folder = {"folder", probe, open_folder, true};
