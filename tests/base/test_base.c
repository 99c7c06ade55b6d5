/* base: streams, arena, buffer, pool, whole files, hashes, errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/base.h"

/* Known answers of Random123's kat_vectors for philox4x32, 10 rounds. */
static void test_philox(void **state)
{
    (void)state;
    const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        fst_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static uint64_t first_draw(uint64_t seed, const char *purpose, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, seed, purpose, index);
    return fst_rng_u64(&r);
}

static void test_streams_differ(void **state)
{
    (void)state;
    uint64_t a = first_draw(1, "a", 0);
    assert_true(a == first_draw(1, "a", 0));
    assert_true(a != first_draw(2, "a", 0));
    assert_true(a != first_draw(1, "b", 0));
    assert_true(a != first_draw(1, "a", 1));
    assert_true(a != first_draw(UINT64_C(1) << 32 | 1, "a", 0));
}

/* Many words at once are the same as one after another, from anywhere in a block and past the end of the counter's
 * first word. */
static void test_fill_is_the_stream(void **state)
{
    enum { MOST = 700 };
    (void)state;
    for (size_t n = 0; n <= MOST; n += n < 200 ? 1 : 83)
        for (unsigned before = 0; before < 6; before++) {
            fst_rng one, many;
            uint32_t words[MOST + 1];
            fst_rng_init(&one, 9, "fill", n);
            one.counter[0] = n % 2 ? UINT32_MAX - 40 : 0;
            for (unsigned i = 0; i < before; i++)
                (void)fst_rng_u32(&one);
            many = one;
            words[n] = 0xABCD;
            fst_rng_fill(&many, words, n);
            assert_true(words[n] == 0xABCD);
            for (size_t i = 0; i < n; i++)
                assert_true(words[i] == fst_rng_u32(&one));
            assert_true(fst_rng_u32(&many) == fst_rng_u32(&one));
        }
}

static void test_distributions(void **state)
{
    enum { N = 200000 };
    (void)state;
    double mean = 0, square = 0, gamma = 0, small = 0;
    unsigned count[7] = {0};
    fst_rng r;
    fst_rng_init(&r, 3, "test", 0);
    for (int i = 0; i < N; i++) {
        double x = fst_rng_normal(&r), u = fst_rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        mean += x / N;
        square += x * x / N;
        gamma += fst_rng_gamma(&r, 2.5) / N;
        small += fst_rng_gamma(&r, 0.3) / N;
        count[fst_rng_below(&r, 7)]++;
    }
    /* five standard errors */
    assert_true(fabs(mean) < 5 / sqrt(N));
    assert_true(fabs(square - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(gamma - 2.5) < 5 * sqrt(2.5 / N));
    assert_true(fabs(small - 0.3) < 5 * sqrt(0.3 / N));
    for (int i = 0; i < 7; i++)
        assert_true(fabs(count[i] - N / 7.0) < 5 * sqrt(N / 7.0));
}

static void test_shuffle(void **state)
{
    (void)state;
    uint32_t a[100], sum = 0, moved = 0;
    fst_rng r;
    fst_rng_init(&r, 1, "shuffle", 0);
    for (uint32_t i = 0; i < 100; i++)
        a[i] = i;
    fst_rng_shuffle_u32(&r, a, 100);
    for (uint32_t i = 0; i < 100; i++) {
        sum += a[i];
        moved += a[i] != i;
    }
    assert_int_equal(sum, 4950);
    assert_true(moved > 80);
}

static void test_memory(void **state)
{
    (void)state;
    fst_arena a;
    fst_error err;
    assert_int_equal(fst_arena_init(&a, 256, &err), FST_OK);
    char *p = fst_arena_take(&a, 1), *q = fst_arena_take(&a, 128);
    assert_true((uintptr_t)p % 64 == 0 && q == p + 64);
    assert_null(fst_arena_take(&a, 65));
    assert_null(fst_arena_take(&a, SIZE_MAX));
    assert_non_null(fst_arena_take(&a, 64));
    fst_arena_release(&a);
    assert_null(fst_calloc(SIZE_MAX / 2, 3));
    uint64_t before = fst_alloc_count();
    fst_free(fst_alloc(1));
    assert_int_equal(fst_alloc_count(), before + 1);
    fst_alloc_fail_at(2);
    char *first = fst_alloc(8), *second = fst_alloc(8);
    fst_alloc_fail_at(0);
    assert_non_null(first);
    assert_null(second);
    fst_free(first);
}

static void test_buffer(void **state)
{
    (void)state;
    fst_buf b = {0};
    for (int i = 0; i < 1000; i++)
        assert_int_equal(fst_buf_printf(&b, NULL, "%03d,", i), FST_OK);
    assert_int_equal(b.len, 4000);
    assert_memory_equal(b.data + 3996, "999,", 5);
    fst_buf_release(&b);
    assert_null(b.data);
}

struct tally {
    int hits[1000];
    int workers;
};

static void hit(void *ctx, int worker, size_t job)
{
    struct tally *t = ctx;
    t->hits[job]++;
    if (worker < 0 || worker >= t->workers)
        t->hits[job] += 1000;
}

static void test_pool(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        fst_pool *p;
        static struct tally t;
        assert_int_equal(fst_pool_new(&p, threads, NULL), FST_OK);
        for (size_t jobs = 0; jobs <= 1000; jobs += 125) {
            memset(&t, 0, sizeof t);
            t.workers = threads;
            fst_pool_run(p, hit, &t, jobs);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(t.hits[i], i < jobs);
        }
        fst_pool_free(p);
    }
    fst_error err;
    fst_pool *none;
    assert_int_equal(fst_pool_new(&none, 0, &err), FST_E_ARGUMENT);
}

