/* Messages of a cascade whose devices and edges are elsewhere, see fedstill/cascade_run.h: what an edge is sent, and
 * what comes back. Whoever reads one believes nothing of it. */
#include <math.h>
#include <string.h>

#include "cascade_fleet.h"

/* ---- the bundle ---------------------------------------------------------------------------------------- */

enum { TEMPERATURE, THRESHOLD, KIND, BATCH, THREADS, TIMEOUT, DTYPE, PRECISION, SETTINGS };
enum { MOST_DEVICES = 1 << 20, MOST_BATCH = 65536, MOST_THREADS = 1024 };

void fst__bundle_settings(const fst_tier_spec *t, double ask_timeout, double out[FST__BUNDLE_SETTINGS])
{
    _Static_assert((int)SETTINGS == (int)FST__BUNDLE_SETTINGS, "as many as are sent");
    out[TEMPERATURE] = t->temperature;
    out[THRESHOLD] = t->threshold;
    out[KIND] = t->kind;
    out[BATCH] = (double)t->batch;
    out[THREADS] = t->threads;
    out[TIMEOUT] = ask_timeout;
    out[DTYPE] = t->dtype;
    out[PRECISION] = t->precision;
}

static bool whole_to(double x, double most)
{
    return x >= 0 && x <= most && x == floor(x);
}

static fst_status read_settings(fst_cascade_bundle *b, const fst_message *m, fst_error *err)
{
    const void *p;
    fst_status st = fst_message_get(m, "settings", FST_F64, FST_SHAPE(SETTINGS), &p, err);
    if (st)
        return st;
    const double *s = p;
    if (!(s[TEMPERATURE] > 0) || !isfinite(s[TEMPERATURE]) || !isfinite(s[THRESHOLD]) ||
        !whole_to(s[KIND], FST_CONFIDENCE_ENERGY) || !whole_to(s[BATCH], MOST_BATCH) || s[BATCH] < 1 ||
        !whole_to(s[THREADS], MOST_THREADS) || !(s[TIMEOUT] >= 0) || !whole_to(s[PRECISION], FST_PRECISION_BF16) ||
        (s[DTYPE] != FST_U8 && s[DTYPE] != FST_F32))
        return fst_fail(err, FST_E_FORMAT, "settings of a tier that none can have");
    b->ask_timeout = s[TIMEOUT];
    b->tier = (fst_tier_spec){.temperature = s[TEMPERATURE],
                              .threshold = s[THRESHOLD],
                              .kind = (fst_confidence_kind)s[KIND],
                              .batch = (size_t)s[BATCH],
                              .threads = (int)s[THREADS],
                              .dtype = (fst_dtype)s[DTYPE],
                              .precision = (fst_precision)s[PRECISION]};
    return FST_OK;
}

/* A list of whole numbers, of any length up to `most`; a view. */
static fst_status read_list(const fst_message *m, const char *name, fst_dtype dtype, int64_t most, size_t *n,
                            const void **out, fst_error *err)
{
    const fst_message_tensor *t = fst_message_find(m, name);
    if (!t || t->dtype != dtype || t->shape.rank != 1 || t->shape.dim[0] > most)
        return fst_fail(err, FST_E_FORMAT, "no list \"%s\" of up to %lld numbers", name, (long long)most);
    *n = (size_t)t->shape.dim[0];
    *out = t->data;
    return FST_OK;
}

static fst_status read_shape(fst_cascade_bundle *b, const fst_message *m, fst_error *err)
{
    const void *dims = NULL;
    size_t rank = 0;
    fst_status st = read_list(m, "shape", FST_I64, FST_MAX_RANK, &rank, &dims, err);
    if (st)
        return st;
    b->tier.shape.rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        b->tier.shape.dim[i] = ((const int64_t *)dims)[i];
        if (b->tier.shape.dim[i] < 1 || b->tier.shape.dim[i] > 1 << 20)
            return fst_fail(err, FST_E_FORMAT, "windows of %lld in one dimension", (long long)b->tier.shape.dim[i]);
    }
    return FST_OK;
}

