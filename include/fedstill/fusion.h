/*
 * fedstill/fusion.h - MergeNet (Li et al., AAAI 2025, arXiv 2404.13322): new values for a matrix A of a small model,
 * made by a learnt adapter phi (fst_mergenet_graph) from A and a matrix B of a large one.
 *
 *     theta = A + gate (s phi(A, B) - A)        s: so that s phi(A, B) has A's standard deviation
 *
 * The last layer norm of the adapter gives values of standard deviation 1, many times those of a trained layer, and an
 * adapter that has learnt nothing gives noise: hence the scale, and a gate that is learnt from 0 on. Where the networks
 * come from, and what is trained between two fusions, is the caller's affair.
 *
 * With a rank r both sides are encoded first, W = U S V^T -> (U S/sqrt(n)) (sqrt(n) V^T) for the r largest singular
 * values, n columns. The adapter sees the second factors, row by row, cut into tokens of d_attention numbers (zeroes
 * after the last), and gives a new second factor; what the first r values leave of A stays as it is:
 *
 *     theta = A + gate U S/sqrt(n) (s phi(...) - sqrt(n) V^T)
 */
#ifndef FEDSTILL_FUSION_H
#define FEDSTILL_FUSION_H

#include "fedstill/nn.h"

FST_BEGIN_DECLS

typedef enum fst_fusion_learns {
    FST_FUSION_ADAPTER, /* and its gate */
    FST_FUSION_GATE,    /* the adapter stays as it was drawn */
    FST_FUSION_NOTHING
} fst_fusion_learns;

typedef struct fst_fusion_spec {
    int64_t rank;        /* 0: the matrices themselves */
    int64_t d_attention; /* attention is at least twice as wide; with a rank also the length of a token */
    int heads, layers;
    double attention_dropout, merge_dropout; /* when it learns; what is fused is made without */
    double gate;                             /* at first */
    fst_fusion_learns learns;
    double weight_decay; /* of AdamW; none of biases, norms and the gate */
    double clip_norm;    /* of the gradient; 0: no limit */
    uint64_t seed;
    const char *backend; /* NULL: the first */
} fst_fusion_spec;
#define FST_FUSION_DEFAULTS       \
    ((fst_fusion_spec){           \
        .d_attention = 64,        \
        .heads = 8,               \
        .layers = 2,              \
        .attention_dropout = 0.1, \
        .merge_dropout = 0.2,     \
        .weight_decay = 5e-4,     \
        .clip_norm = 50,          \
    })

/* The parameters of that name, which must be a matrix: (rows, columns), or a kernel (rows, ...) whose other dimensions
 * are taken as columns. FST_E_CONFIG: there is none, with names that are like it, or it is a vector. */
FST_MUST FST_API fst_status fst_fusion_find(const fst_graph *g, const char *name, fst_param_info *out, fst_error *err);

/* What an adapter takes: parameters, and bytes of everything in it. Takes no memory for values. Errors are those of
 * fst_fusion_new. */
typedef struct fst_fusion_size {
    size_t parameters;
    size_t bytes;
} fst_fusion_size;
FST_MUST FST_API fst_status fst_fusion_measure(const fst_fusion_spec *spec, const fst_param_info *target,
                                               const fst_param_info *source, fst_fusion_size *out, fst_error *err);

/* An adapter with random weights, drawn by streams of the seed. FST_E_CONFIG, with both shapes, when they and the
 * settings do not fit. Its passes run on one thread: bits depend on nothing else. One thread at a time. */
typedef struct fst_fusion fst_fusion;
FST_MUST FST_API fst_status fst_fusion_new(fst_fusion **out, const fst_fusion_spec *spec, const fst_param_info *target,
                                           const fst_param_info *source, fst_error *err);
FST_API void fst_fusion_free(fst_fusion *f);
/* B, before everything else and whenever it changed. Copied. FST_E_NUMERIC: not finite. */
FST_MUST FST_API fst_status fst_fusion_source(fst_fusion *f, const float *b, fst_error *err);
/* theta from A, both with as many values as the target; they may be the same array. FST_E_NUMERIC: A, or what an
 * adapter that diverged makes of it, is not finite; theta is untouched. */
FST_MUST FST_API fst_status fst_fusion_fuse(fst_fusion *f, const float *a, float *theta, fst_error *err);

typedef struct fst_fusion_step {
    double loss;      /* |theta - after|^2 / 2 */
    double grad_norm; /* before clipping */
} fst_fusion_step;
/*
 * One step of AdamW along the gradient of |theta - after|^2 / 2 by the adapter and its gate, `after` being a constant:
 * what became of theta in training. theta is made with dropout. FST_E_NUMERIC leaves everything as it was. out may be
 * NULL. Does nothing for FST_FUSION_NOTHING.
 */
FST_MUST FST_API fst_status fst_fusion_learn(fst_fusion *f, const float *a, const float *after, double rate,
                                             fst_fusion_step *out, fst_error *err);
FST_API double fst_fusion_gate(const fst_fusion *f);
FST_API uint64_t fst_fusion_steps(const fst_fusion *f); /* that it learnt */
/* The adapter's own parameters, in the order of the graph and of fst_mergenet_graph's names; then the gate. For tests
 * and files. */
FST_API const fst_graph *fst_fusion_graph(const fst_fusion *f);
FST_API float *fst_fusion_values(fst_fusion *f, size_t *count);
/* The same arrays as tensors of a checkpoint, names included; their memory is the fusion's. Which step it is then has
 * to be told. */
enum { FST_FUSION_PARTS = 4 };
FST_API size_t fst_fusion_parts(fst_fusion *f, fst_tensor t[FST_FUSION_PARTS]);
FST_API void fst_fusion_resumed(fst_fusion *f, uint64_t steps);
/* Weights, gate, moments and power iterations; not B. `load` gets exactly those bytes: FST_E_FORMAT when they are of
 * another length, or not finite, and nothing changes. */
FST_MUST FST_API fst_status fst_fusion_save(const fst_fusion *f, fst_buf *out, fst_error *err);
FST_MUST FST_API fst_status fst_fusion_load(fst_fusion *f, const void *data, size_t len, fst_error *err);

FST_END_DECLS

#endif
