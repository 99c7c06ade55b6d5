/*
 * fedstill/base.h - what every layer stands on: status and errors, logging, memory, named random
 * streams, clock, thread pool, files that are whole or absent, hashing.
 *
 * Conventions of the whole library:
 *  - Every call that can fail returns fst_status (FST_OK is 0) and takes an optional last
 *    `fst_error *err` (may be NULL) that says what failed, where, and what would be right.
 *  - On failure the outputs are untouched.
 *  - `_init`/`_release` work on memory that the caller owns, `_new`/`_free` allocate and free.
 *    Every `_free` and `_release` takes NULL and half-built (zeroed) objects.
 *  - The library never prints and never exits; messages go to the log callback.
 *  - Unless a function says otherwise, different objects may be used from different threads at the
 *    same time and one object from one thread at a time.
 */
#ifndef FEDSTILL_BASE_H
#define FEDSTILL_BASE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fedstill/version.h"

/* C++ may include every header. */
#ifdef __cplusplus
#define FST_BEGIN_DECLS extern "C" {
#define FST_END_DECLS }
#else
#define FST_BEGIN_DECLS
#define FST_END_DECLS
#endif

#define FST_API __attribute__((visibility("default")))
#define FST_MUST __attribute__((warn_unused_result))
/* Still there, to be taken away by the next major version: CONTRIBUTING.md. */
#define FST_DEPRECATED(instead) __attribute__((deprecated(instead)))
#define FST_PRINTF(f, a) __attribute__((format(printf, f, a)))

FST_BEGIN_DECLS

/* ---- version -------------------------------------------------------------------------------- */

/* Of the library that the program runs with: FST_VERSION and FST_VERSION_NUMBER when that was compiled. */
FST_API const char *fst_version(void);
FST_API int fst_version_number(void);

/* ---- status and error --------------------------------------------------------------------- */

typedef enum fst_status {
    FST_OK = 0,
    FST_E_ARGUMENT,    /* a caller's argument is wrong */
    FST_E_CONFIG,      /* a task file, option or setting is wrong (exit status 2) */
    FST_E_MEMORY,      /* out of memory */
    FST_E_IO,          /* the operating system refused: message holds path and reason */
    FST_E_FORMAT,      /* bytes from outside do not follow their format */
    FST_E_LIMIT,       /* well-formed, but larger than the limits that protect the reader */
    FST_E_MISMATCH,    /* two things that should belong together do not (digest, shape, teacher) */
    FST_E_UNSUPPORTED, /* right, but this build or backend cannot do it */
    FST_E_NUMERIC,     /* NaN or infinity where a number is needed */
    FST_E_CANCELLED,   /* asked to stop */
    FST_E_BUSY,        /* not now: a queue is full or a link is down; again later */
    FST_E_ABSENT       /* nothing is wrong with what is there, but what was asked for is not: a split of data */
} fst_status;
enum { FST_STATUSES = FST_E_ABSENT + 1 }; /* how many there are, for who reads one from elsewhere */

/* A message that is too long loses the middle of its longest words (paths), never its end (the reason). */
typedef struct fst_error {
    fst_status status;
    char message[1024];
} fst_error;

/* A short lower-case name such as "format". */
FST_API const char *fst_status_name(fst_status s);

/* Fills err (if not NULL) and returns s. */
FST_API fst_status fst_fail(fst_error *err, fst_status s, const char *fmt, ...) FST_PRINTF(3, 4);

/* Puts "what: " in front of the message that err already holds; returns err's status.
 * With err NULL returns s. */
FST_API fst_status fst_fail_in(fst_error *err, fst_status s, const char *fmt, ...) FST_PRINTF(3, 4);

/* fst_fail(FST_E_IO) with ": " and strerror(errno) appended. */
FST_API fst_status fst_fail_errno(fst_error *err, const char *fmt, ...) FST_PRINTF(2, 3);

/* ---- log ---------------------------------------------------------------------------------- */

typedef enum fst_log_level { FST_LOG_DEBUG, FST_LOG_INFO, FST_LOG_WARN, FST_LOG_ERROR } fst_log_level;
typedef void (*fst_log_fn)(void *ctx, fst_log_level level, const char *message);

/* Process-wide; set it before threads start. NULL (the default) drops messages. */
FST_API void fst_log_set(fst_log_fn fn, void *ctx);
FST_API void fst_log(fst_log_level level, const char *fmt, ...) FST_PRINTF(2, 3);

/* ---- memory ------------------------------------------------------------------------------- */

