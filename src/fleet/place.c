/* Folder, names and link of a process, see place.h. */
#define _GNU_SOURCE
#include "place.h"

#ifdef __GLIBC__
#include <link.h>
#include <malloc.h>
#endif
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fedstill/nn.h"

enum { MOST = INT32_MAX };

/* ---- files ---- */

static char *path_of(const struct place *p, const char *name)
{
    return fst_path_join(p->folder, name);
}

static fst_status put(void *ctx, const char *name, const fst_buf *head, const void *data, size_t len, fst_error *err)
{
    fst_atomic_file f = {0};
    char *path = path_of(ctx, name);
    fst_status st = path ? fst_atomic_open(&f, path, err) : fst_fail_memory(err, 256);
    if (!st && head)
        st = fst_atomic_write(&f, head->data, head->len, err);
    if (!st && len)
        st = fst_atomic_write(&f, data, len, err);
    if (!st)
        st = fst_atomic_commit(&f, err);
    else
        fst_atomic_abort(&f);
    fst_free(path);
    return st;
}

static fst_status get(void *ctx, const char *name, fst_buf *out, bool *found, fst_error *err)
{
    char *path = path_of(ctx, name);
    fst_status st = path ? FST_OK : fst_fail_memory(err, 256);
    *found = path && fst_file_exists(path);
    if (!st && *found)
        st = fst_file_read(path, MOST, out, err);
    fst_free(path);
    return st;
}

static void drop(void *ctx, const char *name)
{
    char *path = path_of(ctx, name);
    if (path)
        unlink(path);
    fst_free(path);
}

static char *path(void *ctx, const char *name)
{
    return path_of(ctx, name);
}

static fst_status view(void *ctx, const char *name, const void **data, size_t *len, fst_error *err)
{
    struct stat info;
    int fd = -1;
    char *path = path_of(ctx, name);
    void *map = MAP_FAILED;
    fst_status st = path ? fst_file_open(&fd, path, err) : fst_fail_memory(err, 256);
    if (!st && (fstat(fd, &info) || info.st_size < 1 ||
                (map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED))
        st = fst_fail_errno(err, "%s", path);
    if (fd >= 0)
        close(fd);
    if (!st) {
        *data = map;
        *len = (size_t)info.st_size;
    }
    fst_free(path);
    return st;
}

static void unview(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    munmap((void *)data, len);
}

struct store fst__place_store(struct place *p)
{
    return (struct store){p, put, get, drop, path, view, unview};
}

fst_status fst__place_open(struct place *p, const char *output, const char *name, fst_error *err)
{
    char *fleet = fst_path_join(output, "fleet");
    p->folder = fleet ? fst_path_join(fleet, name) : NULL;
    p->lock = -1;
    fst_free(fleet);
    fst_status st = p->folder ? fst_make_folders(p->folder, err) : fst_fail_memory(err, 256);
    char *lock = st ? NULL : path_of(p, "lock");
    if (!st)
        st = lock ? fst_file_lock(&p->lock, lock, err) : fst_fail_memory(err, 256);
    if (!st)
        fst_atomic_sweep(p->folder);
    fst_free(lock);
    return st;
}

void fst__place_close(struct place *p)
{
    fst_file_unlock(p->lock);
    fst_free(p->folder);
}

/* ---- memory ---- */

uint64_t fst__in_memory(void)
{
    const char *text = getenv("FEDSTILL_BLOB_IN_MEMORY");
    return text ? strtoull(text, NULL, 10) : 0;
}

void fst__keep_memory(void)
{
#ifdef __GLIBC__
    enum { LARGE = 64 << 20, PAD = 4 << 20 };
    mallopt(M_TRIM_THRESHOLD, LARGE);
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the most that it takes on 64 bits */
    mallopt(M_TOP_PAD, PAD);
#endif
}

#ifdef __GLIBC__
/* Code and constants of one library: pages of its file that nobody wrote to. */
static int let_go(struct dl_phdr_info *of, size_t size, void *ctx)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    (void)ctx;
    for (int i = 0; i < of->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &of->dlpi_phdr[i];
        uintptr_t from = (of->dlpi_addr + h->p_vaddr) / page * page, to = of->dlpi_addr + h->p_vaddr + h->p_memsz;
        if (h->p_type == PT_LOAD && !(h->p_flags & PF_W))
            madvise((void *)from, (to - from + page - 1) / page * page, MADV_DONTNEED);
    }
    return 0;
}
#endif

void fst__return_memory(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
    dl_iterate_phdr(let_go, NULL);
#endif
}

/* ---- names ---- */

void fst__draw_name(char out[FST__INSTANCE])
{
    unsigned char bytes[(FST__INSTANCE - 1) / 2];
    if (sodium_init() < 0)
        memset(bytes, 0, sizeof bytes);
    else
        randombytes_buf(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void fst__numerics(const fst_task_options *o, char *out, size_t size)
{
#if defined __x86_64__
    const char *isa = __builtin_cpu_supports("avx512f") ? "AVX-512"
                      : __builtin_cpu_supports("avx2")  ? "AVX2"
                                                        : "x86-64";
#else
    const char *isa = "other";
#endif
    snprintf(out, size, "%s, %s", o->backend ? o->backend : fst_backend_names()[0], isa);
}

/* ---- link ---- */

void fst__tell_link(char said[FST__SAID], const char *url, bool up, const char *why)
{
    if (up ? *said != 0 : strcmp(why, said) != 0)
        fst_log(up ? FST_LOG_INFO : FST_LOG_WARN, "%s%s%s", url, up ? ": connected" : ": ", why);
    snprintf(said, FST__SAID, "%s", up ? "" : why);
}

fst_status fst__link_open(fst_transport **out, const fst_fleet_link *link, const char *id, bool will,
                          const fst_transport_events *on, fst_error *err)
{
    char topic[FST_TOPIC];
    fst_mqtt_options o = {
        .url = link->url, .id = link->name ? link->name : id, .ca = link->ca, .cert = link->cert, .key = link->key};
    if (will)
        o.will = (fst_transport_will){fst_topic_up(topic, id, "will"), "", 0};
    return fst_mqtt_open(out, &o, on, err);
}
