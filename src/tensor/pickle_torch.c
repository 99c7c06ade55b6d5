/*
 * PyTorch's part of a pickle: tensors and storages as torch.save writes them in all of its versions, and the plain
 * containers that stand beside them. What `torch.load(weights_only=True)` knows is known here; what PyTorch makes by
 * any other function is an object without content. No element is read here: a tensor says which storage it
 * looks at and how.
 */
#include "pickle_private.h"

static const struct fst__torch_type storages[] = {
    {"FloatStorage", FST_F32, 4},
    {"DoubleStorage", FST_F64, 8},
    {"HalfStorage", FST_F16, 2},
    {"BFloat16Storage", FST_BF16, 2},
    {"LongStorage", FST_I64, 8},
    {"IntStorage", FST_I32, 4},
    {"ShortStorage", FST_I16, 2},
    {"CharStorage", FST_I8, 1},
    {"ByteStorage", FST_U8, 1},
    {"BoolStorage", FST_BOOL, 1},
    {"UntypedStorage", FST_U8, 1},
    {"_UntypedStorage", FST_U8, 1},
    {"ComplexFloatStorage", FST_DTYPE_COUNT, 8},
    {"ComplexDoubleStorage", FST_DTYPE_COUNT, 16},
    {"QInt8Storage", FST_DTYPE_COUNT, 1},
    {"QUInt8Storage", FST_DTYPE_COUNT, 1},
    {"QInt32Storage", FST_DTYPE_COUNT, 4},
    {"QUInt4x2Storage", FST_DTYPE_COUNT, 1},
    {"QUInt2x4Storage", FST_DTYPE_COUNT, 1},
};

static const struct fst__torch_type dtypes[] = {
    {"float32", FST_F32, 4},
    {"float64", FST_F64, 8},
    {"float16", FST_F16, 2},
    {"bfloat16", FST_BF16, 2},
    {"uint8", FST_U8, 1},
    {"int8", FST_I8, 1},
    {"uint16", FST_U16, 2},
    {"int16", FST_I16, 2},
    {"uint32", FST_U32, 4},
    {"int32", FST_I32, 4},
    {"uint64", FST_U64, 8},
    {"int64", FST_I64, 8},
    {"bool", FST_BOOL, 1},
    {"complex64", FST_DTYPE_COUNT, 8},
    {"complex128", FST_DTYPE_COUNT, 16},
    {"float8_e4m3fn", FST_DTYPE_COUNT, 1},
    {"float8_e4m3fnuz", FST_DTYPE_COUNT, 1},
    {"float8_e5m2", FST_DTYPE_COUNT, 1},
    {"float8_e5m2fnuz", FST_DTYPE_COUNT, 1},
};

static const struct {
    const char *module, *name;
    enum fst__global what;
} globals[] = {
    {"collections", "Counter", FST__COUNTER},
    {"collections", "defaultdict", FST__DEFAULTDICT},
    {"torch._utils", "_rebuild_tensor", FST__TORCH_TENSOR_V1},
    {"torch._utils", "_rebuild_tensor_v2", FST__TORCH_TENSOR_V2},
    {"torch._utils", "_rebuild_tensor_v3", FST__TORCH_TENSOR_V3},
    {"torch._tensor", "_rebuild_from_type", FST__TORCH_SUBCLASS},
    {"torch._tensor", "_rebuild_from_type_v2", FST__TORCH_SUBCLASS},
    {"torch.tensor", "_rebuild_from_type", FST__TORCH_SUBCLASS},
    {"torch._utils", "_rebuild_parameter", FST__TORCH_PARAMETER},
    {"torch._utils", "_rebuild_parameter_with_state", FST__TORCH_PARAMETER},
    {"torch.nn.parameter", "Parameter", FST__TORCH_PARAMETER},
    {"torch.nn.parameter", "Buffer", FST__TORCH_PARAMETER},
    {"torch", "Size", FST__TORCH_SIZE},
};

enum { STORAGES = sizeof storages / sizeof *storages, DTYPES = sizeof dtypes / sizeof *dtypes };

