/*
 * Layers of complex values as operators on real ones, real and imaginary parts apart. Batch norms are written as what
 * they do in inference, computed in double: as a formula of the running covariance they would lose digits in float.
 */
#include "onnx_export.h"

/* A node that is called LAYER.WHAT and whose value LAYER.WHAT.out is. */
static const char *made(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op, const char *what,
                        const char *a, const char *b)
{
    const char *in[2] = {a, b}, *out = fst__onnx_text(&x->w, "%s.%s.out", l->name, what);
    fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s.%s", l->name, what), in, b ? 2 : 1, out);
    return out;
}

/* The last node of a part. */
static void last(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op, const char *what,
                 const char *a, const char *b, const char *out)
{
    fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s.%s", l->name, what), (const char *const[]){a, b}, 2, out);
}

static const char *constant(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *what, double value)
{
    return fst__onnx_scalar(&x->w, fst__onnx_text(&x->w, "%s.%s", l->name, what), (float)value);
}

/* |re + i im| */
static const char *length(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *what, const char *re,
                          const char *im, const char *out)
{
    const char *a = made(x, l, "Mul", fst__onnx_text(&x->w, "%s.re2", what), re, re);
    const char *b = made(x, l, "Mul", fst__onnx_text(&x->w, "%s.im2", what), im, im);
    const char *sum = made(x, l, "Add", fst__onnx_text(&x->w, "%s.sum", what), a, b);
    if (!out)
        return made(x, l, "Sqrt", what, sum, NULL);
    fst__onnx_node(&x->w, "Sqrt", fst__onnx_text(&x->w, "%s.%s", l->name, what), &sum, 1, out);
    return out;
}

void fst__onnx_complex_from_parts(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    static const char *const what[2] = {"re", "im"};
    for (int64_t k = 0; k < 2; k++) { /* a scalar index takes the dimension away */
        const char *name = fst__onnx_text(&x->w, "%s.%s.index", l->name, what[k]);
        fst__onnx_i64_scalar(&x->w, name, k);
        Onnx__Node *n = fst__onnx_node(&x->w, "Gather", fst__onnx_text(&x->w, "%s.%s", l->name, what[k]),
                                       (const char *const[]){l->in.re, name}, 2, k ? l->out.im : l->out.re);
        fst__onnx_int(&x->w, n, "axis", 1);
    }
}

/* One of the two real layers of a complex one, over one part of its input. */
static const char *real_layer(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op,
                              const char *what, const char *in, const char *weight, const char *bias)
{
    const char *inputs[3] = {in, weight, bias}, *out = fst__onnx_text(&x->w, "%s.%s.out", l->name, what);
    Onnx__Node *n = fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s.%s", l->name, what), inputs, bias ? 3 : 2, out);
    if (l->info.kernel[0])
        fst__onnx_window(x, n, &l->info);
    else
        fst__onnx_int(&x->w, n, "transB", 1);
    return out;
}

/* re = r(re) - i(im), im = r(im) + i(re) */
static void complex_layer(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op)
{
    bool bias = l->info.bias;
    const char *wr = fst__onnx_weight(x, &l->info, 0), *br = bias ? fst__onnx_weight(x, &l->info, 1) : NULL;
    const char *wi = fst__onnx_weight(x, &l->info, bias ? 2 : 1), *bi = bias ? fst__onnx_weight(x, &l->info, 3) : NULL;
    const char *r_re = real_layer(x, l, op, "r_re", l->in.re, wr, br);
    const char *i_im = real_layer(x, l, op, "i_im", l->in.im, wi, bi);
    const char *r_im = real_layer(x, l, op, "r_im", l->in.im, wr, br);
    const char *i_re = real_layer(x, l, op, "i_re", l->in.re, wi, bi);
    last(x, l, "Sub", "re", r_re, i_im, l->out.re);
    last(x, l, "Add", "im", r_im, i_re, l->out.im);
}

void fst__onnx_complex_conv(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    complex_layer(x, l, "Conv");
}

void fst__onnx_complex_linear(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    complex_layer(x, l, "Gemm");
}

void fst__onnx_complex_norm(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    static const char *const names[8] = {"mean_re", "mean_im", "rr", "ri", "ir", "ii", "bias_re", "bias_im"};
    int64_t channels = l->from.dim[0];
    const char *name[8];
    float *v[8];
    for (int k = 0; k < 8; k++) {
        name[k] = fst__onnx_text(&x->w, "%s.%s", l->name, names[k]);
        v[k] = fst__onnx_new_f32(&x->w, name[k], &FST_SHAPE(channels, 1, 1));
    }
    for (int64_t c = 0; !x->w.status && c < channels; c++) {
        fst_norm_affine k = fst_graph_norm_affine(x->m->graph, &x->m->state, l->v, c);
        for (int i = 0; i < 2; i++) {
            v[i][c] = (float)k.mean[i];
            v[6 + i][c] = (float)k.bias[i];
        }
        for (int i = 0; i < 4; i++)
            v[2 + i][c] = (float)k.a[i];
    }
    const char *re = made(x, l, "Sub", "centred_re", l->in.re, name[0]);
    const char *im = made(x, l, "Sub", "centred_im", l->in.im, name[1]);
    for (int k = 0; k < 2; k++) {
        const char *a = made(x, l, "Mul", k ? "ir_re" : "rr_re", re, name[2 + 2 * k]);
        const char *b = made(x, l, "Mul", k ? "ii_im" : "ri_im", im, name[3 + 2 * k]);
        const char *sum = made(x, l, "Add", k ? "sum_im" : "sum_re", a, b);
        last(x, l, "Add", k ? "im" : "re", sum, name[6 + k], k ? l->out.im : l->out.re);
    }
}

