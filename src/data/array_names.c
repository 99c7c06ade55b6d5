/*
 * Finding the arrays of a split: first the file (a .safetensors, .npz or .npy, or one of a folder), then the names in
 * it. A name that serves one split is turned into the one of the split that is wanted (train_images into test_images,
 * x into x_test). A name that says no split is training's; it never stands in for test or validation samples, since a
 * model would then be tested on what it was trained on. No array is read here.
 */
#include <stdio.h>
#include <string.h>

#include "array.h"

void fst__store_close(struct fst__store *st)
{
    fst_safetensors_free(st->file);
    fst_free(st->names);
    fst_free(st->path);
}

bool fst__store_has(const struct fst__store *st, const char *name)
{
    size_t i;
    char file[FST__ARRAY_NAME + 8];
    if (st->kind == FST__SAFETENSORS)
        return fst_safetensors_find(st->file, name, &i);
    for (i = 0; st->kind == FST__NPZ && i < st->count; i++)
        if (!strcmp(st->names[i], name))
            return true;
    snprintf(file, sizeof file, "%s.npy", name);
    return st->kind == FST__NPY && fst__has(st->path, file);
}

/* ---- finding the files ---------------------------------------------------------------------- */

/* A folder holds SPLIT.safetensors, SPLIT.npz, or npy files. */
static fst_status locate_in_folder(struct fst__store *st, const fst_source_spec *spec, fst_error *err)
{
    static const char *const patterns[] = {"%s.safetensors", "%s.npz"};
    char file[32];
    st->kind = FST__NPY;
    for (int i = 0; i < 2 && !st->one_split; i++) {
        snprintf(file, sizeof file, patterns[i], spec->split);
        if (fst__has(spec->path, file)) {
            st->kind = i ? FST__NPZ : FST__SAFETENSORS;
            st->one_split = true;
        }
    }
    st->path = fst_path_join(spec->path, st->one_split ? file : "");
    return st->path ? FST_OK : fst_fail_memory(err, strlen(spec->path));
}

static fst_status locate_npy(struct fst__store *st, const char *path, fst_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t len = strlen(name) - strlen(".npy"), folder = (size_t)(name - path);
    if (len == 0 || len >= sizeof st->only_x)
        return fst_fail(err, FST_E_ARGUMENT, "%s: a name of 1 to %d letters before .npy is needed", path,
                        FST__ARRAY_NAME - 1);
    if (!fst_file_exists(path))
        return fst_fail(err, FST_E_IO, "%s: there is no such file", path);
    st->kind = FST__NPY;
    memcpy(st->only_x, name, len);
    st->path = fst_strdup(folder ? path : ".");
    if (!st->path)
        return fst_fail_memory(err, folder);
    if (folder)
        st->path[folder > 1 ? folder - 1 : 1] = 0; /* without the slash, unless it is all */
    return FST_OK;
}

fst_status fst__store_open(struct fst__store *st, const fst_source_spec *spec, fst_error *err)
{
    const char *path = spec->path;
    fst_status s = FST_OK;
    if (fst__is_folder(path))
        s = locate_in_folder(st, spec, err);
    else if (fst__ends_with(path, ".npy"))
        s = locate_npy(st, path, err);
    else if (!fst_file_exists(path))
        return fst_fail(err, FST_E_IO, "%s: there is no such file or folder", path);
    else if (!fst__ends_with(path, ".npz") && !fst__ends_with(path, ".safetensors"))
        return fst_fail(err, FST_E_FORMAT, "%s: arrays are read from .safetensors, .npz or .npy", path);
    else if (!(st->path = fst_strdup(path)))
        return fst_fail_memory(err, strlen(path));
    else
        st->kind = fst__ends_with(path, ".npz") ? FST__NPZ : FST__SAFETENSORS;
    if (!s && st->kind != FST__NPY)
        s = fst__not_foreign(st->path, err);
    if (!s && st->kind == FST__SAFETENSORS)
        s = fst_safetensors_open(&st->file, st->path, err);
    if (!s && st->kind == FST__NPZ)
        s = fst_npz_list(st->path, &st->names, &st->count, err);
    return s;
}

/* ---- names of splits ---------------------------------------------------------------------------- */

