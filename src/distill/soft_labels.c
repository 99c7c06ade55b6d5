/* Soft labels: made by a teacher, kept by sample hash in f32, f16 or top-k, found again by hash. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/distill.h"

#define FORMAT "fedstill-soft-labels-1"
enum { MAKE_BATCH = 512, MAX_SAMPLES = 1 << 30, MAX_COMPARED = 64 };

const char *fst_soft_content_name(fst_soft_content c)
{
    return c == FST_SOFT_LOGITS ? "logits" : "probabilities";
}

const char *fst_soft_encoding_name(fst_soft_encoding e)
{
    static const char *const names[] = {"f32", "f16", "top_k"};
    return (size_t)e < 3 ? names[e] : "?";
}

void fst_soft_labels_release(fst_soft_labels *s)
{
    if (!s)
        return;
    fst_free(s->keys);
    fst_free(s->f32);
    fst_free(s->f16);
    fst_free(s->top_class);
    *s = (fst_soft_labels){0};
}

static size_t row_width(const fst_soft_labels *s)
{
    return s->spec.encoding == FST_SOFT_TOP_K ? (size_t)s->spec.top_k : (size_t)s->classes;
}

static fst_status check_spec(const fst_soft_spec *s, int classes, fst_error *err)
{
    if (!(s->temperature > 0) || !isfinite(s->temperature))
        return fst_fail(err, FST_E_CONFIG, "the temperature must be above 0, not %g", s->temperature);
    if (s->encoding == FST_SOFT_TOP_K && (s->top_k < 1 || s->top_k > classes))
        return fst_fail(err, FST_E_CONFIG, "top_k must be 1 to %d, not %d", classes, s->top_k);
    if (s->encoding == FST_SOFT_TOP_K && s->content == FST_SOFT_LOGITS)
        return fst_fail(err, FST_E_CONFIG, "logits cannot be kept as top_k: the tail has no mass to spread; use f16");
    return FST_OK;
}

static fst_status allocate(fst_soft_labels *s, fst_error *err)
{
    size_t n = s->samples * row_width(s);
    s->keys = fst_calloc(s->samples + 1, sizeof *s->keys);
    if (s->spec.encoding == FST_SOFT_F32)
        s->f32 = fst_calloc(n + 1, sizeof *s->f32);
    else
        s->f16 = fst_calloc(n + 1, sizeof *s->f16);
    if (s->spec.encoding == FST_SOFT_TOP_K)
        s->top_class = fst_calloc(n + 1, sizeof *s->top_class);
    if (!s->keys || (!s->f32 && !s->f16) || (s->spec.encoding == FST_SOFT_TOP_K && !s->top_class)) {
        fst_soft_labels_release(s);
        return fst_fail_memory(err, n * sizeof(float));
    }
    return FST_OK;
}

/* ---- making ------------------------------------------------------------------------------------- */

