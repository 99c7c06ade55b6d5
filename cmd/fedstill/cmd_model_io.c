/* fedstill model import, model export: weights of other programs become model files, and the other way round. What
 * fits is decided by the library; here are the options and the report. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common.h"

enum { MAP_BYTES = 1 << 20, NAMES_BYTES = 1 << 22 };

static const char *const heads[] = {"keep", "fresh", NULL};
static const char *const namings[] = {"ours", "torchvision", NULL};
static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
static const struct option_spec import_options[] = {
    {.name = "as",
     .argument = "NETWORK",
     .type = OPTION_STRING,
     .help = "The network, as `fedstill model list` names it. An ONNX file says it itself."},
    {.name = "out", .letter = 'o', .argument = "FILE", .type = OPTION_STRING, .help = "The model file to write."},
    {.name = "set",
     .argument = "OPTION=VALUE",
     .type = OPTION_LIST,
     .help = "An option of the network: stem=cifar, width=0.5, hidden=500, stem_stride=1, stage_strides=1,2,2,2,1,1,1, "
             "dropout1=0.1."},
    {.name = "classes",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .help = "Classes of the model. Without it as many as the file's last linear layer has."},
    {.name = "input",
     .argument = "C,H,W",
     .type = OPTION_STRING,
     .help = "Shape of a sample, if not the network's "
             "usual one."},
    {.name = "head",
     .argument = "HEAD",
     .type = OPTION_STRING,
     .fallback = "keep",
     .choices = heads,
     .help =
         "keep: the last linear layers come from the file. fresh: the last one starts anew from the seed, and so do "
         "linear layers before it that do not fit."},
    {.name = "seed",
     .argument = "N",
     .type = OPTION_INT,
     .min = 0,
     .max = INT64_MAX,
     .fallback = "42",
     .help = "Seed of a fresh head."},
    {.name = "map",
     .argument = "FILE",
     .type = OPTION_STRING,
     .help =
         "Names that are not known here: lines THEIRS OURS, where a * in THEIRS stands for any characters and one in "
         "OURS brings them back, OURS - leaves a tensor out, and # begins a comment."},
    {.name = "prefix",
     .argument = "TEXT",
     .type = OPTION_STRING,
     .help = "Take only the tensors whose names begin so, without it: model_ema. where a file holds two sets."},
    {.name = "suffix", .argument = "TEXT", .type = OPTION_STRING, .help = "The same at the end of names."},
    {.name = "pad-shortcuts",
     .type = OPTION_FLAG,
     .help =
         "The file's shortcuts have no parameters (option A of the CIFAR ResNets, as in akamaster's): write them as "
         "1x1 convolutions of zeros and ones that compute the same in inference."},
    {.name = "mean",
     .argument = "X,...",
     .type = OPTION_STRING,
     .help = "What is subtracted from samples in 0 ... 1: one number, or one a channel. torchvision's ImageNet "
             "models: 0.485,0.456,0.406."},
    {.name = "std",
     .argument = "X,...",
     .type = OPTION_STRING,
     .help = "What they are divided by then: 0.229,0.224,0.225 there."},
    {.name = "class-names", .argument = "FILE", .type = OPTION_STRING, .help = "Names of the classes, one a line."},
    {.name = "allow-nonfinite",
     .type = OPTION_FLAG,
     .help = "Only warn of NaN and infinity among the weights, instead of refusing them."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write the report as JSON, also when nothing was written."},
    {0},
};
static const struct operand_spec import_operands[] = {
    {"FILE", 1, 1,
     "A state_dict as safetensors or of torch.save (.pth, .pt), an ONNX file, or a model file of fedstill."},
    {0},
};
static const char *const import_examples[] = {
    "fedstill model import resnet50.safetensors --as resnet50 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 "
    "--out teacher.safetensors",
    "torchvision's ResNet-50 as a teacher.",
    "fedstill model import mobilenet_v2.safetensors --as mobilenet_v2 --classes 10 --head fresh --out "
    "start.safetensors",
    "All of MobileNetV2 but its last layer, which starts anew with 10 classes.",
    "fedstill model import resnet50.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --out teacher.safetensors",
    "The same teacher as torch.onnx.export writes it.",
    NULL,
};
static const struct option_spec export_options[] = {
    {.name = "out", .letter = 'o', .argument = "FILE", .type = OPTION_STRING, .help = "The file to write."},
    {.name = "names",
     .argument = "NAMES",
     .type = OPTION_STRING,
     .fallback = "torchvision",
     .choices = namings,
     .help = "torchvision: a bare state_dict for load_state_dict. ours: a model file that fedstill reads. The tensors' "
             "names are the same."},
    {.name = "dtype",
     .argument = "TYPE",
     .type = OPTION_STRING,
     .fallback = "f32",
     .choices = dtypes,
     .help = "Type of weights and running statistics."},
    {.name = "onnx",
     .type = OPTION_FLAG,
     .help = "Write the whole network as ONNX (opset 17), for inference elsewhere; so does a FILE that ends in .onnx."},
    {.name = "fold", .type = OPTION_FLAG, .help = "With --onnx: put batch norms into the convolutions before them."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object."},
    {0},
};
static const struct operand_spec export_operands[] = {{"MODEL", 1, 1, "A model file."}, {0}};
static const char *const export_examples[] = {
    "fedstill model export output/edge_kd/model.safetensors --out student.safetensors --dtype f16",
    "Halves a student for load_state_dict in Python.",
    "fedstill model export output/edge_kd/model.safetensors --out student.onnx --fold",
    "A student for ONNX Runtime.",
    NULL,
};

/* An option that has no default and is needed. */
static fst_status need(const struct options *o, const char *name, fst_error *err)
{
    return option_given(o, name) ? FST_OK : fst_fail(err, FST_E_CONFIG, "--%s is needed", name);
}

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n >= k && !strcasecmp(path + n - k, end);
}

