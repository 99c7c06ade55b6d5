/*
 * A plan while it is built, between plan.c (forward, backward, placing) and plan_again.c (values that are not kept).
 */
#ifndef FST_NN_PLAN_BUILD_H
#define FST_NN_PLAN_BUILD_H

#include "plan.h"

enum { NODE_INPUTS = 1 + FST_NODE_MORE };

struct value { /* what is known of a node's output */
    const struct fst_layout *layout;
    int region, grad; /* grad: region of its gradient, in the same layout */
};

/* Of a region: how the backward pass comes by its value. */
struct source {
    struct fst_kernel *again; /* makes it once more; NULL: */
    const struct fst_op *op;  /* ... the forward kernels of this do; NULL: it is kept */
    int call;                 /* the call that makes it in the forward pass */
    bool dropped;             /* it is not kept from the forward pass */
    int copy;                 /* the region that it was made again in; NOWHERE: not yet */
};

struct builder {
    fst_plan *p;
    struct value *values;   /* by node */
    struct fst_op *ops;     /* by node */
    struct source *sources; /* by region */
    int *op_call;           /* by node: its call, -1 */
    int *in_reorder;        /* by node and input: region of the reordered input, or NOWHERE */
    int *host;              /* by node: the operand whose op computes it too; NOWHERE: it has an op of its own */
    int *added;             /* by node: the sum that its op computes too; NOWHERE */
    bool *needs;            /* by node: somebody wants the gradient of its output */
    int time;
};

int fst__new_region(struct builder *b, size_t bytes);
/* The region is in use at the present time. */
void fst__use(struct builder *b, int region);
/* A call like `from`, or one of no node (NOWHERE). */
int fst__copy_call(struct builder *b, int from);
void fst__new_step(struct builder *b, struct fst_kernel *k, int call);
int fst__inputs_of(const struct builder *b, const struct fst_node *n);

/* plan_again.c. How the region's value is made: by a call's kernel (a reorder), or by its op. */
void fst__made_by(struct builder *b, int region, struct fst_kernel *again, int call);
void fst__made_by_op(struct builder *b, int region, const struct fst_op *op, int call);
/* After the forward pass: decides which values are dropped. */
fst_status fst__choose_dropped(struct builder *b, fst_error *err);
/* The region where the backward pass finds the value of `region` from now on; it is made again when it was dropped. */
int fst__find_again(struct builder *b, int region);

#endif
