/* Between cmd_bench.c (what is measured, and how it is shown) and bench_model.c, bench_fleet.c (the measuring). */
#ifndef FEDSTILL_CMD_BENCH_H
#define FEDSTILL_CMD_BENCH_H

#include "cmd.h"
#include "fedstill/models.h"
#include "fedstill/nn.h"

enum { BENCH_SEGMENTS = 5, BENCH_OPS = 40 };

struct workload {
    const char *name, *model, *teacher; /* teacher: distil from it */
    bool cached;                        /* its soft labels are made before the clock starts */
    bool inference;
    size_t batch;
    fst_optim_spec optim;
    fst_model_config config;
};

struct op_time { /* of one kind of layer, forward and backward */
    const char *op;
    bool compute;
    double seconds;
};

struct result {
    double samples_per_s, step_s, kernel_s;
    double cpu_s;   /* of all threads in a step */
    double flops;   /* of a step */
    double seconds; /* of a federated run, else 0 */
    struct op_time ops[BENCH_OPS];
    int op_count;
};

struct bench_settings {
    int threads;
    size_t shard; /* 0: by rule */
    fst_precision precision;
    const char *backend;
    double seconds; /* of a segment */
    bool profile;   /* print every kernel */
};

int bench_by_value(const void *a, const void *b);
/* An fst_kernel_visit of a struct result: adds to its ops and, for what computes, to kernel_s. */
void bench_add_kernel(void *ctx, const fst_kernel_info *k, double seconds);
fst_status bench_model(const struct bench_settings *set, const struct workload *w, struct result *out, fst_error *err);
fst_status bench_fleet(const struct bench_settings *set, struct result *out, fst_error *err);

#endif