static int compare_keys(const fst_hash128 *a, const fst_hash128 *b)
{
    if (a->hi != b->hi)
        return a->hi < b->hi ? -1 : 1;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

struct keyed { /* a sample of the source, to be sorted by key */
    fst_hash128 key;
    uint32_t index;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    int c = compare_keys(&x->key, &y->key);
    return c ? c : x->index < y->index ? -1 : x->index > y->index;
}

static void encode_row(fst_soft_labels *s, size_t row, const float *v)
{
    size_t width = row_width(s), n = (size_t)s->classes;
    if (s->spec.encoding == FST_SOFT_F32) {
        memcpy(s->f32 + row * n, v, n * sizeof *v);
        return;
    }
    if (s->spec.encoding == FST_SOFT_F16) {
        for (size_t j = 0; j < n; j++)
            s->f16[row * n + j] = fst_f16_from_f32(v[j]);
        return;
    }
    for (size_t k = 0; k < width; k++) { /* k is small: pick the largest not yet taken */
        size_t best = n;
        for (size_t j = 0; j < n; j++) {
            bool taken = false;
            for (size_t i = 0; !taken && i < k; i++)
                taken = s->top_class[row * width + i] == j;
            if (!taken && (best == n || v[j] > v[best]))
                best = j;
        }
        s->top_class[row * width + k] = (uint16_t)best;
        s->f16[row * width + k] = fst_f16_from_f32(v[best]);
    }
}

static fst_status check_teacher(const fst_soft_make *how, const fst_runner *teacher, fst_error *err)
{
    const fst_graph *g = fst_runner_graph(teacher);
    fst_shape in = fst_graph_input_shape(g), out = fst_graph_output_shape(g);
    char a[64], b[64];
    if (!fst_shape_equal(&in, &how->source->shape))
        return fst_fail(err, FST_E_MISMATCH, "the teacher takes %s, the samples of %s are %s",
                        fst_shape_text(&in, a, sizeof a), how->source->name,
                        fst_shape_text(&how->source->shape, b, sizeof b));
    if (how->classes < 1 || fst_shape_count(&out) != how->classes)
        return fst_fail(err, FST_E_MISMATCH, "the teacher has %lld classes, not %d", (long long)fst_shape_count(&out),
                        how->classes);
    return FST_OK;
}

static fst_status check_how(const fst_soft_make *how, const fst_soft_spec *spec, fst_error *err)
{
    if (how->more_count >= FST_MAX_TEACHERS)
        return fst_fail(err, FST_E_LIMIT, "%zu teachers; %d at most", 1 + how->more_count, FST_MAX_TEACHERS);
    fst_status st = check_teacher(how, how->teacher, err);
    for (size_t k = 0; !st && k < how->more_count; k++)
        st = check_teacher(how, how->more[k].runner, err);
    if (st)
        return st;
    if (how->more_count && spec->content == FST_SOFT_LOGITS && how->weights != FST_ENSEMBLE_MEAN_LOGITS)
        return fst_fail(err, FST_E_CONFIG, "the logits of several teachers are their mean: %s has none",
                        fst_ensemble_name(how->weights));
    if (how->subset && !how->subset_count)
        return fst_fail(err, FST_E_ARGUMENT, "no samples to make soft labels for");
    for (size_t i = 0; how->subset && i < how->subset_count; i++)
        if (how->subset[i] >= how->source->count)
            return fst_fail(err, FST_E_ARGUMENT, "there is no sample %u, %s has %zu", how->subset[i], how->source->name,
                            how->source->count);
    return FST_OK;
}

static fst_status sort_samples(const fst_soft_make *how, size_t total, struct keyed *list, size_t *different,
                               fst_error *err)
{
    for (size_t i = 0; i < total; i++) {
        list[i].index = how->subset ? how->subset[i] : (uint32_t)i;
        fst_status s = fst_source_key(how->source, list[i].index, &list[i].key, err);
        if (s)
            return s;
    }
    qsort(list, total, sizeof *list, by_key);
    size_t n = 0;
    for (size_t i = 0; i < total; i++)
        if (i == 0 || compare_keys(&list[i].key, &list[n - 1].key))
            list[n++] = list[i];
    *different = n;
    return FST_OK;
}

/* All teachers over the samples: each has a loader with its own normalisation, and they go side by side. */
struct panel {
    const fst_soft_make *how;
    fst_soft_teacher teacher[FST_MAX_TEACHERS];
    fst_loader *loader[FST_MAX_TEACHERS];
    float *logits[FST_MAX_TEACHERS]; /* MAKE_BATCH x classes */
    const float *views[FST_MAX_TEACHERS];
    size_t count;
    float *soft; /* MAKE_BATCH x classes */
};

static void close_panel(struct panel *p)
{
    for (size_t k = 0; k < p->count; k++) {
        fst_loader_free(p->loader[k]);
        fst_free(p->logits[k]);
    }
    fst_free(p->soft);
}

static fst_status open_panel(struct panel *p, const fst_soft_labels *s, const uint32_t *order, fst_error *err)
{
    size_t n = MAKE_BATCH * (size_t)s->classes;
    p->count = 1 + p->how->more_count;
    p->teacher[0] = (fst_soft_teacher){p->how->teacher, p->how->teacher_state, p->how->transform};
    for (size_t k = 1; k < p->count; k++)
        p->teacher[k] = p->how->more[k - 1];
    p->soft = fst_calloc(n, sizeof *p->soft);
    fst_status st = p->soft ? FST_OK : fst_fail_memory(err, n * sizeof *p->soft);
    for (size_t k = 0; !st && k < p->count; k++) {
        fst_loader_spec spec = {.source = p->how->source,
                                .subset = order,
                                .subset_count = s->samples,
                                .batch_size = MAKE_BATCH,
                                .transform = p->teacher[k].transform,
                                .background = true};
        p->views[k] = p->logits[k] = fst_calloc(n, sizeof(float));
        st = p->logits[k] ? fst_loader_new(&p->loader[k], &spec, err) : fst_fail_memory(err, n * sizeof(float));
        if (!st)
            st = fst_loader_start(p->loader[k], 0, 0, err);
    }
    return st;
}

/* The teachers' logits of the next rows. */
static fst_status ask_all(struct panel *p, int classes, fst_batch *b, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < p->count; k++) {
        st = fst_loader_next(p->loader[k], b, err);
        if (st || !b->rows)
            return st;
        st = fst_runner_logits(p->teacher[k].runner, p->teacher[k].state, b->x, b->rows, p->logits[k], err);
        for (size_t i = 0; !st && i < b->rows * (size_t)classes; i++)
            if (!isfinite(p->logits[k][i]))
                st = fst_fail(err, FST_E_NUMERIC, "the teacher's logits for sample %u are not finite",
                              b->index[i / (size_t)classes]);
    }
    return st;
}

