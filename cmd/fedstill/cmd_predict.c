/* fedstill predict: what a model takes samples for. All inputs are read and checked before anything is computed,
 * and everything is computed before anything is printed. Images are not resized: that would be a guess at what
 * the model was trained on. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common.h"

enum { BATCH = 64, BAR_WIDTH = 20 };
#define IMAGE_MAX_BYTES ((size_t)256 << 20)
#define IMAGE_MAX_PIXELS ((size_t)1 << 26)

static const struct option_spec options[] = {
    {.name = "top",
     .letter = 'k',
     .argument = "K",
     .type = OPTION_INT,
     .min = 1,
     .max = FST_MAX_CLASSES,
     .fallback = "3",
     .help = "Show the K most probable classes."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object a line, one for each sample."},
    {0},
};

static const struct operand_spec operands[] = {
    {"MODEL", 1, 1, "A model file."},
    {"INPUT", 1, -1,
     "A PNG or JPEG image of the model's size, or one sample or several in a .npy file or in the array x of a "
     ".safetensors or .npz file: bytes, which are scaled to 0 ... 1, or floats."},
    {0},
};

static const char *const examples[] = {
    "fedstill predict output/edge_kd/model.safetensors seven.png",
    "The three most probable classes of an image.",
    "fedstill predict model.safetensors samples.npy --top 1 --json",
    "One class for each sample of an array, for programs.",
    NULL,
};

/* The samples of one file, raw. */
struct input {
    const char *path;
    fst_dtype dtype; /* FST_U8 or FST_F32 */
    size_t count;
    void *data;
    float *probability; /* count x classes */
};

struct predict {
    const struct options *o;
    fst_model model;
    struct input *inputs;
    size_t ninputs, classes, top;
    fst_classifier *classifier;
    size_t batch;
};

static void release(struct predict *p)
{
    for (size_t i = 0; p->inputs && i < p->ninputs; i++) {
        fst_free(p->inputs[i].data);
        fst_free(p->inputs[i].probability);
    }
    fst_free(p->inputs);
    fst_classifier_free(p->classifier);
    fst_model_release(&p->model);
}

/* ---- reading arrays -------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && !strcasecmp(text + n - m, suffix);
}

static bool is_float(fst_dtype t)
{
    return t == FST_F32 || t == FST_F64 || t == FST_F16 || t == FST_BF16;
}

static fst_status check_dtype(const char *path, fst_dtype t, fst_error *err)
{
    if (t == FST_U8 || is_float(t))
        return FST_OK;
    return fst_fail(err, FST_E_FORMAT, "%s: samples are %s; U8 or floats are needed", path, fst_dtype_name(t));
}

static fst_status read_safetensors(fst_array *out, const char *path, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_array a = {0};
    size_t i = 0, bytes = 0;
    fst_status s = fst_safetensors_open(&f, path, err);
    if (!s && !fst_safetensors_find(f, "x", &i))
        s = fst_fail(err, FST_E_FORMAT, "%s: there is no tensor \"x\"", path);
    if (!s) {
        fst_tensor t = fst_safetensors_at(f, i);
        a.shape = t.shape;
        a.dtype = t.dtype == FST_U8 ? FST_U8 : FST_F32;
        s = check_dtype(path, t.dtype, err);
        if (!s && (__builtin_mul_overflow((size_t)fst_shape_count(&a.shape), fst_dtype_size(a.dtype), &bytes) ||
                   bytes > FST_ARRAY_MAX_BYTES))
            s = fst_fail(err, FST_E_LIMIT, "%s: tensor \"x\" is larger than %zu MB", path, FST_ARRAY_MAX_BYTES >> 20);
    }
    if (!s && !(a.data = fst_alloc(bytes)))
        s = fst_fail_memory(err, bytes);
    if (!s)
        s = a.dtype == FST_U8 ? fst_safetensors_read(f, i, a.data, bytes, err)
                              : fst_safetensors_read_f32(f, i, a.data, bytes / sizeof(float), err);
    fst_safetensors_free(f);
    if (s)
        fst_free(a.data);
    else
        *out = a;
    return s;
}

/* Makes f32 of the other widths of floats. */
static fst_status to_f32(fst_array *a, const char *path, fst_error *err)
{
    size_t n = (size_t)fst_shape_count(&a->shape);
    fst_status s = check_dtype(path, a->dtype, err);
    if (s || a->dtype == FST_U8 || a->dtype == FST_F32)
        return s;
    float *wide = fst_alloc(n * sizeof *wide);
    if (!wide)
        return fst_fail_memory(err, n * sizeof *wide);
    for (size_t i = 0; i < n; i++)
        wide[i] = a->dtype == FST_F64 ? (float)((const double *)a->data)[i]
                                      : fst_f32_from_f16(((const uint16_t *)a->data)[i]);
    fst_free(a->data);
    a->data = wide;
    a->dtype = FST_F32;
    return FST_OK;
}

