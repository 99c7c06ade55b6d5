/* npy_input.h - where an npy array's bytes come from, front to back: a file, memory, or a member of an archive. Private
 * to src/tensor. */
#ifndef FEDSTILL_TENSOR_NPY_INPUT_H
#define FEDSTILL_TENSOR_NPY_INPUT_H

#include "archive.h"
#include "fedstill/tensor.h"

/* Exactly one of memory, member and fd is used. */
struct fst__input {
    const char *name;
    uint64_t left; /* bytes that are still to come */
    const unsigned char *memory;
    zip_file_t *member;
    int fd;
};

/* Reads exactly len bytes; fewer are an error that says how many `what` has. */
FST_MUST fst_status fst__input_read(struct fst__input *in, void *dst, size_t len, const char *what, fst_error *err);
/* Reads `columns` lists of r->of rows of `row` > 0 bytes, and keeps those of r, list after list. */
FST_MUST fst_status fst__input_rows(struct fst__input *in, size_t columns, size_t row, const fst_rows *r, void *dst,
                                    fst_error *err);

#endif
