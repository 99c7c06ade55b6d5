/* Model files: safetensors with state_dict names and metadata that rebuilds the network. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "int8.h"
#include "weights.h"
#include "zoo.h"

fst_status fst__model_network(fst_model *m, const char *arch, const fst_model_config *config, fst_error *err)
{
    fst_model n = {.channels = 0};
    if (strlen(arch) >= sizeof n.arch)
        return fst_fail(err, FST_E_CONFIG, "the model name \"%.64s...\" is too long", arch);
    snprintf(n.arch, sizeof n.arch, "%s", arch);
    fst_status s = fst_model_graph(&n.graph, arch, config, err);
    if (s)
        return s;
    n.config = config ? *config : (fst_model_config){0};
    n.config.input = fst_graph_input_shape(n.graph);
    fst_shape out = fst_graph_output_shape(n.graph);
    n.classes = n.config.classes = (int)fst_shape_count(&out);
    *m = n;
    return FST_OK;
}

fst_status fst_model_init(fst_model *m, const char *arch, const fst_model_config *config, fst_error *err)
{
    fst_model n = {.channels = 0};
    fst_status s = fst__model_network(&n, arch, config, err);
    if (!s)
        s = fst_state_init(&n.state, n.graph, err);
    if (s) {
        fst_model_release(&n);
        return s;
    }
    *m = n;
    return FST_OK;
}

void fst_model_release(fst_model *m)
{
    if (!m)
        return;
    for (int i = 0; m->class_names && i < m->classes; i++)
        fst_free(m->class_names[i]);
    fst_free(m->class_names);
    fst_state_release(&m->state);
    fst_graph_free(m->graph);
    *m = (fst_model){0};
}

fst_status fst_model_set_class_names(fst_model *m, char *const *names, int count, fst_error *err)
{
    if (count != m->classes)
        return fst_fail(err, FST_E_MISMATCH, "%d class names for %d classes", count, m->classes);
    char **copy = fst_calloc((size_t)count, sizeof *copy);
    bool ok = copy != NULL;
    for (int i = 0; ok && i < count; i++)
        ok = (copy[i] = fst_strdup(names[i])) != NULL;
    if (!ok) {
        for (int i = 0; copy && i < count; i++)
            fst_free(copy[i]);
        fst_free(copy);
        return fst_fail_memory(err, (size_t)count * sizeof *copy);
    }
    for (int i = 0; m->class_names && i < m->classes; i++)
        fst_free(m->class_names[i]);
    fst_free(m->class_names);
    m->class_names = copy;
    return FST_OK;
}

fst_status fst__model_copy_head(fst_model *out, const fst_model *m, fst_error *err)
{
    *out =
        (fst_model){.config = m->config, .channels = m->channels, .fingerprint = m->fingerprint, .classes = m->classes};
    memcpy(out->arch, m->arch, sizeof out->arch);
    memcpy(out->mean, m->mean, sizeof out->mean);
    memcpy(out->std, m->std, sizeof out->std);
    return m->class_names ? fst_model_set_class_names(out, m->class_names, m->classes, err) : FST_OK;
}

/* The tensors of a state in one list; names belong to the graph. Without a state only their descriptions. */
static size_t list_tensors(const fst_graph *g, const fst_state *s, fst_tensor *out)
{
    size_t n = 0;
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        out[n++] = (fst_tensor){p.name, FST_F32, p.shape, s ? s->params + p.offset : NULL};
    }
    for (size_t i = 0; i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        out[n++] = (fst_tensor){p.name, FST_F32, p.shape, s ? s->buffers + p.offset : NULL};
    }
    for (size_t i = 0; i < fst_graph_counters(g); i++)
        out[n++] = (fst_tensor){fst_graph_counter(g, i), FST_I64, {0}, s ? s->counters + i : NULL};
    return n;
}

fst_tensor *fst__model_tensors(const fst_graph *g, const fst_state *s, size_t *n)
{
    fst_tensor *list = fst_calloc(fst_graph_params(g) + fst_graph_buffers(g) + fst_graph_counters(g) + 1, sizeof *list);
    if (list)
        *n = list_tensors(g, s, list);
    return list;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void put_floats(char *out, size_t size, const float *v, int n)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? ",%.9g" : "%.9g", (double)v[i]);
}