static fst_status read_array(fst_array *out, const char *path, fst_error *err)
{
    fst_array a = {0};
    if (ends_with(path, ".safetensors"))
        return read_safetensors(out, path, err);
    fst_status s = ends_with(path, ".npz") ? fst_npz_read(&a, path, "x", FST_ARRAY_MAX_BYTES, err)
                                           : fst_npy_read(&a, path, FST_ARRAY_MAX_BYTES, err);
    if (!s)
        s = to_f32(&a, path, err);
    if (s)
        fst_array_release(&a);
    else
        *out = a;
    return s;
}

/* One sample, or the first dimension counts samples. */
static fst_status count_samples(const fst_array *a, const fst_shape *want, const char *path, size_t *out,
                                fst_error *err)
{
    char there[256], one[256];
    fst_shape rest = {.rank = a->shape.rank - 1};
    if (fst_shape_fits(&a->shape, want)) {
        *out = 1;
        return FST_OK;
    }
    for (int i = 0; i < rest.rank; i++)
        rest.dim[i] = a->shape.dim[i + 1];
    if (a->shape.rank < 1 || !fst_shape_fits(&rest, want))
        return fst_fail(err, FST_E_MISMATCH, "%s: has shape %s, but the model takes %s, or N of those", path,
                        fst_shape_text(&a->shape, there, sizeof there), fst_shape_text(want, one, sizeof one));
    if (a->shape.dim[0] < 1)
        return fst_fail(err, FST_E_FORMAT, "%s: holds no samples", path);
    *out = (size_t)a->shape.dim[0];
    return FST_OK;
}

