/*
 * Finished steps are not thrown away. A step that is about to run again with other settings first moves what stands in
 * output/STEP to output/kept/STEP-FINGERPRINT; when its settings come back, it is moved back and nothing is computed.
 * What another output of this user has finished with the same fingerprint is copied. So a fingerprint (everything that
 * the result depends on) is trained once.
 *
 * Nothing is believed for its name or its place: a record must have the wanted fingerprint, and the files the digests
 * that it names. Moves are renames, and of a copy the record comes last, so that a kill at any moment leaves whole
 * steps.
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

enum { SHOWN = 12, MAX_OUTPUTS = 256, CHUNK = 1 << 20, MAX_NAME = 128, MAX_SAME = 1000 };

/* ---- kept below the output --------------------------------------------------------------------- */

/* "STEP-..." */
static bool is_kept(const char *name, const struct step *step)
{
    size_t n = strlen(step->stage->name);
    return !strncmp(name, step->stage->name, n) && name[n] == '-';
}

/* Is it the unfinished work of this fingerprint? Its name says so; the checkpoint itself is checked when it is opened.
 */
static bool is_unfinished(const char *folder, const char *name, const struct step *step, const char *fingerprint)
{
    char *record = fst_path_join(folder, "stage.json"), *checkpoint = fst_path_join(folder, FST__CHECKPOINT);
    bool so = record && checkpoint && !fst_file_exists(record) && fst_file_exists(checkpoint) &&
              !strncmp(name + strlen(step->stage->name) + 1, fingerprint, SHOWN);
    fst_free(record);
    fst_free(checkpoint);
    return so;
}

/* The folder of a kept step with this fingerprint below `output`; new memory, NULL: none. */
static char *find_kept(const char *output, const struct step *step, const char *fingerprint, const char *resumes,
                       struct record *r, bool *finished)
{
    char *all = fst_path_join(output, FST__KEPT), *found = NULL;
    DIR *d = all ? opendir(all) : NULL;
    *finished = false;
    for (struct dirent *e = d ? readdir(d) : NULL; e && !*finished; e = readdir(d)) {
        char *folder = is_kept(e->d_name, step) ? fst_path_join(all, e->d_name) : NULL;
        if (!folder)
            continue;
        *finished = fst__record_current_in(folder, fingerprint, r);
        if (*finished || (!found && resumes && is_unfinished(folder, e->d_name, step, resumes))) {
            fst_free(found);
            found = folder;
        } else {
            fst_free(folder);
        }
    }
    if (d)
        closedir(d);
    fst_free(all);
    return found;
}

/* A name below kept/ that is free: STEP-FINGERPRINT, STEP-FINGERPRINT.2, ... */
static fst_status free_name(const struct session *s, const struct step *step, const char *what, char **out,
                            fst_error *err)
{
    char name[MAX_NAME];
    char *all = fst_path_join(s->task->output, FST__KEPT);
    fst_status st = all ? fst_make_folders(all, err) : fst_fail_memory(err, 256);
    for (int i = 1; !st; i++) {
        if (i == 1)
            snprintf(name, sizeof name, "%s-%.*s", step->stage->name, SHOWN, what);
        else
            snprintf(name, sizeof name, "%s-%.*s.%d", step->stage->name, SHOWN, what, i);
        char *path = fst_path_join(all, name);
        if (!path || i > MAX_SAME) {
            st = path ? fst_fail(err, FST_E_LIMIT, "%s: too many of one kind are kept", path)
                      : fst_fail_memory(err, 256);
            fst_free(path);
        } else if (fst_file_exists(path)) {
            fst_free(path);
        } else {
            *out = path;
            break;
        }
    }
    fst_free(all);
    return st;
}

static fst_status move(const char *from, const char *to, fst_error *err)
{
    if (rename(from, to))
        return fst_fail_errno(err, "cannot move %s to %s", from, to);
    fst_status st = fst_sync_folder_of(from, err);
    return st ? st : fst_sync_folder_of(to, err);
}