/* What is kept of a batch: rows x classes. */
static fst_status make_rows(struct panel *p, const fst_soft_labels *s, const fst_batch *b, const float **out,
                            fst_error *err)
{
    size_t n = b->rows * (size_t)s->classes;
    fst_teachers all = {p->views, p->count, b->rows, s->classes, b->labels};
    *out = p->soft;
    if (s->spec.content == FST_SOFT_PROBABILITIES && p->count > 1)
        return fst_teachers_target(p->how->weights, &all, s->spec.temperature, p->soft, NULL, err);
    if (s->spec.content == FST_SOFT_PROBABILITIES)
        fst_softmax(p->logits[0], b->rows, s->classes, s->spec.temperature, p->soft);
    else if (p->count == 1)
        *out = p->logits[0];
    for (size_t i = 0; s->spec.content == FST_SOFT_LOGITS && p->count > 1 && i < n; i++) {
        double sum = 0;
        for (size_t k = 0; k < p->count; k++)
            sum += (double)p->logits[k][i];
        p->soft[i] = (float)(sum / (double)p->count);
    }
    return FST_OK;
}

/* Over list[0..samples) in order; the loaders' subset is that order. */
static fst_status run_teachers(fst_soft_labels *s, const fst_soft_make *how, const uint32_t *order, fst_error *err)
{
    struct panel p = {.how = how};
    size_t n = (size_t)s->classes, row = 0;
    fst_status st = open_panel(&p, s, order, err);
    while (!st) {
        fst_batch b;
        const float *rows = NULL;
        st = ask_all(&p, s->classes, &b, err);
        if (st || !b.rows)
            break;
        st = make_rows(&p, s, &b, &rows, err);
        for (size_t r = 0; !st && r < b.rows; r++, row++)
            encode_row(s, row, rows + r * n);
        if (!st && how->progress)
            how->progress(how->ctx, row, s->samples);
    }
    close_panel(&p);
    return st;
}

