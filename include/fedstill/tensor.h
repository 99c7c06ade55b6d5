/*
 * fedstill/tensor.h - element types, shapes, views, and the file formats that Python also
 * reads: safetensors (https://github.com/huggingface/safetensors), NumPy's npy/npz, and, to import what others left,
 * pickles of plain data and PyTorch's checkpoints.
 */
#ifndef FEDSTILL_TENSOR_H
#define FEDSTILL_TENSOR_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

typedef enum fst_dtype {
    FST_F32,
    FST_F64,
    FST_F16,
    FST_BF16,
    FST_U8,
    FST_I8,
    FST_U16,
    FST_I16,
    FST_U32,
    FST_I32,
    FST_U64,
    FST_I64,
    FST_BOOL,
    FST_DTYPE_COUNT
} fst_dtype;

FST_API size_t fst_dtype_size(fst_dtype t);      /* bytes an element */
FST_API const char *fst_dtype_name(fst_dtype t); /* safetensors' name: "F32", "I64", ... */
FST_API bool fst_dtype_parse(const char *name, fst_dtype *out);

#define FST_MAX_RANK 8
typedef struct fst_shape {
    int rank; /* 0 ... FST_MAX_RANK; a scalar has rank 0 and one element */
    int64_t dim[FST_MAX_RANK];
} fst_shape;

/* FST_SHAPE(1, 28, 28) */
#define FST_SHAPE(...) ((fst_shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})

/* Product of the dimensions; -1 when one is negative or the product does not fit. */
FST_API int64_t fst_shape_count(const fst_shape *s);
FST_API bool fst_shape_equal(const fst_shape *a, const fst_shape *b);
/* Equal apart from dimensions of 1: samples (28, 28) go where (1, 28, 28) is needed. */
FST_API bool fst_shape_fits(const fst_shape *a, const fst_shape *b);
/* "(1, 28, 28)" into out; always terminated. Returns out. */
FST_API const char *fst_shape_text(const fst_shape *s, char *out, size_t size);

/* IEEE half precision, round to nearest even; NaN stays NaN, what is too large becomes infinity. */
FST_API uint16_t fst_f16_from_f32(float x);
FST_API float fst_f32_from_f16(uint16_t h);

/* `count` elements of any type as floats; src may stand at any address. */
FST_API void fst_f32_from(float *dst, fst_dtype t, const void *src, size_t count);

/* A named array that somebody else owns. Row-major, contiguous, little-endian. */
typedef struct fst_tensor {
    const char *name;
    fst_dtype dtype;
    fst_shape shape;
    void *data;
} fst_tensor;

/* ---- safetensors -------------------------------------------------------------------------- */

typedef struct fst_safetensors fst_safetensors;
typedef struct fst_pair {
    const char *key, *value;
} fst_pair;

#define FST_SAFETENSORS_MAX_HEADER (100u * 1024 * 1024) /* the format's own limit */

/* Opens and checks the header completely (ranges, overlaps, sizes against the file); reads no data. */
FST_MUST FST_API fst_status fst_safetensors_open(fst_safetensors **out, const char *path, fst_error *err);
/* The same over bytes that must outlive it. `name` is used in messages. */
FST_MUST FST_API fst_status fst_safetensors_open_memory(fst_safetensors **out, const char *name, const void *data,
                                                        size_t len, fst_error *err);
FST_API void fst_safetensors_free(fst_safetensors *f);
FST_API size_t fst_safetensors_count(const fst_safetensors *f);
/* The i-th tensor in the order of its data; data is NULL, name lives as long as f. */
FST_API fst_tensor fst_safetensors_at(const fst_safetensors *f, size_t i);
FST_API bool fst_safetensors_find(const fst_safetensors *f, const char *name, size_t *i);
/* The value of `key` in __metadata__, NULL when it is not there. */
FST_API const char *fst_safetensors_meta(const fst_safetensors *f, const char *key);
/* The i-th pair of __metadata__ in the order of its keys; false after the last. */
FST_API bool fst_safetensors_meta_at(const fst_safetensors *f, size_t i, fst_pair *out);
/* Copies tensor i; `bytes` must be its exact size. Complex tensors (C64) are F32 with two real planes, (N, 2, L) or
 * (N, 2C, ...), real parts first. */
FST_MUST FST_API fst_status fst_safetensors_read(const fst_safetensors *f, size_t i, void *dst, size_t bytes,
                                                 fst_error *err);
/* Copies rows first ... first + n - 1 of tensor i, which must have them, as fst_safetensors_read copies all; `bytes` is
 * their exact size. */
FST_MUST FST_API fst_status fst_safetensors_read_rows(const fst_safetensors *f, size_t i, size_t first, size_t n,
                                                      void *dst, size_t bytes, fst_error *err);
/* Tensor i where it lies in the bytes of fst_safetensors_open_memory, at any address; NULL for a file and for complex
 * tensors, which have to be copied. */
