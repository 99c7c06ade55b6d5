/* Residual networks (He et al. 2016): the CIFAR family of depth 6n+2, ResNet-50, and the Link-11 student that
 * sees I and Q of 1024 samples as two 32 x 32 pictures. Names are torchvision's. */
#include <stdio.h>

#include "zoo.h"

static const double eps = 1e-5, momentum = 0.1;

static fst_value conv_norm(fst_graph *g, fst_value x, const char *conv, const char *norm, int64_t out, int64_t kernel,
                           int64_t stride)
{
    fst_conv2d c = {.out_channels = out,
                    .kernel = {kernel, kernel},
                    .stride = {stride, stride},
                    .padding = {kernel / 2, kernel / 2},
                    .groups = 1};
    return fst_graph_batchnorm2d(g, fst_graph_conv2d(g, x, conv, &c), norm, eps, momentum);
}

/* What a block adds to its branch: its input, or that through a 1x1 convolution where the shape changes. */
static fst_value shortcut(fst_graph *g, fst_value x, const char *block, int64_t in, int64_t out, int64_t stride)
{
    char conv[64], norm[64];
    if (stride == 1 && in == out)
        return x;
    snprintf(conv, sizeof conv, "%s.downsample.0", block);
    snprintf(norm, sizeof norm, "%s.downsample.1", block);
    return conv_norm(g, x, conv, norm, out, 1, stride);
}

/* One of the convolutions of a block, number k. */
static fst_value branch(fst_graph *g, fst_value x, const char *block, int k, int64_t out, int64_t kernel,
                        int64_t stride)
{
    char conv[64], norm[64];
    snprintf(conv, sizeof conv, "%s.conv%d", block, k);
    snprintf(norm, sizeof norm, "%s.bn%d", block, k);
    return conv_norm(g, x, conv, norm, out, kernel, stride);
}

static fst_value basic_block(fst_graph *g, fst_value x, const char *block, int64_t in, int64_t out, int64_t stride)
{
    fst_value y = fst_graph_relu(g, branch(g, x, block, 1, out, 3, stride));
    y = branch(g, y, block, 2, out, 3, 1);
    return fst_graph_relu(g, fst_graph_add(g, y, shortcut(g, x, block, in, out, stride)));
}

static fst_value bottleneck(fst_graph *g, fst_value x, const char *block, int64_t in, int64_t planes, int64_t stride)
{
    fst_value y = fst_graph_relu(g, branch(g, x, block, 1, planes, 1, 1));
    y = fst_graph_relu(g, branch(g, y, block, 2, planes, 3, stride));
    y = branch(g, y, block, 3, planes * 4, 1, 1);
    return fst_graph_relu(g, fst_graph_add(g, y, shortcut(g, x, block, in, planes * 4, stride)));
}

static fst_value cifar_resnet(fst_graph *g, fst_value x, int depth, int classes)
{
    char block[32];
    int64_t in = 16;
    x = fst_graph_relu(g, conv_norm(g, x, "conv1", "bn1", in, 3, 1));
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < (depth - 2) / 6; i++) {
            int64_t out = 16 << k;
            snprintf(block, sizeof block, "layer%d.%d", k + 1, i);
            x = basic_block(g, x, block, in, out, k && !i ? 2 : 1);
            in = out;
        }
    return fst_graph_linear(g, fst_graph_global_avgpool(g, x), "fc", classes, true);
}

static fst_value resnet8(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return cifar_resnet(g, x, 8, c->classes);
}

static fst_value resnet20(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return cifar_resnet(g, x, 20, c->classes);
}

static fst_value resnet56(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return cifar_resnet(g, x, 56, c->classes);
}

/* The body after the stem: stages of bottlenecks, then the mean over the picture. */
static fst_value bottleneck_stages(fst_graph *g, fst_value x, int64_t planes, const int *counts, int stages)
{
    char block[32];
    int64_t in = planes;
    for (int k = 0; k < stages; k++)
        for (int i = 0; i < counts[k]; i++) {
            snprintf(block, sizeof block, "layer%d.%d", k + 1, i);
            x = bottleneck(g, x, block, in, planes << k, k && !i ? 2 : 1);
            in = 4 * planes << k;
        }
    return fst_graph_global_avgpool(g, x);
}

static fst_value imagenet_stem(fst_graph *g, fst_value x, int64_t planes)
{
    x = fst_graph_relu(g, conv_norm(g, x, "conv1", "bn1", planes, 7, 2));
    return fst_graph_maxpool2d(g, x, 3, 2, 1);
}

static fst_value resnet50(fst_graph *g, fst_value x, const fst_model_config *c)
{
    static const int counts[] = {3, 4, 6, 3};
    x = c->stem == FST_STEM_CIFAR ? fst_graph_relu(g, conv_norm(g, x, "conv1", "bn1", 64, 3, 1))
                                  : imagenet_stem(g, x, 64);
    return fst_graph_linear(g, bottleneck_stages(g, x, 64, counts, 4), "fc", c->classes, true);
}

static fst_value real_resnet20_link11_h(fst_graph *g, fst_value x, const fst_model_config *c)
{
    static const int counts[] = {2, 2, 2};
    static const fst_shape picture = {3, {2, 32, 32}};
    int64_t planes = c->width > 0 ? 8 * (int64_t)(8 * c->width + 0.5) : 64; /* eights, which kernels like */
    planes = planes < 8 ? 8 : planes;
    if (c->input.rank == 2) /* I and Q, 1024 samples each */
        x = fst_graph_reshape(g, x, &picture);
    x = bottleneck_stages(g, imagenet_stem(g, x, planes), planes, counts, 3);
    x = fst_graph_linear(g, x, "fc1", c->hidden ? c->hidden : 1000, true);
    return fst_graph_linear(g, x, "fc2", c->classes, true);
}

const struct fst_zoo_entry fst__zoo_resnet[] = {
    {{"resnet8", "CIFAR ResNet, 8 layers, for images of any size", {3, {3, 32, 32}}, 10, 0, 0}, resnet8},
    {{"resnet20", "CIFAR ResNet, 20 layers, for images of any size", {3, {3, 32, 32}}, 10, 0, 0}, resnet20},
    {{"resnet56", "CIFAR ResNet, 56 layers, for images of any size", {3, {3, 32, 32}}, 10, 0, 0}, resnet56},
    {{"resnet50", "ResNet-50; option stem=cifar for small images", {3, {3, 224, 224}}, 1000, 0, 0}, resnet50},
    {{"real_resnet20_link11_h", "ResNet for 1024 I/Q samples; options width, hidden", {2, {2, 1024}}, 7, 0, 0},
     real_resnet20_link11_h},
    {{0}, NULL},
};
