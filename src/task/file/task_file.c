/* The task file's tables: keys, limits, defaults, one line of help each. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "stage_files.h"
#include "task_file.h"

#define MANY INT64_C(1000000000)

const char *const fst__data_sources[] = {"auto",  "idx",   "cifar10", "cifar100", "folder",
                                         "array", "sigmf", "radioml", "synth",    NULL};
static const char *const partitions[] = {"iid", "dirichlet", "shards", "quantity", NULL};
static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
const char *const fst__schedule_names[] = {"constant", "cosine", "multistep", "step", "warmup_cosine", NULL};
static const char *const contents[] = {"auto", "probabilities", "logits", NULL};
static const char *const encodings[] = {"f32", "f16", "top_k", NULL};
static const char *const kd_losses[] = {"kl",           "cross_entropy", "mse_logits", "mse_probabilities",
                                        "standardised", "dkd",           NULL};
static const char *const stop_metrics[] = {"accuracy", "macro_f1", "loss", NULL};
static const char *const selections[] = {"best", "last", NULL};
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
    FST__F_STRING(struct clients_section, partition_file, NULL,
                  "who has which samples, as `fedstill data split --output` writes it; relative to the task's folder",
                  .aside = true),
};
static const fst__schema clients_schema = FST__SCHEMA(struct clients_section, clients_fields);

/* ---- training -------------------------------------------------------------------------------- */

static const fst__field optimizer_fields[] = {
    FST__F_ENUM(struct optimizer_section, name, optimizers, "adam", "update rule"),
    FST__F_ABOVE(struct optimizer_section, learning_rate, 0, 1000, "0.001", "step size"),
    FST__F_DOUBLE(struct optimizer_section, weight_decay, 0, 10, "0", "L2 for sgd and adam, decoupled for adamw"),
    FST__F_DOUBLE(struct optimizer_section, momentum, 0, 0.9999, "0", "of the gradients",
                  .when = {FST__WITH("name", "sgd")}),
    FST__F_BOOL(struct optimizer_section, nesterov, "false", "Nesterov's momentum",
                .when = {FST__WITH("name", "sgd"), FST__WITH_ANY("momentum")}),
    FST__F_ABOVE(struct optimizer_section, beta1, 0, 0.999999, "0.9", "decay of the mean of the gradients",
                 .when = {FST__WITH("name", "adam", "adamw")}),
    FST__F_ABOVE(struct optimizer_section, beta2, 0, 0.999999, "0.999", "decay of the mean of the squared gradients",
                 .when = {FST__WITH("name", "adam", "adamw")}),
    FST__F_ABOVE(struct optimizer_section, eps, 0, 1, "1e-8", "added to the root of that mean",
                 .when = {FST__WITH("name", "adam", "adamw")}),
};
static const fst__schema optimizer_schema =
    FST__SCHEMA(struct optimizer_section, optimizer_fields, .shorthand = "name");

static const fst__field schedule_fields[] = {
    FST__F_ENUM(struct schedule_section, name, fst__schedule_names, "constant", "how the rate changes over the epochs"),
    FST__F_DOUBLE(struct schedule_section, eta_min, 0, 1000, "0", "the lowest rate",
                  .when = {FST__WITH("name", "cosine", "warmup_cosine")}),
    FST__F_ABOVE(struct schedule_section, gamma, 0, 1, "0.1", "the factor",
                 .when = {FST__WITH("name", "multistep", "step")}),
    FST__F_INT(struct schedule_section, warmup, 0, MANY, "5", "epochs of rising",
               .when = {FST__WITH("name", "warmup_cosine")}),
    FST__F_INT(struct schedule_section, step_size, 1, MANY, "30", "epochs between two steps",
               .when = {FST__WITH("name", "step")}),
    FST__F_INTS(struct schedule_section, milestones, milestone_count, FST_MAX_MILESTONES, 1, MANY, NULL,
                "epochs after which the rate is multiplied by the factor", .when = {FST__WITH("name", "multistep")}),
};

static bool check_schedule(const void *object, fst__complaint *c)
{
    const struct schedule_section *s = object;
    if (s->name != FST_SCHEDULE_MULTISTEP || s->milestone_count)
        return true;
    c->key = "name";
    snprintf(c->text, sizeof c->text, "multistep needs milestones, for instance milestones: [30, 60]");
    return false;
}

static const fst__schema schedule_schema =
    FST__SCHEMA(struct schedule_section, schedule_fields, .shorthand = "name", .check = check_schedule);