static fst_status names_json(const fst_model *m, char **out, fst_error *err)
{
    json_t *list = json_array();
    fst_status s = FST_OK;
    for (int i = 0; !s && m->class_names && i < m->classes; i++)
        if (json_array_append_new(list, json_string(m->class_names[i])))
            s = fst_fail(err, FST_E_ARGUMENT, "the name of class %d is not UTF-8", i);
    char *text = s ? NULL : json_dumps(list, JSON_COMPACT);
    json_decref(list);
    if (!s && !text)
        s = fst_fail_memory(err, 16);
    if (!s)
        *out = text;
    return s;
}

void fst__model_meta_release(struct fst__model_meta *t)
{
    free(t->names);
    fst_free(t->pairs);
    t->names = NULL;
    t->pairs = NULL;
}

fst_status fst__model_meta(struct fst__model_meta *out, const fst_model *m, const char *format, const fst_pair *more,
                           size_t nmore, fst_error *err)
{
    struct fst__model_meta *t = out;
    fst_pair *meta = t->pairs = fst_calloc(FST__MODEL_PAIRS + nmore, sizeof *meta);
    size_t n = 0, at = 0;
    t->names = NULL;
    if (!meta)
        return fst_fail_memory(err, (FST__MODEL_PAIRS + nmore) * sizeof *meta);
    const fst_shape *in = &m->config.input;
    t->input[0] = 0;
    for (int i = 0; i < in->rank; i++)
        at += (size_t)snprintf(t->input + at, sizeof t->input - at, i ? ",%lld" : "%lld", (long long)in->dim[i]);
    snprintf(t->classes, sizeof t->classes, "%d", m->classes);
    fst__options_text(&m->config, t->options);
    snprintf(t->dropout, sizeof t->dropout, "%.17g,%.17g", m->config.dropout1, m->config.dropout2);
    put_floats(t->mean, sizeof t->mean, m->mean, m->channels);
    put_floats(t->std, sizeof t->std, m->std, m->channels);
    fst_status s = names_json(m, &t->names, err);
    if (s) {
        fst__model_meta_release(t);
        return s;
    }
    meta[n++] = (fst_pair){"format", format};
    if (strcmp(format, FST_MODEL_FORMAT) && strcmp(format, FST_INT8_FORMAT))
        meta[n++] = (fst_pair){FST__MODEL_KEY, FST_MODEL_FORMAT};
    meta[n++] = (fst_pair){"arch", m->arch};
    meta[n++] = (fst_pair){"classes", t->classes};
    meta[n++] = (fst_pair){"input", t->input};
    meta[n++] = (fst_pair){"dropout", t->dropout};
    meta[n++] = (fst_pair){"options", t->options};
    meta[n++] = (fst_pair){"normalise_mean", t->mean};
    meta[n++] = (fst_pair){"normalise_std", t->std};
    if (m->fingerprint)
        meta[n++] = (fst_pair){"features", "fingerprint"};
    meta[n++] = (fst_pair){"class_names", t->names};
    for (size_t i = 0; i < nmore; i++)
        meta[n++] = more[i];
    t->count = n;
    return FST_OK;
}

fst_status fst__model_write(const fst_model *m, const char *path, const char *format, const fst_tensor *tensors,
                            size_t ntensors, const fst_pair *more, size_t nmore, char digest[FST_DIGEST_HEX],
                            fst_error *err)
{
    struct fst__model_meta t;
    fst_status s = fst__model_meta(&t, m, format, more, nmore, err);
    if (s)
        return s;
    s = fst_safetensors_write(path, t.pairs, t.count, tensors, ntensors, digest, err);
    fst__model_meta_release(&t);
    return s;
}

static fst_status save_int8(const fst_model *m, const char *path, const fst_pair *more, size_t nmore,
                            char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct fst__int8_tensors t;
    fst_status s = fst__int8_tensors(&t, m->graph, &m->state, err);
    if (s)
        return s;
    s = fst__model_write(m, path, FST_INT8_FORMAT, t.list, t.n, more, nmore, digest, err);
    fst__int8_tensors_release(&t);
    return s;
}

