/*
 * fedstill/infer.h - the cascade device -> edge -> cloud: a student at the edge answers what it is sure of and sends
 * the rest to the teacher in the cloud.
 *
 * How sure (confidence, temperature scaling), from where on to ask (thresholds), how good the whole is (evaluation),
 * how long it takes (a model of devices, links and servers in simulated time), and the report of it. Everything
 * but fst_measure and the writer of the report is pure: no file, no clock, no random draw. A figure that has no meaning
 * (an accuracy without labels, a mean over nothing) is NaN here and null in JSON, never 0.
 */
#ifndef FEDSTILL_INFER_H
#define FEDSTILL_INFER_H

#include "fedstill/base.h"
#include "fedstill/data.h"
#include "fedstill/models.h"

FST_BEGIN_DECLS

/* ---- confidence ----------------------------------------------------------------------------- */

/* Of a row of logits z at temperature T, with p = softmax(z/T): a number of 0 ... 1 that grows with certainty. With one
 * class it is 1, except for the energy. */
typedef enum fst_confidence_kind {
    FST_CONFIDENCE_MAX,     /* the largest p */
    FST_CONFIDENCE_MARGIN,  /* the largest p less the second */
    FST_CONFIDENCE_ENTROPY, /* 1 - H(p)/log K */
    FST_CONFIDENCE_ENERGY   /* (1 + s/(1 + |s|))/2 of s = T log sum exp(z/T), the negative free energy: rising in s and
                             * 1/2   at 0. Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020 */
} fst_confidence_kind;
FST_API const char *fst_confidence_name(fst_confidence_kind k); /* "max", "margin", "entropy", "energy" */
FST_API bool fst_confidence_parse(const char *name, fst_confidence_kind *out);

/* out: rows values. FST_E_NUMERIC for logits that are not finite. */
FST_MUST FST_API fst_status fst_confidence(fst_confidence_kind kind, const float *logits, size_t rows, int classes,
                                           double temperature, double *out, fst_error *err);
/* The class of the largest logit of each row; of equal ones the first. */
FST_API void fst_predict(const float *logits, size_t rows, int classes, int32_t *out);

/* Temperature scaling (Guo et al., On calibration of modern neural networks, ICML 2017): the one T that minimises the
 * cross entropy of softmax(z/T). */
#define FST_TEMPERATURE_MIN 0.05
#define FST_TEMPERATURE_MAX 20.0
typedef struct fst_calibration {
    double temperature;
    bool at_limit;                /* the minimum lies outside FST_TEMPERATURE_MIN ... MAX: as when no sample is wrong */
    double nll_before, nll_after; /* mean cross entropy at T = 1 and at the temperature */
    double ece_before, ece_after;
    size_t samples;
} fst_calibration;
/* rows > 0. The cross entropy is convex in 1/T; its derivative's root is sought by Newton steps inside a bracket. */
FST_MUST FST_API fst_status fst_calibrate(fst_calibration *out, const float *logits, const int32_t *labels, size_t rows,
                                          int classes, fst_error *err);

/* Expected calibration error over 15 bins of equal width ((k-1)/15, k/15]: sum of n_k/n |accuracy_k - mean
 * confidence_k|. Naeini, Cooper, Hauskrecht, AAAI 2015. NaN without samples. */
enum { FST_ECE_BINS = 15 };
FST_API double fst_ece(const double *confidence, const uint8_t *right, size_t n);
/* Area under the ROC curve of telling right from wrong answers by their confidence: the probability that a right one
 * has the higher confidence, ties counting 1/2 (Mann-Whitney). *out is NaN when all are right or all are wrong. */
FST_MUST FST_API fst_status fst_auroc(const double *confidence, const uint8_t *right, size_t n, double *out,
                                      fst_error *err);

/* ---- thresholds ------------------------------------------------------------------------------ */

