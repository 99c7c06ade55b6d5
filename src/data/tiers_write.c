/*
 * A split for cloud and edges as a folder of files: built beside its name, then renamed, so that the folder is whole
 * or as it was before. What it replaces is looked at first: only folders that hold a split and nothing else are
 * removed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats.h"

#define SPLIT_FORMAT "fedstill-split-1"
enum { SITE_NAME = 24, FILE_NAME = 64, PATH_SIZE = 4096 };

static void site_name(int site, char out[SITE_NAME])
{
    if (site == 0)
        snprintf(out, SITE_NAME, "cloud");
    else
        snprintf(out, SITE_NAME, "edge_%d", site);
}

static void file_name(int site, int part, char out[FILE_NAME])
{
    char name[SITE_NAME];
    site_name(site, name);
    snprintf(out, FILE_NAME, "%s/%s.safetensors", name, fst_part_name((fst_part)part));
}

/* ---- removing an older split ---------------------------------------------------------------- */

/* "cloud", "edge_12" */
static bool is_site(const char *name)
{
    if (!strcmp(name, "cloud"))
        return true;
    return !strncmp(name, "edge_", 5) && name[5] && strspn(name + 5, "0123456789") == strlen(name + 5);
}

static bool is_file_of_site(const char *name)
{
    for (int p = 0; p < FST_PARTS; p++) {
        size_t n = strlen(fst_part_name((fst_part)p));
        if (!strncmp(name, fst_part_name((fst_part)p), n) && !strcmp(name + n, ".safetensors"))
            return true;
    }
    return false;
}

/* Calls fn for every entry but . and .. until it says false; whether it never did. A folder that cannot be read
 * is as one that holds something foreign. */
