/* fedstill model quantise: a model file in int8. The scales come from samples that the model may have learnt from or
 * was chosen by, never from those that it is tested on. */
#include <string.h>

#include "common.h"
#include "find_run.h"
#include "task_run.h"

static const char *const splits[] = {"train", "val", NULL};

static const struct option_spec options[] = {
    {.name = "calibrate",
     .argument = "DATA",
     .type = OPTION_STRING,
     .help = "Samples that show how large values become: a task, or data as `fedstill eval` takes them."},
    {.name = "out", .letter = 'o', .argument = "FILE", .type = OPTION_STRING, .help = "The model file to write."},
    {.name = "split",
     .argument = "SPLIT",
     .type = OPTION_STRING,
     .choices = splits,
     .help = "Which samples (default: those for validation, and where there are none those for training). There is no "
             "test: scales that were chosen on test samples would spoil what is measured on them."},
    {.name = "limit",
     .letter = 'n',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1 << 20,
     .fallback = "1024",
     .help = "At most N samples, of every class its share."},
    SET_OPTION,
    {.name = "format",
     .argument = "FORMAT",
     .type = OPTION_STRING,
     .help = "Of DATA: idx, cifar10, cifar100, array, sigmf, radioml or folder (default: what the path looks like)."},
    LAYOUT_OPTION,
    THREADS_OPTION("Threads (default: the CPUs)."),
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object."},
    {0},
};
static const struct operand_spec operands[] = {
    {"MODEL", 1, 1, "A model file in f32."},
    {0},
};
static const char *const examples[] = {
    "fedstill model quantise tasks/mnist/output/edge_kd/model.safetensors --calibrate tasks/mnist -o "
    "student-int8.safetensors",
    "Makes the student's layers int8; the scales come from samples of the task.",
    "fedstill eval student-int8.safetensors data/mnist",
    "What that has cost in accuracy.",
    NULL,
};

struct work {
    const struct options *o;
    fst_model model, int8;
    fst_task *task;
    fst_task_data *data;
    fst_source *source, *whole; /* whole: what source is a part of */
    const char *split;          /* that the samples are of */
    fst_calibration *calibration;
    fst_loader *loader;
    char of[FST_DIGEST_HEX], digest[FST_DIGEST_HEX];
    double before, after; /* bytes of the files' tensors */
};

static void release(struct work *w)
{
    fst_loader_free(w->loader);
    fst_calibration_free(w->calibration);
    fst_source_close(w->source);
    fst_source_close(w->whole);
    fst_task_data_free(w->data);
    fst_task_free(w->task);
    fst_model_release(&w->int8);
    fst_model_release(&w->model);
}

/* ---- samples ---------------------------------------------------------------------------------------------- */

static fst_status open_task(struct work *w, const char *path, fst_error *err)
{
    size_t sets, n = 0;
    const char *const *set = option_list(w->o, "set", &sets), *split = option_string(w->o, "split");
    fst_source_part parts[TASK_PLACES];
    if (option_given(w->o, "format") || option_given(w->o, "layout"))
        return fst_fail(err, FST_E_CONFIG, "--format and --layout have no effect with a task, which says them");
    fst_status s = fst_task_load(&w->task, path, set, sets, err);
    if (!s)
        s = fst_task_data_open(&w->data, w->task, NULL, NULL, err);
    if (s)
        return s;
    w->split = split ? split : "val";
    s = task_parts(w->data, !strcmp(w->split, "val"), NULL, parts, &n, err);
    if (s == FST_E_CONFIG && !split) { /* the task keeps none */
        w->split = "train";
        s = task_parts(w->data, false, NULL, parts, &n, err);
    }
    if (!s)
        s = fst_source_compose(&w->source, path, parts, n, err);
    size_t limit = (size_t)option_int(w->o, "limit");
    if (s || limit >= w->source->count)
        return s;
    w->whole = w->source;
    w->source = NULL;
    return task_limit(&w->source, w->whole, limit, err);
}