/* How files spell a split; the first spelling is the one that messages suggest. */
static const struct {
    const char *split, *word;
} words[] = {{"train", "train"}, {"train", "training"}, {"test", "test"},     {"test", "testing"},
             {"val", "val"},     {"val", "valid"},      {"val", "validation"}};
enum { WORDS = sizeof words / sizeof *words };

/* A name in pieces: `head` letters, a split's word, the rest. split NULL: the name says no split. */
struct pieces {
    const char *split;
    size_t head, word;
};

static bool parts(char c)
{
    return c == '_' || c == '-' || c == '.' || c == '/';
}

static struct pieces take_apart(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < WORDS; i++) {
        size_t m = strlen(words[i].word);
        if (m <= n && !strncmp(name, words[i].word, m) && (m == n || parts(name[m])))
            return (struct pieces){words[i].split, 0, m};
        if (m < n && !strcmp(name + n - m, words[i].word) && parts(name[n - m - 1]))
            return (struct pieces){words[i].split, n - m, m};
    }
    return (struct pieces){0};
}

/* Writes the k-th name that `base` may have in a split to out; false when there is none or it is too long. */
static bool spelling(char *out, const char *base, const struct pieces *p, const char *split, size_t k)
{
    static const char separators[] = "_-./";
    const char *word = words[k % WORDS].word;
    int n = -1;
    if (strcmp(words[k % WORDS].split, split))
        return false;
    k /= WORDS;
    if (p->split)
        n = k ? -1 : snprintf(out, FST__ARRAY_NAME, "%.*s%s%s", (int)p->head, base, word, base + p->head + p->word);
    else if (k < 4)
        n = snprintf(out, FST__ARRAY_NAME, "%s%c%s", base, separators[k], word);
    else
        n = snprintf(out, FST__ARRAY_NAME, "%s%c%s", word, separators[k - 4], base);
    return n >= 0 && n < FST__ARRAY_NAME;
}

enum { SPELLINGS = 8 * WORDS };

/* The array that is `base` of this split, by a name that says so. */
static bool find_split(const struct fst__store *st, const char *base, const char *split, char *out)
{
    char name[FST__ARRAY_NAME];
    struct pieces p = take_apart(base);
    if (p.split && !strcmp(p.split, split) && fst__store_has(st, base)) {
        snprintf(out, FST__ARRAY_NAME, "%s", base);
        return true;
    }
    for (size_t k = 0; k < SPELLINGS; k++)
        if (spelling(name, base, &p, split, k) && fst__store_has(st, name)) {
            memcpy(out, name, sizeof name);
            return true;
        }
    return false;
}

/* ---- names of samples and labels -------------------------------------------------------------------- */

static const char *const usual_x[] = {"x", "X", "images", NULL}, *const usual_y[] = {"y", "Y", "labels", NULL};

static bool in_any_split(const struct fst__store *st, const char *base)
{
    char found[FST__ARRAY_NAME];
    return fst__store_has(st, base) || find_split(st, base, "train", found) || find_split(st, base, "test", found) ||
           find_split(st, base, "val", found);
}

/* ---- recognising ------------------------------------------------------------------------------------ */

bool fst__store_probe(const char *path)
{
    static const char *const inside[] = {"train.safetensors", "train.npz", "test.safetensors", "test.npz"};
    if (!fst__is_folder(path))
        return fst_file_exists(path) &&
               (fst__ends_with(path, ".safetensors") || fst__ends_with(path, ".npz") || fst__ends_with(path, ".npy"));
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        if (fst__has(path, inside[i]))
            return true;
    char *folder = fst_strdup(path);
    const struct fst__store st = {.kind = FST__NPY, .path = folder};
    bool there = false;
    for (size_t i = 0; folder && !there && usual_x[i]; i++)
        there = in_any_split(&st, usual_x[i]);
    fst_free(folder);
    return there;
}

/* ---- choosing --------------------------------------------------------------------------------------- */

/* The first usual name that is there, for whatever split: all splits go by the same one. */
static const char *choose(const struct fst__store *st, const char *const *usual)
{
    for (size_t i = 0; usual[i]; i++)
        if (in_any_split(st, usual[i]))
            return usual[i];
    return usual[0];
}

