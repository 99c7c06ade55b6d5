/* Between onnx_match.c, which tries networks, and onnx_fit.c, which compares one with the file. */
#ifndef FST_MODELS_ONNX_FIT_H
#define FST_MODELS_ONNX_FIT_H

#include "onnx_match.h"

struct fst__onnx_fit {
    const fst_graph *g;
    const struct fst__net *net;
    int *layer;   /* by our values: the file's layer, -1 */
    bool *folded; /* by our values: a batch norm whose layer is a convolution that holds it */
    int *trail;   /* our values in the order in which they were given layers */
    int found;    /* how many */
    size_t steps;
    int most, value, other; /* where it got furthest: how many layers agreed, and the two that do not */
};
/* The arrays have room for every value of g. True: all layers agree. */
bool fst__onnx_fit(struct fst__onnx_fit *f);
/* The two layers that do not agree, in words. */
const char *fst__onnx_difference(const struct fst__onnx_fit *f, char *out, size_t size);
/* After a fit: where our value v's parameter (or buffer) k comes from. */
struct fst__onnx_source fst__onnx_param_source(const struct fst__onnx_fit *f, fst_value v, size_t k);
struct fst__onnx_source fst__onnx_buffer_source(const struct fst__onnx_fit *f, fst_value v, size_t k);

#endif