static const fst__field early_stopping_fields[] = {
    FST__F_INT(struct early_stopping_section, patience, 1, 1000000, "5",
               "epochs without a better one after which training stops"),
    FST__F_DOUBLE(struct early_stopping_section, min_delta, 0, 1e6, "0", "a better one is better by more than this"),
    FST__F_ENUM(struct early_stopping_section, metric, stop_metrics, "accuracy",
                "what is compared, on the validation samples"),
};
static const fst__schema early_stopping_schema =
    FST__SCHEMA(struct early_stopping_section, early_stopping_fields, .shorthand = "patience");

/* Of a struct with a member `weights`. */
#define CLASS_WEIGHTS(T, whose)                                                                                \
    {                                                                                                          \
        .key = "class_weights",                                                                                \
        .help = "weight of each class in the hard labels' cross entropy, whose mean over a batch is then the " \
                "weighted one, as in PyTorch; balanced: n / (classes * n_c) of " whose                         \
                ", over the classes with samples (one without: 1)",                                            \
        .type = FST__TYPE_DOUBLE, .list = true, .offset = FST__AT(T, weights.weight, double *),                \
        .count_at = FST__AT(T, weights.count, size_t), .count_max = FST_MAX_CLASSES, .min = 0, .max = 1e6,     \
        FST__OR_WORD(T, "balanced", weights.balanced)                                                          \
    }

/* `at` reaches the struct training inside a stage's struct. */
#define TRAINING_FIELDS(default_epochs)                                                                      \
    FST__F_STRING(struct training, model, NULL,                                                              \
                  "network, as `fedstill model list` names it, and its options: mobilenet_v2 width=0.5",     \
                  .required = true),                                                                         \
        FST__F_STRING(struct training, init, NULL,                                                           \
                      "model file to start from, relative to the task's folder; missing: random weights",    \
                      .aside = true),                                                                        \
        FST__F_INT(struct training, epochs, 1, 1000000, default_epochs, "passes over the data"),             \
        FST__F_INT(struct training, batch_size, 1, 65536, "128", "samples a step"),                          \
        FST__F_BOOL(struct training, drop_last, "false", "leave out a last batch that is not full"),         \
        FST__F_MAP(struct training, optimizer, &optimizer_schema, "update rule and its numbers"),            \
        FST__F_MAP(struct training, schedule, &schedule_schema, "learning rate by epoch"),                   \
        FST__F_OPTIONAL(struct training, early_stopping, has_early_stopping, &early_stopping_schema,         \
                        "stops when epochs get no better on the validation samples; the best one is kept"),  \
        FST__F_DOUBLE(struct training, clip_norm, 0, 1e6, "0", "largest norm of the gradient; 0: no limit"), \
        FST__F_DOUBLE(struct training, label_smoothing, 0, 0.999, "0", "of the hard labels"),                \
        CLASS_WEIGHTS(struct training, "the samples that the stage learns from")

static const fst__field pretrain_fields[] = {TRAINING_FIELDS("5")};
const fst__schema fst__training_schema = FST__SCHEMA(struct training, pretrain_fields);

static const fst__field cloud_kd_fields[] = {
    FST__F_STRING(struct cloud_kd_section, teacher, NULL,
                  "model file that teaches, relative to the task's folder; missing: the model of cloud_pretrain",
                  .aside = true),
    FST__F_ABOVE(struct cloud_kd_section, temperature, 0, 1000, "4", "of the teacher's softmax"),
    FST__F_ENUM(struct cloud_kd_section, content, contents, "auto", "what is kept; auto: what edge_kd.kd_loss needs"),
    FST__F_ENUM(struct cloud_kd_section, encoding, encodings, "f32", "how it is kept"),
    FST__F_INT(struct cloud_kd_section, top_k, 1, FST_MAX_CLASSES, "5", "classes kept a sample",
               .when = {FST__WITH("encoding", "top_k")}),
};
static const fst__schema cloud_kd_schema = FST__SCHEMA(struct cloud_kd_section, cloud_kd_fields);

static const fst__field dkd_fields[] = {
    FST__F_DOUBLE(struct dkd_section, alpha, 0, 1e6, "1", "weight of the label against all others (TCKD)"),
    FST__F_DOUBLE(struct dkd_section, beta, 0, 1e6, "8", "weight of the others among themselves (NCKD)"),
    FST__F_INT(struct dkd_section, warmup_epochs, 0, MANY, "0",
               "kd_weight rises linearly over so many epochs; the paper has 20 of 240"),
};

