/*
 * fedstill/nn.h - the neural-network engine: graphs, plans, losses, optimisers, training steps.
 *
 * A graph says what to compute; it is built once and then only read, so any number of plans on any
 * threads may share it. A plan says how: it fixes batch size, backend and memory, takes one arena and
 * creates every kernel, so that running it allocates nothing. All arrays are float32, row-major,
 * channels first (N, C, H, W), as PyTorch has them; layouts inside a plan are the backend's affair.
 */
#ifndef FEDSTILL_NN_H
#define FEDSTILL_NN_H

#include "fedstill/base.h"
#include "fedstill/tensor.h"

FST_BEGIN_DECLS

/* ---- graph -------------------------------------------------------------------------------- */

typedef struct fst_graph fst_graph;
typedef int fst_value; /* names the output of a node; negative after an error */

/* Building stops at the first error, which fst_graph_finish reports; the calls in between then do
 * nothing, so that a model reads as its list of layers. */
FST_MUST FST_API fst_status fst_graph_new(fst_graph **out, fst_error *err);
FST_API void fst_graph_free(fst_graph *g);

/* The input of one sample, without the batch: (1, 28, 28). One to four, before everything else; trainers and
 * runners take graphs with one. */
FST_API fst_value fst_graph_input(fst_graph *g, const fst_shape *sample);

typedef struct fst_conv2d {
    int64_t out_channels;
    int64_t kernel[2], stride[2], padding[2]; /* height, width; padding with zeros on both sides */
    int64_t groups;                           /* 0 means 1 */
    bool bias;
} fst_conv2d;
/* Parameters NAME.weight (out, in/groups, kh, kw) and NAME.bias (out). */
FST_API fst_value fst_graph_conv2d(fst_graph *g, fst_value x, const char *name, const fst_conv2d *o);
typedef struct fst_conv1d {
    int64_t out_channels, kernel, stride, padding;
    int64_t groups; /* 0 means 1 */
    bool bias;
} fst_conv1d;
/* (channels, length) -> (out, new length). Parameters NAME.weight (out, in/groups, kernel) and NAME.bias (out). */
FST_API fst_value fst_graph_conv1d(fst_graph *g, fst_value x, const char *name, const fst_conv1d *o);
/* Over the last dimension, (in) -> (out) or (tokens, in) -> (tokens, out): y = x W^T + b; parameters NAME.weight
 * (out, in), NAME.bias (out). */
FST_API fst_value fst_graph_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias);
FST_API fst_value fst_graph_relu(fst_graph *g, fst_value x);
/* Pads with -infinity; output sizes round down; of equal maxima the first in row-major order wins. */
FST_API fst_value fst_graph_maxpool2d(fst_graph *g, fst_value x, int64_t kernel, int64_t stride, int64_t padding);
FST_API fst_value fst_graph_flatten(fst_graph *g, fst_value x);
/* The same values, row-major, as another shape of as many elements. */
FST_API fst_value fst_graph_reshape(fst_graph *g, fst_value x, const fst_shape *sample);
FST_API fst_value fst_graph_relu6(fst_graph *g, fst_value x); /* min(max(x, 0), 6); gradient 0 at 0 and 6 */
FST_API fst_value fst_graph_sigmoid(fst_graph *g, fst_value x);
FST_API fst_value fst_graph_gelu_tanh(fst_graph *g, fst_value x);        /* Hendrycks and Gimpel 2016, the tanh form */
FST_API fst_value fst_graph_softmax(fst_graph *g, fst_value x);          /* over the last dimension */
FST_API fst_value fst_graph_add(fst_graph *g, fst_value x, fst_value y); /* of equal shape */
/* 1 to 4 values along the first dimension (channels); the others must agree. */
FST_API fst_value fst_graph_concat(fst_graph *g, const fst_value *x, int count);
FST_API fst_value fst_graph_scale(fst_graph *g, fst_value x, double factor);   /* factor x */
FST_API fst_value fst_graph_mean(fst_graph *g, const fst_value *x, int count); /* of values of equal shape */
FST_API fst_value fst_graph_transpose(fst_graph *g, fst_value x);              /* (rows, columns) -> (columns, rows) */
/* Output sizes round down. count_padding: the divisor is the window's size, else the elements inside the image. */
FST_API fst_value fst_graph_avgpool2d(fst_graph *g, fst_value x, const int64_t kernel[2], const int64_t stride[2],
                                      const int64_t padding[2], bool count_padding);
FST_API fst_value fst_graph_global_avgpool(fst_graph *g, fst_value x); /* (C, H, W) -> (C) */
/* Wu and He 2018: over the channels of a group and all positions; NAME.weight, NAME.bias (C). */
FST_API fst_value fst_graph_groupnorm(fst_graph *g, fst_value x, const char *name, int64_t groups, double eps);
/* Ba, Kiros, Hinton 2016: over the last dimension; NAME.weight, NAME.bias of its size. */
FST_API fst_value fst_graph_layernorm(fst_graph *g, fst_value x, const char *name, double eps);
/* Zeroes with probability p and scales the rest by 1/(1-p) in training; the identity in inference. */
FST_API fst_value fst_graph_dropout(fst_graph *g, fst_value x, double p);
/* Ioffe and Szegedy 2015. Parameters NAME.weight, NAME.bias (C); buffers NAME.running_mean,
 * NAME.running_var (C), counter NAME.num_batches_tracked. Normalises by the biased variance, keeps
 * the unbiased one: running = (1 - momentum) running + momentum batch. */