fst_status fst_model_save(const fst_model *m, const char *path, const fst_pair *more, size_t nmore,
                          char digest[FST_DIGEST_HEX], fst_error *err)
{
    size_t n = 0;
    if (fst_model_is_int8(m))
        return save_int8(m, path, more, nmore, digest, err);
    fst_tensor *tensors = fst__model_tensors(m->graph, &m->state, &n);
    fst_status s = tensors ? fst__model_write(m, path, FST_MODEL_FORMAT, tensors, n, more, nmore, digest, err)
                           : fst_fail_memory(err, sizeof *tensors);
    fst_free(tensors);
    return s;
}

/* ---- reading --------------------------------------------------------------------------------------- */

static const char *safetensors_meta(const void *file, const char *key)
{
    return fst_safetensors_meta(file, key);
}

static const char *said(const struct fst__meta *f, const char *key)
{
    return f->get ? f->get(f->file, key) : NULL;
}

static const char *need(const struct fst__meta *f, const char *path, const char *key, fst_error *err)
{
    const char *v = said(f, key);
    if (!v)
        (void)fst_fail(err, FST_E_FORMAT, "%s: no \"%s\" in the file's metadata: not a fedstill model", path, key);
    return v;
}

static bool parse_floats(const char *text, float *out, int *n)
{
    int count = 0;
    while (*text) {
        char *end;
        if (count == FST_MODEL_CHANNELS)
            return false;
        out[count] = strtof(text, &end);
        if (end == text || !(out[count] - out[count] == 0))
            return false;
        count++;
        text = *end == ',' ? end + 1 : end;
        if (*end && *end != ',')
            return false;
    }
    *n = count;
    return true;
}

bool fst__shape_parse(const char *text, fst_shape *out)
{
    fst_shape s = {0};
    while (*text) {
        char *end;
        long long v = strtoll(text, &end, 10);
        if (end == text || v < 1 || v > 1 << 24 || s.rank == 4 || (*end && *end != ','))
            return false;
        s.dim[s.rank++] = v;
        text = *end == ',' ? end + 1 : end;
    }
    *out = s;
    return s.rank > 0;
}

bool fst__model_is_own(const struct fst__meta *f)
{
    const char *format = said(f, "format"), *key = said(f, FST__MODEL_KEY);
    return (format && !strcmp(format, FST_MODEL_FORMAT)) || (key && !strcmp(key, FST_MODEL_FORMAT));
}

fst_status fst__model_read_config(const struct fst__meta *f, const char *path, fst_model *m, fst_model_config *c,
                                  fst_error *err)
{
    const char *arch = need(f, path, "arch", err);
    const char *classes = need(f, path, "classes", err), *input = need(f, path, "input", err);
    const char *mean = said(f, "normalise_mean"), *std = said(f, "normalise_std");
    const char *dropout = said(f, "dropout"), *options = said(f, "options");
    const char *features = said(f, "features");
    int nmean = 0, nstd = 0;
    if (!arch || !classes || !input)
        return FST_E_FORMAT;
    char *end;
    errno = 0;
    long n = strtol(classes, &end, 10);
    if (end == classes || *end || errno || n < 1 || n > 65536)
        return fst_fail(err, FST_E_FORMAT, "%s: \"%s\" classes, 1 to 65536 are possible", path, classes);
    c->classes = (int)n;
    if (!fst__shape_parse(input, &c->input))
        return fst_fail(err, FST_E_FORMAT, "%s: the input \"%s\" is not a shape such as 1,28,28", path, input);
    if (!parse_floats(mean ? mean : "", m->mean, &nmean) || !parse_floats(std ? std : "", m->std, &nstd) ||
        nmean != nstd)
        return fst_fail(err, FST_E_FORMAT, "%s: normalise_mean and normalise_std do not go together", path);
    m->channels = nmean;
    if (features && strcmp(features, "fingerprint"))
        return fst_fail(err, FST_E_FORMAT, "%s: features \"%.40s\" are not known; \"fingerprint\" is", path, features);
    m->fingerprint = features;
    for (int i = 0; i < nmean; i++)
        if (!(m->std[i] > 0))
            return fst_fail(err, FST_E_FORMAT, "%s: normalise_std \"%s\" must be above 0", path, std);
    if (nmean > 1 && nmean != c->input.dim[0])
        return fst_fail(err, FST_E_FORMAT, "%s: normalise_mean has %d entries for an input of %lld channels", path,
                        nmean, (long long)c->input.dim[0]);
    if (options && !fst__options_parse(options, c))
        return fst_fail(err, FST_E_FORMAT, "%s: the network's options \"%.100s\" are not known here", path, options);
    if (dropout && sscanf(dropout, "%lf,%lf", &c->dropout1, &c->dropout2) != 2)
        return fst_fail(err, FST_E_FORMAT, "%s: dropout \"%s\" is not two numbers", path, dropout);
    if (!(c->dropout1 < 1) || !(c->dropout2 < 1)) /* negative means none */
        return fst_fail(err, FST_E_FORMAT, "%s: dropout \"%s\" must be below 1", path, dropout);
    return FST_OK;
}

