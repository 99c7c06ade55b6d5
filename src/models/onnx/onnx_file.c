/* Bytes to messages by protobuf-c, within a budget. Knows no operator. */
#include <stdlib.h>
#include <string.h>

#include "onnx_file.h"

/* ---- memory ------------------------------------------------------------------------------------------ */

/* Sizes stand before the blocks, so that what protobuf-c gives back counts again. fst_alloc gives whole lines. */
enum { HEADER = 16, LINE = 64 };

static void *take(void *context, size_t bytes)
{
    struct fst__onnx_memory *m = context;
    if (bytes > SIZE_MAX - HEADER - LINE) {
        m->over = true;
        return NULL;
    }
    bytes = (bytes + HEADER + LINE - 1) / LINE * LINE;
    unsigned char *p = bytes > m->left ? NULL : fst_alloc(bytes);
    if (!p) {
        *(bytes > m->left ? &m->over : &m->failed) = true;
        return NULL;
    }
    m->left -= bytes;
    memcpy(p, &bytes, sizeof bytes);
    return p + HEADER;
}

static void give_back(void *context, void *block)
{
    struct fst__onnx_memory *m = context;
    size_t bytes;
    if (!block)
        return;
    memcpy(&bytes, (unsigned char *)block - HEADER, sizeof bytes);
    m->left += bytes;
    fst_free((unsigned char *)block - HEADER);
}

static fst_status no_budget(const struct fst__onnx_file *f, fst_error *err)
{
    return fst_fail(err, FST_E_LIMIT, "%s: its graph takes more memory than a file of its size may", f->name);
}

void *fst__onnx_array(struct fst__onnx_file *f, size_t count, size_t size, fst_status *s, fst_error *err)
{
    size_t bytes = count < SIZE_MAX / size ? (count + 1) * size : SIZE_MAX;
    void *p = NULL;
    if (bytes > f->memory.left)
        *s = no_budget(f, err);
    else if (!(p = fst_calloc(count + 1, size)))
        *s = fst_fail_memory(err, bytes);
    else
        f->memory.left -= bytes;
    return p;
}

/* ---- tensors ------------------------------------------------------------------------------------------- */

static const struct {
    int32_t type;
    fst_dtype dtype;
} types[] = {
    {FST__ONNX_FLOAT, FST_F32},     {FST__ONNX_DOUBLE, FST_F64}, {FST__ONNX_FLOAT16, FST_F16},
    {FST__ONNX_BFLOAT16, FST_BF16}, {FST__ONNX_INT32, FST_I32},  {FST__ONNX_INT64, FST_I64},
};

static bool known_type(const Onnx__Tensor *t, fst_dtype *out)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == t->data_type) {
            *out = types[i].dtype;
            return true;
        }
    return false;
}

fst_dtype fst__onnx_dtype(const struct fst__onnx_tensor *t)
{
    fst_dtype d = FST_F32;
    if (t->t)
        known_type(t->t, &d);
    return d;
}

bool fst__onnx_is_float(const struct fst__onnx_tensor *t)
{
    fst_dtype d = FST_U8;
    return !t->t || (known_type(t->t, &d) && d != FST_I32 && d != FST_I64);
}

static const char *name_of(const Onnx__Tensor *t)
{
    return t->name && t->name[0] ? t->name : "(without a name)";
}

/* How many values stand in the field of its type; raw_data goes first. */
static size_t stored(const Onnx__Tensor *t, fst_dtype d)
{
    if (t->has_raw_data)
        return t->raw_data.len % fst_dtype_size(d) ? SIZE_MAX : t->raw_data.len / fst_dtype_size(d);
    switch (d) {
    case FST_F32:
        return t->n_float_data;
    case FST_F64:
        return t->n_double_data;
    case FST_I64:
        return t->n_int64_data;
    default:
        return t->n_int32_data;
    }
}

static fst_status check_tensor(const struct fst__onnx_file *f, const Onnx__Tensor *t, fst_error *err)
{
    fst_shape shape = {.rank = (int)t->n_dims};
    fst_dtype d;
    if (t->data_location == 1 || t->n_external_data)
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s: the values of \"%.100s\" are in another file; save the model as one file "
                        "(onnx.save_model without save_as_external_data)",
                        f->name, name_of(t));
    if (t->n_dims > FST_MAX_RANK)
        return fst_fail(err, FST_E_LIMIT, "%s: \"%.100s\" has %zu dimensions, at most %d are read", f->name, name_of(t),
                        t->n_dims, FST_MAX_RANK);
    if (!known_type(t, &d))
        return FST_OK; /* who reads it says so */
    fst__onnx_copy(shape.dim, t->dims, t->n_dims);
    int64_t count = fst_shape_count(&shape);
    size_t have = stored(t, d);
    if (count < 0 || have != (uint64_t)count)
        return fst_fail(err, FST_E_FORMAT, "%s: \"%.100s\" does not hold the values that its shape promises", f->name,
                        name_of(t));
    return FST_OK;
}