FST_API fst_value fst_graph_batchnorm2d(fst_graph *g, fst_value x, const char *name, double eps, double momentum);

/* A linear layer with the weight W / sigma, sigma = u . (W v): Miyato et al., Spectral normalization for generative
 * adversarial networks, ICLR 2018. Parameters NAME.weight_orig (out, in), NAME.bias (out); buffers NAME.weight_u (out),
 * NAME.weight_v (in). A pass in training (not frozen) takes one power iteration first: v = W^T u / |.|, u = W v / |.|;
 * before the first, sigma means little. Gradients take u and v as constants. */
FST_API fst_value fst_graph_spectral_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias);
/* softmax(q k^T / sqrt(d)) v of Vaswani et al. 2017 for each head, d = width / heads. q (queries, width), k (tokens,
 * width), v (tokens, value width) -> (queries, value width); head h owns columns h d ... (h+1) d - 1. */
FST_API fst_value fst_graph_attention(fst_graph *g, fst_value q, fst_value k, fst_value v, int64_t heads);
typedef struct fst_cross_attention {
    int64_t heads, width; /* width: of all heads together */
    bool bias;            /* of the four projections */
    double dropout, eps;  /* dropout: of what attention adds; eps: of the layer norm */
} fst_cross_attention;
/* LN(q + Dropout(W_o attention(W_q q, W_k context, W_v context))): q (queries, dq), context (tokens, dk) ->
 * (queries, dq). Parameters NAME.q|k|v|out.weight (and .bias), NAME.norm.weight, NAME.norm.bias. */
FST_API fst_value fst_graph_cross_attention(fst_graph *g, fst_value q, fst_value context, const char *name,
                                            const fst_cross_attention *o);

/*
 * Complex values. They begin with fst_graph_complex_from_parts; relu, max and average pooling, flatten, reshape, add
 * and concat then act on real and imaginary parts alike, other ops refuse them. A graph's output is real.
 */
FST_API fst_value fst_graph_complex_from_parts(fst_graph *g, fst_value x); /* real (2, ...) -> complex (...) */
FST_API fst_value fst_graph_complex_to_parts(fst_graph *g, fst_value x);   /* and back: parts first */
FST_API fst_value fst_graph_magnitude(fst_graph *g, fst_value x);          /* |z|, real; gradient 0 at 0 */
/* (a + ib)(re + i im) with two real layers of equal shape, each with a bias of its own if any:
 * re = r(re) - i(im), im = r(im) + i(re). Parameters NAME.conv_r.weight (out, in, kh, kw), NAME.conv_r.bias (out),
 * NAME.conv_i.weight, NAME.conv_i.bias; no groups. Trabelsi et al., Deep complex networks, ICLR 2018. */
FST_API fst_value fst_graph_complex_conv2d(fst_graph *g, fst_value x, const char *name, const fst_conv2d *o);
/* The same with NAME.fc_r.weight (out, in), NAME.fc_r.bias (out), NAME.fc_i.weight, NAME.fc_i.bias. */
FST_API fst_value fst_graph_complex_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias);
/* Whitens real and imaginary part together by the inverse square root of their 2x2 covariance over batch and positions,
 * then w = G w + beta (Trabelsi et al. 2018). Parameters NAME.weight (C, 3): G's rr, ii, ri; NAME.bias (C, 2): re, im.
 * Buffers NAME.running_mean (C, 2), NAME.running_covar (C, 3): rr, ii, ri, unbiased and without eps; counter
 * NAME.num_batches_tracked. The diagonals start at sqrt(2). */
FST_API fst_value fst_graph_complex_batchnorm(fst_graph *g, fst_value x, const char *name, double eps, double momentum);

typedef struct fst_time_freq_attention {
    int64_t reduction;                /* the gate's hidden layer has channels / reduction units */
    double floor, ceiling, phase_eps; /* of magnitudes; added to both parts before the phase is taken */
} fst_time_freq_attention;
/*
 * Gates the magnitude m = |z| + floor of complex (C, H, W), first by channel, m *= sigmoid(W2 relu(W1 mean_hw m)), then
 * by position, m *= sigmoid(conv7x7([mean_c m, max_c m])), clamps it to [floor, ceiling] and puts the phase back:
 * m exp(i atan2(im + phase_eps, re + phase_eps)). Parameters NAME.fc1.weight (C / reduction, C), NAME.fc2.weight
 * (C, C / reduction), NAME.conv.weight (1, 2, 7, 7). After Woo et al., CBAM, ECCV 2018.
 */
FST_API fst_value fst_graph_time_freq_attention(fst_graph *g, fst_value x, const char *name,
                                                const fst_time_freq_attention *o);

/* Names the output and closes the graph. */
FST_MUST FST_API fst_status fst_graph_finish(fst_graph *g, fst_value output, fst_error *err);