static fst_status open_data(struct work *w, const char *path, fst_error *err)
{
    const fst_shape *in = &w->model.config.input;
    const char *split = option_string(w->o, "split");
    bool image = in->rank == 3 && (in->dim[0] == 1 || in->dim[0] == 3);
    if (option_given(w->o, "set"))
        return fst_fail(err, FST_E_CONFIG, "--set has no effect: %s is no task", path);
    fst_source_spec spec = {.format = option_string(w->o, "format"),
                            .layout = layout_option(w->o),
                            .path = path,
                            .split = split ? split : "val",
                            .image_channels = image ? (int)in->dim[0] : 0,
                            .window = in->rank == 2 && in->dim[0] == 2 ? (size_t)in->dim[1] : 0,
                            .limit = (size_t)option_int(w->o, "limit")};
    fst_status s = fst_source_open(&w->source, &spec, err);
    if (s == FST_E_ABSENT && !split) {
        spec.split = "train";
        s = fst_source_open(&w->source, &spec, err);
    }
    w->split = spec.split;
    return s;
}

static fst_status open_samples(struct work *w, fst_error *err)
{
    const char *path = option_string(w->o, "calibrate");
    fst_status s = is_task(path) ? open_task(w, path, err) : open_data(w, path, err);
    return s ? s : fst_model_check_source(&w->model, operand(w->o, 0), w->source, err);
}

/* ---- making ------------------------------------------------------------------------------------------------ */

static fst_status calibrate(struct work *w, fst_error *err)
{
    enum { BATCH = 32 };
    fst_loader_spec spec = {.source = w->source, .batch_size = BATCH, .transform = fst_model_transform(&w->model)};
    fst_status s = fst_calibration_new(&w->calibration, &w->model, BATCH, (int)option_int(w->o, "threads"), err);
    if (!s)
        s = fst_loader_new(&w->loader, &spec, err);
    if (!s)
        s = fst_loader_start(w->loader, 0, 0, err);
    progress_begin("calibrate", w->source->count, "samples");
    uint64_t done = 0;
    for (fst_batch b = {.rows = 1}; !s && b.rows;) {
        s = fst_loader_next(w->loader, &b, err);
        if (!s && b.rows)
            s = fst_calibration_add(w->calibration, b.x, b.rows, err);
        progress_update(done += b.rows, NULL);
    }
    progress_end(NULL);
    return s;
}

static fst_status tensor_bytes(const char *path, double *bytes, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = fst_safetensors_open(&f, path, err);
    *bytes = 0;
    for (size_t i = 0; !s && i < fst_safetensors_count(f); i++) {
        fst_tensor t = fst_safetensors_at(f, i);
        *bytes += (double)fst_shape_count(&t.shape) * (double)fst_dtype_size(t.dtype);
    }
    fst_safetensors_free(f);
    return s;
}

static fst_status save(struct work *w, fst_error *err)
{
    char samples[32];
    snprintf(samples, sizeof samples, "%lu", (unsigned long)w->source->count);
    const char *out = option_string(w->o, "out");
    const fst_pair more[] = {{"stage", "quantise"},
                             {"f32_digest", w->of},
                             {"calibration_digest", w->source->digest},
                             {"calibration_samples", samples},
                             {"writer", "fedstill " FST_VERSION}};
    fst_status s = fst_sha256_file(operand(w->o, 0), w->of, err);
    if (!s)
        s = fst_model_save(&w->int8, out, more, sizeof more / sizeof *more, w->digest, err);
    if (!s)
        s = tensor_bytes(operand(w->o, 0), &w->before, err);
    return s ? s : tensor_bytes(out, &w->after, err);
}

/* ---- showing ------------------------------------------------------------------------------------------------ */

static bool has_weights(const fst_graph *g, size_t v)
{
    return fst_graph_layer(g, v).params > 0 && !strstr(fst_graph_layer(g, v).op, "norm");
}

static const char *why_f32(const fst_graph *g, size_t v)
{
    const char *why = NULL;
    (void)fst_graph_int8_takes(g, (fst_value)v, &why);
    return why;
}

