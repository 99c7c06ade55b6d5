/* ONNX as one of the formats that weights are read from: the file's tensors under the names of the network it is. */
#include <stdio.h>
#include <string.h>

#include "onnx.h"
#include "onnx_match.h"
#include "weights.h"
#include "zoo.h"

struct weights {
    struct fst__onnx_file file;
    struct fst__net net;
    struct fst__onnx_match match;
    bool softmax;
};

static fst_status open_file(void **out, const char *name, const void *data, size_t len, const char *prefix,
                            fst_error *err)
{
    struct weights *w = fst_calloc(1, sizeof *w);
    (void)prefix;
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    fst_status s = fst__onnx_open(&w->file, name, data, len, err);
    if (s)
        fst_free(w);
    else
        *out = w;
    return s;
}

static void free_file(void *file)
{
    struct weights *w = file;
    if (!w)
        return;
    fst__onnx_match_release(&w->match);
    fst__net_release(&w->net);
    fst__onnx_close(&w->file);
    fst_free(w);
}

static size_t count(const void *file)
{
    return ((const struct weights *)file)->match.count;
}

static fst_tensor at(const void *file, size_t i)
{
    const struct fst__onnx_source *s = &((const struct weights *)file)->match.sources[i];
    return (fst_tensor){s->name, s->rule == FST__ONNX_AS_IT_IS ? fst__onnx_dtype(&s->a) : FST_F32, s->shape, NULL};
}

static bool made(const void *file, size_t i)
{
    return ((const struct weights *)file)->match.sources[i].rule != FST__ONNX_AS_IT_IS;
}

static fst_status read_f32(const void *file, size_t i, float *dst, size_t n, fst_error *err)
{
    const struct fst__onnx_source *s = &((const struct weights *)file)->match.sources[i];
    if ((uint64_t)fst_shape_count(&s->shape) != n)
        return fst_fail(err, FST_E_MISMATCH, "tensor \"%s\" has %lld elements, %zu are wanted", s->name,
                        (long long)fst_shape_count(&s->shape), n);
    fst__onnx_source_read(s, dst, n);
    return FST_OK;
}

/* Counters alone are read as they are, and ONNX has none. */
static fst_status read_bytes(const void *file, size_t i, void *dst, size_t bytes, fst_error *err)
{
    (void)file, (void)i, (void)dst, (void)bytes;
    return fst_fail(err, FST_E_UNSUPPORTED, "ONNX files hold floating-point numbers only");
}

static const char *meta(const void *file, const char *key)
{
    return fst__onnx_meta(&((const struct weights *)file)->file, key);
}

/* Norms of complex values are in the file as what they do in inference. */
static fst_status refuse_complex(const struct weights *w, const char *arch, const fst_model_config *c, fst_error *err)
{
    fst_graph *g = NULL;
    bool complex = false;
    fst_status s = fst_model_graph(&g, arch, c, err);
    for (size_t i = 0; !s && i < fst_graph_layers(g); i++)
        complex = complex || fst_graph_node(g, (fst_value)i).complex;
    fst_graph_free(g);
    if (complex)
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s: %s has layers of complex values, of which ONNX keeps only what they do in inference: keep "
                        "the model file, or export it as safetensors",
                        w->file.name, arch);
    return s;
}

static fst_status resolve(void *file, const fst_import_options *o, const char **arch, fst_model_config *c,
                          fst_error *err)
{
    struct weights *w = file;
    const char *key = meta(file, FST__MODEL_KEY),
               *own = key && !strcmp(key, FST_MODEL_FORMAT) ? meta(file, "arch") : NULL;
    fst_status s = FST_OK;
    if (o->map || o->prefix || o->suffix || o->pad_shortcuts)
        return fst_fail(err, FST_E_CONFIG,
                        "%s: names, prefix, suffix and padded shortcuts are of a state_dict; an ONNX file's layers say "
                        "what belongs where",
                        w->file.name);
    for (size_t i = 0; own && i < fst_models(); i++)
        if (!strcmp(fst_model_at(i).name, own)) {
            *arch = fst_model_at(i).name;
            s = refuse_complex(w, *arch, c, err);
        }
    bool complete = own && *arch && !strcmp(own, *arch) && !o->setting_count && !o->input.rank;
    if (!s)
        s = fst__net_read(&w->net, &w->file, &o->input, err);
    if (!s)
        s = fst__onnx_match_zoo(&w->match, &w->net, *arch, c, complete, o, err);
    if (s)
        return s;
    if (w->net.softmax)
        fst_log(FST_LOG_INFO, "%s ends in a softmax, which models here do not have; it is left out", w->file.name);
    double dropout1 = c->dropout1, dropout2 = c->dropout2;
    *arch = w->match.arch;
    *c = w->match.config;
    if (complete) {
        c->dropout1 = dropout1;
        c->dropout2 = dropout2;
    }
    return FST_OK;
}

const struct fst__weights_format fst__weights_onnx = {
    .name = "ONNX",
    .probe = fst_onnx_probe,
    .open = open_file,
    .free = free_file,
    .count = count,
    .at = at,
    .read = read_bytes,
    .read_f32 = read_f32,
    .meta = meta,
    .made = made,
    .resolve = resolve,
};
