/* fedstill model list, model info: what networks there are and what a model file holds. It computes nothing
 * with them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { NAMES_SHOWN = 20 }; /* class names in text; JSON has all */
enum { WIDE = 132 };       /* columns that the list of networks needs as a table */

static const struct option_spec list_options[] = {
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON array."},
    {0},
};
static const struct option_spec info_options[] = {
    {.name = "batch",
     .letter = 'b',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1 << 20,
     .fallback = "1",
     .help = "Samples for which memory is shown."},
    {.name = "set",
     .argument = "OPTION=VALUE",
     .type = OPTION_LIST,
     .help = "An option of a network: classes=7, input=3,32,32, stem=cifar, width=0.5 and so on. A model file has "
             "its own."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object."},
    {0},
};
static const struct operand_spec info_operands[] = {
    {"MODEL", 1, 1, "A network of `fedstill model list`, or a model file."},
    {0},
};
static const char *const list_examples[] = {
    "fedstill model list",
    "Lists the networks that a task can name.",
    NULL,
};
static const char *const info_examples[] = {
    "fedstill model info mnist_teacher",
    "Shows the layers of a network.",
    "fedstill model info resnet50 --set stem=cifar --set input=3,32,32 --set classes=10 --batch 32",
    "Shows what a ResNet-50 for small pictures costs, with its memory for 32 of them.",
    "fedstill model info output/edge_kd/model.safetensors",
    "Shows a trained model: layers, classes, normalisation, where it comes from.",
    NULL,
};

/* ---- model list ----------------------------------------------------------------------------- */

static fst_status list_row(fst_table *t, const fst_model_info *i, const fst_graph *g, fst_error *err)
{
    char shape[128];
    fst_status s = fst_table_cell(t, err, "%s", i->name);
    if (!s)
        s = fst_table_cell(t, err, "%s", fst_shape_text(&i->input, shape, sizeof shape));
    if (!s)
        s = fst_table_cell(t, err, "%d", i->classes);
    if (!s)
        s = fst_table_cell(t, err, "%zu", fst_graph_param_count(g));
    if (!s)
        s = fst_table_cell(t, err, "%.2f", fst_graph_flops(g) / 1e6);
    return s ? s : fst_table_cell(t, err, "%s", i->summary);
}

/* On a narrow terminal a summary has a line of its own: names alone are up to 38 characters long. */
static fst_status list_lines(fst_buf *out, const fst_model_info *i, const fst_graph *g, fst_error *err)
{
    char shape[128];
    return fst_buf_printf(out, err, "%-38s %-13s %7d %10zu %7.2f\n    %s\n", i->name,
                          fst_shape_text(&i->input, shape, sizeof shape), i->classes, fst_graph_param_count(g),
                          fst_graph_flops(g) / 1e6, i->summary);
}

static json_t *list_json(const fst_model_info *i, const fst_graph *g)
{
    return json_pack("{s:s, s:o, s:i, s:I, s:o, s:s}", "name", i->name, "input", shape_json(&i->input), "classes",
                     i->classes, "parameters", (json_int_t)fst_graph_param_count(g), "flops",
                     fst_json_number(fst_graph_flops(g)), "summary", i->summary);
}

/* Into t, lines and list, whichever is not NULL. */
static fst_status list_models(fst_table *t, fst_buf *lines, json_t *list, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < fst_models(); i++) {
        fst_model_info info = fst_model_at(i);
        fst_graph *g = NULL;
        s = fst_model_graph(&g, info.name, NULL, err);
        if (!s && t)
            s = list_row(t, &info, g, err);
        if (!s && lines)
            s = list_lines(lines, &info, g, err);
        if (!s && list && json_array_append_new(list, list_json(&info, g)))
            s = fst_fail_memory(err, 1);
        fst_graph_free(g);
    }
    return s;
}

