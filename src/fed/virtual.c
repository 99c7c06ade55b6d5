/* Virtual clients: a few fst_clients, one a worker, play as many clients as there are. What each keeps between rounds
 * stands here, as the bytes that a process at a site would write to its disk: in memory as far as the budget goes, else
 * in files, one for each client and round, so that memory does not grow with the clients. What a client kept in the
 * open round waits in `next` until it is known whether its update entered the result.
 *
 * Which clients are in files depends on who was ready first, and nothing else does: a file is read, and compared with
 * its hash, when its client plays. A file that the caller's last checkpoint may name stays until the next one is
 * written. */
#define _GNU_SOURCE
#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fed_private.h"

/* What a client keeps; there is one only for clients that keep something. */
struct keepsake {
    fst_buf bytes;       /* in memory; empty when it is in a file, or nothing */
    fst_virtual_file in; /* stamp 0: it is not in a file */
    uint64_t born;       /* `saves` when it became the client's */
};

struct fst_virtual {
    fst_virtual_spec spec;
    char *folder;
    fst_client **worker;            /* [workers] */
    fst_buf *room;                  /* [workers]: for what is read from files */
    struct keepsake **kept, **next; /* [clients]; NULL: nothing */
    pthread_mutex_t lock;           /* guards what follows while clients play */
    uint64_t held;                  /* bytes in memory */
    uint64_t saves;                 /* checkpoints so far */
    char **old;                     /* files to remove after the next checkpoint */
    size_t olds, old_room;
    bool warned;
};

/* ---- files ---- */

static char *file_of(const fst_virtual *v, uint32_t client, uint64_t stamp)
{
    char name[64];
    snprintf(name, sizeof name, "%" PRIu32 ".%" PRIu64, client + 1, stamp);
    return fst_path_join(v->folder, name);
}