fst_status fst_soft_labels_make(fst_soft_labels *out, const fst_soft_spec *spec, const fst_soft_make *how,
                                fst_error *err)
{
    size_t total = how->subset ? how->subset_count : how->source->count;
    fst_soft_labels s = {.spec = *spec, .classes = how->classes};
    fst_status st = check_spec(spec, how->classes, err);
    if (!st)
        st = check_how(how, spec, err);
    if (st)
        return st;
    memcpy(s.spec.data_digest, how->source->digest, sizeof s.spec.data_digest);
    struct keyed *list = fst_calloc(total + 1, sizeof *list);
    uint32_t *order = fst_calloc(total + 1, sizeof *order);
    st = list && order ? sort_samples(how, total, list, &s.samples, err) : fst_fail_memory(err, total * sizeof *list);
    if (!st)
        st = allocate(&s, err);
    for (size_t i = 0; !st && i < s.samples; i++) {
        s.keys[i] = list[i].key;
        order[i] = list[i].index;
    }
    fst_free(list);
    if (!st)
        st = run_teachers(&s, how, order, err);
    fst_free(order);
    if (st) {
        fst_soft_labels_release(&s);
        return st;
    }
    *out = s;
    return FST_OK;
}

/* ---- files ---------------------------------------------------------------------------------------- */

fst_status fst_soft_labels_write(const fst_soft_labels *s, const char *path, char digest[FST_DIGEST_HEX],
                                 fst_error *err)
{
    char temperature[32], classes[16], top_k[16];
    int64_t n = (int64_t)s->samples, width = (int64_t)row_width(s);
    fst_tensor t[3];
    size_t nt = 0;
    snprintf(temperature, sizeof temperature, "%.17g", s->spec.temperature);
    snprintf(classes, sizeof classes, "%d", s->classes);
    snprintf(top_k, sizeof top_k, "%d", s->spec.encoding == FST_SOFT_TOP_K ? s->spec.top_k : 0);
    fst_pair meta[] = {{"format", FORMAT},
                       {"content", fst_soft_content_name(s->spec.content)},
                       {"encoding", fst_soft_encoding_name(s->spec.encoding)},
                       {"temperature", temperature},
                       {"classes", classes},
                       {"top_k", top_k},
                       {"teacher_digest", s->spec.teacher_digest},
                       {"data_digest", s->spec.data_digest}};
    t[nt++] = (fst_tensor){"key", FST_U64, FST_SHAPE(n, 2), s->keys};
    if (s->spec.encoding == FST_SOFT_F32)
        t[nt++] = (fst_tensor){"value", FST_F32, FST_SHAPE(n, width), s->f32};
    else
        t[nt++] = (fst_tensor){"value", FST_F16, FST_SHAPE(n, width), s->f16};
    if (s->spec.encoding == FST_SOFT_TOP_K)
        t[nt++] = (fst_tensor){"class", FST_U16, FST_SHAPE(n, width), s->top_class};
    return fst_safetensors_write(path, meta, sizeof meta / sizeof *meta, t, nt, digest, err);
}

static const char *need(const fst_safetensors *f, const char *path, const char *key, fst_error *err)
{
    const char *v = fst_safetensors_meta(f, key);
    if (!v)
        (void)fst_fail(err, FST_E_FORMAT, "%s: no \"%s\" in the metadata: not a soft-label file", path, key);
    return v;
}

static bool parse_int(const char *text, long most, int *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 0 || v > most)
        return false;
    *out = (int)v;
    return true;
}