static fst_status run_list(const struct options *o, fst_error *err)
{
    static const fst_column columns[] = {
        {"name", FST_LEFT},        {"input", FST_LEFT},   {"classes", FST_RIGHT},
        {"parameters", FST_RIGHT}, {"MFLOPs", FST_RIGHT}, {"summary", FST_LEFT},
    };
    fst_buf out = {0};
    fst_table *t = NULL;
    fst_status s;
    if (option_flag(o, "json")) {
        json_t *list = json_array();
        s = list_models(NULL, NULL, list, err);
        if (s)
            json_decref(list);
        else
            s = add_json(&out, list, true, err);
    } else if (output_width() < WIDE) {
        s = fst_buf_printf(&out, err, "%-38s %-13s %7s %10s %7s\n", "name", "input", "classes", "parameters", "MFLOPs");
        if (!s)
            s = list_models(NULL, &out, NULL, err);
    } else {
        s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
        if (!s)
            s = list_models(t, NULL, NULL, err);
        if (!s)
            s = write_table(t, !output_is_utf8(), &out, err);
        fst_table_free(t);
    }
    return finish_output(&out, s);
}

/* ---- model info: what is looked at ------------------------------------------------------------ */

struct subject {
    const char *path; /* NULL: a network without weights */
    fst_model model;
    fst_safetensors *file; /* metadata */
    char digest[FST_DIGEST_HEX];
    double bytes; /* of the file's tensors */
    int64_t batch;
    struct memory {
        size_t bytes;    /* of the plan's arena */
        fst_error error; /* status: there is no such plan here, and why */
    } inference, training;
};

static void release_subject(struct subject *s)
{
    fst_model_release(&s->model);
    fst_safetensors_free(s->file);
}

static bool is_network(const char *name)
{
    for (size_t i = 0; i < fst_models(); i++)
        if (!strcmp(fst_model_at(i).name, name))
            return true;
    return false;
}

static fst_status load_file(struct subject *s, const char *path, fst_error *err)
{
    fst_status st = load_model(&s->model, path, err);
    if (!st)
        st = fst_safetensors_open(&s->file, path, err);
    if (!st)
        st = fst_sha256_file(path, s->digest, err);
    for (size_t i = 0; !st && i < fst_safetensors_count(s->file); i++) {
        fst_tensor t = fst_safetensors_at(s->file, i);
        s->bytes += (double)fst_shape_count(&t.shape) * (double)fst_dtype_size(t.dtype);
    }
    return st;
}

/* A name without dots and slashes was meant as a network's: the message then lists those. */
static fst_status find_subject(struct subject *s, const struct options *o, fst_error *err)
{
    size_t n;
    const char *name = operand(o, 0), *const *settings = option_list(o, "set", &n);
    fst_model_config c = {0};
    fst_status st = FST_OK;
    if (!fst_file_exists(name) && (is_network(name) || !strpbrk(name, "./"))) {
        for (size_t i = 0; !st && i < n && is_network(name); i++)
            st = fst_model_config_set(&c, name, settings[i], err);
        return st ? st : fst_model_init(&s->model, name, &c, err);
    }
    if (n)
        return fst_fail(err, FST_E_CONFIG, "%s is a file, whose options are its own: --set is for networks", name);
    s->path = name;
    return load_file(s, name, err);
}

static void measure(struct memory *m, const fst_graph *g, int64_t batch, bool training)
{
    fst_plan *plan = NULL;
    fst_plan_options o = {.batch = batch, .training = training, .measure = true};
    if (!fst_plan_new(&plan, g, &o, &m->error))
        m->bytes = fst_plan_arena_bytes(plan);
    fst_plan_free(plan);
}

/* What optimisers keep beside the parameters, in multiples of them. */
static const struct {
    const char *key, *name;
    int spans;
} optimisers[] = {{"sgd", "SGD", 0}, {"sgd_momentum", "SGD with momentum", 1}, {"adam", "Adam and AdamW", 2}};
enum { OPTIMISERS = sizeof optimisers / sizeof *optimisers };

static const char *summary_of(const char *arch)
{
    for (size_t i = 0; i < fst_models(); i++)
        if (!strcmp(fst_model_at(i).name, arch))
            return fst_model_at(i).summary;
    return "";
}

