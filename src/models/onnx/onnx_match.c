/* Which of our networks a file is: those of the registry, with the options that the file's layers suggest. */
#include <stdio.h>
#include <string.h>

#include "onnx_fit.h"

enum { MOST_WIDTHS = 16, DEPTHWISE = 32 };

struct search {
    struct fst__net *net;
    struct fst__onnx_match *out;
    const fst_import_options *o;
    int nearest; /* layers that agreed with the nearest network so far; -1: none was built */
    char difference[700];
    fst_status status; /* of the last network that could not be built */
    fst_error error;
};

void fst__onnx_match_release(struct fst__onnx_match *m)
{
    fst_free(m->sources);
    fst_graph_free(m->graph);
    *m = (struct fst__onnx_match){0};
}

void fst__onnx_source_read(const struct fst__onnx_source *s, float *out, size_t count)
{
    bool made = s->rule == FST__ONNX_ZEROS || s->rule == FST__ONNX_ONES;
    if (!made)
        fst__onnx_floats(&s->a, out);
    for (size_t i = 0; i < count; i++) {
        if (made)
            out[i] = s->rule == FST__ONNX_ONES;
        out[i] += s->rule == FST__ONNX_ONES || s->rule == FST__ONNX_VARIANCE ? s->add : 0;
    }
    if (s->rule == FST__ONNX_MEAN)
        for (size_t i = 0; i < count; i++)
            out[i] -= fst__onnx_float_at(&s->b, i);
}

/* ---- one network -------------------------------------------------------------------------------------------- */

static fst_status list_sources(struct search *w, const struct fst__onnx_fit *f, fst_error *err)
{
    const fst_graph *g = f->g;
    size_t params = fst_graph_params(g), count = params + fst_graph_buffers(g);
    struct fst__onnx_source *list = fst_calloc(count + 1, sizeof *list);
    if (!list)
        return fst_fail_memory(err, count * sizeof *list);
    for (fst_value v = 0; v < (fst_value)fst_graph_layers(g); v++) {
        fst_node_info n = fst_graph_node(g, v);
        for (size_t k = 0; k < n.params; k++) {
            fst_param_info p = fst_graph_param(g, n.first_param + k);
            list[n.first_param + k] = fst__onnx_param_source(f, v, k);
            list[n.first_param + k].name = p.name;
            list[n.first_param + k].shape = p.shape;
        }
        for (size_t k = 0; k < n.buffers; k++) {
            fst_param_info p = fst_graph_buffer(g, n.first_buffer + k);
            list[params + n.first_buffer + k] = fst__onnx_buffer_source(f, v, k);
            list[params + n.first_buffer + k].name = p.name;
            list[params + n.first_buffer + k].shape = p.shape;
        }
    }
    w->out->sources = list;
    w->out->count = count;
    return FST_OK;
}

/* Tries a network; *found when it is the file's. What cannot be built for this input is no error. */
static fst_status try_one(struct search *w, const char *arch, const fst_model_config *c, bool *found, fst_error *err)
{
    fst_graph *g = NULL;
    char difference[600];
    fst_status s = fst_model_graph(&g, arch, c, &w->error);
    *found = false;
    if (s) {
        w->status = s;
        return s == FST_E_MEMORY ? fst_fail(err, s, "%s", w->error.message) : FST_OK;
    }
    size_t count = fst_graph_layers(g);
    struct fst__onnx_fit f = {.g = g, .net = w->net};
    f.layer = fst_calloc(count, sizeof *f.layer);
    f.folded = fst_calloc(count, sizeof *f.folded);
    f.trail = fst_calloc(count, sizeof *f.trail);
    if (!f.layer || !f.folded || !f.trail)
        s = fst_fail_memory(err, count * sizeof *f.layer);
    *found = !s && fst__onnx_fit(&f);
    if (*found)
        s = list_sources(w, &f, err);
    if (!s && !*found && f.most > w->nearest) {
        w->nearest = f.most;
        snprintf(w->difference, sizeof w->difference, "%.40s %s", arch,
                 fst__onnx_difference(&f, difference, sizeof difference));
    }
    fst_free(f.layer);
    fst_free(f.folded);
    fst_free(f.trail);
    if (s || !*found) {
        fst_graph_free(g);
        return s;
    }
    w->out->graph = g;
    w->out->arch = arch;
    w->out->config = *c;
    return FST_OK;
}

/* ---- options ------------------------------------------------------------------------------------------------- */

static const struct fst__net_layer *first_of(const struct fst__net *n, enum fst__net_kind kind)
{
    for (int i = 0; i < n->count; i++)
        if (n->layers[i].kind == kind)
            return &n->layers[i];
    return NULL;
}

