/* The task file's tables: keys, limits, defaults, one line of help each. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "stage_files.h"
#include "stages.h"
#include "task_file.h"

#define MANY INT64_C(1000000000)

const char *const fst__data_sources[] = {"auto",  "idx",   "cifar10", "cifar100", "folder",
                                         "array", "sigmf", "radioml", "synth",    NULL};
static const char *const partitions[] = {"iid", "dirichlet", "shards", "quantity", NULL};
static const char *const precisions[] = {"f32", "bf16", NULL};

const char *const fst__layouts[] = {"auto", "nchw", "nhwc", NULL}; /* as fst_layout */

/* ---- data ------------------------------------------------------------------------------------ */

static const fst__field normalise_fields[] = {
    FST__F_DOUBLES(struct normalise_section, mean, mean_count, FST_MAX_CHANNELS, -1e6, 1e6, NULL,
                   "subtracted, one value or one a channel (of values scaled to 0 ... 1)", .required = true),
    FST__F_DOUBLES(struct normalise_section, std, std_count, FST_MAX_CHANNELS, 1e-9, 1e6, NULL,
                   "divided by, one value or one a channel", .required = true),
};

static bool check_normalise(const void *object, fst__complaint *c)
{
    const struct normalise_section *n = object;
    if (n->mean_count == n->std_count && n->mean_count > 0)
        return true;
    c->key = "std";
    snprintf(c->text, sizeof c->text, "must have as many values as mean (%zu), and at least one", n->mean_count);
    return false;
}

static const fst__schema normalise_schema =
    FST__SCHEMA(struct normalise_section, normalise_fields, .check = check_normalise);

static const fst__field data_fields[] = {
    FST__F_ENUM(struct data_section, source, fst__data_sources, "auto", "format of what stands at path"),
    FST__F_STRING(struct data_section, path, NULL, "file or folder; relative to the task's folder", .aside = true,
                  .when = {FST__WITHOUT("source", "synth")}),
    FST__F_STRING(struct data_section, obtain, NULL, "how the samples can be had, told when nothing stands at path",
                  .aside = true, .when = {FST__WITHOUT("source", "synth")}),
    FST__F_STRING(struct data_section, x, NULL, "name of the samples (default x)",
                  .when = {FST__WITH("source", "auto", "array")}),
    FST__F_STRING(struct data_section, y, NULL, "name of the labels (default y)",
                  .when = {FST__WITH("source", "auto", "array")}),
    FST__F_ENUM(struct data_section, layout, fst__layouts, "auto",
                "nchw (channels first) or nhwc (channels last, turned); auto: first, refused where they look last",
                .when = {FST__WITH("source", "auto", "array")}),
    FST__F_INT(struct data_section, classes, 0, FST_MAX_CLASSES, "0", "number of classes; 0: as the data show"),
    FST__F_INT(struct data_section, channels, 0, 3, "0", "1 or 3; 0: 3",
               .when = {FST__WITH("source", "auto", "folder")}),
    FST__F_INT(struct data_section, height, 0, 65535, "0", "height of the images; 0: as the first",
               .when = {FST__WITH("source", "auto", "folder")}),
    FST__F_INT(struct data_section, width, 0, 65535, "0", "width of the images; 0: as the first",
               .when = {FST__WITH("source", "auto", "folder")}),
    FST__F_INT(struct data_section, window, 0, MANY, "0", "complex samples a window; 0: as long as the annotations",
               .when = {FST__WITH("source", "auto", "sigmf")}),
    FST__F_INT(struct data_section, limit, 0, MANY, "0",
               "use only so many training samples of a path, and of its split val, of every class its share; 0: all"),
    FST__F_INT(struct data_section, test_limit, 0, MANY, "0",
               "use only so many test samples, of every class its share; 0: all"),
    FST__F_DOUBLE(
        struct data_section, public, 0, 0.9, "0",
        "share of the training samples that no stage trains on with labels: federated strategies that need public "
        "samples exchange what models say of them; with a topology, of the cloud's",
        .aside = true, .when = {FST__WITH_ANY("stages.federated_train")}),
    FST__F_DOUBLE(struct data_section, validation, 0, 0.9, "0",
                  "share of the training samples of every class, kept apart to choose the best epoch"),
    FST__F_DOUBLE(struct data_section, test, 0, 0.9, "0",
                  "share of the samples kept for testing, bursts whole; 0: the source's own test samples"),
    FST__F_BOOL(struct data_section, own_validation, "false", "validate on the source's own split val"),
    FST__F_STRINGS(
        struct data_section, edge_paths, edge_path_count, FST__MAX_EDGES, NULL,
        "each edge's own samples; missing: the training samples are dealt", .aside = true,
        .when = {FST__WITHOUT("source", "synth"), FST__WITH_ANY("topology"), FST__WITH_ANY("stages.federated_train")}),
    FST__F_OPTIONAL(struct data_section, synth, has_synth, &fst__synth_schema, "signals made once, into output/data",
                    .when = {FST__WITH("source", "synth")}),
    FST__F_OPTIONAL(struct data_section, normalise, has_normalise, &normalise_schema,
                    "mean and standard deviation; missing: as they are"),
    FST__F_INT(struct data_section, crop_padding, 0, 64, "0", "training: zero-pad images by so much and crop at random",
               .when = {FST__WITHOUT("source", "sigmf", "radioml", "synth")}),
    FST__F_BOOL(struct data_section, flip, "false", "training: mirror images left-right at random",
                .when = {FST__WITHOUT("source", "sigmf", "radioml", "synth")}),
    FST__F_BOOL(struct data_section, fingerprint, "false",
                "networks see the fingerprints of complex samples (2, L), not the samples; docs/signals.md"),
};

