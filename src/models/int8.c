/*
 * Models in int8: made of an f32 model and what its layers see of samples (calibration), and their files. A file says
 * by a tensor's type which layers are int8; it holds nothing that the f32 network of the same name does not have
 * a place for. Computing is nn's affair.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "int8.h"

static bool takes(const fst_graph *g, size_t v)
{
    return fst_graph_int8_takes(g, (fst_value)v, NULL);
}

/* ---- calibration ------------------------------------------------------------------------------------------- */

struct look { /* at up to FST_MAX_TAPS values: a copy of the network that puts them out */
    fst_graph *graph;
    fst_runner *runner;
    fst_value value[FST_MAX_TAPS];
    int count;
};

struct fst_calibration {
    const fst_model *model;
    struct look *look;
    size_t looks, batch, width; /* width: floats of the widest row */
    float *out;
    bool *wanted;   /* by value: some layer reads it */
    double *most;   /* by value: the sum over the batches of the largest magnitude in each */
    float *largest; /* by value: of the batch that is looked at */
    size_t batches;
};

void fst_calibration_free(fst_calibration *c)
{
    if (!c)
        return;
    for (size_t i = 0; c->look && i < c->looks; i++) {
        fst_runner_free(c->look[i].runner);
        fst_graph_free(c->look[i].graph);
    }
    fst_free(c->look);
    fst_free(c->out);
    fst_free(c->most);
    fst_free(c->wanted);
    fst_free(c->largest);
    fst_free(c);
}

/* The values that layers read, each once; those that the network is given are seen without a look. */
static void choose_values(fst_calibration *c)
{
    const fst_graph *g = c->model->graph;
    for (size_t i = 0; i < fst_graph_layers(g); i++) {
        fst_value v = fst_graph_node(g, (fst_value)i).input[0];
        if (!takes(g, i) || c->wanted[v])
            continue;
        c->wanted[v] = true;
        if ((size_t)v < fst_graph_inputs(g))
            continue;
        if (!c->looks || c->look[c->looks - 1].count == FST_MAX_TAPS)
            c->looks++;
        struct look *l = &c->look[c->looks - 1];
        l->value[l->count++] = v;
    }
}

static fst_status make_look(struct look *l, const fst_graph *g, const fst_trainer_options *o, fst_error *err)
{
    fst_value logits;
    fst_status s = fst_graph_copy(&l->graph, g, &logits, err);
    if (!s)
        s = fst_graph_finish_tapped(l->graph, logits, l->value, l->count, err);
    return s ? s : fst_runner_new(&l->runner, l->graph, o, err);
}

fst_status fst_calibration_new(fst_calibration **out, const fst_model *m, size_t batch, int threads, fst_error *err)
{
    size_t n = fst_graph_layers(m->graph);
    fst_trainer_options o = {.batch_size = batch, .threads = threads};
    if (fst_graph_is_int8(m->graph))
        return fst_fail(err, FST_E_ARGUMENT, "the model is int8 already");
    fst_calibration *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    *c = (fst_calibration){.model = m, .batch = batch};
    c->most = fst_calloc(n, sizeof *c->most);
    c->wanted = fst_calloc(n, sizeof *c->wanted);
    c->largest = fst_calloc(n, sizeof *c->largest);
    c->look = fst_calloc(n, sizeof *c->look);
    fst_status s = c->most && c->wanted && c->largest && c->look ? FST_OK : fst_fail_memory(err, n * sizeof *c->look);
    if (!s)
        choose_values(c);
    for (size_t i = 0; !s && i < c->looks; i++) {
        s = make_look(&c->look[i], m->graph, &o, err);
        fst_shape row = s ? (fst_shape){0} : fst_graph_output_shape(c->look[i].graph);
        if (!s && (size_t)fst_shape_count(&row) > c->width)
            c->width = (size_t)fst_shape_count(&row);
        if (!s)
            fst_runner_hold(c->look[i].runner, &m->state);
    }
    c->out = s ? NULL : fst_alloc((batch * c->width + 1) * sizeof *c->out);
    if (!s && !c->out)
        s = fst_fail_memory(err, batch * c->width * sizeof *c->out);
    if (s) {
        fst_calibration_free(c);
        return s;
    }
    *out = c;
    return FST_OK;
}

static fst_status see(fst_calibration *c, fst_value v, const float *x, size_t n, fst_error *err)
{
    float most = c->largest[v];
    bool wrong = false;
    for (size_t i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        wrong = wrong || !isfinite(size);
        most = size > most ? size : most;
    }
    c->largest[v] = most;
    return wrong ? fst_fail(err, FST_E_NUMERIC, "a layer's input is infinite or not a number") : FST_OK;
}