static fst_status read_devices(fst_cascade_bundle *b, const fst_message *m, fst_error *err)
{
    const void *edges = NULL, *windows = NULL;
    size_t n = 0, again = 0;
    fst_status st = read_list(m, "edge_of", FST_U32, MOST_DEVICES, &n, &edges, err);
    if (!st)
        st = read_list(m, "windows", FST_U32, MOST_DEVICES, &again, &windows, err);
    if (!st && n != again)
        st = fst_fail(err, FST_E_FORMAT, "edges of %zu devices, windows of %zu", n, again);
    if (st)
        return st;
    b->devices = (uint32_t)n;
    b->edge_of = fst_alloc((n + 1) * sizeof *b->edge_of);
    b->windows = fst_alloc((n + 1) * sizeof *b->windows);
    if (!b->edge_of || !b->windows)
        return fst_fail_memory(err, n * sizeof *b->edge_of);
    memcpy(b->edge_of, edges, n * sizeof *b->edge_of);
    memcpy(b->windows, windows, n * sizeof *b->windows);
    return FST_OK;
}

/* Without a model: of how many classes the cloud's is. */
static fst_status read_relay(fst_cascade_bundle *b, const fst_message *m, fst_error *err)
{
    const void *classes;
    fst_status st = fst_message_get(m, "classes", FST_I64, FST_SHAPE(1), &classes, err);
    int64_t n = st ? 0 : *(const int64_t *)classes;
    if (!st && (n < 1 || n > FST_MAX_CLASSES))
        st = fst_fail(err, FST_E_FORMAT, "a model of %lld classes", (long long)n);
    b->relay = true;
    b->model.classes = (int)n;
    return st;
}

fst_status fst_cascade_bundle_read(fst_cascade_bundle *out, const fst_message *m, fst_error *err)
{
    fst_cascade_bundle b = {.devices = 0};
    const fst_message_tensor *model = fst_message_find(m, "model");
    bool relay = !model && fst_message_find(m, "classes");
    if (strcmp(m->kind, FST_CASCADE_BUNDLE) || (!relay && (!model || model->dtype != FST_U8 || model->shape.rank != 1)))
        return fst_fail(err, FST_E_FORMAT, "not what an edge answers its devices with");
    fst_status st = read_settings(&b, m, err);
    if (!st)
        st = read_shape(&b, m, err);
    if (!st)
        st = read_devices(&b, m, err);
    if (!st && relay)
        st = read_relay(&b, m, err);
    else if (!st)
        st = fst_model_load_memory(&b.model, "the model that was sent", model->data, (size_t)model->shape.dim[0], err);
    if (st)
        fst_cascade_bundle_release(&b);
    else
        *out = b;
    return st;
}

void fst_cascade_bundle_release(fst_cascade_bundle *b)
{
    if (!b)
        return;
    fst_model_release(&b->model);
    fst_free(b->edge_of);
    fst_free(b->windows);
    *b = (fst_cascade_bundle){.devices = 0};
}

/* ---- answers ------------------------------------------------------------------------------------------- */

enum { COLUMNS = 10, OF_WINDOWS = 8 };
struct column {
    const char *name;
    fst_dtype dtype;
    void *data;
};

static void columns_of(const fst_cascade_answers *a, struct column c[COLUMNS])
{
    const struct column all[COLUMNS] = {
        {"answer", FST_I32, a->answer},
        {"first", FST_I32, a->first},
        {"tier", FST_U8, a->tier},
        {"marks", FST_U8, a->marks},
        {"confidence", FST_F64, a->confidence},
        {"total", FST_F64, a->total},
        {"queue", FST_F64, a->queue},
        {"compute", FST_F64, a->compute},
        {"seconds", FST_F64, a->seconds}, /* those of devices stand last */
        {"again", FST_I64, a->again},
    };
    memcpy(c, all, sizeof all);
}

fst_status fst_cascade_answers_init(fst_cascade_answers *a, size_t windows, size_t devices, fst_error *err)
{
    *a = (fst_cascade_answers){.windows = windows, .devices = devices};
    a->answer = fst_calloc(windows + 1, sizeof *a->answer);
    a->first = fst_calloc(windows + 1, sizeof *a->first);
    a->tier = fst_calloc(windows + 1, 1);
    a->marks = fst_calloc(windows + 1, 1);
    a->confidence = fst_calloc(windows + 1, sizeof *a->confidence);
    a->total = fst_calloc(windows + 1, sizeof *a->total);
    a->queue = fst_calloc(windows + 1, sizeof *a->queue);
    a->compute = fst_calloc(windows + 1, sizeof *a->compute);
    a->seconds = fst_calloc(devices + 1, sizeof *a->seconds);
    a->again = fst_calloc(devices + 1, sizeof *a->again);
    struct column c[COLUMNS];
    columns_of(a, c);
    bool all = true;
    for (int i = 0; i < COLUMNS; i++)
        all = all && c[i].data;
    if (all)
        return FST_OK;
    fst_cascade_answers_release(a);
    return fst_fail_memory(err, windows * 42);
}