static fst_status check_finite(const fst_array *a, const char *path, fst_error *err)
{
    size_t n = a->dtype == FST_F32 ? (size_t)fst_shape_count(&a->shape) : 0;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(((const float *)a->data)[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: element %zu is %f; finite numbers are needed", path, i,
                            (double)((const float *)a->data)[i]);
    return FST_OK;
}

static fst_status take_array(struct input *in, const fst_shape *want, fst_error *err)
{
    fst_array a = {0};
    fst_status s = read_array(&a, in->path, err);
    if (!s)
        s = count_samples(&a, want, in->path, &in->count, err);
    if (!s)
        s = check_finite(&a, in->path, err);
    if (!s) {
        in->dtype = a.dtype;
        in->data = a.data;
        a.data = NULL;
    }
    fst_array_release(&a);
    return s;
}

/* ---- reading images ----------------------------------------------------------------------------- */

static fst_status take_image(struct input *in, const fst_shape *want, fst_error *err)
{
    char text[256];
    fst_buf bytes = {0};
    fst_shape shape = {0};
    unsigned char *pixels = NULL;
    fst_status s = fst_file_read(in->path, IMAGE_MAX_BYTES, &bytes, err);
    if (!s && (want->rank != 3 || (want->dim[0] != 1 && want->dim[0] != 3)))
        s = fst_fail(err, FST_E_MISMATCH,
                     "%s: the model takes arrays of shape %s (.npy, .npz, .safetensors), not images", in->path,
                     fst_shape_text(want, text, sizeof text));
    if (!s)
        s = fst_image_decode(&pixels, &shape, in->path, bytes.data, bytes.len, (int)want->dim[0], IMAGE_MAX_PIXELS,
                             err);
    if (!s && !fst_shape_equal(&shape, want))
        s = fst_fail(err, FST_E_MISMATCH, "%s: is %lld x %lld pixels, but the model takes %lld x %lld (width x height)",
                     in->path, (long long)shape.dim[2], (long long)shape.dim[1], (long long)want->dim[2],
                     (long long)want->dim[1]);
    fst_buf_release(&bytes);
    if (s) {
        fst_free(pixels);
        return s;
    }
    in->dtype = FST_U8;
    in->count = 1;
    in->data = pixels;
    return FST_OK;
}

static fst_status read_inputs(struct predict *p, fst_error *err)
{
    const fst_shape *want = &p->model.config.input;
    fst_status s = FST_OK;
    p->ninputs = operand_count(p->o) - 1;
    p->inputs = fst_calloc(p->ninputs, sizeof *p->inputs);
    if (!p->inputs)
        return fst_fail_memory(err, p->ninputs * sizeof *p->inputs);
    for (size_t i = 0; !s && i < p->ninputs; i++) {
        struct input *in = &p->inputs[i];
        in->path = operand(p->o, i + 1);
        bool array = ends_with(in->path, ".npy") || ends_with(in->path, ".npz") || ends_with(in->path, ".safetensors");
        s = array ? take_array(in, want, err) : take_image(in, want, err);
        p->batch = in->count > p->batch ? in->count : p->batch;
    }
    p->batch = p->batch > BATCH ? BATCH : p->batch;
    return s;
}

/* ---- computing ------------------------------------------------------------------------------------ */

static fst_status predict_input(const struct predict *p, struct input *in, fst_error *err)
{
    size_t cells = 0;
    if (!__builtin_mul_overflow(in->count, p->classes, &cells))
        in->probability = fst_calloc(cells, sizeof *in->probability);
    if (!in->probability)
        return fst_fail_memory(err, cells * sizeof *in->probability);
    return fst_classifier_run(p->classifier, in->path, in->dtype, in->data, in->count, in->probability, err);
}

static fst_status compute(struct predict *p, fst_error *err)
{
    fst_status s = fst_classifier_new(&p->classifier, &p->model, p->batch, 0, err);
    for (size_t i = 0; !s && i < p->ninputs; i++)
        s = predict_input(p, &p->inputs[i], err);
    return s;
}

/* ---- showing ---------------------------------------------------------------------------------------- */

/* The class after `before` in decreasing order of probability, of equals the smaller number first; before < 0: the
 * first. */
static int next_class(const float *probability, size_t classes, int before)
{
    int best = -1;
    for (int c = 0; c < (int)classes; c++) {
        float v = probability[c];
        bool behind = before < 0 || v < probability[before] || (!(v > probability[before]) && c > before);
        if (behind && (best < 0 || v > probability[best]))
            best = c;
    }
    return best;
}

static fst_status class_row(const struct predict *p, fst_table *t, const struct input *in, size_t sample, size_t rank,
                            int class, fst_error *err)
{
    char text[FST_HUMAN];
    const char *name = class_name(&p->model, class);
    double probability = (double)in->probability[sample * p->classes + (size_t) class];
    fst_status s = fst_table_cell(t, err, "%s", rank == 0 && sample == 0 ? in->path : "");
    if (!s)
        s = rank == 0 ? fst_table_cell(t, err, "%zu", sample) : fst_table_cell(t, err, "%s", "");
    if (!s)
        s = fst_table_cell(t, err, "%d", class);
    if (!s)
        s = fst_table_cell(t, err, "%s", name ? name : "-");
    if (!s)
        s = fst_table_cell(t, err, "%s", fst_human_percent(probability, text));
    return s ? s : bar_cell(t, probability, BAR_WIDTH, !output_is_utf8(), err);
}

static json_t *sample_json(const struct predict *p, const struct input *in, size_t sample)
{
    const float *probability = in->probability + sample * p->classes;
    json_t *top = json_array();
    int class = -1;
    for (size_t k = 0; k < p->top; k++) {
        class = next_class(probability, p->classes, class);
        json_array_append_new(top, json_pack("{s:i, s:o, s:o}", "class", class, "name",
                                             fst_json_text(class_name(&p->model, class)), "probability",
                                             fst_json_number((double)probability[class])));
    }
    return json_pack("{s:o, s:I, s:o}", "input", fst_json_text(in->path), "sample", (json_int_t)sample, "top", top);
}

static fst_status show_sample(const struct predict *p, fst_table *t, fst_buf *out, const struct input *in,
                              size_t sample, fst_error *err)
{
    const float *probability = in->probability + sample * p->classes;
    fst_status s = FST_OK;
    int class = -1;
    if (!t)
        return add_json(out, sample_json(p, in, sample), false, err);
    for (size_t k = 0; !s && k < p->top; k++) {
        class = next_class(probability, p->classes, class);
        s = class_row(p, t, in, sample, k, class, err);
    }
    return s;
}

static fst_status show(const struct predict *p, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {
        {"input", FST_LEFT}, {"sample", FST_RIGHT},      {"class", FST_RIGHT},
        {"name", FST_LEFT},  {"probability", FST_RIGHT}, {"", FST_LEFT},
    };
    fst_table *t = NULL;
    fst_status s = FST_OK;
    if (!option_flag(p->o, "json"))
        s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !s && i < p->ninputs; i++)
        for (size_t k = 0; !s && k < p->inputs[i].count; k++)
            s = show_sample(p, t, out, &p->inputs[i], k, err);
    if (!s && t)
        s = write_table(t, !output_is_utf8(), out, err);
    fst_table_free(t);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct predict p = {.o = o, .top = (size_t)option_int(o, "top")};
    fst_buf out = {0};
    fst_status s = load_model(&p.model, operand(o, 0), err);
    if (!s) {
        p.classes = (size_t)p.model.classes;
        p.top = p.top > p.classes ? p.classes : p.top;
        s = read_inputs(&p, err);
    }
    if (!s)
        s = compute(&p, err);
    if (!s)
        s = show(&p, &out, err);
    release(&p);
    return finish_output(&out, s);
}

const struct command cmd_predict = {
    .name = "predict",
    .summary = "Show what a model takes images or arrays for",
    .description = "Shows the most probable classes of every sample. Samples are normalised as the model file says. "
                   "Images are converted to grey or colour as the model needs, but not resized: one of another size "
                   "is an error.\n\nWhen one input is bad, nothing is printed for the others either.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