/* A sample goes to the cloud when its confidence < threshold. Samples of equal confidence go together. */
typedef enum fst_threshold_kind {
    FST_THRESHOLD_FIXED,
    FST_THRESHOLD_ACCURACY, /* the fewest samples to the cloud that reach this accuracy of the cascade */
    FST_THRESHOLD_OFFLOAD,  /* the most samples to the cloud that are no larger a share than this */
    FST_THRESHOLD_TIME      /* the most samples to the cloud that take no longer than so many seconds */
} fst_threshold_kind;
FST_API const char *fst_threshold_name(fst_threshold_kind k); /* "fixed", "accuracy", "offload", "time" */

/* Seconds that the cascade takes when it sends what is below the threshold; NaN: not known. */
typedef double (*fst_seconds_fn)(void *ctx, double threshold);

typedef struct fst_threshold_input {
    size_t samples;                          /* > 0 unless fixed */
    const double *confidence;                /* 0 ... 1 */
    const uint8_t *edge_right, *cloud_right; /* accuracy only: whether each tier's own answer is right */
    fst_seconds_fn seconds;                  /* time only */
    void *ctx;
} fst_threshold_input;

typedef struct fst_threshold {
    fst_threshold_kind kind;
    double value;   /* the threshold */
    double target;  /* what was asked for: NaN for a fixed one */
    double reached; /* accuracy, share or seconds at `value` on these samples; NaN for a fixed one */
    bool met;   /* a target of accuracy or time that cannot be met: the closest is chosen, and this is false. A share
                 * is not met when equal confidences keep it more than one sample below the target */
    double gap; /* how much is missing, > 0; 0 when met */
    double offload; /* share of these samples that goes to the cloud; NaN for a fixed one without samples */
} fst_threshold;
FST_MUST FST_API fst_status fst_threshold_choose(fst_threshold *out, fst_threshold_kind kind, double value,
                                                 const fst_threshold_input *in, fst_error *err);

/* ---- evaluation ------------------------------------------------------------------------------- */

typedef struct fst_cascade_input {
    size_t samples; /* 0 is fine */
    int classes;
    const float *edge;          /* samples x classes: the edge's logits */
    const float *cloud;         /* samples x classes; rows that are not known are not read */
    const uint8_t *cloud_known; /* NULL: all. Every sample below the threshold must be known */
    const int32_t *labels;      /* NULL: none */
    const float *snr;           /* dB, NaN for unknown; NULL: none */
    double snr_bin;             /* width of a bin in dB, the first beginning at a multiple of it; > 0 with snr */
    const uint32_t *device;     /* of each sample; NULL: all of device 0 */
    size_t devices;             /* 0 means 1 */
    fst_confidence_kind kind;
    double temperature, threshold;
    /* What was answered, where a fleet has done it: the class, and whether the cloud gave it (both or neither). NULL:
     * as logits and threshold say. */
    const int32_t *answered;
    const uint8_t *by_cloud;
    fst_seconds_fn seconds; /* NULL: the curve has no times */
    void *ctx;
} fst_cascade_input;

/* What is counted over some samples. Counts of right answers are 0 without labels; cloud_right counts known ones. */
typedef struct fst_cascade_group {
    size_t samples, offloaded, cloud_known;
    size_t edge_right, cloud_right, right; /* answers of the edge alone, the cloud alone, the cascade */
} fst_cascade_group;

typedef struct fst_cascade_point {
    double threshold, offload;
    double accuracy; /* NaN without labels, or when a cloud's answer that it needs is not known */
    double seconds;  /* NaN unless asked for */
} fst_cascade_point;

enum { FST_CURVE_POINTS = 200, FST_SNR_BINS = 1000, FST_CONFUSION_CLASSES = 1024 };

