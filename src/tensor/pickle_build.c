/*
 * What the globals of a pickle become. The list below is all that is known; each entry is a fixed piece of C here, and
 * a name that is not on it is an error before anything else happens. NumPy's arrays and numbers, bytes that
 * Python 3 wrote for Python 2, OrderedDict; for checkpoints also PyTorch's tensors and storages.
 */
#include <stdio.h>
#include <string.h>

#include "npy_private.h"
#include "pickle_private.h"

enum global {
    RECONSTRUCT,
    NDARRAY,
    DTYPE,
    SCALAR,
    FROMBUFFER,
    ENCODE,
    ORDERED_DICT,
    BYTES,
    TORCH_FIRST,
    TORCH_TENSOR = TORCH_FIRST,
    TORCH_PARAMETER,
    TORCH_SIZE,
    TORCH_STORAGE /* the type of its elements in the bits above 8 */
};

static const struct {
    const char *module, *name;
    int what;
} globals[] = {
    {"numpy.core.multiarray", "_reconstruct", RECONSTRUCT},
    {"numpy._core.multiarray", "_reconstruct", RECONSTRUCT},
    {"numpy", "ndarray", NDARRAY},
    {"numpy", "dtype", DTYPE},
    {"numpy.core.multiarray", "scalar", SCALAR},
    {"numpy._core.multiarray", "scalar", SCALAR},
    {"numpy.core.numeric", "_frombuffer", FROMBUFFER},
    {"numpy._core.numeric", "_frombuffer", FROMBUFFER},
    {"_codecs", "encode", ENCODE},
    {"collections", "OrderedDict", ORDERED_DICT},
    {"builtins", "bytes", BYTES},
    {"__builtin__", "bytes", BYTES},
    {"builtins", "bytearray", BYTES},
    {"__builtin__", "bytearray", BYTES},
    {"torch._utils", "_rebuild_tensor_v2", TORCH_TENSOR},
    {"torch._utils", "_rebuild_parameter", TORCH_PARAMETER},
    {"torch", "Size", TORCH_SIZE},
    {"torch", "FloatStorage", TORCH_STORAGE | FST_F32 << 8},
    {"torch", "DoubleStorage", TORCH_STORAGE | FST_F64 << 8},
    {"torch", "HalfStorage", TORCH_STORAGE | FST_F16 << 8},
    {"torch", "BFloat16Storage", TORCH_STORAGE | FST_BF16 << 8},
    {"torch", "LongStorage", TORCH_STORAGE | FST_I64 << 8},
    {"torch", "IntStorage", TORCH_STORAGE | FST_I32 << 8},
    {"torch", "ShortStorage", TORCH_STORAGE | FST_I16 << 8},
    {"torch", "CharStorage", TORCH_STORAGE | FST_I8 << 8},
    {"torch", "ByteStorage", TORCH_STORAGE | FST_U8 << 8},
    {"torch", "BoolStorage", TORCH_STORAGE | FST_BOOL << 8},
};

static bool same(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && !memcmp(text, word, len);
}

/* For messages: at most 63 letters, nothing that a terminal would act on. */
static const char *printable(const char *text, size_t len, char out[64])
{
    size_t n = len < 63 ? len : 63;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] > ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
    return out;
}

fst_status fst__pickle_global(fst_pickle *p, const char *module, size_t module_len, const char *name, size_t name_len,
                              fst_pickle_value **out, fst_error *err)
{
    char a[64], b[64];
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (same(module, module_len, globals[i].module) && same(name, name_len, globals[i].name) &&
            (p->torch || (globals[i].what & 255) < TORCH_FIRST)) {
            fst_status s = fst__pickle_value(p, FST__PICKLE_GLOBAL, out, err);
            if (!s)
                (*out)->integer = globals[i].what;
            return s;
        }
    return fst_fail(err, FST_E_FORMAT,
                    "%s: %s.%s is not allowed: the pickle wants to run code; only plain values and arrays are read",
                    p->name, printable(module, module_len, a), printable(name, name_len, b));
}

/* ---- small helpers -------------------------------------------------------------------------- */

static const fst_pickle_value *arg(const fst_pickle_value *args, size_t i, int kind)
{
    if (i >= args->list.count || args->list.items[i]->kind != kind)
        return NULL;
    return args->list.items[i];
}

