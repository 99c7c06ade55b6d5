/*
 * attention: softmax(q k^T / sqrt(d)) v, the scaled dot product of Vaswani et al. 2017. Inputs (query tokens, width),
 * (tokens, width), (tokens, value width); head h owns columns h d ... (h+1) d - 1 of each. The weights are made again
 * in the backward pass, some queries at a time, so that memory grows with the tokens and not with their square.
 */
#include <math.h>

#include "matmul.h"
#include "ops.h"

enum { QUERIES = 32 }; /* handled together */

static fst_status shape(struct fst_node *n, fst_error *err)
{
    int64_t heads = n->u.attention.heads;
    char q[64], k[64], v[64];
    if (n->nmore != 2 || n->in.rank != 2 || n->more_in[0].rank != 2 || n->more_in[1].rank != 2)
        return fst_fail(err, FST_E_ARGUMENT, "takes queries, keys and values, each (tokens, width)");
    if (n->in.dim[1] != n->more_in[0].dim[1] || n->more_in[0].dim[0] != n->more_in[1].dim[0])
        return fst_fail(err, FST_E_ARGUMENT, "queries %s, keys %s and values %s do not belong together",
                        fst_shape_text(&n->in, q, sizeof q), fst_shape_text(&n->more_in[0], k, sizeof k),
                        fst_shape_text(&n->more_in[1], v, sizeof v));
    if (heads < 1 || n->in.dim[1] % heads || n->more_in[1].dim[1] % heads)
        return fst_fail(err, FST_E_ARGUMENT, "widths of %lld and %lld do not divide into %lld heads",
                        (long long)n->in.dim[1], (long long)n->more_in[1].dim[1], (long long)heads);
    n->out = FST_SHAPE(n->in.dim[0], n->more_in[1].dim[1]);
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return 2.0 * (double)n->in.dim[0] * (double)n->more_in[0].dim[0] *
           ((double)n->in.dim[1] + (double)n->more_in[1].dim[1]);
}

/* One head of one sample. */
struct head {
    int64_t queries, tokens, width, value_width, d, dv;
    const float *q, *k, *v;
    double *weight, *grad; /* scratch: QUERIES x tokens each */
    double scale;
};

static int64_t doubles(const struct fst_node *n)
{
    int64_t tokens = n->more_in[0].dim[0], heads = n->u.attention.heads;
    return tokens * (2 * QUERIES + n->in.dim[1] / heads + n->more_in[1].dim[1] / heads);
}

size_t fst__attention_scratch(const struct fst_node *n)
{
    return sizeof(double) * (size_t)doubles(n);
}

static size_t scratch(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return fst__attention_scratch(n);
}

static int64_t offset(const fst_shape *s, int64_t heads, int64_t item)
{
    return item / heads * s->dim[0] * s->dim[1] + item % heads * (s->dim[1] / heads);
}

static struct head head_at(const struct fst_node *n, const struct fst_op_args *a, int64_t item, double *scratch)
{
    int64_t heads = n->u.attention.heads;
    struct head h = {.queries = n->in.dim[0],
                     .tokens = n->more_in[0].dim[0],
                     .width = n->in.dim[1],
                     .value_width = n->more_in[1].dim[1],
                     .weight = scratch};
    h.d = h.width / heads;
    h.dv = h.value_width / heads;
    h.q = a->in + offset(&n->in, heads, item);
    h.k = a->more_in[0] + offset(&n->more_in[0], heads, item);
    h.v = a->more_in[1] + offset(&n->more_in[1], heads, item);
    h.grad = scratch + QUERIES * h.tokens;
    h.scale = 1 / sqrt((double)h.d);
    return h;
}

/* The attention of queries first ... first+count-1: softmax over the tokens. */
static void weigh(const struct head *h, int64_t first, int64_t count)
{
    fst__product(&(struct fst_product){.m = count,
                                       .n = h->tokens,
                                       .k = h->d,
                                       .a = {.f = h->q + first * h->width, .row = h->width, .column = 1},
                                       .b = {.f = h->k, .row = 1, .column = h->width},
                                       .sum = h->weight,
                                       .stride = h->tokens});
    for (int64_t i = 0; i < count; i++) {
        double *w = h->weight + i * h->tokens, most = w[0], sum = 0;
        for (int64_t j = 1; j < h->tokens; j++)
            most = w[j] > most ? w[j] : most;
        for (int64_t j = 0; j < h->tokens; j++)
            sum += w[j] = exp((w[j] - most) * h->scale);
        for (int64_t j = 0; j < h->tokens; j++)
            w[j] /= sum;
    }
}