static fst_status add_text(const struct work *w, fst_buf *out, fst_error *err)
{
    char a[FST_HUMAN], b[FST_HUMAN];
    const fst_graph *g = w->model.graph;
    size_t int8 = 0, all = 0;
    for (size_t v = 0; v < fst_graph_layers(g); v++) {
        all += has_weights(g, v);
        int8 += has_weights(g, v) && !why_f32(g, v);
    }
    fst_status s = add_field(out, err, "network", "%s", w->model.arch);
    if (!s)
        s = add_field(out, err, "calibration", "%lu samples (%s) of %s", (unsigned long)w->source->count, w->split,
                      option_string(w->o, "calibrate"));
    if (!s)
        s = add_field(out, err, "int8", "%zu of %zu layers with weights", int8, all);
    for (size_t v = 0; !s && v < fst_graph_layers(g); v++)
        if (has_weights(g, v) && why_f32(g, v))
            s = add_field(out, err, "f32", "%s: %s", fst_graph_layer(g, v).name, why_f32(g, v));
    if (!s)
        s = add_field(out, err, "weights", "%s, %.3g times less than %s", fst_human_bytes(w->after, a),
                      w->before / w->after, fst_human_bytes(w->before, b));
    return s ? s : add_field(out, err, "written", "%s, SHA-256 %s", option_string(w->o, "out"), w->digest);
}

static json_t *layers_json(const struct work *w)
{
    json_t *list = json_array();
    const fst_graph *g = w->int8.graph;
    for (size_t v = 0; v < fst_graph_layers(g); v++) {
        bool positive = false;
        float scale = fst_graph_int8_scale(g, (fst_value)v, &positive);
        if (!has_weights(g, v))
            continue;
        json_array_append_new(
            list, json_pack("{s:s, s:b, s:o, s:o}", "name", fst_graph_layer(g, v).name, "int8", scale > 0,
                            "input_scale", scale > 0 ? fst_json_number((double)scale) : json_null(), "input_range",
                            scale > 0 ? json_pack("[i, i]", positive ? 0 : -127, positive ? 255 : 127) : json_null()));
    }
    return list;
}

static json_t *work_json(const struct work *w)
{
    return json_pack("{s:o, s:s, s:s, s:o, s:s, s:I, s:o, s:o, s:o}", "written",
                     fst_json_text(option_string(w->o, "out")), "sha256", w->digest, "arch", w->model.arch,
                     "calibration", fst_json_text(option_string(w->o, "calibrate")), "split", w->split, "samples",
                     (json_int_t)w->source->count, "bytes", fst_json_number(w->after), "f32_bytes",
                     fst_json_number(w->before), "layers", layers_json(w));
}

static fst_status check(const struct options *o, fst_error *err)
{
    if (!option_given(o, "calibrate"))
        return fst_fail(err, FST_E_CONFIG, "--calibrate: which task or data shows how large values become?");
    if (!option_given(o, "out"))
        return fst_fail(err, FST_E_CONFIG, "--out: which file is to be written?");
    return FST_OK;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct work w = {.o = o};
    fst_buf out = {0};
    fst_status s = check(o, err);
    if (!s)
        s = load_model(&w.model, operand(o, 0), err);
    if (!s && fst_model_is_int8(&w.model))
        s = fst_fail(err, FST_E_UNSUPPORTED, "%s is an int8 model already", operand(o, 0));
    if (!s)
        s = open_samples(&w, err);
    if (!s)
        s = calibrate(&w, err);
    if (!s)
        s = fst_model_int8(&w.int8, &w.model, w.calibration, err);
    if (!s)
        s = save(&w, err);
    if (!s)
        s = option_flag(o, "json") ? add_json(&out, work_json(&w), true, err) : add_text(&w, &out, err);
    release(&w);
    return finish_output(&out, s);
}

const struct command cmd_model_quantise = {
    .name = "model quantise",
    .summary = "Make a model file in int8",
    .description =
        "Writes a model whose convolutions and linear layers compute with whole numbers of 8 bits: about a quarter of "
        "the bytes, and faster where the processor has instructions for it (AVX-VNNI, AVX-512 VNNI). Batch norms go "
        "into the convolutions before them; each output channel's weights have a scale of their own, and each layer's "
        "input has one, by the largest value of a batch of the samples of --calibrate, on average over batches: what "
        "is larger is cut off. Layers that have no form in int8 (of complex numbers) stay f32, and are listed.\n\n"
        "`fedstill eval`, `predict` and `model info` take the file as any other, and so does a task's cascade. It "
        "cannot be trained, exported or imported: keep the f32 model.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