static bool is_global(const fst_pickle_value *v, int what)
{
    return v && v->kind == FST__PICKLE_GLOBAL && (v->integer & 255) == what;
}

static bool is_words(const fst_pickle_value *v)
{
    return v && (v->kind == FST_PICKLE_TEXT || v->kind == FST_PICKLE_BYTES);
}

static bool is_number(const fst_pickle_value *v)
{
    return v && (v->kind == FST_PICKLE_INT || v->kind == FST_PICKLE_BOOL);
}

/* A tuple of whole numbers >= 0. */
static bool numbers(const fst_pickle_value *v, int64_t *out, int *count)
{
    if (!v || v->kind != FST_PICKLE_TUPLE || v->list.count > FST_MAX_RANK)
        return false;
    for (size_t i = 0; i < v->list.count; i++) {
        if (v->list.items[i]->kind != FST_PICKLE_INT || v->list.items[i]->integer < 0)
            return false;
        out[i] = v->list.items[i]->integer;
    }
    *count = (int)v->list.count;
    return true;
}

/* ---- NumPy ---------------------------------------------------------------------------------- */

/* "f4", "<f4", "b1": the order of bytes follows with the state. */
static fst_status make_dtype(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    static const struct {
        const char *name;
        fst_dtype dtype;
    } kinds[] = {{"f4", FST_F32}, {"f8", FST_F64},  {"f2", FST_F16}, {"u1", FST_U8},  {"i1", FST_I8},
                 {"u2", FST_U16}, {"i2", FST_I16},  {"u4", FST_U32}, {"i4", FST_I32}, {"u8", FST_U64},
                 {"i8", FST_I64}, {"b1", FST_BOOL}, {"?", FST_BOOL}};
    char text[64];
    const fst_pickle_value *name = args->list.count ? args->list.items[0] : NULL;
    if (!is_words(name))
        return fst__pickle_fail(p, err, "numpy.dtype needs a type's name");
    const char *t = name->text.data;
    size_t n = name->text.length;
    bool big = n && t[0] == '>';
    if (n && strchr("<>|=", t[0]))
        t++, n--;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (same(t, n, kinds[i].name)) {
            fst_status s = fst__pickle_value(p, FST__PICKLE_DTYPE, out, err);
            if (!s)
                (*out)->integer = (int64_t)kinds[i].dtype + (big ? 256 : 0);
            return s;
        }
    return fst_fail(err, FST_E_UNSUPPORTED,
                    "%s: arrays of type '%s' are not read; bool, int, uint or float of 1 to 8 bytes are", p->name,
                    printable(name->text.data, name->text.length, text));
}

/* (version, '<', None, None, None, -1, -1, 0) */
static fst_status build_dtype(fst_pickle *p, fst_pickle_value *d, const fst_pickle_value *state, fst_error *err)
{
    if (state->kind != FST_PICKLE_TUPLE || state->list.count < 5 || !is_words(state->list.items[1]) ||
        state->list.items[1]->text.length != 1)
        return fst__pickle_fail(p, err, "the state of a numpy.dtype is not one");
    if (state->list.items[2]->kind != FST_PICKLE_NONE || state->list.items[4]->kind != FST_PICKLE_NONE)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: structured arrays are not read", p->name);
    d->integer = (d->integer & 255) + (state->list.items[1]->text.data[0] == '>' ? 256 : 0);
    return FST_OK;
}

/* Checks that `data` are the array's bytes, turns them into C order and little-endian, and makes *v an array. */
static fst_status fill_array(fst_pickle *p, fst_pickle_value *v, const fst_shape *shape, const fst_pickle_value *dtype,
                             const fst_pickle_value *data, bool fortran, fst_error *err)
{
    fst_dtype type = (fst_dtype)(dtype->integer & 255);
    size_t size = fst_dtype_size(type);
    int64_t count = fst_shape_count(shape), bytes;
    bool big = dtype->integer > 255 && size > 1;
    void *tensor = NULL, *copy = NULL, *turned = NULL;
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)size, &bytes) || (uint64_t)bytes != data->text.length)
        return fst__pickle_fail(p, err, "an array's shape and type do not fit its bytes");
    fst_status s = fst__pickle_take(p, sizeof(fst_tensor), &tensor, err);
    fortran = fortran && shape->rank > 1;
    if (!s && big)
        s = fst__pickle_take(p, (size_t)bytes, &turned, err);
    if (!s && fortran)
        s = fst__pickle_take(p, (size_t)bytes, &copy, err);
    if (s)
        return s;
    const void *from = data->text.data;
    if (big) {
        if (bytes)
            memcpy(turned, from, (size_t)bytes);
        fst__swap_bytes(turned, (size_t)count, size);
        from = turned;
    }
    if (fortran) {
        fst__from_fortran(copy, from, shape, (size_t)count, size);
        from = copy;
    }
    *(fst_tensor *)tensor = (fst_tensor){NULL, type, *shape, (void *)(uintptr_t)from};
    v->kind = FST_PICKLE_ARRAY;
    v->array = tensor;
    return FST_OK;
}

