/*
 * The bytes of an npy array. Rows that nobody wants pass by in blocks: those of a file or of memory are stepped over,
 * those of an archive's member inflated into nothing. This file knows no header and no order of elements.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "npy_input.h"

enum { BLOCK = 65536 };

fst_status fst__input_read(struct fst__input *in, void *dst, size_t len, const char *what, fst_error *err)
{
    unsigned char *p = dst;
    if (len > in->left)
        return fst_fail(err, FST_E_FORMAT, "%s: cut off: %s needs %zu bytes, %llu are there", in->name, what, len,
                        (unsigned long long)in->left);
    in->left -= len;
    if (in->memory) {
        memcpy(dst, in->memory, len);
        in->memory += len;
        return FST_OK;
    }
    while (len) {
        int64_t n = in->member ? zip_fread(in->member, p, len) : read(in->fd, p, len);
        if (n < 0 && !in->member && errno == EINTR)
            continue;
        if (n < 0 && in->member)
            return fst_fail(err, FST_E_FORMAT, "%s: damaged: %s", in->name, zip_file_strerror(in->member));
        if (n < 0)
            return fst_fail_errno(err, "%s", in->name);
        if (n == 0)
            return fst_fail(err, FST_E_FORMAT, "%s: cut off while %s was read", in->name, what);
        p += n;
        len -= (size_t)n;
    }
    return FST_OK;
}

/* Passes over `bytes`; a member's go through the block, which has room for them. */
static fst_status pass(struct fst__input *in, size_t bytes, unsigned char *block, fst_error *err)
{
    if (in->member)
        return fst__input_read(in, block, bytes, "the data", err);
    in->left -= bytes; /* the header was compared with it */
    if (in->memory)
        in->memory += bytes;
    else if (lseek(in->fd, (off_t)bytes, SEEK_CUR) < 0)
        return fst_fail_errno(err, "%s", in->name);
    return FST_OK;
}

/* One list of rows, `many` at a time. */
static fst_status one_list(struct fst__input *in, size_t row, const fst_rows *r, unsigned char *block, size_t many,
                           unsigned char *dst, fst_error *err)
{
    fst_status s = FST_OK;
    size_t k = 0;
    for (size_t at = 0, n; !s && at < r->of; at += n) {
        n = r->of - at < many ? r->of - at : many;
        if (k == r->count || r->index[k] >= at + n) {
            s = pass(in, n * row, block, err);
            continue;
        }
        s = fst__input_read(in, block, n * row, "the data", err);
        for (; !s && k < r->count && r->index[k] < at + n; k++)
            memcpy(dst + k * row, block + (r->index[k] - at) * row, row);
    }
    return s;
}

fst_status fst__input_rows(struct fst__input *in, size_t columns, size_t row, const fst_rows *r, void *dst,
                           fst_error *err)
{
    size_t many = row < BLOCK ? BLOCK / row : 1;
    many = many < r->of ? many : r->of;
    unsigned char *block = fst_alloc(many * row);
    fst_status s = block ? FST_OK : fst_fail_memory(err, many * row);
    for (size_t c = 0; !s && c < columns; c++)
        s = one_list(in, row, r, block, many, (unsigned char *)dst + c * r->count * row, err);
    fst_free(block);
    return s;
}