bool fst__is_synth(const struct data_section *d)
{
    return !strcmp(fst__data_sources[d->source], "synth");
}

static bool check_data(const void *object, fst__complaint *c)
{
    const struct data_section *d = object;
    bool synth = fst__is_synth(d);
    const char *why = NULL;
    if (!synth && !d->path)
        c->key = NULL, why = "path is required: the file or folder of the samples";
    else if (synth && !d->has_synth)
        c->key = "source", why = "is synth: the map synth says what to make, for instance synth: {windows: 10000}";
    else if (synth && d->test == 0)
        c->key = "synth", why = "made signals have no test samples of their own: set test, for instance test: 0.2";
    else if (d->own_validation && (synth || d->validation > 0))
        c->key = "own_validation", why = synth ? "made signals have no split val: set validation"
                                               : "and validation > 0 say different things: set one of them";
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    return !why;
}

static const fst__schema data_schema = FST__SCHEMA(struct data_section, data_fields, .check = check_data);

static const fst__field clients_fields[] = {
    FST__F_INT(struct clients_section, count, 1, 1000000, "10", "number of clients",
               .when = {FST__WITHOUT_ANY("partition_file")}),
    FST__F_ENUM(struct clients_section, partition, partitions, "iid", "how samples are dealt to clients",
                .when = {FST__WITHOUT_ANY("partition_file")}),
    FST__F_ABOVE(struct clients_section, alpha, 0, 1e6, "0.5", "small is uneven",
                 .when = {FST__WITH("partition", "dirichlet", "quantity"), FST__WITHOUT_ANY("partition_file")}),
    FST__F_INT(struct clients_section, classes_per_client, 1, FST_MAX_CLASSES, "2", "classes a client",
               .when = {FST__WITH("partition", "shards"), FST__WITHOUT_ANY("partition_file")}),
    FST__F_INT(struct clients_section, min_samples, 1, MANY, "1", "fewest samples of a client, in whole bursts",
               .when = {FST__WITHOUT_ANY("partition_file")}),
    FST__F_STRINGS(
        struct clients_section, models, model_count, 1000, NULL,
        "networks of the clients, for strategies that let them differ: one a client, or fewer, which are then "
        "taken in turn; \"4 mnist_student\" stands for four; missing: all have the stage's",
        .aside = true),
    FST__F_DOUBLE(struct clients_section, validation, 0, 0.9, "0",
                  "share of each client's samples that no stage learns from; its own model is measured on them",
                  .aside = true, .when = {FST__WITHOUT_ANY("partition_file")}),
    FST__F_STRING(struct clients_section, partition_file, NULL,
                  "who has which samples, as `fedstill data split --output` writes it; relative to the task's folder",
                  .aside = true),
};
static const fst__schema clients_schema = FST__SCHEMA(struct clients_section, clients_fields);

