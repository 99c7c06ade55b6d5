/*
 * A model as an ONNX file for inference: a node a layer, parameters under their names. Dropout is the identity and left
 * out; nothing else is, and no value changes unless batch norms are folded.
 */
#include <stdio.h>
#include <string.h>

#include "onnx_export.h"
#include "onnx.h"

typedef void (*write_layer)(struct fst__onnx_export *x, const struct fst__onnx_layer *l);
static const char input_name[] = "input", output_name[] = "logits";

const float *fst__onnx_param(const struct fst__onnx_export *x, const fst_node_info *n, size_t k, fst_param_info *info)
{
    *info = fst_graph_param(x->m->graph, n->first_param + k);
    return x->m->state.params + info->offset;
}

const char *fst__onnx_weight(struct fst__onnx_export *x, const fst_node_info *n, size_t k)
{
    fst_param_info p;
    const float *v = fst__onnx_param(x, n, k, &p);
    return fst__onnx_f32(&x->w, p.name, v, &p.shape);
}

static const char *buffer(struct fst__onnx_export *x, const fst_node_info *n, size_t k)
{
    fst_param_info p = fst_graph_buffer(x->m->graph, n->first_buffer + k);
    return fst__onnx_f32(&x->w, p.name, x->m->state.buffers + p.offset, &p.shape);
}

void fst__onnx_window(struct fst__onnx_export *x, Onnx__Node *node, const fst_node_info *n)
{
    int64_t pads[4] = {n->padding[0], n->padding[1], n->padding[0], n->padding[1]};
    fst__onnx_ints(&x->w, node, "kernel_shape", n->kernel, 2);
    fst__onnx_ints(&x->w, node, "strides", n->stride, 2);
    fst__onnx_ints(&x->w, node, "pads", pads, 4);
}

/* ---- layers ---------------------------------------------------------------------------------------------- */

/* An op without parameters, on each part of its values. */
static void plain(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op)
{
    fst__onnx_node(&x->w, op, l->in.im ? fst__onnx_text(&x->w, "%s.re", l->name) : l->name, &l->in.re, 1, l->out.re);
    if (l->in.im)
        fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s.im", l->name), &l->in.im, 1, l->out.im);
}

static void conv(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const char *in[3] = {l->in.re, fst__onnx_weight(x, &l->info, 0), NULL};
    if (l->info.bias)
        in[2] = fst__onnx_weight(x, &l->info, 1);
    Onnx__Node *n = fst__onnx_node(&x->w, "Conv", l->name, in, l->info.bias ? 3 : 2, l->out.re);
    fst__onnx_window(x, n, &l->info);
    fst__onnx_int(&x->w, n, "group", l->info.groups);
}

static void linear(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const char *in[3] = {l->in.re, fst__onnx_weight(x, &l->info, 0), NULL};
    if (l->info.bias)
        in[2] = fst__onnx_weight(x, &l->info, 1);
    Onnx__Node *n = fst__onnx_node(&x->w, "Gemm", l->name, in, l->info.bias ? 3 : 2, l->out.re);
    fst__onnx_int(&x->w, n, "transB", 1);
}

static void norm(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const char *in[5] = {l->in.re, fst__onnx_weight(x, &l->info, 0), fst__onnx_weight(x, &l->info, 1),
                         buffer(x, &l->info, 0), buffer(x, &l->info, 1)};
    Onnx__Node *n = fst__onnx_node(&x->w, "BatchNormalization", l->name, in, 5, l->out.re);
    fst__onnx_float(&x->w, n, "epsilon", (float)l->info.eps);
    fst__onnx_float(&x->w, n, "momentum", (float)(1 - l->info.momentum)); /* of the old value, there */
}

static void relu(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    plain(x, l, "Relu");
}

static void relu6(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const char *in[3] = {l->in.re, fst__onnx_scalar(&x->w, fst__onnx_text(&x->w, "%s.min", l->name), 0),
                         fst__onnx_scalar(&x->w, fst__onnx_text(&x->w, "%s.max", l->name), 6)};
    fst__onnx_node(&x->w, "Clip", l->name, in, 3, l->out.re);
}

static void add(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    fst__onnx_node(&x->w, "Add", l->in.im ? fst__onnx_text(&x->w, "%s.re", l->name) : l->name,
                   (const char *const[]){l->in.re, l->in2.re}, 2, l->out.re);
    if (l->in.im)
        fst__onnx_node(&x->w, "Add", fst__onnx_text(&x->w, "%s.im", l->name),
                       (const char *const[]){l->in.im, l->in2.im}, 2, l->out.im);
}