/* All memory of the library comes through these, 64-byte aligned, so that tests can count
 * allocations and make the n-th one fail. fst_alloc does not clear, fst_calloc does.
 * NULL when out of memory or when the size overflows. Free with fst_free. Thread-safe. */
FST_API void *fst_alloc(size_t bytes);
FST_API void *fst_calloc(size_t count, size_t size);
FST_API void *fst_realloc(void *p, size_t old_bytes, size_t new_bytes);
FST_API void fst_free(void *p);
FST_API char *fst_strdup(const char *s);

/* How many allocations were made so far in this process. */
FST_API uint64_t fst_alloc_count(void);
/* How many bytes they asked for together; what was freed again is not taken off. */
FST_API uint64_t fst_alloc_bytes(void);
/* Makes the n-th allocation from now (1 = the next) and all after it fail; 0 switches that off. */
FST_API void fst_alloc_fail_at(uint64_t n);

/* What reading a file of so many bytes may take of memory: 1 MiB, and 32 bytes for each. No sound file comes near it;
 * it keeps a few bytes that name or promise much from taking gigabytes. Readers count against it before they
 * allocate, and it bounds their work as well. (Arrays of npz members are the exception: they may be as large as
 * deflate makes them, 1032 bytes for each.) */
FST_API size_t fst_budget(uint64_t file_bytes);
/* FST_E_LIMIT when a JSON text would take a parser that keeps it as a tree (as Jansson does) more than the budget of
 * `file_bytes`. It only counts, and says nothing about whether the text is sound. `name` is used in the message. */
FST_MUST FST_API fst_status fst_json_fits(const char *name, const char *text, size_t len, uint64_t file_bytes,
                                          fst_error *err);
/* A text without the byte order mark of UTF-8 that some editors put before it; *len is what is left. */
FST_API const char *fst_text_without_mark(const char *text, size_t *len);

/* The message for a failed allocation. */
FST_API fst_status fst_fail_memory(fst_error *err, size_t bytes);

/* One 64-byte aligned block from which pieces are cut: first reserve everything, then allocate
 * once, then cut in the same order. */
typedef struct fst_arena {
    unsigned char *base;
    size_t size, used;
} fst_arena;
FST_MUST FST_API fst_status fst_arena_init(fst_arena *a, size_t size, fst_error *err);
/* Cuts `bytes` (rounded up to 64); NULL when the arena has no more. */
FST_API void *fst_arena_take(fst_arena *a, size_t bytes);
FST_API void fst_arena_release(fst_arena *a);

/* A byte buffer that grows; data is kept NUL-terminated so that it can be read as a string. */
typedef struct fst_buf {
    char *data;
    size_t len, cap;
} fst_buf;
/* Room for so many more bytes and no others, for what is long and of known length: appending them moves nothing. */
FST_MUST FST_API fst_status fst_buf_reserve(fst_buf *b, size_t more, fst_error *err);
FST_MUST FST_API fst_status fst_buf_append(fst_buf *b, const void *data, size_t len, fst_error *err);
FST_MUST FST_API fst_status fst_buf_printf(fst_buf *b, fst_error *err, const char *fmt, ...) FST_PRINTF(3, 4);
FST_API void fst_buf_release(fst_buf *b);

/* ---- random streams ----------------------------------------------------------------------- */

/*
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the
 * stream is a function of (seed, purpose, index) alone, so that no draw depends on threads, on
 * order or on a restart. Purposes are written like paths: "batch.order", "client.select".
 */
typedef struct fst_rng {
    uint32_t key[2], counter[4], block[4];
    unsigned used; /* words of block already handed out */
} fst_rng;

FST_API void fst_rng_init(fst_rng *r, uint64_t seed, const char *purpose, uint64_t index);
FST_API uint32_t fst_rng_u32(fst_rng *r);
FST_API void fst_rng_fill(fst_rng *r, uint32_t *out, size_t n); /* the next n of fst_rng_u32, faster */
FST_API uint64_t fst_rng_u64(fst_rng *r);
FST_API double fst_rng_uniform(fst_rng *r);                          /* 0 <= u < 1, 53 bits */
FST_API double fst_rng_normal(fst_rng *r);                           /* mean 0, standard deviation 1 */
FST_API double fst_rng_gamma(fst_rng *r, double shape);              /* Marsaglia and Tsang 2000; shape > 0 */
FST_API uint64_t fst_rng_below(fst_rng *r, uint64_t n);              /* 0 ... n-1 without bias; n > 0 */
FST_API void fst_rng_shuffle_u32(fst_rng *r, uint32_t *a, size_t n); /* Fisher-Yates */
/* One block of the bare cipher (for the known-answer test and for vector code). */
FST_API void fst_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- Fourier transform -------------------------------------------------------------------- */