/*
 * Taps: values inside a network that a loss looks at beside its output (FitNets, attention transfer). A tapped graph's
 * output is one row a sample: first the network's own output (the head), then every tapped value, flattened. Plans,
 * backends and precisions treat it as any other output; a gradient at a tapped place is added to what comes from above.
 *
 *     fst_graph_copy(&tapped, g, &logits, err);
 *     fst_value map = fst_graph_feature(tapped, "layer2");
 *     fst_graph_finish_tapped(tapped, logits, &map, 1, err);
 */
enum { FST_MAX_TAPS = 8 };
/* An unfinished copy of a finished graph, to add to. Values of g name the same values in it; *output is g's output.
 * Parameters, buffers and counters of g come first in it, at the same places. */
FST_MUST FST_API fst_status fst_graph_copy(fst_graph **out, const fst_graph *g, fst_value *output, fst_error *err);
/*
 * What the rest of the network reads of a layer: the output of the last layer named `name` or "name....", after the
 * batch norm, addition and ReLU that follow it alone. For a ResNet "layer1" is what PyTorch's module of that name
 * returns. -1: there is no such layer.
 */
FST_API fst_value fst_graph_feature(const fst_graph *g, const char *name);
FST_API fst_shape fst_graph_value_shape(const fst_graph *g, fst_value v); /* of one sample; rank 0: no such value */
/* The features that the network's last layer decides from: what that layer reads, before any dropout. -1: the network
 * does not end in one linear layer over flat samples, or that layer reads the input itself. */
FST_API fst_value fst_graph_last_features(const fst_graph *g);
/* Closes a graph whose taps are 1 to FST_MAX_TAPS real values; the output must be flat. */
FST_MUST FST_API fst_status fst_graph_finish_tapped(fst_graph *g, fst_value output, const fst_value *taps, int count,
                                                    fst_error *err);
typedef struct fst_tap {
    fst_shape shape;
    size_t at, count; /* its floats in a row of the output */
} fst_tap;
FST_API size_t fst_graph_taps(const fst_graph *g);
FST_API fst_tap fst_graph_tap(const fst_graph *g, size_t i);
FST_API size_t fst_graph_head(const fst_graph *g); /* floats of a row that are the network's own output */

typedef struct fst_param_info {
    const char *name; /* PyTorch's dotted name; lives as long as the graph */
    fst_shape shape;
    size_t offset, count; /* place in the contiguous span */
} fst_param_info;
FST_API size_t fst_graph_params(const fst_graph *g); /* number of parameter tensors */
FST_API fst_param_info fst_graph_param(const fst_graph *g, size_t i);
FST_API size_t fst_graph_param_count(const fst_graph *g); /* floats in the parameter span */
FST_API size_t fst_graph_buffers(const fst_graph *g);     /* float buffers (running statistics) */
FST_API fst_param_info fst_graph_buffer(const fst_graph *g, size_t i);
FST_API size_t fst_graph_buffer_count(const fst_graph *g);
/* Of the norm that buffer i is a running statistic of: running = (1 - momentum) running + momentum batch. 0: it is
 * none. */
FST_API double fst_graph_buffer_momentum(const fst_graph *g, size_t i);
FST_API size_t fst_graph_counters(const fst_graph *g); /* int64 counters */
FST_API const char *fst_graph_counter(const fst_graph *g, size_t i);
FST_API fst_shape fst_graph_input_shape(const fst_graph *g); /* of one sample; of the first input */
FST_API size_t fst_graph_inputs(const fst_graph *g);
FST_API fst_shape fst_graph_input_shape_at(const fst_graph *g, size_t i);
FST_API fst_shape fst_graph_output_shape(const fst_graph *g); /* of one sample */

typedef struct fst_layer_info {
    const char *op, *name; /* name "" for layers without parameters */
    fst_shape out;
    size_t params;
    double flops; /* forward, one sample, a multiply-add as two */
} fst_layer_info;
FST_API size_t fst_graph_layers(const fst_graph *g);
FST_API fst_layer_info fst_graph_layer(const fst_graph *g, size_t i);
FST_API double fst_graph_flops(const fst_graph *g);

/* All that the graph says of one value and the op that makes it, for who writes a graph down in another form or
 * compares it with one. What an op does not have is 0. */
enum { FST_MAX_NODE_INPUTS = 4 };
typedef struct fst_node_info {
    const char *op, *name; /* as in fst_layer_info */
    fst_value input[FST_MAX_NODE_INPUTS];
    int inputs; /* 0: an input of the graph */
    fst_shape out;
    bool complex;                                      /* the value; its shape is that of one part */
    size_t first_param, params, first_buffer, buffers; /* of fst_graph_param, fst_graph_buffer */
    int counter;                                       /* of fst_graph_counter; -1: none */
    int64_t kernel[2], stride[2], padding[2];          /* convolutions and pooling: height, width */
    int64_t groups;                                    /* conv2d, groupnorm */
    bool bias;                                         /* convolutions, linear layers */
    bool count_padding;                                /* avgpool2d */
    double eps, momentum;                              /* norms */
    fst_time_freq_attention attention;
} fst_node_info;
/* v: a value of g. Values are numbered from 0 in the order of the layers, and read only values before them. */
FST_API fst_node_info fst_graph_node(const fst_graph *g, fst_value v);
FST_API fst_value fst_graph_output(const fst_graph *g); /* of a finished graph */

