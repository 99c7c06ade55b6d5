/* The Link-11 teacher: ResNet-50 of complex layers over I and Q, whose 1024 samples are seen as a 32 x 32 picture, with
 * an attention on magnitudes after each stage. Names are torchvision's, with conv_r and conv_i (fc_r, fc_i) inside. */
#include <stdio.h>

#include "zoo.h"

enum { STAGES = 4 };
static const double eps = 1e-5, momentum = 0.1;
static const fst_time_freq_attention attention = {.reduction = 16, .floor = 1e-8, .ceiling = 10, .phase_eps = 1e-8};

/* Channels of `base` at this width, in multiples of the attention's reduction. */
static int64_t scaled(const fst_model_config *c, int64_t base)
{
    int64_t wide = (int64_t)((double)base * (c->width > 0 ? c->width : 1) / (double)attention.reduction + 0.5);
    return (wide < 1 ? 1 : wide) * attention.reduction;
}

static fst_value conv_norm(fst_graph *g, fst_value x, const char *block, const char *conv, const char *norm,
                           int64_t out, int64_t kernel, int64_t stride)
{
    char conv_name[64], norm_name[64];
    fst_conv2d c = {.out_channels = out,
                    .kernel = {kernel, kernel},
                    .stride = {stride, stride},
                    .padding = {kernel / 2, kernel / 2}};
    snprintf(conv_name, sizeof conv_name, "%s%s", block, conv);
    snprintf(norm_name, sizeof norm_name, "%s%s", block, norm);
    return fst_graph_complex_batchnorm(g, fst_graph_complex_conv2d(g, x, conv_name, &c), norm_name, eps, momentum);
}

static fst_value bottleneck(fst_graph *g, fst_value x, const char *block, int64_t in, int64_t planes, int64_t stride)
{
    int64_t out = 4 * planes;
    fst_value y = fst_graph_relu(g, conv_norm(g, x, block, "conv1", "bn1", planes, 1, 1));
    y = fst_graph_relu(g, conv_norm(g, y, block, "conv2", "bn2", planes, 3, stride));
    y = conv_norm(g, y, block, "conv3", "bn3", out, 1, 1);
    if (stride != 1 || in != out)
        x = conv_norm(g, x, block, "downsample.0", "downsample.1", out, 1, stride);
    return fst_graph_relu(g, fst_graph_add(g, y, x));
}

static fst_value complex_resnet50(fst_graph *g, fst_value x, const fst_model_config *c)
{
    static const int counts[STAGES] = {3, 4, 6, 3};
    static const fst_shape picture = {4, {2, 1, 32, 32}};
    char name[32];
    int64_t in = scaled(c, 64);
    if (c->input.rank == 2) /* I and Q, 1024 samples each */
        x = fst_graph_reshape(g, x, &picture);
    x = fst_graph_complex_from_parts(g, x);
    x = fst_graph_relu(g, conv_norm(g, x, "", "conv1", "bn1", in, 7, 2));
    x = fst_graph_maxpool2d(g, x, 3, 2, 1);
    for (int k = 0; k < STAGES; k++) {
        int64_t planes = scaled(c, 64) << k;
        for (int i = 0; i < counts[k]; i++) {
            snprintf(name, sizeof name, "layer%d.%d.", k + 1, i);
            x = bottleneck(g, x, name, in, planes, k && !i ? 2 : 1);
            in = 4 * planes;
        }
        snprintf(name, sizeof name, "attn%d", k + 1);
        x = fst_graph_time_freq_attention(g, x, name, &attention);
    }
    x = fst_graph_complex_linear(g, fst_graph_global_avgpool(g, x), "fc1", c->hidden ? c->hidden : 1000, true);
    return fst_graph_magnitude(g, fst_graph_complex_linear(g, x, "fc2", c->classes, true));
}

const struct fst_zoo_entry fst__zoo_complex[] = {
    {{"complex_resnet50_link11_with_attention",
      "complex ResNet-50 for 1024 I/Q samples, with attention",
      {2, {2, 1024}},
      7,
      0,
      0},
     complex_resnet50},
    {{0}, NULL},
};
