/* Messages: a small header and named tensors. In memory they are views that are handed over by pointer; on the wire
 * they are safetensors bytes, read by the parser of src/tensor with limits in front of it. Nothing here knows what a
 * strategy means by a tensor. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fed_private.h"

#define FORMAT "fedstill-message-1"

fst_message fst_message_of(const char *kind)
{
    fst_message m = {.loss = NAN, .accuracy = NAN};
    fst_message_name(&m, kind);
    return m;
}

void fst_message_name(fst_message *m, const char *kind)
{
    snprintf(m->kind, sizeof m->kind, "%s", kind);
}

fst_status fst_message_add(fst_message *m, const char *name, fst_dtype dtype, fst_shape shape, const void *data,
                           fst_error *err)
{
    if (m->count == FST_MESSAGE_TENSORS)
        return fst_fail(err, FST_E_LIMIT, "a message has at most %d tensors", FST_MESSAGE_TENSORS);
    if (!*name || strlen(name) >= FST_MESSAGE_NAME)
        return fst_fail(err, FST_E_ARGUMENT, "tensor \"%s\": names have 1 to %d bytes", name, FST_MESSAGE_NAME - 1);
    if (fst_message_find(m, name))
        return fst_fail(err, FST_E_ARGUMENT, "tensor \"%s\" is in the message already", name);
    fst_message_tensor *t = &m->tensor[m->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = dtype;
    t->shape = shape;
    t->data = data;
    return FST_OK;
}

const fst_message_tensor *fst_message_find(const fst_message *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (!strcmp(m->tensor[i].name, name))
            return &m->tensor[i];
    return NULL;
}

fst_status fst_message_get(const fst_message *m, const char *name, fst_dtype dtype, fst_shape shape, const void **data,
                           fst_error *err)
{
    const fst_message_tensor *t = fst_message_find(m, name);
    char have[128], want[128];
    if (!t)
        return fst_fail(err, FST_E_MISMATCH, "has no tensor \"%s\" (%s)", name, m->kind);
    if (t->dtype != dtype || !fst_shape_equal(&t->shape, &shape))
        return fst_fail(err, FST_E_MISMATCH, "\"%s\" is %s %s, %s %s is needed", name, fst_dtype_name(t->dtype),
                        fst_shape_text(&t->shape, have, sizeof have), fst_dtype_name(dtype),
                        fst_shape_text(&shape, want, sizeof want));
    *data = t->data;
    return FST_OK;
}

/* ---- a model's state ---- */

fst_status fst_message_add_state(fst_message *m, const fst_fed_view *v, fst_error *err)
{
    fst_status s = fst_message_add(m, "params", FST_F32, FST_SHAPE((int64_t)v->size.params), v->params, err);
    if (!s)
        s = fst_message_add(m, "buffers", FST_F32, FST_SHAPE((int64_t)v->size.buffers), v->buffers, err);
    if (!s)
        s = fst_message_add(m, "counters", FST_I64, FST_SHAPE((int64_t)v->size.counters), v->counters, err);
    return s;
}

fst_status fst_message_state(const fst_message *m, fst_fed_size size, fst_fed_view *out, fst_error *err)
{
    const void *p, *b, *c;
    fst_status s = fst_message_get(m, "params", FST_F32, FST_SHAPE((int64_t)size.params), &p, err);
    if (!s)
        s = fst_message_get(m, "buffers", FST_F32, FST_SHAPE((int64_t)size.buffers), &b, err);
    if (!s)
        s = fst_message_get(m, "counters", FST_I64, FST_SHAPE((int64_t)size.counters), &c, err);
    if (!s)
        *out = (fst_fed_view){p, b, c, size};
    return s;
}

static uint64_t tensor_bytes(const fst_message_tensor *t)
{
    return (uint64_t)fst_shape_count(&t->shape) * fst_dtype_size(t->dtype);
}

uint64_t fst_message_bytes(const fst_message *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i < m->count; i++)
        n += tensor_bytes(&m->tensor[i]);
    return n;
}

/* ---- to bytes ---- */

enum { HEADER_FIELDS = 8, TEXT = 40 };

static void put_double(char out[TEXT], double x)
{
    if (isnan(x))
        snprintf(out, TEXT, "nan");
    else
        snprintf(out, TEXT, "%a", x); /* hexadecimal: exact, whatever the locale says of commas */
}

fst_status fst_message_pack(const fst_message *m, fst_buf *out, fst_error *err)
{
    char client[TEXT], round[TEXT], base[TEXT], samples[TEXT], loss[TEXT], accuracy[TEXT];
    fst_tensor t[FST_MESSAGE_TENSORS];
    snprintf(client, sizeof client, "%lu", (unsigned long)m->client);
    snprintf(round, sizeof round, "%llu", (unsigned long long)m->round);
    snprintf(base, sizeof base, "%llu", (unsigned long long)m->base);
    snprintf(samples, sizeof samples, "%lld", (long long)m->samples);
    put_double(loss, m->loss);
    put_double(accuracy, m->accuracy);
    const fst_pair head[HEADER_FIELDS] = {{"format", FORMAT}, {"kind", m->kind},     {"client", client},
                                          {"round", round},   {"base", base},        {"samples", samples},
                                          {"loss", loss},     {"accuracy", accuracy}};
    for (size_t i = 0; i < m->count; i++)
        t[i] = (fst_tensor){m->tensor[i].name, m->tensor[i].dtype, m->tensor[i].shape, (void *)m->tensor[i].data};
    return fst_safetensors_append(out, "a message", head, HEADER_FIELDS, t, m->count, err);
}

