/*
 * A file of tensors from elsewhere becomes a model, complete or not at all: names by names.c, formats by weights.c,
 * what happened to every tensor in the report. It changes no shapes and guesses no values; what the file does not have
 * is made up only where the caller asks for it (a fresh head, padded shortcuts). Memory for weights is taken when
 * the file is known to hold as many.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import.h"
#include "names.h"
#include "weights.h"
#include "zoo.h"

enum { HINT = 256 };
enum { NONE = -1, OUT = -2, OTHER = -3 }; /* a foreign tensor: unknown here, left out, belongs to an old head */

struct job {
    const fst_import_options *o;
    const char *path, *arch;
    struct fst__weights w;
    struct fst__map map;
    fst_model model;
    fst_tensor *want; /* the network's tensors, `wants` of them */
    size_t wants;
    int *by_name; /* want's indices in the order of names */
    int *source;  /* for each of want: which of the file's, or NONE */
    bool *fresh;  /* for each of want */
    bool *twice;  /* for each of want: several of the file's are it */
    int *target;  /* for each of the file's: which of want, or one of the above */
    size_t count; /* of the file's */
    fst_import_report report;
};

static void release(struct job *j)
{
    fst__weights_release(&j->w);
    fst__map_release(&j->map);
    fst_model_release(&j->model);
    fst_import_report_release(&j->report);
    fst_free(j->want);
    fst_free(j->by_name);
    fst_free(j->source);
    fst_free(j->fresh);
    fst_free(j->twice);
    fst_free(j->target);
}

static fst_tensor theirs(const struct job *j, size_t i)
{
    return j->w.format->at(j->w.file, i);
}

/* ---- the network ---------------------------------------------------------------------------------- */

static struct fst__meta meta_of(const struct job *j)
{
    return (struct fst__meta){j->w.format->meta, j->w.file};
}

/* A fedstill file says itself what it is, and so does what it was exported to. */
static fst_status read_own(struct job *j, fst_model_config *c, fst_error *err)
{
    struct fst__meta f = meta_of(j);
    const char *arch = f.get ? f.get(f.file, "arch") : NULL, *format = f.get ? f.get(f.file, "format") : NULL;
    if (format && !strcmp(format, FST_INT8_FORMAT))
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s is an int8 model, which cannot be imported: take the f32 model that it was made of",
                        j->path);
    for (size_t i = 0; arch && j->arch && i < fst_models(); i++)
        if (!strcmp(fst_model_at(i).name, arch) && strcmp(arch, j->arch))
            return fst_fail(err, FST_E_MISMATCH, "%s: its metadata say that it is a %s, not a %s", j->path, arch,
                            j->arch);
    return fst__model_is_own(&f) ? fst__model_read_config(&f, j->path, &j->model, c, err) : FST_OK;
}

static fst_status configure(struct job *j, fst_model_config *c, fst_error *err)
{
    fst_status s = read_own(j, c, err);
    if (!s && j->w.format->resolve)
        s = j->w.format->resolve(j->w.file, j->o, &j->arch, c, err);
    else if (!s && !j->arch)
        s = fst_fail(err, FST_E_CONFIG, "%s: a file of tensors does not say of which network: name it", j->path);
    for (size_t i = 0; !s && i < j->o->setting_count; i++)
        s = fst_model_config_set(c, j->arch, j->o->settings[i], err);
    if (j->o->classes)
        c->classes = j->o->classes;
    if (j->o->input.rank)
        c->input = j->o->input;
    if (!s && j->o->pad_shortcuts && strcmp(j->arch, "resnet8") && strcmp(j->arch, "resnet20") &&
        strcmp(j->arch, "resnet56"))
        s = fst_fail(err, FST_E_CONFIG, "only resnet8, resnet20 and resnet56 have shortcuts to pad, not %.64s",
                     j->arch);
    return s;
}

/* The network of c in j, without a state; normalisation stays. */
static fst_status build(struct job *j, const fst_model_config *c, fst_error *err)
{
    fst_model n = {0};
    fst_status s = fst__model_network(&n, j->arch, c, err);
    if (s)
        return s;
    n.channels = j->model.channels;
    n.fingerprint = j->model.fingerprint;
    memcpy(n.mean, j->model.mean, sizeof n.mean);
    memcpy(n.std, j->model.std, sizeof n.std);
    fst_free(j->want);
    fst_model_release(&j->model);
    j->model = n;
    j->want = fst__model_tensors(n.graph, NULL, &j->wants);
    return j->want ? FST_OK : fst_fail_memory(err, sizeof *j->want);
}