static fst_status parse_head(const fst_safetensors *f, const char *path, fst_soft_labels *s, fst_error *err)
{
    const char *v[8], *keys[8] = {"format",  "content", "encoding",       "temperature",
                                  "classes", "top_k",   "teacher_digest", "data_digest"};
    char *end;
    for (int i = 0; i < 8; i++)
        if (!(v[i] = need(f, path, keys[i], err)))
            return FST_E_FORMAT;
    if (strcmp(v[0], FORMAT))
        return fst_fail(err, FST_E_FORMAT, "%s: format is \"%s\", \"%s\" is needed", path, v[0], FORMAT);
    s->spec.content = strcmp(v[1], "logits") ? FST_SOFT_PROBABILITIES : FST_SOFT_LOGITS;
    s->spec.encoding = !strcmp(v[2], "f32") ? FST_SOFT_F32 : !strcmp(v[2], "f16") ? FST_SOFT_F16 : FST_SOFT_TOP_K;
    s->spec.temperature = strtod(v[3], &end);
    bool known = !strcmp(v[1], fst_soft_content_name(s->spec.content)) &&
                 !strcmp(v[2], fst_soft_encoding_name(s->spec.encoding));
    if (!known || end == v[3] || *end || !parse_int(v[4], FST_MAX_CLASSES, &s->classes) || s->classes < 1 ||
        !parse_int(v[5], FST_MAX_CLASSES, &s->spec.top_k) || strlen(v[6]) >= FST_DIGEST_HEX ||
        strlen(v[7]) >= FST_DIGEST_HEX)
        return fst_fail(err, FST_E_FORMAT, "%s: the metadata holds values that soft labels cannot have", path);
    snprintf(s->spec.teacher_digest, FST_DIGEST_HEX, "%s", v[6]);
    snprintf(s->spec.data_digest, FST_DIGEST_HEX, "%s", v[7]);
    fst_status st = check_spec(&s->spec, s->classes, err);
    return st ? fst_fail_in(err, FST_E_FORMAT, "%s", path) : FST_OK;
}

static fst_status read_tensor(const fst_safetensors *f, const char *path, const char *name, fst_dtype type,
                              fst_shape shape, void *dst, fst_error *err)
{
    size_t i;
    char a[64], b[64];
    if (!fst_safetensors_find(f, name, &i))
        return fst_fail(err, FST_E_FORMAT, "%s: no tensor \"%s\"", path, name);
    fst_tensor t = fst_safetensors_at(f, i);
    if (t.dtype != type || !fst_shape_equal(&t.shape, &shape))
        return fst_fail(err, FST_E_FORMAT, "%s: \"%s\" is %s %s, not %s %s", path, name, fst_dtype_name(t.dtype),
                        fst_shape_text(&t.shape, a, sizeof a), fst_dtype_name(type),
                        fst_shape_text(&shape, b, sizeof b));
    return fst_safetensors_read(f, i, dst, (size_t)fst_shape_count(&shape) * fst_dtype_size(type), err);
}

/* Numbers that a teacher cannot have given would be learnt by every student. */
static fst_status check_values(const fst_soft_labels *s, const char *path, fst_error *err)
{
    bool probabilities = s->spec.content == FST_SOFT_PROBABILITIES;
    size_t width = row_width(s), n = s->samples * width;
    for (size_t i = 0; i < n; i++) {
        float v = s->f32 ? s->f32[i] : fst_f32_from_f16(s->f16[i]);
        if (!isfinite(v) || (probabilities && !(v >= 0 && v <= 1)))
            return fst_fail(err, FST_E_FORMAT, "%s: sample %zu holds %g, which is no %s", path, i / width, (double)v,
                            probabilities ? "probability" : "finite number");
    }
    for (size_t i = 0; s->top_class && i < n; i++) {
        if (s->top_class[i] >= s->classes)
            return fst_fail(err, FST_E_FORMAT, "%s: class %u of %d", path, s->top_class[i], s->classes);
        for (size_t k = i / width * width; k < i && width <= MAX_COMPARED; k++)
            if (s->top_class[k] == s->top_class[i])
                return fst_fail(err, FST_E_FORMAT, "%s: sample %zu names class %u twice", path, i / width,
                                s->top_class[i]);
    }
    return FST_OK;
}