FST_API const void *fst_safetensors_data(const fst_safetensors *f, size_t i);
/* Reads tensor i, whatever its number type, converted to float. `count` must be its element count. */
FST_MUST FST_API fst_status fst_safetensors_read_f32(const fst_safetensors *f, size_t i, float *dst, size_t count,
                                                     fst_error *err);
/* Writes atomically. The bytes depend only on the arguments: keys sorted, 8-byte types first, then
 * by name. digest (may be NULL) becomes the SHA-256 of the file. */
FST_MUST FST_API fst_status fst_safetensors_write(const char *path, const fst_pair *meta, size_t nmeta,
                                                  const fst_tensor *tensors, size_t ntensors,
                                                  char digest[FST_DIGEST_HEX], fst_error *err);
/* The same bytes, appended to a buffer; `name` is used in messages. */
FST_MUST FST_API fst_status fst_safetensors_append(fst_buf *out, const char *name, const fst_pair *meta, size_t nmeta,
                                                   const fst_tensor *tensors, size_t ntensors, fst_error *err);

/* ---- npy and npz -------------------------------------------------------------------------- */

/* One array read whole into memory, in C order and this machine's byte order. */
typedef struct fst_array {
    char *name; /* for npz members, without ".npy"; "" for a bare npy */
    fst_dtype dtype;
    fst_shape shape;
    void *data;
} fst_array;
FST_API void fst_array_release(fst_array *a);

/* Some rows (the first dimension) of an array that must have `of` of them: `count` > 0 positions below that, rising. */
typedef struct fst_rows {
    const uint32_t *index;
    size_t count, of;
} fst_rows;

#define FST_ARRAY_MAX_BYTES ((size_t)8 * 1024 * 1024 * 1024)

/* Format versions 1 to 3; number types and bool; Fortran order and big-endian data are converted; complex64 and
 * complex128 become two real planes, (N, L) to (N, 2, L) and (N, C, ...) to (N, 2C, ...), real parts first; object
 * arrays are refused. max_bytes limits the array, checked before it is allocated. */
FST_MUST FST_API fst_status fst_npy_read(fst_array *out, const char *path, size_t max_bytes, fst_error *err);
/* The same with only these rows (NULL: all) kept, while the others pass by: memory is that of the rows and a block.
 * FST_E_MISMATCH when the array has another number of rows; max_bytes limits what is kept. */
FST_MUST FST_API fst_status fst_npy_read_rows(fst_array *out, const char *path, const fst_rows *rows, size_t max_bytes,
                                              fst_error *err);
FST_MUST FST_API fst_status fst_npy_parse(fst_array *out, const char *name, const void *data, size_t len,
                                          size_t max_bytes, fst_error *err);
FST_MUST FST_API fst_status fst_npy_write(const char *path, const fst_tensor *t, fst_error *err);
/* Reads member `member` ("images" finds "images.npy") of a zip archive, stored or deflated. */
FST_MUST FST_API fst_status fst_npz_read(fst_array *out, const char *path, const char *member, size_t max_bytes,
                                         fst_error *err);
/* As fst_npy_read_rows. A deflated member is inflated to its end, so that damage is found wherever it is. */
FST_MUST FST_API fst_status fst_npz_read_rows(fst_array *out, const char *path, const char *member,
                                              const fst_rows *rows, size_t max_bytes, fst_error *err);
/* Reads a list of texts (NumPy's types S and U; the latter comes as UTF-8). Free *texts with fst_free once
 * (one block). max_bytes limits the array as it is stored. */
FST_MUST FST_API fst_status fst_npz_read_texts(char ***texts, size_t *count, const char *path, const char *member,
                                               size_t max_bytes, fst_error *err);
/* Writes arrays, named without ".npy", as stored members of one archive of less than 4 GiB, atomically; then, if
 * texts is not NULL, those as NumPy's bytes (S) under texts_name. The bytes depend only on the arguments. digest
 * (may be NULL) becomes the SHA-256 of the file. */
FST_MUST FST_API fst_status fst_npz_write(const char *path, const fst_tensor *arrays, size_t narrays,
                                          const char *texts_name, char *const *texts, size_t ntexts,
                                          char digest[FST_DIGEST_HEX], fst_error *err);
/* The members' names; free *names with fst_free once (one block). */
FST_MUST FST_API fst_status fst_npz_list(const char *path, char ***names, size_t *count, fst_error *err);

/* ---- pickles ------------------------------------------------------------------------------ */

/*
 * A pickle is a program. This reader runs none: it builds None, bool, int, float, texts, bytes, tuples, lists,
 * dictionaries (OrderedDict too) and NumPy arrays and numbers out of protocols 0 to 5, and refuses everything else by
 * name before anything is done ("os.system is not allowed"). Limits hold before memory is taken: values,
 * memo entries, nesting, bytes. Values may be shared and, in a hostile file, contain themselves: who walks them
 * limits how far. They live as long as their fst_pickle and may be read from several threads.
 */
