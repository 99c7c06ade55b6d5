/* Golden cases: reading a fixture, filling tensors from their names, comparing. */
#ifndef FST_TESTS_GOLDEN_H
#define FST_TESTS_GOLDEN_H

#include <jansson.h>

#include "fedstill/models.h"
#include "fedstill/nn.h"
#include "fedstill/tensor.h"

enum outcome { PASSED, FAILED, SKIPPED };

struct golden {
    const char *path;
    fst_safetensors *file;
    char kind[32], name[96];
    const char *salt;
    json_t *attrs;
    const char *backend; /* the one being tried; NULL where none matters */
    enum outcome outcome;
    char reason[256]; /* of a failure or a skip */
};

enum { GOLDEN_RANK = FST_MAX_RANK };

/* A tensor as attrs describe it. */
struct spec {
    char name[128];
    const char *rule;
    fst_shape shape;
    size_t count;
    double mul, add;
    bool relu, grad;
    int64_t classes;
};

void golden_fail(struct golden *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void golden_skip(struct golden *g, const char *what);

/* attrs[key], or what stands for it. */
double golden_number(const struct golden *g, const char *key, double otherwise);
const char *golden_text(const struct golden *g, const char *key, const char *otherwise);

/* The spec in object `j` ({"name", "shape", "rule", ...}); by_row: [name, shape, rule]. */
struct spec golden_spec(json_t *j);
/* The i-th of attrs[list]; false behind the end. */
bool golden_at(const struct golden *g, const char *list, size_t i, struct spec *out);
bool golden_find(const struct golden *g, const char *list, const char *name, struct spec *out);

/* Values by the fill rule (or the file's given.NAME); new memory, fst_free. */
float *golden_fill(struct golden *g, const struct spec *s);
int32_t *golden_labels(struct golden *g, const struct spec *s);

bool golden_has(const struct golden *g, const char *tensor);
/* A stored result as doubles; new memory; NULL (and failure) when it is not there with `count` elements. */
double *golden_want(struct golden *g, const char *tensor, size_t count);

/* |got - want| <= 1e-7 + r max|want| with r = max(1e-5, 20 f32[name]); scale > 0 replaces max|want|
 * when larger. */
void golden_compare(struct golden *g, const char *tensor, const float *got, size_t count, double scale);
void golden_compare_double(struct golden *g, const char *tensor, const double *got, size_t count, double scale);
/* Largest |value| over all stored tensors whose name begins with `prefix`. */
double golden_largest(struct golden *g, const char *prefix);
double golden_f32(const struct golden *g, const char *name);

/* Fills the graph's parameters (or buffers) from attrs[list]; prefix: what its names have in front. */
void golden_slots(struct golden *g, const char *list, const char *prefix, const fst_graph *graph, bool buffers,
                  float *span);
/* Norms and first elements of every slot against the tensors STEM_norm and STEM_head; r is relative to the slot's own
 * norm, which counts at least as `floor` of the largest. */
void golden_compare_slots(struct golden *g, const char *stem, const fst_graph *graph, bool buffers, const float *span,
                          double r, double floor);

/* Ops on complex values: input.re, input.im. */
bool golden_is_complex(const struct golden *g);
bool golden_knows_complex(const char *op);
void golden_complex_op(struct golden *g);

/* One function a kind; g->backend says where the nn kinds run. */
void golden_op(struct golden *g);
void golden_model(struct golden *g);
void golden_mergenet(struct golden *g); /* the model that is none of the zoo's */
void golden_loss(struct golden *g);
void golden_optim(struct golden *g);
void golden_schedule(struct golden *g);
void golden_aggregate(struct golden *g);

#endif