/* Safetensors is what is written: a name that promises another format would mislead whoever gets the file. */
static fst_status check_out(const char *path, fst_error *err)
{
    static const char *const others[] = {".onnx", ".pth",   ".pt",      ".th",  ".ckpt",   ".h5",
                                         ".hdf5", ".keras", ".npz",     ".npy", ".tflite", ".pb",
                                         ".gguf", ".pkl",   ".mlmodel", ".tar", ".zip"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (ends_in(path, others[i]))
            return fst_fail(err, FST_E_CONFIG,
                            "--out %s: models are written as safetensors, not as %s: name it %.*s.safetensors", path,
                            others[i], (int)(strlen(path) - strlen(others[i])), path);
    return FST_OK;
}

/* ---- import: what to do -------------------------------------------------------------------------- */

struct import {
    fst_import_options o;
    fst_buf map;
    fst_model model;
    fst_import_report report;
    char input_digest[FST_DIGEST_HEX], digest[FST_DIGEST_HEX];
};

static void release_import(struct import *i)
{
    fst_buf_release(&i->map);
    fst_model_release(&i->model);
    fst_import_report_release(&i->report);
}

/* An ONNX file says itself which network it is; what is only named so is refused for what it is. */
static bool is_onnx(const char *path)
{
    size_t len = strlen(path);
    if (len > 5 && !strcmp(path + len - 5, ".onnx"))
        return true;
    unsigned char head[16];
    size_t n = 0;
    struct stat st;
    FILE *f = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    if (f) {
        n = fread(head, 1, sizeof head, f);
        fclose(f);
    }
    return fst_onnx_probe(head, n);
}

static fst_status read_options(struct import *i, const struct options *o, fst_error *err)
{
    char input[128];
    fst_model_config c = {0};
    fst_status s = is_onnx(operand(o, 0)) ? FST_OK : need(o, "as", err);
    if (!s)
        s = need(o, "out", err);
    if (!s)
        s = check_out(option_string(o, "out"), err);
    if (s)
        return s;
    i->o = (fst_import_options){
        .arch = option_string(o, "as"),
        .classes = (int)option_int(o, "classes"),
        .head = !strcmp(option_string(o, "head"), "fresh") ? FST_HEAD_FRESH : FST_HEAD_KEEP,
        .seed = (uint64_t)option_int(o, "seed"),
        .prefix = option_string(o, "prefix"),
        .suffix = option_string(o, "suffix"),
        .pad_shortcuts = option_flag(o, "pad-shortcuts"),
        .allow_nonfinite = option_flag(o, "allow-nonfinite"),
    };
    i->o.settings = option_list(o, "set", &i->o.setting_count);
    if (option_given(o, "input")) {
        snprintf(input, sizeof input, "input=%s", option_string(o, "input"));
        s = fst_model_config_set(&c, i->o.arch ? i->o.arch : fst_model_at(0).name, input, err);
        i->o.input = c.input;
    }
    if (!s && option_given(o, "map")) {
        i->o.map_name = option_string(o, "map");
        s = fst_file_read(i->o.map_name, MAP_BYTES, &i->map, err);
        i->o.map = i->map.data ? i->map.data : "";
    }
    if (!s && option_given(o, "mean") != option_given(o, "std"))
        s = fst_fail(err, FST_E_CONFIG, "--mean and --std go together");
    return s;
}

/* Numbers by comma; how many, 0 when they are none. */
static int parse_numbers(const char *text, float out[FST_MODEL_CHANNELS])
{
    int n = 0;
    for (char *end; n < FST_MODEL_CHANNELS; text = end + 1) {
        out[n] = strtof(text, &end);
        if (end == text || (*end && *end != ',') || !(out[n] - out[n] == 0))
            return 0;
        n++;
        if (!*end)
            return n;
    }
    return 0;
}

static fst_status set_normalisation(fst_model *m, const struct options *o, fst_error *err)
{
    float mean[FST_MODEL_CHANNELS], std[FST_MODEL_CHANNELS];
    if (!option_given(o, "mean"))
        return FST_OK;
    int n = parse_numbers(option_string(o, "mean"), mean), k = parse_numbers(option_string(o, "std"), std);
    int64_t channels = m->config.input.dim[0];
    if (!n || n != k || (n > 1 && n != channels))
        return fst_fail(err, FST_E_CONFIG, "--mean and --std: give one number each, or %lld by comma",
                        (long long)channels);
    for (int i = 0; i < n; i++)
        if (!(std[i] > 0))
            return fst_fail(err, FST_E_CONFIG, "--std: %g is not above 0", (double)std[i]);
    memcpy(m->mean, mean, sizeof mean);
    memcpy(m->std, std, sizeof std);
    m->channels = n;
    return FST_OK;
}

static fst_status set_class_names(fst_model *m, const char *path, fst_error *err)
{
    fst_buf text = {0};
    int n = 0;
    if (!path)
        return FST_OK;
    fst_status s = fst_file_read(path, NAMES_BYTES, &text, err);
    char **names = s ? NULL : fst_calloc((size_t)m->classes + 1, sizeof *names);
    if (!s && !names)
        s = fst_fail_memory(err, (size_t)m->classes * sizeof *names);
    for (char *line = text.data, *next; !s && line && *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = 0;
        line[strcspn(line, "\r")] = 0;
        if (n < m->classes)
            names[n] = line;
        n++;
    }
    if (!s && n != m->classes)
        s = fst_fail(err, FST_E_MISMATCH, "%s: %d lines for %d classes", path, n, m->classes);
    if (!s)
        s = fst_model_set_class_names(m, names, n, err);
    fst_free(names);
    fst_buf_release(&text);
    return s;
}

static fst_status save_import(struct import *i, const struct options *o, fst_error *err)
{
    char head[64];
    fst_pair more[4] = {{"stage", "import"}, {"imported_digest", i->input_digest}};
    size_t n = 2;
    if (i->o.head == FST_HEAD_FRESH)
        more[n++] = (fst_pair){"imported_head", head};
    if (i->report.of[FST_IMPORT_MADE])
        more[n++] = (fst_pair){"imported_norms", "folded"};
    snprintf(head, sizeof head, "fresh, seed %llu", (unsigned long long)i->o.seed);
    fst_status s = set_normalisation(&i->model, o, err);
    if (!s)
        s = set_class_names(&i->model, option_string(o, "class-names"), err);
    if (!s)
        s = fst_sha256_file(operand(o, 0), i->input_digest, err);
    if (!s)
        s = fst_model_save(&i->model, option_string(o, "out"), more, n, i->digest, err);
    return s;
}

/* ---- import: the report ---------------------------------------------------------------------------- */

/* One line for a tensor that was not simply taken. */
static fst_status item_line(fst_buf *out, const fst_import_item *i, fst_error *err)
{
    char a[128], b[128];
    const char *kind = fst_import_kind_name(i->kind);
    fst_shape_text(&i->our_shape, a, sizeof a);
    fst_shape_text(&i->their_shape, b, sizeof b);
    if (i->kind == FST_IMPORT_UNUSED)
        return add_field(out, err, kind, "%s: no tensor is mapped by this line", i->theirs);
    if (i->kind == FST_IMPORT_TWICE)
        return add_field(out, err, kind, "%s %s, from %s", i->ours, a, i->theirs);
    if (i->kind == FST_IMPORT_NONFINITE)
        return add_field(out, err, kind, "%s: %zu of %s in the file", i->ours, i->nonfinite, b);
    if (i->ours && i->theirs)
        return add_field(out, err, kind, "%s: %s %s in the file, %s in the network", i->ours, fst_dtype_name(i->dtype),
                         b, a);
    return add_field(out, err, kind, "%s %s", i->ours ? i->ours : i->theirs, i->ours ? a : b);
}

static fst_status report_text(fst_buf *out, const struct import *i, const struct options *o, bool done, fst_error *err)
{
    const fst_import_report *r = &i->report;
    fst_status s = add_field(out, err, "file", "%s (%s)", operand(o, 0), r->format);
    const char *arch = done ? i->model.arch : i->o.arch;
    if (!s && arch)
        s = add_field(out, err, "network", "%s", arch);
    if (!s)
        s = add_field(out, err, "taken", "%zu tensors", r->of[FST_IMPORT_TAKEN]);
    if (!s && r->of[FST_IMPORT_MADE])
        s = add_field(out, err, "made",
                      "%zu tensors: batch norms folded into their convolutions, for inference and teaching; training "
                      "from here would start from norms that know no data",
                      r->of[FST_IMPORT_MADE]);
    if (!s && r->of[FST_IMPORT_ZERO])
        s = add_field(out, err, "zero", "%zu counters (num_batches_tracked) that the file does not have",
                      r->of[FST_IMPORT_ZERO]);
    for (size_t k = 0; !s && k < r->count; k++)
        if (r->items[k].kind != FST_IMPORT_TAKEN && r->items[k].kind != FST_IMPORT_ZERO &&
            r->items[k].kind != FST_IMPORT_MADE)
            s = item_line(out, &r->items[k], err);
    if (!s && done && i->o.head == FST_HEAD_FRESH)
        s = add_field(out, err, "head", "initialised from seed %llu", (unsigned long long)i->o.seed);
    if (!s && done && !i->model.channels)
        s = add_field(out, err, "normalisation", "none: give --mean and --std if it was trained with one");
    if (!s && done)
        s = add_field(out, err, "written", "%s: %d classes, SHA-256 %s", option_string(o, "out"), i->model.classes,
                      i->digest);
    return s;
}

static json_t *item_json(const fst_import_item *i)
{
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:s?, s:I}", "kind", fst_import_kind_name(i->kind), "ours",
                     fst_json_text(i->ours), "our_shape", i->ours ? shape_json(&i->our_shape) : json_null(), "theirs",
                     fst_json_text(i->theirs), "their_shape", i->theirs ? shape_json(&i->their_shape) : json_null(),
                     "dtype", i->theirs ? fst_dtype_name(i->dtype) : NULL, "nonfinite", (json_int_t)i->nonfinite);
}

