/*
 * What a plan consists of, between plan.c (which builds it) and plan_run.c (which runs it).
 */
#ifndef FST_NN_PLAN_H
#define FST_NN_PLAN_H

#include "backend.h"

enum { NOWHERE = -1, EXTERNAL = -2 }; /* region ids: no memory; from -2 down the caller's inputs */

struct region { /* memory needed from step `first` to step `last` */
    size_t bytes, offset;
    int first, last;
};

struct places { /* regions of one call's arguments */
    int in, out, grad_out, grad_in, saved, held;
    int more_in[FST_NODE_MORE], more_grad_in[FST_NODE_MORE];
};

struct call { /* an op, or a reorder: its arguments and where they lie */
    struct fst_op_args args;
    struct places at;
    const struct fst_node *node; /* NULL: a reorder */
    const struct fst_node *fold; /* a batch norm that the op computes too */
    const struct fst_layout *in[1 + FST_NODE_MORE], *out;
    int inputs;
    bool again; /* makes a value again for the backward pass */
};

struct step {
    struct fst_kernel *kernel;
    int call;
};

struct fst_plan {
    const fst_graph *graph;
    const struct fst_backend *backend;
    struct fst_context *context;
    fst_plan_options options;
    struct region *regions;
    int nregions;
    struct call *calls;
    int ncalls;
    struct step *steps;
    int nsteps, forward_steps;
    int *part_end;               /* by part: after its last step */
    struct fst_span *part_grads; /* by part: the parameters whose gradients it writes */
    size_t window; /* 0: parts end at meetings only; else also before they write more gradients than that */
    struct fst_parts parts;
    int output, output_grad, input_grad[FST_GRAPH_INPUTS];
    size_t scratch_bytes; /* of the op that needs most: kernels run one after another and share it */
    size_t shared_bytes;
    unsigned char *shared;
    const struct fst_peers *peers; /* the shards of its batch */
    struct fst_peers alone;        /* itself only */
    int64_t alone_rows;
    fst_arena arena;
    unsigned char *base;
    fst_draws draws; /* of the last pass: kernels may run again after it */
    bool ran, prepared;
    const fst_plan *owner; /* whose prepared weights are used; NULL: its own */
    size_t batch_rows;     /* of all shards; 0: no gradient is left as factors */
    bool blocks;           /* gradients may be left in blocks */
    struct fst_form *forms;
    size_t nforms;
    float *factor_grads; /* where factors go, */
    size_t factor_row;   /* from this row on */
};

static inline void *fst__region_at(const fst_plan *p, int region)
{
    return region >= 0 && p->base ? p->base + p->regions[region].offset : NULL;
}

#endif