/* Discrete Fourier transform X[k] = sum over i of x[i] exp(-2 pi j i k / n), in place, not scaled; n a power of two
 * from 1 on. By radix 2, decimation in time (Cooley and Tukey 1965). `turns` has 2n floats that fst_fft_twiddles filled
 * for this n, and may be shared by threads. */
FST_API void fst_fft_twiddles(float *turns, size_t n);
FST_API void fst_fft(const float *turns, size_t n, float *re, float *im);

/* ---- eigenvectors ------------------------------------------------------------------------- */

/* m: symmetric, n x n. Its diagonal becomes the eigenvalues, in no order, the rest about 0; row i of `vectors` (n x n)
 * becomes the eigenvector of m[i][i], of length 1. Jacobi's method: some 10 n^3 operations. */
FST_API void fst_eigenvectors(double *m, double *vectors, size_t n);

/* ---- clock -------------------------------------------------------------------------------- */

FST_API double fst_clock_seconds(void); /* monotonic */
FST_API int64_t fst_clock_unix_ms(void);

/* ---- threads ------------------------------------------------------------------------------ */

FST_API int fst_cpu_count(void); /* CPUs this process may run on (affinity, cgroup quota), at least 1 */

/* pthread_create for a thread that takes no signals: they are the application's, and generated kernels seem to use
 * the stack pointer for other things, so that a handler's frame would be written anywhere. An application
 * with handlers should give its own threads that compute a signal stack (sigaltstack, SA_ONSTACK), or block signals
 * there and sigwait elsewhere. Returns an errno value. */
FST_API int fst_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg);

/* A pool of workers for jobs that are independent of each other. */
typedef struct fst_pool fst_pool;
typedef void (*fst_job_fn)(void *ctx, int worker, size_t job);
/* threads >= 1; the calling thread counts as worker 0, so threads - 1 are started. */
FST_MUST FST_API fst_status fst_pool_new(fst_pool **out, int threads, fst_error *err);
/* Runs fn(ctx, worker, 0 ... jobs-1), each exactly once, on any worker in any order, and returns
 * when all are done. Not re-entrant. Does not allocate. */
FST_API void fst_pool_run(fst_pool *p, fst_job_fn fn, void *ctx, size_t jobs);
FST_API int fst_pool_threads(const fst_pool *p);
/* In how many runs so far the caller had to sleep, after waiting some ten microseconds awake, until other workers had
 * done their jobs: on a machine with other work, one of them had been stopped. Asked by the thread that runs. */
FST_API uint64_t fst_pool_slept(const fst_pool *p);
FST_API void fst_pool_free(fst_pool *p);

/* ---- JSON --------------------------------------------------------------------------------- */

struct json_t; /* a value that jansson parsed */

/* x as a whole number: false when it has a fraction, is not finite, or is so large (beyond 2^53) that it may stand for
 * another number than the one that was written. *out is untouched then. */
FST_API bool fst_whole_of_double(double x, int64_t *out);
/* The same for a JSON value: 100, 100.0 and 1E+2 are one number. False for everything that is no number, NULL too. */
FST_API bool fst_json_is_whole(const struct json_t *j, int64_t *out);
/* What a value is, for messages: 1.5, "text", true, null, a list, an object, missing (NULL). Returns out. */
#define FST_JSON_FOUND 48
FST_API const char *fst_json_found(const struct json_t *j, char out[FST_JSON_FOUND]);
/* The whole number low ... high under `key`; *out is untouched when the key is missing. Anything else is FST_E_FORMAT,
 * with key, what is wanted and what was found; the caller puts the file in front (fst_fail_in). */
FST_MUST FST_API fst_status fst_json_whole(const struct json_t *object, const char *key, int64_t low, int64_t high,
                                           int64_t *out, fst_error *err);
/* x as JSON, null where JSON has no number for it (NaN, infinity). NULL: no memory, as jansson's own. */
FST_API struct json_t *fst_json_number(double x);
/* A text of any bytes: of what is not UTF-8 every byte beyond ASCII becomes '?'. NULL becomes null. */
FST_API struct json_t *fst_json_text(const char *text);

/* ---- shares ------------------------------------------------------------------------------- */

/* How many of n things a share of them is (0 ... 1): the nearest whole number, halves up, of the decimal number that
 * was written. 0.29 of 100 is 29, though 0.29 * 100 is a little less in binary. */
FST_API size_t fst_share_of(size_t n, double share);

/* ---- files -------------------------------------------------------------------------------- */

