/*
 * Task folders that hold one JSON file a stage (input/cloud_pretrain.json and so on) and no task.yaml. They are read by
 * tables as exact as the task file's, and become the text of a task file, which then goes the way of all others. It
 * refuses to guess: what one file says differently from another is an error.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "stage_files.h"

enum input { PRETRAIN, SOFT, DISTIL, FEDERATE, LOAD, EDGE, CLOUD, STAGES };
static const char *const stage_names[STAGES] = {"cloud_pretrain", "cloud_kd",   "edge_kd",    "federated_train",
                                                "device_load",    "edge_infer", "cloud_infer"};

struct input_data {
    char *source, *parent_folder, *file_name, *signals_file, *data_path;
};

/* MergeNet by the names that it came with: of its server, and of the adapter's own file. */
struct knowledge_fusion {
    char *target, *source;
    int64_t start_round, fusion_frequency, d_attention, h, num_layers, f, rank;
    double lr;
};

/* All keys of all files; each file has a table of those that it may hold. */
struct stage_file {
    bool there;
    char *data_path, *dataset_type, *device;
    char *model_type, *teacher_model_type, *student_model_type, *edge_model_type;
    char *teacher_model_path, *model_path, *init_model_path, *sync_dir;
    char **edge_data_paths;
    size_t edge_count;
    int64_t num_classes, epochs, batch_size, num_edges, num_rounds, local_epochs, edge_id, max_files, num_batches;
    int64_t min_fit_clients, milestones[FST_MAX_MILESTONES];
    size_t milestone_count;
    struct knowledge_fusion knowledge_fusion;
    double momentum, gamma;
    double learning_rate, weight_decay, temperature, kd_alpha, confidence_threshold, simulate_bandwidth_mbps,
        sync_timeout;
    bool has_temperature, has_threshold, has_bandwidth, has_edge_id, has_input, fingerprint, has_fingerprint,
        has_fusion;
    struct input_data input_data;
};

/* ---- the tables -------------------------------------------------------------------------------------- */

#define T struct stage_file
#define MANY INT64_C(1000000000)
#define TEXT(key, help) FST__F_STRING(T, key, NULL, help)
#define COMMON                                                                                               \
    TEXT(data_path, "file or folder of the samples"),                                                        \
        FST__F_STRING(T, dataset_type, NULL, "what it is called", .unused = true),                           \
        TEXT(device, "cpu; anything else is said to be not there"),                                          \
        FST__F_INT(T, num_classes, 0, FST_MAX_CLASSES, "0", "0: as the data show"),                          \
        FST__F_BOOL(T, fingerprint, NULL, "networks see the signals' fingerprints; one value for all files", \
                    FST__PRESENT(T, has_fingerprint))
#define TRAINING(default_epochs)                                               \
    FST__F_INT(T, epochs, 1, 1000000, default_epochs, "passes over the data"), \
        FST__F_INT(T, batch_size, 1, 65536, "32", "samples a step"),           \
        FST__F_ABOVE(T, learning_rate, 0, 1000, "0.001", "step size"),         \
        FST__F_DOUBLE(T, weight_decay, 0, 10, "0.0001", "L2")
#define INPUT FST__F_OPTIONAL(T, input_data, has_input, &input_schema, "where the signals are", .unused = true)
#define BANDWIDTH                                                                          \
    FST__F_ABOVE(T, simulate_bandwidth_mbps, 0, 1e6, NULL, "MB/s, whatever its name says", \
                 FST__PRESENT(T, has_bandwidth))

static const fst__field input_fields[] = {
    FST__F_STRING(struct input_data, source, NULL, "stage that left the signals"),
    FST__F_STRING(struct input_data, parent_folder, NULL, "folder of file_name"),
    FST__F_STRING(struct input_data, file_name, NULL, "file in parent_folder"),
    FST__F_STRING(struct input_data, signals_file, NULL, "file of signals"),
    FST__F_STRING(struct input_data, data_path, NULL, "file or folder of signals"),
};
static const fst__schema input_schema = FST__SCHEMA(struct input_data, input_fields);

