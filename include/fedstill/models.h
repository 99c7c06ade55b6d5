/*
 * fedstill/models.h - the zoo: networks by name, and model files.
 */
#ifndef FEDSTILL_MODELS_H
#define FEDSTILL_MODELS_H

#include "fedstill/nn.h"

FST_BEGIN_DECLS

typedef enum fst_stem {
    FST_STEM_IMAGENET, /* 7x7 convolution of stride 2 and max pooling */
    FST_STEM_CIFAR     /* 3x3 convolution of stride 1 */
} fst_stem;
enum { FST_STAGES = 7, FST_MODEL_WIDTHS = 64 };

/* Options of a network; 0 stands for the network's default. */
typedef struct fst_model_config {
    int classes;                                /* outputs */
    fst_shape input;                            /* rank 0: the default */
    double dropout1, dropout2;                  /* pfl_cifar, mobilenet_v2; negative: 0 */
    fst_stem stem;                              /* resnet50 */
    int hidden;                                 /* the Link-11 networks: width of the first linear layer (1000) */
    double width;                               /* mobilenet_v2, the Link-11 networks: multiplies the channels (1) */
    int stem_stride, stage_strides[FST_STAGES]; /* mobilenet_v2; the strides all or none */
    int widths[FST_MODEL_WIDTHS];               /* channels of each group (fst_channels) that are left; all or none */
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
/* Sets one thing of a configuration from text: "classes=7", "input=3,32,32", "width=0.25", "stem=cifar" and so on.
 * FST_E_CONFIG for an option that network `name` does not have (the message lists those it has) or a bad value. */
FST_MUST FST_API fst_status fst_model_config_set(fst_model_config *c, const char *name, const char *setting,
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
 * features "fingerprint" where the network sees that, class_names (a JSON list), stage, and whatever else the writer
 * adds as provenance.
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
    bool fingerprint;   /* the network sees fst_transform.fingerprint, not the samples */
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

/* ---- models in int8 ------------------------------------------------------------------------------
 *
 * An f32 model becomes one of layers in int8 (fedstill/nn.h): weights are rounded with a scale for each channel, a
 * layer's input with the scale that covers the mean over calibration's batches of the largest magnitude in each. It
 * answers as any other (fst_runner with its graph and state), cannot be trained, and its file has about a quarter of
 * the bytes: format "fedstill-int8-1", the metadata of a model file, and for a layer in int8 NAME.weight (I8, -127 ...
 * 127), NAME.weight_scale and NAME.bias (F32, one an output channel) and NAME.input_scale (F32, rank 0). fst_model_save
 * and fst_model_load write and read it.
 */
#define FST_INT8_FORMAT "fedstill-int8-1"
typedef struct fst_calibration fst_calibration;
/* For a model that outlives it. At most `batch` samples at a time; threads 0: all CPUs. */
FST_MUST FST_API fst_status fst_calibration_new(fst_calibration **out, const fst_model *m, size_t batch, int threads,
                                                fst_error *err);
/* One batch: samples as the network takes them, normalised. Of more samples at a time the largest values are larger,
 * and fewer later ones are cut off; of fewer, rounding is finer. */
FST_MUST FST_API fst_status fst_calibration_add(fst_calibration *c, const float *x, size_t rows, fst_error *err);
FST_API void fst_calibration_free(fst_calibration *c);
/* c: of m, with samples. Every layer that has a form in int8 gets it; FST_E_UNSUPPORTED when there is none. */
FST_MUST FST_API fst_status fst_model_int8(fst_model *out, const fst_model *m, const fst_calibration *c,
                                           fst_error *err);
FST_API bool fst_model_is_int8(const fst_model *m);
/* FST_E_UNSUPPORTED for an int8 model: "NAME is an int8 model, which WHAT: take the f32 model ..." */
FST_MUST FST_API fst_status fst_model_need_f32(const fst_model *m, const char *name, const char *what, fst_error *err);

/* ---- fewer channels ------------------------------------------------------------------------------
 *
 * Structured pruning: whole channels of convolutions and units of linear layers are removed, with all that reads or
 * accompanies them. What is left is the same network with other widths (config.widths), f32 and trainable.
 */
typedef enum fst_importance {
    FST_IMPORTANCE_L1, /* sum of a filter's magnitudes over the l2 norm of these sums in its layer; the mean over the
                        * layers that make a group. Li et al., Pruning filters for efficient ConvNets, ICLR 2017; norm
                        * by layer: Molchanov et al., ICLR 2017 */
    FST_IMPORTANCE_BATCHNORM /* |scale| of the batch norms that follow, their mean over a group; of groups with such
                              * norms only. Liu et al., Learning efficient convolutional networks through network
                              * slimming, ICCV 2017 */
} fst_importance;
FST_API const char *fst_importance_name(fst_importance i); /* "l1", "batchnorm" */
typedef struct fst_prune {
    double ratio; /* 0 to below 1: of the channels that are removed, the least important */
    fst_importance importance;
    bool global; /* of all groups together, each keeping a tenth at least; else of each, rounded down */
} fst_prune;
/* Of equally important channels the last goes first. FST_E_UNSUPPORTED for an int8 model and for a network without such
 * channels, or, by batch norms, without such norms; FST_E_CONFIG for a ratio; FST_E_NUMERIC for weights that are not
 * finite. With nothing to remove out is a copy of m. */
FST_MUST FST_API fst_status fst_model_prune(fst_model *out, const fst_model *m, const fst_prune *o, fst_error *err);

/* ---- models from elsewhere ----------------------------------------------------------------------
 *
 * A file of tensors that some PyTorch program saved becomes a model. What has to agree is the network: names are
 * mapped to ours, element types are converted, shapes are never changed.
 *
 *  - Wrappers are taken off in front: module., model., _orig_mod., ema. and so on.
 *  - Names of torchvision and of chenyaofo/pytorch-cifar-models are ours. Known besides: timm (also its MobileNetV2),
 *    akamaster's and kuangliu's CIFAR networks (shortcut, linear), weiaicunzai's (residual_function).
 *  - A map goes before all that: lines "THEIRS OURS", # for comments, up to 8 * in THEIRS, each for a run of at least
 *    one character that a * of OURS brings back, in order; OURS "-" leaves tensors out.
 *  - An ONNX file says itself which network it is: its layers are compared with those of the zoo, with and without
 *    batch norms folded into convolutions, whatever its names. What a folded norm was is not in the file: it becomes
 *    one that changes nothing (FST_IMPORT_MADE), the same function in inference, but no start for training. Maps,
 *    prefixes and suffixes are not for it. An operator that the networks here do not have is FST_E_UNSUPPORTED, with
 *    the node's name; other networks are FST_E_MISMATCH, with the nearest.
 *  - num_batches_tracked may be missing: 0. n_averaged, total_ops and total_params are left out.
 */
typedef enum fst_head {
    FST_HEAD_KEEP, /* the file's last linear layers are the network's */
    FST_HEAD_FRESH /* the last linear layer starts anew, and so do linear layers before it that do not fit:
                    * fst_state_randomise from the seed */
} fst_head;

typedef struct fst_import_options {
    const char *arch;            /* network; NULL: that of an ONNX file */
    const char *const *settings; /* as fst_model_config_set reads them; before them stand those of a fedstill file */
    size_t setting_count;
    int classes;                 /* 0: rows of the file's last linear layer, or the network's default */
    fst_shape input;             /* rank 0: the network's default */
    const char *map, *map_name;  /* text and its name in messages; NULL: none */
    const char *prefix, *suffix; /* take only tensors that begin, end so, and cut it off; NULL: all */
    fst_head head;
    uint64_t seed;
    bool pad_shortcuts;   /* shortcuts without parameters (He et al. 2016, option A): those of a CIFAR ResNet become
                           * 1x1 convolutions of zeros and ones with a batch norm that changes nothing. The same
                           * function in inference; in training they learn, as those of option B do */
    bool allow_nonfinite; /* NaN and infinity are reported only */
} fst_import_options;

typedef enum fst_import_kind {
    FST_IMPORT_TAKEN,
    FST_IMPORT_FRESH,    /* of ours: initialised */
    FST_IMPORT_ZERO,     /* of ours: a counter that the file does not have */
    FST_IMPORT_PADDED,   /* of ours: a shortcut's, made up as pad_shortcuts says */
    FST_IMPORT_MADE,     /* of ours: not in the ONNX file itself, but what makes inference the same */
    FST_IMPORT_LEFT_OUT, /* of theirs: the old head, bookkeeping, outside prefix and suffix, or "-" in the map */
    FST_IMPORT_UNUSED,   /* a line of the map that no tensor matched; in `theirs` */
    FST_IMPORT_MISSING,  /* from here on nothing is complete */
    FST_IMPORT_EXTRA,
    FST_IMPORT_MISSHAPED, /* or not of a floating-point type */
    FST_IMPORT_TWICE,     /* several of theirs have one name of ours */
    FST_IMPORT_NONFINITE, /* holds NaN or infinity (alright with allow_nonfinite), or a counter is no whole number */
    FST_IMPORT_KINDS
} fst_import_kind;
FST_API const char *fst_import_kind_name(fst_import_kind k); /* "taken", "left out", ... */

typedef struct fst_import_item {
    fst_import_kind kind;
    char *ours, *theirs; /* NULL where there is none */
    fst_shape our_shape, their_shape;
    fst_dtype dtype;  /* theirs */
    size_t nonfinite; /* elements */
} fst_import_item;
typedef struct fst_import_report {
    const char *format; /* of the file: "safetensors", "PyTorch", "ONNX" */
    fst_import_item *items;
    size_t count, of[FST_IMPORT_KINDS];
} fst_import_report;
FST_API void fst_import_report_release(fst_import_report *r);

/* FST_E_MISMATCH when not every tensor of the network, and none besides, came from the file, FST_E_NUMERIC when only
 * values are wrong; the message names the first few. `report` (may be NULL) is filled then too, the model only on
 * success. A fedstill model (or an export of one) of another network is FST_E_MISMATCH; of the same one its options and
 * normalisation, and class names if the head is kept, come along. */
FST_MUST FST_API fst_status fst_model_import(fst_model *m, const char *path, const fst_import_options *o,
                                             fst_import_report *report, fst_error *err);
/* The same over bytes; `name` is used in messages. */
FST_MUST FST_API fst_status fst_model_import_memory(fst_model *m, const char *name, const void *data, size_t len,
                                                    const fst_import_options *o, fst_import_report *report,
                                                    fst_error *err);

typedef enum fst_names {
    FST_NAMES_OURS,       /* a fedstill model file: fst_model_save in another element type */
    FST_NAMES_TORCHVISION /* a state_dict for load_state_dict(load_file(path)): metadata format "pt", and "fedstill"
                           * in place of it beside all that a model file says of the network, its normalisation and
                           * its classes, so that fst_model_import has them again */
} fst_names;
/* Writes atomically parameters and running statistics as dtype (FST_F32, FST_F16, FST_BF16; round to nearest even),
 * counters as I64. FST_E_NUMERIC names a tensor with a value that is finite but too large for dtype. `more` as in
 * fst_model_save, for FST_NAMES_OURS only. Names are the same both ways: ours are torchvision's. */
FST_MUST FST_API fst_status fst_model_export(const fst_model *m, const char *path, fst_names names, fst_dtype dtype,
                                             const fst_pair *more, size_t nmore, char digest[FST_DIGEST_HEX],
                                             fst_error *err);

/* Whether this build reads and writes ONNX files (libprotobuf-c was there). */
FST_API bool fst_onnx_is_built(void);
/* Whether a file that begins with these bytes (4 are enough) is ONNX, as far as that can be told. */
FST_API bool fst_onnx_probe(const unsigned char *head, size_t len);
typedef struct fst_onnx_options {
    bool fold; /* batch norms go into the convolutions before them: weights change, answers do so by rounding alone */
} fst_onnx_options;
/*
 * Writes the model as ONNX, opset 17, for inference: input "input" (batch, ...), normalised samples, f32; output
 * "logits" (batch, classes). Nodes have the layers' names, initialisers those of the tensors, weights are the same
 * bits. Layers of complex values become operators on real and imaginary parts; their norms are written as the affine
 * map that they are in inference. metadata_props are those of a model file with format "onnx" and "fedstill" beside it,
 * and `more`. FST_E_UNSUPPORTED for a build without ONNX, or a layer (by name) that has no counterpart; FST_E_LIMIT
 * above 2 GiB. Writes atomically; o and digest may be NULL.
 */
FST_MUST FST_API fst_status fst_model_export_onnx(const fst_model *m, const char *path, const fst_onnx_options *o,
                                                  const fst_pair *more, size_t nmore, char digest[FST_DIGEST_HEX],
                                                  fst_error *err);

FST_END_DECLS

#endif