static bool each_entry(const char *folder, bool (*fn)(const char *folder, const char *name))
{
    DIR *d = opendir(folder);
    struct dirent *e;
    bool good = d != NULL;
    while (good && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            good = fn(folder, e->d_name);
    if (d)
        closedir(d);
    return good;
}

static bool known_file(const char *folder, const char *name)
{
    (void)folder;
    return is_file_of_site(name);
}

/* Without fst_alloc: cleaning up must work when memory has run out. */
static bool join(char out[PATH_SIZE], const char *folder, const char *name)
{
    int n = snprintf(out, PATH_SIZE, "%s/%s", folder, name);
    return n > 0 && n < PATH_SIZE;
}

static bool known_entry(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    if (!strcmp(name, "split.json"))
        return true;
    return is_site(name) && join(path, folder, name) && fst__is_folder(path) && each_entry(path, known_file);
}

static bool remove_file(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    if ((is_file_of_site(name) || !strcmp(name, "split.json")) && join(path, folder, name))
        unlink(path);
    return true;
}

static bool remove_entry(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    if (!is_site(name))
        return remove_file(folder, name);
    if (join(path, folder, name)) {
        fst_atomic_sweep(path);
        each_entry(path, remove_file);
        rmdir(path);
    }
    return true;
}

/* Only what a split consists of goes; a folder that then is not empty stays. */
static void remove_split(const char *folder)
{
    fst_atomic_sweep(folder);
    each_entry(folder, remove_entry);
    rmdir(folder);
}

static bool never(const char *folder, const char *name)
{
    (void)folder;
    (void)name;
    return false;
}

static fst_status check_target(const char *folder, bool replace, fst_error *err)
{
    if (!fst_file_exists(folder))
        return FST_OK;
    if (!fst__is_folder(folder))
        return fst_fail(err, FST_E_IO, "%s: is there already and is no folder", folder);
    if (each_entry(folder, never)) /* empty */
        return FST_OK;
    if (!replace)
        return fst_fail(err, FST_E_IO, "%s: is there already; --force replaces it", folder);
    if (!fst__has(folder, "split.json") || !each_entry(folder, known_entry))
        return fst_fail(err, FST_E_IO, "%s: holds more than a split, so it is not replaced", folder);
    return FST_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

static size_t count_of(const fst_tiers *t, int site, int part)
{
    size_t n = 0, at = ((size_t)site * FST_PARTS + (size_t)part) * (size_t)t->classes;
    for (int c = 0; c < t->classes; c++)
        n += (size_t)t->counts[at + (size_t)c];
    return n;
}

/* One file, and its entry in split.json. */
static fst_status write_part(const fst_tiers *t, const fst_source *s, const char *folder, int site, int part,
                             uint32_t *index, json_t *parts, fst_error *err)
{
    char name[FILE_NAME], digest[FST_DIGEST_HEX];
    size_t n = 0;
    for (size_t i = 0; i < t->samples; i++)
        if (t->site[i] == site && t->part[i] == part)
            index[n++] = (uint32_t)i;
    if (n == 0)
        return FST_OK;
    file_name(site, part, name);
    char *path = fst_path_join(folder, name);
    fst_status st = path ? fst_source_write(s, index, n, path, digest, err) : fst_fail_memory(err, strlen(folder));
    fst_free(path);
    if (st)
        return st;
    json_t *counts = json_array();
    for (int c = 0; c < t->classes; c++)
        json_array_append_new(
            counts,
            json_integer(t->counts[((size_t)site * FST_PARTS + (size_t)part) * (size_t)t->classes + (size_t)c]));
    json_t *entry =
        json_pack("{s:s, s:s, s:I, s:o}", "file", name, "sha256", digest, "samples", (json_int_t)n, "counts", counts);
    return entry && !json_object_set_new(parts, fst_part_name((fst_part)part), entry) ? FST_OK
                                                                                      : fst_fail_memory(err, n);
}

static fst_status write_site(const fst_tiers *t, const fst_source *s, const char *folder, int site, uint32_t *index,
                             json_t *sites, fst_error *err)
{
    char name[SITE_NAME];
    size_t n = 0;
    for (int p = 0; p < FST_PARTS; p++)
        n += count_of(t, site, p);
    if (n == 0) /* no cloud */
        return FST_OK;
    site_name(site, name);
    char *path = fst_path_join(folder, name);
    json_t *parts = json_object();
    fst_status st = path && parts ? fst_make_folders(path, err) : fst_fail_memory(err, strlen(folder));
    for (int p = 0; !st && p < FST_PARTS; p++)
        st = write_part(t, s, folder, site, p, index, parts, err);
    if (!st && json_object_set(sites, name, parts))
        st = fst_fail_memory(err, strlen(folder));
    json_decref(parts);
    fst_free(path);
    return st;
}

static json_t *summary(const fst_tiers *t, char *const *names, json_t *sites)
{
    char seed[24]; /* as text: JSON readers keep 53 bits */
    json_t *list = json_array();
    for (int c = 0; c < t->classes; c++)
        json_array_append_new(list, json_string(names[c]));
    snprintf(seed, sizeof seed, "%" PRIu64, t->spec.seed);
    return json_pack("{s:s, s:s, s:s, s:f, s:i, s:f, s:f, s:f, s:s, s:I, s:I, s:o, s:O}", "format", SPLIT_FORMAT,
                     "data_digest", t->data_digest, "seed", seed, "cloud", t->spec.cloud, "edges", t->spec.edges,
                     "alpha", t->spec.alpha, "val", t->spec.val, "test", t->spec.test, "unit",
                     t->by_group ? "burst" : "sample", "units", (json_int_t)t->groups, "samples",
                     (json_int_t)t->samples, "classes", list, "sites", sites);
}

static fst_status write_summary(const fst_tiers *t, const fst_source *s, const char *folder, json_t *sites,
                                fst_error *err)
{
    char **names = NULL, *text = NULL, *path = fst_path_join(folder, "split.json");
    json_t *root = NULL;
    fst_status st = path ? fst__class_names(s, &names, err) : fst_fail_memory(err, strlen(folder));
    if (!st && !(root = summary(t, names, sites)))
        st = fst_fail(err, FST_E_FORMAT, "%s: a name of a class is not UTF-8", s->name);
    if (!st && !(text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9))))
        st = fst_fail_memory(err, 1);
    fst_buf line = {0};
    if (!st)
        st = fst_buf_printf(&line, err, "%s\n", text);
    if (!st)
        st = fst_file_write(path, line.data, line.len, err);
    fst_buf_release(&line);
    free(text);
    json_decref(root);
    fst_free(names);
    fst_free(path);
    return st;
}

static fst_status write_all(const fst_tiers *t, const fst_source *s, const char *folder, fst_error *err)
{
    uint32_t *index = fst_alloc(t->samples * sizeof *index);
    json_t *sites = json_object();
    fst_status st = index && sites ? FST_OK : fst_fail_memory(err, t->samples * sizeof *index);
    for (int site = 0; !st && site < t->sites; site++)
        st = write_site(t, s, folder, site, index, sites, err);
    if (!st)
        st = write_summary(t, s, folder, sites, err);
    json_decref(sites);
    fst_free(index);
    return st;
}