fst_status fst__model_read_class_names(const struct fst__meta *f, const char *path, fst_model *m, fst_error *err)
{
    const char *text = said(f, "class_names");
    fst_status fits = text ? fst_json_fits(path, text, strlen(text), strlen(text), err) : FST_OK;
    if (fits)
        return fits;
    json_t *list = text ? json_loads(text, 0, NULL) : NULL;
    size_t n = json_array_size(list);
    fst_status s = FST_OK;
    if (text && !json_is_array(list))
        s = fst_fail(err, FST_E_FORMAT, "%s: class_names is not a list of %d names", path, m->classes);
    if (n) {
        char **names = n == (size_t)m->classes ? fst_calloc(n, sizeof *names) : NULL;
        for (size_t i = 0; names && i < n; i++) {
            names[i] = (char *)json_string_value(json_array_get(list, i));
            if (!names[i])
                s = FST_E_FORMAT;
        }
        if (!names || s)
            s = fst_fail(err, FST_E_FORMAT, "%s: class_names is not a list of %d names", path, m->classes);
        else
            s = fst_model_set_class_names(m, names, (int)n, err);
        fst_free(names);
    }
    json_decref(list);
    return s;
}

/* Collects what does not fit, so that one message tells all of it. */
static fst_status compare_tensors(const fst_safetensors *f, const char *path, const fst_tensor *want, size_t n,
                                  fst_error *err)
{
    char text[700] = "";
    size_t at = 0, wrong = 0, found = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k;
        char a[64], b[64], line[300] = "";
        if (!fst_safetensors_find(f, want[i].name, &k)) {
            snprintf(line, sizeof line, "missing %s %s; ", want[i].name, fst_shape_text(&want[i].shape, a, sizeof a));
        } else {
            fst_tensor t = fst_safetensors_at(f, k);
            found++;
            /* PyTorch writes scalars with rank 0 */
            if (want[i].dtype != FST_F32 && t.dtype != want[i].dtype)
                snprintf(line, sizeof line, "%s is %s, not %s; ", want[i].name, fst_dtype_name(t.dtype),
                         fst_dtype_name(want[i].dtype));
            else if (fst_shape_count(&t.shape) != fst_shape_count(&want[i].shape) ||
                     (want[i].shape.rank && !fst_shape_equal(&t.shape, &want[i].shape)))
                snprintf(line, sizeof line, "%s is %s, not %s; ", want[i].name, fst_shape_text(&t.shape, a, sizeof a),
                         fst_shape_text(&want[i].shape, b, sizeof b));
        }
        if (line[0] && ++wrong <= 6 && at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s", line);
    }
    for (size_t k = 0; k < fst_safetensors_count(f); k++) {
        const char *name = fst_safetensors_at(f, k).name;
        bool known = false;
        for (size_t i = 0; !known && i < n; i++)
            known = !strcmp(want[i].name, name);
        if (!known && ++wrong <= 6 && at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, "extra %.100s; ", name);
    }
    if (!wrong)
        return FST_OK;
    return fst_fail(err, FST_E_MISMATCH, "%s: %zu tensors do not fit the network: %s%s", path, wrong, text,
                    wrong > 6 ? "..." : "");
}