fst_status fst_calibration_add(fst_calibration *c, const float *x, size_t rows, fst_error *err)
{
    const fst_graph *g = c->model->graph;
    fst_shape in = fst_graph_input_shape(g);
    fst_status s = FST_OK;
    if (rows > c->batch)
        return fst_fail(err, FST_E_ARGUMENT, "%zu samples at a time are possible, not %zu", c->batch, rows);
    memset(c->largest, 0, fst_graph_layers(g) * sizeof *c->largest);
    if (c->wanted[0])
        s = see(c, 0, x, rows * (size_t)fst_shape_count(&in), err);
    for (size_t i = 0; !s && i < c->looks; i++) {
        const struct look *l = &c->look[i];
        fst_shape row = fst_graph_output_shape(l->graph);
        s = fst_runner_logits(l->runner, &c->model->state, x, rows, c->out, err);
        for (size_t r = 0; !s && r < rows; r++)
            for (int k = 0; !s && k < l->count; k++) {
                fst_tap t = fst_graph_tap(l->graph, (size_t)k);
                s = see(c, l->value[k], c->out + r * (size_t)fst_shape_count(&row) + t.at, t.count, err);
            }
    }
    for (size_t v = 0; !s && v < fst_graph_layers(g); v++)
        c->most[v] += (double)c->largest[v];
    c->batches += !s;
    return s;
}

/* ---- making -------------------------------------------------------------------------------------------------- */

static float scale_of(const fst_calibration *c, fst_value v)
{
    float scale = (float)(c->most[v] / (double)c->batches / (fst_graph_is_positive(c->model->graph, v) ? 255 : 127));
    return scale > 0 && isfinite(1 / scale) ? scale : 1; /* 1: never anything but 0 */
}

fst_status fst_model_int8(fst_model *out, const fst_model *m, const fst_calibration *c, fst_error *err)
{
    fst_model q = {0};
    size_t n = fst_graph_layers(m->graph);
    if (c->model != m || !c->batches)
        return fst_fail(err, FST_E_ARGUMENT, "the scales of int8 need a calibration of this model with samples");
    float *scale = fst_calloc(n, sizeof *scale);
    fst_status s = scale ? fst__model_copy_head(&q, m, err) : fst_fail_memory(err, n * sizeof *scale);
    for (size_t i = 0; !s && i < n; i++) {
        fst_value v = fst_graph_node(m->graph, (fst_value)i).input[0];
        scale[i] = takes(m->graph, i) ? scale_of(c, v) : 0;
    }
    if (!s)
        s = fst_graph_int8(&q.graph, m->graph, scale, err);
    if (!s)
        s = fst_state_init(&q.state, q.graph, err);
    fst_free(scale);
    if (s) {
        fst_model_release(&q);
        return s;
    }
    fst_state_int8(&q.state, q.graph, &m->state, m->graph);
    *out = q;
    return FST_OK;
}

bool fst_model_is_int8(const fst_model *m)
{
    return m->graph && fst_graph_is_int8(m->graph);
}

