/* Whether a file's layers are those of one of our networks, and where each of its tensors comes from then. */
#ifndef FST_MODELS_ONNX_MATCH_H
#define FST_MODELS_ONNX_MATCH_H

#include "fedstill/models.h"
#include "onnx_net.h"

/* What a tensor of ours is made of. */
enum fst__onnx_rule {
    FST__ONNX_AS_IT_IS,
    FST__ONNX_ZEROS, /* from here on not in the file itself, but so that inference is the same */
    FST__ONNX_ONES,
    FST__ONNX_VARIANCE, /* a + add */
    FST__ONNX_MEAN      /* a - b */
};
struct fst__onnx_source {
    const char *name; /* ours, of the graph */
    fst_shape shape;
    enum fst__onnx_rule rule;
    struct fst__onnx_tensor a, b;
    float add;
};
struct fst__onnx_match {
    fst_graph *graph; /* ours */
    const char *arch; /* of the registry */
    fst_model_config config;
    struct fst__onnx_source *sources; /* every parameter and running statistic of the graph, in its order */
    size_t count;
};
/*
 * arch NULL: any network that fits; config: what is known of it already. own: config is complete, nothing is derived
 * from the file. FST_E_MISMATCH says which network came nearest, and the first layer, from the end, in which they
 * differ.
 */
fst_status fst__onnx_match_zoo(struct fst__onnx_match *m, struct fst__net *net, const char *arch,
                               const fst_model_config *config, bool own, const fst_import_options *o, fst_error *err);
void fst__onnx_match_release(struct fst__onnx_match *m);
/* `count` values of a source. */
void fst__onnx_source_read(const struct fst__onnx_source *s, float *out, size_t count);

#endif