struct meeting {
    _Atomic int here;
    pid_t caller;
};

/* 'S': it sleeps. */
static char state_of_thread(pid_t thread)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    return strrchr(text, ')')[2];
}

/* The two jobs are two threads': neither is done before both have begun. The caller's then ends, and the other's when
 * the caller sleeps. */
static void outstay(void *ctx, int worker, size_t job)
{
    struct meeting *m = ctx;
    (void)job;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < 2)
        sched_yield();
    while (worker && state_of_thread(m->caller) != 'S')
        sched_yield();
}

static void pool_counts_sleeps(void **state)
{
    (void)state;
    fst_pool *p;
    assert_int_equal(fst_pool_new(&p, 2, NULL), FST_OK);
    for (uint64_t runs = 0; runs < 5; runs++) {
        struct meeting m = {.caller = gettid()};
        assert_int_equal(fst_pool_slept(p), runs);
        fst_pool_run(p, outstay, &m, 2);
    }
    fst_pool_run(p, outstay, &(struct meeting){.here = 2}, 1); /* by the caller alone */
    assert_int_equal(fst_pool_slept(p), 5);
    fst_pool_free(p);
}

/* ---- files ------------------------------------------------------------------------------------ */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/fedstill-test-base-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void test_whole_files(void **state)
{
    (void)state;
    fst_error err = {0};
    fst_buf b = {0};
    char *path = fst_path_join(folder, "file");
    assert_int_equal(fst_file_write(path, "first", 5, &err), FST_OK);
    fst_atomic_file f = {0};
    assert_int_equal(fst_atomic_open(&f, path, &err), FST_OK);
    assert_int_equal(fst_atomic_write(&f, "second", 6, &err), FST_OK);
    /* before the commit the old content stands */
    assert_int_equal(fst_file_read(path, 100, &b, &err), FST_OK);
    assert_string_equal(b.data, "first");
    fst_buf_release(&b);
    fst_atomic_abort(&f);
    assert_int_equal(fst_file_read(path, 4, &b, &err), FST_E_LIMIT);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(fst_file_read(folder, 100, &b, &err), FST_E_IO);
    assert_int_equal(fst_file_write("/nonexistent/x", "y", 1, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "/nonexistent/x"));
    fst_free(path);
}

