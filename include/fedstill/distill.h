/*
 * fedstill/distill.h - what teachers tell their students: soft labels, kept by the hash of the sample, and
 * how several teachers, peers or clients become one target.
 *
 * Soft labels are never joined by position: a shuffled, cut or re-ordered data set finds its own. They
 * record teacher, data and temperature, and a student that expects others gets FST_E_MISMATCH. They are
 * not private by themselves: they show what the teacher saw.
 */
#ifndef FEDSTILL_DISTILL_H
#define FEDSTILL_DISTILL_H

#include "fedstill/data.h"
#include "fedstill/nn.h"

FST_BEGIN_DECLS

typedef enum fst_soft_content { FST_SOFT_PROBABILITIES, FST_SOFT_LOGITS } fst_soft_content;
typedef enum fst_soft_encoding {
    FST_SOFT_F32,
    FST_SOFT_F16,
    FST_SOFT_TOP_K /* the k largest probabilities as f16 with their classes; the rest spread evenly */
} fst_soft_encoding;
FST_API const char *fst_soft_content_name(fst_soft_content c);   /* "probabilities", "logits" */
FST_API const char *fst_soft_encoding_name(fst_soft_encoding e); /* "f32", "f16", "top_k" */

/* What soft labels are, and what a student expects them to be. */
typedef struct fst_soft_spec {
    fst_soft_content content;
    double temperature; /* of probabilities */
    fst_soft_encoding encoding;
    int top_k;
    char teacher_digest[FST_DIGEST_HEX], data_digest[FST_DIGEST_HEX];
} fst_soft_spec;

typedef struct fst_soft_labels {
    fst_soft_spec spec;
    int classes;
    size_t samples;      /* different samples */
    fst_hash128 *keys;   /* samples, rising */
    float *f32;          /* samples x classes */
    uint16_t *f16;       /* samples x classes, or samples x top_k */
    uint16_t *top_class; /* samples x top_k, rising value order does not matter */
} fst_soft_labels;

/*
 * One target q of several teachers; the student's loss is then FST_KD_KL (or FST_KD_CROSS_ENTROPY) against q.
 * Weighted per sample r, q = sum_k w_kr softmax(z_k/T), with weights from the logits at temperature 1 that sum to 1;
 * a single teacher has weight 1.
 */
typedef enum fst_ensemble {
    FST_ENSEMBLE_MEAN_PROBABILITIES, /* w = 1/K; Hinton et al. 2015 */
    FST_ENSEMBLE_MEAN_LOGITS,        /* q = softmax(mean of the z_k / T): another thing than the mean of q_k */
    FST_ENSEMBLE_ENTROPY,            /* w_k = (1 - H_k/sum H)/(K-1): the certain count more; 1/K if all H are 0.
                                      * After Kwon et al., Adaptive knowledge distillation based on entropy,
                                      * ICASSP 2020 */
    FST_ENSEMBLE_CONFIDENCE          /* w_k = (1 - softmax_k(CE(z_k, y)))/(K-1): those that are right count more;
                                      * needs labels. Zhang, Chen, Wang, Confidence-aware multi-teacher knowledge
                                      * distillation (CA-MKD), ICASSP 2022 */
} fst_ensemble;
FST_API const char *fst_ensemble_name(fst_ensemble e); /* "mean_probabilities", "mean_logits", ... */

/* One of several teachers; each sees the samples through its own normalisation. */
typedef struct fst_soft_teacher {
    fst_runner *runner;
    const fst_state *state;
    fst_transform transform;
} fst_soft_teacher;
enum { FST_MAX_TEACHERS = 16 };

typedef struct fst_soft_make {
    const fst_source *source;
    const uint32_t *subset; /* NULL: all */
    size_t subset_count;
    fst_transform transform; /* normalisation; augmentation is not applied */
    fst_runner *teacher;
    const fst_state *teacher_state;
    int classes;
    void (*progress)(void *ctx, size_t done, size_t total); /* may be NULL */
    void *ctx;
    /* Further teachers: the labels are then the target of all (logits: their mean, so FST_ENSEMBLE_MEAN_LOGITS). */
    const fst_soft_teacher *more;
    size_t more_count;
    fst_ensemble weights;
} fst_soft_make;

/* Runs the teacher over the samples. The spec's data_digest is taken from the source. */
FST_MUST FST_API fst_status fst_soft_labels_make(fst_soft_labels *out, const fst_soft_spec *spec,
                                                 const fst_soft_make *how, fst_error *err);
FST_API void fst_soft_labels_release(fst_soft_labels *s);
/* safetensors, format "fedstill-soft-labels-1". digest may be NULL. */
FST_MUST FST_API fst_status fst_soft_labels_write(const fst_soft_labels *s, const char *path,
                                                  char digest[FST_DIGEST_HEX], fst_error *err);
FST_MUST FST_API fst_status fst_soft_labels_read(fst_soft_labels *out, const char *path, fst_error *err);
/* The same over bytes; `name` is used in messages. */
FST_MUST FST_API fst_status fst_soft_labels_parse(fst_soft_labels *out, const char *name, const void *data, size_t len,
                                                  fst_error *err);

