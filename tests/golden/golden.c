#include "golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void golden_fail(struct golden *g, const char *fmt, ...)
{
    va_list ap;
    if (g->outcome == FAILED)
        return; /* the first reason is the useful one */
    g->outcome = FAILED;
    va_start(ap, fmt);
    vsnprintf(g->reason, sizeof g->reason, fmt, ap);
    va_end(ap);
}

void golden_skip(struct golden *g, const char *what)
{
    g->outcome = SKIPPED;
    snprintf(g->reason, sizeof g->reason, "%s is not built", what);
}

double golden_number(const struct golden *g, const char *key, double otherwise)
{
    json_t *j = json_object_get(g->attrs, key);
    return json_is_number(j) ? json_number_value(j) : json_is_boolean(j) ? json_is_true(j) : otherwise;
}

const char *golden_text(const struct golden *g, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(g->attrs, key));
    return s ? s : otherwise;
}

static fst_shape shape_of(json_t *j)
{
    fst_shape s = {0};
    for (size_t i = 0; i < json_array_size(j) && i < FST_MAX_RANK; i++)
        s.dim[s.rank++] = json_integer_value(json_array_get(j, i));
    return s;
}

struct spec golden_spec(json_t *j)
{
    struct spec s = {.mul = 1, .grad = true};
    const char *name;
    if (json_is_array(j)) {
        name = json_string_value(json_array_get(j, 0));
        s.shape = shape_of(json_array_get(j, 1));
        s.rule = json_string_value(json_array_get(j, 2));
    } else {
        name = json_string_value(json_object_get(j, "name"));
        s.shape = shape_of(json_object_get(j, "shape"));
        s.rule = json_string_value(json_object_get(j, "rule"));
        json_t *mul = json_object_get(j, "mul");
        s.mul = mul ? json_number_value(mul) : 1;
        s.add = json_number_value(json_object_get(j, "add"));
        s.relu = json_is_true(json_object_get(j, "relu"));
        s.grad = !json_is_false(json_object_get(j, "grad"));
        s.classes = json_integer_value(json_object_get(j, "classes"));
    }
    snprintf(s.name, sizeof s.name, "%s", name ? name : "?");
    int64_t count = fst_shape_count(&s.shape);
    s.count = count > 0 ? (size_t)count : 0;
    return s;
}

bool golden_at(const struct golden *g, const char *list, size_t i, struct spec *out)
{
    json_t *j = json_array_get(json_object_get(g->attrs, list), i);
    if (!j)
        return false;
    *out = golden_spec(j);
    return true;
}

bool golden_find(const struct golden *g, const char *list, const char *name, struct spec *out)
{
    for (size_t i = 0; golden_at(g, list, i, out); i++)
        if (!strcmp(out->name, name))
            return true;
    return false;
}

/* ---- fill -------------------------------------------------------------------------------------- */

static uint64_t name_hash(const char *salt, const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    const char *parts[] = {salt, ":", name};
    for (int k = 0; k < 3; k++)
        for (const unsigned char *p = (const unsigned char *)parts[k]; *p; p++)
            h = (h ^ *p) * 0x100000001B3u;
    return h;
}

