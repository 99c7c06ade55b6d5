/*
 * What the globals of a pickle become. The list below (and pickle_torch.c's for checkpoints) is all that is known;
 * each entry is a fixed piece of C here. Another name is an error before anything else happens, or, in a checkpoint, a
 * class without any content. NumPy's arrays and numbers, bytes that Python 3 wrote for Python 2, OrderedDict.
 */
#include <stdio.h>
#include <string.h>

#include "npy_private.h"
#include "pickle_private.h"

static const struct {
    const char *module, *name;
    int what;
} globals[] = {
    {"numpy.core.multiarray", "_reconstruct", FST__RECONSTRUCT},
    {"numpy._core.multiarray", "_reconstruct", FST__RECONSTRUCT},
    {"numpy", "ndarray", FST__NDARRAY},
    {"numpy", "dtype", FST__DTYPE},
    {"numpy.core.multiarray", "scalar", FST__SCALAR},
    {"numpy._core.multiarray", "scalar", FST__SCALAR},
    {"numpy.core.numeric", "_frombuffer", FST__FROMBUFFER},
    {"numpy._core.numeric", "_frombuffer", FST__FROMBUFFER},
    {"_codecs", "encode", FST__ENCODE},
    {"collections", "OrderedDict", FST__ORDERED_DICT},
    {"builtins", "bytes", FST__BYTES},
    {"__builtin__", "bytes", FST__BYTES},
    {"builtins", "bytearray", FST__BYTES},
    {"__builtin__", "bytearray", FST__BYTES},
};

/* What programs do with a machine, not with numbers. Nothing here would run it; but a file that wants it run is no
 * file of weights or data, and its reader should know. */
static const struct {
    const char *module, *name; /* NULL: all of it */
} harmful[] = {
    {"os", NULL},
    {"posix", NULL},
    {"nt", NULL},
    {"subprocess", NULL},
    {"_posixsubprocess", NULL},
    {"sys", NULL},
    {"shutil", NULL},
    {"socket", NULL},
    {"pty", NULL},
    {"commands", NULL},
    {"runpy", NULL},
    {"webbrowser", NULL},
    {"ctypes", NULL},
    {"importlib", NULL},
    {"code", NULL},
    {"pdb", NULL},
    {"timeit", NULL},
    {"marshal", NULL},
    {"pickle", NULL},
    {"_pickle", NULL},
    {"requests.api", NULL},
    {"urllib.request", NULL},
    {"http.client", NULL},
    {"pip", NULL},
    {"torch.hub", NULL},
    {"torch.load", NULL},
    {"builtins", "eval"},
    {"builtins", "exec"},
    {"builtins", "compile"},
    {"builtins", "open"},
    {"builtins", "__import__"},
    {"builtins", "breakpoint"},
    {"__builtin__", "eval"},
    {"__builtin__", "exec"},
    {"__builtin__", "compile"},
    {"__builtin__", "open"},
    {"__builtin__", "__import__"},
    {"__builtin__", "execfile"},
    {"__builtin__", "apply"},
    {"__builtin__", "file"},
};

const char *fst__pickle_printable(const char *text, size_t len, char out[64])
{
    size_t n = len < 63 ? len : 63;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] > ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
    return out;
}

static bool is_harmful(const char *module, size_t module_len, const char *name, size_t name_len)
{
    for (size_t i = 0; i < sizeof harmful / sizeof *harmful; i++)
        if (fst__pickle_same(module, module_len, harmful[i].module) &&
            (!harmful[i].name || fst__pickle_same(name, name_len, harmful[i].name)))
            return true;
    return false;
}

/* "module.name" of a class that is not known here. */
static fst_status make_class(fst_pickle *p, const char *module, size_t module_len, const char *name, size_t name_len,
                             fst_pickle_value **out, fst_error *err)
{
    void *text = NULL;
    fst_status s = fst__pickle_take(p, module_len + 1 + name_len, &text, err);
    if (s)
        return s;
    char *to = text;
    if (module_len)
        memcpy(to, module, module_len);
    to[module_len] = '.';
    if (name_len)
        memcpy(to + module_len + 1, name, name_len);
    return fst__pickle_object(p, text, module_len + 1 + name_len, out, err);
}

