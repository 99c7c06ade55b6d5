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
extern const struct fst_zoo_entry fst__zoo_small[], fst__zoo_resnet[], fst__zoo_mobilenet[];

/* The options that are not at their defaults, as text: "stem=cifar hidden=500". parse: false for what it does not
 * know. */
enum { FST_OPTIONS_TEXT = 256 };
void fst__options_text(const fst_model_config *c, char out[FST_OPTIONS_TEXT]);
bool fst__options_parse(const char *text, fst_model_config *c);

#endif