static bool same_hash(fst_hash128 a, fst_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static fst_status read_file(const fst_virtual *v, uint32_t client, const fst_virtual_file *in, fst_buf *room,
                            fst_error *err)
{
    char *path = file_of(v, client, in->stamp);
    fst_buf_release(room);
    *room = (fst_buf){0};
    fst_status st = path ? fst_file_read(path, (size_t)in->len, room, err) : fst_fail_memory(err, 64);
    if (!st && (room->len != in->len || !same_hash(fst_hash(room->data, room->len, 0), in->hash)))
        st = fst_fail(err, FST_E_FORMAT, "%s: was changed since it was written", path);
    fst_free(path);
    return st;
}

/* What is in memory goes to a file; where that fails it stays, which costs memory and nothing else. */
static void spill(fst_virtual *v, uint32_t client, uint64_t stamp, struct keepsake *k)
{
    fst_error err = {0};
    char *path = file_of(v, client, stamp);
    fst_status st = fst_make_folders(v->folder, &err);
    if (!st)
        st = path ? fst_file_write(path, k->bytes.data, k->bytes.len, &err) : fst_fail_memory(&err, 64);
    fst_free(path);
    if (st) {
        pthread_mutex_lock(&v->lock);
        if (!v->warned)
            fst_log(FST_LOG_WARN, "what clients keep stays in memory: %s", err.message);
        v->warned = true;
        v->held += k->bytes.len;
        pthread_mutex_unlock(&v->lock);
        return;
    }
    k->in = (fst_virtual_file){stamp, k->bytes.len, fst_hash(k->bytes.data, k->bytes.len, 0)};
    fst_buf_release(&k->bytes);
    k->bytes = (fst_buf){0};
}

/* Removes a file, at once or after the next checkpoint. Without memory for its name it stays, and is removed when the
 * folder is swept. */
static void drop_file(fst_virtual *v, uint32_t client, uint64_t stamp, bool now)
{
    char *path = file_of(v, client, stamp);
    if (path && !now) {
        if (v->olds == v->old_room) {
            size_t n = v->old_room ? 2 * v->old_room : 64;
            char **p = fst_realloc(v->old, v->old_room * sizeof *p, n * sizeof *p);
            v->old = p ? p : v->old;
            v->old_room = p ? n : v->old_room;
        }
        if (v->olds < v->old_room) {
            v->old[v->olds++] = path;
            path = NULL;
        }
    } else if (path) {
        (void)unlink(path);
    }
    fst_free(path);
}

/* ---- making and freeing ---- */

fst_status fst_virtual_new(fst_virtual **out, const fst_virtual_spec *spec, fst_error *err)
{
    fst_virtual *v = fst_calloc(1, sizeof *v);
    if (!v)
        return fst_fail_memory(err, sizeof *v);
    v->spec = *spec;
    pthread_mutex_init(&v->lock, NULL);
    v->folder = spec->folder ? fst_strdup(spec->folder) : NULL;
    v->worker = fst_calloc((size_t)spec->workers, sizeof(fst_client *));
    v->room = fst_calloc((size_t)spec->workers, sizeof *v->room);
    v->kept = fst_calloc(spec->clients, sizeof *v->kept);
    v->next = fst_calloc(spec->clients, sizeof *v->next);
    bool ok = v->worker && v->room && v->kept && v->next && (v->folder || !spec->folder);
    fst_status st = ok ? FST_OK : fst_fail_memory(err, 2 * spec->clients * sizeof *v->kept);
    for (int i = 0; !st && i < spec->workers; i++)
        st = fst_client_new(&v->worker[i], spec->ops, spec->settings, spec->nsettings, err);
    if (st)
        fst_virtual_free(v);
    else
        *out = v;
    return st;
}

static void free_keepsake(struct keepsake *k)
{
    if (k)
        fst_buf_release(&k->bytes);
    fst_free(k);
}

void fst_virtual_free(fst_virtual *v)
{
    if (!v)
        return;
    for (int i = 0; v->worker && i < v->spec.workers; i++)
        fst_client_free(v->worker[i]);
    for (int i = 0; v->room && i < v->spec.workers; i++)
        fst_buf_release(&v->room[i]);
    for (uint32_t c = 0; c < v->spec.clients; c++) {
        if (v->kept)
            free_keepsake(v->kept[c]);
        if (v->next)
            free_keepsake(v->next[c]);
    }
    for (size_t i = 0; i < v->olds; i++)
        fst_free(v->old[i]);
    fst_free(v->old);
    fst_free(v->folder);
    fst_free(v->worker);
    fst_free(v->room);
    fst_free(v->kept);
    fst_free(v->next);
    pthread_mutex_destroy(&v->lock);
    fst_free(v);
}

/* ---- a round ---- */

static void forget(fst_virtual *v, uint32_t client, struct keepsake **at, bool now)
{
    struct keepsake *k = *at;
    if (!k)
        return;
    if (k->in.stamp)
        drop_file(v, client, k->in.stamp, now);
    pthread_mutex_lock(&v->lock);
    v->held -= k->bytes.len < v->held ? k->bytes.len : v->held;
    pthread_mutex_unlock(&v->lock);
    free_keepsake(k);
    *at = NULL;
}

/* Room in memory for so much more? Takes it then. */
static bool fits(fst_virtual *v, uint64_t more)
{
    pthread_mutex_lock(&v->lock);
    bool so = !v->folder || v->held + more <= v->spec.budget;
    v->held += so ? more : 0;
    pthread_mutex_unlock(&v->lock);
    return so;
}

fst_status fst_virtual_work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_virtual *v = ctx;
    uint32_t c = down->client;
    struct keepsake *next = NULL;
    fst_client_env env = {.client = c};
    fst_error why = {0};
    const void *kept = NULL;
    size_t len = 0;
    bool away = worker >= v->spec.workers - v->spec.elsewhere;
    fst_status st = away ? FST_OK : v->spec.env(v->spec.ctx, worker, c, &env, err);
    forget(v, c, &v->next[c], true); /* of the same round, when it is played again */
    if (st)
        return st;
    if (fst_virtual_read(v, c, &v->room[worker], &kept, &len, &why)) /* without it every later round would differ */
        return fst_fail(err, FST_E_CANCELLED, "what client %" PRIu32 " kept cannot be read: %s", c + 1, why.message);
    if (!(next = fst_calloc(1, sizeof *next)))
        return fst_fail_memory(err, sizeof *next);
    st = away ? v->spec.play(v->spec.ctx, worker, kept, len, down, up, &next->bytes, err)
              : fst_client_work(v->worker[worker], &env, kept, len, down, up, &next->bytes, err);
    if (st || !next->bytes.len) {
        free_keepsake(next);
        return st;
    }
    if (!fits(v, next->bytes.len))
        spill(v, c, down->round + 1, next);
    v->next[c] = next;
    return FST_OK;
}