fst_status fst__pickle_global(fst_pickle *p, const char *module, size_t module_len, const char *name, size_t name_len,
                              fst_pickle_value **out, fst_error *err)
{
    char a[64], b[64];
    int64_t what = p->torch ? fst__torch_global(module, module_len, name, name_len) : -1;
    for (size_t i = 0; what < 0 && i < sizeof globals / sizeof *globals; i++)
        if (fst__pickle_same(module, module_len, globals[i].module) &&
            fst__pickle_same(name, name_len, globals[i].name))
            what = globals[i].what;
    if (what >= 0) {
        fst_status s = fst__pickle_value(p, FST__PICKLE_GLOBAL, out, err);
        if (!s)
            (*out)->integer = what;
        return s;
    }
    bool code = is_harmful(module, module_len, name, name_len);
    if (p->torch && !code)
        return make_class(p, module, module_len, name, name_len, out, err);
    return fst_fail(err, FST_E_FORMAT, "%s: %s.%s is not allowed: %sonly plain values and arrays are read", p->name,
                    fst__pickle_printable(module, module_len, a), fst__pickle_printable(name, name_len, b),
                    code ? "the pickle wants to run code; " : "");
}

/* ---- small helpers -------------------------------------------------------------------------- */

static bool is_number(const fst_pickle_value *v)
{
    return v && (v->kind == FST_PICKLE_INT || v->kind == FST_PICKLE_BOOL);
}

bool fst__pickle_numbers(const fst_pickle_value *v, int64_t *out, int *count)
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
    if (!fst__pickle_is_words(name))
        return fst__pickle_fail(p, err, "numpy.dtype needs a type's name");
    const char *t = name->text.data;
    size_t n = name->text.length;
    bool big = n && t[0] == '>';
    if (n && strchr("<>|=", t[0]))
        t++, n--;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (fst__pickle_same(t, n, kinds[i].name)) {
            fst_status s = fst__pickle_value(p, FST__PICKLE_DTYPE, out, err);
            if (!s)
                (*out)->integer = (int64_t)kinds[i].dtype + (big ? 256 : 0);
            return s;
        }
    return fst_fail(err, FST_E_UNSUPPORTED,
                    "%s: arrays of type '%s' are not read; bool, int, uint or float of 1 to 8 bytes are", p->name,
                    fst__pickle_printable(name->text.data, name->text.length, text));
}

/* (version, '<', None, None, None, -1, -1, 0) */
static fst_status build_dtype(fst_pickle *p, fst_pickle_value *d, const fst_pickle_value *state, fst_error *err)
{
    if (state->kind != FST_PICKLE_TUPLE || state->list.count < 5 || !fst__pickle_is_words(state->list.items[1]) ||
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
    if (big || fortran)
        s = fst__pickle_fill(p, from, (size_t)bytes, err);
    if (s)
        return s;
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
        !fst__pickle_numbers(state->list.items[1], shape.dim, &shape.rank))
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
    if (!fst__pickle_is_global(fst__pickle_arg(args, 0, FST__PICKLE_GLOBAL), FST__NDARRAY))
        return fst__pickle_fail(p, err, "_reconstruct makes numpy.ndarray only");
    return fst__pickle_value(p, FST__PICKLE_RAW_ARRAY, out, err);
}

/* _frombuffer(bytes, dtype, shape, 'C') */
static fst_status make_from_buffer(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    fst_shape shape = {0};
    const fst_pickle_value *data = fst__pickle_arg(args, 0, FST_PICKLE_BYTES),
                           *dtype = fst__pickle_arg(args, 1, FST__PICKLE_DTYPE);
    if (!data || !dtype || !fst__pickle_numbers(fst__pickle_arg(args, 2, FST_PICKLE_TUPLE), shape.dim, &shape.rank) ||
        args->list.count != 4 || !fst__pickle_is_words(args->list.items[3]))
        return fst__pickle_fail(p, err, "the arguments of numpy's _frombuffer are not understood");
    fst_status s = fst__pickle_value(p, FST__PICKLE_RAW_ARRAY, out, err);
    return s ? s
             : fill_array(p, *out, &shape, dtype, data,
                          fst__pickle_same(args->list.items[3]->text.data, args->list.items[3]->text.length, "F"), err);
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
    const fst_pickle_value *dtype = fst__pickle_arg(args, 0, FST__PICKLE_DTYPE),
                           *data = fst__pickle_arg(args, 1, FST_PICKLE_BYTES);
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
    const fst_pickle_value *text = fst__pickle_arg(args, 0, FST_PICKLE_TEXT);
    const fst_pickle_value *how = args->list.count == 2 ? args->list.items[1] : NULL;
    if (!text || !fst__pickle_is_words(how) ||
        !(fst__pickle_same(how->text.data, how->text.length, "latin1") ||
          fst__pickle_same(how->text.data, how->text.length, "latin-1")))
        return fst__pickle_fail(p, err, "_codecs.encode is understood as (text, 'latin1') only");
    return fst__pickle_latin1(p, text, out, err);
}