/* ---- the exchange --------------------------------------------------------------------------- */

/*
 * The new split is built in a folder with a name that nobody can guess, locked as long as its writer lives, so that
 * what a killed process left can be told from what another one is writing (as for files, src/base/atomic.c). It then
 * takes the older split's place in one step.
 */
struct site_folder {
    char *target, *fresh;
    int lock;
};

/* Removes what killed processes left beside the target. */
static void sweep(const char *target)
{
    char *parent = fst_strdup(target), *slash = parent ? strrchr(parent, '/') : NULL, path[PATH_SIZE];
    if (slash)
        slash[slash == parent] = 0;
    DIR *d = parent ? opendir(slash ? parent : ".") : NULL;
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        struct stat st;
        if (!fst_is_temporary_name(e->d_name) || !join(path, slash ? parent : ".", e->d_name))
            continue;
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && !fstat(fd, &st) && st.st_uid == geteuid() && !flock(fd, LOCK_EX | LOCK_NB))
            remove_split(path);
        if (fd >= 0)
            close(fd);
    }
    if (d)
        closedir(d);
    fst_free(parent);
}

static fst_status begin(struct site_folder *f, const char *folder, fst_error *err)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    f->lock = -1;
    f->target = fst_strdup(folder);
    if (!f->target)
        return fst_fail_memory(err, n);
    f->target[n] = 0;
    char *parent = fst_strdup(f->target), *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash)
        *slash = 0;
    fst_status st = parent ? FST_OK : fst_fail_memory(err, n);
    if (!st && slash && slash != parent)
        st = fst_make_folders(parent, err);
    fst_free(parent);
    if (st)
        return st;
    sweep(f->target);
    st = fst_temporary_name(&f->fresh, f->target, err);
    if (!st && mkdir(f->fresh, 0777)) /* not fst_make_folders: it must be new */
        st = fst_fail_errno(err, "cannot make folder %s", f->fresh);
    if (!st && (f->lock = open(f->fresh, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) >= 0)
        (void)flock(f->lock, LOCK_EX | LOCK_NB); /* no locks on this file system: then nobody sweeps either */
    return st;
}

static void end(struct site_folder *f)
{
    if (f->fresh)
        remove_split(f->fresh);
    if (f->lock >= 0)
        close(f->lock);
    fst_free(f->target);
    fst_free(f->fresh);
}

/* Where a file system cannot exchange two names, an older split steps aside under a name that no sweep removes. */
static fst_status step_aside(struct site_folder *f, fst_error *err)
{
    fst_buf aside = {0};
    fst_status st = fst_buf_printf(&aside, err, "%s.old-%ld", f->target, (long)getpid());
    if (!st && rename(f->target, aside.data))
        st = fst_fail_errno(err, "%s", f->target);
    else if (!st && rename(f->fresh, f->target)) {
        st = fst_fail_errno(err, "%s", f->target);
        if (rename(aside.data, f->target))
            st = fst_fail(err, FST_E_IO, "%s could not be put in place; what it replaces is now %s", f->target,
                          aside.data);
    } else if (!st) {
        remove_split(aside.data);
    }
    fst_buf_release(&aside);
    return st;
}

/* rename() puts a folder in place of an empty one only. */
static fst_status exchange(struct site_folder *f, fst_error *err)
{
    fst_status st = FST_OK;
    if (!fst__is_folder(f->target) || each_entry(f->target, never)) {
        if (rename(f->fresh, f->target))
            st = fst_fail_errno(err, "%s", f->target);
    } else if (renameat2(AT_FDCWD, f->fresh, AT_FDCWD, f->target, RENAME_EXCHANGE)) {
        st = errno == EINVAL || errno == ENOSYS ? step_aside(f, err) : fst_fail_errno(err, "%s", f->target);
    }
    return st ? st : fst_sync_folder_of(f->target, err); /* f->fresh is the older split now, if it is there */
}

fst_status fst_tiers_write(const fst_tiers *t, const fst_source *s, const char *folder, bool replace, fst_error *err)
{
    struct site_folder f = {.lock = -1};
    if (s->count != t->samples || strcmp(s->digest, t->data_digest) != 0)
        return fst_fail(err, FST_E_MISMATCH, "%s: the split was made of other data", s->name);
    fst_status st = check_target(folder, replace, err);
    if (!st)
        st = begin(&f, folder, err);
    if (!st)
        st = write_all(t, s, f.fresh, err);
    if (!st)
        st = exchange(&f, err);
    end(&f);
    return st;
}