/* Its own matrices: a projection of MobileNetV2 and the classifier of ResNet-50. */
#define KF struct knowledge_fusion
static const fst__field fusion_fields[] = {
    FST__F_STRING(KF, target, "features.16.conv.2.weight", "matrix of the edges' network that gets new values"),
    FST__F_STRING(KF, source, "fc.weight", "matrix of cloud_pretrain's model that they come from"),
    FST__F_INT(KF, start_round, 1, 1000000, "2", "the first round that is fused"),
    FST__F_INT(KF, fusion_frequency, 1, 1000000, "1", "and then one in so many rounds"),
    FST__F_INT(KF, f, 1, 1000000, "1", "the same, by its name in the adapter's file"),
    FST__F_INT(KF, d_attention, 1, 65536, "64", "half the least width of an attention"),
    FST__F_INT(KF, h, 1, 1024, "8", "heads"),
    FST__F_INT(KF, num_layers, 1, 64, "2", "layers of the adapter"),
    FST__F_INT(KF, rank, 0, 4096, "0", "of the low-rank form; 0: the full one"),
    FST__F_ABOVE(KF, lr, 0, 1000, "0.001", "learning rate of the adapter"),
};
#undef KF

static bool check_fusion(const void *object, fst__complaint *c)
{
    const struct knowledge_fusion *k = object;
    if (k->f == 1 || k->fusion_frequency == 1 || k->f == k->fusion_frequency)
        return true;
    c->key = "f";
    snprintf(c->text, sizeof c->text, "is %lld, fusion_frequency is %lld: both say how often is fused", (long long)k->f,
             (long long)k->fusion_frequency);
    return false;
}
static const fst__schema fusion_schema = FST__SCHEMA(struct knowledge_fusion, fusion_fields, .check = check_fusion);

static const fst__field pretrain_fields[] = {
    COMMON, TRAINING("50"), FST__F_STRING(T, model_type, NULL, "the teacher, a network of the zoo", .required = true)};
static const fst__field soft_fields[] = {
    COMMON,
    TEXT(teacher_model_path, "the teacher: what cloud_pretrain left"),
    TEXT(teacher_model_type, "its network"),
    TEXT(model_type, "the same"),
    FST__F_INT(T, batch_size, 1, 65536, "32", "batches do not change soft labels", .unused = true),
    FST__F_ABOVE(T, temperature, 0, 1000, "4", "of the teacher's softmax"),
};
static const fst__field distil_fields[] = {
    COMMON,
    TRAINING("30"),
    TEXT(student_model_type, "the student, a network of the zoo"),
    TEXT(model_type, "the same"),
    FST__F_ABOVE(T, temperature, 0, 1000, NULL, "of both softmaxes; missing: cloud_kd's",
                 FST__PRESENT(T, has_temperature)),
    FST__F_DOUBLE(T, kd_alpha, 0, 1, "0.7", "weight of the teacher; the labels have the rest"),
};
static const fst__field federate_fields[] = {
    COMMON,
    TEXT(model_type, "the edges' network; missing: the student's"),
    TEXT(student_model_type, "the same"),
    TEXT(edge_model_type, "the same"),
    TEXT(init_model_path, "the model that the rounds start from: what edge_kd or cloud_pretrain left"),
    FST__F_STRINGS(T, edge_data_paths, edge_count, FST__MAX_EDGES, NULL, "each edge's samples; missing: dealt"),
    FST__F_INT(T, num_edges, 0, FST__MAX_EDGES, "0", "0: as many as edge_data_paths has, or 2"),
    FST__F_INT(T, num_rounds, 1, 1000000, "20", "rounds"),
    FST__F_INT(T, local_epochs, 1, 100000, "3", "epochs of an edge in a round"),
    FST__F_INT(T, batch_size, 1, 65536, "32", "samples a step"),
    FST__F_ABOVE(T, learning_rate, 0, 1000, "0.001", "step size"),
    FST__F_DOUBLE(T, weight_decay, 0, 10, "0", "L2"),
    FST__F_DOUBLE(T, momentum, 0, 0.9999, "0", "of SGD; 0: Adam"),
    FST__F_INTS(T, milestones, milestone_count, FST_MAX_MILESTONES, 1, 1000000, NULL,
                "MultiStep: rounds after which the step size falls"),
    FST__F_ABOVE(T, gamma, 0, 1, "0.1", "by which it falls then", .when = {FST__WITH_ANY("milestones")}),
    FST__F_INT(T, min_fit_clients, 0, FST__MAX_EDGES, "0", "fewest updates of a round; 0: one"),
    FST__F_OPTIONAL(T, knowledge_fusion, has_fusion, &fusion_schema, "MergeNet: the average is fused with the teacher"),
    FST__F_INT(T, edge_id, 0, FST__MAX_EDGES, NULL, "of a fleet", FST__PRESENT(T, has_edge_id), .unused = true),
    FST__F_STRING(T, sync_dir, NULL, "of a fleet", .unused = true),
    FST__F_DOUBLE(T, sync_timeout, 0, 1e9, "0", "of a fleet", .unused = true),
};
static const fst__field load_fields[] = {
    COMMON,
    INPUT,
    FST__F_INT(T, batch_size, 1, 65536, "32", "samples handed over at a time"),
    FST__F_INT(T, max_files, 0, MANY, "0", "0: all"),
    FST__F_INT(T, num_batches, 0, MANY, "0", "0: all"),
};
static const fst__field edge_fields[] = {
    COMMON,
    INPUT,
    BANDWIDTH,
    TEXT(model_path, "the model: what federated_train or edge_kd left"),
    TEXT(model_type, "its network"),
    TEXT(edge_model_type, "the same"),
    TEXT(student_model_type, "the same"),
    FST__F_INT(T, batch_size, 1, 65536, "32", "samples at a time"),
    FST__F_DOUBLE(T, confidence_threshold, 0, 1, NULL, "below it a sample goes to the cloud; missing: none does",
                  FST__PRESENT(T, has_threshold)),
};
static const fst__field cloud_fields[] = {
    COMMON,
    INPUT,
    BANDWIDTH,
    TEXT(model_path, "the model: what cloud_pretrain left"),
    TEXT(teacher_model_path, "the same"),
    TEXT(model_type, "its network"),
    TEXT(teacher_model_type, "the same"),
    FST__F_INT(T, batch_size, 1, 65536, "32", "samples at a time"),
};