/* bytes() and bytearray(), empty or of bytes */
static fst_status make_bytes(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *data = fst__pickle_arg(args, 0, FST_PICKLE_BYTES);
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
    const fst_pickle_value *pairs = fst__pickle_arg(args, 0, FST_PICKLE_LIST);
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

/* ---- all together --------------------------------------------------------------------------- */

static fst_status call_known(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                             fst_pickle_value **out, fst_error *err)
{
    switch ((enum fst__global)(callee->integer & 255)) {
    case FST__RECONSTRUCT:
        return make_raw_array(p, args, out, err);
    case FST__DTYPE:
        return make_dtype(p, args, out, err);
    case FST__SCALAR:
        return make_scalar(p, args, out, err);
    case FST__FROMBUFFER:
        return make_from_buffer(p, args, out, err);
    case FST__ENCODE:
        return make_encoded(p, args, out, err);
    case FST__ORDERED_DICT:
        return make_dict(p, args, out, err);
    case FST__BYTES:
        return make_bytes(p, args, out, err);
    default:
        return fst__pickle_fail(p, err, "a call of what cannot be called");
    }
}

/* In a file of torch.save whatever is not understood stands there as an object: it may lie beside the weights, and
 * where weights should be, pth.c says what is there instead. */
static bool may_be_object(const fst_pickle *p, fst_status s)
{
    return p->torch && (s == FST_E_FORMAT || s == FST_E_UNSUPPORTED);
}

fst_status fst__pickle_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                            fst_pickle_value **out, fst_error *err)
{
    static const char unread[] = "numpy";
    fst_error why = {0};
    if (fst__pickle_is_object(callee))
        return fst__pickle_object(p, callee->text.data, callee->text.length, out, err);
    if (callee->kind != FST__PICKLE_GLOBAL || args->kind != FST_PICKLE_TUPLE)
        return fst__pickle_fail(p, err, "a call of what cannot be called");
    if ((callee->integer & 255) >= FST__TORCH_FIRST)
        return fst__torch_call(p, callee, args, out, err);
    fst_status s = call_known(p, callee, args, out, &why);
    if (may_be_object(p, s))
        return fst__pickle_object(p, unread, sizeof unread - 1, out, err);
    return s ? fst_fail(err, s, "%s", why.message) : FST_OK;
}

/* Whether a state is that of a torch.nn.Module. */
static bool is_module_state(const fst_pickle_value *state)
{
    return fst_pickle_find(state, "_parameters") && fst_pickle_find(state, "_modules");
}

fst_status fst__pickle_build(fst_pickle *p, fst_pickle_value *object, const fst_pickle_value *state, fst_error *err)
{
    static const char unread[] = "numpy.ndarray";
    fst_error why = {0};
    fst_status s = FST_OK;
    if (object->kind == FST__PICKLE_DTYPE)
        s = build_dtype(p, object, state, &why);
    else if (object->kind == FST__PICKLE_RAW_ARRAY)
        s = build_array(p, object, state, &why);
    else if (p->torch) {
        if (object->kind == FST__PICKLE_OBJECT && is_module_state(state))
            object->kind = FST__PICKLE_MODULE;
        return FST_OK; /* attributes, as of a state_dict (_metadata): no values of ours */
    } else
        return fst__pickle_fail(p, err, "sets the state of what has none");
    if (may_be_object(p, s)) {
        *object = (fst_pickle_value){.kind = FST__PICKLE_OBJECT, .text = {unread, sizeof unread - 1}};
        return FST_OK;
    }
    return s ? fst_fail(err, s, "%s", why.message) : FST_OK;
}