static fst_status read_body(const fst_safetensors *f, const char *path, fst_soft_labels *s, fst_error *err)
{
    size_t i;
    if (!fst_safetensors_find(f, "key", &i))
        return fst_fail(err, FST_E_FORMAT, "%s: no tensor \"key\"", path);
    fst_shape keys = fst_safetensors_at(f, i).shape;
    if (keys.rank != 2 || keys.dim[1] != 2 || keys.dim[0] > MAX_SAMPLES)
        return fst_fail(err, FST_E_FORMAT, "%s: \"key\" is not (samples, 2)", path);
    s->samples = (size_t)keys.dim[0];
    int64_t n = keys.dim[0], width = (int64_t)row_width(s);
    bool f32 = s->spec.encoding == FST_SOFT_F32;
    /* the value tensor must be there in full before memory is taken by the number of samples */
    fst_tensor value = {0};
    if (fst_safetensors_find(f, "value", &i))
        value = fst_safetensors_at(f, i);
    if (value.shape.rank != 2 || value.shape.dim[0] != n || value.shape.dim[1] != width)
        return fst_fail(err, FST_E_FORMAT, "%s: \"value\" does not have a row of %lld for each of %lld keys", path,
                        (long long)width, (long long)n);
    fst_status st = allocate(s, err);
    if (!st)
        st = read_tensor(f, path, "key", FST_U64, keys, s->keys, err);
    if (!st)
        st = read_tensor(f, path, "value", f32 ? FST_F32 : FST_F16, FST_SHAPE(n, width), f32 ? (void *)s->f32 : s->f16,
                         err);
    if (!st && s->spec.encoding == FST_SOFT_TOP_K)
        st = read_tensor(f, path, "class", FST_U16, FST_SHAPE(n, width), s->top_class, err);
    for (size_t k = 1; !st && k < s->samples; k++)
        if (compare_keys(&s->keys[k - 1], &s->keys[k]) >= 0)
            st = fst_fail(err, FST_E_FORMAT, "%s: keys are not in rising order", path);
    return st ? st : check_values(s, path, err);
}

static fst_status read_open(fst_soft_labels *s, const char *path, const fst_safetensors *f, fst_error *err)
{
    fst_status st = parse_head(f, path, s, err);
    if (!st)
        st = read_body(f, path, s, err);
    if (st)
        fst_soft_labels_release(s);
    return st;
}

fst_status fst_soft_labels_read(fst_soft_labels *out, const char *path, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_soft_labels s = {0};
    fst_status st = fst_safetensors_open(&f, path, err);
    if (!st)
        st = read_open(&s, path, f, err);
    fst_safetensors_free(f);
    if (!st)
        *out = s;
    return st;
}

fst_status fst_soft_labels_parse(fst_soft_labels *out, const char *name, const void *data, size_t len, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_soft_labels s = {0};
    fst_status st = fst_safetensors_open_memory(&f, name, data, len, err);
    if (!st)
        st = read_open(&s, name, f, err);
    fst_safetensors_free(f);
    if (!st)
        *out = s;
    return st;
}

/* ---- use ------------------------------------------------------------------------------------------- */

