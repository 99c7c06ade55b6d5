/* pickle_private.h - between pickle.c (the stream of opcodes), pickle_value.c (values and their memory), pickle_build.c
 * and pickle_torch.c (what globals and calls become) and pth*.c (PyTorch's files). Private to src/tensor, its tests and
 * fuzz targets. */
#ifndef FEDSTILL_TENSOR_PICKLE_PRIVATE_H
#define FEDSTILL_TENSOR_PICKLE_PRIVATE_H

#include <string.h>

#include "fedstill/tensor.h"

/* Kinds that never leave this layer. */
enum {
    FST__PICKLE_GLOBAL = FST_PICKLE_KINDS, /* integer: which (enum fst__global), and more of it above 8 bits */
    FST__PICKLE_DTYPE,                     /* integer: fst_dtype, + 256 for big-endian */
    FST__PICKLE_RAW_ARRAY,                 /* a NumPy array before its state is set */
    FST__PICKLE_STORAGE,                   /* torch: storage */
    FST__PICKLE_TENSOR,                    /* torch: tensor */
    FST__PICKLE_OBJECT,                    /* torch: a class or an object of it; text: the class's name, no more */
    FST__PICKLE_MODULE                     /* the same, and its state is that of a torch.nn.Module */
};

/* What can be called. */
enum fst__global {
    FST__RECONSTRUCT,
    FST__NDARRAY,
    FST__DTYPE,
    FST__SCALAR,
    FST__FROMBUFFER,
    FST__ENCODE,
    FST__ORDERED_DICT,
    FST__BYTES,
    FST__TORCH_FIRST, /* from here on in files of torch.save only */
    FST__COUNTER = FST__TORCH_FIRST,
    FST__DEFAULTDICT,
    FST__TORCH_TENSOR_V1,
    FST__TORCH_TENSOR_V2,
    FST__TORCH_TENSOR_V3,
    FST__TORCH_SUBCLASS,
    FST__TORCH_PARAMETER,
    FST__TORCH_SIZE,
    FST__TORCH_STORAGE, /* above: its type (fst__torch_storage_type) */
    FST__TORCH_DTYPE    /* above: fst_dtype, FST_DTYPE_COUNT for one that is not read */
};

/* A type of storages. dtype FST_DTYPE_COUNT: its elements are not read, only passed over. */
struct fst__torch_type {
    const char *name; /* of torch.NAME */
    fst_dtype dtype;
    size_t size; /* bytes an element */
};

/* torch: elements in a file of the archive, or after the pickle. */
typedef struct fst__torch_storage {
    const struct fst__torch_type *type;
    const char *key; /* not terminated */
    size_t key_len;
    uint64_t count;
    uint64_t first, within; /* a tensor's elements: `within` from `first` on (views of very old files; else all) */
    struct fst__torch_storage *next; /* of all that the pickle names, a storage as often as it does */
} fst__torch_storage;

typedef struct fst__torch_tensor {
    const fst__torch_storage *storage;
    uint64_t offset; /* elements */
    fst_shape shape;
    int64_t stride[FST_MAX_RANK];
} fst__torch_tensor;

enum { FST__PICKLE_CONSTANTS = 4 + 256 };

struct fst_pickle {
    char *name;
    fst_buf file; /* when it was read here */
    const unsigned char *data;
    size_t len, at;
    /* A file that is read as far as it is looked at (pickle_file.c): the descriptor, -1 for none; room for all of its
     * bytes, which `data` are; how many of them have passed by; from which length on texts and bytes are not read. */
    int fd;
    unsigned char *room;
    size_t passed, hole;
    bool torch; /* PyTorch's globals and persistent ids are known */
    /* memory of values: chunks in a list, all freed together */
    struct fst__chunk *chunks;
    size_t bytes, max_bytes, objects;
    fst_pickle_value *constants[FST__PICKLE_CONSTANTS]; /* None, True, False, (), 0 ... 255, once they are needed */
    fst_pickle_value *root;
    fst__torch_storage *storages;
};

static inline bool fst__pickle_is_object(const fst_pickle_value *v)
{
    return v->kind == FST__PICKLE_OBJECT || v->kind == FST__PICKLE_MODULE;
}
static inline bool fst__pickle_is_words(const fst_pickle_value *v)
{
    return v && (v->kind == FST_PICKLE_TEXT || v->kind == FST_PICKLE_BYTES);
}
static inline bool fst__pickle_is_global(const fst_pickle_value *v, enum fst__global what)
{
    return v && v->kind == FST__PICKLE_GLOBAL && (v->integer & 255) == what;
}
/* Whether the letters are these. */
static inline bool fst__pickle_same(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && !memcmp(text, word, len);
}
/* args[i] if it is of this kind, otherwise NULL. */
static inline const fst_pickle_value *fst__pickle_arg(const fst_pickle_value *args, size_t i, int kind)
{
    return i < args->list.count && args->list.items[i]->kind == kind ? args->list.items[i] : NULL;
}