static json_t *report_json(const struct import *i, const struct options *o, bool done, const char *message)
{
    json_t *counts = json_object(), *tensors = json_array();
    for (int k = 0; k < FST_IMPORT_KINDS; k++)
        json_object_set_new(counts, fst_import_kind_name((fst_import_kind)k),
                            json_integer((json_int_t)i->report.of[k]));
    for (size_t k = 0; k < i->report.count; k++)
        json_array_append_new(tensors, item_json(&i->report.items[k]));
    return json_pack("{s:o, s:s?, s:s?, s:b, s:o, s:s?, s:o, s:o, s:o}", "file", fst_json_text(operand(o, 0)), "format",
                     i->report.format, "arch", done ? i->model.arch : i->o.arch, "complete", done, "written",
                     fst_json_text(done ? option_string(o, "out") : NULL), "sha256", done ? i->digest : NULL, "error",
                     fst_json_text(message), "counts", counts, "tensors", tensors);
}

static void warn_of_values(const struct import *i)
{
    for (size_t k = 0; k < i->report.count; k++)
        if (i->report.items[k].kind == FST_IMPORT_NONFINITE)
            fst_log(FST_LOG_WARN, "%s holds %zu values that are no number or infinite", i->report.items[k].ours,
                    i->report.items[k].nonfinite);
}