/* ---- state: what a model has learnt -------------------------------------------------------- */

typedef struct fst_state {
    float *params, *buffers;
    int64_t *counters;
    size_t param_count, buffer_count, counter_count;
} fst_state;
/* Zeroed parameters; running means 0, running variances and a spectral norm's buffers 1, counters 0. */
FST_MUST FST_API fst_status fst_state_init(fst_state *s, const fst_graph *g, fst_error *err);
FST_API void fst_state_release(fst_state *s);
/* PyTorch's default initialisation (uniform, bound 1/sqrt(fan_in); scale 1, shift 0; unit vectors for a spectral norm's
 * buffers), one stream (seed, "init." NAME, 0) a tensor. */
FST_API void fst_state_randomise(fst_state *s, const fst_graph *g, uint64_t seed);
FST_API void fst_state_copy(fst_state *dst, const fst_state *src); /* same graph */

/* What a batchnorm2d or complex_batchnorm does to a channel in inference: bias + a (x - mean); of complex values
 * a is the 2x2 matrix (rr, ri, ir, ii), with real part first in mean and bias. Of real ones only a[0], mean[0], bias[0]
 * count. */
typedef struct fst_norm_affine {
    double a[4], mean[2], bias[2];
} fst_norm_affine;
/* channel: below the first dimension of v's shape; v: the value of such a norm. */
FST_API fst_norm_affine fst_graph_norm_affine(const fst_graph *g, const fst_state *s, fst_value v, int64_t channel);

/* ---- int8 ------------------------------------------------------------------------------------ */

/*
 * A network for inference whose convolutions and linear layers compute with whole numbers of 8 bits:
 *
 *     q = round(x / scale), -127 ... 127, or 0 ... 255 where x cannot be below 0 (after a ReLU)
 *     y = (sum of weight q) (scale weight_scale) + bias
 *
 * scale is one number for the layer's input, weight_scale one for each output channel; sums are exact in 32 bits, and
 * the rest is float, each step rounded once: every backend gives the same bits. A batch norm after a convolution is in
 * its weights. Such a layer has the parameters NAME.weight (the whole numbers, as floats in a state), NAME.weight_scale
 * and NAME.bias (output channels). All other layers are as they were. Plans of it are for inference only.
 * Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR
 * 2018.
 */
/* Can layer v be int8? *why (may be NULL) says why not. */
FST_API bool fst_graph_int8_takes(const fst_graph *g, fst_value v, const char **why);
/* Is value v never below 0, whatever the input? */
FST_API bool fst_graph_is_positive(const fst_graph *g, fst_value v);
/* scale: for every value of g (fst_graph_layers) the scale of the input of the layer that makes it; 0: it stays f32.
 * FST_E_UNSUPPORTED names a layer that cannot be int8, and when there would be none. */
FST_MUST FST_API fst_status fst_graph_int8(fst_graph **out, const fst_graph *g, const float *scale, fst_error *err);
FST_API bool fst_graph_is_int8(const fst_graph *g); /* has it such layers? */
/* The scale of the input of layer v of such a graph, and whether it is 0 ... 255; 0: layer v is not int8. */
FST_API float fst_graph_int8_scale(const fst_graph *g, fst_value v, bool *is_unsigned);
/* to, a state of q, becomes that of s of g, which q was made of: folded and rounded, each channel by its largest
 * weight. */
FST_API void fst_state_int8(fst_state *to, const fst_graph *q, const fst_state *s, const fst_graph *g);

/*
 * The same network for training towards int8, with the same parameters, buffers and counters at the same places: the
 * inputs of layers that int8 has a form of are rounded, with a scale by the largest magnitude in the rows that are
 * computed together (a shard), and a trainer's steps go through weights that are rounded by channel. Gradients pass
 * through both as if nothing were rounded; the optimiser changes the weights as they are. f32 only. A runner of it
 * rounds values, not weights: evaluate with the network that it was made of, or with that in int8.
 */
FST_MUST FST_API fst_status fst_graph_int8_learn(fst_graph **out, const fst_graph *g, fst_error *err);

/* ---- fewer channels -------------------------------------------------------------------------- */

/*
 * Which channels of a network belong together: those that a layer makes and that pass through batch norms, depthwise
 * convolutions, activations, pooling and flattening, and those that an addition ties to them. All of a group are
 * removed together or none. Channels of the network's input and output and of what reads several channels at once
 * (attention, group norms, concatenations) are of no group: they stay.
 *
 * A channel of zero weights and shifts is zero wherever it is read, so that the network without it computes the same.
 */
typedef struct fst_channels fst_channels;
/* g, finished, f32 and without taps, must outlive it. */
FST_MUST FST_API fst_status fst_channels_new(fst_channels **out, const fst_graph *g, fst_error *err);
FST_API void fst_channels_free(fst_channels *c);
typedef struct fst_channel_group {
    const char *name; /* the first layer that makes them; lives as long as the graph */
    int64_t channels;
    int64_t least; /* that must stay: 1, or 2 where a depthwise convolution has to be told from any other */
} fst_channel_group;
FST_API size_t fst_channels_groups(const fst_channels *c); /* in the order of their first layers */
FST_API fst_channel_group fst_channels_group(const fst_channels *c, size_t k);
FST_API int fst_channels_of(const fst_channels *c, fst_value v); /* the group of value v's; -1: none */
/* The same network whose group k has widths[k] channels: least to all. FST_E_CONFIG names a width that is not possible.
 * Values, parameters and buffers have the numbers and names that they have in c's graph. */