void fst__attention_forward(const struct fst_node *n, const struct fst_op_args *a, int64_t item, double *scratch)
{
    struct head h = head_at(n, a, item, scratch);
    float *out = a->out + offset(&n->out, n->u.attention.heads, item);
    for (int64_t first = 0; first < h.queries; first += QUERIES) {
        int64_t count = h.queries - first < QUERIES ? h.queries - first : QUERIES;
        weigh(&h, first, count);
        fst__product(&(struct fst_product){.m = count,
                                           .n = h.dv,
                                           .k = h.tokens,
                                           .a = {.d = h.weight, .row = h.tokens, .column = 1},
                                           .b = {.f = h.v, .row = h.value_width, .column = 1},
                                           .out = out + first * h.value_width,
                                           .stride = h.value_width});
    }
}

/* to (tokens x columns) += weights^T from */
static void add_to_tokens(const struct head *h, const double *weight, int64_t count, const float *from, int64_t width,
                          int64_t columns, bool add, double *to)
{
    fst__product(&(struct fst_product){.m = h->tokens,
                                       .n = columns,
                                       .k = count,
                                       .a = {.d = weight, .row = 1, .column = h->tokens},
                                       .b = {.f = from, .row = width, .column = 1},
                                       .sum = to,
                                       .add = add,
                                       .stride = columns});
}

/* h->grad becomes the gradient of q k^T, from that of the output. */
static void backward_softmax(const struct head *h, const float *grad_out, int64_t count)
{
    fst__product(&(struct fst_product){.m = count,
                                       .n = h->tokens,
                                       .k = h->dv,
                                       .a = {.f = grad_out, .row = h->value_width, .column = 1},
                                       .b = {.f = h->v, .row = 1, .column = h->value_width},
                                       .sum = h->grad,
                                       .stride = h->tokens});
    for (int64_t i = 0; i < count; i++) {
        const double *w = h->weight + i * h->tokens;
        double *g = h->grad + i * h->tokens, mean = 0;
        for (int64_t j = 0; j < h->tokens; j++)
            mean += w[j] * g[j];
        for (int64_t j = 0; j < h->tokens; j++)
            g[j] = w[j] * (g[j] - mean) * h->scale;
    }
}

static void round_to(const double *from, int64_t rows, int64_t columns, float *to, int64_t width)
{
    for (int64_t i = 0; to && i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[i * width + j] = (float)from[i * columns + j];
}

void fst__attention_backward(const struct fst_node *n, const struct fst_op_args *a, int64_t item, double *scratch)
{
    struct head h = head_at(n, a, item, scratch);
    int64_t heads = n->u.attention.heads, at_k = offset(&n->more_in[0], heads, item);
    int64_t at_q = offset(&n->in, heads, item), at_v = offset(&n->more_in[1], heads, item);
    const float *grad_out = a->grad_out + offset(&n->out, heads, item);
    double *grad_k = h.grad + QUERIES * h.tokens, *grad_v = grad_k + h.tokens * h.d;
    for (int64_t first = 0; first < h.queries; first += QUERIES) {
        int64_t count = h.queries - first < QUERIES ? h.queries - first : QUERIES;
        const float *g = grad_out + first * h.value_width;
        weigh(&h, first, count);
        add_to_tokens(&h, h.weight, count, g, h.value_width, h.dv, first > 0, grad_v);
        backward_softmax(&h, g, count);
        add_to_tokens(&h, h.grad, count, h.q + first * h.width, h.width, h.d, first > 0, grad_k);
        if (a->grad_in)
            fst__product(&(struct fst_product){.m = count,
                                               .n = h.d,
                                               .k = h.tokens,
                                               .a = {.d = h.grad, .row = h.tokens, .column = 1},
                                               .b = {.f = h.k, .row = h.width, .column = 1},
                                               .out = a->grad_in + at_q + first * h.width,
                                               .stride = h.width});
    }
    round_to(grad_k, h.tokens, h.d, a->more_grad_in[0] ? a->more_grad_in[0] + at_k : NULL, h.width);
    round_to(grad_v, h.tokens, h.dv, a->more_grad_in[1] ? a->more_grad_in[1] + at_v : NULL, h.value_width);
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t item = 0; item < a->batch * n->u.attention.heads; item++)
        fst__attention_forward(n, a, item, a->scratch);
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t item = 0; item < a->batch * n->u.attention.heads; item++)
        fst__attention_backward(n, a, item, a->scratch);
}

const struct fst_op_type fst__op_attention = {
    .name = "attention",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .scratch = scratch,
};