static uint64_t bits(uint64_t h, size_t i)
{
    uint64_t z = h + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* What a rule makes of u and s. The third column of a complex batch norm's tensors is s by another factor. */
struct rule {
    const char *name;
    bool symmetric;
    double factor, place; /* factor * s or factor * (place + u) */
    double third;         /* > 0: third * s in column 2 */
};

static bool rule_of(const struct spec *s, struct rule *out)
{
    double fan = 1;
    for (int d = 1; d < s->shape.rank; d++)
        fan *= (double)s->shape.dim[d];
    const struct rule rules[] = {{"unit", true, sqrt(3.0), 0, 0},
                                 {"fan_in", true, sqrt(6.0 / fan), 0, 0},
                                 {"gate", true, 0.25 * sqrt(6.0 / fan), 0, 0},
                                 {"bias", true, 0.1, 0, 0},
                                 {"mean", true, 0.1, 0, 0},
                                 {"cbn_bias", true, 0.1, 0, 0},
                                 {"cbn_mean", true, 0.1, 0, 0},
                                 {"scale", false, 1, 0.5, 0},
                                 {"var", false, 1, 0.5, 0},
                                 {"residual_scale", false, 0.25, 0.5, 0},
                                 {"cbn_weight", false, 1, 0.5, 0.25},
                                 {"cbn_residual_weight", false, 0.25, 0.5, 0.0625},
                                 {"cbn_covar", false, 2, 0.5, 0.5}};
    for (size_t i = 0; s->rule && i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(s->rule, rules[i].name)) {
            *out = rules[i];
            return true;
        }
    return false;
}

static double rule_value(const struct rule *r, uint64_t x, size_t i)
{
    double u = (double)(x >> 40) * 0x1p-24, sym = 2 * u - 1;
    if (r->third > 0 && i % 3 == 2)
        return sym * r->third;
    return r->symmetric ? sym * r->factor : r->factor * (r->place + u);
}

static float *given(struct golden *g, const struct spec *s)
{
    char name[160];
    size_t i;
    snprintf(name, sizeof name, "given.%s", s->name);
    float *v = fst_calloc(s->count + 1, sizeof *v);
    if (!fst_safetensors_find(g->file, name, &i) || fst_safetensors_read_f32(g->file, i, v, s->count, NULL))
        golden_fail(g, "%s is not in the file", name);
    return v;
}

float *golden_fill(struct golden *g, const struct spec *s)
{
    if (s->rule && !strcmp(s->rule, "given"))
        return given(g, s);
    float *v = fst_calloc(s->count + 1, sizeof *v);
    uint64_t h = name_hash(g->salt, s->name);
    struct rule rule;
    if (!rule_of(s, &rule)) {
        golden_fail(g, "%s: unknown fill rule \"%s\"", s->name, s->rule ? s->rule : "");
        return v;
    }
    for (size_t i = 0; i < s->count; i++) {
        double x = rule_value(&rule, bits(h, i), i) * s->mul + s->add;
        v[i] = (float)(s->relu && x < 0 ? 0 : x);
    }
    return v;
}

int32_t *golden_labels(struct golden *g, const struct spec *s)
{
    int32_t *v = fst_calloc(s->count + 1, sizeof *v);
    uint64_t h = name_hash(g->salt, s->name);
    if (!s->rule || strcmp(s->rule, "label") || s->classes < 1)
        golden_fail(g, "%s is not a label tensor", s->name);
    else
        for (size_t i = 0; i < s->count; i++)
            v[i] = (int32_t)(bits(h, i) % (uint64_t)s->classes);
    return v;
}

/* ---- results ------------------------------------------------------------------------------------- */

bool golden_has(const struct golden *g, const char *tensor)
{
    size_t i;
    return fst_safetensors_find(g->file, tensor, &i);
}

static double *read_doubles(const struct golden *g, size_t i, size_t *count)
{
    fst_tensor t = fst_safetensors_at(g->file, i);
    *count = (size_t)fst_shape_count(&t.shape);
    double *v = fst_calloc(*count + 1, sizeof *v);
    fst_status s;
    if (t.dtype == FST_F64) {
        s = fst_safetensors_read(g->file, i, v, *count * sizeof *v, NULL);
    } else {
        float *f = fst_calloc(*count + 1, sizeof *f);
        s = fst_safetensors_read_f32(g->file, i, f, *count, NULL);
        for (size_t k = 0; k < *count; k++)
            v[k] = (double)f[k];
        fst_free(f);
    }
    if (!s)
        return v;
    fst_free(v);
    return NULL;
}

double *golden_want(struct golden *g, const char *tensor, size_t count)
{
    size_t i, n = 0;
    double *v = fst_safetensors_find(g->file, tensor, &i) ? read_doubles(g, i, &n) : NULL;
    if (v && n == count)
        return v;
    golden_fail(g, "%s: %zu values expected, the file has %zu", tensor, count, n);
    fst_free(v);
    return NULL;
}

double golden_f32(const struct golden *g, const char *name)
{
    json_t *j = json_object_get(json_object_get(g->attrs, "f32"), name);
    return json_number_value(j);
}

void golden_compare_double(struct golden *g, const char *tensor, const double *got, size_t count, double scale)
{
    double *want = golden_want(g, tensor, count), largest = scale, worst = 0;
    size_t where = 0;
    if (!want)
        return;
    for (size_t i = 0; i < count; i++)
        largest = fabs(want[i]) > largest ? fabs(want[i]) : largest;
    double r = fmax(1e-5, 20 * golden_f32(g, tensor)), bound = 1e-7 + r * largest;
    for (size_t i = 0; i < count; i++) {
        double d = fabs(got[i] - want[i]);
        if (!(d <= worst)) { /* also NaN */
            worst = d;
            where = i;
        }
    }
    if (!(worst <= bound))
        golden_fail(g, "%s[%zu]: got %.9g, want %.9g, off by %.2g, allowed %.2g", tensor, where, got[where],
                    want[where], worst, bound);
    fst_free(want);
}

void golden_compare(struct golden *g, const char *tensor, const float *got, size_t count, double scale)
{
    double *d = fst_calloc(count + 1, sizeof *d);
    for (size_t i = 0; i < count; i++)
        d[i] = (double)got[i];
    golden_compare_double(g, tensor, d, count, scale);
    fst_free(d);
}

double golden_largest(struct golden *g, const char *prefix)
{
    double largest = 0;
    for (size_t i = 0; i < fst_safetensors_count(g->file); i++) {
        size_t n = 0;
        if (strncmp(fst_safetensors_at(g->file, i).name, prefix, strlen(prefix)))
            continue;
        double *v = read_doubles(g, i, &n);
        for (size_t k = 0; v && k < n; k++)
            largest = fabs(v[k]) > largest ? fabs(v[k]) : largest;
        fst_free(v);
    }
    return largest;
}