FST_MUST FST_API fst_status fst_graph_narrow(fst_graph **out, const fst_channels *c, const int *widths, size_t count,
                                             fst_error *err);
typedef struct fst_channel_pick {
    const int *channel; /* ascending */
    int count;          /* the group's width */
} fst_channel_pick;
/* to, a state of narrow, becomes what s, of c's graph, has of the channels that are kept: one pick a group. */
FST_API void fst_state_narrow(fst_state *to, const fst_graph *narrow, const fst_state *s, const fst_channels *c,
                              const fst_channel_pick *keep);

/* ---- backends and plans -------------------------------------------------------------------- */

/* NULL-terminated; the first is what a NULL name stands for: "onednn" when built with it. */
FST_API const char *const *fst_backend_names(void);
/* "oneDNN 2.6.3, avx512_core" or so, for reports. */
FST_API const char *fst_backend_describe(const char *name);

/* bf16: activations and their gradients are kept as bf16, sums and parameters stay f32. */
typedef enum fst_precision { FST_PRECISION_F32, FST_PRECISION_BF16 } fst_precision;
/* Can the backend (NULL: the first) compute so on this machine? bf16 needs AVX-512 BF16 or AMX. */
FST_API bool fst_backend_supports(const char *name, fst_precision p);
/* Gives back what backends keep of plans that were freed, so that the next like them is made sooner. Any thread. */
FST_API void fst_backends_forget(void);
FST_API const char *fst_precision_name(fst_precision p); /* "f32", "bf16" */
FST_API bool fst_precision_parse(const char *name, fst_precision *out);

typedef struct fst_plan_options {
    int64_t batch;
    bool training;           /* backward passes, batch statistics, dropout */
    bool input_grad;         /* backward also computes the gradient of the input */
    bool frozen;             /* with training: batch norm uses its running statistics and dropout is off */
    bool measure;            /* only for fst_plan_arena_bytes: takes no memory for values and cannot run */
    int threads;             /* inside an op; 0 means 1 */
    const char *backend;     /* NULL: the first of fst_backend_names */
    fst_precision precision; /* an error when the backend does not support it */
    bool check_finite; /* training, for finding faults, slow: a pass fails with FST_E_NUMERIC at the first layer whose
                        * parameters, output or gradients hold a NaN or an infinity, and names it */
} fst_plan_options;

/* Which draws a training-mode pass makes: row r takes stream (seed, "dropout.NODE", step << 24 | row0 + r). */
typedef struct fst_draws {
    uint64_t seed, step;
    uint32_t row0;
} fst_draws;

typedef struct fst_plan fst_plan;
FST_MUST FST_API fst_status fst_plan_new(fst_plan **out, const fst_graph *g, const fst_plan_options *o, fst_error *err);
FST_API void fst_plan_free(fst_plan *p);
/* x: batch samples. Returns the output (batch x output elements) in *out, valid until the next pass.
 * In training mode running statistics and counters of `state` move on. */
FST_MUST FST_API fst_status fst_plan_forward(fst_plan *p, fst_state *state, const float *x, const fst_draws *draws,
                                             const float **out, fst_error *err);
/* The same for a graph of several inputs: x[i] is the batch of input i. */
FST_MUST FST_API fst_status fst_plan_forward_inputs(fst_plan *p, fst_state *state, const float *const *x,
                                                    const fst_draws *draws, const float **out, fst_error *err);
/* An inference plan brings weights into its kernels' layouts (and folds batch norms into them) at its first pass and
 * keeps them. This tells that the state has changed. Training plans keep nothing. */
FST_API void fst_plan_renew(fst_plan *p);
/* Where the caller puts the gradient of the output before fst_plan_backward. */
FST_API float *fst_plan_output_grad(fst_plan *p);
/* After a forward pass with the same state and x: writes all of grads (the parameter span). */
FST_MUST FST_API fst_status fst_plan_backward(fst_plan *p, const fst_state *state, float *grads, fst_error *err);
FST_API const float *fst_plan_input_grad(const fst_plan *p); /* NULL unless asked for */
FST_API const float *fst_plan_input_grad_at(const fst_plan *p, size_t input);
FST_API size_t fst_plan_arena_bytes(const fst_plan *p);

/* One kernel of a plan, for profiles. */
typedef struct fst_kernel_info {
    char name[96];
    const char *op; /* the kind of its layer: "conv2d"; "reorder" and "accumulate" stand between layers */
    bool compute;   /* false: moves data only (a reorder) */
    bool backward;
    bool prepare; /* runs only when an inference plan's state has changed */
} fst_kernel_info;
FST_API size_t fst_plan_kernels(const fst_plan *p);
FST_API fst_kernel_info fst_plan_kernel(const fst_plan *p, size_t i);
/* Runs kernel i alone on what the last passes left in memory. */
FST_MUST FST_API fst_status fst_plan_run_kernel(fst_plan *p, size_t i, fst_error *err);

/* ---- losses ------------------------------------------------------------------------------- */