/* Opens a file for reading; the caller closes *fd. Never waits for somebody to write to a named pipe for more than a
 * second: FST_E_IO. A folder is FST_E_IO too. */
FST_MUST FST_API fst_status fst_file_open(int *fd, const char *path, fst_error *err);
/* Reads a whole regular file (or pipe) of at most max_bytes. *out is released by the caller. */
FST_MUST FST_API fst_status fst_file_read(const char *path, size_t max_bytes, fst_buf *out, fst_error *err);

/*
 * A file that appears whole or not at all: written under a temporary name beside its target, synced, then renamed; the
 * folder is synced too. A symbolic link stays one, and the file that it points to is replaced. Folders, devices, pipes
 * and names such as /dev/stdout are refused (FST_E_IO). A file that is replaced keeps its permissions. Abort (also
 * after a failed write) removes the temporary file.
 *
 * commit fails also when the folder cannot be synced: the file is then there, but may not survive a power cut.
 */
typedef struct fst_atomic_file {
    int fd; /* 0 in a zeroed object means: not open */
    char *path, *temporary;
    bool open;
} fst_atomic_file;
FST_MUST FST_API fst_status fst_atomic_open(fst_atomic_file *f, const char *path, fst_error *err);
FST_MUST FST_API fst_status fst_atomic_write(fst_atomic_file *f, const void *data, size_t len, fst_error *err);
FST_MUST FST_API fst_status fst_atomic_commit(fst_atomic_file *f, fst_error *err);
FST_API void fst_atomic_abort(fst_atomic_file *f);
FST_MUST FST_API fst_status fst_file_write(const char *path, const void *data, size_t len, fst_error *err);
/* The same for what only its owner may read (keys): the file has mode 0600 from its first moment on, whatever it
 * replaces. */
FST_MUST FST_API fst_status fst_file_write_private(const char *path, const void *data, size_t len, fst_error *err);

/* Removes the temporary files of fst_atomic_open in the folder whose writers are gone (killed, or the machine stopped).
 * Those of a process that still writes are locked and stay, and so does every file that only looks like one.
 * fst_atomic_open does the same for its target's folder. What cannot be removed stays. */
FST_API void fst_atomic_sweep(const char *folder);
/* For a process that was told to end at once, from a thread of its own: removes all temporary files that it has open.
 * Files can no longer be written afterwards: writers wait for the end of the process. */
FST_API void fst_atomic_discard_all(void);

/* A name beside path that nobody can guess, ".NAME.tmp.fedstill-RANDOM"; new memory. */
FST_MUST FST_API fst_status fst_temporary_name(char **out, const char *path, fst_error *err);
FST_API bool fst_is_temporary_name(const char *name); /* without its folder */

/* Makes sure that the names in the folder of path are on disk. File systems that cannot do that are no error. */
FST_MUST FST_API fst_status fst_sync_folder_of(const char *path, fst_error *err);
/* mkdir -p; a new folder's name is on disk when this returns. */
FST_MUST FST_API fst_status fst_make_folders(const char *path, fst_error *err);
FST_API bool fst_file_exists(const char *path);
/* "a/b" from "a" and "b"; an absolute b stands alone. NULL when out of memory. Free with fst_free. */
FST_API char *fst_path_join(const char *a, const char *b);

/* Takes an exclusive lock on path (created if needed); FST_E_IO when another process holds it.
 * The lock goes with fst_file_unlock or with the process. */
FST_MUST FST_API fst_status fst_file_lock(int *fd, const char *path, fst_error *err);
FST_API void fst_file_unlock(int fd);

/* ---- hashing ------------------------------------------------------------------------------ */

/* XXH3-128 (fast, for keys of samples, not against attackers). */
typedef struct fst_hash128 {
    uint64_t lo, hi;
} fst_hash128;
FST_API fst_hash128 fst_hash(const void *data, size_t len, uint64_t seed);

/* SHA-256, for digests that people see and compare. */
typedef struct fst_sha256 {
    __attribute__((aligned(64))) unsigned char opaque[128];
} fst_sha256;
#define FST_DIGEST_HEX 65 /* 64 hexadecimal digits and the NUL */
FST_API void fst_sha256_init(fst_sha256 *s);
FST_API void fst_sha256_update(fst_sha256 *s, const void *data, size_t len);
FST_API void fst_sha256_final(fst_sha256 *s, char hex[FST_DIGEST_HEX]);
FST_MUST FST_API fst_status fst_sha256_file(const char *path, char hex[FST_DIGEST_HEX], fst_error *err);

FST_END_DECLS

#endif