static bool check_dkd(const void *object, fst__complaint *c)
{
    const struct dkd_section *d = object;
    if (d->alpha > 0 || d->beta > 0)
        return true;
    c->key = "beta";
    snprintf(c->text, sizeof c->text, "is 0, as alpha is: nothing is left of the loss");
    return false;
}

static const fst__schema dkd_schema = FST__SCHEMA(struct dkd_section, dkd_fields, .check = check_dkd);

static const fst__field edge_kd_fields[] = {
    TRAINING_FIELDS("5"),
    FST__F_DOUBLE(
        struct edge_kd_section, temperature, 0, 1000, "0", "of both softmaxes; 0: cloud_kd's",
        .when = {FST__WITH("kd_loss", "kl", "cross_entropy", "standardised", "dkd"), FST__WITH_ANY("kd_weight")}),
    FST__F_DOUBLE(struct edge_kd_section, ce_weight, 0, 1e6, "0.3", "weight of the hard labels' cross entropy"),
    FST__F_DOUBLE(struct edge_kd_section, kd_weight, 0, 1e6, "0.7", "weight of the distillation loss"),
    FST__F_ENUM(struct edge_kd_section, kd_loss, kd_losses, "kl",
                "distillation loss; mse_logits, standardised and dkd take the teacher's logits",
                .when = {FST__WITH_ANY("kd_weight")}),
    FST__F_MAP(struct edge_kd_section, dkd, &dkd_schema, "the weights of the parts of the loss",
               .when = {FST__WITH("kd_loss", "dkd"), FST__WITH_ANY("kd_weight")}),
    FST__F_OPTIONAL(
        struct edge_kd_section, temperature_schedule, has_temperature_schedule, &fst__ramp_schema,
        "the temperature moves to `temperature` over the epochs; soft labels are then logits; missing: constant",
        .when = {FST__WITH("kd_loss", "kl", "cross_entropy", "standardised", "dkd"), FST__WITH_ANY("kd_weight")}),
    FST__F_OPTIONAL(struct edge_kd_section, ce_weight_schedule, has_ce_weight_schedule, &fst__ramp_schema,
                    "the same of ce_weight"),
    FST__F_OPTIONAL(struct edge_kd_section, kd_weight_schedule, has_kd_weight_schedule, &fst__ramp_schema,
                    "the same of kd_weight", .when = {FST__WITH_ANY("kd_weight")}),
    FST__F_BOOL(struct edge_kd_section, baseline, "false",
                "also train the student alone: same epochs, hard labels only", .aside = true),
};
/* The shared fields' offsets are those of struct training, which must therefore come first. */
_Static_assert(offsetof(struct edge_kd_section, training) == 0, "training comes first");

static bool check_edge_kd(const void *object, fst__complaint *c)
{
    const struct edge_kd_section *e = object;
    const char *why = NULL;
    if (e->has_temperature_schedule && !(e->temperature_schedule.from > 0))
        c->key = "temperature_schedule.from", why = "must be above 0";
    else if (e->has_temperature_schedule && e->temperature_schedule.from == e->temperature)
        c->key = "temperature_schedule.from", why = "is what temperature is: nothing would change";
    else if (e->has_ce_weight_schedule && e->ce_weight_schedule.from == e->ce_weight)
        c->key = "ce_weight_schedule.from", why = "is what ce_weight is: nothing would change";
    else if (e->has_kd_weight_schedule && e->kd_weight_schedule.from == e->kd_weight)
        c->key = "kd_weight_schedule.from", why = "is what kd_weight is: nothing would change";
    else if (e->has_kd_weight_schedule && e->kd_loss == FST_KD_DKD && e->dkd.warmup_epochs)
        c->key = "kd_weight_schedule", why = "and dkd.warmup_epochs both move kd_weight: set one of them";
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    return !why;
}

static const fst__schema edge_kd_schema = FST__SCHEMA(struct edge_kd_section, edge_kd_fields, .check = check_edge_kd);

bool fst__student_takes_logits(const struct edge_kd_section *e)
{
    return fst_kd_takes_logits((fst_kd_form)e->kd_loss) || e->has_temperature_schedule;
}