static const fst__schema schemas[STAGES] = {
    FST__SCHEMA(T, pretrain_fields), FST__SCHEMA(T, soft_fields), FST__SCHEMA(T, distil_fields),
    FST__SCHEMA(T, federate_fields), FST__SCHEMA(T, load_fields), FST__SCHEMA(T, edge_fields),
    FST__SCHEMA(T, cloud_fields),
};
#undef T

/* ---- reading ------------------------------------------------------------------------------------------ */

static char *file_path(const char *folder, enum input stage)
{
    char name[64];
    snprintf(name, sizeof name, "input/%s.json", stage_names[stage]);
    return fst_path_join(folder, name);
}

bool fst__stage_files_there(const char *folder)
{
    bool there = false;
    for (enum input s = 0; s < STAGES && !there; s++) {
        char *path = file_path(folder, s);
        there = path && fst_file_exists(path);
        fst_free(path);
    }
    return there;
}

static fst_status read_one(const char *folder, enum input stage, struct stage_file *out, fst_error *err)
{
    fst_buf text = {0};
    char *path = file_path(folder, stage);
    if (!path)
        return fst_fail_memory(err, strlen(folder));
    fst_status st = FST_OK;
    if (fst_file_exists(path)) {
        st = fst_file_read(path, FST__YAML_MAX_BYTES, &text, err);
        if (!st)
            st = fst__schema_load(&schemas[stage], path, text.data ? text.data : "", text.len, NULL, 0, out, err);
        out->there = !st;
    }
    fst_buf_release(&text);
    fst_free(path);
    return st;
}

/* The first of a file's names for the same network. */
static const char *network(const struct stage_file *f)
{
    return f->teacher_model_type   ? f->teacher_model_type
           : f->student_model_type ? f->student_model_type
           : f->edge_model_type    ? f->edge_model_type
                                   : f->model_type;
}

/* ---- what must agree -------------------------------------------------------------------------------------- */

static fst_status disagree(const char *folder, enum input a, enum input b, const char *key, const char *why,
                           fst_error *err)
{
    return fst_fail(err, FST_E_CONFIG, "%s/input/%s.json: %s is not that of %s.json: %s", folder, stage_names[b], key,
                    stage_names[a], why);
}

