/* npy_private.h - the npz reader over memory, for tests and fuzz targets. */
#ifndef FEDSTILL_TENSOR_NPY_PRIVATE_H
#define FEDSTILL_TENSOR_NPY_PRIVATE_H

#include "fedstill/tensor.h"

/* As fst_npz_read and fst_npz_list; data must outlive the call. */
FST_MUST fst_status fst__npz_read_memory(fst_array *out, const char *name, const void *data, size_t len,
                                         const char *member, size_t max_bytes, fst_error *err);
FST_MUST fst_status fst__npz_list_memory(const char *name, const void *data, size_t len, char ***names, size_t *count,
                                         fst_error *err);
/* As fst_npz_read_texts. */
FST_MUST fst_status fst__npz_texts_memory(char ***texts, size_t *count, const char *name, const void *data, size_t len,
                                          const char *member, size_t max_bytes, fst_error *err);

#endif
