/* The tables of a fusion's settings. Which stage has them, and what must hold between them and the rest, is the stage's
 * affair. */
#include <stdio.h>
#include <string.h>

#include "fusion_file.h"

static const char *const learns[] = {"adapter", "gate", "nothing", NULL};
static const char *const schedules[] = {"cosine", "constant", NULL};
const char *const fst__fusion_learns_from[] = {"average", "public", NULL};

#define LEARNS FST__WITH("learns", "adapter", "gate")
#define FUSION_FIELDS                                                                                                 \
    FST__F_STRING(struct fusion_section, teacher, NULL,                                                               \
                  "the large model: a stage that leaves one, a model file, relative to the task's folder, or random " \
                  "weights (random)",                                                                                 \
                  .required = true, .aside = true),                                                                   \
        FST__F_STRING(struct fusion_section, teacher_model, NULL, "network of a random teacher"),                     \
        FST__F_STRING(struct fusion_section, target, NULL,                                                            \
                      "matrix of the small model that gets new values, as `fedstill model info` names parameters",    \
                      .required = true),                                                                              \
        FST__F_STRING(struct fusion_section, source, NULL, "matrix of the large model that they come from",           \
                      .required = true),                                                                              \
        FST__F_INT(struct fusion_section, rank, 0, 4096, "0",                                                         \
                   "both matrices are encoded by so many singular values; 0: the matrices themselves"),               \
        FST__F_INT(struct fusion_section, d_attention, 1, 65536, "64",                                                \
                   "attention is at least twice as wide; with a rank also the length of its tokens"),                 \
        FST__F_INT(struct fusion_section, heads, 1, 1024, "8", "of each attention"),                                  \
        FST__F_INT(struct fusion_section, layers, 1, 64, "2", "of the adapter"),                                      \
        FST__F_DOUBLE(struct fusion_section, attention_dropout, 0, 0.9, "0.1",                                        \
                      "of what attention adds, while the adapter learns", .when = {FST__WITH("learns", "adapter")}),  \
        FST__F_DOUBLE(struct fusion_section, merge_dropout, 0, 0.9, "0.2",                                            \
                      "of what the adapter's last layers add, while it learns",                                       \
                      .when = {FST__WITH("learns", "adapter")}),                                                      \
        FST__F_DOUBLE(struct fusion_section, gate, -1, 1, "0",                                                        \
                      "share of the adapter's values at first: A + gate (theta - A)"),                                \
        FST__F_ENUM(struct fusion_section, learns, learns, "adapter",                                                 \
                    "adapter: with its gate; gate: the adapter stays as it was drawn; nothing: the gate too"),        \
        FST__F_ABOVE(struct fusion_section, learning_rate, 0, 1000, "0.001", "of the adapter's AdamW",                \
                     .when = {LEARNS}),                                                                               \
        FST__F_ENUM(struct fusion_section, schedule, schedules, "cosine",                                             \
                    "that rate falls along a cosine to 0, or stays", .when = {LEARNS}),                               \
        FST__F_DOUBLE(struct fusion_section, weight_decay, 0, 10, "0.0005",                                           \
                      "of the adapter's matrices; none of biases, norms and the gate",                                \
                      .when = {FST__WITH("learns", "adapter")}),                                                      \
        FST__F_DOUBLE(struct fusion_section, clip_norm, 0, 1e6, "50",                                                 \
                      "largest norm of the adapter's gradient; 0: no limit", .when = {LEARNS})

static const fst__field federated_fields[] = {
    FUSION_FIELDS,
    FST__F_INT(struct federated_fusion_section, start_round, 1, 1000000, "2", "the first round whose average is fused"),
    FST__F_INT(struct federated_fusion_section, fusion_frequency, 1, 1000000, "1", "and then one in so many rounds"),
    FST__F_ENUM(struct federated_fusion_section, learns_from, fst__fusion_learns_from, "average",
                "average: from what the clients made of the fused matrix, in the next round; public: from steps of the "
                "server on labelled samples of data.public, with which it also makes running statistics anew"),
    FST__F_INT(struct federated_fusion_section, steps, 1, 1000000, "10", "of the adapter in a round", .when = {LEARNS}),
    FST__F_ABOVE(struct federated_fusion_section, public_learning_rate, 0, 1000, "0.1",
                 "of the server's steps, plain SGD, none of which stays in the model",
                 .when = {FST__WITH("learns_from", "public"), LEARNS}),
    FST__F_INT(struct federated_fusion_section, public_batch_size, 2, 65536, "64",
               "public samples in such a step, or in a batch for running statistics",
               .when = {FST__WITH("learns_from", "public")}),
};
static const fst__field local_fields[] = {
    FUSION_FIELDS,
    FST__F_INT(struct local_fusion_section, every, 1, 1000000, "1", "batches between two fusions"),
};

static bool check_teacher(const void *object, fst__complaint *c)
{
    const struct fusion_section *f = object;
    bool random = !strcmp(f->teacher, "random");
    if (random != !f->teacher_model)
        return true;
    c->key = "teacher_model";
    if (random)
        snprintf(c->text, sizeof c->text, "a random teacher needs its network, for instance resnet50 stem=cifar");
    else
        snprintf(c->text, sizeof c->text, "has no effect: the network of %.60s is known", f->teacher);
    return false;
}

const fst__schema fst__federated_fusion_schema =
    FST__SCHEMA(struct federated_fusion_section, federated_fields, .check = check_teacher);
const fst__schema fst__local_fusion_schema =
    FST__SCHEMA(struct local_fusion_section, local_fields, .check = check_teacher);

fst_fusion_spec fst__fusion_spec(const struct fusion_section *f)
{
    return (fst_fusion_spec){.rank = f->rank,
                             .d_attention = f->d_attention,
                             .heads = (int)f->heads,
                             .layers = (int)f->layers,
                             .attention_dropout = f->attention_dropout,
                             .merge_dropout = f->merge_dropout,
                             .gate = f->gate,
                             .learns = (fst_fusion_learns)f->learns,
                             .weight_decay = f->weight_decay,
                             .clip_norm = f->clip_norm};
}