void fst_virtual_settle(void *ctx, const fst_round_report *report)
{
    fst_virtual *v = ctx;
    for (uint32_t i = 0; i < report->selected; i++) {
        uint32_t c = report->by_client[i].client;
        bool counts = report->aggregated && report->by_client[i].reported;
        if (!counts || !v->next[c]) {
            forget(v, c, &v->next[c], true);
            continue;
        }
        forget(v, c, &v->kept[c], v->kept[c] && v->kept[c]->born == v->saves);
        v->kept[c] = v->next[c];
        v->kept[c]->born = v->saves;
        v->next[c] = NULL;
    }
}

void fst_virtual_saved(fst_virtual *v)
{
    for (size_t i = 0; i < v->olds; i++) {
        (void)unlink(v->old[i]);
        fst_free(v->old[i]);
    }
    v->olds = 0;
    v->saves++;
}

/* ---- what is kept ---- */

static const struct keepsake *kept_of(const fst_virtual *v, uint32_t client)
{
    static const struct keepsake nothing = {.born = 0};
    return v->kept[client] ? v->kept[client] : &nothing;
}

const void *fst_virtual_kept(const fst_virtual *v, uint32_t client, size_t *len)
{
    const struct keepsake *k = kept_of(v, client);
    *len = k->in.stamp ? (size_t)k->in.len : k->bytes.len;
    return k->bytes.data;
}

fst_status fst_virtual_read(const fst_virtual *v, uint32_t client, fst_buf *room, const void **kept, size_t *len,
                            fst_error *err)
{
    const struct keepsake *k = kept_of(v, client);
    fst_status st = k->in.stamp ? read_file(v, client, &k->in, room, err) : FST_OK;
    if (st)
        return st;
    *kept = k->in.stamp ? room->data : k->bytes.data;
    *len = k->in.stamp ? room->len : k->bytes.len;
    return FST_OK;
}

fst_virtual_file fst_virtual_file_of(const fst_virtual *v, uint32_t client)
{
    return kept_of(v, client)->in;
}

fst_status fst_virtual_restore(fst_virtual *v, uint32_t client, const void *kept, size_t len, fst_error *err)
{
    struct keepsake *k = len ? fst_calloc(1, sizeof *k) : NULL;
    if (len && !k)
        return fst_fail_memory(err, sizeof *k);
    fst_status st = len ? fst_buf_append(&k->bytes, kept, len, err) : FST_OK;
    if (st) {
        free_keepsake(k);
        return st;
    }
    forget(v, client, &v->kept[client], false);
    v->kept[client] = k;
    v->held += len;
    return FST_OK;
}

fst_status fst_virtual_restore_file(fst_virtual *v, uint32_t client, const fst_virtual_file *in, fst_error *err)
{
    if (!v->folder || !in->stamp || in->len > SIZE_MAX / 2)
        return fst_fail(err, FST_E_ARGUMENT, "clients keep nothing in files here");
    fst_status st = read_file(v, client, in, &v->room[0], err);
    struct keepsake *k = st ? NULL : fst_calloc(1, sizeof *k);
    if (st || !k)
        return st ? st : fst_fail_memory(err, sizeof *k);
    forget(v, client, &v->kept[client], false);
    *k = (struct keepsake){.in = *in, .born = v->saves - 1}; /* a checkpoint names it */
    v->kept[client] = k;
    return FST_OK;
}

/* ---- files that nobody names ---- */

/* "3.17", client and stamp; what is called otherwise is not ours. */
static bool named(const char *name, uint32_t *client, uint64_t *stamp)
{
    int used = 0;
    return sscanf(name, "%" SCNu32 ".%" SCNu64 "%n", client, stamp, &used) == 2 && !name[used] && *client && *stamp;
}

/* v NULL: all of them. */
static void sweep(const char *folder, const fst_virtual *v)
{
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        uint32_t client;
        uint64_t stamp;
        if (!named(e->d_name, &client, &stamp))
            continue;
        if (!v || client > v->spec.clients || kept_of(v, client - 1)->in.stamp != stamp)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
}

void fst_virtual_sweep(const fst_virtual *v)
{
    if (v->folder)
        sweep(v->folder, v);
}

void fst_virtual_remove(const char *folder)
{
    sweep(folder, NULL);
    (void)rmdir(folder);
}