typedef struct fst_cascade {
    int classes;
    bool labelled;
    fst_confidence_kind kind;
    double temperature, threshold;
    fst_cascade_group all;
    fst_cascade_group at_edge, at_cloud; /* samples whose answer came from there */
    fst_cascade_group *by_class;         /* classes; NULL without labels */
    fst_cascade_group *by_device;        /* devices; an empty device has zeros */
    size_t devices;
    fst_cascade_group *by_snr; /* snr_bins; NULL without snr */
    double *snr_from;          /* lower bound of each bin that has samples, rising */
    double snr_bin;
    size_t snr_bins, snr_unknown;
    int64_t *edge_confusion, *cloud_confusion, *confusion; /* classes x classes: true by answered; NULL without labels
                                                            * or with more than FST_CONFUSION_CLASSES; cloud_confusion
                                                            * also when not every answer is known */
    size_t agree;                                          /* of all.cloud_known: edge and cloud answer the same */
    size_t agree_offloaded;                                /* the same of all.offloaded */
    size_t corrected, spoiled;    /* of the offloaded: wrong at the edge and right in the cloud, and back */
    double ece_before, ece_after; /* of the edge's largest probability at T = 1 and at the temperature */
    double auroc;                 /* of the confidence against the edge being right */
    fst_cascade_point *curve;     /* rising thresholds, from nothing to everything offloaded */
    size_t points;
    double *confidence;            /* samples */
    int32_t *edge_answer, *answer; /* samples */
    uint8_t *offloaded;            /* samples */
} fst_cascade;
FST_MUST FST_API fst_status fst_cascade_evaluate(fst_cascade *out, const fst_cascade_input *in, fst_error *err);
FST_API void fst_cascade_release(fst_cascade *c);

/* ---- time -------------------------------------------------------------------------------------- */

/* Seconds of computing n rows: straight lines through measured points (rows rising); below the first as the first;
 * above the last in full batches of it and a rest. Without points computing takes no time. */
enum { FST_COST_POINTS = 8 };
typedef struct fst_cost {
    size_t points, rows[FST_COST_POINTS];
    double seconds[FST_COST_POINTS];
} fst_cost;
FST_API double fst_cost_seconds(const fst_cost *c, size_t rows);

typedef struct fst_link {
    double rate;    /* MB/s, that is 10^6 bytes a second; > 0 */
    double latency; /* seconds from the last byte sent to the last received */
    bool shared; /* device_edge: the devices of an edge share one; the others: all use one. Else everyone has his own */
} fst_link;

/* A link carries one message at a time in each direction, in the order of their coming. */
typedef struct fst_network {
    size_t devices, edges;   /* > 0 */
    const uint32_t *edge_of; /* the edge of each device; NULL: dealt in turn */
    fst_link device_edge, edge_cloud, device_cloud;
    int edge_servers, cloud_servers; /* batches that an edge and the cloud compute at a time; 0 means 1 */
} fst_network;

/* What one tier does with a batch. */
typedef struct fst_service {
    fst_cost compute;
    double planning; /* seconds a batch for deciding what happens to it (edge; none in the cloud) */
    size_t batch;    /* what waits is joined up to so many rows; 0: messages are not joined */
} fst_service;

typedef struct fst_workload {
    size_t samples;
    const uint32_t *device;   /* of each sample; NULL: all of device 0 */
    const uint8_t *offloaded; /* of each sample: it goes on to the cloud; NULL: none does */
    size_t batch;             /* samples that a device hands over at a time, in their order; > 0 */
    double interval;          /* seconds between two batches of a device; 0: all are there at the start */
    double sample_bytes, answer_bytes;
} fst_workload;

typedef enum fst_route {
    FST_ROUTE_CASCADE,   /* device -> edge; what is offloaded -> cloud; answers the same way back */
    FST_ROUTE_CLOUD_ONLY /* device -> cloud and back */
} fst_route;

/* Use of all links of a kind in one direction, or of all servers of a tier. */
typedef struct fst_use {
    uint64_t messages;    /* messages or batches */
    double bytes;         /* links */
    double busy, busiest; /* seconds of all together, and of the busiest one */
} fst_use;

/* A sample's latency runs from its batch's being complete at the device to its answer's being back there. Percentiles
 * are by nearest rank, NaN without samples. */
typedef struct fst_timing {
    double seconds;                     /* until the last answer is back */
    double planning, transfer, compute; /* staged: the parts of `seconds`; else the busy time of all resources */
    double mean, p50, p95, p99;         /* latency of a sample, seconds */
    size_t answered;                    /* all samples, or something is wrong */
    fst_use device_edge, edge_cloud, device_cloud; /* towards the cloud */
    fst_use answers;                               /* all links, towards the devices */
    fst_use edge, cloud;
    double bytes_per_sample; /* over all links, towards the cloud */
} fst_timing;

