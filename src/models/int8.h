/* Files of models in int8, between int8.c and file.c. */
#ifndef FST_MODELS_INT8_H
#define FST_MODELS_INT8_H

#include "zoo.h"

struct fst__int8_layer {
    char name[112]; /* of its input's scale */
    float scale;
};
/* The tensors of such a file: those of a state with whole numbers as I8, and the scales of layers' inputs. */
struct fst__int8_tensors {
    fst_tensor *list;
    struct fst__int8_layer *layers;
    int8_t *weights;
    size_t n, count, bytes; /* tensors; layers; of weights */
};
/* Without a state only what they are. */
fst_status fst__int8_tensors(struct fst__int8_tensors *out, const fst_graph *g, const fst_state *s, fst_error *err);
void fst__int8_tensors_release(struct fst__int8_tensors *t);
/* m's f32 network becomes the one in int8 that the file's tensors tell. */
fst_status fst__int8_network(fst_model *m, const fst_safetensors *f, const char *path, fst_error *err);
/* Whether the numbers that were read can be an int8 model's. */
fst_status fst__int8_check_state(const fst_model *m, const char *path, fst_error *err);

#endif