fst_status fst_model_need_f32(const fst_model *m, const char *name, const char *what, fst_error *err)
{
    if (!fst_model_is_int8(m))
        return FST_OK;
    return fst_fail(err, FST_E_UNSUPPORTED, "%s is an int8 model, which %s: take the f32 model that it was made of",
                    name, what);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* The i-th parameter is the weights of an int8 layer; *layer is that. */
static bool is_rounded(const fst_graph *g, size_t i, fst_value *layer)
{
    for (size_t v = fst_graph_inputs(g); v < fst_graph_layers(g); v++)
        if (fst_graph_int8_scale(g, (fst_value)v, NULL) > 0 && fst_graph_node(g, (fst_value)v).first_param == i) {
            *layer = (fst_value)v;
            return true;
        }
    return false;
}

void fst__int8_tensors_release(struct fst__int8_tensors *t)
{
    fst_free(t->list);
    fst_free(t->weights);
    fst_free(t->layers);
    *t = (struct fst__int8_tensors){0};
}

static void add_layer(struct fst__int8_tensors *t, const fst_graph *g, fst_value layer, fst_tensor *weight)
{
    struct fst__int8_layer *l = &t->layers[t->count++];
    size_t n = (size_t)fst_shape_count(&weight->shape);
    snprintf(l->name, sizeof l->name, "%.80s.input_scale", fst_graph_node(g, layer).name);
    l->scale = fst_graph_int8_scale(g, layer, NULL);
    t->list[t->n++] = (fst_tensor){l->name, FST_F32, {0}, &l->scale};
    const float *from = weight->data;
    weight->dtype = FST_I8;
    weight->data = from ? t->weights + t->bytes : NULL;
    for (size_t i = 0; from && i < n; i++)
        t->weights[t->bytes + i] = (int8_t)from[i];
    t->bytes += n;
}

fst_status fst__int8_tensors(struct fst__int8_tensors *out, const fst_graph *g, const fst_state *s, fst_error *err)
{
    size_t params = fst_graph_params(g), n = 0, bytes = 0;
    fst_value layer;
    fst_tensor *all = fst__model_tensors(g, s, &n);
    struct fst__int8_tensors t = {.n = n};
    for (size_t i = 0; i < params; i++)
        bytes += s && is_rounded(g, i, &layer) ? fst_graph_param(g, i).count : 0;
    t.list = fst_calloc(n + params + 1, sizeof *t.list);
    t.layers = fst_calloc(params + 1, sizeof *t.layers);
    t.weights = fst_alloc(bytes + 1);
    if (!all || !t.list || !t.layers || !t.weights) {
        fst_free(all);
        fst__int8_tensors_release(&t);
        return fst_fail_memory(err, bytes + n * sizeof *t.list);
    }
    memcpy(t.list, all, n * sizeof *all);
    fst_free(all);
    for (size_t i = 0; i < params; i++)
        if (is_rounded(g, i, &layer))
            add_layer(&t, g, layer, &t.list[i]);
    *out = t;
    return FST_OK;
}

/* The scale that the file has for the input of a layer whose weights are I8; 0: they are not. */
static fst_status read_scale(const fst_safetensors *f, const char *path, const char *layer, float *scale,
                             fst_error *err)
{
    char name[128];
    size_t at;
    snprintf(name, sizeof name, "%.80s.weight", layer);
    *scale = 0;
    if (!fst_safetensors_find(f, name, &at) || fst_safetensors_at(f, at).dtype != FST_I8)
        return FST_OK;
    snprintf(name, sizeof name, "%.80s.input_scale", layer);
    bool there = fst_safetensors_find(f, name, &at);
    fst_tensor t = there ? fst_safetensors_at(f, at) : (fst_tensor){0};
    if (!there || t.dtype != FST_F32 || fst_shape_count(&t.shape) != 1)
        return fst_fail(err, FST_E_FORMAT, "%s: layer %s has weights of I8, but no %s of one F32", path, layer, name);
    fst_status s = fst_safetensors_read_f32(f, at, scale, 1, err);
    if (!s && !(*scale > 0 && isfinite(*scale) && isfinite(1 / *scale)))
        s = fst_fail(err, FST_E_FORMAT, "%s: %s is %g; a number above 0 that has an inverse is possible", path, name,
                     (double)*scale);
    return s;
}

fst_status fst__int8_network(fst_model *m, const fst_safetensors *f, const char *path, fst_error *err)
{
    size_t n = fst_graph_layers(m->graph);
    fst_graph *g = NULL;
    float *scale = fst_calloc(n, sizeof *scale);
    fst_status s = scale ? FST_OK : fst_fail_memory(err, n * sizeof *scale);
    for (size_t i = 0; !s && i < n; i++)
        if (takes(m->graph, i))
            s = read_scale(f, path, fst_graph_node(m->graph, (fst_value)i).name, &scale[i], err);
    if (!s) {
        s = fst_graph_int8(&g, m->graph, scale, err);
        s = s == FST_E_UNSUPPORTED ? fst_fail(err, FST_E_FORMAT, "%s: no layer has weights of I8", path) : s;
    }
    fst_free(scale);
    if (s)
        return s;
    fst_graph_free(m->graph);
    m->graph = g;
    return FST_OK;
}

fst_status fst__int8_check_state(const fst_model *m, const char *path, fst_error *err)
{
    fst_value layer;
    for (size_t i = 0; i + 2 < fst_graph_params(m->graph); i++) {
        if (!is_rounded(m->graph, i, &layer))
            continue;
        const fst_param_info w = fst_graph_param(m->graph, i), scale = fst_graph_param(m->graph, i + 1),
                             bias = fst_graph_param(m->graph, i + 2);
        for (size_t k = 0; k < w.count; k++)
            if (m->state.params[w.offset + k] < -127)
                return fst_fail(err, FST_E_FORMAT, "%s: %s has the value -128; -127 to 127 are possible", path, w.name);
        for (size_t k = 0; k < scale.count; k++)
            if (!(m->state.params[scale.offset + k] > 0 && isfinite(m->state.params[scale.offset + k])))
                return fst_fail(err, FST_E_FORMAT, "%s: %s has the value %g; numbers above 0 are possible", path,
                                scale.name, (double)m->state.params[scale.offset + k]);
        for (size_t k = 0; k < bias.count; k++)
            if (!isfinite(m->state.params[bias.offset + k]))
                return fst_fail(err, FST_E_FORMAT, "%s: %s has a value that is infinite or not a number", path,
                                bias.name);
    }
    return FST_OK;
}