/* Whether a tensor belongs to layer `layer`. */
static bool of_layer(const char *tensor, const char *layer)
{
    size_t n = strlen(layer);
    return !strncmp(tensor, layer, n) && tensor[n] == '.';
}

/* The k-th layer with parameters from the end if it and all after it are linear, otherwise NULL. */
static const char *head_layer(const fst_graph *g, size_t k)
{
    for (size_t i = fst_graph_layers(g); i-- > 0;) {
        fst_layer_info l = fst_graph_layer(g, i);
        if (l.params && strcmp(l.op, "linear"))
            return NULL;
        if (l.params && k-- == 0)
            return l.name;
    }
    return NULL;
}

/* ---- names ------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const fst_tensor *)a)->name, ((const fst_tensor *)b)->name);
}

static int find(const struct job *j, const char *name)
{
    size_t low = 0, high = j->wants;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strcmp(j->want[j->by_name[mid]].name, name);
        if (c == 0)
            return j->by_name[mid];
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NONE;
}

static bool wanted(const void *ctx, const char *name)
{
    return find(ctx, name) >= 0;
}

static fst_status sort_names(struct job *j, fst_error *err)
{
    fst_tensor *copy = fst_calloc(j->wants + 1, sizeof *copy);
    if (!copy)
        return fst_fail_memory(err, j->wants * sizeof *copy);
    for (size_t i = 0; i < j->wants; i++) {
        copy[i] = j->want[i];
        copy[i].data = &j->want[i]; /* where it came from */
    }
    qsort(copy, j->wants, sizeof *copy, by_name);
    for (size_t i = 0; i < j->wants; i++)
        j->by_name[i] = (int)((const fst_tensor *)copy[i].data - j->want);
    fst_free(copy);
    return FST_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

/* What trainers and profilers leave in a state_dict. */
static bool is_bookkeeping(const char *name)
{
    return ends_with(name, "n_averaged") || ends_with(name, "total_ops") || ends_with(name, "total_params");
}

