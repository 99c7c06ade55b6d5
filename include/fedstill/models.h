/*
 * fedstill/models.h - the zoo: networks by name, and model files.
 */
#ifndef FEDSTILL_MODELS_H
#define FEDSTILL_MODELS_H

#include "fedstill/nn.h"

typedef enum fst_stem {
    FST_STEM_IMAGENET, /* 7x7 convolution of stride 2 and max pooling */
    FST_STEM_CIFAR     /* 3x3 convolution of stride 1 */
} fst_stem;
enum { FST_STAGES = 7 };

/* Options of a network; 0 stands for the network's default. */
typedef struct fst_model_config {
    int classes;                                /* outputs */
    fst_shape input;                            /* rank 0: the default */
    double dropout1, dropout2;                  /* pfl_cifar, mobilenet_v2; negative: 0 */
    fst_stem stem;                              /* resnet50 */
    int hidden;                                 /* real_resnet20_link11_h: width of its first linear layer (1000) */
    double width;                               /* mobilenet_v2: multiplies its channels (1) */
    int stem_stride, stage_strides[FST_STAGES]; /* mobilenet_v2; the strides all or none */
} fst_model_config;

typedef struct fst_model_info {
    const char *name, *summary;
    fst_shape input; /* default */
    int classes;
    double dropout1, dropout2; /* defaults */
} fst_model_info;

FST_API size_t fst_models(void);
FST_API fst_model_info fst_model_at(size_t i);
/* Builds the graph of network `name`; FST_E_CONFIG names the known ones when there is none such. */
FST_MUST FST_API fst_status fst_model_graph(fst_graph **out, const char *name, const fst_model_config *config,
                                            fst_error *err);

/*
 * MergeNet's adapter (Li et al., AAAI 2025, arXiv 2404.13322): new values for a weight matrix A of a small model, from
 * A and a matrix B of a large one. In each layer four cross attentions, named by what the queries and what keys and
 * values are: xx (rows of A; rows of B), xy (rows of A; columns of B), yx (columns of A; rows of B), yy (columns of
 * A; columns of B); their mean x goes through LN(x + Dropout(W2 gelu(W1 x))), W1 and W2 under spectral norms. B is the
 * same in all layers.
 */
enum { FST_MERGENET_LAYERS = 64 };
typedef struct fst_mergenet {
    int64_t target[2], source[2]; /* rows, columns of A and of B */
    int layers, heads;
    int64_t min_width; /* attention between tokens of width p and q is max((p + q)/2, min_width) wide */
    bool bias;         /* of projections, W1, W2 */
    double attention_dropout, merge_dropout;
} fst_mergenet;
#define FST_MERGENET_DEFAULTS \
    ((fst_mergenet){          \
        .layers = 2, .heads = 8, .min_width = 128, .bias = true, .attention_dropout = 0.1, .merge_dropout = 0.2})
/* Inputs: A, B. Output: the new A. Meant for plans of batch 1. */
FST_MUST FST_API fst_status fst_mergenet_graph(fst_graph **out, const fst_mergenet *config, fst_error *err);

/* ---- model files ------------------------------------------------------------------------------
 *
 * safetensors with PyTorch's state_dict names. __metadata__ (all strings): format "fedstill-model-1", arch,
 * classes, input "1,28,28", options ("stem=cifar hidden=500"), normalise_mean and normalise_std "0.1307" (by comma),
 * class_names (a JSON list), stage, and whatever else the writer adds as provenance.
 */
#define FST_MODEL_FORMAT "fedstill-model-1"
enum { FST_MODEL_CHANNELS = 64 };

typedef struct fst_model {
    char arch[64];
    fst_model_config config;
    fst_graph *graph;
    fst_state state;
    int channels; /* entries of mean, std: 0, 1 or the input's channels */
    float mean[FST_MODEL_CHANNELS], std[FST_MODEL_CHANNELS];
    char **class_names; /* NULL or `classes` entries */
    int classes;
} fst_model;

/* A new network: zero state (see fst_state_randomise). */
FST_MUST FST_API fst_status fst_model_init(fst_model *m, const char *arch, const fst_model_config *config,
                                           fst_error *err);
FST_API void fst_model_release(fst_model *m);
/* Copies the names. */
FST_MUST FST_API fst_status fst_model_set_class_names(fst_model *m, char *const *names, int count, fst_error *err);
/* Writes atomically; `more` is added to the metadata. digest may be NULL. */
FST_MUST FST_API fst_status fst_model_save(const fst_model *m, const char *path, const fst_pair *more, size_t nmore,
                                           char digest[FST_DIGEST_HEX], fst_error *err);
/* Reads a model file: every tensor there once with its shape, or an error that names missing, extra and
 * misshaped ones. */
FST_MUST FST_API fst_status fst_model_load(fst_model *m, const char *path, fst_error *err);
/* The same over bytes; `name` is used in messages. */
FST_MUST FST_API fst_status fst_model_load_memory(fst_model *m, const char *name, const void *data, size_t len,
                                                  fst_error *err);

#endif