int64_t fst__torch_global(const char *module, size_t module_len, const char *name, size_t name_len)
{
    bool torch = fst__pickle_same(module, module_len, "torch");
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (fst__pickle_same(module, module_len, globals[i].module) &&
            fst__pickle_same(name, name_len, globals[i].name))
            return globals[i].what;
    if (torch || fst__pickle_same(module, module_len, "torch.cuda") ||
        fst__pickle_same(module, module_len, "torch.storage"))
        for (int64_t i = 0; i < STORAGES; i++)
            if (fst__pickle_same(name, name_len, storages[i].name))
                return FST__TORCH_STORAGE | i << 8;
    for (int64_t i = 0; torch && i < DTYPES; i++)
        if (fst__pickle_same(name, name_len, dtypes[i].name))
            return FST__TORCH_DTYPE | i << 8;
    return -1;
}

/* ---- containers ----------------------------------------------------------------------------- */

/* Counter(dict) and defaultdict(factory): a dictionary. */
static fst_status make_counter(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *from = fst__pickle_arg(args, 0, FST_PICKLE_DICT);
    void *items = NULL;
    size_t bytes = from ? from->list.count * sizeof(fst_pickle_value *) : 0;
    fst_status s = fst__pickle_value(p, FST_PICKLE_DICT, out, err);
    if (!s && bytes)
        s = fst__pickle_take(p, bytes, &items, err);
    if (s || !bytes)
        return s;
    memcpy(items, from->list.items, bytes);
    (*out)->list.items = items;
    (*out)->list.count = (*out)->list.room = from->list.count;
    return FST_OK;
}

/* ---- storages ------------------------------------------------------------------------------- */

/* The type of a storage that is not in the table: its elements cannot be passed over in the older stream. */
static fst_status unknown_type(fst_pickle *p, const fst_pickle_value *of, const struct fst__torch_type **out,
                               fst_error *err)
{
    char name[64];
    void *memory = NULL;
    fst_status s = fst__pickle_take(p, sizeof **out + sizeof name, &memory, err);
    if (s)
        return s;
    struct fst__torch_type *type = memory;
    char *text = (char *)(type + 1);
    strcpy(text, fst__pickle_printable(of->text.data, of->text.length, name));
    *type = (struct fst__torch_type){text, FST_DTYPE_COUNT, 0};
    *out = type;
    return FST_OK;
}

/* (view's key, first element, elements): how PyTorch up to 0.3 saved a storage that looks into another. */
static bool narrow(const fst_pickle_value *view, fst__torch_storage *st)
{
    const fst_pickle_value *first = NULL, *count = NULL;
    if (view->kind == FST_PICKLE_NONE)
        return true;
    if (view->kind == FST_PICKLE_TUPLE && view->list.count == 3) {
        first = fst__pickle_arg(view, 1, FST_PICKLE_INT);
        count = fst__pickle_arg(view, 2, FST_PICKLE_INT);
    }
    if (!first || !count || first->integer < 0 || count->integer < 0 || (uint64_t)first->integer > st->count ||
        (uint64_t)count->integer > st->count - (uint64_t)first->integer)
        return false;
    st->first = (uint64_t)first->integer;
    st->within = (uint64_t)count->integer;
    return true;
}

static bool is_id(const fst_pickle_value *id, const char *word, size_t entries)
{
    return id->kind == FST_PICKLE_TUPLE && id->list.count >= entries && fst__pickle_is_words(id->list.items[0]) &&
           fst__pickle_same(id->list.items[0]->text.data, id->list.items[0]->text.length, word);
}

/* ('storage', torch.FloatStorage, '0', 'cpu', count), in old files with a sixth entry: None, or a view of the storage.
 * In old files of whole modules also ('module', class, file, source): the class. */
