/* FedGen's generator: made features of a label. What both halves of the strategy need of it, and where the last layer
 * of a network lies, which is all of the network that sees such features. */
#ifndef FEDSTILL_GENERATOR_H
#define FEDSTILL_GENERATOR_H

#include "fed_private.h"

/* (noise, label as one of C) -> hidden -> batch norm -> ReLU -> features. */
struct fst__generator {
    size_t noise, classes, width; /* width: of the features */
    fst_graph *graph;
    fst_fed_state state;
};
FST_MUST fst_status fst__generator_init(struct fst__generator *g, size_t noise, size_t hidden, size_t classes,
                                        size_t width, fst_error *err);
void fst__generator_release(struct fst__generator *g);
/* x: rows x (noise + classes): uniform noise from r, and the labels. */
void fst__generator_input(const struct fst__generator *g, fst_rng *r, const int32_t *label, size_t rows, float *x);

/* The last layer: logits = weight features + bias, at these places of the network's parameters. */
struct fst__head {
    size_t width, classes, weight, bias;
    bool has_bias;
};
/* FST_E_CONFIG: the network does not end in a linear layer over features. */
FST_MUST fst_status fst__head_of(const fst_graph *g, struct fst__head *out, fst_error *err);
/* Copies weight, then bias (zeros without one), of a network's parameters: (width + 1) x classes floats. */
void fst__head_copy(const struct fst__head *h, const float *params, float *out);
/* p (classes) = softmax(weight x + bias), of a copied head; returns -log p[label]. */
double fst__head_say(const struct fst__head *h, const float *copied, const float *x, size_t label, double *p);

#endif