static inline const fst__torch_storage *fst__pickle_storage(const fst_pickle_value *v)
{
    return (const fst__torch_storage *)v->object;
}
static inline const fst__torch_tensor *fst__pickle_tensor(const fst_pickle_value *v)
{
    return (const fst__torch_tensor *)v->object;
}

/* Of a pickle's data: the n bytes from p->at on, of which there are as many, are in memory. */
FST_MUST fst_status fst__pickle_need(fst_pickle *p, size_t n, fst_error *err);
/* The same of n bytes of a text that may have been passed over. */
FST_MUST fst_status fst__pickle_fill(fst_pickle *p, const void *text, size_t n, fst_error *err);
/* Gives back the file and the room of a pickle that has them. */
void fst__pickle_close(fst_pickle *p);
/* As fst_pickle_open; texts and bytes of `hole` bytes and more stay in the file. */
FST_MUST fst_status fst__pickle_open(fst_pickle **out, const char *path, size_t max_bytes, size_t hole, fst_error *err);
/* As fst__pickle_parse, over what `given` says the bytes are: name (which is copied), data, len, torch, fd, room,
 * passed and hole become those of *out; on failure they stay the caller's. */
FST_MUST fst_status fst__pickle_parse_as(fst_pickle **out, const fst_pickle *given, size_t max_bytes, size_t *used,
                                         fst_error *err);
/* The line that begins at p->at, without its end; p->at is then behind it. */
FST_MUST fst_status fst__pickle_line(fst_pickle *p, const char **line, size_t *len, fst_error *err);
/* n > 0 values more in a container. */
FST_MUST fst_status fst__pickle_add(fst_pickle *p, fst_pickle_value *v, fst_pickle_value *const *items, size_t n,
                                    fst_error *err);

/* As fst_pickle_parse; `used` (may be NULL) becomes the bytes up to and with the end, else bytes after the end
 * are an error. */
FST_MUST fst_status fst__pickle_parse(fst_pickle **out, const char *name, const void *data, size_t len, bool torch,
                                      size_t max_bytes, size_t *used, fst_error *err);
/* Counts bytes against p's limit. take: and they are there, as long as p is. */
FST_MUST fst_status fst__pickle_charge(fst_pickle *p, size_t bytes, fst_error *err);
FST_MUST fst_status fst__pickle_take(fst_pickle *p, size_t bytes, void **out, fst_error *err);
FST_MUST fst_status fst__pickle_value(fst_pickle *p, int kind, fst_pickle_value **out, fst_error *err);
/* None, True, False, () and whole numbers; who gets one does not change it. */
FST_MUST fst_status fst__pickle_constant(fst_pickle *p, int kind, int64_t x, fst_pickle_value **out, fst_error *err);
/* An object of what is called so; the letters live as long as p. */
FST_MUST fst_status fst__pickle_object(fst_pickle *p, const char *what, size_t len, fst_pickle_value **out,
                                       fst_error *err);
/* For messages: at most 63 letters, nothing that a terminal would act on. */
const char *fst__pickle_printable(const char *text, size_t len, char out[64]);
/* A tuple of whole numbers >= 0. */
bool fst__pickle_numbers(const fst_pickle_value *v, int64_t *out, int *count);
FST_MUST fst_status fst__pickle_fail(const fst_pickle *p, fst_error *err, const char *what);

/* pickle_build.c */
FST_MUST fst_status fst__pickle_global(fst_pickle *p, const char *module, size_t module_len, const char *name,
                                       size_t name_len, fst_pickle_value **out, fst_error *err);
FST_MUST fst_status fst__pickle_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                                     fst_pickle_value **out, fst_error *err);
FST_MUST fst_status fst__pickle_build(fst_pickle *p, fst_pickle_value *object, const fst_pickle_value *state,
                                      fst_error *err);
/* pickle_torch.c. PyTorch's global of that name, -1 when it has none that is known. */
int64_t fst__torch_global(const char *module, size_t module_len, const char *name, size_t name_len);
FST_MUST fst_status fst__torch_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                                    fst_pickle_value **out, fst_error *err);
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