/* (version, shape, dtype, is Fortran order, bytes) */
static fst_status build_array(fst_pickle *p, fst_pickle_value *v, const fst_pickle_value *state, fst_error *err)
{
    fst_shape shape = {0};
    if (state->kind != FST_PICKLE_TUPLE || state->list.count != 5 ||
        !numbers(state->list.items[1], shape.dim, &shape.rank))
        return fst__pickle_fail(p, err, "the state of a NumPy array is not one (or it has more than 8 dimensions)");
    const fst_pickle_value *dtype = state->list.items[2], *order = state->list.items[3], *data = state->list.items[4];
    if (dtype->kind != FST__PICKLE_DTYPE || !is_number(order))
        return fst__pickle_fail(p, err, "the state of a NumPy array is not one");
    if (data->kind != FST_PICKLE_BYTES)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: object arrays are not read", p->name);
    return fill_array(p, v, &shape, dtype, data, order->integer != 0, err);
}

/* _reconstruct(ndarray, (0,), b'b') */
static fst_status make_raw_array(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    if (!is_global(arg(args, 0, FST__PICKLE_GLOBAL), NDARRAY))
        return fst__pickle_fail(p, err, "_reconstruct makes numpy.ndarray only");
    return fst__pickle_value(p, FST__PICKLE_RAW_ARRAY, out, err);
}

/* _frombuffer(bytes, dtype, shape, 'C') */
static fst_status make_from_buffer(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    fst_shape shape = {0};
    const fst_pickle_value *data = arg(args, 0, FST_PICKLE_BYTES), *dtype = arg(args, 1, FST__PICKLE_DTYPE);
    if (!data || !dtype || !numbers(arg(args, 2, FST_PICKLE_TUPLE), shape.dim, &shape.rank) || args->list.count != 4 ||
        !is_words(args->list.items[3]))
        return fst__pickle_fail(p, err, "the arguments of numpy's _frombuffer are not understood");
    fst_status s = fst__pickle_value(p, FST__PICKLE_RAW_ARRAY, out, err);
    return s ? s
             : fill_array(p, *out, &shape, dtype, data,
                          same(args->list.items[3]->text.data, args->list.items[3]->text.length, "F"), err);
}

/* The one element of an array of rank 0. */
static fst_status element(fst_pickle *p, fst_pickle_value *v, fst_error *err)
{
    uint64_t bits = 0;
    float f;
    fst_dtype t = v->array->dtype;
    size_t size = fst_dtype_size(t);
    memcpy(&bits, v->array->data, size); /* little-endian */
    switch (t) {
    case FST_F32:
        memcpy(&f, &bits, sizeof f);
        v->real = (double)f;
        break;
    case FST_F64:
        memcpy(&v->real, &bits, sizeof v->real);
        break;
    case FST_F16:
        v->real = (double)fst_f32_from_f16((uint16_t)bits);
        break;
    case FST_U64:
        if (bits > INT64_MAX)
            return fst__pickle_fail(p, err, "a whole number of more than 63 bits");
        v->integer = (int64_t)bits;
        break;
    case FST_I8:
    case FST_I16:
    case FST_I32:
    case FST_I64:
        v->integer = (int64_t)(bits << (64 - 8 * size)) >> (64 - 8 * size);
        break;
    default:
        v->integer = (int64_t)bits;
    }
    v->kind = t == FST_F32 || t == FST_F64 || t == FST_F16 ? FST_PICKLE_FLOAT
              : t == FST_BOOL                              ? FST_PICKLE_BOOL
                                                           : FST_PICKLE_INT;
    return FST_OK;
}