typedef enum fst_pickle_kind {
    FST_PICKLE_NONE,
    FST_PICKLE_BOOL,  /* integer: 0 or 1 */
    FST_PICKLE_INT,   /* integer; what needs more than 64 bits is refused */
    FST_PICKLE_FLOAT, /* real */
    FST_PICKLE_TEXT,  /* text, UTF-8 as the file has it (not checked), not terminated */
    FST_PICKLE_BYTES, /* text: bytes; also what Python 2 called str */
    FST_PICKLE_TUPLE, /* list */
    FST_PICKLE_LIST,  /* list */
    FST_PICKLE_DICT,  /* list: key, value, key, value in the file's order; a key may be there twice, the later counts */
    FST_PICKLE_ARRAY, /* array: C order, little-endian; data may stand at any address, so copy, do not cast */
    FST_PICKLE_KINDS
} fst_pickle_kind;

typedef struct fst_pickle_value fst_pickle_value;
struct fst_pickle_value {
    int kind; /* fst_pickle_kind; FST_PICKLE_KINDS or more is something that holds no value (a type) */
    union {
        int64_t integer;
        double real;
        struct {
            const char *data;
            size_t length;
        } text;
        struct {
            fst_pickle_value **items;
            size_t count, room;
        } list;
        const fst_tensor *array; /* its name is NULL */
        const void *object;      /* private */
    };
};

typedef struct fst_pickle fst_pickle;
/* Reads a file of at most max_bytes; values may take as much again, and no more than fst_budget of the file's size. */
FST_MUST FST_API fst_status fst_pickle_read(fst_pickle **out, const char *path, size_t max_bytes, fst_error *err);
/* The same, but the bytes of large arrays, and long texts, stay in the file, which is kept open: what `data` points to
 * has no meaning before it was copied. Memory is that of what is looked at. */
FST_MUST FST_API fst_status fst_pickle_open(fst_pickle **out, const char *path, size_t max_bytes, fst_error *err);
/* Copies len bytes that an array or text of p has at data, from wherever they are. FST_E_IO when they cannot be read.
 */
FST_MUST FST_API fst_status fst_pickle_copy(const fst_pickle *p, void *dst, const void *data, size_t len,
                                            fst_error *err);
/* The same as fst_pickle_read over bytes that must outlive it. */
FST_MUST FST_API fst_status fst_pickle_parse(fst_pickle **out, const char *name, const void *data, size_t len,
                                             size_t max_bytes, fst_error *err);
FST_API const fst_pickle_value *fst_pickle_root(const fst_pickle *p);
/* The value of a text key of a dictionary; NULL when it is not there or v is none. */
FST_API const fst_pickle_value *fst_pickle_find(const fst_pickle_value *v, const char *key);
FST_API void fst_pickle_free(fst_pickle *p);

/* ---- PyTorch's checkpoints ---------------------------------------------------------------- */

/*
 * The tensors of a file of torch.save (.pth, .pt): a zip archive, or the older stream of pickles in any protocol. Its
 * pickle is read as above, with all that torch.load(weights_only=True) knows besides: PyTorch's tensors, parameters and
 * storages of bool, int and float. Nothing is run. An object of any other class (argparse.Namespace, a set, a
 * scheduler) is passed over; the names of functions that do something with a machine are refused (os.system). Names
 * are the dictionaries' keys joined by ".", in the file's order. The model is a dictionary of tensors of one of the
 * usual names (state_dict, model_state_dict, model, net, module, params and so on; those of averages such as ema last),
 * also one in another, whatever stands beside it; without one, all tensors there are. Names are then
 * without those keys. A tensor in the model that is not dense, or of another element type, is refused by
 * name. Tensors that share memory are read as each for itself. Memory is limited by fst_budget of the file's size.
 */
typedef struct fst_pth fst_pth;
/* Whether a file that begins with these bytes (28 are enough) is a zip archive or the older stream. */
FST_API bool fst_pth_probe(const unsigned char *head, size_t len);
/* prefix (may be NULL): when no name in the model begins so, the whole file's tensors are there, by their full names
 * ("ema.fc.weight"), if one of those does. max_bytes limits the file, the pickle, and the file's tensors together. */
FST_MUST FST_API fst_status fst_pth_read(fst_pth **out, const char *path, const char *prefix, size_t max_bytes,
                                         fst_error *err);
/* The same over bytes, which need not outlive the call. */
FST_MUST FST_API fst_status fst_pth_parse(fst_pth **out, const char *name, const void *data, size_t len,
                                          const char *prefix, size_t max_bytes, fst_error *err);
FST_API size_t fst_pth_count(const fst_pth *p);
/* The i-th tensor, with its data: row-major, little-endian, living as long as p. */
FST_API fst_tensor fst_pth_at(const fst_pth *p, size_t i);
FST_API void fst_pth_free(fst_pth *p);

FST_END_DECLS

#endif