/* Checks content, temperature, teacher and data (an empty digest in `expect` is not compared) and finds the row of
 * every sample of the subset: rows has source->count entries, FST_SOFT_NONE where the subset does not reach. */
#define FST_SOFT_NONE UINT32_MAX
FST_MUST FST_API fst_status fst_soft_labels_bind(const fst_soft_labels *s, const fst_soft_spec *expect,
                                                 const fst_source *source, const uint32_t *subset, size_t subset_count,
                                                 uint32_t *rows, fst_error *err);
/* Writes row `row` as classes floats. */
FST_API void fst_soft_labels_row(const fst_soft_labels *s, uint32_t row, float *out);

/* What an fst_soft_fn needs: give &binding as soft_ctx of a loader and fst_soft_fetch as soft. */
typedef struct fst_soft_binding {
    const fst_soft_labels *labels;
    const uint32_t *rows;
} fst_soft_binding;
FST_API fst_status fst_soft_fetch(void *binding, const uint32_t *index, size_t rows, float *soft, fst_error *err);

/* ---- several teachers ---------------------------------------------------------------------- */

typedef struct fst_teachers {
    const float *const *logits; /* count arrays of rows x classes */
    size_t count, rows;
    int classes;
    const int32_t *labels; /* rows; only FST_ENSEMBLE_CONFIDENCE reads them */
} fst_teachers;

/* weights: count x rows, teacher by teacher. FST_E_NUMERIC for logits that are not finite. */
FST_MUST FST_API fst_status fst_teachers_weights(fst_ensemble how, const fst_teachers *t, double *weights,
                                                 fst_error *err);
/* target: rows x classes. spread (may be NULL): sum_k w_k KL(q_k || q) of each row, by which the weighted mean of
 * the single losses KL(q_k || p) exceeds KL(q || p), for any student p: both have the same gradient. */
FST_MUST FST_API fst_status fst_teachers_target(fst_ensemble how, const fst_teachers *t, double temperature,
                                                float *target, double *spread, fst_error *err);
/* Deep mutual learning (Zhang et al., CVPR 2018): the mean probabilities, at temperature 1, of all but `self`; at
 * least two peers. Network `self` learns CE + KL(target || p); with spread that is CE + mean over the others of
 * KL(p_j || p). */
FST_MUST FST_API fst_status fst_peers_target(const fst_teachers *peers, size_t self, float *target, double *spread,
                                             fst_error *err);

/* ---- settings that change in training ------------------------------------------------------- */

/* A temperature or a weight by epoch: from `from` to `to`. */
typedef enum fst_ramp_kind {
    FST_RAMP_LINEAR,  /* the first epoch has `from`, number `epochs` and all after it `to` */
    FST_RAMP_COSINE,  /* the same along (1 - cos(pi share))/2: slow at both ends */
    FST_RAMP_STEP,    /* in equal jumps, one at each milestone (an epoch, counted from 0) */
    FST_RAMP_ACCURACY /* by the student's last validation accuracy: `from` up to `low`, `to` from `high` on, linear
                       * between; an accuracy that falls takes the value back */
} fst_ramp_kind;
FST_API const char *fst_ramp_kind_name(fst_ramp_kind k); /* "linear", "cosine", "step", "accuracy" */

typedef struct fst_ramp {
    fst_ramp_kind kind;
    double from, to;
    int64_t epochs;                         /* linear, cosine; 1 or less: `to` from the start */
    int64_t milestones[FST_MAX_MILESTONES]; /* step */
    int milestone_count;
    double low, high; /* accuracy, 0 <= low < high <= 1 */
} fst_ramp;
/* The value in an epoch (the first is 0). accuracy: NaN before the first is known, which counts as 0. */
FST_API double fst_ramp_at(const fst_ramp *r, int64_t epoch, double accuracy);

/*
 * A temperature that is learnt against the student (Li et al., Curriculum temperature for knowledge distillation
 * (CTKD), AAAI 2023, the global form): T = start + range sigmoid(theta). theta climbs the loss that the student
 * descends (its gradient is reversed), with a strength that grows from 0 to 1 as (1 - cos(pi epoch/epochs))/2. theta
 * starts at 1 and has an optimiser like the student's.
 */
typedef struct fst_curriculum {
    double start, range;
    int64_t epochs; /* until the whole strength; 0: from the first */
    float theta;
    fst_optim optim;
} fst_curriculum;
FST_MUST FST_API fst_status fst_curriculum_init(fst_curriculum *c, double start, double range, int64_t epochs,
                                                const fst_optim_spec *spec, fst_error *err);
FST_API void fst_curriculum_release(fst_curriculum *c);
FST_API double fst_curriculum_temperature(const fst_curriculum *c);
FST_API double fst_curriculum_strength(const fst_curriculum *c, int64_t epoch);
/* grad: of the student's loss, by the temperature (fst_step_result.temperature_grad). */
FST_API void fst_curriculum_step(fst_curriculum *c, int64_t epoch, double grad, double learning_rate);