fst_status fst__pickle_persistent(fst_pickle *p, const fst_pickle_value *id, fst_pickle_value **out, fst_error *err)
{
    void *memory = NULL;
    if (!p->torch)
        return fst__pickle_fail(p, err, "a persistent id; only plain values are read");
    if (is_id(id, "module", 2) && fst__pickle_is_object(id->list.items[1])) {
        *out = id->list.items[1];
        return FST_OK;
    }
    bool known = is_id(id, "storage", 5) && fst__pickle_is_global(id->list.items[1], FST__TORCH_STORAGE);
    if (!(known || (is_id(id, "storage", 5) && fst__pickle_is_object(id->list.items[1]))) ||
        !fst__pickle_is_words(id->list.items[2]) || id->list.items[4]->kind != FST_PICKLE_INT ||
        id->list.items[4]->integer < 0)
        return fst__pickle_fail(p, err, "a persistent id that is no storage of PyTorch");
    const fst_pickle_value *key = id->list.items[2];
    fst__torch_storage st = {.key = key->text.data,
                             .key_len = key->text.length,
                             .count = (uint64_t)id->list.items[4]->integer,
                             .within = (uint64_t)id->list.items[4]->integer,
                             .next = p->storages};
    if (id->list.count > 5 && !narrow(id->list.items[5], &st))
        return fst__pickle_fail(p, err, "a view that reaches past its storage");
    fst_status s = FST_OK;
    if (known)
        st.type = &storages[id->list.items[1]->integer >> 8];
    else
        s = unknown_type(p, id->list.items[1], &st.type, err);
    if (!s)
        s = fst__pickle_take(p, sizeof st, &memory, err);
    if (!s)
        s = fst__pickle_value(p, FST__PICKLE_STORAGE, out, err);
    if (s)
        return s;
    *(fst__torch_storage *)memory = st;
    p->storages = memory;
    (*out)->object = memory;
    return FST_OK;
}

/* ---- tensors -------------------------------------------------------------------------------- */

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
    return last < t->storage->within;
}

/* The storage's bytes as elements of another type. */
static fst_status retype(fst_pickle *p, const fst__torch_storage *from, const fst_pickle_value *dtype,
                         const fst__torch_storage **out, fst_error *err)
{
    void *memory = NULL;
    const struct fst__torch_type *type =
        fst__pickle_is_global(dtype, FST__TORCH_DTYPE) ? &dtypes[dtype->integer >> 8] : NULL;
    if (!type || from->type->size != 1 || from->count % type->size || from->within != from->count)
        return fst__pickle_fail(p, err, "a tensor whose type does not fit its storage");
    fst_status s = fst__pickle_take(p, sizeof *from, &memory, err);
    if (s)
        return s;
    fst__torch_storage *st = memory;
    *st = *from;
    st->type = type;
    st->count = st->within = from->count / type->size;
    *out = st;
    return FST_OK;
}

/* Metadata may say that the values are not those in the storage: PyTorch turns them where they are read. What such a
 * tensor is made by, like the other kinds of tensors that are not read; NULL: the values are those in the storage. */
static const char *turned_by(const fst_pickle_value *metadata)
{
    static const char *const keys[][2] = {{"neg", "torch._utils._rebuild_tensor_v2(neg=True)"},
                                          {"conj", "torch._utils._rebuild_tensor_v2(conj=True)"}};
    for (size_t i = 0; metadata && i + 1 < metadata->list.count; i += 2) {
        const fst_pickle_value *key = metadata->list.items[i], *value = metadata->list.items[i + 1];
        if ((key->kind != FST_PICKLE_TEXT && key->kind != FST_PICKLE_BYTES) || value->kind != FST_PICKLE_BOOL ||
            !value->integer)
            continue;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (fst__pickle_same(key->text.data, key->text.length, keys[k][0]))
                return keys[k][1];
    }
    return NULL;
}

/* (storage, offset, size, stride), then in version 2 requires_grad, hooks, metadata, and in version 3 the type of
 * untyped bytes before the metadata */