/*
 * ce_weight CE(labels) + kd_weight D, mean over the batch; D says how the student is compared with its teacher.
 * T is the temperature, p = softmax(z/T), q the teacher's; targets take no gradient.
 */
typedef enum fst_kd_form {
    FST_KD_KL,                /* T^2 KL(q || p); soft: the teacher's probabilities at the temperature.
                               * Hinton, Vinyals, Dean 2015 */
    FST_KD_CROSS_ENTROPY,     /* the same with H(q, p) for KL: equal gradient, a floor above 0 */
    FST_KD_MSE_LOGITS,        /* soft: the teacher's logits; mean over batch and classes */
    FST_KD_MSE_PROBABILITIES, /* soft: the teacher's probabilities at temperature 1 */
    FST_KD_STANDARDISED,      /* as FST_KD_KL, but every row of logits, the student's and the teacher's, goes through
                               * (z - mean)/(1e-7 + std) first (std with n-1); soft: the teacher's logits.
                               * Sun et al., Logit standardization in knowledge distillation, CVPR 2024 */
    FST_KD_DKD,               /* T^2 (tckd_weight TCKD + nckd_weight NCKD): KL of (p_y, 1 - p_y), and KL over the
                               * classes that are not the label; soft: logits; needs labels.
                               * Zhao et al., Decoupled knowledge distillation, CVPR 2022 */
    FST_KD_NTD,               /* T^2 KL over the classes that are not the label; soft: logits; needs labels.
                               * Lee et al., Preservation of the global knowledge by not-true distillation in
                               * federated learning (FedNTD), NeurIPS 2022 */
    FST_KD_MAE_LOGITS /* soft: the teacher's logits; mean absolute error over batch and classes, gradient 0 where
                       * they are equal. The digest step of FedMD, Li and Wang 2019 */
} fst_kd_form;
FST_API const char *fst_kd_form_name(fst_kd_form f); /* "kl", "cross_entropy", "mse_logits", ... */
FST_API bool fst_kd_takes_logits(fst_kd_form f);     /* soft holds logits, not probabilities */
FST_API bool fst_kd_needs_labels(fst_kd_form f);

typedef struct fst_loss {
    double ce_weight, kd_weight, temperature;
    fst_kd_form kd_form;
    double label_smoothing;
    double tckd_weight, nckd_weight; /* FST_KD_DKD: the paper's alpha and beta; its values are 1 and 8 */
    /* FST_KD_KL, FST_KD_CROSS_ENTROPY: soft holds the teacher's logits and is softened here, at the same temperature as
     * the student. For temperatures that change in training. The other forms take what they always take. */
    bool soft_logits;
} fst_loss;
#define FST_LOSS_CROSS_ENTROPY ((fst_loss){.ce_weight = 1.0, .temperature = 1.0})

typedef struct fst_loss_input {
    const float *logits; /* rows x classes */
    size_t rows;
    int classes;
    const int32_t *labels; /* may be NULL with ce_weight 0 when the form needs none */
    const float *soft;     /* rows x classes; may be NULL with kd_weight 0 */
    const float *weight;   /* rows: weights of the cross entropy, NULL: 1 */
    double divisor;        /* what the sums are divided by: the batch size, or the sum of weights */
    /* classes: what each class's part of the cross entropy's target counts, NULL: 1. Without label smoothing a row
     * counts as much as its label; with it every class keeps its own weight, as in PyTorch's CrossEntropyLoss. */
    const double *class_weight;
} fst_loss_input;
/* grad (rows x classes) becomes the gradient of sum(row terms)/divisor. row_loss: rows values that are not yet
 * divided; ce and kd parts (rows each, unweighted by ce_weight, kd_weight; kd with T^2) may be NULL. */
FST_API void fst_loss_rows(const fst_loss *l, const fst_loss_input *in, float *grad, double *row_loss, double *row_ce,
                           double *row_kd);
/*
 * row: the derivative of each row's distillation part by the temperature, not yet weighted or divided. Only for
 * FST_KD_KL with soft_logits, where both softmaxes and the factor T^2 depend on it:
 *     d/dT T^2 KL(q || p) = 2 T KL - Cov_q(v, log q - log p) + E_q[z] - E_p[z],
 * z and v being the logits of student and teacher.
 */
FST_API void fst_loss_temperature_rows(const fst_loss *l, const fst_loss_input *in, double *row);
/* log softmax(z / T) of one row, finite for finite logits. */
FST_API void fst_log_softmax(const float *logits, int classes, double temperature, double *out);
/* softmax(z / T) of each row. */
FST_API void fst_softmax(const float *logits, size_t rows, int classes, double temperature, float *out);

/* ---- losses of feature maps ------------------------------------------------------------------ */