static fst_status check_networks(const char *folder, const struct stage_file *f, fst_error *err)
{
    static const enum input pairs[][2] = {{PRETRAIN, SOFT}, {PRETRAIN, CLOUD}, {DISTIL, FEDERATE}, {DISTIL, EDGE}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *a = network(&f[pairs[i][0]]), *b = network(&f[pairs[i][1]]);
        if (a && b && strcmp(a, b))
            return disagree(folder, pairs[i][0], pairs[i][1], "the network",
                            "a stage goes on with the model that the other left", err);
    }
    if (f[FEDERATE].has_fusion && !f[PRETRAIN].there)
        return fst_fail(err, FST_E_CONFIG,
                        "%s/input/federated_train.json: knowledge_fusion: there is no "
                        "cloud_pretrain.json, whose model the average would be fused with",
                        folder);
    if (f[DISTIL].there && !network(&f[DISTIL]))
        return fst_fail(err, FST_E_CONFIG, "%s/input/edge_kd.json: student_model_type: this key is required", folder);
    return FST_OK;
}

static fst_status check_classes(const char *folder, const struct stage_file *f, int64_t *classes, fst_error *err)
{
    enum input first = STAGES;
    for (enum input s = 0; s < STAGES; s++) {
        if (!f[s].there || !f[s].num_classes)
            continue;
        if (first == STAGES)
            first = s;
        else if (f[s].num_classes != f[first].num_classes)
            return disagree(folder, first, s, "num_classes", "there is one data set", err);
    }
    *classes = first == STAGES ? 0 : f[first].num_classes;
    return FST_OK;
}

/* Whether networks see fingerprints: what one file says holds for all. */
static fst_status check_fingerprint(const char *folder, const struct stage_file *f, bool *out, fst_error *err)
{
    enum input first = STAGES;
    for (enum input s = 0; s < STAGES; s++) {
        if (!f[s].has_fingerprint)
            continue;
        if (first == STAGES)
            first = s;
        else if (f[s].fingerprint != f[first].fingerprint)
            return disagree(folder, first, s, "fingerprint", "all networks see the same", err);
    }
    *out = first != STAGES && f[first].fingerprint;
    return FST_OK;
}

/* Models are those that this task's stages leave: a path to one is taken for that stage's, wherever it stands. */
static fst_status check_model_path(const char *folder, enum input stage, const char *key, const char *path,
                                   const struct stage_file *f, const enum input *from, size_t n, enum input *which,
                                   fst_error *err)
{
    if (!path)
        return FST_OK;
    for (size_t i = 0; i < n; i++) {
        char part[64];
        snprintf(part, sizeof part, "output/%s/", stage_names[from[i]]);
        if (strstr(path, part)) {
            if (!f[from[i]].there)
                return fst_fail(err, FST_E_CONFIG,
                                "%s/input/%s.json: %s: \"%s\" is what a stage leaves that has no %s.json", folder,
                                stage_names[stage], key, path, stage_names[from[i]]);
            if (which)
                *which = from[i];
            return FST_OK;
        }
    }
    return fst_fail(err, FST_E_CONFIG,
                    "%s/input/%s.json: %s: \"%s\" is not what a stage of this task leaves (output/%s/...): models from "
                    "elsewhere are not read here",
                    folder, stage_names[stage], key, path, stage_names[from[0]]);
}

static fst_status check_paths(const char *folder, const struct stage_file *f, enum input *init, fst_error *err)
{
    static const enum input teacher[] = {PRETRAIN}, student[] = {DISTIL, PRETRAIN}, edge[] = {FEDERATE, DISTIL};
    fst_status st =
        check_model_path(folder, SOFT, "teacher_model_path", f[SOFT].teacher_model_path, f, teacher, 1, NULL, err);
    if (!st)
        st = check_model_path(folder, FEDERATE, "init_model_path", f[FEDERATE].init_model_path, f, student, 2, init,
                              err);
    if (!st)
        st = check_model_path(folder, EDGE, "model_path", f[EDGE].model_path, f, edge, 2, NULL, err);
    if (!st)
        st = check_model_path(folder, CLOUD, "model_path", f[CLOUD].model_path, f, teacher, 1, NULL, err);
    if (!st)
        st = check_model_path(folder, CLOUD, "teacher_model_path", f[CLOUD].teacher_model_path, f, teacher, 1, NULL,
                              err);
    return st;
}

