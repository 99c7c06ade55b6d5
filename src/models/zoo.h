/* The zoo's inside: one builder a network. */
#ifndef FST_MODELS_ZOO_H
#define FST_MODELS_ZOO_H

#include "fedstill/models.h"

struct fst_zoo_entry {
    fst_model_info info;
    /* config is complete: no defaults left. Errors stay in the graph. */
    fst_value (*build)(fst_graph *g, fst_value x, const fst_model_config *config);
};
/* Tables of the families, each ended by an entry without a name. */
extern const struct fst_zoo_entry fst__zoo_small[];

#endif
