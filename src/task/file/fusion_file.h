/* Settings of MergeNet's fusion: what a federated stage and a stage on one machine share, and what each has besides. */
#ifndef FST_TASK_FUSION_FILE_H
#define FST_TASK_FUSION_FILE_H

#include "fedstill/fusion.h"
#include "schema.h"

/* Every fusion; a struct of settings begins with it. */
struct fusion_section {
    char *teacher, *teacher_model; /* a stage, a file or "random"; the network of a random one */
    char *target, *source;         /* parameters of the small and of the large network */
    int64_t rank, d_attention, heads, layers;
    double attention_dropout, merge_dropout;
    double gate, learning_rate, weight_decay, clip_norm;
    int learns;   /* fst_fusion_learns */
    int schedule; /* FST__FUSION_COSINE or constant */
};
enum { FST__FUSION_COSINE = 0 };

enum { FST__FUSION_AVERAGE, FST__FUSION_PUBLIC };
struct federated_fusion_section {
    struct fusion_section fusion;
    int64_t start_round, fusion_frequency, steps;
    int learns_from; /* FST__FUSION_AVERAGE, FST__FUSION_PUBLIC */
    double public_learning_rate;
    int64_t public_batch_size;
};
struct local_fusion_section {
    struct fusion_section fusion;
    int64_t every; /* batches */
};
extern const fst__schema fst__federated_fusion_schema, fst__local_fusion_schema;
extern const char *const fst__fusion_learns_from[];

/* What the adapter is; seed and backend are the caller's. */
fst_fusion_spec fst__fusion_spec(const struct fusion_section *f);

#endif