/* scalar(dtype, bytes) */
static fst_status make_scalar(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *dtype = arg(args, 0, FST__PICKLE_DTYPE), *data = arg(args, 1, FST_PICKLE_BYTES);
    fst_shape shape = {0};
    if (!dtype || !data)
        return fst__pickle_fail(p, err, "the arguments of numpy's scalar are not understood");
    fst_status s = fst__pickle_value(p, FST__PICKLE_RAW_ARRAY, out, err);
    if (!s)
        s = fill_array(p, *out, &shape, dtype, data, false, err);
    return s ? s : element(p, *out, err);
}

/* ---- Python --------------------------------------------------------------------------------- */

/* _codecs.encode(text, 'latin1') */
static fst_status make_encoded(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *text = arg(args, 0, FST_PICKLE_TEXT);
    const fst_pickle_value *how = args->list.count == 2 ? args->list.items[1] : NULL;
    if (!text || !is_words(how) ||
        !(same(how->text.data, how->text.length, "latin1") || same(how->text.data, how->text.length, "latin-1")))
        return fst__pickle_fail(p, err, "_codecs.encode is understood as (text, 'latin1') only");
    return fst__pickle_latin1(p, text, out, err);
}

/* bytes() and bytearray(), empty or of bytes */
static fst_status make_bytes(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *data = arg(args, 0, FST_PICKLE_BYTES);
    if (args->list.count && !data)
        return fst__pickle_fail(p, err, "bytes of something else than bytes");
    fst_status s = fst__pickle_value(p, FST_PICKLE_BYTES, out, err);
    if (!s && data)
        (*out)->text = data->text;
    else if (!s)
        (*out)->text.data = "";
    return s;
}

/* OrderedDict(), or of a list of pairs as Python 2 wrote it */
static fst_status make_dict(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *pairs = arg(args, 0, FST_PICKLE_LIST);
    void *items = NULL;
    if (args->list.count && !pairs)
        return fst__pickle_fail(p, err, "OrderedDict of something else than a list of pairs");
    size_t n = pairs ? pairs->list.count : 0;
    fst_status s = fst__pickle_value(p, FST_PICKLE_DICT, out, err);
    if (!s)
        s = fst__pickle_take(p, 2 * n * sizeof(fst_pickle_value *), &items, err);
    if (s)
        return s;
    for (size_t i = 0; i < n; i++) {
        const fst_pickle_value *pair = pairs->list.items[i];
        if ((pair->kind != FST_PICKLE_LIST && pair->kind != FST_PICKLE_TUPLE) || pair->list.count != 2)
            return fst__pickle_fail(p, err, "OrderedDict of something else than a list of pairs");
        ((fst_pickle_value **)items)[2 * i] = pair->list.items[0];
        ((fst_pickle_value **)items)[2 * i + 1] = pair->list.items[1];
    }
    (*out)->list.items = items;
    (*out)->list.count = (*out)->list.room = 2 * n;
    return FST_OK;
}

/* ---- PyTorch -------------------------------------------------------------------------------- */

/* ('storage', torch.FloatStorage, '0', 'cpu', count), in old files with a sixth entry: None, or a view of the storage
 */
fst_status fst__pickle_persistent(fst_pickle *p, const fst_pickle_value *id, fst_pickle_value **out, fst_error *err)
{
    void *memory = NULL;
    if (!p->torch)
        return fst__pickle_fail(p, err, "a persistent id; only plain values are read");
    if (id->kind != FST_PICKLE_TUPLE || id->list.count < 5 || !is_words(id->list.items[0]) ||
        !same(id->list.items[0]->text.data, id->list.items[0]->text.length, "storage") ||
        !is_global(id->list.items[1], TORCH_STORAGE) || !is_words(id->list.items[2]) ||
        id->list.items[4]->kind != FST_PICKLE_INT || id->list.items[4]->integer < 0)
        return fst__pickle_fail(p, err, "a persistent id that is no storage of PyTorch");
    if (id->list.count > 5 && id->list.items[5]->kind != FST_PICKLE_NONE)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: storages that are views of others are not read", p->name);
    fst_status s = fst__pickle_take(p, sizeof(fst__torch_storage), &memory, err);
    if (!s)
        s = fst__pickle_value(p, FST__PICKLE_STORAGE, out, err);
    if (s)
        return s;
    const fst_pickle_value *key = id->list.items[2];
    fst__torch_storage *storage = memory;
    *storage = (fst__torch_storage){.dtype = (fst_dtype)(id->list.items[1]->integer >> 8),
                                    .key = key->text.data,
                                    .key_len = key->text.length,
                                    .count = (uint64_t)id->list.items[4]->integer,
                                    .next = p->storages};
    p->storages = storage;
    (*out)->object = memory;
    return FST_OK;
}

