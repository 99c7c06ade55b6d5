/* pickle_private.h - between pickle.c (the stream of opcodes), pickle_build.c (what globals and calls become) and
 * pth.c (PyTorch's files). Private to src/tensor, its tests and fuzz targets. */
#ifndef FEDSTILL_TENSOR_PICKLE_PRIVATE_H
#define FEDSTILL_TENSOR_PICKLE_PRIVATE_H

#include "fedstill/tensor.h"

/* Kinds that never leave this layer. */
enum {
    FST__PICKLE_GLOBAL = FST_PICKLE_KINDS, /* integer: which (enum in pickle_build.c) */
    FST__PICKLE_DTYPE,                     /* integer: fst_dtype, + 256 for big-endian */
    FST__PICKLE_RAW_ARRAY,                 /* a NumPy array before its state is set */
    FST__PICKLE_STORAGE,                   /* torch: storage */
    FST__PICKLE_TENSOR                     /* torch: tensor */
};

/* torch: elements in a file of the archive, or behind the pickle. */
typedef struct fst__torch_storage {
    fst_dtype dtype;
    const char *key; /* not terminated */
    size_t key_len;
    uint64_t count;
    struct fst__torch_storage *next; /* of all that the pickle names, a storage as often as it does */
} fst__torch_storage;

typedef struct fst__torch_tensor {
    const fst__torch_storage *storage;
    uint64_t offset; /* elements */
    fst_shape shape;
    int64_t stride[FST_MAX_RANK];
} fst__torch_tensor;

struct fst_pickle {
    char *name;
    fst_buf file; /* when it was read here */
    const unsigned char *data;
    size_t len, at;
    bool torch; /* PyTorch's globals and persistent ids are known */
    /* memory of values: chunks in a list, all freed together */
    struct fst__chunk *chunks;
    size_t bytes, max_bytes, objects;
    fst_pickle_value *root;
    fst__torch_storage *storages;
};

static inline const fst__torch_storage *fst__pickle_storage(const fst_pickle_value *v)
{
    return (const fst__torch_storage *)v->object;
}
static inline const fst__torch_tensor *fst__pickle_tensor(const fst_pickle_value *v)
{
    return (const fst__torch_tensor *)v->object;
}

/* As fst_pickle_parse; `used` (may be NULL) becomes the bytes up to and with the end, else bytes behind the end
 * are an error. */
FST_MUST fst_status fst__pickle_parse(fst_pickle **out, const char *name, const void *data, size_t len, bool torch,
                                      size_t max_bytes, size_t *used, fst_error *err);
/* Memory that lives as long as p, counted against its limit. */
FST_MUST fst_status fst__pickle_take(fst_pickle *p, size_t bytes, void **out, fst_error *err);
FST_MUST fst_status fst__pickle_value(fst_pickle *p, int kind, fst_pickle_value **out, fst_error *err);
FST_MUST fst_status fst__pickle_fail(const fst_pickle *p, fst_error *err, const char *what);

/* pickle_build.c */
FST_MUST fst_status fst__pickle_global(fst_pickle *p, const char *module, size_t module_len, const char *name,
                                       size_t name_len, fst_pickle_value **out, fst_error *err);
FST_MUST fst_status fst__pickle_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                                     fst_pickle_value **out, fst_error *err);
FST_MUST fst_status fst__pickle_build(fst_pickle *p, fst_pickle_value *object, const fst_pickle_value *state,
                                      fst_error *err);
FST_MUST fst_status fst__pickle_persistent(fst_pickle *p, const fst_pickle_value *id, fst_pickle_value **out,
                                           fst_error *err);
/* pickle_text.c. 'abc\x00' in quotes, as Python 2's repr writes it. */
FST_MUST fst_status fst__pickle_string(fst_pickle *p, const char *line, size_t n, fst_pickle_value **out,
                                       fst_error *err);
/* Python's raw-unicode-escape: Latin-1, \uXXXX and \UXXXXXXXX. */
FST_MUST fst_status fst__pickle_unicode(fst_pickle *p, const char *line, size_t n, fst_pickle_value **out,
                                        fst_error *err);
/* A text as Python's encode('latin1') makes it bytes. */
FST_MUST fst_status fst__pickle_latin1(fst_pickle *p, const fst_pickle_value *text, fst_pickle_value **out,
                                       fst_error *err);

#endif
