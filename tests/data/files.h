/* files.h - temporary folders and the small files that the tests of this layer read. */
#ifndef FEDSTILL_TESTS_DATA_FILES_H
#define FEDSTILL_TESTS_DATA_FILES_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>
#include <png.h>

#include "fedstill/data.h"

static char work_folder[512];

static inline int make_work_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(work_folder, sizeof work_folder, "%s/fedstill-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(work_folder) ? 0 : -1;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

static inline int remove_work_folder(void **state)
{
    (void)state;
    return nftw(work_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Path below the work folder; one of several buffers, used in turn. */
static inline const char *in_work(const char *name)
{
    static char paths[64][1024];
    static int next;
    char *p = paths[next++ % 64];
    snprintf(p, sizeof paths[0], "%s/%s", work_folder, name);
    return p;
}

/* Writes a file, making its folder first. */
static inline void put_file(const char *name, const void *data, size_t len)
{
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", in_work(name));
    *strrchr(folder, '/') = 0;
    assert_int_equal(fst_make_folders(folder, NULL), FST_OK);
    assert_int_equal(fst_file_write(in_work(name), data, len, NULL), FST_OK);
}

/* An IDX file of unsigned bytes into out; returns its length. */
static inline size_t idx_bytes(unsigned char *out, int rank, const uint32_t *dim, const void *data, size_t len)
{
    size_t n = 4;
    memcpy(out, "\0\0\x08", 3);
    out[3] = (unsigned char)rank;
    for (int i = 0; i < rank; i++)
        for (int b = 3; b >= 0; b--)
            out[n++] = (unsigned char)(dim[i] >> 8 * b);
    memcpy(out + n, data, len);
    return n + len;
}

static inline size_t gzip_bytes(unsigned char *out, size_t size, const void *data, size_t len)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)data;
    z.avail_in = (unsigned)len;
    z.next_out = out;
    z.avail_out = (unsigned)size;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return size - z.avail_out;
}

/* An 8-bit PNG; channels 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; interleaved pixels. */
static inline void put_png(const char *name, int channels, unsigned width, unsigned height, const void *pixels)
{
    static const unsigned formats[] = {0, PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB, PNG_FORMAT_RGBA};
    png_image image = {.version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = formats[channels]};
    png_alloc_size_t size = 0;
    assert_true(png_image_write_get_memory_size(image, size, 0, pixels, 0, NULL));
    void *file = malloc(size);
    assert_true(png_image_write_to_memory(&image, file, &size, 0, pixels, 0, NULL));
    put_file(name, file, size);
    free(file);
}

/* The call must fail with `want`, and its message must hold `text`. */
#define assert_fails(call, want, text)                                                                \
    do {                                                                                              \
        fst_error err_ = {0};                                                                         \
        fst_error *err = &err_;                                                                       \
        fst_status got_ = (call);                                                                     \
        if (got_ != (want) || !strstr(err_.message, (text)))                                          \
            fail_msg("status %s, \"%s\"; wanted %s with \"%s\"", fst_status_name(got_), err_.message, \
                     fst_status_name(want), (text));                                                  \
    } while (0)

#define assert_ok(call)                   \
    do {                                  \
        fst_error err_ = {0};             \
        fst_error *err = &err_;           \
        if ((call) != FST_OK)             \
            fail_msg("%s", err_.message); \
    } while (0)

#endif