/* Whether the last element lies inside the storage; a tensor without elements always does. */
static bool inside(const fst__torch_tensor *t)
{
    uint64_t last = t->offset;
    if (fst_shape_count(&t->shape) == 0)
        return true;
    for (int d = 0; d < t->shape.rank; d++) {
        uint64_t reach;
        if (__builtin_mul_overflow((uint64_t)t->stride[d], (uint64_t)t->shape.dim[d] - 1, &reach) ||
            __builtin_add_overflow(last, reach, &last))
            return false;
    }
    return last < t->storage->count;
}

/* (storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static fst_status make_tensor(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *storage = arg(args, 0, FST__PICKLE_STORAGE), *offset = arg(args, 1, FST_PICKLE_INT);
    fst__torch_tensor t = {0};
    int strides = 0;
    void *memory = NULL;
    if (!storage || !offset || offset->integer < 0 ||
        !numbers(arg(args, 2, FST_PICKLE_TUPLE), t.shape.dim, &t.shape.rank) ||
        !numbers(arg(args, 3, FST_PICKLE_TUPLE), t.stride, &strides) || strides != t.shape.rank)
        return fst__pickle_fail(p, err, "the arguments of _rebuild_tensor_v2 are not understood");
    t.storage = fst__pickle_storage(storage);
    t.offset = (uint64_t)offset->integer;
    if (fst_shape_count(&t.shape) < 0 || !inside(&t))
        return fst__pickle_fail(p, err, "a tensor that reaches past its storage");
    fst_status s = fst__pickle_take(p, sizeof t, &memory, err);
    if (!s)
        s = fst__pickle_value(p, FST__PICKLE_TENSOR, out, err);
    if (s)
        return s;
    *(fst__torch_tensor *)memory = t;
    (*out)->object = memory;
    return FST_OK;
}

/* ---- all together --------------------------------------------------------------------------- */

/* What stands for its first argument: torch.Size(tuple), _rebuild_parameter(tensor, ...). */
static fst_status first_argument(fst_pickle *p, const fst_pickle_value *args, int kind, fst_pickle_value **out,
                                 fst_error *err)
{
    if (!arg(args, 0, kind))
        return fst__pickle_fail(p, err, "the arguments of a PyTorch global are not understood");
    *out = args->list.items[0];
    return FST_OK;
}

fst_status fst__pickle_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                            fst_pickle_value **out, fst_error *err)
{
    if (callee->kind != FST__PICKLE_GLOBAL || args->kind != FST_PICKLE_TUPLE)
        return fst__pickle_fail(p, err, "a call of what cannot be called");
    switch ((enum global)(callee->integer & 255)) {
    case RECONSTRUCT:
        return make_raw_array(p, args, out, err);
    case DTYPE:
        return make_dtype(p, args, out, err);
    case SCALAR:
        return make_scalar(p, args, out, err);
    case FROMBUFFER:
        return make_from_buffer(p, args, out, err);
    case ENCODE:
        return make_encoded(p, args, out, err);
    case ORDERED_DICT:
        return make_dict(p, args, out, err);
    case BYTES:
        return make_bytes(p, args, out, err);
    case TORCH_TENSOR:
        return make_tensor(p, args, out, err);
    case TORCH_PARAMETER:
        return first_argument(p, args, FST__PICKLE_TENSOR, out, err);
    case TORCH_SIZE:
        return first_argument(p, args, FST_PICKLE_TUPLE, out, err);
    default:
        return fst__pickle_fail(p, err, "a call of what cannot be called");
    }
}

fst_status fst__pickle_build(fst_pickle *p, fst_pickle_value *object, const fst_pickle_value *state, fst_error *err)
{
    if (object->kind == FST__PICKLE_DTYPE)
        return build_dtype(p, object, state, err);
    if (object->kind == FST__PICKLE_RAW_ARRAY)
        return build_array(p, object, state, err);
    if (object->kind == FST_PICKLE_DICT && p->torch && state->kind == FST_PICKLE_DICT)
        return FST_OK; /* attributes of a state_dict (_metadata): no values of ours */
    return fst__pickle_fail(p, err, "sets the state of what has none");
}
