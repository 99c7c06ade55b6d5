/*
 * CIFAR-10, the binary version: records of one label byte and 3072 bytes of a 32 x 32 image, channel
 * by channel. All labels are read first, then the images, with a limit only those that it leaves. Where only the Python
 * version (pickles) is there, cifar_python.c reads that.
 */
#include <stdio.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable = {"cifar10", fst__held_get, fst__held_close};

enum { PIXELS = 3 * 32 * 32, RECORD = 1 + PIXELS, CLASSES = 10, BATCHES = 5 };
enum { NAMES_MAX_BYTES = 65536 };
#define UNPACKED "cifar-10-batches-bin" /* the folder that the archive unpacks into */

static bool probe(const char *path)
{
    return fst__has(path, "data_batch_1.bin") || fst__has(path, "test_batch.bin") ||
           fst__has(path, UNPACKED "/data_batch_1.bin") || fst__cifar10_python_probe(path);
}

/* Whole records in one file. */
static fst_status records(const fst__reader *r, uint64_t *n, fst_error *err)
{
    if (r->compressed)
        return fst_fail(err, FST_E_FORMAT, "%s: is compressed; unpack it", r->name);
    if (r->size == 0 || r->size % RECORD)
        return fst_fail(err, FST_E_FORMAT, "%s: %llu bytes are not whole records of %d: cut off, or not CIFAR-10",
                        r->name, (unsigned long long)r->size, RECORD);
    *n = r->size / RECORD;
    return FST_OK;
}

/* The labels of all files, one after the other; *count is how many there are. */
static fst_status read_labels(fst__held *h, fst__reader *files, size_t n, size_t *count, fst_error *err)
{
    uint64_t total = 0, one = 0;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < n; i++) {
        s = records(&files[i], &one, err);
        total += one;
    }
    if (s)
        return s;
    h->own_labels = fst_alloc(total * sizeof *h->own_labels);
    if (!h->own_labels)
        return fst_fail_memory(err, total * sizeof *h->own_labels);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        for (uint64_t left = files[i].size / RECORD; !s && left; left--) {
            unsigned char label = 0;
            s = fst__reader_exact(&files[i], &label, 1, "a label", err);
            if (!s)
                s = fst__reader_skip(&files[i], PIXELS, "an image", err);
            h->own_labels[at++] = label;
        }
    *count = at;
    return s;
}

/* The images of the picked records; the files are read from their beginning once more. */
static fst_status read_images(fst__held *h, fst__reader *files, size_t n, const fst__picks *p, fst_error *err)
{
    size_t k = 0, first = 0; /* first: the number of the file's first record */
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < n; i++) {
        size_t at = first, next = first + (size_t)(files[i].size / RECORD);
        fst__reader_rewind(&files[i]);
        for (; !s && k < p->count && fst__picked(p, k) < next; k++) {
            s = fst__reader_skip(&files[i], (uint64_t)(fst__picked(p, k) - at) * RECORD + 1, "the records", err);
            if (!s)
                s = fst__reader_exact(&files[i], h->own_data + k * PIXELS, PIXELS, "an image", err);
            at = fst__picked(p, k) + 1;
        }
        first = next;
    }
    return s;
}

fst_status fst__cifar10_read(fst_source **out, const char *name, fst__reader *files, size_t n, size_t limit,
                             fst_error *err)
{
    fst__held *h = NULL;
    fst__picks p = {0};
    size_t count = 0;
    fst_status s = fst__held_new(&h, &vtable, name, err);
    if (s)
        return s;
    s = read_labels(h, files, n, &count, err);
    if (!s)
        s = fst__held_choose(h, count, CLASSES, false, limit, &p, err);
    if (!s)
        s = fst__held_reserve(h, FST_U8, &FST_SHAPE(3, 32, 32), p.count, err);
    if (!s)
        s = read_images(h, files, n, &p, err);
    fst_free(p.index);
    if (!s)
        s = fst__held_finish(h, h->own_labels, h->base.count, CLASSES, out, err);
    if (s)
        fst__held_close(&h->base);
    return s;
}

/* The next line that is not empty, without blanks at its end; NULL after the last. */
static const char *next_line(const char **at, const char *end, size_t *len)
{
    while (*at < end) {
        const char *line = *at, *stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop ? stop : end;
        *at = stop < end ? stop + 1 : end;
        while (stop > line && (stop[-1] == '\r' || stop[-1] == ' '))
            stop--;
        if (stop > line) {
            *len = (size_t)(stop - line);
            return line;
        }
    }
    return NULL;
}