/* Whether the pair is shown by a line of its own, or is the format's business. */
static bool is_own_pair(const char *key)
{
    static const char *const own[] = {"format",         "arch",          "classes",     "input",        "dropout",
                                      "normalise_mean", "normalise_std", "class_names", "test_accuracy"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(own[i], key))
            return true;
    return false;
}

/* The share in the metadata; NaN when there is none. */
static double test_accuracy(const struct subject *s)
{
    const char *text = s->file ? fst_safetensors_meta(s->file, "test_accuracy") : NULL;
    char *end = NULL;
    double v = text ? strtod(text, &end) : -1;
    return end && end != text && !*end && v >= 0 && v <= 1 ? v : (double)NAN;
}

/* ---- model info as text ------------------------------------------------------------------------- */

static fst_status layer_rows(fst_table *t, const fst_graph *g, fst_error *err)
{
    char shape[128], flops[FST_HUMAN];
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < fst_graph_layers(g); i++) {
        fst_layer_info l = fst_graph_layer(g, i);
        s = fst_table_cell(t, err, "%s", l.op);
        if (!s)
            s = fst_table_cell(t, err, "%s", l.name);
        if (!s)
            s = fst_table_cell(t, err, "%s", fst_shape_text(&l.out, shape, sizeof shape));
        if (!s)
            s = l.params ? fst_table_cell(t, err, "%zu", l.params) : fst_table_cell(t, err, "-");
        if (!s)
            s = fst_table_cell(t, err, "%s", l.flops > 0 ? fst_human_count(l.flops, flops) : "-");
    }
    return s;
}

static fst_status add_layers(fst_buf *out, const fst_graph *g, fst_error *err)
{
    static const fst_column columns[] = {
        {"layer", FST_LEFT}, {"name", FST_LEFT}, {"output", FST_LEFT}, {"parameters", FST_RIGHT}, {"FLOPs", FST_RIGHT},
    };
    char flops[FST_HUMAN];
    fst_table *t = NULL;
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    if (!s)
        s = layer_rows(t, g, err);
    if (!s)
        s = fst_table_rule(t, err);
    if (!s)
        s = fst_table_cell(t, err, "total");
    for (int i = 0; !s && i < 2; i++)
        s = fst_table_cell(t, err, "%s", "");
    if (!s)
        s = fst_table_cell(t, err, "%zu", fst_graph_param_count(g));
    if (!s)
        s = fst_table_cell(t, err, "%s", fst_human_count(fst_graph_flops(g), flops));
    if (!s)
        s = write_table(t, !output_is_utf8(), out, err);
    fst_table_free(t);
    return s;
}

static fst_status add_normalisation(fst_buf *out, const fst_model *m, fst_error *err)
{
    fst_buf mean = {0}, std = {0};
    fst_status s = FST_OK;
    if (!m->channels)
        return add_field(out, err, "normalisation", "none");
    for (int i = 0; !s && i < m->channels; i++) {
        s = fst_buf_printf(&mean, err, i ? ", %.6g" : "%.6g", (double)m->mean[i]);
        if (!s)
            s = fst_buf_printf(&std, err, i ? ", %.6g" : "%.6g", (double)m->std[i]);
    }
    if (!s)
        s = add_field(out, err, "normalisation", "mean %s; std %s", mean.data, std.data);
    fst_buf_release(&mean);
    fst_buf_release(&std);
    return s;
}

static fst_status add_class_names(fst_buf *out, const fst_model *m, fst_error *err)
{
    fst_buf names = {0};
    fst_status s = FST_OK;
    if (!m->class_names)
        return FST_OK;
    for (int i = 0; !s && i < m->classes && i < NAMES_SHOWN; i++)
        s = fst_buf_printf(&names, err, i ? ", %s" : "%s", m->class_names[i]);
    if (!s && m->classes > NAMES_SHOWN)
        s = fst_buf_printf(&names, err, " and %d more", m->classes - NAMES_SHOWN);
    if (!s)
        s = add_field(out, err, "class names", "%s", names.data);
    fst_buf_release(&names);
    return s;
}