/* The fields that every strategy has; after them comes room for those of the strategies' own options. */
enum { FEDERATED_FIELDS = 16 };
static fst__field federated_fields[FEDERATED_FIELDS + FST__OPTIONS] = {
    FST__F_STRING(struct federated_section, model, NULL, "network; missing: edge_kd's"),
    FST__F_ENUM(struct federated_section, strategy, fst__strategy_names, "fedavg", "what is sent and how it is joined"),
    FST__F_INT(struct federated_section, rounds, 1, 1000000, "10", "rounds"),
    FST__F_INT(struct federated_section, local_epochs, 1, 100000, "1", "epochs of a client in a round"),
    FST__F_INT(struct federated_section, batch_size, 1, 65536, "32", "samples a step"),
    FST__F_BOOL(struct federated_section, drop_last, "false",
                "leave out a client's last batch that is not full; every client needs a full one"),
    FST__F_INT(struct federated_section, clients_per_round, 0, 1000000, "0", "drawn for a round; 0: by fraction"),
    FST__F_ABOVE(struct federated_section, fraction, 0, 1, "1", "share of the clients drawn for a round",
                 .when = {FST__WITHOUT_ANY("clients_per_round")}),
    FST__F_INT(struct federated_section, quorum, 0, 1000000, "0", "fewest updates of a round; 0: one"),
    FST__F_DOUBLE(struct federated_section, clip_norm, 0, 1e6, "0", "largest norm of a gradient; 0: no limit"),
    CLASS_WEIGHTS(struct federated_section, "each client's own samples"),
    FST__F_MAP(struct federated_section, optimizer, &optimizer_schema, "of the clients; fresh in every round"),
    FST__F_OPTIONAL(struct federated_section, schedule, has_schedule, &schedule_schema,
                    "learning rate of the clients by round: rounds stand for epochs; missing: constant"),
    FST__F_STRING(struct federated_section, init, "edge_kd",
                  "the model that the rounds start from: edge_kd, edge_alone, cloud_pretrain, random or a model file, "
                  "relative to the task's folder"),
    FST__F_ENUM(struct federated_section, select, selections, "last",
                "the round whose model is kept; best: by the edges' validation samples, after aggregation"),
    FST__F_INT(struct federated_section, evaluate_every, 1, 1000000, "1", "rounds between two evaluations",
               .aside = true),
};
static fst__schema federated_schema = FST__SCHEMA(struct federated_section, federated_fields);

static __attribute__((constructor)) void add_strategy_options(void)
{
    size_t at = 0;
    while (federated_fields[at].key)
        at++;
    federated_schema.count =
        at + fst__strategy_fields(federated_fields + at, offsetof(struct federated_section, options));
}

/* ---- the whole -------------------------------------------------------------------------------- */

static const fst__field stages_fields[] = {
    FST__F_OPTIONAL(struct stages_section, cloud_pretrain, has_cloud_pretrain, &fst__training_schema,
                    "the teacher, on all training data"),
    FST__F_OPTIONAL(struct stages_section, cloud_kd, has_cloud_kd, &cloud_kd_schema, "the teacher's soft labels"),
    FST__F_OPTIONAL(struct stages_section, edge_kd, has_edge_kd, &edge_kd_schema,
                    "the student, from soft and hard labels"),
    FST__F_OPTIONAL(struct stages_section, federated_train, has_federated_train, &federated_schema,
                    "rounds over the clients' own data"),
    FST__F_OPTIONAL(struct stages_section, device_load, has_device_load, &fst__device_load_schema,
                    "the devices' shares of the test samples, in batches"),
    FST__F_OPTIONAL(struct stages_section, edge_infer, has_edge_infer, &fst__edge_infer_schema,
                    "the student answers what it is sure of"),
    FST__F_OPTIONAL(struct stages_section, cloud_infer, has_cloud_infer, &fst__cloud_infer_schema,
                    "the teacher answers the rest"),
    FST__F_OPTIONAL(struct stages_section, cloud_direct_infer, has_cloud_direct_infer, &fst__cloud_direct_schema,
                    "the teacher answers everything, for comparison"),
};

