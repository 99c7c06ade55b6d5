/* npy_private.h - the npz reader over memory, for tests and fuzz targets; order of bytes and of elements. */
#ifndef FEDSTILL_TENSOR_NPY_PRIVATE_H
#define FEDSTILL_TENSOR_NPY_PRIVATE_H

#include "fedstill/tensor.h"

/* As fst_npz_read_rows and fst_npz_list; data must outlive the call. */
FST_MUST fst_status fst__npz_read_memory(fst_array *out, const char *name, const void *data, size_t len,
                                         const char *member, const fst_rows *rows, size_t max_bytes, fst_error *err);
FST_MUST fst_status fst__npz_list_memory(const char *name, const void *data, size_t len, char ***names, size_t *count,
                                         fst_error *err);
/* As fst_npz_read_texts. */
FST_MUST fst_status fst__npz_texts_memory(char ***texts, size_t *count, const char *name, const void *data, size_t len,
                                          const char *member, size_t max_bytes, fst_error *err);
/* Turns each of `count` elements of `size` bytes round. */
void fst__swap_bytes(unsigned char *p, size_t count, size_t size);
/* Copies an array in Fortran order to C order. */
void fst__from_fortran(unsigned char *dst, const unsigned char *src, const fst_shape *s, size_t count, size_t size);
/* The real shape of a complex array: (N, L) becomes (N, 2, L), (N, C, ...) becomes (N, 2C, ...). *inner is how many
 * numbers have their real parts together. False when there are too many dimensions. */
bool fst__complex_shape(fst_shape *s, size_t *inner);
/* Puts `count` complex numbers, of parts of `size` bytes, into that order. */
FST_MUST fst_status fst__split_complex(void *data, size_t count, size_t inner, size_t size, fst_error *err);
/* NumPy's name of a type ("<f4"), NULL where it has none. */
const char *fst__npy_type(fst_dtype t);
/* Appends what stands before an array's data. */
FST_MUST fst_status fst__npy_header(fst_buf *b, const fst_tensor *t, fst_error *err);
/* The same for `count` texts of `width` bytes each. */
FST_MUST fst_status fst__npy_texts_header(fst_buf *b, size_t count, size_t width, fst_error *err);

#endif