fst_status fst__cifar10_names(char ***out, const char *name, const char *text, size_t len, fst_error *err)
{
    char **names = fst_calloc(1, CLASSES * sizeof *names + len + CLASSES);
    if (!names)
        return fst_fail_memory(err, len);
    char *strings = (char *)(names + CLASSES);
    const char *at = text, *line;
    size_t n = 0, count = 0;
    while ((line = next_line(&at, text + len, &n))) {
        if (count < CLASSES) {
            names[count] = strings;
            memcpy(strings, line, n);
            strings += n + 1;
        }
        count++;
    }
    if (count != CLASSES) {
        fst_free(names);
        return fst_fail(err, FST_E_FORMAT, "%s: names %zu classes, CIFAR-10 has %d", name, count, CLASSES);
    }
    *out = names;
    return FST_OK;
}

static fst_status class_names(fst_source *s, const char *folder, fst_error *err)
{
    fst_buf text = {0};
    if (!fst__has(folder, "batches.meta.txt"))
        return FST_OK;
    char *path = fst_path_join(folder, "batches.meta.txt");
    if (!path)
        return fst_fail_memory(err, strlen(folder));
    fst_status st = fst_file_read(path, NAMES_MAX_BYTES, &text, err);
    if (!st)
        st = fst__cifar10_names(&s->class_names, path, text.data, text.len, err);
    fst_buf_release(&text);
    fst_free(path);
    return st;
}

static fst_status open_file(char **path, fst__reader *r, const char *folder, const char *file, fst_error *err)
{
    *path = fst_path_join(folder, file);
    if (!*path)
        return fst_fail_memory(err, strlen(folder));
    return fst__reader_open(r, *path, err);
}

/* Is anything of the binary version there? */
static bool has_binary(const char *path)
{
    char file[64];
    bool found = fst__has(path, "test_batch.bin") || fst__has(path, UNPACKED);
    for (int i = 0; !found && i < BATCHES; i++) {
        snprintf(file, sizeof file, "data_batch_%d.bin", i + 1);
        found = fst__has(path, file);
    }
    return found;
}

/* Opens the split's files one by one; where the first ones have enough for a limit, the others may be missing. */
static fst_status open_files(char **paths, fst__reader *files, size_t *n, const char *folder,
                             const fst_source_spec *spec, fst_error *err)
{
    bool test = !strcmp(spec->split, "test");
    uint64_t total = 0;
    for (int i = 0; i < (test ? 1 : BATCHES); i++) {
        char file[32];
        snprintf(file, sizeof file, test ? "test_batch.bin" : "data_batch_%d.bin", i + 1);
        if (spec->limit && total >= spec->limit && !fst__has(folder, file))
            break;
        if (test && !fst__has(folder, file))
            return fst_fail(err, FST_E_ABSENT, "%s: there is no %s", folder, file);
        fst_status s = open_file(&paths[i], &files[i], folder, file, err);
        if (s)
            return s;
        ++*n;
        total += files[i].size / RECORD;
    }
    return FST_OK;
}

static fst_status open_cifar10(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    char *paths[BATCHES] = {0};
    fst__reader files[BATCHES] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
    size_t n = 0;
    fst_source *source = NULL;
    if (spec->classes && spec->classes != CLASSES)
        return fst_fail(err, FST_E_CONFIG, "%s: CIFAR-10 has %d classes, not %d", spec->path, CLASSES, spec->classes);
    if (!has_binary(spec->path) && fst__cifar10_python_probe(spec->path))
        return fst__cifar10_python_open(out, spec, err);
    char *folder = fst_path_join(spec->path, fst__has(spec->path, UNPACKED) ? UNPACKED : "");
    fst_status s = folder ? FST_OK : fst_fail_memory(err, strlen(spec->path));
    if (!s)
        s = open_files(paths, files, &n, folder, spec, err);
    if (!s)
        s = fst__cifar10_read(&source, spec->path, files, n, spec->limit, err);
    if (!s)
        s = class_names(source, folder, err);
    if (s)
        fst_source_close(source);
    else
        *out = source;
    for (int i = 0; i < BATCHES; i++) {
        fst__reader_close(&files[i]);
        fst_free(paths[i]);
    }
    fst_free(folder);
    return s;
}

const fst__format fst__format_cifar10 = {"cifar10", probe, open_cifar10, false};
