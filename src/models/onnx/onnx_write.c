/* An ONNX file from nodes and initialisers. Knows no operator. */
#include <stdio.h>
#include <string.h>

#include "onnx_write.h"

enum { MAX_FILE = INT32_MAX, WRITE_BLOCK = 1 << 16 };
enum { ATTRIBUTE_FLOAT = 1, ATTRIBUTE_INT = 2, ATTRIBUTE_INTS = 7 };

struct fst__onnx_block {
    struct fst__onnx_block *next;
    _Alignas(max_align_t) unsigned char data[];
};

static void broken(struct fst__onnx_writer *w, fst_status s)
{
    if (!w->status)
        w->status = s;
}

void *fst__onnx_take(struct fst__onnx_writer *w, size_t bytes)
{
    if (w->status)
        return NULL;
    struct fst__onnx_block *b = bytes < SIZE_MAX - sizeof *b ? fst_calloc(1, sizeof *b + bytes) : NULL;
    if (!b) {
        broken(w, fst_fail_memory(&w->error, bytes));
        return NULL;
    }
    b->next = w->blocks;
    w->blocks = b;
    return b->data;
}

void fst__onnx_writer_release(struct fst__onnx_writer *w)
{
    while (w->blocks) {
        struct fst__onnx_block *next = w->blocks->next;
        fst_free(w->blocks);
        w->blocks = next;
    }
    fst_free(w->nodes);
    fst_free(w->tensors);
    *w = (struct fst__onnx_writer){0};
}

static char *copy(struct fst__onnx_writer *w, const char *text)
{
    char *p = fst__onnx_take(w, strlen(text) + 1);
    return p ? strcpy(p, text) : NULL;
}

const char *fst__onnx_text(struct fst__onnx_writer *w, const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    const char *text = copy(w, line);
    return text ? text : "";
}