/* The strides of a MobileNetV2: of its first convolution, and of the depthwise ones that begin its stages. */
static void mobilenet_strides(const struct fst__net *n, fst_model_config *c)
{
    static const int begins[FST_STAGES] = {0, 1, 3, 6, 10, 13, 16}, usual[FST_STAGES] = {1, 2, 2, 2, 1, 2, 1};
    const struct fst__net_layer *stem = first_of(n, FST__NET_CONV);
    int strides[DEPTHWISE] = {0}, count = 0;
    bool other = false;
    for (int i = 0; i < n->count && count < DEPTHWISE; i++)
        if (n->layers[i].kind == FST__NET_CONV && n->layers[i].groups > 1)
            strides[count++] = (int)n->layers[i].stride[0];
    for (int k = 0; k < FST_STAGES; k++)
        if (count < 17 || strides[begins[k]] < 1 || strides[begins[k]] > 16)
            return;
    for (int k = 0; k < FST_STAGES; k++)
        other = other || strides[begins[k]] != usual[k];
    for (int k = 0; other && k < FST_STAGES; k++)
        c->stage_strides[k] = strides[begins[k]];
    if (stem->stride[0] != 2 && stem->stride[0] <= 16)
        c->stem_stride = (int)stem->stride[0];
}

/* Widths that could have made the file's channels, 0 for the usual one first; how many. */
static int widths(const struct fst__net *n, const char *arch, double out[MOST_WIDTHS])
{
    static const double usual[] = {0.25, 0.35, 0.5, 0.75, 1.3, 1.4, 0.1, 1.5, 2};
    const struct fst__net_layer *stem = first_of(n, FST__NET_CONV), *head = first_of(n, FST__NET_LINEAR);
    int count = 0;
    out[count++] = 0;
    if (!stem)
        return count;
    if (!strcmp(arch, "real_resnet20_link11_h"))
        out[count++] = (double)stem->out.dim[0] / 64;
    if (strcmp(arch, "mobilenet_v2"))
        return count;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        out[count++] = usual[i];
    out[count++] = (double)stem->out.dim[0] / 32;
    if (head && head->tensor[0].shape.dim[1] > 1280)
        out[count++] = (double)head->tensor[0].shape.dim[1] / 1280;
    return count;
}

static fst_status with_settings(const struct search *w, const char *arch, fst_model_config *c, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < w->o->setting_count; i++)
        s = fst_model_config_set(c, arch, w->o->settings[i], err);
    return s;
}

/* What the file says of a network's options by its layers. */
static fst_model_config suggested(const struct search *w, const char *arch, double width, int stem)
{
    const struct fst__net_layer *linear = first_of(w->net, FST__NET_LINEAR);
    const fst_shape *out = &w->net->layers[w->net->output].out;
    fst_model_config c = {.input = w->net->layers[0].out, .stem = (fst_stem)stem};
    int64_t classes = fst_shape_count(out), hidden = linear ? linear->out.dim[0] : 0;
    c.classes = classes >= 1 && classes <= 65536 ? (int)classes : 0;
    if (width >= 0.01 && width <= 16)
        c.width = width;
    if (!strcmp(arch, "real_resnet20_link11_h") && hidden >= 1 && hidden <= 1 << 20 && hidden != 1000)
        c.hidden = (int)hidden;
    if (!strcmp(arch, "mobilenet_v2"))
        mobilenet_strides(w->net, &c);
    return c;
}

static fst_status try_network(struct search *w, const char *arch, bool *found, fst_error *err)
{
    double width[MOST_WIDTHS];
    int count = widths(w->net, arch, width), stems = strcmp(arch, "resnet50") ? 1 : 2;
    fst_status s = FST_OK;
    *found = false;
    for (int i = 0; !s && !*found && i < count * stems; i++) {
        fst_model_config c = suggested(w, arch, width[i / stems], i % stems);
        s = with_settings(w, arch, &c, err);
        if (w->o->head == FST_HEAD_KEEP && w->o->classes)
            c.classes = w->o->classes;
        if (!s)
            s = try_one(w, arch, &c, found, err);
    }
    return s;
}

fst_status fst__onnx_match_zoo(struct fst__onnx_match *m, struct fst__net *net, const char *arch,
                               const fst_model_config *config, bool own, const fst_import_options *o, fst_error *err)
{
    struct search w = {.net = net, .out = m, .o = o, .nearest = -1};
    bool found = false;
    fst_status s = FST_OK;
    *m = (struct fst__onnx_match){0};
    if (own)
        s = try_one(&w, arch, config, &found, err);
    /* Some networks differ by the pictures alone that they are meant for: those go first. */
    for (size_t i = 0; !s && !own && !found && i < 2 * fst_models(); i++) {
        fst_model_info info = fst_model_at(i % fst_models());
        bool meant = fst_shape_equal(&info.input, &net->layers[0].out);
        if (meant == (i < fst_models()) && (!arch || !strcmp(arch, info.name)))
            s = try_network(&w, info.name, &found, err);
    }
    if (s || found)
        return s;
    if (w.nearest < 0)
        return fst_fail(err, w.status ? w.status : FST_E_MISMATCH, "%s: %s", net->file->name, w.error.message);
    char agree[64] = "";
    if (w.nearest)
        snprintf(agree, sizeof agree, ", after %d layers, from the end, that agree", w.nearest);
    return fst_fail(err, FST_E_MISMATCH,
                    "%s is %s%s. %s: %s%s. Only files of the networks that `fedstill model list` names become models",
                    net->file->name, arch ? "not " : "none of the networks here", arch ? arch : "",
                    arch        ? "It differs"
                    : w.nearest ? "The nearest"
                                : "Already at its end",
                    w.difference, agree);
}