/* Are the soft labels what the student's loss takes? */
static bool soft_complaint(const struct stages_section *s, fst__complaint *c)
{
    const struct cloud_kd_section *k = &s->cloud_kd;
    bool student = s->has_edge_kd && s->edge_kd.kd_weight > 0;
    bool wanted = student && fst__student_takes_logits(&s->edge_kd), logits = k->content == 2;
    bool moves = student && s->edge_kd.has_temperature_schedule;
    if (!s->has_cloud_kd)
        return false;
    if (k->encoding == FST_SOFT_TOP_K && (logits || (k->content == 0 && wanted))) {
        c->key = "cloud_kd.top_k";
        snprintf(c->text, sizeof c->text, "encoding top_k cannot hold logits, which %s: set encoding: f16",
                 logits  ? "content asks for"
                 : moves ? "edge_kd.temperature_schedule takes"
                         : "edge_kd.kd_loss takes");
        return true;
    }
    if (!student || k->content == 0 || logits == wanted)
        return false;
    c->key = "cloud_kd.content";
    snprintf(c->text, sizeof c->text, "is %s, edge_kd.%s%s takes %s: leave content out", contents[k->content],
             moves ? "temperature_schedule" : "kd_loss ", moves ? "" : kd_losses[s->edge_kd.kd_loss],
             contents[wanted ? 2 : 1]);
    return true;
}

static bool check_stages(const void *object, fst__complaint *c)
{
    const struct stages_section *s = object;
    const char *why = NULL;
    if (s->has_cloud_kd && !s->has_cloud_pretrain && !s->cloud_kd.teacher)
        c->key = "cloud_kd", why = "needs the stage cloud_pretrain (the teacher), or teacher: FILE";
    else if (s->has_edge_kd && s->edge_kd.kd_weight > 0 && !s->has_cloud_kd)
        c->key = "edge_kd", why = "needs the stage cloud_kd (the soft labels), or kd_weight: 0";
    else if (s->has_edge_kd && s->edge_kd.kd_weight == 0 && s->edge_kd.ce_weight == 0 &&
             !s->edge_kd.has_ce_weight_schedule)
        c->key = "edge_kd.kd_weight", why = "ce_weight and kd_weight are both 0: nothing to learn from";
    else if (s->has_edge_kd && s->edge_kd.ce_weight == 0 && !s->edge_kd.has_ce_weight_schedule &&
             !s->edge_kd.baseline && fst__weighs_classes(&s->edge_kd.training.weights))
        c->key = "edge_kd.class_weights",
        why = "has no effect: ce_weight is 0, and there is no baseline that learns hard labels";
    else if (s->has_edge_kd && s->has_cloud_kd && s->edge_kd.temperature != 0 &&
             s->edge_kd.temperature != s->cloud_kd.temperature && !fst__student_takes_logits(&s->edge_kd) &&
             s->edge_kd.kd_loss < FST_KD_MSE_LOGITS)
        c->key = "edge_kd.temperature",
        why = "differs from cloud_kd's temperature: soft labels and student need the same one";
    else if (s->has_edge_kd && s->has_cloud_kd && s->edge_kd.kd_loss == FST_KD_MSE_PROBABILITIES &&
             s->cloud_kd.temperature != 1)
        c->key = "cloud_kd.temperature",
        why = "must be 1: edge_kd.kd_loss mse_probabilities compares at that temperature";
    else if (soft_complaint(s, c))
        return false;
    else if (s->has_federated_train && !s->federated_train.model && !s->has_edge_kd)
        c->key = "federated_train", why = "needs a model, or the stage edge_kd to take it from";
    else if (s->has_federated_train && !strcmp(s->federated_train.init, "edge_alone") &&
             !(s->has_edge_kd && s->edge_kd.baseline))
        c->key = "federated_train", why = "init: edge_alone needs edge_kd.baseline: true";
    else if (s->has_federated_train && !strcmp(s->federated_train.init, "edge_kd") && !s->has_edge_kd)
        c->key = "federated_train", why = "init: edge_kd needs that stage; or set init: random";
    else if (s->has_federated_train && !strcmp(s->federated_train.init, "cloud_pretrain") && !s->has_cloud_pretrain)
        c->key = "federated_train", why = "init: cloud_pretrain needs that stage; or set init: random";
    if (!why)
        why = fst__infer_complaint(s, &c->key);
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    return !why;
}

static const fst__schema stages_schema = FST__SCHEMA(struct stages_section, stages_fields, .check = check_stages);