/* One more element in a list of pointers; room doubles at every power of two. */
static bool append(struct fst__onnx_writer *w, void ***list, size_t *count, void *element)
{
    if (w->status)
        return false;
    if ((*count & (*count - 1)) == 0) {
        size_t room = *count ? 2 * *count : 1;
        void **more = fst_realloc(*list, *count * sizeof *more, room * sizeof *more);
        if (!more) {
            broken(w, fst_fail_memory(&w->error, room * sizeof *more));
            return false;
        }
        *list = more;
    }
    (*list)[(*count)++] = element;
    return true;
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

Onnx__Node *fst__onnx_node(struct fst__onnx_writer *w, const char *op, const char *name, const char *const *inputs,
                           size_t count, const char *output)
{
    enum { ATTRIBUTES = 8 };
    Onnx__Node *n = fst__onnx_take(w, sizeof *n);
    char **in = fst__onnx_take(w, count * sizeof *in), **out = fst__onnx_take(w, sizeof *out);
    Onnx__Attribute **attributes = fst__onnx_take(w, ATTRIBUTES * sizeof *attributes);
    if (!n || !in || !out || !attributes)
        return NULL;
    onnx__node__init(n);
    for (size_t i = 0; i < count; i++)
        in[i] = copy(w, inputs[i]);
    out[0] = copy(w, output);
    n->n_input = count;
    n->input = in;
    n->n_output = 1;
    n->output = out;
    n->name = copy(w, name);
    n->op_type = copy(w, op);
    n->attribute = attributes;
    return append(w, (void ***)&w->nodes, &w->node_count, n) ? n : NULL;
}

/* Nodes here have at most six attributes. */
static Onnx__Attribute *attribute(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, int32_t type)
{
    Onnx__Attribute *a = n ? fst__onnx_take(w, sizeof *a) : NULL;
    if (!a)
        return NULL;
    onnx__attribute__init(a);
    a->name = copy(w, name);
    a->has_type = true;
    a->type = type;
    n->attribute[n->n_attribute++] = a;
    return a;
}

void fst__onnx_int(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, int64_t value)
{
    Onnx__Attribute *a = attribute(w, n, name, ATTRIBUTE_INT);
    if (a) {
        a->has_i = true;
        a->i = value;
    }
}

void fst__onnx_ints(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, const int64_t *values, size_t count)
{
    Onnx__Attribute *a = attribute(w, n, name, ATTRIBUTE_INTS);
    int64_t *v = a ? fst__onnx_take(w, count * sizeof *v) : NULL;
    if (v) {
        memcpy(v, values, count * sizeof *v);
        a->ints = v;
        a->n_ints = count;
    }
}

void fst__onnx_float(struct fst__onnx_writer *w, Onnx__Node *n, const char *name, float value)
{
    Onnx__Attribute *a = attribute(w, n, name, ATTRIBUTE_FLOAT);
    if (a) {
        a->has_f = true;
        a->f = value;
    }
}

/* ---- initialisers ---------------------------------------------------------------------------------------- */

static bool tensor(struct fst__onnx_writer *w, const char *name, int32_t type, const fst_shape *shape,
                   const void *values, size_t element)
{
    Onnx__Tensor *t = fst__onnx_take(w, sizeof *t);
    int64_t *dims = fst__onnx_take(w, (size_t)shape->rank * sizeof *dims);
    if (!t || !dims)
        return false;
    onnx__tensor__init(t);
    memcpy(dims, shape->dim, (size_t)shape->rank * sizeof *dims);
    t->n_dims = (size_t)shape->rank;
    t->dims = dims;
    t->has_data_type = true;
    t->data_type = type;
    t->name = copy(w, name);
    t->has_raw_data = true; /* little-endian, as this machine */
    t->raw_data.len = (size_t)fst_shape_count(shape) * element;
    t->raw_data.data = (uint8_t *)values;
    return append(w, (void ***)&w->tensors, &w->tensor_count, t);
}

const char *fst__onnx_f32(struct fst__onnx_writer *w, const char *name, const float *values, const fst_shape *shape)
{
    tensor(w, name, FST__ONNX_FLOAT, shape, values, sizeof *values);
    return name;
}

float *fst__onnx_new_f32(struct fst__onnx_writer *w, const char *name, const fst_shape *shape)
{
    float *v = fst__onnx_take(w, (size_t)fst_shape_count(shape) * sizeof *v);
    return v && tensor(w, name, FST__ONNX_FLOAT, shape, v, sizeof *v) ? v : NULL;
}

const char *fst__onnx_scalar(struct fst__onnx_writer *w, const char *name, float value)
{
    fst_shape scalar = {0};
    float *v = fst__onnx_new_f32(w, name, &scalar);
    if (v)
        *v = value;
    return name;
}

const char *fst__onnx_i64(struct fst__onnx_writer *w, const char *name, const int64_t *values, size_t count)
{
    fst_shape shape = FST_SHAPE((int64_t)count);
    int64_t *v = fst__onnx_take(w, count * sizeof *v);
    if (v) {
        memcpy(v, values, count * sizeof *v);
        tensor(w, name, FST__ONNX_INT64, &shape, v, sizeof *v);
    }
    return name;
}

const char *fst__onnx_i64_scalar(struct fst__onnx_writer *w, const char *name, int64_t value)
{
    fst_shape scalar = {0};
    int64_t *v = fst__onnx_take(w, sizeof *v);
    if (v) {
        *v = value;
        tensor(w, name, FST__ONNX_INT64, &scalar, v, sizeof *v);
    }
    return name;
}

/* ---- the file --------------------------------------------------------------------------------------------- */

static Onnx__Value *value(struct fst__onnx_writer *w, const char *name, const char *doc, const fst_shape *sample)
{
    Onnx__Value *v = fst__onnx_take(w, sizeof *v);
    Onnx__Type *type = fst__onnx_take(w, sizeof *type);
    Onnx__TensorType *t = fst__onnx_take(w, sizeof *t);
    Onnx__Shape *shape = fst__onnx_take(w, sizeof *shape);
    size_t rank = 1 + (size_t)sample->rank;
    Onnx__Dimension **dims = fst__onnx_take(w, rank * sizeof *dims), *each = fst__onnx_take(w, rank * sizeof *each);
    if (!v || !type || !t || !shape || !dims || !each)
        return NULL;
    onnx__value__init(v);
    onnx__type__init(type);
    onnx__tensor_type__init(t);
    onnx__shape__init(shape);
    for (size_t i = 0; i < rank; i++) {
        dims[i] = &each[i];
        onnx__dimension__init(&each[i]);
        if (i == 0) {
            each[i].dim_param = copy(w, "batch");
        } else {
            each[i].has_dim_value = true;
            each[i].dim_value = sample->dim[i - 1];
        }
    }
    shape->n_dim = rank;
    shape->dim = dims;
    t->has_elem_type = true;
    t->elem_type = FST__ONNX_FLOAT;
    t->shape = shape;
    type->tensor_type = t;
    v->type = type;
    v->name = copy(w, name);
    v->doc_string = copy(w, doc);
    return v;
}

/* Bytes on their way to the file. protobuf-c hands them out in small pieces. */
struct sink {
    ProtobufCBuffer base;
    fst_atomic_file *file;
    fst_sha256 hash;
    fst_status status;
    fst_error *err;
    size_t len;
    unsigned char data[WRITE_BLOCK];
};

static void put(struct sink *s, const void *data, size_t len)
{
    if (!s->status)
        s->status = fst_atomic_write(s->file, data, len, s->err);
    fst_sha256_update(&s->hash, data, len);
}

static void flush(struct sink *s)
{
    put(s, s->data, s->len);
    s->len = 0;
}

static void sink_append(ProtobufCBuffer *buffer, size_t len, const uint8_t *data)
{
    struct sink *s = (struct sink *)buffer;
    if (len > sizeof s->data - s->len)
        flush(s);
    if (len > sizeof s->data) {
        put(s, data, len);
    } else {
        memcpy(s->data + s->len, data, len);
        s->len += len;
    }
}

static fst_status pack(const Onnx__Model *m, const char *path, char digest[FST_DIGEST_HEX], fst_error *err)
{
    char hex[FST_DIGEST_HEX];
    fst_atomic_file file = {0};
    size_t bytes = onnx__model__get_packed_size(m);
    if (bytes > MAX_FILE)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu bytes, and an ONNX file holds at most %d", path, bytes, MAX_FILE);
    struct sink *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->base.append = sink_append;
    s->file = &file;
    s->err = err;
    fst_sha256_init(&s->hash);
    fst_status status = fst_atomic_open(&file, path, err);
    if (!status) {
        onnx__model__pack_to_buffer(m, &s->base);
        flush(s);
        status = s->status;
    }
    if (!status)
        status = fst_atomic_commit(&file, err);
    if (status)
        fst_atomic_abort(&file);
    fst_sha256_final(&s->hash, hex);
    if (!status && digest)
        memcpy(digest, hex, sizeof hex);
    fst_free(s);
    return status;
}

static Onnx__Pair **pairs(struct fst__onnx_writer *w, const struct fst__onnx_frame *f)
{
    Onnx__Pair **list = fst__onnx_take(w, f->pair_count * sizeof *list);
    for (size_t i = 0; list && i < f->pair_count; i++) {
        Onnx__Pair *p = list[i] = fst__onnx_take(w, sizeof *p);
        if (!p)
            return NULL;
        onnx__pair__init(p);
        p->key = copy(w, f->pairs[i].key);
        p->value = copy(w, f->pairs[i].value);
    }
    return list;
}

fst_status fst__onnx_write(struct fst__onnx_writer *w, const char *path, const struct fst__onnx_frame *f,
                           char digest[FST_DIGEST_HEX], fst_error *err)
{
    Onnx__Model m = ONNX__MODEL__INIT;
    Onnx__Graph g = ONNX__GRAPH__INIT;
    Onnx__OperatorSet opset = ONNX__OPERATOR_SET__INIT, *opsets = &opset;
    Onnx__Value *input = value(w, f->input, f->input_doc, &f->input_shape);
    Onnx__Value *output = value(w, f->output, f->output_doc, &f->output_shape);
    m.metadata_props = pairs(w, f);
    m.n_metadata_props = f->pair_count;
    g.name = copy(w, f->name);
    m.producer_name = copy(w, "fedstill");
    opset.domain = copy(w, "");
    if (w->status) {
        if (err)
            *err = w->error;
        return w->status;
    }
    opset.has_version = m.has_ir_version = true;
    opset.version = FST__ONNX_OPSET;
    m.ir_version = FST__ONNX_IR;
    m.n_opset_import = 1;
    m.opset_import = &opsets;
    g.n_node = w->node_count;
    g.node = w->nodes;
    g.n_initializer = w->tensor_count;
    g.initializer = w->tensors;
    g.n_input = g.n_output = 1;
    g.input = &input;
    g.output = &output;
    m.graph = &g;
    return pack(&m, path, digest, err);
}