static fst_status run_import(const struct options *o, fst_error *err)
{
    struct import i = {0};
    fst_buf out = {0};
    fst_error inner = {0};
    fst_status s = read_options(&i, o, err), shown = FST_OK;
    if (s) {
        release_import(&i);
        return s;
    }
    s = fst_model_import(&i.model, operand(o, 0), &i.o, &i.report, err);
    if (!s)
        s = save_import(&i, o, err);
    if (!s)
        warn_of_values(&i);
    if (option_flag(o, "json"))
        shown = add_json(&out, report_json(&i, o, !s, s && err ? err->message : NULL), true, &inner);
    else if (!s || i.report.count)
        shown = report_text(&out, &i, o, !s, &inner);
    if (!shown && out.len) /* why nothing was written belongs to the error, unless a program reads it */
        fwrite(out.data, 1, out.len, s && !option_flag(o, "json") ? stderr : stdout);
    if (shown && !s)
        s = fst_fail(err, shown, "%s", inner.message);
    fst_buf_release(&out);
    release_import(&i);
    return s;
}

/* ---- export -------------------------------------------------------------------------------------------- */

static fst_dtype chosen_dtype(const struct options *o)
{
    const char *name = option_string(o, "dtype");
    return !strcmp(name, "f16") ? FST_F16 : !strcmp(name, "bf16") ? FST_BF16 : FST_F32;
}

