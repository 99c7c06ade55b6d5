/* Ranks: finding out that there are some, loading the module of the MPI, and messages with their length in front. What
 * MPI is stands in mpi/ranks_mpi.c. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/ranks.h"
#include "ranks_module.h"

#define MODULE "ranks-mpi.so"
#ifndef FST_MODULE_DIR
#define FST_MODULE_DIR "/usr/lib/fedstill"
#endif

struct fst_ranks {
    const struct fst__ranks_module *by;
    bool (*stopped)(void *ctx);
    void *ctx;
    int own, count;
    pid_t *pid; /* rank 0: [count], of processes that it can look at; 0: it cannot */
    struct length {
        uint64_t out, in;
    } * length;       /* [count]: what is said to and by each, where MPI may keep it */
    atomic_bool left; /* MPI has something that it was stopped in */
};

/* What a rank says of itself when it joins: its process, and where that number means it. */
struct place {
    int64_t pid;
    char host[64], space[64];
};

int fst_ranks_launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        long n = text ? strtol(text, NULL, 10) : 0;
        if (n > 0 && n <= 1 << 20)
            return (int)n;
    }
    return 1;
}

/* ---- the module ---- */

/* Beside the program, as in a build folder, else where it is installed. NULL: it is not there. */
static void *load(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - sizeof MODULE);
    char *slash = NULL;
    if (n > 0) {
        path[n] = 0;
        slash = strrchr(path, '/');
    }
    if (slash)
        memcpy(slash + 1, MODULE, sizeof MODULE);
    if (!slash || access(path, R_OK))
        snprintf(path, size, "%s/%s", FST_MODULE_DIR, MODULE);
    return access(path, R_OK) ? NULL : dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* Open MPI's own modules need its names */
}

static fst_status find_module(const struct fst__ranks_module **out, int launched, fst_error *err)
{
    char path[4096] = "";
    void *handle = load(path, sizeof path);
    const char *why = handle ? NULL : dlerror();
    const struct fst__ranks_module *m = handle ? dlsym(handle, FST__RANKS_SYMBOL) : NULL;
    if (!handle && access(path, R_OK))
        return fst_fail(
            err, FST_E_CONFIG,
            "this is one of %d processes of mpirun, and this fedstill is built without MPI (no %s): start it "
            "alone, or build it where mpi.h is found (mpi-default-dev)",
            launched, path);
    if (!m || m->version != FST__RANKS_VERSION)
        return fst_fail(err, FST_E_CONFIG, "%s: %s", path, why ? why : "is of another version of fedstill");
    *out = m;
    return FST_OK;
}

/* ---- joining and leaving ---- */

/* What is waited for, and whom. */
struct waited {
    const struct fst_ranks *r;
    int rank;
};

/* The launcher ends all when one is lost, and soon: whoever waits for it looks for himself. */
static bool is_gone(const struct fst_ranks *r, int rank)
{
    return r->pid && r->pid[rank] && kill(r->pid[rank], 0) && errno == ESRCH;
}

static bool stopped(void *ctx)
{
    const struct waited *w = ctx;
    return (w->r->stopped && w->r->stopped(w->r->ctx)) || is_gone(w->r, w->rank);
}

static struct place place_here(void)
{
    struct place p = {.pid = getpid()};
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!f || !fgets(p.host, sizeof p.host, f) || readlink("/proc/self/ns/pid", p.space, sizeof p.space - 1) < 0)
        p.pid = 0;
    if (f)
        fclose(f);
    return p;
}

static fst_status tell_places(fst_ranks *r, fst_error *err)
{
    const struct place own = place_here();
    fst_buf in = {0};
    if (r->own) {
        fst_status said = fst_buf_append(&in, &own, sizeof own, err);
        if (!said)
            said = fst_ranks_send(r, 0, &in, err);
        fst_buf_release(&in);
        return said;
    }
    if (!(r->pid = fst_calloc((size_t)r->count, sizeof *r->pid)))
        return fst_fail_memory(err, (size_t)r->count * sizeof *r->pid);
    fst_status st = FST_OK;
    for (int i = 1; !st && i < r->count; i++) {
        struct place its = {.pid = 0};
        st = fst_ranks_receive(r, i, sizeof its, &in, err);
        if (!st && in.len == sizeof its)
            memcpy(&its, in.data, sizeof its);
        bool here =
            own.pid && !memcmp(its.host, own.host, sizeof own.host) && !memcmp(its.space, own.space, sizeof own.space);
        r->pid[i] = here ? (pid_t)its.pid : 0;
    }
    fst_buf_release(&in);
    return st;
}