static void pool_part(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op, const char *in,
                      const char *out, const char *part)
{
    Onnx__Node *n = fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s%s", l->name, part), &in, 1, out);
    fst__onnx_window(x, n, &l->info);
    if (!strcmp(op, "AveragePool"))
        fst__onnx_int(&x->w, n, "count_include_pad", l->info.count_padding);
}

static void pool(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op)
{
    pool_part(x, l, op, l->in.re, l->out.re, l->in.im ? ".re" : "");
    if (l->in.im)
        pool_part(x, l, op, l->in.im, l->out.im, ".im");
}

static void max_pool(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    pool(x, l, "MaxPool");
}

static void average_pool(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const fst_node_info *n = &l->info;
    bool whole = n->kernel[0] == l->from.dim[1] && n->kernel[1] == l->from.dim[2] && !n->padding[0] && !n->padding[1];
    if (whole)
        plain(x, l, "GlobalAveragePool");
    else
        pool(x, l, "AveragePool");
}

static void reshape(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    int64_t dims[1 + FST_MAX_RANK] = {0}; /* 0: the batch's size stays */
    if (l->info.out.rank == 1) {
        plain(x, l, "Flatten"); /* after the first dimension */
        return;
    }
    memcpy(dims + 1, l->info.out.dim, (size_t)l->info.out.rank * sizeof *dims);
    const char *shape =
        fst__onnx_i64(&x->w, fst__onnx_text(&x->w, "%s.shape", l->name), dims, 1 + (size_t)l->info.out.rank);
    fst__onnx_node(&x->w, "Reshape", l->name, (const char *const[]){l->in.re, shape}, 2, l->out.re);
    if (l->in.im)
        fst__onnx_node(&x->w, "Reshape", fst__onnx_text(&x->w, "%s.im", l->name),
                       (const char *const[]){l->in.im, shape}, 2, l->out.im);
}

static const struct {
    const char *op;
    write_layer write;
} writers[] = {
    {"conv2d", conv},
    {"linear", linear},
    {"batchnorm2d", norm},
    {"relu", relu},
    {"relu6", relu6},
    {"add", add},
    {"maxpool2d", max_pool},
    {"avgpool2d", average_pool},
    {"flatten", reshape},
    {"complex_from_parts", fst__onnx_complex_from_parts},
    {"complex_conv2d", fst__onnx_complex_conv},
    {"complex_linear", fst__onnx_complex_linear},
    {"complex_batchnorm", fst__onnx_complex_norm},
    {"magnitude", fst__onnx_magnitude},
    {"time_freq_attention", fst__onnx_attention},
};

/* ---- folding ------------------------------------------------------------------------------------------------- */

/* The convolution that a batch norm follows alone and can be folded into; -1 where there is none. */
static fst_value folded_conv(const fst_graph *g, fst_value norm_value)
{
    fst_node_info n = fst_graph_node(g, norm_value);
    fst_value conv_value = n.input[0];
    int readers = 0;
    if (strcmp(n.op, "batchnorm2d") || strcmp(fst_graph_node(g, conv_value).op, "conv2d"))
        return -1;
    for (fst_value v = conv_value + 1; v < (fst_value)fst_graph_layers(g); v++) {
        fst_node_info r = fst_graph_node(g, v);
        for (int i = 0; i < r.inputs; i++)
            readers += r.input[i] == conv_value;
    }
    return readers == 1 ? conv_value : -1;
}

/* The convolution `l` with what the norm `v` does in it. */
static void folded(struct fst__onnx_export *x, const struct fst__onnx_layer *l, fst_value v)
{
    fst_param_info p, b;
    const float *from = fst__onnx_param(x, &l->info, 0, &p);
    const float *shift = l->info.bias ? fst__onnx_param(x, &l->info, 1, &b) : NULL;
    int64_t channels = p.shape.dim[0], each = fst_shape_count(&p.shape) / channels;
    const char *in[3] = {l->in.re, p.name, fst__onnx_text(&x->w, "%s.bias", l->name)};
    float *weight = fst__onnx_new_f32(&x->w, p.name, &p.shape);
    float *bias = fst__onnx_new_f32(&x->w, in[2], &FST_SHAPE(channels));
    for (int64_t c = 0; weight && bias && c < channels; c++) {
        fst_norm_affine k = fst_graph_norm_affine(x->m->graph, &x->m->state, v, c);
        for (int64_t i = c * each; i < (c + 1) * each; i++)
            weight[i] = (float)((double)from[i] * k.a[0]);
        bias[c] = (float)(k.bias[0] + k.a[0] * ((shift ? (double)shift[c] : 0) - k.mean[0]));
    }
    Onnx__Node *n = fst__onnx_node(&x->w, "Conv", l->name, in, 3, l->out.re);
    fst__onnx_window(x, n, &l->info);
    fst__onnx_int(&x->w, n, "group", l->info.groups);
}