/*
 * Runs the model. Batches travel, are computed and answered as soon as what they need is free (a pipeline); no server
 * and no link is idle while something waits for it. `staged` puts a barrier after every leg of the way: each begins
 * when all of the former is done, so that the time is planning + transfer + compute, as field trials state it. Events
 * at the same time happen in the order in which they were caused, so that the result is a function of the arguments
 * alone.
 */
FST_MUST FST_API fst_status fst_timing_run(fst_timing *out, fst_route route, bool staged, const fst_network *network,
                                           const fst_workload *workload, const fst_service *edge,
                                           const fst_service *cloud, fst_error *err);

/* ---- where a model meets samples ---------------------------------------------------------------- */

/* What a model's samples go through before it sees them, as its file says: normalisation and fingerprint. For a loader
 * of the caller's own; everything below applies it by itself. */
FST_API fst_transform fst_model_transform(const fst_model *m);

/*
 * Whether a model can judge the samples of a source. FST_E_MISMATCH says what differs:
 *  - the shape of a sample, apart from dimensions of 1;
 *  - the number of classes: a source may have fewer than the model (its last ones may have no samples), never more;
 *  - the classes by name: the first difference is named. Classes in another order are not mapped.
 * Where either side has no names, or none but the classes' own numbers ("0", "1", ... in order), numbers are all there
 * is and count. If the other side's names are numbers in another order ("0", "1", "10", "2"), a warning says so. name:
 * of the model's file in messages; NULL: none, and no warning.
 */
FST_MUST FST_API fst_status fst_model_check_source(const fst_model *m, const char *name, const fst_source *s,
                                                   fst_error *err);

/*
 * Scores in which every class counts the same, from counts by class: samples of it, answers that name it, right
 * answers. macro_f1: mean of 2 right / (samples + answers) over the classes that have samples or answers (as
 * scikit-learn's f1_score with average macro and zero_division 0). balanced: mean of right / samples over the classes
 * that have samples. NaN without samples. Outputs may be NULL.
 */
FST_API void fst_macro_scores(const int64_t *samples, const int64_t *answers, const int64_t *right, size_t classes,
                              double *macro_f1, double *balanced);

/* How well a model does on labelled samples. */
typedef struct fst_evaluation {
    size_t samples, correct;
    double accuracy, loss; /* share of correct answers; mean cross entropy in nats */
} fst_evaluation;
/* Over all samples of a source, which is checked first (fst_model_check_source), with the model's own transform.
 * threads 0: all CPUs. FST_E_NUMERIC names a sample that makes an output infinite or NaN. */
FST_MUST FST_API fst_status fst_model_evaluate(fst_evaluation *out, const fst_model *m, const char *name,
                                               const fst_source *s, int threads, fst_error *err);

/* A model made ready to classify samples as they come in, `batch` (> 0) at a time; more are taken in turn, fewer cost
 * as much as up to 32. The model must outlive it. One thread at a time may use a classifier. threads 0: all CPUs. */
typedef struct fst_classifier fst_classifier;
FST_MUST FST_API fst_status fst_classifier_new(fst_classifier **out, const fst_model *m, size_t batch, int threads,
                                               fst_error *err);
/* Probabilities of n (> 0) raw samples, n x classes, one after the other. samples: elements of dtype FST_U8 (0 ... 255,
 * which are scaled to 0 ... 1) or FST_F32, each sample of the shape m->config.input, channels first; the model's own
 * transform is applied here. name: of the samples in messages, may be NULL. */
FST_MUST FST_API fst_status fst_classifier_run(fst_classifier *c, const char *name, fst_dtype dtype,
                                               const void *samples, size_t n, float *probability, fst_error *err);
FST_API void fst_classifier_free(fst_classifier *c);

/*
 * A model file made ready to classify, for bindings of other languages (python/fedstill.py has one): no call takes or
 * gives more than pointers, numbers and texts, so that none needs to know how a struct lies in memory (fst_error: an
 * int and 1024 characters). Model files say how their samples are transformed, and that is applied. One thread at a
 * time may use a predictor.
 */
