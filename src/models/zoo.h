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
extern const struct fst_zoo_entry fst__zoo_small[], fst__zoo_resnet[], fst__zoo_mobilenet[], fst__zoo_complex[];

/* The options that are not at their defaults, as text: "stem=cifar hidden=500". parse: false for what it does not
 * know. */
enum { FST_OPTIONS_TEXT = 1024 };
void fst__options_text(const fst_model_config *c, char out[FST_OPTIONS_TEXT]);
bool fst__options_parse(const char *text, fst_model_config *c);

/* ---- file.c, for import.c and export.c ---- */

/* Everything of a model but its state. */
fst_status fst__model_network(fst_model *m, const char *arch, const fst_model_config *config, fst_error *err);
/* All that a model says of itself but its network and state. */
fst_status fst__model_copy_head(fst_model *out, const fst_model *m, fst_error *err);
/* The tensors of a network in one list (fst_free it); names belong to the graph. Without a state only what they are.
 * NULL when out of memory. */
fst_tensor *fst__model_tensors(const fst_graph *g, const fst_state *s, size_t *n);
/* The metadata that say so in an export, whose "format" is PyTorch's. */
#define FST__MODEL_KEY "fedstill"
struct fst__meta { /* what a file says of itself, whatever its format; get NULL: nothing */
    const char *(*get)(const void *file, const char *key);
    const void *file;
};
/* Whether it is a fedstill model file, or an export of one. */
bool fst__model_is_own(const struct fst__meta *f);
/* A fedstill model file's configuration, and its normalisation into m; then its class names. */
fst_status fst__model_read_config(const struct fst__meta *f, const char *path, fst_model *m, fst_model_config *c,
                                  fst_error *err);
fst_status fst__model_read_class_names(const struct fst__meta *f, const char *path, fst_model *m, fst_error *err);
/* What a file says of its model besides the weights, in `format`, and `more` behind it. The pairs point into the struct
 * itself, and where those of `more` do. */
enum { FST__MODEL_PAIRS = 12, FST__MODEL_LINE = FST_MODEL_CHANNELS * 16 };
struct fst__model_meta {
    char classes[16], input[128], dropout[64], options[FST_OPTIONS_TEXT], mean[FST__MODEL_LINE], std[FST__MODEL_LINE];
    char *names;
    fst_pair *pairs;
    size_t count;
};
fst_status fst__model_meta(struct fst__model_meta *out, const fst_model *m, const char *format, const fst_pair *more,
                           size_t nmore, fst_error *err);
void fst__model_meta_release(struct fst__model_meta *t);
/* fst_model_save with these tensors for the model's own, and another format ("pt" for an export). */
fst_status fst__model_write(const fst_model *m, const char *path, const char *format, const fst_tensor *tensors,
                            size_t ntensors, const fst_pair *more, size_t nmore, char digest[FST_DIGEST_HEX],
                            fst_error *err);
bool fst__shape_parse(const char *text, fst_shape *out); /* "1,28,28" */

#endif