/* Whether a name that the network does not have is one of a classifier's last layers. */
static bool is_head_name(const char *name)
{
    static const char *const words[] = {"fc",         "fc1",  "fc2",    "fc3",         "linear", "linear1", "linear2",
                                        "classifier", "head", "logits", "last_linear", "output", "out"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (of_layer(name, words[i]))
            return true;
    return false;
}

/* theirs without prefix and suffix; false when it has not got them, or is too long to be mapped. */
static bool cut(const fst_import_options *o, const char *name, char out[FST__NAME])
{
    size_t n = strlen(name), front = o->prefix ? strlen(o->prefix) : 0, back = o->suffix ? strlen(o->suffix) : 0;
    if (n < front + back || n - front - back >= FST__NAME || (front && strncmp(name, o->prefix, front)) ||
        (back && !ends_with(name, o->suffix)))
        return false;
    memcpy(out, name + front, n - front - back);
    out[n - front - back] = 0;
    return true;
}

static int target_of(struct job *j, const char *name)
{
    char rest[FST__NAME], ours[FST__NAME];
    if (strlen(name) >= FST__NAME)
        return j->o->prefix || j->o->suffix ? OUT : NONE;
    if (!cut(j->o, name, rest) || !fst__map_name(&j->map, rest, wanted, j, ours))
        return OUT;
    int k = find(j, ours);
    if (k >= 0)
        return k;
    return is_bookkeeping(ours) ? OUT : is_head_name(ours) ? OTHER : NONE;
}

/* How many classes the file's head has; 0 when that cannot be told. */
static int file_classes(const struct job *j)
{
    const char *last = head_layer(j->model.graph, 0);
    for (size_t i = 0; last && i < j->count; i++) {
        fst_tensor t = theirs(j, i);
        if (j->target[i] >= 0 && of_layer(j->want[j->target[i]].name, last) && t.shape.rank == 2 &&
            t.shape.dim[0] >= 1 && t.shape.dim[0] <= 65536)
            return (int)t.shape.dim[0];
    }
    return 0;
}

/* ---- what fits ---------------------------------------------------------------------------------------- */

static bool is_float(fst_dtype t)
{
    return t == FST_F32 || t == FST_F64 || t == FST_F16 || t == FST_BF16;
}

static bool fits(const fst_tensor *ours, const fst_tensor *t)
{
    if (ours->dtype == FST_I64) /* a counter: PyTorch's are scalars, some writers' have a dimension */
        return fst_shape_count(&t->shape) == 1 && t->dtype != FST_BOOL;
    return is_float(t->dtype) && fst_shape_equal(&ours->shape, &t->shape);
}

static bool is_counter(const struct job *j, size_t k)
{
    return j->want[k].dtype == FST_I64;
}

static bool is_fit(const struct job *j, size_t k)
{
    if (j->source[k] == NONE)
        return is_counter(j, k);
    fst_tensor t = theirs(j, (size_t)j->source[k]);
    return fits(&j->want[k], &t);
}

/* The last layer always, those before it as long as they are linear where they do not fit. */
static void choose_fresh(struct job *j)
{
    const char *layer;
    for (size_t n = 0; j->o->head == FST_HEAD_FRESH && (layer = head_layer(j->model.graph, n)); n++) {
        bool fit = n > 0;
        for (size_t k = 0; fit && k < j->wants; k++)
            fit = !of_layer(j->want[k].name, layer) || is_fit(j, k);
        for (size_t k = 0; !fit && k < j->wants; k++)
            if (of_layer(j->want[k].name, layer))
                j->fresh[k] = true;
    }
}

static bool is_padded(const struct job *j, size_t k)
{
    return j->o->pad_shortcuts && j->source[k] == NONE && strstr(j->want[k].name, ".downsample.");
}

static fst_status report_ours(struct job *j, size_t k, fst_error *err)
{
    const fst_tensor *ours = &j->want[k];
    fst_import_report *r = &j->report;
    if (j->fresh[k])
        return fst__report_add(r, FST_IMPORT_FRESH, ours, NULL, err);
    if (j->source[k] == NONE)
        return fst__report_add(r,
                               is_counter(j, k)  ? FST_IMPORT_ZERO
                               : is_padded(j, k) ? FST_IMPORT_PADDED
                                                 : FST_IMPORT_MISSING,
                               ours, NULL, err);
    fst_tensor t = theirs(j, (size_t)j->source[k]);
    bool made = j->w.format->made && j->w.format->made(j->w.file, (size_t)j->source[k]);
    fst_import_kind kind = j->twice[k]       ? FST_IMPORT_TWICE
                           : !fits(ours, &t) ? FST_IMPORT_MISSHAPED
                           : made            ? FST_IMPORT_MADE
                                             : FST_IMPORT_TAKEN;
    return fst__report_add(r, kind, ours, &t, err);
}

static fst_status report_theirs(struct job *j, size_t i, fst_error *err)
{
    fst_tensor t = theirs(j, i);
    int k = j->target[i];
    if (k == OUT || (k == OTHER && j->o->head == FST_HEAD_FRESH) || (k >= 0 && j->fresh[k]))
        return fst__report_add(&j->report, FST_IMPORT_LEFT_OUT, NULL, &t, err);
    if (k < 0)
        return fst__report_add(&j->report, FST_IMPORT_EXTRA, NULL, &t, err);
    return j->source[k] == (int)i ? FST_OK : fst__report_add(&j->report, FST_IMPORT_TWICE, &j->want[k], &t, err);
}

static fst_status report_all(struct job *j, fst_error *err)
{
    fst_status s = FST_OK;
    j->report.format = j->w.format->name;
    for (size_t k = 0; !s && k < j->wants; k++)
        s = report_ours(j, k, err);
    for (size_t i = 0; !s && i < j->count; i++)
        s = report_theirs(j, i, err);
    for (size_t i = 0; !s && i < j->map.count; i++) {
        fst_tensor rule = {.name = j->map.rules[i].from};
        if (!j->map.rules[i].used)
            s = fst__report_add(&j->report, FST_IMPORT_UNUSED, NULL, &rule, err);
    }
    return s;
}

/* How many of the network's tensors with values the file has after a prefix. */
static size_t covered(struct job *j, const char *prefix)
{
    fst_import_options o = *j->o;
    const fst_import_options *own = j->o;
    size_t n = 0;
    o.prefix = prefix;
    j->o = &o;
    for (size_t i = 0; i < j->count; i++) {
        int k = target_of(j, theirs(j, i).name);
        n += k >= 0 && !is_counter(j, (size_t)k);
    }
    j->o = own;
    return n;
}

/* A prefix with which every tensor of the network would be found, each once: the shortest in front of the file's
 * names; false when none does. Tries the beginnings of a few names only. */
static bool find_prefix(struct job *j, char out[FST__NAME])
{
    enum { TRIED = 32, MOST_NAMES = 4096 };
    size_t need = 0, tried = 0;
    char last[FST__NAME] = "";
    for (size_t k = 0; k < j->wants; k++)
        need += !is_counter(j, k);
    for (size_t i = 0; !j->o->prefix && j->count <= MOST_NAMES && i < j->count && tried < TRIED; i++) {
        const char *name = theirs(j, i).name, *end = strchr(name, '.');
        if (strlen(name) >= FST__NAME || (last[0] && !strncmp(name, last, strlen(last))))
            continue;
        for (; end && tried < TRIED; end = strchr(end + 1, '.'), tried++) {
            snprintf(out, FST__NAME, "%.*s", (int)(end + 1 - name), name);
            if (covered(j, out) == need)
                return true;
            if (end == strchr(name, '.'))
                strcpy(last, out); /* what begins like this was tried with its first name */
        }
    }
    return false;
}

/* What the caller could try, into out. */
static const char *hint(struct job *j, char out[HINT])
{
    bool head = false, shortcuts = true;
    char prefix[FST__NAME];
    for (size_t i = 0; i < j->report.count; i++) {
        const fst_import_item *item = &j->report.items[i];
        bool wrong = item->kind >= FST_IMPORT_MISSING;
        const char *layer;
        for (size_t n = 0; wrong && item->ours && (layer = head_layer(j->model.graph, n)); n++)
            head = head || of_layer(item->ours, layer);
        shortcuts = shortcuts && (!wrong || (item->kind == FST_IMPORT_MISSING && strstr(item->ours, ".downsample.")));
    }
    bool found =
        (j->report.of[FST_IMPORT_MISSING] || j->report.of[FST_IMPORT_EXTRA] || j->report.of[FST_IMPORT_TWICE]) &&
        find_prefix(j, prefix);
    if (found && j->report.of[FST_IMPORT_TWICE])
        snprintf(out, HINT, " (a prefix or a suffix says which of them to take, such as the prefix %.128s)", prefix);
    else if (found)
        snprintf(out, HINT, " (the whole network is there after the prefix %.128s)", prefix);
    else if (j->report.of[FST_IMPORT_TWICE])
        snprintf(out, HINT, " (a prefix or a suffix says which of them to take)");
    else if (shortcuts && j->report.of[FST_IMPORT_MISSING])
        snprintf(out, HINT, " (shortcuts without parameters can be padded)");
    else
        snprintf(out, HINT, "%s",
                 head && j->o->head == FST_HEAD_KEEP ? " (a fresh head can take the place of one that does not fit)"
                                                     : "");
    return out;
}

/* ---- values --------------------------------------------------------------------------------------------- */

static fst_status read_counter(struct job *j, size_t k, int64_t *out, bool *whole, fst_error *err)
{
    size_t i = (size_t)j->source[k];
    float v = 0;
    *whole = true;
    if (theirs(j, i).dtype == FST_I64)
        return j->w.format->read(j->w.file, i, out, sizeof *out, err);
    fst_status s = j->w.format->read_f32(j->w.file, i, &v, 1, err);
    *whole = v >= 0 && v < 0x1p62f && v == floorf(v);
    if (!s && *whole)
        *out = (int64_t)v;
    return s;
}

/* `ours` has its memory. */
static fst_status read_tensor(struct job *j, size_t k, const fst_tensor *ours, fst_error *err)
{
    size_t i = (size_t)j->source[k], n = (size_t)fst_shape_count(&ours->shape), bad = 0;
    bool whole = true;
    if (ours->dtype == FST_I64) {
        fst_status s = read_counter(j, k, ours->data, &whole, err);
        bad = !whole;
        if (s)
            return s;
    } else {
        const float *x = ours->data;
        fst_status s = j->w.format->read_f32(j->w.file, i, ours->data, n, err);
        if (s)
            return s;
        for (size_t e = 0; e < n; e++)
            bad += !isfinite(x[e]);
    }
    if (!bad)
        return FST_OK;
    fst_tensor t = theirs(j, i);
    fst_status s = fst__report_add(&j->report, FST_IMPORT_NONFINITE, ours, &t, err);
    if (!s)
        j->report.items[j->report.count - 1].nonfinite = bad;
    return s;
}

/* He et al.'s option A as a convolution: channels in the middle, zeros before and after, as akamaster pads; and a
 * batch norm (eps 1e-5) that divides by 1. */
static void pad(const fst_tensor *t)
{
    float *x = t->data;
    int64_t n = fst_shape_count(&t->shape);
    float each = ends_with(t->name, ".1.weight") ? 1 : ends_with(t->name, "_var") ? 1 - 1e-5F : 0;
    for (int64_t i = 0; i < n; i++)
        x[i] = each;
    if (ends_with(t->name, ".0.weight")) {
        int64_t out = t->shape.dim[0], in = t->shape.dim[1], before = (out - in) / 2;
        for (int64_t i = 0; i < in; i++)
            x[(before + i) * in + i] = 1;
    }
}

static fst_status read_values(struct job *j, fst_error *err)
{
    size_t n = 0;
    fst_status s = fst_state_init(&j->model.state, j->model.graph, err);
    if (s)
        return s;
    fst_tensor *list = fst__model_tensors(j->model.graph, &j->model.state, &n);
    if (!list)
        return fst_fail_memory(err, sizeof *list);
    if (j->o->head == FST_HEAD_FRESH)
        fst_state_randomise(&j->model.state, j->model.graph, j->o->seed);
    for (size_t k = 0; !s && k < n; k++)
        if (!j->fresh[k] && j->source[k] != NONE)
            s = read_tensor(j, k, &list[k], err);
        else if (!j->fresh[k] && !is_counter(j, k))
            pad(&list[k]);
    fst_free(list);
    return s;
}

/* ---- together -------------------------------------------------------------------------------------------- */

static fst_status map_names(struct job *j, fst_error *err)
{
    j->count = j->w.format->count(j->w.file);
    j->by_name = fst_calloc(j->wants + 1, sizeof *j->by_name);
    j->source = fst_calloc(j->wants + 1, sizeof *j->source);
    j->fresh = fst_calloc(j->wants + 1, sizeof *j->fresh);
    j->twice = fst_calloc(j->wants + 1, sizeof *j->twice);
    j->target = fst_calloc(j->count + 1, sizeof *j->target);
    if (!j->by_name || !j->source || !j->fresh || !j->twice || !j->target)
        return fst_fail_memory(err, (j->wants + j->count) * sizeof *j->source);
    fst_status s = sort_names(j, err);
    for (size_t k = 0; k < j->wants; k++)
        j->source[k] = NONE;
    for (size_t i = 0; !s && i < j->count; i++) {
        int k = j->target[i] = target_of(j, theirs(j, i).name);
        if (k >= 0)
            j->twice[k] = j->twice[k] || j->source[k] != NONE;
        if (k >= 0 && j->source[k] == NONE)
            j->source[k] = (int)i;
    }
    return s;
}

static fst_status match_network(struct job *j, fst_error *err)
{
    fst_model_config c = {0};
    fst_status s = configure(j, &c, err);
    if (!s)
        s = build(j, &c, err);
    if (!s)
        s = map_names(j, err);
    int classes = s || c.classes ? 0 : file_classes(j);
    if (classes && classes != j->model.classes) { /* names do not depend on it */
        c.classes = classes;
        s = build(j, &c, err);
    }
    if (s)
        return s;
    choose_fresh(j);
    return report_all(j, err);
}

static fst_status take(struct job *j, fst_error *err)
{
    char text[HINT];
    fst_status s = match_network(j, err);
    if (!s && fst__report_wrong(&j->report, false))
        s = fst__report_fail(&j->report, j->path, j->arch, hint(j, text), err);
    if (!s && !j->report.of[FST_IMPORT_TAKEN])
        s = fst_fail(err, FST_E_MISMATCH, "%s: nothing of it would be in the model, whose head is all there is",
                     j->path);
    if (!s)
        s = read_values(j, err);
    if (!s && fst__report_wrong(&j->report, j->o->allow_nonfinite))
        s = fst__report_fail(&j->report, j->path, j->arch, "", err);
    struct fst__meta f = meta_of(j);
    if (!s && fst__model_is_own(&f) && j->o->head == FST_HEAD_KEEP)
        s = fst__model_read_class_names(&f, j->path, &j->model, err);
    return s;
}

static fst_status import(fst_model *m, const char *path, const void *data, size_t len, const fst_import_options *o,
                         fst_import_report *report, fst_error *err)
{
    struct job j = {.o = o, .path = path, .arch = o->arch};
    fst_status s = fst__map_init(&j.map, o->map, o->map_name ? o->map_name : "map", err);
    if (!s)
        s = fst__weights_open(&j.w, path, data, len, o->prefix, err);
    if (!s)
        s = take(&j, err);
    if (report) {
        *report = j.report;
        j.report = (fst_import_report){0};
    }
    if (!s) {
        *m = j.model;
        j.model = (fst_model){0};
    }
    release(&j);
    return s;
}

fst_status fst_model_import(fst_model *m, const char *path, const fst_import_options *o, fst_import_report *report,
                            fst_error *err)
{
    return import(m, path, NULL, 0, o, report, err);
}

fst_status fst_model_import_memory(fst_model *m, const char *name, const void *data, size_t len,
                                   const fst_import_options *o, fst_import_report *report, fst_error *err)
{
    return import(m, name, data ? data : "", data ? len : 0, o, report, err);
}