fst_status fst_ranks_open(fst_ranks **out, bool (*stop)(void *ctx), void *ctx, fst_error *err)
{
    char why[FST__RANKS_WHY] = "";
    int launched = fst_ranks_launched();
    *out = NULL;
    if (launched == 1)
        return FST_OK;
    fst_ranks *r = fst_calloc(1, sizeof *r);
    if (!r)
        return fst_fail_memory(err, sizeof *r);
    r->stopped = stop;
    r->ctx = ctx;
    fst_status st = find_module(&r->by, launched, err);
    if (!st && r->by->open(&r->own, &r->count, why) != FST__RANKS_DONE)
        st = fst_fail(err, FST_E_CONFIG, "%s", why);
    if (!st && r->count != launched)
        st = fst_fail(err, FST_E_CONFIG,
                      "mpirun started %d processes and this fedstill's MPI sees %d: both must be of the same MPI",
                      launched, r->count);
    if (!st && !(r->length = fst_calloc((size_t)r->count, sizeof *r->length)))
        st = fst_fail_memory(err, (size_t)r->count * sizeof *r->length);
    if (!st)
        st = tell_places(r, err);
    if (st)
        fst_ranks_close(r, false);
    else
        *out = r;
    return st;
}

void fst_ranks_close(fst_ranks *r, bool together)
{
    if (r && together)
        r->by->close();
    if (r)
        fst_free(r->pid);
    if (r && !atomic_load(&r->left))
        fst_free(r->length);
    fst_free(r);
}

int fst_ranks_own(const fst_ranks *r)
{
    return r->own;
}

int fst_ranks_count(const fst_ranks *r)
{
    return r->count;
}

/* ---- messages: 8 bytes of length, then as many ---- */

static fst_status ended(const fst_ranks *r, fst__ranks_end end, int rank, const char *why, fst_error *err)
{
    if (end == FST__RANKS_DONE)
        return FST_OK;
    if (is_gone(r, rank))
        return fst_fail(err, FST_E_IO, "rank %d, process %ld, is not there any more", rank, (long)r->pid[rank]);
    if (end == FST__RANKS_FAILED)
        return fst_fail(err, FST_E_IO, "rank %d: %s", rank, why);
    return fst_fail(err, FST_E_CANCELLED, "stopped while waiting for rank %d", rank);
}

/* MPI keeps what it was stopped in, until the process ends: a length, or the buffer. */
static void leave(fst_ranks *r, fst__ranks_end end, fst_buf *b)
{
    if (end != FST__RANKS_LEFT)
        return;
    atomic_store(&r->left, true);
    if (b)
        *b = (fst_buf){.data = NULL};
}

static size_t piece_at(size_t at, size_t len)
{
    return len - at < FST__RANKS_PIECE ? len - at : FST__RANKS_PIECE;
}

fst_status fst_ranks_send(fst_ranks *r, int to, fst_buf *data, fst_error *err)
{
    struct waited waited = {r, to};
    const struct fst__ranks_wait wait = {stopped, &waited};
    char why[FST__RANKS_WHY] = "";
    uint64_t *n = &r->length[to].out;
    *n = data->len;
    fst__ranks_end end = r->by->send(to, n, sizeof *n, &wait, why);
    leave(r, end, NULL);
    bool begun = end == FST__RANKS_DONE;
    for (size_t at = 0; end == FST__RANKS_DONE && at < data->len; at += FST__RANKS_PIECE)
        end = r->by->send(to, data->data + at, piece_at(at, data->len), &wait, why);
    if (begun)
        leave(r, end, data);
    return ended(r, end, to, why, err);
}

/* The length is believed a piece at a time: memory grows with what has come. */
fst_status fst_ranks_receive(fst_ranks *r, int from, uint64_t most, fst_buf *out, fst_error *err)
{
    struct waited waited = {r, from};
    const struct fst__ranks_wait wait = {stopped, &waited};
    char why[FST__RANKS_WHY] = "";
    uint64_t *n = &r->length[from].in;
    out->len = 0;
    fst__ranks_end end = r->by->receive(from, n, sizeof *n, &wait, why);
    leave(r, end, NULL);
    fst_status st = ended(r, end, from, why, err);
    if (!st && *n > most)
        st = fst_fail(err, FST_E_LIMIT, "rank %d sends %llu bytes, %llu at most are taken", from,
                      (unsigned long long)*n, (unsigned long long)most);
    while (!st && out->len < *n) {
        size_t piece = piece_at(out->len, (size_t)*n);
        st = fst_buf_reserve(out, piece, err);
        if (!st) {
            end = r->by->receive(from, out->data + out->len, piece, &wait, why);
            st = ended(r, end, from, why, err);
            leave(r, end, out);
        }
        if (!st)
            out->len += piece;
    }
    return st;
}
