/* Between onnx_export.c, which walks a network, and onnx_export_complex.c, which knows the layers of complex values. */
#ifndef FST_MODELS_ONNX_EXPORT_H
#define FST_MODELS_ONNX_EXPORT_H

#include "fedstill/models.h"
#include "onnx_write.h"

struct fst__onnx_part { /* of a graph's value: the names of its real and its imaginary part; im NULL for real values */
    const char *re, *im;
};
struct fst__onnx_export {
    struct fst__onnx_writer w;
    const fst_model *m;
    struct fst__onnx_part *value; /* by the graph's values; NULL before they are written */
};
struct fst__onnx_layer { /* the one that is being written */
    fst_node_info info;
    fst_value v;
    const char *name;                   /* of the layer, or made of its op and number */
    struct fst__onnx_part in, in2, out; /* in2: of an addition */
    fst_shape from;                     /* of a sample of the first input */
};

const float *fst__onnx_param(const struct fst__onnx_export *x, const fst_node_info *n, size_t k, fst_param_info *info);
/* The name of parameter k, which becomes an initialiser. */
const char *fst__onnx_weight(struct fst__onnx_export *x, const fst_node_info *n, size_t k);
/* Attributes of a convolution or a pooling. */
void fst__onnx_window(struct fst__onnx_export *x, Onnx__Node *node, const fst_node_info *n);

void fst__onnx_complex_from_parts(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
void fst__onnx_complex_conv(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
void fst__onnx_complex_linear(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
void fst__onnx_complex_norm(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
void fst__onnx_magnitude(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
void fst__onnx_attention(struct fst__onnx_export *x, const struct fst__onnx_layer *l);

#endif