/* The rename at the end of an atomic write would put a file where the pipe or device was. */
static void test_devices_are_not_replaced(void **state)
{
    (void)state;
    fst_error err = {0};
    struct stat st;
    char *path = fst_path_join(folder, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(fst_file_write(path, "x", 1, &err), FST_E_IO);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    fst_free(path);
}

static void test_full_disk(void **state)
{
    (void)state;
    fst_error err = {0};
    fst_atomic_file f = {0};
    char *path = fst_path_join(folder, "full");
    assert_int_equal(fst_atomic_open(&f, path, &err), FST_OK);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_true(dup2(fileno(full), f.fd) >= 0); /* every write says ENOSPC now */
    assert_int_equal(fst_atomic_write(&f, "x", 1, &err), FST_E_IO);
    assert_non_null(strstr(err.message, strerror(ENOSPC)));
    fst_atomic_abort(&f);
    fclose(full);
    assert_false(fst_file_exists(path));
    fst_free(path);
}

static void test_lock(void **state)
{
    (void)state;
    int a, b;
    fst_error err = {0};
    char *path = fst_path_join(folder, "lock");
    assert_int_equal(fst_file_lock(&a, path, &err), FST_OK);
    assert_int_equal(fst_file_lock(&b, path, &err), FST_E_IO);
    fst_file_unlock(a);
    assert_int_equal(fst_file_lock(&b, path, &err), FST_OK);
    fst_file_unlock(b);
    /* what somebody planted there is neither followed nor waited for */
    char *link = fst_path_join(folder, "lock-link"), *target = fst_path_join(folder, "lock-target");
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(fst_file_lock(&a, link, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "lock-link: is a symbolic link"));
    assert_false(fst_file_exists(target));
    assert_int_equal(unlink(link), 0);
    assert_int_equal(mkfifo(link, 0600), 0);
    assert_int_equal(fst_file_lock(&a, link, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "lock-link: is no file"));
    assert_int_equal(unlink(link), 0);
    fst_free(link);
    fst_free(target);
    fst_free(path);
}

static void test_folders(void **state)
{
    (void)state;
    fst_error err = {0};
    char *deep = fst_path_join(folder, "a/b/c");
    assert_int_equal(fst_make_folders(deep, &err), FST_OK);
    assert_int_equal(fst_make_folders(deep, &err), FST_OK);
    assert_true(fst_file_exists(deep));
    char *file = fst_path_join(folder, "plain"), *below = fst_path_join(file, "x");
    assert_int_equal(fst_file_write(file, "", 0, &err), FST_OK);
    assert_int_equal(fst_make_folders(below, &err), FST_E_IO);
    fst_free(deep);
    fst_free(file);
    fst_free(below);
}

/* ---- hashes and errors ---------------------------------------------------------------------------- */

static void test_hashes(void **state)
{
    (void)state;
    char hex[FST_DIGEST_HEX], of_file[FST_DIGEST_HEX];
    fst_sha256 s;
    fst_sha256_init(&s);
    fst_sha256_update(&s, "a", 1);
    fst_sha256_update(&s, "bc", 2);
    fst_sha256_final(&s, hex); /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char million[1000], part[FST_DIGEST_HEX];
    memset(million, 'a', sizeof million);
    fst_sha256_init(&s);
    for (int i = 0; i < 1000; i++)
        fst_sha256_update(&s, million, sizeof million);
    fst_sha256_final(&s, hex); /* B.3 */
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t i = 0; i < sizeof million; i++)
        million[i] = (char)(i * i + i / 7);
    for (size_t cut = 0; cut <= 300; cut++) { /* blocks that begin and end anywhere */
        fst_sha256_init(&s);
        fst_sha256_update(&s, million, cut);
        fst_sha256_update(&s, million + cut, 2 * cut);
        fst_sha256_update(&s, million + 3 * cut, sizeof million - 3 * cut);
        fst_sha256_final(&s, part);
        assert_string_equal(part, "0603a33e5b077677a085604e508c4123b7a731df6c15e31894209f959cc0a4a0");
    }
    char *path = fst_path_join(folder, "abc");
    assert_int_equal(fst_file_write(path, "abc", 3, NULL), FST_OK);
    assert_int_equal(fst_sha256_file(path, of_file, NULL), FST_OK);
    assert_string_equal(of_file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    fst_free(path);
    fst_hash128 a = fst_hash("abc", 3, 0), b = fst_hash("abd", 3, 0), c = fst_hash("abc", 3, 1);
    assert_true(a.lo != b.lo && a.hi != b.hi && a.lo != c.lo);
}

/* A pipe has no size: its bytes are read in blocks that double, not one by one. */
static void test_pipes_are_read(void **state)
{
    enum { BYTES = 3 << 20 };
    char *path = fst_path_join(folder, "long-pipe");
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    for (int limit = BYTES - 1; limit <= BYTES; limit++) {
        fst_buf b = {0};
        fst_error err = {0};
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            FILE *f = fopen(path, "w");
            signal(SIGPIPE, SIG_IGN);
            for (int i = 0; f && i < BYTES; i++)
                fputc(i % 251, f);
            _exit(!f || fclose(f));
        }
        uint64_t before = fst_alloc_count();
        fst_status s = fst_file_read(path, (size_t)limit, &b, &err);
        assert_true(fst_alloc_count() - before <= 8);
        assert_int_equal(waitpid(child, NULL, 0), child);
        if (limit < BYTES) {
            assert_int_equal(s, FST_E_LIMIT);
            continue;
        }
        assert_int_equal(s, FST_OK);
        assert_int_equal(b.len, BYTES);
        for (size_t i = 0; i < b.len; i++)
            assert_true((unsigned char)b.data[i] == i % 251);
        fst_buf_release(&b);
    }
    assert_int_equal(unlink(path), 0);
    fst_free(path);
}

static void test_errors(void **state)
{
    (void)state;
    fst_error err = {0};
    assert_int_equal(fst_fail(&err, FST_E_FORMAT, "byte %d", 7), FST_E_FORMAT);
    assert_int_equal(fst_fail_in(&err, FST_E_FORMAT, "file %s", "x"), FST_E_FORMAT);
    assert_string_equal(err.message, "file x: byte 7");
    assert_int_equal(fst_fail(NULL, FST_E_IO, "x"), FST_E_IO);
    for (int i = 0; i < 5; i++) /* longer than the buffer is cut, not overrun */
        fst_fail_in(&err, FST_E_FORMAT, "%0400d", i);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_string_equal(fst_status_name(FST_E_CANCELLED), "cancelled");
    assert_string_equal(fst_status_name((fst_status)999), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_streams_differ),
        cmocka_unit_test(test_fill_is_the_stream),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_buffer),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(pool_counts_sleeps),
        cmocka_unit_test(test_whole_files),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_pipes_are_read),
        cmocka_unit_test(test_devices_are_not_replaced),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