void fst__onnx_magnitude(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    length(x, l, "length", l->in.re, l->in.im, l->out.re);
}

/* m times a gate by channel, from the means of m over all positions. */
static const char *channel_gate(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *m)
{
    static const int64_t dims[4] = {0, -1, 1, 1};
    const char *flat = made(x, l, "Flatten", "flat", made(x, l, "GlobalAveragePool", "mean", m, NULL), NULL);
    const char *hidden = fst__onnx_text(&x->w, "%s.fc1.out", l->name),
               *sum = fst__onnx_text(&x->w, "%s.fc2.out", l->name);
    fst__onnx_int(&x->w,
                  fst__onnx_node(&x->w, "Gemm", fst__onnx_text(&x->w, "%s.fc1", l->name),
                                 (const char *const[]){flat, fst__onnx_weight(x, &l->info, 0)}, 2, hidden),
                  "transB", 1);
    const char *relu = made(x, l, "Relu", "relu", hidden, NULL);
    fst__onnx_int(&x->w,
                  fst__onnx_node(&x->w, "Gemm", fst__onnx_text(&x->w, "%s.fc2", l->name),
                                 (const char *const[]){relu, fst__onnx_weight(x, &l->info, 1)}, 2, sum),
                  "transB", 1);
    const char *gate = made(x, l, "Sigmoid", "gate", sum, NULL);
    const char *shape = fst__onnx_i64(&x->w, fst__onnx_text(&x->w, "%s.gate.shape", l->name), dims, 4);
    return made(x, l, "Mul", "gated", m, made(x, l, "Reshape", "gates", gate, shape));
}

static const char *over_channels(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *op,
                                 const char *what, const char *in)
{
    static const int64_t axis = 1;
    const char *out = fst__onnx_text(&x->w, "%s.%s.out", l->name, what);
    Onnx__Node *n = fst__onnx_node(&x->w, op, fst__onnx_text(&x->w, "%s.%s", l->name, what), &in, 1, out);
    fst__onnx_ints(&x->w, n, "axes", &axis, 1);
    fst__onnx_int(&x->w, n, "keepdims", 1);
    return out;
}

/* m times a gate by position, from mean and maximum over the channels. */
static const char *position_gate(struct fst__onnx_export *x, const struct fst__onnx_layer *l, const char *m)
{
    const char *maps[2] = {over_channels(x, l, "ReduceMean", "map_mean", m),
                           over_channels(x, l, "ReduceMax", "map_max", m)};
    const char *both = fst__onnx_text(&x->w, "%s.maps.out", l->name),
               *out = fst__onnx_text(&x->w, "%s.conv.out", l->name);
    Onnx__Node *join = fst__onnx_node(&x->w, "Concat", fst__onnx_text(&x->w, "%s.maps", l->name), maps, 2, both);
    fst__onnx_int(&x->w, join, "axis", 1);
    fst_param_info p;
    (void)fst__onnx_param(x, &l->info, 2, &p);
    fst_node_info window = {.kernel = {p.shape.dim[2], p.shape.dim[3]},
                            .stride = {1, 1},
                            .padding = {p.shape.dim[2] / 2, p.shape.dim[3] / 2}};
    Onnx__Node *n = fst__onnx_node(&x->w, "Conv", fst__onnx_text(&x->w, "%s.conv", l->name),
                                   (const char *const[]){both, fst__onnx_weight(x, &l->info, 2)}, 2, out);
    fst__onnx_window(x, n, &window);
    return made(x, l, "Mul", "focused", m, made(x, l, "Sigmoid", "focus", out, NULL));
}

/* cos and sin of the phase are re and im over their length, which is kept from being 0. */
void fst__onnx_attention(struct fst__onnx_export *x, const struct fst__onnx_layer *l)
{
    const fst_time_freq_attention *a = &l->info.attention;
    const char *floor = constant(x, l, "floor", a->floor), *ceiling = constant(x, l, "ceiling", a->ceiling);
    const char *eps = constant(x, l, "phase_eps", a->phase_eps), *tiny = constant(x, l, "tiny", 1e-30);
    const char *m = made(x, l, "Add", "m", length(x, l, "length", l->in.re, l->in.im, NULL), floor);
    m = position_gate(x, l, channel_gate(x, l, m));
    const char *clipped = fst__onnx_text(&x->w, "%s.clip.out", l->name);
    fst__onnx_node(&x->w, "Clip", fst__onnx_text(&x->w, "%s.clip", l->name), (const char *const[]){m, floor, ceiling},
                   3, clipped);
    const char *re = made(x, l, "Add", "phase_re", l->in.re, eps), *im = made(x, l, "Add", "phase_im", l->in.im, eps);
    const char *by = made(x, l, "Max", "divisor", length(x, l, "phase", re, im, NULL), tiny);
    last(x, l, "Mul", "re", made(x, l, "Div", "cos", re, by), clipped, l->out.re);
    last(x, l, "Mul", "im", made(x, l, "Div", "sin", im, by), clipped, l->out.im);
}
