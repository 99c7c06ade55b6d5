/* FedGen's generator as a network, its input, and the last layer that its features go through. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "generator.h"

fst_status fst__generator_init(struct fst__generator *g, size_t noise, size_t hidden, size_t classes, size_t width,
                               fst_error *err)
{
    fst_graph *n = NULL;
    *g = (struct fst__generator){.noise = noise, .classes = classes, .width = width};
    fst_status st = fst_graph_new(&n, err);
    if (st)
        return st;
    fst_value x = fst_graph_input(n, &FST_SHAPE((int64_t)(noise + classes)));
    x = fst_graph_linear(n, x, "hidden", (int64_t)hidden, true);
    x = fst_graph_reshape(n, x, &FST_SHAPE((int64_t)hidden, 1, 1));
    x = fst_graph_relu(n, fst_graph_batchnorm2d(n, x, "norm", 1e-5, 0.1));
    x = fst_graph_linear(n, fst_graph_flatten(n, x), "features", (int64_t)width, true);
    st = fst_graph_finish(n, x, err);
    g->graph = n;
    if (!st)
        st = fst_fed_state_init(&g->state, fst_graph_fed_size(n), err);
    for (size_t i = 0; !st && i < fst_graph_buffers(n); i++) { /* a variance of 1 before the first batch */
        fst_param_info b = fst_graph_buffer(n, i);
        for (size_t k = 0; k < b.count && strstr(b.name, "running_var"); k++)
            g->state.buffers[b.offset + k] = 1;
    }
    if (st)
        fst__generator_release(g);
    return st;
}

void fst__generator_release(struct fst__generator *g)
{
    fst_graph_free(g->graph);
    fst_fed_state_release(&g->state);
    *g = (struct fst__generator){0};
}

void fst__generator_input(const struct fst__generator *g, fst_rng *r, const int32_t *label, size_t rows, float *x)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < g->noise; k++)
            *x++ = (float)fst_rng_uniform(r);
        for (size_t c = 0; c < g->classes; c++)
            *x++ = (size_t)label[i] == c;
    }
}

fst_status fst__head_of(const fst_graph *g, struct fst__head *out, fst_error *err)
{
    fst_value features = fst_graph_last_features(g);
    fst_shape from = fst_graph_value_shape(g, features), to = fst_graph_output_shape(g);
    char name[160];
    bool found = false;
    if (features < 0)
        return fst_fail(err, FST_E_CONFIG, "a network that ends in a linear layer over features is needed");
    *out = (struct fst__head){.width = (size_t)fst_shape_count(&from), .classes = (size_t)fst_shape_count(&to)};
    fst_layer_info last = fst_graph_layer(g, fst_graph_layers(g) - 1);
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        snprintf(name, sizeof name, "%s.weight", last.name);
        if (!strcmp(p.name, name)) {
            out->weight = p.offset;
            found = p.count == out->width * out->classes;
        }
        snprintf(name, sizeof name, "%s.bias", last.name);
        if (!strcmp(p.name, name)) {
            out->bias = p.offset;
            out->has_bias = true;
        }
    }
    return found ? FST_OK : fst_fail(err, FST_E_CONFIG, "the last layer, %s, has no weight of its own", last.name);
}

void fst__head_copy(const struct fst__head *h, const float *params, float *out)
{
    size_t n = h->width * h->classes;
    memcpy(out, params + h->weight, n * sizeof *out);
    if (h->has_bias)
        memcpy(out + n, params + h->bias, h->classes * sizeof *out);
    else
        memset(out + n, 0, h->classes * sizeof *out);
}

double fst__head_say(const struct fst__head *h, const float *copied, const float *x, size_t label, double *p)
{
    const float *bias = copied + h->width * h->classes;
    double most = -INFINITY, sum = 0;
    for (size_t c = 0; c < h->classes; c++) {
        const float *w = copied + c * h->width;
        double z = (double)bias[c];
        for (size_t k = 0; k < h->width; k++)
            z += (double)w[k] * (double)x[k];
        p[c] = z;
        most = z > most ? z : most;
    }
    double its = p[label];
    for (size_t c = 0; c < h->classes; c++)
        sum += p[c] = exp(p[c] - most);
    for (size_t c = 0; c < h->classes; c++)
        p[c] /= sum;
    return most + log(sum) - its;
}