/* The pairs of the file that a model of its own does not write again; they belong to f. fst_free the list. */
static fst_pair *provenance(const fst_safetensors *f, size_t *count)
{
    static const char *const own[] = {"format",  "fedstill", "features",       "arch",          "classes",    "input",
                                      "dropout", "options",  "normalise_mean", "normalise_std", "class_names"};
    fst_pair pair, *list;
    size_t n = 0;
    while (fst_safetensors_meta_at(f, n, &pair))
        n++;
    list = fst_calloc(n + 1, sizeof *list);
    *count = 0;
    for (size_t i = 0; list && i < n && fst_safetensors_meta_at(f, i, &pair); i++) {
        bool taken = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            taken = taken || !strcmp(own[k], pair.key);
        if (!taken)
            list[(*count)++] = pair;
    }
    return list;
}

static bool wants_onnx(const struct options *o)
{
    return option_flag(o, "onnx") || (option_given(o, "out") && ends_in(option_string(o, "out"), ".onnx"));
}

/* Options that only one of the two formats has. */
static fst_status check_export(const struct options *o, fst_error *err)
{
    fst_status s = need(o, "out", err);
    if (s)
        return s;
    if (!wants_onnx(o))
        return option_flag(o, "fold") ? fst_fail(err, FST_E_CONFIG, "--fold needs --onnx: a state_dict keeps its norms")
                                      : check_out(option_string(o, "out"), err);
    if (option_given(o, "names") || option_given(o, "dtype"))
        return fst_fail(err, FST_E_CONFIG, "--%s is of safetensors; ONNX is written as f32, with the layers' names",
                        option_given(o, "names") ? "names" : "dtype");
    if (!ends_in(option_string(o, "out"), ".onnx"))
        return fst_fail(err, FST_E_CONFIG, "--out %s: with --onnx, name it FILE.onnx", option_string(o, "out"));
    return FST_OK;
}