/* Copies one file, whose digest must be the wanted one. */
static fst_status copy_file(const char *from, const char *to, const char *digest, fst_error *err)
{
    char now[FST_DIGEST_HEX];
    fst_atomic_file f = {0};
    fst_sha256 sha;
    int fd = -1;
    char *chunk = fst_alloc(CHUNK);
    fst_status st = chunk ? fst_file_open(&fd, from, err) : fst_fail_memory(err, CHUNK);
    if (!st)
        st = fst_atomic_open(&f, to, err);
    fst_sha256_init(&sha);
    for (ssize_t n = 1; !st && n;) {
        n = read(fd, chunk, CHUNK);
        if (n < 0 && errno != EINTR)
            st = fst_fail_errno(err, "%s", from);
        if (n <= 0)
            continue;
        fst_sha256_update(&sha, chunk, (size_t)n);
        st = fst_atomic_write(&f, chunk, (size_t)n, err);
    }
    fst_sha256_final(&sha, now);
    if (!st && digest && strcmp(now, digest))
        st = fst_fail(err, FST_E_MISMATCH, "%s changed while it was copied", from);
    if (!st)
        st = fst_atomic_commit(&f, err);
    fst_atomic_abort(&f);
    if (fd >= 0)
        close(fd);
    fst_free(chunk);
    return st;
}

/* What output/STEP holds: the fingerprint of its record, or what the checkpoint of unfinished work is of; "" for
 * nothing to keep. */
static void held(const char *folder, bool *finished, char out[FST_DIGEST_HEX])
{
    fst_checkpoint *k = NULL;
    char *path = fst_path_join(folder, FST__CHECKPOINT);
    *out = 0;
    *finished = fst__record_fingerprint(folder, out);
    if (!*finished && path && fst_file_exists(path) && !fst_checkpoint_open(&k, path, NULL, NULL))
        snprintf(out, FST_DIGEST_HEX, "%s", fst_checkpoint_fingerprint(k));
    fst_checkpoint_free(k);
    fst_free(path);
}

fst_status fst__keep_aside(const struct session *s, const struct step *step, char **moved, fst_error *err)
{
    char now[FST_DIGEST_HEX] = "";
    bool finished;
    char *folder = fst__step_path(s, step, ""), *to = NULL;
    if (!folder)
        return fst_fail_memory(err, 256);
    folder[strlen(folder) - 1] = 0; /* without the slash at its end */
    held(folder, &finished, now);
    fst_status st = FST_OK;
    if (now[0] && strcmp(now, finished ? step->fingerprint : step->resumes))
        st = free_name(s, step, now, &to, err);
    if (!st && to)
        st = move(folder, to, err);
    if (!st && to) /* since when it is kept, for those who prune */
        (void)!utimensat(AT_FDCWD, to, NULL, AT_SYMLINK_NOFOLLOW);
    fst_free(folder);
    if (!st && moved)
        *moved = to;
    else
        fst_free(to);
    return st;
}

fst_status fst__link_or_copy(const char *from, const char *to, fst_error *err)
{
    if (!link(from, to) || errno == EEXIST)
        return FST_OK;
    return copy_file(from, to, NULL, err); /* no links on this file system */
}

/* The files of what clients keep, which a state names. */
static fst_status keep_clients(const struct session *s, const struct step *step, const char *moved, fst_error *err)
{
    char *from = fst_path_join(moved, FST__KEPT_BY_CLIENTS), *to = fst__step_path(s, step, FST__KEPT_BY_CLIENTS);
    DIR *d = from ? opendir(from) : NULL;
    fst_status st = !from || !to ? fst_fail_memory(err, 256) : d ? fst_make_folders(to, err) : FST_OK;
    for (struct dirent *e = d ? readdir(d) : NULL; !st && e; e = readdir(d)) {
        char *a = e->d_name[0] != '.' ? fst_path_join(from, e->d_name) : NULL,
             *b = a ? fst_path_join(to, e->d_name) : NULL;
        st = b ? fst__link_or_copy(a, b, err) : FST_OK;
        fst_free(a);
        fst_free(b);
    }
    if (d)
        closedir(d);
    fst_free(from);
    fst_free(to);
    return st;
}