static fst_status make_tensor(fst_pickle *p, const fst_pickle_value *args, int version, fst_pickle_value **out,
                              fst_error *err)
{
    const fst_pickle_value *storage = fst__pickle_arg(args, 0, FST__PICKLE_STORAGE);
    const fst_pickle_value *offset = fst__pickle_arg(args, 1, FST_PICKLE_INT);
    fst__torch_tensor t = {0};
    int strides = 0;
    void *memory = NULL;
    if (!storage || !offset || offset->integer < 0 ||
        !fst__pickle_numbers(fst__pickle_arg(args, 2, FST_PICKLE_TUPLE), t.shape.dim, &t.shape.rank) ||
        !fst__pickle_numbers(fst__pickle_arg(args, 3, FST_PICKLE_TUPLE), t.stride, &strides) || strides != t.shape.rank)
        return fst__pickle_fail(p, err, "the arguments of PyTorch's _rebuild_tensor are not understood");
    const char *turned = turned_by(fst__pickle_arg(args, version == 3 ? 7 : 6, FST_PICKLE_DICT));
    if (turned)
        return fst__pickle_object(p, turned, strlen(turned), out, err);
    t.storage = fst__pickle_storage(storage);
    t.offset = (uint64_t)offset->integer;
    fst_status s = FST_OK;
    if (version == 3)
        s = retype(p, t.storage, fst__pickle_arg(args, 6, FST__PICKLE_GLOBAL), &t.storage, err);
    if (s)
        return s;
    if (fst_shape_count(&t.shape) < 0 || !inside(&t))
        return fst__pickle_fail(p, err, "a tensor that reaches past its storage");
    t.offset += t.storage->first;
    s = fst__pickle_take(p, sizeof t, &memory, err);
    if (!s)
        s = fst__pickle_value(p, FST__PICKLE_TENSOR, out, err);
    if (s)
        return s;
    *(fst__torch_tensor *)memory = t;
    (*out)->object = memory;
    return FST_OK;
}

/* What stands for its first argument: torch.Size(tuple), _rebuild_parameter(tensor, ...). */
static fst_status first_argument(fst_pickle *p, const fst_pickle_value *args, int kind, fst_pickle_value **out,
                                 fst_error *err)
{
    if (args->list.count && (args->list.items[0]->kind == kind || fst__pickle_is_object(args->list.items[0]))) {
        *out = args->list.items[0];
        return FST_OK;
    }
    return fst__pickle_fail(p, err, "the arguments of a PyTorch global are not understood");
}

/* (function, class, its arguments, state): the tensor that the function makes, of whatever class. */
static fst_status make_of_class(fst_pickle *p, const fst_pickle_value *args, fst_pickle_value **out, fst_error *err)
{
    const fst_pickle_value *inner = fst__pickle_arg(args, 2, FST_PICKLE_TUPLE);
    const fst_pickle_value *function = args->list.count ? args->list.items[0] : NULL;
    int64_t what = function && function->kind == FST__PICKLE_GLOBAL ? function->integer & 255 : -1;
    if (!inner)
        return fst__pickle_fail(p, err, "the arguments of a PyTorch global are not understood");
    if (fst__pickle_is_object(function))
        return fst__pickle_object(p, function->text.data, function->text.length, out, err);
    if (what == FST__TORCH_TENSOR_V1 || what == FST__TORCH_TENSOR_V2 || what == FST__TORCH_TENSOR_V3)
        return make_tensor(p, inner, 1 + (int)(what - FST__TORCH_TENSOR_V1), out, err);
    if (what == FST__TORCH_PARAMETER)
        return first_argument(p, inner, FST__PICKLE_TENSOR, out, err);
    return fst__pickle_fail(p, err, "the arguments of a PyTorch global are not understood");
}

fst_status fst__torch_call(fst_pickle *p, const fst_pickle_value *callee, const fst_pickle_value *args,
                           fst_pickle_value **out, fst_error *err)
{
    switch ((enum fst__global)(callee->integer & 255)) {
    case FST__COUNTER:
    case FST__DEFAULTDICT:
        return make_counter(p, args, out, err);
    case FST__TORCH_TENSOR_V1:
        return make_tensor(p, args, 1, out, err);
    case FST__TORCH_TENSOR_V2:
        return make_tensor(p, args, 2, out, err);
    case FST__TORCH_TENSOR_V3:
        return make_tensor(p, args, 3, out, err);
    case FST__TORCH_SUBCLASS:
        return make_of_class(p, args, out, err);
    case FST__TORCH_PARAMETER:
        return first_argument(p, args, FST__PICKLE_TENSOR, out, err);
    case FST__TORCH_SIZE:
        return first_argument(p, args, FST_PICKLE_TUPLE, out, err);
    default:
        return fst__pickle_fail(p, err, "a call of what cannot be called");
    }
}