/* ---- a network ----------------------------------------------------------------------------------------------- */

static struct fst__onnx_layer layer_of(struct fst__onnx_export *x, fst_value v)
{
    const fst_graph *g = x->m->graph;
    struct fst__onnx_layer l = {.info = fst_graph_node(g, v), .v = v};
    l.name = l.info.name[0] ? l.info.name : fst__onnx_text(&x->w, "%s.%d", l.info.op, v);
    l.in = x->value[l.info.input[0]];
    l.from = fst_graph_node(g, l.info.input[0]).out;
    if (l.info.inputs > 1)
        l.in2 = x->value[l.info.input[1]];
    if (v == fst_graph_output(g)) {
        l.out.re = output_name;
    } else {
        l.out.re = fst__onnx_text(&x->w, l.info.complex ? "%s.out.re" : "%s.out", l.name);
        l.out.im = l.info.complex ? fst__onnx_text(&x->w, "%s.out.im", l.name) : NULL;
    }
    return l;
}

static fst_status write_one(struct fst__onnx_export *x, const struct fst__onnx_layer *l, fst_error *err)
{
    size_t k = 0, count = sizeof writers / sizeof *writers;
    while (k < count && strcmp(writers[k].op, l->info.op))
        k++;
    bool flat = strcmp(l->info.op, "linear") || l->info.out.rank == 1;
    if (k == count || !flat)
        return fst_fail(err, FST_E_UNSUPPORTED, "the layer \"%s\" (%s%s) is not written as ONNX", l->name, l->info.op,
                        flat ? "" : " over tokens");
    writers[k].write(x, l);
    return FST_OK;
}

static fst_status write_layers(struct fst__onnx_export *x, bool fold, fst_error *err)
{
    const fst_graph *g = x->m->graph;
    fst_value count = (fst_value)fst_graph_layers(g), *into = fst_calloc((size_t)count, sizeof *into);
    fst_status s = into ? FST_OK : fst_fail_memory(err, (size_t)count * sizeof *into);
    for (fst_value v = 0; !s && fold && v < count; v++) { /* into[conv]: the norm that goes into it, 0 for none */
        fst_value conv_value = fst_graph_node(g, v).inputs ? folded_conv(g, v) : -1;
        if (conv_value >= 0)
            into[conv_value] = v;
    }
    for (fst_value v = 0; !s && v < count; v++) {
        struct fst__onnx_layer l = layer_of(x, v);
        if (!l.info.inputs)
            l.out = (struct fst__onnx_part){.re = input_name};
        else if (!strcmp(l.info.op, "dropout"))
            l.out = l.in;
        else if (into[v])
            folded(x, &l, into[v]);
        else if (into[l.info.input[0]] == v)
            l.out = l.in;
        else
            s = write_one(x, &l, err);
        x->value[v] = l.out;
    }
    fst_free(into);
    return s;
}

fst_status fst__onnx_export(const fst_model *m, const char *path, bool fold, const fst_pair *pairs, size_t npairs,
                            char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct fst__onnx_export x = {.m = m};
    char doc[256];
    snprintf(doc, sizeof doc, "%ssamples (batch first)%s", m->fingerprint ? "fingerprints of " : "",
             m->channels ? ", minus normalise_mean, over normalise_std" : "");
    struct fst__onnx_frame frame = {
        .name = m->arch,
        .input = input_name,
        .output = output_name,
        .input_doc = doc,
        .output_doc = "one a class, before any softmax",
        .input_shape = fst_graph_input_shape(m->graph),
        .output_shape = fst_graph_output_shape(m->graph),
        .pairs = pairs,
        .pair_count = npairs,
    };
    x.value = fst_calloc(fst_graph_layers(m->graph), sizeof *x.value);
    fst_status s = x.value ? FST_OK : fst_fail_memory(err, sizeof *x.value);
    if (!s)
        s = write_layers(&x, fold, err);
    if (!s)
        s = fst__onnx_write(&x.w, path, &frame, digest, err);
    fst__onnx_writer_release(&x.w);
    fst_free(x.value);
    return s;
}