static void tell_device(const struct stage_file *f)
{
    for (enum input s = 0; s < STAGES; s++)
        if (f[s].device && strcasecmp(f[s].device, "cpu")) {
            fst_log(FST_LOG_WARN, "%s.json asks for device \"%s\": the CPU is used", stage_names[s], f[s].device);
            return;
        }
}

/* ---- where the data are -------------------------------------------------------------------------------------- */

/* Paths are relative to where the program runs, to the task's folder, or to the folder that holds tasks/: the first
 * place where there is something. */
static bool look_for(const char *folder, const char *path, char full[PATH_MAX])
{
    static const char *const places[] = {"", "..", "../.."};
    bool there = realpath(path, full);
    for (size_t i = 0; !there && i < sizeof places / sizeof *places; i++) {
        char *place = fst_path_join(folder, places[i]), *whole = place ? fst_path_join(place, path) : NULL;
        there = whole && realpath(whole, full);
        fst_free(place);
        fst_free(whole);
    }
    return there;
}

/* The system that these files come from calls the samples of a place "cloud_data.pkl" and "edge_1_data.pkl"; for
 * `fedstill data split` they are the folders "cloud" and "edge_1". NULL for other names. */
static char *split_folder(const char *path)
{
    static const char ending[] = "_data.pkl";
    size_t n = strlen(path), m = sizeof ending - 1;
    bool is = n > m && !strcmp(path + n - m, ending) && path[n - m - 1] != '/';
    char *folder = is ? fst_strdup(path) : NULL;
    if (folder)
        folder[n - m] = 0;
    return folder;
}

static fst_status find_path(const char *folder, enum input stage, const char *path, char **out, fst_error *err)
{
    char full[PATH_MAX], *split = NULL;
    bool there = look_for(folder, path, full);
    if (!there && (split = split_folder(path)) && look_for(folder, split, full)) {
        fst_log(FST_LOG_INFO, "%s.json: there is no %s; %s, as `fedstill data split` writes it, is read",
                stage_names[stage], path, full);
        there = true;
    }
    fst_status st = FST_OK;
    if (!there)
        st = fst_fail(
            err, FST_E_CONFIG,
            "%s/input/%s.json: \"%s\"%s%s%s is neither where the program runs, nor in the task's folder, nor in "
            "the two above it",
            folder, stage_names[stage], path, split ? " (or the folder \"" : "", split ? split : "",
            split ? "\" of `fedstill data split`)" : "");
    else if (!(*out = fst_strdup(full)))
        st = fst_fail_memory(err, strlen(full));
    fst_free(split);
    return st;
}

/* The path of the cloud's samples; the training stages must mean the same. */
static fst_status cloud_data(const char *folder, const struct stage_file *f, char **out, fst_error *err)
{
    enum input first = STAGES;
    for (enum input s = 0; s <= LOAD; s++) {
        if (!f[s].data_path)
            continue;
        if (first == STAGES)
            first = s;
        else if (s < FEDERATE && strcmp(f[s].data_path, f[first].data_path))
            return disagree(folder, first, s, "data_path", "teacher and student learn from the same samples", err);
        else if (strcmp(f[s].data_path, f[first].data_path))
            fst_log(FST_LOG_WARN, "%s.json: data_path is not read: %s", stage_names[s],
                    s == LOAD ? "devices read the test samples" : "edges get a share, or what edge_data_paths names");
    }
    if (first != STAGES)
        return find_path(folder, first, f[first].data_path, out, err);
    if (f[FEDERATE].edge_count) /* only the edges' are named: the first one's test samples serve */
        return find_path(folder, FEDERATE, f[FEDERATE].edge_data_paths[0], out, err);
    return fst_fail(err, FST_E_CONFIG, "%s/input: no file names the samples (data_path)", folder);
}

/* Has the data set a split of its own? The formats answer by opening it; one that is there and broken is an error. */
static fst_status has_split(const char *path, const char *split, int64_t classes, bool *there, fst_error *err)
{
    fst_source *s = NULL;
    fst_source_spec spec = {.path = path, .split = split, .classes = (int)classes};
    fst_error why = {0};
    fst_status st = fst_source_open(&s, &spec, &why);
    fst_source_close(s);
    *there = !st;
    if (st && st != FST_E_ABSENT && fst_file_exists(path))
        return fst_fail(err, st, "%s samples: %s", split, why.message);
    if (st) /* somebody should know what takes its place */
        fst_log(FST_LOG_INFO, "no %s samples of their own, so a share of the training samples: %s", split, why.message);
    return FST_OK;
}

