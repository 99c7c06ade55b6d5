/* The tables of distillation's own maps. Which stage has them, and what must hold between them, is task_file.c. */
#include <stdio.h>

#include "distil_file.h"

static const char *const ramps[] = {"linear", "cosine", "step", "accuracy", NULL};

static const fst__field ramp_fields[] = {
    FST__F_ENUM(struct ramp_section, name, ramps, "linear",
                "how the value gets there; accuracy: as the student's validation accuracy rises"),
    FST__F_DOUBLE(struct ramp_section, from, 0, 1e6, NULL, "the value of the first epoch", .required = true),
    FST__F_INT(struct ramp_section, over, 0, 1000000, "0", "epochs that it takes; 0: all of them",
               .when = {FST__WITH("name", "linear", "cosine")}),
    FST__F_INTS(struct ramp_section, milestones, milestone_count, FST_MAX_MILESTONES, 1, 1000000, NULL,
                "epochs after which the value jumps, in equal steps", .when = {FST__WITH("name", "step")}),
    FST__F_DOUBLE(struct ramp_section, low, 0, 1, "0", "accuracy up to which the value is still the first",
                  .when = {FST__WITH("name", "accuracy")}),
    FST__F_DOUBLE(struct ramp_section, high, 0, 1, "1", "accuracy from which on it is the last",
                  .when = {FST__WITH("name", "accuracy")}),
};

static bool check_ramp(const void *object, fst__complaint *c)
{
    const struct ramp_section *r = object;
    if (r->name == FST_RAMP_STEP && !r->milestone_count) {
        c->key = "name";
        snprintf(c->text, sizeof c->text, "step needs milestones, for instance milestones: [5, 10]");
    } else if (r->over == 1) {
        c->key = "over";
        snprintf(c->text, sizeof c->text,
                 "the first of 1 epoch has the last value already: set 2 or more, or 0 for all");
    } else if (r->name == FST_RAMP_ACCURACY && !(r->low < r->high)) {
        c->key = "high";
        snprintf(c->text, sizeof c->text, "must be above low (%g)", r->low);
    }
    return !c->key;
}

const fst__schema fst__ramp_schema = FST__SCHEMA(struct ramp_section, ramp_fields, .check = check_ramp);

static const fst__field curriculum_fields[] = {
    FST__F_ABOVE(struct curriculum_section, t_start, 0, 1000, "1", "the temperature is above it"),
    FST__F_ABOVE(struct curriculum_section, t_end, 0, 1000, "20", "and below t_start + t_end"),
    FST__F_INT(struct curriculum_section, over, 0, 1000000, "10",
               "epochs until it works against the student with its whole strength"),
};
const fst__schema fst__curriculum_schema = FST__SCHEMA(struct curriculum_section, curriculum_fields);

static const fst__field fitnet_fields[] = {
    FST__F_STRING(struct fitnet_section, student, NULL,
                  "layer of the student, as `fedstill model info` names it, or the beginning of such names: layer2",
                  .required = true),
    FST__F_STRING(struct fitnet_section, teacher, NULL, "layer of the teacher, with as many positions",
                  .required = true),
    FST__F_ABOVE(struct fitnet_section, weight, 0, 1e9, "100", "of the mean squared difference"),
};
const fst__schema fst__fitnet_schema = FST__SCHEMA(struct fitnet_section, fitnet_fields);

static const fst__field attention_fields[] = {
    FST__F_STRINGS(struct attention_section, student, student_count, FST__ATTENTION_LAYERS, NULL,
                   "layers of the student, as in fitnet", .required = true),
    FST__F_STRINGS(struct attention_section, teacher, teacher_count, FST__ATTENTION_LAYERS, NULL,
                   "as many layers of the teacher, each with the height and width of the student's", .required = true),
    FST__F_ABOVE(struct attention_section, weight, 0, 1e9, "1000", "of the mean squared difference of each pair"),
};

static bool check_attention(const void *object, fst__complaint *c)
{
    const struct attention_section *a = object;
    if (a->student_count == a->teacher_count && a->student_count > 0)
        return true;
    c->key = "teacher";
    snprintf(c->text, sizeof c->text, "names %zu layers, student names %zu: they are compared in pairs",
             a->teacher_count, a->student_count);
    return false;
}

const fst__schema fst__attention_schema =
    FST__SCHEMA(struct attention_section, attention_fields, .check = check_attention);

static const char *const peers_learn[] = {"mutual", "alone", NULL};

static const fst__field online_fields[] = {
    FST__F_STRINGS(struct online_section, peers, peer_count, FST__MAX_PEERS, NULL,
                   "networks that are trained along with the student, on the same batches; several may be alike",
                   .required = true),
    FST__F_ENUM(struct online_section, learn, peers_learn, "mutual",
                "mutual: each learns as the student does, from the others; alone: from the labels only, a teacher that "
                "grows with its student"),
};

static bool check_online(const void *object, fst__complaint *c)
{
    if (((const struct online_section *)object)->peer_count > 0)
        return true;
    c->key = "peers";
    snprintf(c->text, sizeof c->text, "is empty: name at least one network");
    return false;
}

const fst__schema fst__online_schema = FST__SCHEMA(struct online_section, online_fields, .check = check_online);

static const fst__field iterated_fields[] = {
    FST__F_ABOVE(struct iterated_section, part_a, 0, 0.99, "0.5",
                 "share of the samples that is learnt first, by labels"),
    FST__F_ABOVE(struct iterated_section, part_b, 0, 1, "0.5", "share of the others that is drawn for each round"),
    FST__F_INT(struct iterated_section, rounds, 1, 10000, "10", "rounds at most"),
    FST__F_INT(struct iterated_section, patience, 1, 10000, "1",
               "rounds without a better validation accuracy at their end after which it is over"),
};
const fst__schema fst__iterated_schema = FST__SCHEMA(struct iterated_section, iterated_fields);
