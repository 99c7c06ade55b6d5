/*
 * A source made of samples of other sources: a part of one (a training split that has no test samples in it), or
 * several one after the other. It copies labels and attributes, reads samples through the sources that it was made
 * from, and owns none of them.
 */
#include <string.h>

#include "formats.h"

struct origin {
    uint32_t part, index;
};

struct composed {
    fst_source base;
    const fst_source **parts;
    struct origin *from;
    int32_t *labels;
    float *snr;
    int64_t *group;
};

static fst_status composed_get(const fst_source *s, size_t i, void *dst, fst_error *err)
{
    const struct composed *c = (const struct composed *)s;
    if (i >= s->count)
        return fst_fail(err, FST_E_ARGUMENT, "%s: there is no sample %zu, the last is %zu", s->name, i, s->count - 1);
    const fst_source *part = c->parts[c->from[i].part];
    return part->v->get(part, c->from[i].index, dst, err);
}

static void composed_close(fst_source *s)
{
    struct composed *c = (struct composed *)s;
    if (!c)
        return;
    fst_free(c->parts);
    fst_free(c->from);
    fst_free(c->labels);
    fst_free(c->snr);
    fst_free(c->group);
    fst_free(c->base.class_names);
    fst_free(c->base.name);
    fst_free(c);
}

static const fst_source_vtable vtable = {"composed", composed_get, composed_close};

static fst_status check_parts(const fst_source_part *parts, size_t n, size_t *total, fst_error *err)
{
    char a[256], b[256];
    const fst_source *first = n ? parts[0].source : NULL;
    *total = 0;
    for (size_t p = 0; p < n; p++) {
        const fst_source *s = parts[p].source;
        size_t count = parts[p].index ? parts[p].count : s->count;
        if (s->dtype != first->dtype || !fst_shape_equal(&s->shape, &first->shape))
            return fst_fail(err, FST_E_MISMATCH, "%s holds samples %s %s, %s holds %s %s", first->name,
                            fst_dtype_name(first->dtype), fst_shape_text(&first->shape, a, sizeof a), s->name,
                            fst_dtype_name(s->dtype), fst_shape_text(&s->shape, b, sizeof b));
        fst_status st = fst_source_same_classes(first, s, err);
        if (st)
            return st;
        for (size_t i = 0; parts[p].index && i < count; i++)
            if (parts[p].index[i] >= s->count)
                return fst_fail(err, FST_E_ARGUMENT, "%s: there is no sample %u, the last is %zu", s->name,
                                (unsigned)parts[p].index[i], s->count - 1);
        *total += count;
    }
    if (!*total || *total > UINT32_MAX)
        return fst_fail(err, FST_E_ARGUMENT, "a source of %zu samples cannot be made", *total);
    return FST_OK;
}

static fst_status reserve(struct composed *c, const fst_source_part *parts, size_t n, size_t total, fst_error *err)
{
    bool snr = true, group = true;
    for (size_t p = 0; p < n; p++) {
        snr = snr && parts[p].source->snr;
        group = group && parts[p].source->group;
    }
    c->parts = fst_calloc(n, sizeof *c->parts);
    c->from = fst_calloc(total, sizeof *c->from);
    c->labels = fst_calloc(total, sizeof *c->labels);
    c->snr = snr ? fst_calloc(total, sizeof *c->snr) : NULL;
    c->group = group ? fst_calloc(total, sizeof *c->group) : NULL;
    if (!c->parts || !c->from || !c->labels || (snr && !c->snr) || (group && !c->group))
        return fst_fail_memory(err, total * sizeof *c->from);
    return FST_OK;
}

/* Groups of different sources that happen to have the same number are not the same group. */
static void fill(struct composed *c, const fst_source_part *parts, size_t n)
{
    size_t at = 0;
    int64_t shift = 0;
    for (size_t p = 0; p < n; p++) {
        const fst_source *s = parts[p].source;
        size_t count = parts[p].index ? parts[p].count : s->count;
        int64_t low = 0, high = -1;
        for (size_t i = 0; c->group && i < s->count; i++) {
            low = !i || s->group[i] < low ? s->group[i] : low;
            high = !i || s->group[i] > high ? s->group[i] : high;
        }
        c->parts[p] = s;
        for (size_t i = 0; i < count; i++, at++) {
            uint32_t k = parts[p].index ? parts[p].index[i] : (uint32_t)i;
            c->from[at] = (struct origin){(uint32_t)p, k};
            c->labels[at] = s->labels[k];
            if (c->snr)
                c->snr[at] = s->snr[k];
            if (c->group)
                c->group[at] = n == 1 ? s->group[k] : s->group[k] - low + shift;
        }
        shift += high - low + 1;
    }
}

static fst_status copy_class_names(fst_source *out, const fst_source *s, fst_error *err)
{
    size_t n = (size_t)s->classes, bytes = n * sizeof(char *);
    if (!s->class_names)
        return FST_OK;
    for (size_t i = 0; i < n; i++)
        bytes += strlen(s->class_names[i]) + 1;
    out->class_names = fst_alloc(bytes);
    if (!out->class_names)
        return fst_fail_memory(err, bytes);
    char *text = (char *)(out->class_names + n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(s->class_names[i]) + 1;
        out->class_names[i] = memcpy(text, s->class_names[i], len);
        text += len;
    }
    return FST_OK;
}

/* Classes are those of the part that has most. */
static fst_status describe(struct composed *c, const char *name, const fst_source_part *parts, size_t n, size_t total,
                           fst_error *err)
{
    const fst_source *most = parts[0].source;
    for (size_t p = 1; p < n; p++)
        most = parts[p].source->classes > most->classes ? parts[p].source : most;
    c->base.v = &vtable;
    c->base.name = fst_strdup(name);
    c->base.dtype = most->dtype;
    c->base.shape = most->shape;
    c->base.count = total;
    c->base.classes = most->classes;
    c->base.labels = c->labels;
    c->base.snr = c->snr;
    c->base.group = c->group;
    if (!c->base.name)
        return fst_fail_memory(err, strlen(name) + 1);
    fst_status s = copy_class_names(&c->base, most, err);
    return s ? s : fst__source_digest(&c->base, c->base.digest, err);
}

fst_status fst_source_compose(fst_source **out, const char *name, const fst_source_part *parts, size_t n,
                              fst_error *err)
{
    size_t total = 0;
    fst_status s = check_parts(parts, n, &total, err);
    if (s)
        return s;
    struct composed *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    s = reserve(c, parts, n, total, err);
    if (!s) {
        fill(c, parts, n);
        s = describe(c, name, parts, n, total, err);
    }
    if (s)
        composed_close(&c->base);
    else
        *out = &c->base;
    return s;
}