/* ---- the task file ------------------------------------------------------------------------------------------- */

/* A text in quotes that the reader gives back as it is. */
static fst_status put_text(fst_buf *out, const char *text, fst_error *err)
{
    fst_status st = fst_buf_append(out, "\"", 1, err);
    for (; !st && *text; text++)
        st = *text == '"' || *text == '\\' ? fst_buf_printf(out, err, "\\%c", *text)
             : *text == '$'                ? fst_buf_append(out, "$$", 2, err)
             : (unsigned char)*text < 32   ? fst_buf_printf(out, err, "\\x%02x", (unsigned char)*text)
                                           : fst_buf_append(out, text, 1, err);
    return st ? st : fst_buf_append(out, "\"", 1, err);
}

static fst_status put_number(fst_buf *out, const char *before, double x, fst_error *err)
{
    char text[40];
    return fst_buf_printf(out, err, "%s%s", before, fst__number_text(x, text, sizeof text));
}

static fst_status put_key(fst_buf *out, const char *before, const char *text, fst_error *err)
{
    fst_status st = fst_buf_printf(out, err, "%s", before);
    return st ? st : put_text(out, text, err);
}

static fst_status put_optimizer(fst_buf *out, const struct stage_file *f, fst_error *err)
{
    fst_status st = fst_buf_printf(out, err, ", optimizer: {name: %s", f->momentum > 0 ? "sgd" : "adam");
    if (!st && f->momentum > 0)
        st = put_number(out, ", momentum: ", f->momentum, err);
    if (!st)
        st = put_number(out, ", learning_rate: ", f->learning_rate, err);
    if (!st)
        st = put_number(out, ", weight_decay: ", f->weight_decay, err);
    return st ? st : fst_buf_append(out, "}", 1, err);
}

static fst_status put_training(fst_buf *out, enum input stage, const struct stage_file *f, fst_error *err)
{
    fst_status st = fst_buf_printf(out, err, "  %s: {model: ", stage_names[stage]);
    if (!st)
        st = put_text(out, network(f), err);
    if (!st)
        st = fst_buf_printf(out, err, ", epochs: %lld, batch_size: %lld, schedule: cosine, clip_norm: 5",
                            (long long)f->epochs, (long long)f->batch_size);
    return st ? st : put_optimizer(out, f, err);
}

static fst_status put_milestones(fst_buf *out, const struct stage_file *f, fst_error *err)
{
    fst_status st = put_number(out, ", schedule: {name: multistep, gamma: ", f->gamma, err);
    for (size_t i = 0; !st && i < f->milestone_count; i++)
        st = fst_buf_printf(out, err, "%s%lld", i ? ", " : ", milestones: [", (long long)f->milestones[i]);
    return st ? st : fst_buf_printf(out, err, "]}");
}

static fst_status put_fusion(fst_buf *out, const struct knowledge_fusion *k, fst_error *err)
{
    int64_t every = k->f > k->fusion_frequency ? k->f : k->fusion_frequency;
    fst_status st = put_key(out, ", fusion: {teacher: cloud_pretrain, steps: 1, target: ", k->target, err);
    if (!st)
        st = put_key(out, ", source: ", k->source, err);
    if (!st)
        st = put_number(out, ", learning_rate: ", k->lr, err);
    return st ? st
              : fst_buf_printf(out, err,
                               ", start_round: %lld, fusion_frequency: %lld, d_attention: %lld, heads: %lld, layers: "
                               "%lld, rank: %lld}",
                               (long long)k->start_round, (long long)every, (long long)k->d_attention, (long long)k->h,
                               (long long)k->num_layers, (long long)k->rank);
}