/* ---- the whole -------------------------------------------------------------------------------- */

static const fst__field checkpoint_fields[] = {
    FST__F_DOUBLE(struct checkpoint_section, seconds, 0, 1e6, "15", "between two checkpoints; 0: after every step",
                  .aside = true),
    FST__F_INT(struct checkpoint_section, steps, 0, MANY, "0", "also after so many steps; 0: by time only",
               .aside = true),
    FST__F_INT(
        struct checkpoint_section, client_memory, 0, MANY, "256",
        "megabytes that clients may keep in memory between rounds (their own models, control variates, moments); the "
        "rest goes to files",
        .aside = true),
};
static const fst__schema checkpoint_schema = FST__SCHEMA(struct checkpoint_section, checkpoint_fields);

static const fst__field task_fields[] = {
    FST__F_STRING(struct task_file, name, NULL, "what the task is called in reports", .required = true),
    FST__F_STRING(struct task_file, output, "output", "folder that the program owns; relative to the task's",
                  .aside = true),
    FST__F_INT(struct task_file, seed, 0, INT64_MAX, "0", "of every random stream"),
    FST__F_ENUM(struct task_file, precision, precisions, "f32",
                "of activations; bf16 where the processor has it, else f32", .aside = true),
    FST__F_BOOL(struct task_file, check_finite, "false",
                "slow: look at all values behind every kernel of a training step, and name the layer that spoils them",
                .aside = true),
    FST__F_MAP(struct task_file, data, &data_schema, "the samples", .required = true),
    FST__F_OPTIONAL(struct task_file, topology, has_topology, &fst__topology_schema,
                    "cloud, edges and devices, each with samples of its own; missing: one place, and clients"),
    FST__F_MAP(struct task_file, clients, &clients_schema, "how many clients, and who has which samples",
               .when = {FST__WITHOUT_ANY("topology"), FST__WITH_ANY("stages.federated_train")}),
    FST__F_MAP(struct task_file, checkpoint, &checkpoint_schema, "how often progress is saved", .aside = true),
    FST__F_NAMED(
        struct task_file, stages, stage_count, FST__MAX_STAGES, fst__kind_choice,
        "what is done, in this order, except that a stage runs after those that it reads; a setting that refers to "
        "a stage takes its name, or a kind of which the task has just one stage",
        .required = true),
};

/* What concerns several of the maps; every kind of stage says what is wrong with its own. */
static bool check_task(const void *object, fst__complaint *c)
{
    const struct task_file *f = object;
    struct stage_list stages;
    const char *why = NULL;
    if (f->data.edge_path_count && (!f->has_topology || (int64_t)f->data.edge_path_count != f->topology.edges)) {
        c->key = "topology";
        snprintf(c->text, sizeof c->text, "data.edge_paths names the samples of %zu edges: set topology: {edges: %zu}",
                 f->data.edge_path_count, f->data.edge_path_count);
        return false;
    }
    if (f->has_topology && f->data.own_validation && !f->data.edge_path_count && f->topology.cloud_share < 1)
        c->key = "data.own_validation",
        why = "a topology deals out the training samples: set validation: SHARE, not own_validation";
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    bool good = !why && fst__stage_list_init(&stages, f, c);
    if (!why)
        fst__stage_list_release(&stages);
    return good;
}

const fst__schema fst__task_schema = FST__SCHEMA(struct task_file, task_fields, .check = check_task);

/* ---- loading ----------------------------------------------------------------------------------- */