fst_status fst__keep_state(const struct session *s, const struct step *step, const char *moved, fst_error *err)
{
    fst_checkpoint *k = NULL;
    fst_status st = FST_OK;
    char *from = fst_path_join(moved, FST__LAST), *to = fst__step_path(s, step, FST__LAST);
    if (!from || !to)
        st = fst_fail_memory(err, 256);
    else if (fst__extendable(step) && fst_file_exists(from) && !fst_checkpoint_open(&k, from, step->resumes, NULL)) {
        st = keep_clients(s, step, moved, err); /* first: the state names them */
        if (!st)
            st = fst__link_or_copy(from, to, err);
    }
    fst_checkpoint_free(k);
    fst_free(from);
    fst_free(to);
    return st;
}

/* Moves a kept step to output/STEP. What else may stand there (of a step that was damaged) is kept too. */
static fst_status bring_back(const struct session *s, const struct step *step, const char *kept, fst_error *err)
{
    char *folder = fst__step_path(s, step, ""), *aside = NULL;
    if (!folder)
        return fst_fail_memory(err, 256);
    folder[strlen(folder) - 1] = 0;
    fst_status st = fst__keep_aside(s, step, NULL, err);
    if (!st && rmdir(folder) && errno != ENOENT) {
        st = free_name(s, step, "damaged", &aside, err);
        if (!st)
            st = move(folder, aside, err);
    }
    if (!st)
        st = move(kept, folder, err);
    fst_free(aside);
    fst_free(folder);
    return st;
}

/* ---- in other outputs ------------------------------------------------------------------------------ */

struct outputs {
    char *path[MAX_OUTPUTS];
    size_t count;
    char *own;
};

static bool note_output(void *ctx, const fst_run *run)
{
    struct outputs *o = ctx;
    bool known = o->own && !strcmp(run->output, o->own);
    for (size_t i = 0; !known && i < o->count; i++)
        known = !strcmp(o->path[i], run->output);
    if (!known && (o->path[o->count] = fst_strdup(run->output)))
        o->count++;
    return o->count < MAX_OUTPUTS;
}

static fst_status copy_named(const struct session *s, const struct step *step, const char *from, const char *name,
                             const char *digest, fst_error *err)
{
    char *a = fst_path_join(from, name), *b = fst__step_path(s, step, name);
    fst_status st = a && b ? copy_file(a, b, digest, err) : fst_fail_memory(err, 256);
    fst_free(a);
    fst_free(b);
    return st;
}

struct copying {
    const struct session *s;
    const struct step *step;
    const char *from;
};

static fst_status copy_client_file(void *ctx, const char *name, const char *digest, fst_error *err)
{
    const struct copying *c = ctx;
    return copy_named(c->s, c->step, c->from, name, digest, err);
}

static fst_status copy_clients(const struct session *s, const struct step *step, const char *from,
                               const struct record *r, fst_error *err)
{
    struct copying c = {s, step, from};
    fst_status st = r->clients_digest[0] ? copy_named(s, step, from, FST__CLIENTS, r->clients_digest, err) : FST_OK;
    return st || !r->clients_digest[0] ? st : fst__client_files(from, r->clients_digest, copy_client_file, &c, err);
}