static fst_status check_expected(const fst_soft_labels *s, const fst_soft_spec *e, const fst_source *source,
                                 fst_error *err)
{
    if (e->content != s->spec.content)
        return fst_fail(err, FST_E_MISMATCH, "the soft labels hold %s, this loss needs %s: set cloud_kd.content",
                        fst_soft_content_name(s->spec.content), fst_soft_content_name(e->content));
    if (e->content == FST_SOFT_PROBABILITIES && e->temperature != s->spec.temperature)
        return fst_fail(err, FST_E_MISMATCH,
                        "the soft labels were made at temperature %g, the student is to learn at %g: both must agree",
                        s->spec.temperature, e->temperature);
    if (e->teacher_digest[0] && strcmp(e->teacher_digest, s->spec.teacher_digest))
        return fst_fail(err, FST_E_MISMATCH,
                        "the soft labels are another teacher's (digest %.12s..., the teacher here has %.12s...)",
                        s->spec.teacher_digest, e->teacher_digest);
    if (strcmp(source->digest, s->spec.data_digest))
        return fst_fail(err, FST_E_MISMATCH,
                        "the soft labels were made for other data (digest %.12s..., %s has %.12s...)",
                        s->spec.data_digest, source->name, source->digest);
    if (s->classes != source->classes)
        return fst_fail(err, FST_E_MISMATCH, "the soft labels have %d classes, %s has %d", s->classes, source->name,
                        source->classes);
    return FST_OK;
}

static uint32_t find_row(const fst_soft_labels *s, const fst_hash128 *key)
{
    size_t low = 0, high = s->samples;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare_keys(&s->keys[mid], key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->samples && !compare_keys(&s->keys[low], key) ? (uint32_t)low : FST_SOFT_NONE;
}

fst_status fst_soft_labels_bind(const fst_soft_labels *s, const fst_soft_spec *expect, const fst_source *source,
                                const uint32_t *subset, size_t subset_count, uint32_t *rows, fst_error *err)
{
    fst_status st = check_expected(s, expect, source, err);
    if (st)
        return st;
    size_t n = subset ? subset_count : source->count;
    for (size_t i = 0; i < n; i++)
        if (subset && subset[i] >= source->count)
            return fst_fail(err, FST_E_ARGUMENT, "there is no sample %u, %s has %zu", subset[i], source->name,
                            source->count);
    for (size_t i = 0; i < source->count; i++)
        rows[i] = FST_SOFT_NONE;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = subset ? subset[i] : (uint32_t)i;
        fst_hash128 key;
        st = fst_source_key(source, at, &key, err);
        if (st)
            return st;
        rows[at] = find_row(s, &key);
        if (rows[at] == FST_SOFT_NONE)
            return fst_fail(err, FST_E_MISMATCH, "sample %u of %s has no soft label: the teacher did not see it", at,
                            source->name);
    }
    return FST_OK;
}

void fst_soft_labels_row(const fst_soft_labels *s, uint32_t row, float *out)
{
    size_t n = (size_t)s->classes, width = row_width(s), at = row * width;
    if (s->spec.encoding == FST_SOFT_F32) {
        memcpy(out, s->f32 + at, n * sizeof *out);
        return;
    }
    if (s->spec.encoding == FST_SOFT_F16) {
        for (size_t j = 0; j < n; j++)
            out[j] = fst_f32_from_f16(s->f16[at + j]);
        return;
    }
    double mass = 0;
    for (size_t k = 0; k < width; k++)
        mass += (double)fst_f32_from_f16(s->f16[at + k]);
    double rest = mass < 1 && n > width ? (1 - mass) / (double)(n - width) : 0;
    double scale = rest > 0 || !(mass > 0) ? 1 : 1 / mass; /* no tail to take up what rounding added or took */
    for (size_t j = 0; j < n; j++)
        out[j] = (float)rest;
    for (size_t k = 0; k < width; k++)
        out[s->top_class[at + k]] = (float)(scale * (double)fst_f32_from_f16(s->f16[at + k]));
}

fst_status fst_soft_fetch(void *binding, const uint32_t *index, size_t rows, float *soft, fst_error *err)
{
    const fst_soft_binding *b = binding;
    for (size_t r = 0; r < rows; r++) {
        if (b->rows[index[r]] == FST_SOFT_NONE)
            return fst_fail(err, FST_E_MISMATCH, "sample %u has no soft label", index[r]);
        fst_soft_labels_row(b->labels, b->rows[index[r]], soft + r * (size_t)b->labels->classes);
    }
    return FST_OK;
}