/* ---- from bytes ---- */

static const char *field(const fst_safetensors *f, const char *key, fst_status *st, fst_error *err)
{
    const char *text = fst_safetensors_meta(f, key);
    if (!text && !*st)
        *st = fst_fail(err, FST_E_FORMAT, "a message without \"%s\"", key);
    return *st ? NULL : text;
}

static fst_status wrong_number(const char *key, fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT, "a message whose \"%s\" is not a number in its range", key);
}

/* Decimal digits only: no sign, no blanks, no other base. */
static uint64_t whole(const fst_safetensors *f, const char *key, uint64_t most, fst_status *st, fst_error *err)
{
    const char *text = field(f, key, st, err);
    uint64_t v = 0;
    for (const char *p = text; p && *p && !*st; p++)
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            *st = wrong_number(key, err);
    if (!*st && (!*text || v > most))
        *st = wrong_number(key, err);
    return v;
}

static double number(const fst_safetensors *f, const char *key, fst_status *st, fst_error *err)
{
    const char *text = field(f, key, st, err);
    char *end = NULL;
    if (*st || !strcmp(text, "nan"))
        return NAN;
    const char *digits = text + (*text == '-');
    double v = strncmp(digits, "0x", 2) ? NAN : strtod(text, &end);
    if (!end || *end || !isfinite(v))
        *st = wrong_number(key, err);
    return v;
}

static fst_status take_tensors(const fst_safetensors *f, fst_message *m, fst_error *err)
{
    size_t n = fst_safetensors_count(f);
    if (n > FST_MESSAGE_TENSORS)
        return fst_fail(err, FST_E_LIMIT, "a message of %zu tensors, at most %d are read", n, FST_MESSAGE_TENSORS);
    for (size_t i = 0; i < n; i++) {
        fst_tensor t = fst_safetensors_at(f, i);
        const void *data = fst_safetensors_data(f, i);
        if (!data)
            return fst_fail(err, FST_E_FORMAT, "tensor \"%.40s\": complex numbers are not sent", t.name);
        if ((uintptr_t)data % fst_dtype_size(t.dtype))
            return fst_fail(err, FST_E_FORMAT, "tensor \"%.40s\" is not aligned to its elements", t.name);
        fst_status s = fst_message_add(m, t.name, t.dtype, t.shape, data, err);
        if (s)
            return fst_fail(err, FST_E_FORMAT, "tensor \"%.40s\": names have 1 to %d bytes", t.name,
                            FST_MESSAGE_NAME - 1);
    }
    return FST_OK;
}

static fst_status take_header(const fst_safetensors *f, fst_message *m, fst_error *err)
{
    fst_status s = FST_OK;
    const char *format = field(f, "format", &s, err), *kind = field(f, "kind", &s, err);
    if (!s && strcmp(format, FORMAT))
        s = fst_fail(err, FST_E_FORMAT, "not a message: format \"%.40s\", \"%s\" is read", format, FORMAT);
    if (!s && (!*kind || strlen(kind) >= FST_MESSAGE_KIND))
        s = fst_fail(err, FST_E_FORMAT, "a message's kind has 1 to %d bytes", FST_MESSAGE_KIND - 1);
    if (!s)
        *m = fst_message_of(kind);
    m->client = (uint32_t)whole(f, "client", UINT32_MAX, &s, err);
    m->round = whole(f, "round", UINT64_MAX, &s, err);
    m->base = whole(f, "base", UINT64_MAX, &s, err);
    m->samples = (int64_t)whole(f, "samples", INT64_MAX, &s, err);
    m->loss = number(f, "loss", &s, err);
    m->accuracy = number(f, "accuracy", &s, err);
    return s;
}

fst_status fst_message_parse(fst_message *out, const void *data, size_t len, fst_error *err)
{
    const unsigned char *p = data;
    fst_safetensors *f = NULL;
    uint64_t header = 0;
    fst_message m = {.count = 0};
    if ((uintptr_t)data % 8)
        return fst_fail(err, FST_E_ARGUMENT, "a message's bytes must be aligned to 8");
    for (int i = 7; len >= 8 && i >= 0; i--)
        header = header << 8 | p[i];
    if (header > FST_MESSAGE_MAX_HEADER)
        return fst_fail(err, FST_E_LIMIT, "a message with a header of %llu bytes, at most %zu are read",
                        (unsigned long long)header, FST_MESSAGE_MAX_HEADER);
    fst_status s = fst_safetensors_open_memory(&f, "a message", data, len, err);
    if (s)
        return s;
    s = take_header(f, &m, err);
    if (!s)
        s = take_tensors(f, &m, err);
    fst_safetensors_free(f);
    if (!s)
        *out = m;
    return s;
}