typedef enum fst_feature_form {
    FST_FEATURE_MSE, /* mean over batch and elements of (F_s - F_t)^2; of equal shape, which a learnt 1x1 convolution
                      * (the regressor) brings about. Romero et al., FitNets, ICLR 2015 */
    FST_FEATURE_ATTENTION /* mean over batch and positions of (Q_s - Q_t)^2, Q = a/|a|, a the mean over the channels of
                           * F^2; of equal height and width. Zagoruyko, Komodakis, Paying more attention to attention,
                           * ICLR 2017, as the authors' code has it */
} fst_feature_form;
FST_API const char *fst_feature_form_name(fst_feature_form f); /* "mse", "attention" */
typedef struct fst_feature_input {
    const float *map, *target;
    size_t stride, target_stride;  /* floats from one row to the next */
    fst_shape shape, target_shape; /* of one sample */
    size_t rows;
    double divisor;          /* what the sum over the rows is divided by: the batch size */
    const float *row_weight; /* rows: how much each counts, in the gradient and in `row`; NULL: 1 */
} fst_feature_input;
/* FST_E_MISMATCH when the shapes do not fit the form. */
FST_MUST FST_API fst_status fst_feature_check(fst_feature_form f, const fst_shape *shape, const fst_shape *target,
                                              fst_error *err);
/* Adds weight times the gradient to grad, which lies as map does; row: the rows' losses, not yet weighted or divided.
 */
FST_API void fst_feature_rows(fst_feature_form f, const fst_feature_input *in, double weight, float *grad, double *row);

/* ---- optimisers and schedules --------------------------------------------------------------- */

typedef enum fst_optim_kind { FST_OPTIM_SGD, FST_OPTIM_ADAM, FST_OPTIM_ADAMW } fst_optim_kind;
typedef struct fst_optim_spec {
    fst_optim_kind kind;
    double learning_rate, weight_decay;
    double momentum; /* sgd: m = g at the first step, then momentum m + g */
    bool nesterov;
    double beta1, beta2, eps; /* adam, adamw: 0 means 0.9, 0.999, 1e-8 */
    double clip_norm;         /* > 0: all gradients times min(1, clip_norm / (norm + 1e-6)) */
} fst_optim_spec;

typedef struct fst_optim {
    fst_optim_spec spec;
    size_t count;
    uint64_t steps;
    float *moment1, *moment2; /* count each; NULL when the rule has none */
} fst_optim;
FST_MUST FST_API fst_status fst_optim_init(fst_optim *o, const fst_optim_spec *spec, size_t count, fst_error *err);
FST_API void fst_optim_reset(fst_optim *o); /* as after init */
FST_API void fst_optim_release(fst_optim *o);

/* One pass over the span. The gradient is the sum of `parts` spans, added in their order; with prox_mu > 0
 * mu (w - anchor) is added (FedProx), then `shift`, a span of its own (SCAFFOLD's c - c_k); NULL: nothing. Clipping,
 * weight decay and moments come after both. pool may be NULL. Returns the gradient's norm before clipping, or -1 when
 * it was not computed (no clipping and !want_norm). */
typedef struct fst_optim_input {
    float *const *grads;
    size_t parts;
    double learning_rate;
    double prox_mu;
    const float *anchor;
    const float *shift;
    bool want_norm;
} fst_optim_input;
FST_API double fst_optim_step(fst_optim *o, float *params, const fst_optim_input *in, fst_pool *pool);

typedef enum fst_schedule_kind {
    FST_SCHEDULE_CONSTANT,
    FST_SCHEDULE_COSINE,       /* eta_min + (base - eta_min)(1 + cos(pi e / total))/2; Loshchilov, Hutter 2017 */
    FST_SCHEDULE_MULTISTEP,    /* times gamma from each milestone on */
    FST_SCHEDULE_STEP,         /* times gamma every step_size epochs */
    FST_SCHEDULE_WARMUP_COSINE /* base (e+1)/warmup, then the cosine over the rest down to eta_min */
} fst_schedule_kind;
#define FST_MAX_MILESTONES 32
typedef struct fst_schedule {
    fst_schedule_kind kind;
    double eta_min, gamma;
    int64_t total, warmup, step_size;
    int64_t milestones[FST_MAX_MILESTONES];
    int milestone_count;
} fst_schedule;
/* The rate during epoch e (the first is 0). */
FST_API double fst_schedule_rate(const fst_schedule *s, double base, int64_t epoch);

/* ---- trainer and runner ---------------------------------------------------------------------- */

/*
 * Training steps on several threads. A batch is cut into shards of a size that depends on model and batch alone; each
 * shard runs on one thread at a time with single-threaded kernels and has gradients of its own, which are added in the
 * order of the shards: the bits do not depend on the number of threads. Batch norm takes its statistics over the whole
 * batch: the shards meet at each, and their sums are added in the same order. Networks of many parameters keep their
 * gradients once: the shards meet in the backward pass, and add those of the layers that they have passed.
 */
/*
 * The first batch norm that sees one value a channel in a training batch of so many rows, by name; NULL when there is
 * none, as for more than one row. Such a batch has no variance (PyTorch refuses it): the norm's output is its bias
 * whatever the input, and its running statistics and their counter stay as they are. All other batch norms of the batch
 * learn as always. fst_loader_spec.drop_last leaves out a last batch of one sample.
 */
FST_API const char *fst_graph_single_value_norm(const fst_graph *g, size_t rows);
typedef struct fst_trainer_options {
    size_t batch_size;
    int threads;       /* 0: all CPUs */
    size_t shard_size; /* 0: by rule */
    const char *backend;
    fst_precision precision;
    bool check_finite; /* as in fst_plan_options; runners do not look at it */
    bool halves;       /* fst_trainer_forward and fst_trainer_finish will be used: every shard keeps its memory */
} fst_trainer_options;