static fst_status put_federated(fst_buf *out, const struct stage_file *f, enum input init, fst_error *err)
{
    const struct stage_file *t = &f[FEDERATE];
    const char *net = network(t) ? network(t) : network(&f[DISTIL]);
    const char *from = init == PRETRAIN ? "cloud_pretrain" : f[DISTIL].there ? "edge_kd" : "random";
    fst_status st =
        fst_buf_printf(out, err,
                       "  federated_train: {strategy: fedavg, rounds: %lld, local_epochs: %lld, "
                       "batch_size: %lld, init: %s, select: best",
                       (long long)t->num_rounds, (long long)t->local_epochs, (long long)t->batch_size, from);
    if (!st)
        st = put_optimizer(out, t, err);
    if (!st && net)
        st = put_key(out, ", model: ", net, err);
    if (!st && t->min_fit_clients)
        st = fst_buf_printf(out, err, ", quorum: %lld", (long long)t->min_fit_clients);
    if (!st && t->milestone_count)
        st = put_milestones(out, t, err);
    if (!st && t->has_fusion)
        st = put_fusion(out, &t->knowledge_fusion, err);
    return st ? st : fst_buf_printf(out, err, "}\n");
}

/* Devices, edge and cloud; a stage whose input stage has no file is left out. Without a threshold the edge asks nobody.
 * The cloud alone, for comparison, has no file of its own. */
static fst_status put_cascade(fst_buf *out, const struct stage_file *f, fst_error *err)
{
    const struct stage_file *d = &f[LOAD], *e = &f[EDGE], *c = &f[CLOUD];
    bool edge = d->there && e->there && (f[DISTIL].there || f[FEDERATE].there), cloud = d->there && f[PRETRAIN].there;
    fst_status st = FST_OK;
    if (d->there)
        st = fst_buf_printf(out, err, "  device_load: {batch_size: %lld, num_batches: %lld, max_files: %lld}\n",
                            (long long)d->batch_size, (long long)d->num_batches, (long long)d->max_files);
    if (!st && edge)
        st = fst_buf_printf(out, err, "  edge_infer: {batch_size: %lld%s", (long long)e->batch_size,
                            e->model_path && strstr(e->model_path, "output/edge_kd/") ? ", model: edge_kd" : "");
    if (!st && edge)
        st = put_number(out, ", threshold: ", e->has_threshold ? e->confidence_threshold : 0, err);
    if (!st && edge)
        st = fst_buf_printf(out, err, ", calibrate: false}\n");
    if (!st && edge && cloud && c->there)
        st = fst_buf_printf(out, err, "  cloud_infer: {batch_size: %lld}\n", (long long)c->batch_size);
    if (!st && cloud)
        st = fst_buf_printf(out, err, "  cloud_direct_infer: {batch_size: %lld}\n",
                            c->there ? (long long)c->batch_size : 32LL);
    return st;
}

static fst_status put_stages(fst_buf *out, const struct stage_file *f, enum input init, fst_error *err)
{
    fst_status st = fst_buf_printf(out, err, "stages:\n");
    if (!st && f[PRETRAIN].there) {
        st = put_training(out, PRETRAIN, &f[PRETRAIN], err);
        if (!st)
            st = fst_buf_printf(out, err, "}\n");
    }
    if (!st && f[SOFT].there) {
        st = put_number(out, "  cloud_kd: {temperature: ", f[SOFT].temperature, err);
        if (!st)
            st = fst_buf_printf(out, err, "}\n");
    }
    if (!st && f[DISTIL].there) {
        st = put_training(out, DISTIL, &f[DISTIL], err);
        if (!st)
            st = put_number(out, ", kd_weight: ", f[DISTIL].kd_alpha, err);
        if (!st)
            st = put_number(out, ", ce_weight: ", 1 - f[DISTIL].kd_alpha, err);
        if (!st && f[DISTIL].has_temperature)
            st = put_number(out, ", temperature: ", f[DISTIL].temperature, err);
        if (!st)
            st = fst_buf_printf(out, err, "}\n");
    }
    if (!st && f[FEDERATE].there)
        st = put_federated(out, f, init, err);
    return st ? st : put_cascade(out, f, err);
}