void fst_cascade_answers_release(fst_cascade_answers *a)
{
    struct column c[COLUMNS];
    if (!a)
        return;
    columns_of(a, c);
    for (int i = 0; i < COLUMNS; i++)
        fst_free(c[i].data);
    *a = (fst_cascade_answers){.windows = 0};
}

fst_status fst_cascade_answers_write(const fst_cascade_answers *a, fst_message *m, fst_error *err)
{
    struct column c[COLUMNS];
    fst_status st = FST_OK;
    columns_of(a, c);
    fst_message_name(m, FST_CASCADE_ANSWERS);
    for (int i = 0; !st && i < COLUMNS; i++)
        st = fst_message_add(m, c[i].name, c[i].dtype, FST_SHAPE((int64_t)(i < OF_WINDOWS ? a->windows : a->devices)),
                             c[i].data, err);
    return st;
}

static bool sound_answer(const fst_cascade_answers *v, size_t i, int classes)
{
    bool refused = v->marks[i] & FST_ANSWER_REFUSED;
    return v->answer[i] >= (refused ? -1 : 0) && v->answer[i] < classes && v->first[i] >= (refused ? -1 : 0) &&
           v->first[i] < classes && v->tier[i] <= 1 && v->marks[i] <= (FST_ANSWER_UNSURE | FST_ANSWER_REFUSED) &&
           v->confidence[i] >= 0 && v->confidence[i] <= 1 && v->total[i] >= 0 && isfinite(v->total[i]) &&
           v->queue[i] >= 0 && isfinite(v->queue[i]) && v->compute[i] >= 0 && isfinite(v->compute[i]);
}

static fst_status check(const fst_cascade_answers *v, int classes, fst_error *err)
{
    for (size_t i = 0; i < v->windows; i++)
        if (!sound_answer(v, i, classes))
            return fst_fail(err, FST_E_MISMATCH, "answer %zu has values that no answer has", i);
    for (size_t i = 0; i < v->devices; i++)
        if (!(v->seconds[i] >= 0) || !isfinite(v->seconds[i]) || v->again[i] < 0)
            return fst_fail(err, FST_E_MISMATCH, "times of device %zu that none can have", i);
    return FST_OK;
}

fst_status fst_cascade_answers_read(fst_cascade_answers *a, size_t at_window, size_t at_device, size_t windows,
                                    size_t devices, int classes, const fst_message *m, fst_error *err)
{
    struct column to[COLUMNS];
    const void *p[COLUMNS];
    fst_status st = FST_OK;
    columns_of(a, to);
    for (int i = 0; !st && i < COLUMNS; i++)
        st = fst_message_get(m, to[i].name, to[i].dtype, FST_SHAPE((int64_t)(i < OF_WINDOWS ? windows : devices)),
                             &p[i], err);
    if (st)
        return st;
    const fst_cascade_answers view = {.windows = windows,
                                      .devices = devices,
                                      .answer = (int32_t *)(uintptr_t)p[0],
                                      .first = (int32_t *)(uintptr_t)p[1],
                                      .tier = (uint8_t *)(uintptr_t)p[2],
                                      .marks = (uint8_t *)(uintptr_t)p[3],
                                      .confidence = (double *)(uintptr_t)p[4],
                                      .total = (double *)(uintptr_t)p[5],
                                      .queue = (double *)(uintptr_t)p[6],
                                      .compute = (double *)(uintptr_t)p[7],
                                      .seconds = (double *)(uintptr_t)p[8],
                                      .again = (int64_t *)(uintptr_t)p[9]};
    st = check(&view, classes, err);
    for (int i = 0; !st && i < COLUMNS; i++) {
        size_t size = fst_dtype_size(to[i].dtype), at = i < OF_WINDOWS ? at_window : at_device;
        memcpy((char *)to[i].data + at * size, p[i], (i < OF_WINDOWS ? windows : devices) * size);
    }
    return st;
}
