/*
 * Removing what earlier settings left in output/kept, which nobody else ever does: all but the newest folders of each
 * step. Only what keep.c puts there is touched, and nothing behind a link. How old a folder is says its time of change,
 * which is set when it is put aside.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session.h"

struct kept {
    char *name; /* STEP-... */
    struct timespec changed;
};

struct list {
    struct kept *at;
    size_t count, room;
};

static void release(struct list *l)
{
    for (size_t i = 0; i < l->count; i++)
        fst_free(l->at[i].name);
    fst_free(l->at);
}

/* Of "STEP-...", where no step's name has a dash; 0: it is no such name. */
static size_t step_length(const char *name)
{
    char step[FST__MAX_WORD + 1];
    size_t n = strcspn(name, "-");
    snprintf(step, sizeof step, "%.*s", (int)(n < sizeof step ? n : 0), name);
    return name[n] && fst__is_name(step) ? n : 0;
}

/* Steps together, of each the newest first. */
static int by_step_and_age(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    size_t n = step_length(x->name), m = step_length(y->name);
    int order = strncmp(x->name, y->name, n < m ? n : m);
    if (order || n != m)
        return order ? order : n < m ? -1 : 1;
    if (x->changed.tv_sec != y->changed.tv_sec)
        return x->changed.tv_sec > y->changed.tv_sec ? -1 : 1;
    if (x->changed.tv_nsec != y->changed.tv_nsec)
        return x->changed.tv_nsec > y->changed.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool same_step(const struct kept *a, const struct kept *b)
{
    size_t n = step_length(a->name);
    return n == step_length(b->name) && !strncmp(a->name, b->name, n);
}

static fst_status note(struct list *l, const char *name, const struct stat *is, fst_error *err)
{
    if (l->count == l->room) {
        size_t more = l->room ? 2 * l->room : 32;
        struct kept *at = fst_realloc(l->at, l->room * sizeof *at, more * sizeof *at);
        if (!at)
            return fst_fail_memory(err, more * sizeof *at);
        l->at = at;
        l->room = more;
    }
    char *copy = fst_strdup(name);
    if (!copy)
        return fst_fail_memory(err, strlen(name));
    l->at[l->count++] = (struct kept){copy, is->st_mtim};
    return FST_OK;
}

/* d stays open. */
static fst_status gather(DIR *d, struct list *l, fst_error *err)
{
    fst_status st = FST_OK;
    for (struct dirent *e = readdir(d); !st && e; e = readdir(d)) {
        struct stat is;
        if (step_length(e->d_name) && !fstatat(dirfd(d), e->d_name, &is, AT_SYMLINK_NOFOLLOW) && S_ISDIR(is.st_mode))
            st = note(l, e->d_name, &is, err);
    }
    return st;
}

/* The record first: what has none is not taken for finished. */
static fst_status remove_kept(int all, const char *path, const char *name, uint64_t *bytes, fst_error *err)
{
    int fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        fst_status st = fst_fail_errno(err, "%s/%s", path, name);
        if (fd >= 0)
            close(fd);
        return st;
    }
    (void)!unlinkat(fd, "stage.json", 0);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        struct stat is;
        if (!fstatat(fd, e->d_name, &is, AT_SYMLINK_NOFOLLOW) && !S_ISDIR(is.st_mode) && !unlinkat(fd, e->d_name, 0))
            *bytes += is.st_nlink == 1 ? (uint64_t)is.st_size : 0;
    }
    closedir(d);
    return unlinkat(all, name, AT_REMOVEDIR) ? fst_fail_errno(err, "cannot remove %s/%s", path, name) : FST_OK;
}

static fst_status prune(const char *path, size_t newest, size_t *removed, uint64_t *bytes, fst_error *err)
{
    struct list l = {.count = 0};
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT ? FST_OK : fst_fail_errno(err, "%s", path);
    fst_status st = gather(d, &l, err);
    if (!st && l.count)
        qsort(l.at, l.count, sizeof *l.at, by_step_and_age);
    for (size_t i = 0, of_step = 0; !st && i < l.count; i++) {
        of_step = i && same_step(&l.at[i], &l.at[i - 1]) ? of_step + 1 : 0;
        if (of_step < newest)
            continue;
        st = remove_kept(dirfd(d), path, l.at[i].name, bytes, err);
        *removed += !st;
    }
    closedir(d);
    release(&l);
    return st;
}

fst_status fst_task_prune(const char *output, size_t newest, size_t *removed, uint64_t *bytes, fst_error *err)
{
    int lock = -1;
    char *path = fst_path_join(output, "lock"), *kept = fst_path_join(output, FST__KEPT);
    *removed = 0;
    *bytes = 0;
    fst_status st = path && kept ? fst_file_lock(&lock, path, err) : fst_fail_memory(err, strlen(output));
    if (!st)
        st = prune(kept, newest, removed, bytes, err);
    fst_file_unlock(lock);
    fst_free(path);
    fst_free(kept);
    return st;
}