/* A loss of a tapped graph's feature map. */
typedef struct fst_feature_loss {
    fst_feature_form form;
    double weight;
    size_t tap;
    const float *target; /* row r at target + r target_stride */
    size_t target_stride;
    fst_shape target_shape;
    const float *row_weight; /* of each row of the batch; 0: it has no target. NULL: 1 */
} fst_feature_loss;

typedef struct fst_step_input {
    size_t rows; /* 1 ... batch_size */
    const float *x;
    const int32_t *labels; /* NULL only with ce_weight 0; nothing is counted as correct then */
    const float *soft;     /* rows x classes or NULL */
    fst_loss loss;
    /* classes, none below 0: weights of the cross entropy by label, as PyTorch's CrossEntropyLoss(weight=...) takes
     * them: its part of the loss is sum(w_y ce)/sum(w_y) over the batch; the distillation part stays the mean over the
     * rows. In a batch of weights 0 the cross entropy is 0. NULL: all 1. */
    const double *class_weight;
    double learning_rate;
    double prox_mu;
    const float *anchor;
    const float *shift;               /* added to the gradient; NULL: nothing */
    uint64_t seed, step;              /* of the dropout streams */
    const fst_feature_loss *features; /* added to the loss; feature_count of them */
    size_t feature_count;
    bool want_temperature_grad; /* of FST_KD_KL with soft_logits */
} fst_step_input;

typedef struct fst_step_result {
    double loss_sum;         /* the batch's loss times its rows */
    size_t correct;          /* rows whose largest logit is the label's */
    double grad_norm;        /* -1 when not computed */
    double temperature_grad; /* of the batch's loss, when it was wanted */
} fst_step_result;

typedef struct fst_trainer fst_trainer;
FST_MUST FST_API fst_status fst_trainer_new(fst_trainer **out, const fst_graph *g, const fst_trainer_options *o,
                                            fst_error *err);
FST_API void fst_trainer_free(fst_trainer *t);
/* One step: forward, loss, backward, optimiser. FST_E_NUMERIC when the loss or a gradient is not finite. A step
 * that fails leaves state and optimiser as they were. */
FST_MUST FST_API fst_status fst_trainer_step(fst_trainer *t, fst_state *state, fst_optim *optim,
                                             const fst_step_input *in, fst_step_result *out, fst_error *err);
/*
 * The same step in two halves, for networks that learn from each other's answers in training: all take the first half,
 * and their logits (rows x head) make the others' targets. Both halves get the same rows, x, seed and step; what the
 * loss needs is read in the second. Between them the state stays as it is. The bits are those of fst_trainer_step.
 */
FST_MUST FST_API fst_status fst_trainer_forward(fst_trainer *t, fst_state *state, const fst_step_input *in,
                                                float *logits, fst_error *err);
FST_MUST FST_API fst_status fst_trainer_finish(fst_trainer *t, fst_optim *optim, const fst_step_input *in,
                                               fst_step_result *out, fst_error *err);
/* Between the halves: what tap `tap` of the graph holds, rows x its floats. */
FST_MUST FST_API fst_status fst_trainer_tap(const fst_trainer *t, size_t tap, float *out, fst_error *err);
FST_API int fst_trainer_threads(const fst_trainer *t);
FST_API size_t fst_trainer_shard(const fst_trainer *t); /* rows of a shard */
FST_API size_t fst_trainer_plans(const fst_trainer *t); /* plans of that many rows that it holds */
/* Calls visit for every kernel with its seconds a step, the kernel run alone on all threads: the median of five rounds
 * of round_seconds. Call it after a step, while that step's state is there. */
typedef void (*fst_kernel_visit)(void *ctx, const fst_kernel_info *info, double seconds);
FST_MUST FST_API fst_status fst_trainer_profile(fst_trainer *t, double round_seconds, fst_kernel_visit visit, void *ctx,
                                                fst_error *err);

/* Inference over any number of rows, shard by shard on several threads. Networks in int8 are f32 otherwise, whatever
 * the precision. */
typedef struct fst_runner fst_runner;
FST_MUST FST_API fst_status fst_runner_new(fst_runner **out, const fst_graph *g, const fst_trainer_options *o,
                                           fst_error *err);
FST_API void fst_runner_free(fst_runner *r);
FST_API const fst_graph *fst_runner_graph(const fst_runner *r);
/* Kernel times of a full batch of batch_size rows, as fst_trainer_profile has them; after a call of
 * fst_runner_logits, while its state is there. */
FST_MUST FST_API fst_status fst_runner_profile(fst_runner *r, double round_seconds, fst_kernel_visit visit, void *ctx,
                                               fst_error *err);
/* The caller promises not to change this state while the runner uses it: what is made from its weights is then made
 * once, not at every call. NULL ends the promise. */
FST_API void fst_runner_hold(fst_runner *r, const fst_state *state);
/* logits: rows x classes; of a tapped graph rows x its whole output. */
FST_MUST FST_API fst_status fst_runner_logits(fst_runner *r, const fst_state *state, const float *x, size_t rows,
                                              float *logits, fst_error *err);

FST_END_DECLS

#endif