typedef struct fst_predictor fst_predictor;
/* threads 0: all CPUs. */
FST_MUST FST_API fst_status fst_predictor_open(fst_predictor **out, const char *path, int threads, fst_error *err);
FST_API void fst_predictor_free(fst_predictor *p);
FST_API const char *fst_predictor_arch(const fst_predictor *p);
FST_API int fst_predictor_classes(const fst_predictor *p);
/* NULL when classes have no names, or there is no such class. Texts live as long as the predictor. */
FST_API const char *fst_predictor_class_name(const fst_predictor *p, int class_number);
/* Of one sample: its dimensions, and how large each is. */
FST_API int fst_predictor_rank(const fst_predictor *p);
FST_API int64_t fst_predictor_dim(const fst_predictor *p, int axis);
/* Probabilities of n samples, n x classes, those that `fedstill predict` gives for a file of these samples, bit for
 * bit: up to 64 go together, and n of another size makes the model ready anew (milliseconds), but for 1. Samples are
 * bytes (0 ... 255, scaled to 0 ... 1) or finite floats, one after the other, channels first. */
FST_MUST FST_API fst_status fst_predictor_run_u8(fst_predictor *p, const uint8_t *samples, size_t n, float *probability,
                                                 fst_error *err);
FST_MUST FST_API fst_status fst_predictor_run_f32(fst_predictor *p, const float *samples, size_t n, float *probability,
                                                  fst_error *err);

/* ---- measuring -------------------------------------------------------------------------------- */

/* Samples are seen through the model's own transform. */

typedef struct fst_measure_spec {
    const fst_source *source;
    const uint32_t *subset; /* samples; NULL: all */
    size_t count;           /* with subset */
    size_t batch_size;      /* > 0 */
    int threads;            /* 0: all CPUs */
    const char *backend;
    fst_precision precision;
    int repeats;   /* > 0: measurements of each point, of which the median counts */
    bool planning; /* also time the decision on a batch's logits: confidence, class and threshold */
    fst_confidence_kind kind;
    double temperature; /* with planning */
    size_t singles;     /* how many samples are timed one by one on one thread; 0: none */
    /* Called between the batches of fst_infer_logits with the samples done; what it returns ends the work. May be
     * NULL. */
    fst_status (*progress)(void *ctx, size_t done, fst_error *err);
    void *ctx;
} fst_measure_spec;

typedef struct fst_measured {
    fst_cost cost;   /* transform and a runner of batch_size rows at 1, a quarter, half and all of them, median of the
                      * repeats; fewer rows are made to take no longer than more */
    double planning; /* seconds of deciding on a batch of batch_size; 0 unless asked for */
    double p50, p95, p99; /* seconds of one sample alone on one thread, from its bytes to logits; NaN without singles */
    size_t singles;
    double peak_bytes; /* peak resident memory of the process so far; NaN where it is not known */
} fst_measured;

/* logits of all samples of the spec, rows x classes. */
FST_MUST FST_API fst_status fst_infer_logits(const fst_model *model, const fst_measure_spec *spec, float *logits,
                                             fst_error *err);
/* How long the model takes on this machine now. Not deterministic, of course. At least one sample. */
FST_MUST FST_API fst_status fst_measure(fst_measured *out, const fst_model *model, const fst_measure_spec *spec,
                                        fst_error *err);

/* ---- answering windows as they come ------------------------------------------------------------ */

/* One tier of a cascade that streams: a model, and from where on it is believed. */
typedef struct fst_tier_spec {
    fst_dtype dtype; /* of windows: FST_U8 (0 ... 255, scaled to 0 ... 1) or FST_F32 */
    fst_shape shape; /* of a window, channels first */
    size_t batch;    /* rows that are computed at a time, > 0: answers have the bits of fst_infer_logits with this batch
                        size */
    int threads;     /* 0: all CPUs */
    const char *backend;
    fst_precision precision;
    fst_confidence_kind kind;
    double temperature, threshold; /* below the threshold an answer is not sure */
} fst_tier_spec;
typedef struct fst_tier fst_tier;
/* The model must outlive it. FST_E_MISMATCH: the model cannot judge such windows. One thread at a time may use a tier.
 */