static fst_status add_file(fst_buf *out, const struct subject *s, fst_error *err)
{
    char text[FST_HUMAN];
    fst_pair pair;
    double accuracy = test_accuracy(s);
    fst_status st = add_field(out, err, "file", "%s (%s of weights)", s->path, fst_human_bytes(s->bytes, text));
    if (!st)
        st = add_field(out, err, "SHA-256", "%s", s->digest);
    if (!st)
        st = add_normalisation(out, &s->model, err);
    if (!st)
        st = add_class_names(out, &s->model, err);
    if (!st && accuracy >= 0)
        st = add_field(out, err, "test accuracy", "%s", fst_human_percent(accuracy, text));
    for (size_t i = 0; !st && fst_safetensors_meta_at(s->file, i, &pair); i++)
        if (!is_own_pair(pair.key) && pair.value[0])
            st = add_field(out, err, pair.key, "%s", pair.value);
    return st;
}

static fst_status memory_field(fst_buf *out, const char *name, const struct memory *m, fst_error *err)
{
    char text[FST_HUMAN];
    if (m->error.status)
        return add_field(out, err, name, "not here: %s", m->error.message);
    return add_field(out, err, name, "%s", fst_human_bytes((double)m->bytes, text));
}

static fst_status add_memory(fst_buf *out, const struct subject *s, fst_error *err)
{
    char text[FST_HUMAN];
    double span = 4.0 * (double)fst_graph_param_count(s->model.graph);
    fst_buf list = {0};
    fst_status st = fst_buf_printf(out, err, "\nMemory for a batch of %lld, by %s:\n", (long long)s->batch,
                                   fst_backend_describe(NULL));
    if (!st)
        st = memory_field(out, "inference", &s->inference, err);
    if (!st && fst_model_is_int8(&s->model))
        return add_field(out, err, "parameters", "%s, and as int8 in the kernels' layouts",
                         fst_human_bytes(span, text));
    if (!st)
        st = memory_field(out, "training", &s->training, err);
    if (!st)
        st = add_field(out, err, "parameters", "%s, gradients as much again", fst_human_bytes(span, text));
    for (int i = 0; !st && i < OPTIMISERS; i++)
        st = fst_buf_printf(&list, err, "%s%s %s", i ? "; " : "", optimisers[i].name,
                            fst_human_bytes(span * optimisers[i].spans, text));
    if (!st)
        st = add_field(out, err, "optimiser", "%s", list.data);
    fst_buf_release(&list);
    return st;
}

static fst_status add_text(fst_buf *out, const struct subject *s, fst_error *err)
{
    const fst_model *m = &s->model;
    char shape[128];
    fst_status st = add_field(out, err, "network", "%s: %s", m->arch, summary_of(m->arch));
    if (!st)
        st = add_field(out, err, "input", "%s", fst_shape_text(&m->config.input, shape, sizeof shape));
    if (!st)
        st = add_field(out, err, "classes", "%d", m->classes);
    if (!st && s->path)
        st = add_file(out, s, err);
    if (!st)
        st = fst_buf_append(out, "\n", 1, err);
    if (!st)
        st = add_layers(out, m->graph, err);
    return st ? st : add_memory(out, s, err);
}

/* ---- model info as JSON --------------------------------------------------------------------------- */

static json_t *layers_json(const fst_graph *g)
{
    json_t *list = json_array();
    for (size_t i = 0; i < fst_graph_layers(g); i++) {
        fst_layer_info l = fst_graph_layer(g, i);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I, s:o}", "op", l.op, "name", l.name, "output",
                                              shape_json(&l.out), "parameters", (json_int_t)l.params, "flops",
                                              fst_json_number(l.flops)));
    }
    return list;
}