static fst_status find_file(const char *path, fst_task *t, fst_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return fst_fail(err, FST_E_CONFIG, "%s: no such task folder or file", path);
    if (S_ISDIR(st.st_mode)) {
        t->folder = fst_strdup(path);
        t->path = fst_path_join(path, "task.yaml");
    } else {
        const char *slash = strrchr(path, '/');
        t->path = fst_strdup(path);
        t->folder = fst_strdup(slash ? path : ".");
        if (t->folder && slash)
            t->folder[slash == path ? 1 : slash - path] = 0;
    }
    if (!t->folder || !t->path)
        return fst_fail_memory(err, strlen(path));
    if (!fst_file_exists(t->path) && !fst__stage_files_there(path))
        return fst_fail(err, FST_E_CONFIG,
                        "%s: no task.yaml in this folder, and no input/cloud_pretrain.json or the like", path);
    return FST_OK;
}

/* The text of the task file, or what the files of the stages amount to. */
static fst_status read_text(fst_task *t, fst_buf *text, fst__unused *unused, fst_error *err)
{
    if (!fst_file_exists(t->path)) {
        *unused = FST__UNUSED_WARNED; /* these files come from a system that takes every key */
        fst_free(t->path);
        t->path = fst_path_join(t->folder, "input");
        return t->path ? fst__stage_files_read(t->folder, text, err) : fst_fail_memory(err, strlen(t->folder));
    }
    fst_status s = fst_file_read(t->path, FST__YAML_MAX_BYTES, text, err);
    if (s != FST_E_LIMIT)
        return s;
    (void)fst_fail_in(err, s, "too large for a task file");
    return FST_E_CONFIG;
}

/* Reading has found them right. */
static fst_status list_stages(fst_task *t, fst_error *err)
{
    fst__complaint c = {0};
    if (fst__stage_list_init(&t->stages, &t->file, &c))
        return FST_OK;
    return c.text[0] ? fst_fail(err, FST_E_CONFIG, "%s: %s: %s", t->path, c.key ? c.key : "stages", c.text)
                     : fst_fail_memory(err, t->file.stage_count * sizeof(struct stage));
}

static fst_status load(fst_task **out, const char *path, const char *const *sets, size_t nsets, fst__unused unused,
                       fst_error *err)
{
    fst_buf text = {0};
    fst_task *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    fst_status s = find_file(path, t, err);
    if (!s)
        s = read_text(t, &text, &unused, err);
    if (!s)
        s = fst__schema_load_as(&fst__task_schema, t->path, text.data ? text.data : "", text.len, sets, nsets, unused,
                                &t->file, err);
    if (!s)
        s = list_stages(t, err);
    if (!s && !(t->output = fst_path_join(t->folder, t->file.output)))
        s = fst_fail_memory(err, strlen(t->folder));
    fst_buf_release(&text);
    if (s) {
        fst_task_free(t);
        return s;
    }
    *out = t;
    return FST_OK;
}

fst_status fst_task_load(fst_task **out, const char *path, const char *const *sets, size_t nsets, fst_error *err)
{
    return load(out, path, sets, nsets, FST__UNUSED_REFUSED, err);
}

fst_status fst_task_load_kept(fst_task **out, const char *path, fst_error *err)
{
    return load(out, path, NULL, 0, FST__UNUSED_IGNORED, err);
}

void fst_task_free(fst_task *t)
{
    if (!t)
        return;
    fst__stage_list_release(&t->stages);
    fst__schema_release(&fst__task_schema, &t->file);
    fst_free(t->folder);
    fst_free(t->path);
    fst_free(t->output);
    fst_free(t);
}

const char *fst_task_name(const fst_task *t)
{
    return t->file.name;
}

const char *fst_task_output(const fst_task *t)
{
    return t->output;
}

fst_status fst_task_dump(const fst_task *t, fst_buf *out, fst_error *err)
{
    return fst__schema_dump(&fst__task_schema, &t->file, out, err);
}

fst_status fst_task_reference(fst_buf *out, fst_error *err)
{
    fst_status st = fst__schema_reference(&fst__task_schema, "Task file", 1, out, err);
    return st ? st : fst__strategy_reference(out, err);
}
