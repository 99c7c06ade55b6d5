/* MobileNetV2 (Sandler et al. 2018): inverted residuals with linear bottlenecks. Names are torchvision's. */
#include <stdio.h>

#include "zoo.h"

struct unit { /* one of torchvision's Sequentials: its name and the number of its next child */
    fst_graph *g;
    char name[48];
    int child;
};

static fst_value conv(struct unit *u, fst_value x, const char *inside, int64_t out, int64_t kernel, int64_t stride,
                      int64_t groups)
{
    char name[80];
    fst_conv2d c = {.out_channels = out,
                    .kernel = {kernel, kernel},
                    .stride = {stride, stride},
                    .padding = {kernel / 2, kernel / 2},
                    .groups = groups};
    snprintf(name, sizeof name, "%s.%d%s", u->name, u->child, inside);
    return fst_graph_conv2d(u->g, x, name, &c);
}

/* Convolution, batch norm and ReLU6 as children 0 and 1 of child u->child (`nested`), or of the unit itself. */
static fst_value conv_norm_relu6(struct unit *u, fst_value x, bool nested, int64_t out, int64_t kernel, int64_t stride,
                                 int64_t groups)
{
    char norm[80];
    if (nested) {
        x = conv(u, x, ".0", out, kernel, stride, groups);
        snprintf(norm, sizeof norm, "%s.%d.1", u->name, u->child);
    } else {
        x = conv(u, x, "", out, kernel, stride, groups);
        snprintf(norm, sizeof norm, "%s.%d", u->name, u->child + 1);
    }
    u->child++;
    return fst_graph_relu6(u->g, fst_graph_batchnorm2d(u->g, x, norm, 1e-5, 0.1));
}

static fst_value inverted_residual(fst_graph *g, fst_value x, int number, int64_t in, int64_t out, int64_t stride,
                                   int64_t expand)
{
    char norm[80];
    struct unit u = {.g = g};
    fst_value y = x;
    snprintf(u.name, sizeof u.name, "features.%d.conv", number);
    if (expand != 1)
        y = conv_norm_relu6(&u, y, true, in * expand, 1, 1, 1);
    y = conv_norm_relu6(&u, y, true, in * expand, 3, stride, in * expand);
    y = conv(&u, y, "", out, 1, 1, 1);
    snprintf(norm, sizeof norm, "%s.%d", u.name, u.child + 1);
    y = fst_graph_batchnorm2d(g, y, norm, 1e-5, 0.1);
    return stride == 1 && in == out ? fst_graph_add(g, y, x) : y;
}

/* Channels times the width, as a multiple of 8, never a tenth less (torchvision's rule). */
static int64_t widened(int64_t channels, double width)
{
    double want = (double)channels * (width > 0 ? width : 1);
    int64_t out = (int64_t)(want + 4) / 8 * 8;
    out = out < 8 ? 8 : out;
    return (double)out < 0.9 * want ? out + 8 : out;
}

static fst_value mobilenet_v2(fst_graph *g, fst_value x, const fst_model_config *c)
{
    static const struct {
        int expand, out, count, stride;
    } plan[FST_STAGES] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                          {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    int number = 1;
    int64_t in = widened(32, c->width), last = widened(1280, c->width > 1 ? c->width : 1);
    struct unit stem = {.g = g, .name = "features.0"}, top = {.g = g};
    x = conv_norm_relu6(&stem, x, false, in, 3, c->stem_stride ? c->stem_stride : 2, 1);
    for (int k = 0; k < FST_STAGES; k++)
        for (int i = 0; i < plan[k].count; i++, number++) {
            int64_t out = widened(plan[k].out, c->width);
            int64_t stride = c->stage_strides[0] ? c->stage_strides[k] : plan[k].stride;
            x = inverted_residual(g, x, number, in, out, i ? 1 : stride, plan[k].expand);
            in = out;
        }
    snprintf(top.name, sizeof top.name, "features.%d", number);
    x = conv_norm_relu6(&top, x, false, last, 1, 1, 1);
    x = fst_graph_dropout(g, fst_graph_global_avgpool(g, x), c->dropout1);
    return fst_graph_linear(g, x, "classifier.1", c->classes, true);
}

const struct fst_zoo_entry fst__zoo_mobilenet[] = {
    {{"mobilenet_v2", "MobileNetV2; options width, stem_stride, stage_strides", {3, {3, 224, 224}}, 1000, 0.2, 0},
     mobilenet_v2},
    {{0}, NULL},
};