/* "a, b, c" of the arrays that are there, for a message. */
static const char *listing(const struct fst__store *st, char *out, size_t size)
{
    size_t n = st->kind == FST__SAFETENSORS ? fst_safetensors_count(st->file) : st->kind == FST__NPZ ? st->count : 0;
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < n && at < size; i++) {
        const char *name = st->kind == FST__NPZ ? st->names[i] : fst_safetensors_at(st->file, i).name;
        int w = i == 8 ? snprintf(out + at, size - at, ", ...")
                       : snprintf(out + at, size - at, "%s%.40s", i ? ", " : "; it holds ", name);
        if (i == 8 || w < 0)
            break;
        at += (size_t)w;
    }
    return out;
}

/* `plain`: the name without a split would do too. A split of which nothing is there is absent: neither its file nor
 * samples (here) nor labels (fst__store_names). */
static fst_status not_there(const struct fst__store *st, const char *base, const char *split, bool plain,
                            fst_error *err)
{
    fst_status s = plain || !strcmp(split, "train") ? FST_E_FORMAT : FST_E_ABSENT;
    char name[FST__ARRAY_NAME] = "", there[400];
    struct pieces p = take_apart(base);
    for (size_t k = 0; k < SPELLINGS && !name[0]; k++)
        if (!spelling(name, base, &p, split, k))
            name[0] = 0;
    if (!plain && fst__store_has(st, base))
        return fst_fail(err, s,
                        "%s: there is no array \"%s\" in it, and \"%s\" holds training samples: add \"%s\", or keep a "
                        "share of the training samples apart (%s in the task file's data, for instance %s: 0.2)",
                        st->path, name, base, name, !strcmp(split, "test") ? "test" : "validation",
                        !strcmp(split, "test") ? "test" : "validation");
    bool guessed = (base == usual_x[0] || base == usual_y[0]) && !in_any_split(st, base);
    listing(st, there, sizeof there);
    return fst_fail(err, s, "%s: there is no array \"%s\"%s%s%s in it%s%s", st->path, name,
                    plain && !p.split ? " or \"" : "", plain && !p.split ? base : "", plain && !p.split ? "\"" : "",
                    there, guessed && there[0] ? "; other names are x and y in the task file's data" : "");
}

/* `by_split`: a name that says the split goes before the plain one. */
static fst_status resolve(const struct fst__store *st, const char *base, const char *split, bool by_split, char *out,
                          fst_error *err)
{
    struct pieces p = take_apart(base);
    bool own = st->one_split || (!p.split && !strcmp(split, "train")), plain = own && fst__store_has(st, base);
    if (strlen(base) > FST__ARRAY_NAME - 16)
        return fst_fail(err, FST_E_ARGUMENT, "%s: an array's name has at most %d letters", st->path,
                        FST__ARRAY_NAME - 16);
    if (!(plain && !by_split) && find_split(st, base, split, out))
        return FST_OK;
    if (!plain)
        return not_there(st, base, split, own, err);
    snprintf(out, FST__ARRAY_NAME, "%s", base);
    return FST_OK;
}

fst_status fst__store_names(const struct fst__store *st, const fst_source_spec *spec, char x[FST__ARRAY_NAME],
                            char y[FST__ARRAY_NAME], fst_error *err)
{
    const char *base = st->only_x[0] ? st->only_x : spec->x ? spec->x : choose(st, usual_x);
    struct pieces p = take_apart(base);
    if (st->only_x[0] && p.split && strcmp(p.split, spec->split) && !strcmp(spec->split, "train"))
        return fst_fail(err, FST_E_FORMAT,
                        "%s/%s.npy: its name says %s samples, not training's: name those, or the "
                        "split %s",
                        st->path, base, p.split, p.split);
    const char *labels = spec->y ? spec->y : choose(st, usual_y);
    fst_status s = resolve(st, base, spec->split, !st->only_x[0], x, err);
    if (s == FST_E_ABSENT && find_split(st, labels, spec->split, y))
        return fst_fail_in(err, FST_E_FORMAT, "labels without samples");
    if (s)
        return s;
    s = resolve(st, labels, spec->split, strcmp(x, base) || p.split, y, err);
    return s == FST_E_ABSENT ? fst_fail_in(err, FST_E_FORMAT, "samples without labels") : s;
}