/* Element i of the stored values. */
static double element(const Onnx__Tensor *t, fst_dtype d, size_t i)
{
    float v = 0;
    uint16_t half;
    int64_t whole;
    if (!t->has_raw_data)
        switch (d) {
        case FST_F32:
            return (double)t->float_data[i];
        case FST_F64:
            return t->double_data[i];
        case FST_I64:
            return (double)t->int64_data[i];
        case FST_I32:
            return t->int32_data[i];
        default: /* a half's bits in an integer */
            half = (uint16_t)t->int32_data[i];
            fst_f32_from(&v, d, &half, 1);
            return (double)v;
        }
    if (d == FST_I64) {
        memcpy(&whole, t->raw_data.data + i * sizeof whole, sizeof whole);
        return (double)whole;
    }
    fst_f32_from(&v, d, t->raw_data.data + i * fst_dtype_size(d), 1);
    return (double)v;
}

float fst__onnx_float_at(const struct fst__onnx_tensor *t, size_t i)
{
    if (!t->t)
        return t->number;
    if (t->transposed) {
        size_t rows = (size_t)t->shape.dim[0], columns = (size_t)t->shape.dim[1];
        i = i % columns * rows + i / columns;
    }
    return (float)element(t->t, fst__onnx_dtype(t), i);
}

void fst__onnx_floats(const struct fst__onnx_tensor *t, float *out)
{
    size_t count = (size_t)fst_shape_count(&t->shape);
    if (t->t && t->t->has_raw_data && !t->transposed)
        fst_f32_from(out, fst__onnx_dtype(t), t->t->raw_data.data, count);
    else
        for (size_t i = 0; i < count; i++)
            out[i] = fst__onnx_float_at(t, i);
}

int fst__onnx_integers(const struct fst__onnx_tensor *t, int64_t *out, int most)
{
    int64_t count = fst_shape_count(&t->shape);
    if (!t->t || count > most || fst__onnx_is_float(t) || t->transposed)
        return -1;
    for (int64_t i = 0; i < count; i++) {
        int32_t narrow;
        if (t->t->data_type == FST__ONNX_INT64 && t->t->has_raw_data)
            memcpy(&out[i], t->t->raw_data.data + (size_t)i * sizeof *out, sizeof *out);
        else if (t->t->data_type == FST__ONNX_INT64)
            out[i] = t->t->int64_data[i];
        else if (t->t->has_raw_data)
            memcpy(&narrow, t->t->raw_data.data + (size_t)i * sizeof narrow, sizeof narrow), out[i] = narrow;
        else
            out[i] = t->t->int32_data[i];
    }
    return (int)count;
}

/* ---- the file -------------------------------------------------------------------------------------------- */

static fst_status check_model(const struct fst__onnx_file *f, fst_error *err)
{
    const Onnx__Graph *g = f->model->graph;
    fst_status s = FST_OK;
    if (!g)
        return fst_fail(err, FST_E_FORMAT, "%s: an ONNX file without a graph", f->name);
    if (g->n_node > FST__ONNX_MAX_NODES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu nodes, at most %d are read", f->name, g->n_node,
                        FST__ONNX_MAX_NODES);
    for (size_t i = 0; !s && i < g->n_initializer; i++)
        s = check_tensor(f, g->initializer[i], err);
    for (size_t i = 0; !s && i < g->n_node; i++)
        for (size_t k = 0; !s && k < g->node[i]->n_attribute; k++)
            if (g->node[i]->attribute[k]->t)
                s = check_tensor(f, g->node[i]->attribute[k]->t, err);
    return s;
}

static fst_status unpack(struct fst__onnx_file *f, const void *data, size_t len, fst_error *err)
{
    f->memory.left = fst_budget(len);
    f->model = onnx__model__unpack(&f->allocator, len, data);
    if (f->memory.failed)
        return fst_fail_memory(err, len);
    if (f->memory.over)
        return no_budget(f, err);
    if (!f->model)
        return fst_fail(err, FST_E_FORMAT, "%s: not a sound ONNX file, or cut off", f->name);
    return check_model(f, err);
}

fst_status fst__onnx_open(struct fst__onnx_file *f, const char *name, const void *data, size_t len, fst_error *err)
{
    fst_buf bytes = {0};
    *f = (struct fst__onnx_file){.name = name};
    f->allocator = (ProtobufCAllocator){take, give_back, &f->memory};
    fst_status s = data ? FST_OK : fst_file_read(name, FST__ONNX_MAX_BYTES, &bytes, err);
    if (!s && data && len > FST__ONNX_MAX_BYTES)
        s = fst_fail(err, FST_E_LIMIT, "%s: an ONNX file has at most %d bytes", name, FST__ONNX_MAX_BYTES);
    if (!s)
        s = unpack(f, data ? data : bytes.data, data ? len : bytes.len, err);
    fst_buf_release(&bytes);
    if (s)
        fst__onnx_close(f);
    return s;
}

void fst__onnx_close(struct fst__onnx_file *f)
{
    if (f->model)
        onnx__model__free_unpacked(f->model, &f->allocator);
    f->model = NULL;
}

const char *fst__onnx_meta(const struct fst__onnx_file *f, const char *key)
{
    for (size_t i = 0; i < f->model->n_metadata_props; i++) {
        const Onnx__Pair *p = f->model->metadata_props[i];
        if (p->key && p->value && !strcmp(p->key, key))
            return p->value;
    }
    return NULL;
}