static fst_status write_export(const fst_model *m, const struct options *o, char digest[FST_DIGEST_HEX], fst_error *err)
{
    fst_onnx_options onnx = {.fold = option_flag(o, "fold")};
    bool ours = !strcmp(option_string(o, "names"), "ours");
    fst_safetensors *f = NULL;
    size_t n = 0;
    fst_status s = fst_safetensors_open(&f, operand(o, 0), err);
    fst_pair *more = s ? NULL : provenance(f, &n);
    if (!s && !more)
        s = fst_fail_memory(err, sizeof *more);
    if (!s && wants_onnx(o))
        s = fst_model_export_onnx(m, option_string(o, "out"), &onnx, more, n, digest, err);
    else if (!s)
        s = fst_model_export(m, option_string(o, "out"), ours ? FST_NAMES_OURS : FST_NAMES_TORCHVISION, chosen_dtype(o),
                             more, ours ? n : 0, digest, err);
    fst_free(more);
    fst_safetensors_free(f);
    return s;
}

static fst_status run_export(const struct options *o, fst_error *err)
{
    char digest[FST_DIGEST_HEX];
    fst_model m = {0};
    fst_buf out = {0};
    fst_status s = check_export(o, err);
    if (!s)
        s = load_model(&m, operand(o, 0), err);
    if (!s)
        s = fst_model_need_f32(&m, operand(o, 0), "cannot be exported", err);
    if (!s)
        s = write_export(&m, o, digest, err);
    size_t tensors = s ? 0 : fst_graph_params(m.graph) + fst_graph_buffers(m.graph) + fst_graph_counters(m.graph);
    if (!s && option_flag(o, "json"))
        s = add_json(&out,
                     json_pack("{s:o, s:s, s:s, s:s, s:s, s:I, s:s}", "written", fst_json_text(option_string(o, "out")),
                               "arch", m.arch, "format", wants_onnx(o) ? "onnx" : "safetensors", "names",
                               option_string(o, "names"), "dtype", option_string(o, "dtype"), "tensors",
                               (json_int_t)tensors, "sha256", digest),
                     true, err);
    else if (!s)
        s = add_field(&out, err, "written", "%s: %s%s, %zu tensors, SHA-256 %s", option_string(o, "out"), m.arch,
                      wants_onnx(o) ? " as ONNX" : "", tensors, digest);
    fst_model_release(&m);
    return finish_output(&out, s);
}

const struct command cmd_model_import = {
    .name = "model import",
    .summary = "Make a model file of weights from elsewhere",
    .description =
        "Reads a state_dict and writes a model file with the same weights. The names of torchvision, timm, "
        "chenyaofo/pytorch-cifar-models, akamaster, kuangliu and weiaicunzai are known, module., model., _orig_mod. "
        "and "
        "similar prefixes are taken off, and f16, bf16 and f64 are converted to f32. The file's format is "
        "recognised by its content: safetensors, or what torch.save wrote, of which all is read that "
        "torch.load(weights_only=True) reads and other objects are passed over; nothing is run. The state_dict is "
        "found "
        "under its usual names (state_dict, model, net, module and so on); --prefix ema. takes another one of the "
        "file.\n\n"
        "Every tensor of the network must be in the file with its shape, and none besides; otherwise all that is "
        "missing, extra or misshaped is listed, the exit status is 1 and nothing is written. Only num_batches_tracked "
        "may be missing, which then starts at 0.\n\n"
        "Of an ONNX file the layers themselves say which network it is, whatever its names, and --as is not needed. "
        "Batch "
        "norms that were folded into convolutions become norms that change nothing. An operator or a network that is "
        "not here is named.\n\n"
        "A file does not say how samples were normalised, unless `fedstill model export` wrote it: give --mean and "
        "--std "
        "as they were in training.",
    .options = import_options,
    .operands = import_operands,
    .examples = import_examples,
    .run = run_import,
};

const struct command cmd_model_export = {
    .name = "model export",
    .summary = "Write a model's weights for other programs",
    .description =
        "Writes the weights of a model file as safetensors, for load_state_dict(load_file(FILE)) of the same "
        "network in PyTorch, or as a model file of another type. Its metadata keep the network's options, "
        "normalisation "
        "and class names, which `fedstill model import` takes from them. Values are rounded to the nearest; one "
        "that f16 cannot hold is an error.\n\n"
        "A FILE that ends in .onnx is the whole network for ONNX Runtime and the like, with the same weights: "
        "opset 17, input \"input\" (batch, ...) of normalised samples, output \"logits\"; normalisation and class "
        "names "
        "are in metadata_props.",
    .options = export_options,
    .operands = export_operands,
    .examples = export_examples,
    .run = run_export,
};
