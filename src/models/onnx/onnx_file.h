/*
 * An ONNX file in memory: its messages, checked so far that every tensor has as many values as its shape says. All
 * memory is counted against fst_budget of the file's size before it is taken, also that of who reads the graph.
 */
#ifndef FST_MODELS_ONNX_FILE_H
#define FST_MODELS_ONNX_FILE_H

#include <onnx.pb-c.h>

#include "fedstill/tensor.h"

enum { /* TensorProto.DataType */
       FST__ONNX_FLOAT = 1,
       FST__ONNX_INT32 = 6,
       FST__ONNX_INT64 = 7,
       FST__ONNX_FLOAT16 = 10,
       FST__ONNX_DOUBLE = 11,
       FST__ONNX_BFLOAT16 = 16
};
enum { FST__ONNX_MAX_NODES = 1 << 16, FST__ONNX_MAX_BYTES = INT32_MAX /* as protobuf has it */ };

struct fst__onnx_memory { /* what may still be taken */
    size_t left;
    bool over, failed; /* the budget was not enough; the system's memory was not */
};
struct fst__onnx_file {
    const char *name; /* for messages; belongs to the caller */
    Onnx__Model *model;
    struct fst__onnx_memory memory;
    ProtobufCAllocator allocator;
};

/* data NULL: the file at `name`. */
fst_status fst__onnx_open(struct fst__onnx_file *f, const char *name, const void *data, size_t len, fst_error *err);
void fst__onnx_close(struct fst__onnx_file *f);
/* `count` zeroed elements, for fst_free; NULL with *s and err set when there is no memory or no budget left. */
void *fst__onnx_array(struct fst__onnx_file *f, size_t count, size_t size, fst_status *s, fst_error *err);
/* The value of a key of metadata_props; NULL when it is not there. */
const char *fst__onnx_meta(const struct fst__onnx_file *f, const char *key);

/* memcpy, but `from` may be NULL when there is nothing. */
static inline void fst__onnx_copy(int64_t *to, const int64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

/* Constant values of a graph: a tensor of the file, seen in this shape. */
struct fst__onnx_tensor {
    const Onnx__Tensor *t; /* NULL: one number */
    float number;
    fst_shape shape;
    bool transposed; /* of rank 2: stored as the other way round */
};
fst_dtype fst__onnx_dtype(const struct fst__onnx_tensor *t); /* of floating-point numbers and integers */
bool fst__onnx_is_float(const struct fst__onnx_tensor *t);
/* All values in the order of the shape, as floats. */
void fst__onnx_floats(const struct fst__onnx_tensor *t, float *out);
float fst__onnx_float_at(const struct fst__onnx_tensor *t, size_t i);
/* At most `most` integers; how many there are, or -1 when they are none or more. */
int fst__onnx_integers(const struct fst__onnx_tensor *t, int64_t *out, int most);

#endif
