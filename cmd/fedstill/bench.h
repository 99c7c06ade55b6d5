/* Between cmd_bench.c (what is measured, and how it is shown), bench_model.c, bench_fleet.c (the measuring), and
 * bench_machine.c (what else the machine was doing). */
#ifndef FEDSTILL_CMD_BENCH_H
#define FEDSTILL_CMD_BENCH_H

#include "cmd.h"
#include "fedstill/models.h"
#include "fedstill/nn.h"

enum { BENCH_SEGMENTS = 5, BENCH_OPS = 40 };

struct workload {
    const char *name, *model, *teacher; /* teacher: distil from it */
    const char *file;                   /* a model file, for inference; NULL: the network `model` with random weights */
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
    double cpu_s;        /* of all threads in a step */
    double flops;        /* of a step */
    double seconds;      /* of a federated run, else 0 */
    double p50_s, p99_s; /* of the calls of an inference, else 0 */
    struct op_time ops[BENCH_OPS];
    int op_count;
};

/* What the machine was doing meanwhile; below 0: unknown. */
struct bench_machine {
    char cpu[96];                   /* its model */
    double load_before, load_after; /* load averages of a minute */
    double idle, steal;             /* shares of all CPUs' time; steal: a virtual machine's host had other work */
    double ticks[3];                /* counters at the start: all, idle, steal */
};

struct bench_settings {
    int threads;
    size_t shard; /* 0: by rule */
    fst_precision precision;
    const char *backend;
    double seconds;  /* of a segment */
    bool profile;    /* print every kernel */
    bool steps_only; /* kernels are not run alone */
};

void bench_machine_start(struct bench_machine *m);
void bench_machine_end(struct bench_machine *m);
int bench_by_value(const void *a, const void *b);
/* An fst_kernel_visit of a struct result: adds to its ops and, for what computes, to kernel_s. */
void bench_add_kernel(void *ctx, const fst_kernel_info *k, double seconds);
fst_status bench_model(const struct bench_settings *set, const struct workload *w, struct result *out, fst_error *err);
fst_status bench_fleet(const struct bench_settings *set, struct result *out, fst_error *err);

#endif