/*
 * Iterated soft targets: a student learns part A of the samples from their labels, then rounds of parts B from the
 * teacher's soft labels, each drawn afresh from the samples that are not in A. Parts follow from the seed and the round
 * alone.
 */
typedef struct fst_parts {
    uint32_t *order, *draw; /* the samples, A first; room for a part B */
    size_t count, a, b;
    uint64_t seed;
} fst_parts;
/* share_a: of the samples; share_b: of those that are not in A. FST_E_CONFIG when a part would be empty. */
FST_MUST FST_API fst_status fst_parts_init(fst_parts *p, const uint32_t *index, size_t count, double share_a,
                                           double share_b, uint64_t seed, fst_error *err);
FST_API void fst_parts_release(fst_parts *p);
/* Round 0: A; later ones: their B. Valid until the next call. Returns how many. */
FST_API size_t fst_parts_of(fst_parts *p, uint64_t round, const uint32_t **index);

/* ---- federated distillation ------------------------------------------------------------------ */

/*
 * Federated distillation (Jeong et al. 2018): a client sends the mean probability vector of each label that it
 * holds, and learns CE + gamma H(F_y, p), where F is the mean over the *other* clients. Counts and means show
 * which labels a client holds.
 */
/* mean: classes x classes, row l the mean of softmax(logits) over the rows of label l (0 without one);
 * count: classes. */
FST_MUST FST_API fst_status fst_fd_label_means(const float *logits, const int32_t *labels, size_t rows, int classes,
                                               float *mean, int64_t *count, fst_error *err);
/* out: classes x classes; row l the unweighted mean over the clients but `client` that hold label l, 0 when there is
 * none. client >= clients: over all. Added in the order of the clients. */
FST_MUST FST_API fst_status fst_fd_leave_one_out(const float *const *mean, const int64_t *const *count, size_t clients,
                                                 int classes, size_t client, float *out, fst_error *err);
/* target: rows x classes, the row of each label, for FST_KD_CROSS_ENTROPY at temperature 1 with kd_weight gamma. A
 * row of zeros adds neither loss nor gradient. */
FST_MUST FST_API fst_status fst_fd_target(const float *by_label, const int32_t *labels, size_t rows, int classes,
                                          float *target, fst_error *err);

/* DS-FL (Itahara et al., IEEE TMC 2023): clients send probabilities of public samples; their unweighted mean is
 * sharpened and everybody learns H(q, p) at temperature 1. */
typedef enum fst_sharpen {
    FST_SHARPEN_ERA,         /* softmax(mean / value): entropy reduction; the paper's temperature is 0.1 */
    FST_SHARPEN_ENHANCED_ERA /* mean^value, renormalised: keeps what softmax flattens when there are many classes */
} fst_sharpen;
FST_API const char *fst_sharpen_name(fst_sharpen s); /* "era", "enhanced_era" */
/* out: rows x classes, the mean of the clients' arrays, added in their order. */
FST_MUST FST_API fst_status fst_dsfl_mean(const float *const *probabilities, size_t clients, size_t rows, int classes,
                                          float *out, fst_error *err);
/* value > 0; mean and target may be the same array. FST_E_NUMERIC for a row without mass or with what is no
 * probability. */
FST_MUST FST_API fst_status fst_dsfl_sharpen(fst_sharpen how, double value, const float *mean, size_t rows, int classes,
                                             float *target, fst_error *err);

/*
 * Compressed federated distillation (CFD; Sattler, Marban, Rischke, Samek, IEEE TNSE 2022): probabilities as whole
 * levels of `bits` bits, which add up to L = 2^bits - 1 in each row: p_j = level_j / L. With 1 bit a row is the class
 * of the largest probability. Packed they take ceil(log2 classes) bits a row with 1 bit, else bits (classes - 1): the
 * last level follows from the others.
 */
enum { FST_CFD_MAX_BITS = 16 };
/* level: rows x classes; the nearest that add up to L. Each p_j L is rounded down, and what is missing goes to those
 * that lost most, the first of equals. Rows of p have a mass above 0 and nothing below 0. */
FST_API void fst_cfd_quantise(const float *p, size_t rows, int classes, int bits, uint16_t *level);
FST_API void fst_cfd_values(const uint16_t *level, size_t rows, int classes, int bits, float *p);
/*
 * As bits, the lowest of each byte first, zeros at the end: a mark, then the rows. `known` (NULL: nothing) holds rows
 * that the reader has too, or zeros where it has none. With mark 1, delta coding, each row that is known begins with a
 * bit, 0 when it is the same, and only one that differs follows; the writer takes whichever is shorter.
 */
FST_API size_t fst_cfd_most_bytes(size_t rows, int classes, int bits); /* that packing can take */
FST_API size_t fst_cfd_pack(const uint16_t *level, const uint16_t *known, size_t rows, int classes, int bits,
                            uint8_t *out);
/* FST_E_FORMAT for bytes that are no such rows, too few or too many; level is undefined then. */
FST_MUST FST_API fst_status fst_cfd_unpack(const uint8_t *data, size_t len, const uint16_t *known, size_t rows,
                                           int classes, int bits, uint16_t *level, fst_error *err);

FST_END_DECLS

#endif
