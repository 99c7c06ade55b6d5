/* The task file's tables for training one model: what stages that train share. Keys, limits, defaults, help. */
#include <stdio.h>
#include <string.h>

#include "training_file.h"

static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
const char *const fst__schedule_names[] = {"constant", "cosine", "multistep", "step", "warmup_cosine", NULL};
static const char *const stop_metrics[] = {"accuracy", "macro_f1", "loss", NULL};

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
const fst__schema fst__optimizer_schema = FST__SCHEMA(struct optimizer_section, optimizer_fields, .shorthand = "name");

static const fst__field schedule_fields[] = {
    FST__F_ENUM(struct schedule_section, name, fst__schedule_names, "constant", "how the rate changes over the epochs"),
    FST__F_DOUBLE(struct schedule_section, eta_min, 0, 1000, "0", "the lowest rate",
                  .when = {FST__WITH("name", "cosine", "warmup_cosine")}),
    FST__F_ABOVE(struct schedule_section, gamma, 0, 1, "0.1", "the factor",
                 .when = {FST__WITH("name", "multistep", "step")}),
    FST__F_INT(struct schedule_section, warmup, 0, FST__MANY, "5", "epochs of rising",
               .when = {FST__WITH("name", "warmup_cosine")}),
    FST__F_INT(struct schedule_section, step_size, 1, FST__MANY, "30", "epochs between two steps",
               .when = {FST__WITH("name", "step")}),
    FST__F_INTS(struct schedule_section, milestones, milestone_count, FST_MAX_MILESTONES, 1, FST__MANY, NULL,
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

const fst__schema fst__schedule_schema =
    FST__SCHEMA(struct schedule_section, schedule_fields, .shorthand = "name", .check = check_schedule);

static const fst__field early_stopping_fields[] = {
    FST__F_INT(struct early_stopping_section, patience, 1, 1000000, "5",
               "epochs without a better one after which training stops"),
    FST__F_DOUBLE(struct early_stopping_section, min_delta, 0, 1e6, "0", "a better one is better by more than this"),
    FST__F_ENUM(struct early_stopping_section, metric, stop_metrics, "accuracy",
                "what is compared, on the validation samples"),
};
const fst__schema fst__early_stopping_schema =
    FST__SCHEMA(struct early_stopping_section, early_stopping_fields, .shorthand = "patience");

const char *const fst__quantise_forms[] = {"int8", NULL};

static const fst__field training_fields[] = {TRAINING_FIELDS("5")};
const fst__schema fst__training_schema = FST__SCHEMA(struct training, training_fields);