static json_t *file_json(const struct subject *s)
{
    fst_pair pair;
    json_t *meta = json_object();
    for (size_t i = 0; fst_safetensors_meta_at(s->file, i, &pair); i++)
        if (!is_own_pair(pair.key))
            json_object_set_new(meta, pair.key, fst_json_text(pair.value));
    const fst_model *m = &s->model;
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "file", fst_json_text(s->path), "sha256", s->digest,
                     "normalise_mean", floats_json(m->mean, m->channels), "normalise_std",
                     floats_json(m->std, m->channels), "class_names", texts_json(m->class_names, m->classes),
                     "test_accuracy", fst_json_number(test_accuracy(s)), "metadata", meta);
}

static json_t *arena_json(const struct memory *m)
{
    return m->error.status ? json_null() : json_integer((json_int_t)m->bytes);
}

static json_t *memory_json(const struct subject *s)
{
    json_int_t span = 4 * (json_int_t)fst_graph_param_count(s->model.graph);
    json_t *states = json_object();
    for (int i = 0; i < OPTIMISERS; i++)
        json_object_set_new(states, optimisers[i].key, json_integer(span * optimisers[i].spans));
    json_t *gradients = json_integer(span);
    if (fst_model_is_int8(&s->model)) { /* there is no training */
        json_decref(states);
        json_decref(gradients);
        states = json_null();
        gradients = json_null();
    }
    return json_pack("{s:I, s:s, s:o, s:o, s:I, s:o, s:o}", "batch", (json_int_t)s->batch, "backend",
                     fst_backend_describe(NULL), "inference_bytes", arena_json(&s->inference), "training_bytes",
                     arena_json(&s->training), "parameter_bytes", span, "gradient_bytes", gradients, "optimiser_bytes",
                     states);
}

static json_t *subject_json(const struct subject *s)
{
    const fst_model *m = &s->model;
    json_t *j = json_pack(
        "{s:s, s:s, s:o, s:i, s:I, s:o, s:o, s:o}", "arch", m->arch, "summary", summary_of(m->arch), "input",
        shape_json(&m->config.input), "classes", m->classes, "parameters", (json_int_t)fst_graph_param_count(m->graph),
        "flops", fst_json_number(fst_graph_flops(m->graph)), "layers", layers_json(m->graph), "memory", memory_json(s));
    json_t *file = j && s->path ? file_json(s) : NULL;
    if (j && s->path && (!file || json_object_update(j, file))) {
        json_decref(j);
        j = NULL;
    }
    json_decref(file);
    return j;
}

static fst_status run_info(const struct options *o, fst_error *err)
{
    struct subject subject = {0};
    fst_buf out = {0};
    fst_status s = find_subject(&subject, o, err);
    if (!s) {
        subject.batch = option_int(o, "batch");
        measure(&subject.inference, subject.model.graph, subject.batch, false);
        measure(&subject.training, subject.model.graph, subject.batch, true);
    }
    if (!s && option_flag(o, "json"))
        s = add_json(&out, subject_json(&subject), true, err);
    else if (!s)
        s = add_text(&out, &subject, err);
    release_subject(&subject);
    return finish_output(&out, s);
}

const struct command cmd_model_list = {
    .name = "model list",
    .summary = "List the networks of the zoo",
    .description = "Lists every network by name, with its usual input and classes (a task's data decide both), its "
                   "parameters, and the millions of floating-point operations of one sample's forward pass, a "
                   "multiply-add counted as two.",
    .options = list_options,
    .examples = list_examples,
    .run = run_list,
};

const struct command cmd_model_info = {
    .name = "model info",
    .summary = "Show a network's layers, or a model file",
    .description = "Shows the layers with their output for one sample, parameters and floating-point operations, and "
                   "the memory that a batch's activations take with all buffers of its kernels, as planned for this "
                   "machine: training cuts a batch into shards where it can, each with a plan of its own. Of a model "
                   "file also its digest, normalisation, classes, test accuracy and where it comes from. A file "
                   "goes before a network of the same name.",
    .options = info_options,
    .operands = info_operands,
    .examples = info_examples,
    .run = run_info,
};