FST_MUST FST_API fst_status fst_tier_new(fst_tier **out, const fst_model *m, const fst_tier_spec *spec, fst_error *err);
FST_API void fst_tier_free(fst_tier *t); /* takes NULL */
/* Memory is to hold only what answers need. Kernels have parameters in layouts of their own: they are made now, and the
 * model's own are mapped from a file in `folder` that has no name, where what is still read comes from. Answers stay
 * the same. m: the model of fst_tier_new; its parameters are gone, and nobody else may use it any more. FST_E_IO,
 * FST_E_MEMORY: there is no such file, and nothing has changed. */
FST_MUST FST_API fst_status fst_tier_settle(fst_tier *t, fst_model *m, const char *folder, fst_error *err);
FST_API const fst_tier_spec *fst_tier_look(const fst_tier *t);
FST_API const fst_model *fst_tier_model(const fst_tier *t);
/* Logits of n raw windows (1 ... batch), each aligned to its elements: n x classes. */
FST_MUST FST_API fst_status fst_tier_logits(fst_tier *t, const void *const *windows, size_t n, float *logits,
                                            fst_error *err);
typedef struct fst_tier_answer {
    int32_t answer; /* -1: the logits are not finite, nobody can say */
    double confidence;
    bool sure;
} fst_tier_answer;
/* What one row of logits says. */
FST_API void fst_tier_judge(const fst_tier *t, const float *logits, fst_tier_answer *out);

/* ---- report -------------------------------------------------------------------------------------- */

/* Both ways of both routes, of one run; docs/formats.md. */
typedef struct fst_cascade_times {
    fst_timing cascade, cloud;               /* as a pipeline */
    fst_timing cascade_staged, cloud_staged; /* T1 and T2 of the field trial */
} fst_cascade_times;

/* What a report is about. Of an edge alone the cascade is one that asks nobody (threshold 0); of the cloud alone one
 * that asks for everything (any threshold above all confidences), with the cloud's logits for the edge's. */
typedef enum fst_report_route { FST_REPORT_CASCADE, FST_REPORT_EDGE_ONLY, FST_REPORT_CLOUD_ONLY } fst_report_route;

/* How a fleet answered the devices' windows, by the devices' own clocks: no two hosts' clocks are compared. Of each
 * window total = transfer + queue + compute. */
typedef struct fst_cascade_fleet {
    size_t windows, devices;
    size_t unsure; /* answered by an edge that did not reach the cloud */
    size_t differ; /* whose class or tier is another than the cloud's own copy of the sample gives */
    uint64_t asked_again;
    double seconds;             /* of the device that took longest, from its first window sent to its last answer */
    double mean, p50, p95, p99; /* of a window, from sent to answered */
    double transfer, queue, compute; /* means of its parts */
} fst_cascade_fleet;

typedef struct fst_cascade_report {
    fst_report_route route;
    const char *task, *edge_model, *cloud_model; /* names; NULL: not known */
    const char *edge_digest, *cloud_digest, *data_digest;
    char *const *class_names; /* classes entries, or NULL */
    const fst_cascade *cascade;
    const fst_calibration *calibration; /* NULL: none, T is 1 */
    const fst_threshold *choice;        /* how the threshold came about; NULL: fixed, the cascade's */
    size_t low_confidence;              /* edge only: samples that the choice would send to the cloud */
    const fst_network *network;         /* NULL: no times */
    const fst_workload *workload;       /* with network */
    const fst_cascade_times *times;     /* runs entries; of one route alone only its own times are read */
    size_t runs;
    const fst_measured *edge_measured, *cloud_measured; /* edge_runs, cloud_runs entries; latency of the first */
    size_t edge_runs, cloud_runs;
    const fst_cascade_fleet *fleet; /* NULL: no device was asked */
} fst_cascade_report;
/* Appends the JSON of format "fedstill-cascade-1". */
FST_MUST FST_API fst_status fst_cascade_report_json(const fst_cascade_report *r, fst_buf *out, fst_error *err);

FST_END_DECLS

#endif