static const fst__field checkpoint_fields[] = {
    FST__F_DOUBLE(struct checkpoint_section, seconds, 0, 1e6, "15", "between two checkpoints; 0: after every step",
                  .aside = true),
    FST__F_INT(struct checkpoint_section, steps, 0, MANY, "0", "also after so many steps; 0: by time only",
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
    FST__F_MAP(struct task_file, stages, &stages_schema, "what is done; stages that are missing are not",
               .required = true),
};

/* Can a round draw as many clients as it needs? */
static bool cohort_complaint(const struct task_file *f, fst__complaint *c)
{
    const struct federated_section *t = &f->stages.federated_train;
    int64_t clients = f->has_topology ? f->topology.edges : f->clients.count;
    int64_t drawn = t->clients_per_round ? t->clients_per_round : (int64_t)floor(t->fraction * (double)clients + 0.5);
    drawn = drawn < 1 ? 1 : drawn;
    if (drawn > clients) {
        c->key = "stages.federated_train.clients_per_round";
        snprintf(c->text, sizeof c->text, "is %lld, there are %lld clients", (long long)drawn, (long long)clients);
    } else if (t->quorum > drawn) {
        c->key = "stages.federated_train.quorum";
        snprintf(c->text, sizeof c->text, "is %lld, a round draws %lld of the %lld clients", (long long)t->quorum,
                 (long long)drawn, (long long)clients);
    }
    return c->key != NULL;
}

static bool stops_early(const struct task_file *f, const char **key)
{
    bool teacher = f->stages.has_cloud_pretrain && f->stages.cloud_pretrain.has_early_stopping;
    *key = teacher ? "stages.cloud_pretrain.early_stopping" : "stages.edge_kd.early_stopping";
    bool stops = teacher || (f->stages.has_edge_kd && f->stages.edge_kd.training.has_early_stopping);
    if (!stops)
        *key = NULL;
    return stops;
}

/* A schedule that follows an accuracy which nobody measures. */
static bool follows_accuracy(const struct edge_kd_section *e, const char **key)
{
    const struct {
        bool there;
        const struct ramp_section *r;
        const char *key;
    } all[] = {{e->has_temperature_schedule, &e->temperature_schedule, "stages.edge_kd.temperature_schedule"},
               {e->has_ce_weight_schedule, &e->ce_weight_schedule, "stages.edge_kd.ce_weight_schedule"},
               {e->has_kd_weight_schedule, &e->kd_weight_schedule, "stages.edge_kd.kd_weight_schedule"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].there && all[i].r->name == FST_RAMP_ACCURACY) {
            *key = all[i].key;
            return true;
        }
    return false;
}

/* What concerns several of the maps. */
static bool check_task(const void *object, fst__complaint *c)
{
    const struct task_file *f = object;
    const struct federated_section *t = &f->stages.federated_train;
    bool federated = f->stages.has_federated_train;
    if (f->data.edge_path_count && (!f->has_topology || (int64_t)f->data.edge_path_count != f->topology.edges)) {
        c->key = "topology";
        snprintf(c->text, sizeof c->text, "data.edge_paths names the samples of %zu edges: set topology: {edges: %zu}",
                 f->data.edge_path_count, f->data.edge_path_count);
        return false;
    }
    const char *why = NULL;
    if (!f->data.own_validation && f->data.validation == 0 && stops_early(f, &c->key)) {
        snprintf(c->text, sizeof c->text, "needs samples to judge epochs by: set data.validation");
        return false;
    }
    if (!f->data.own_validation && f->data.validation == 0 && f->stages.has_edge_kd &&
        follows_accuracy(&f->stages.edge_kd, &c->key)) {
        snprintf(c->text, sizeof c->text, "follows the validation accuracy: set data.validation");
        return false;
    }
    if (f->has_topology && f->data.own_validation && !f->data.edge_path_count && f->topology.cloud_share < 1)
        c->key = "data.own_validation",
        why = "a topology deals out the training samples: set validation: SHARE, not own_validation";
    else if (f->has_topology && federated && f->topology.cloud_share >= 1 && !f->data.edge_path_count)
        c->key = "topology.cloud_share", why = "is 1: the edges have nothing to train on in federated_train";
    else if (f->has_topology && federated && (t->clients_per_round || t->fraction < 1))
        c->key = t->clients_per_round ? "stages.federated_train.clients_per_round" : "stages.federated_train.fraction",
        why = "with a topology all edges take part in every round: leave it out";
    else if (federated && t->select == 0 && !f->has_topology)
        c->key = "stages.federated_train.select", why = "best needs a topology, whose edges keep samples for it";
    else if (federated && t->select == 0 && !f->data.own_validation && f->data.validation == 0)
        c->key = "stages.federated_train.select", why = "best needs samples to choose by: set data.validation";
    else if (federated && cohort_complaint(f, c))
        return false;
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    return !why;
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
    return fst__schema_reference(&fst__task_schema, "Task file", 1, out, err);
}
