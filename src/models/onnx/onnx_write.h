/*
 * Builds an ONNX file in memory, node by node, and writes it. The first error stays in the writer, and the calls after
 * it do nothing, so that a network reads as its list of nodes; fst__onnx_write reports it.
 */
#ifndef FST_MODELS_ONNX_WRITE_H
#define FST_MODELS_ONNX_WRITE_H

#include <onnx.pb-c.h>

#include "fedstill/tensor.h"
#include "onnx_file.h"

enum { FST__ONNX_OPSET = 17, FST__ONNX_IR = 8 };

struct fst__onnx_block;
struct fst__onnx_writer {
    fst_status status;
    fst_error error;
    struct fst__onnx_block *blocks; /* all memory that the messages point to */
    Onnx__Node **nodes;
    Onnx__Tensor **tensors;
    size_t node_count, tensor_count;
};

/* Memory of zeros that lives as long as the writer; NULL once it is broken. */
void *fst__onnx_take(struct fst__onnx_writer *w, size_t bytes);
const char *fst__onnx_text(struct fst__onnx_writer *w, const char *fmt, ...) FST_PRINTF(2, 3);
/* A node with one output; strings are copied. NULL once the writer is broken, which the attributes' setters take. */
Onnx__Node *fst__onnx_node(struct fst__onnx_writer *w, const char *op, const char *name, const char *const *inputs,
                           size_t count, const char *output);
void fst__onnx_int(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, int64_t value);
void fst__onnx_ints(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, const int64_t *values, size_t count);
void fst__onnx_float(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, float value);
/* Initialisers. Values of f32 outlive the writer; those of the second are the caller's to fill, NULL once broken. Each
 * returns the name. */
const char *fst__onnx_f32(struct fst__onnx_writer *w, const char *name, const float *values, const fst_shape *shape);
float *fst__onnx_new_f32(struct fst__onnx_writer *w, const char *name, const fst_shape *shape);
const char *fst__onnx_scalar(struct fst__onnx_writer *w, const char *name, float value);
const char *fst__onnx_i64(struct fst__onnx_writer *w, const char *name, const int64_t *values, size_t count);
const char *fst__onnx_i64_scalar(struct fst__onnx_writer *w, const char *name, int64_t value);

/* What surrounds the nodes: samples have a first dimension of any size. */
struct fst__onnx_frame {
    const char *name, *input, *output, *input_doc, *output_doc;
    fst_shape input_shape, output_shape; /* of a sample */
    const fst_pair *pairs;               /* metadata_props */
    size_t pair_count;
};
/* Writes atomically. digest may be NULL. */
fst_status fst__onnx_write(struct fst__onnx_writer *w, const char *path, const struct fst__onnx_frame *frame,
                           char digest[FST_DIGEST_HEX], fst_error *err);
void fst__onnx_writer_release(struct fst__onnx_writer *w);

#endif
