/*
 * fedstill/distill.h - what a teacher tells its students: soft labels, kept by the hash of the sample.
 *
 * Soft labels are never joined by position: a shuffled, cut or re-ordered data set finds its own. They
 * record teacher, data and temperature, and a student that expects others gets FST_E_MISMATCH. They are
 * not private by themselves: they show what the teacher saw.
 */
#ifndef FEDSTILL_DISTILL_H
#define FEDSTILL_DISTILL_H

#include "fedstill/data.h"
#include "fedstill/nn.h"

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
                                                 const fst_source *source, const uint32_t *subset,
                                                 size_t subset_count, uint32_t *rows, fst_error *err);
/* Writes row `row` as classes floats. */
FST_API void fst_soft_labels_row(const fst_soft_labels *s, uint32_t row, float *out);

/* What an fst_soft_fn needs: give &binding as soft_ctx of a loader and fst_soft_fetch as soft. */
typedef struct fst_soft_binding {
    const fst_soft_labels *labels;
    const uint32_t *rows;
} fst_soft_binding;
FST_API fst_status fst_soft_fetch(void *binding, const uint32_t *index, size_t rows, float *soft, fst_error *err);

#endif