static fst_status put_data(fst_buf *out, const char *folder, const struct stage_file *f, const char *path,
                           int64_t classes, bool fingerprint, fst_error *err)
{
    const struct stage_file *t = &f[FEDERATE];
    /* where samples are dealt to the edges, those of validation are dealt with them */
    bool val = false, test = false;
    fst_status st = t->edge_count || !t->there ? has_split(path, "val", classes, &val, err) : FST_OK;
    if (!st)
        st = has_split(path, "test", classes, &test, err);
    if (!st)
        st = put_key(out, "data:\n  path: ", path, err);
    if (!st)
        st = fst_buf_printf(out, err, "\n  classes: %lld\n  %s\n  test: %s\n", (long long)classes,
                            val ? "own_validation: true" : "validation: 0.1", test ? "0" : "0.1");
    if (!st && fingerprint)
        st = fst_buf_printf(out, err, "  fingerprint: true\n");
    for (size_t k = 0; !st && k < t->edge_count; k++) {
        char *edge = NULL;
        st = find_path(folder, FEDERATE, t->edge_data_paths[k], &edge, err);
        if (!st)
            st = put_key(out, k ? ", " : "  edge_paths: [", edge, err);
        fst_free(edge);
    }
    return !st && t->edge_count ? fst_buf_printf(out, err, "]\n") : st;
}

/* Each edge has two devices, as in the system that these files come from. */
static fst_status put_topology(fst_buf *out, const char *folder, const struct stage_file *f, fst_error *err)
{
    const struct stage_file *t = &f[FEDERATE], *link = f[EDGE].has_bandwidth ? &f[EDGE] : &f[CLOUD];
    int64_t edges = t->num_edges ? t->num_edges : t->edge_count ? (int64_t)t->edge_count : 2;
    if (t->edge_count && edges != (int64_t)t->edge_count)
        return fst_fail(err, FST_E_CONFIG, "%s/input/federated_train.json: num_edges is %lld, edge_data_paths has %zu",
                        folder, (long long)edges, t->edge_count);
    if (f[EDGE].has_bandwidth && f[CLOUD].has_bandwidth &&
        f[EDGE].simulate_bandwidth_mbps != f[CLOUD].simulate_bandwidth_mbps)
        return disagree(folder, EDGE, CLOUD, "simulate_bandwidth_mbps", "both are the link between edge and cloud",
                        err);
    fst_status st =
        fst_buf_printf(out, err, "topology: {edges: %lld, devices: %lld", (long long)edges, (long long)(2 * edges));
    if (!st && !t->there) /* nobody trains at the edges: the cloud learns from all samples */
        st = fst_buf_printf(out, err, ", cloud_share: 1");
    if (!st && link->has_bandwidth && f[LOAD].there) { /* else its stages are left out */
        char rate[40];
        fst__number_text(link->simulate_bandwidth_mbps, rate, sizeof rate);
        st = fst_buf_printf(out, err, ", links: {edge_cloud: {rate: %s}, device_cloud: {rate: %s}}", rate, rate);
    }
    return st ? st : fst_buf_printf(out, err, "}\n");
}

static fst_status put_name(fst_buf *out, const char *folder, fst_error *err)
{
    char full[PATH_MAX];
    const char *path = realpath(folder, full) ? full : folder, *slash = strrchr(path, '/');
    fst_status st = put_key(out, "name: ", slash && slash[1] ? slash + 1 : path, err);
    return st ? st : fst_buf_append(out, "\n", 1, err);
}

fst_status fst__stage_files_read(const char *folder, fst_buf *text, fst_error *err)
{
    struct stage_file *f = fst_calloc(STAGES, sizeof *f);
    enum input init = DISTIL;
    int64_t classes = 0;
    bool fingerprint = false;
    char *path = NULL;
    fst_status st = f ? FST_OK : fst_fail_memory(err, STAGES * sizeof *f);
    for (enum input s = 0; !st && s < STAGES; s++)
        st = read_one(folder, s, &f[s], err);
    if (!st)
        st = check_networks(folder, f, err);
    if (!st)
        st = check_classes(folder, f, &classes, err);
    if (!st)
        st = check_fingerprint(folder, f, &fingerprint, err);
    if (!st)
        st = check_paths(folder, f, &init, err);
    if (!st)
        st = cloud_data(folder, f, &path, err);
    if (!st)
        st = put_name(text, folder, err);
    if (!st)
        st = put_data(text, folder, f, path, classes, fingerprint, err);
    if (!st)
        st = put_topology(text, folder, f, err);
    if (!st)
        st = put_stages(text, f, init, err);
    if (!st)
        tell_device(f);
    for (enum input s = 0; f && s < STAGES; s++)
        fst__schema_release(&schemas[s], &f[s]);
    fst_free(f);
    fst_free(path);
    return st;
}
