/*
 * fedstill/fuse.h - MergeNet at the server of a federation: after the clients' models became one, a matrix of that one
 * is fused with one of a larger model (fedstill/fusion.h), and the clients are sent what comes out.
 *
 * The adapter learns from what training makes of a fused model. With public samples the server takes the steps itself:
 * from the round's average, fused, one step of SGD on a batch of them (their labels are used), as often as `steps`
 * says; none of these steps enters the shared model. Without them the clients take the steps: what the fused matrix has
 * become in the next round's average is what the adapter learns from, by `steps` steps.
 *
 * Running statistics do not fit a fused model: they are made anew, as means over public samples. Without any the server
 * cannot make them, and a network that has running statistics is only sent fused; see fst_fuser_show.
 */
#ifndef FEDSTILL_FUSE_H
#define FEDSTILL_FUSE_H

#include "fedstill/fusion.h"
#include "fedstill/strategy.h"

FST_BEGIN_DECLS

typedef struct fst_fuser_spec {
    fst_fusion_spec fusion;
    const char *target, *source; /* names of parameters of the shared and of the large network */
    uint64_t start_round;        /* the first round whose average is fused, from 1 */
    uint64_t every;              /* and then one in so many */
    uint64_t steps;              /* of the adapter in a round */
    double learning_rate;
    uint64_t rounds; /* > 0: the rate falls along a cosine, to 0 after so many; 0: it stays */
    bool proxy;      /* learn from public samples; false: from the next average */
    double proxy_learning_rate;
    size_t proxy_batch_size;
} fst_fuser_spec;

/* What the last call of `run` did. */
typedef struct fst_fuser_report {
    uint64_t round; /* from 0 */
    bool fused, learnt;
    double gate, loss, grad_norm; /* loss, grad_norm: means over the round's steps */
    double moved;                 /* |theta - A| / |A| */
    double seconds;               /* the only field that differs between two runs */
} fst_fuser_report;

typedef struct fst_fuser fst_fuser;
/* env: of the strategy that it belongs to (seed, classes, global, graph, pub, compute); its `after` is not looked at.
 * teacher and its parameters are copied from. FST_E_CONFIG when tensors or settings do not fit. */
FST_MUST FST_API fst_status fst_fuser_new(fst_fuser **out, const fst_fuser_spec *spec, const fst_server_env *env,
                                          const fst_graph *teacher, const float *teacher_params, fst_error *err);
FST_API void fst_fuser_free(fst_fuser *f);
/* For fst_server_env.after; valid as long as the fuser. */
FST_API const fst_after *fst_fuser_after(const fst_fuser *f);
FST_API const fst_fuser_report *fst_fuser_last(const fst_fuser *f);
FST_API double fst_fuser_gate(const fst_fuser *f);
/* Whether what is sent differs from what may be measured and kept: a network with running statistics, fused without
 * public samples. */
FST_API bool fst_fuser_sends_other(const fst_fuser *f);
/* Puts the matrix as it was before the last fusion into such a model (plain), or the fused one back. Nothing where
 * there is no difference. */
FST_API void fst_fuser_show(const fst_fuser *f, float *params, bool plain);
/* Bytes that a fuser takes besides the adapter's: steps on public samples, and what a failed round is put back from. */
FST_MUST FST_API fst_status fst_fuser_measure(const fst_fuser_spec *spec, const fst_graph *graph,
                                              const fst_graph *teacher, fst_fusion_size *out, fst_error *err);

FST_END_DECLS

#endif