static fst_status copy_step(const struct session *s, const struct step *step, const char *from, const struct record *r,
                            fst_error *err)
{
    char *folder = fst__step_path(s, step, "");
    fst_status st = folder ? fst__keep_aside(s, step, NULL, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_make_folders(folder, err);
    if (!st)
        st = copy_named(s, step, from, r->artifact, r->digest, err);
    if (!st && r->extra[0])
        st = copy_named(s, step, from, r->extra, r->extra_digest, err);
    for (size_t k = 0; !st && k < r->edges; k++) {
        char name[64];
        snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
        if (r->edge[k].rounds)
            st = copy_named(s, step, from, name, r->edge[k].digest, err);
    }
    if (!st)
        st = copy_clients(s, step, from, r, err);
    if (!st)
        st = copy_named(s, step, from, "stage.json", NULL, err);
    fst_free(folder);
    return st;
}

/* The folder of a finished step with this fingerprint in an output or in what it keeps; new memory, NULL: none. */
static char *find_in(const char *output, const struct step *step, const char *fingerprint, struct record *r)
{
    bool finished;
    char *folder = fst_path_join(output, step->stage->name);
    if (folder && fst__record_current_in(folder, fingerprint, r))
        return folder;
    fst_free(folder);
    folder = find_kept(output, step, fingerprint, NULL, r, &finished);
    if (finished)
        return folder;
    fst_free(folder);
    return NULL;
}

/* The same in the outputs that stand in one folder (fst_task_options.beside). */
static char *find_beside(const struct session *s, const struct step *step, const char *fingerprint, struct record *r)
{
    const char *beside = s->options->beside;
    DIR *d = beside ? opendir(beside) : NULL;
    char *found = NULL;
    for (struct dirent *e = d ? readdir(d) : NULL; e && !found; e = readdir(d)) {
        char *output = e->d_name[0] != '.' ? fst_path_join(beside, e->d_name) : NULL;
        found = output ? find_in(output, step, fingerprint, r) : NULL;
        fst_free(output);
    }
    if (d)
        closedir(d);
    return found;
}

/* The same in another output of this user. The registry only says where to look. */
static char *find_elsewhere(const struct session *s, const struct step *step, const char *fingerprint, struct record *r)
{
    struct outputs o = {.count = 0};
    char *found = NULL, *resolved = realpath(s->task->output, NULL);
    fst_registry *registry = NULL;
    o.own = resolved;
    if (!fst_registry_open_existing(&registry, NULL))
        (void)!fst_registry_list(registry, 0, note_output, &o, NULL);
    for (size_t i = 0; i < o.count; i++) {
        if (!found)
            found = find_in(o.path[i], step, fingerprint, r);
        fst_free(o.path[i]);
    }
    fst_registry_free(registry);
    free(resolved);
    return found;
}

/* ---- both --------------------------------------------------------------------------------------------- */

/* A step of the cascade is soon done again and holds times that were measured; only what was trained is taken. */
static char *find_other(const struct session *s, const struct step *step, struct record *r)
{
    char *found = step->stage->kind->trained ? find_beside(s, step, step->fingerprint, r) : NULL;
    if (!found && step->stage->kind->trained && !s->options->no_reuse)
        found = find_elsewhere(s, step, step->fingerprint, r);
    return found;
}

fst_status fst__keep_find(struct session *s, struct step *step, char state[FST__STATE], fst_error *err)
{
    struct record r;
    bool finished = false;
    fst_status st = FST_OK;
    char *kept = find_kept(s->task->output, step, step->fingerprint, step->resumes, &r, &finished);
    if (kept && !s->dry)
        st = bring_back(s, step, kept, err);
    snprintf(state, FST__STATE, "kept from an earlier run");
    if (!finished && !st) {
        char *other = find_other(s, step, &r);
        if (other && !s->dry)
            st = copy_step(s, step, other, &r, err);
        finished = other && !st;
        if (other)
            snprintf(state, FST__STATE, "taken from %.*s", FST__STATE - 20, other);
        if (st && !fst__record_current_in(other, step->fingerprint, &r)) /* it is at work or gone: do it here */
            st = FST_OK;
        fst_free(other);
    }
    fst_free(kept);
    if (!st && finished) {
        step->record = r;
        step->done = true;
    }
    return st;
}