static fst_status read_tensors(const fst_safetensors *f, fst_model *m, fst_error *err)
{
    size_t n = 0;
    fst_tensor *want = fst__model_tensors(m->graph, &m->state, &n);
    fst_status s = want ? FST_OK : fst_fail_memory(err, sizeof *want);
    for (size_t i = 0; !s && i < n; i++) {
        size_t k = 0, count = (size_t)fst_shape_count(&want[i].shape);
        (void)fst_safetensors_find(f, want[i].name, &k);
        if (want[i].dtype == FST_F32)
            s = fst_safetensors_read_f32(f, k, want[i].data, count, err);
        else
            s = fst_safetensors_read(f, k, want[i].data, count * fst_dtype_size(want[i].dtype), err);
    }
    fst_free(want);
    return s;
}

/* Before memory is taken by what the metadata says, the file must hold as much. */
static fst_status compare(const fst_safetensors *f, const char *path, const fst_graph *g, fst_error *err)
{
    size_t n = 0;
    if (fst_graph_is_int8(g)) {
        struct fst__int8_tensors t = {0};
        fst_status st = fst__int8_tensors(&t, g, NULL, err);
        if (!st)
            st = compare_tensors(f, path, t.list, t.n, err);
        fst__int8_tensors_release(&t);
        return st;
    }
    fst_tensor *want = fst__model_tensors(g, NULL, &n);
    fst_status s = want ? compare_tensors(f, path, want, n, err) : fst_fail_memory(err, sizeof *want);
    fst_free(want);
    return s;
}

static fst_status load(fst_model *m, const char *path, const fst_safetensors *f, fst_error *err)
{
    fst_model n = {0}, head = {0};
    fst_model_config c = {0};
    struct fst__meta meta = {safetensors_meta, f};
    const char *format = fst_safetensors_meta(f, "format");
    bool int8 = format && !strcmp(format, FST_INT8_FORMAT);
    if (format && strcmp(format, FST_MODEL_FORMAT) && !int8)
        return fst_fail(
            err, FST_E_FORMAT,
            "%s: format is \"%.64s\", \"%s\" is needed: not a fedstill model file; `fedstill model import` makes "
            "one of a state_dict",
            path, format, FST_MODEL_FORMAT);
    if (!need(&meta, path, "format", err))
        return FST_E_FORMAT;
    fst_status s = fst__model_read_config(&meta, path, &head, &c, err);
    if (s)
        return s;
    s = fst__model_network(&n, fst_safetensors_meta(f, "arch"), &c, err);
    if (s)
        return fst_fail_in(err, s, "%s", path);
    if (int8)
        s = fst__int8_network(&n, f, path, err);
    if (!s)
        s = compare(f, path, n.graph, err);
    if (!s)
        s = fst_state_init(&n.state, n.graph, err);
    if (!s) {
        n.channels = head.channels;
        n.fingerprint = head.fingerprint;
        memcpy(n.mean, head.mean, sizeof n.mean);
        memcpy(n.std, head.std, sizeof n.std);
        s = fst__model_read_class_names(&meta, path, &n, err);
    }
    if (!s)
        s = read_tensors(f, &n, err);
    if (!s && int8)
        s = fst__int8_check_state(&n, path, err);
    if (s) {
        fst_model_release(&n);
        return s;
    }
    *m = n;
    return FST_OK;
}

/* What is no safetensors file, by its name, before a header is looked for in it. */
static fst_status check_head(const char *path, fst_error *err)
{
    unsigned char head[FST__WEIGHTS_HEAD];
    size_t len = 0;
    fst_status s = fst__weights_head(path, head, &len, err);
    if (s || (len > 8 && head[8] == '{'))
        return s;
    if (fst_pth_probe(head, len))
        return fst_fail(
            err, FST_E_UNSUPPORTED,
            "%s: a zip archive or a file of torch.save, not a fedstill model file; `fedstill model import` makes "
            "one of a state_dict",
            path);
    const char *kind = fst__foreign_kind(head, len);
    return kind ? fst_fail(err, FST_E_UNSUPPORTED, "%s is %s", path, kind) : FST_OK;
}

fst_status fst_model_load(fst_model *m, const char *path, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = check_head(path, err);
    if (!s)
        s = fst_safetensors_open(&f, path, err);
    if (!s)
        s = load(m, path, f, err);
    fst_safetensors_free(f);
    return s;
}

fst_status fst_model_load_memory(fst_model *m, const char *name, const void *data, size_t len, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = fst_safetensors_open_memory(&f, name, data, len, err);
    if (!s)
        s = load(m, name, f, err);
    fst_safetensors_free(f);
    return s;
}
