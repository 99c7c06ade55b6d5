/* Between the files of the HTML report: what was read, and the sections. */
#ifndef FST_REPORT_HTML_H
#define FST_REPORT_HTML_H

#include <jansson.h>

#include "page.h"

enum piece { PIECE_SUMMARY, PIECE_EDGE, PIECE_CLOUD, PIECE_DIRECT, PIECE_EVENTS, PIECES };
/* SHOWN_STAGES: a task has 64 at most, each of which may imply another. */
enum { FST__SHOWN_STAGES = 128, FST__MAX_POINTS = 100000, FST__MAX_CLASSES = 1024, FST__MAX_CLIENTS = 64 };

/* A file of the run. */
struct fst__piece {
    const char *path; /* below the output folder */
    fst_buf text;
    bool there;
    char why[sizeof((fst_error *)0)->message]; /* why it is not used; "" for one that is, or that is not there */
    json_t *json;                              /* not of the events */
};

/* An epoch or a round as its event says; NaN for what it does not say. */
struct fst__step_point {
    double number, loss, accuracy, other_loss, other_accuracy;
    double selected, reported, lost, bytes_up, bytes_down, seconds, norm;
    double raw_up, raw_down; /* bytes, had codecs not made them fewer */
    double mb_up, mb_down;   /* the bytes in megabytes, for charts */
    double rate;             /* of learning */
    double validation;       /* a round's accuracy on the edges' validation samples */
};

/* What a client of a round did, as its event says; NaN for what it does not say. */
struct fst__client_point {
    double client, reported, samples, loss, seconds, bytes_up, bytes_down, raw_up, raw_down;
};

/* A sample of what the process used. */
struct fst__resource_point {
    double seconds;  /* worked, over all processes of the run */
    double cpu, rss; /* of its process: CPU seconds, bytes of resident memory */
    bool first;      /* of its process */
    size_t stage;    /* in the history; FST__SHOWN_STAGES: of none */
};

struct fst__stage_history {
    char name[64], state[32];
    int begun, resumed, finished; /* how often; resumed: begun and not finished before */
    bool rounds;                  /* points are rounds, not epochs */
    char loss_kind[240];          /* of the training loss; "" when no event says */
    struct fst__step_point *point;
    size_t points, room;
    struct fst__client_point client[FST__MAX_CLIENTS]; /* of the last round */
    size_t clients;
};

struct fst__history {
    struct fst__stage_history *stage;
    size_t stages, stage_room, skipped, lost_clients;
    char first[32], last[32]; /* times */
    /* of the last run in the file */
    int64_t run;
    char version[32], commit[FST_DIGEST_HEX]; /* of the process that began last; "" when no event says */
    struct fst__resource_point *resource;
    size_t resources, resource_room;
    bool begun;    /* a process has, since the last sample */
    double offset; /* seconds worked before this process */
    fst_status status;
    fst_error *err;
};

struct fst__html {
    const fst_html_report *r;
    struct fst__piece piece[PIECES];
    char path[PIECES][64]; /* of reports of named stages */
    struct fst__history history;
    fst_csv_fn table; /* gets every table; NULL: nobody */
    void *ctx;
};

/* The page from pieces whose text is set; reads no file but through r->example. */
FST_MUST fst_status fst__html_write(struct fst__html *h, fst_buf *out, fst_error *err);
void fst__html_release(struct fst__html *h);

/* ---- history.c ---- */
FST_MUST fst_status fst__history_parse(struct fst__history *h, const fst_buf *text, fst_error *err);
void fst__history_release(struct fst__history *h);
const struct fst__stage_history *fst__history_find(const struct fst__history *h, const char *stage);

/* ---- reading JSON: NaN and NULL for what is missing or something else ---- */
double fst__json_number(json_t *j, const char *key);
const char *fst__json_text(json_t *j, const char *key);
/* A square matrix of counts as new memory, n classes; NULL when it is none. */
int64_t *fst__json_matrix(json_t *j, size_t *n);

/* ---- models (html_models.c) ---- */
enum { FST__MODEL_TITLE = 96 };
/* Of a confusion matrix. balanced: the mean recall of the classes that are there; macro_f1: the mean F1 of the classes
 * that are there or were answered. NaN where there are no samples. */
struct fst__scores {
    double samples, accuracy, balanced, macro_f1;
    double top5; /* not of a confusion matrix */
};
struct fst__scores fst__scores_of(size_t n, const int64_t *matrix);
/* Of one class; NaN when it has no samples. */
double fst__recall(size_t n, const int64_t *matrix, size_t class);
/* The digest of the model that a step made; NULL: none. */
const char *fst__step_digest(const struct fst__html *h, const char *step);
/* role: "edge" or "cloud" of the cascade. The last step whose model it is; NULL: of none. */
const char *fst__role_step(const struct fst__html *h, const char *role);
/* "student federated (edge)" where a model is both; else the one name. Return out. */
const char *fst__role_title(const struct fst__html *h, const char *role, char out[FST__MODEL_TITLE]);
const char *fst__model_title(const struct fst__html *h, const char *step, char out[FST__MODEL_TITLE]);
/* The role whose model was tried, and answered the same; NULL: none. */
const char *fst__tried_role(const struct fst__html *h, const fst_tried_model *t);

/* ---- sections ---- */
/* What kind of stage a step is: as summary.json says, else (of earlier versions) its name. */
const char *fst__step_kind(const struct fst__html *h, const char *step);
/* "student distilled", or of a stage with a name of its own "small (distilled)". Returns out. */
const char *fst__step_title(const struct fst__html *h, const char *step, char out[FST__MODEL_TITLE]);
/* The last step of a kind that is done; the kind itself when there is none, which names no step then. */
const char *fst__last_of(const struct fst__html *h, const char *kind);
json_t *fst__stage_json(const struct fst__html *h, const char *step);
void fst__html_answers(const struct fst__html *h, fst__page *p); /* html_answers.c: what the first screen says */
void fst__html_models(const struct fst__html *h, fst__page *p);  /* html_models.c */
void fst__html_stages(const struct fst__html *h, fst__page *p);  /* html_stages.c */
void fst__html_curves(const struct fst__html *h, fst__page *p);
void fst__html_rounds(const struct fst__html *h, fst__page *p);
void fst__html_resources(const struct fst__html *h, fst__page *p); /* html_resources.c */
void fst__html_by_class(const struct fst__html *h, fst__page *p);  /* html_accuracy.c */
void fst__html_by_snr(const struct fst__html *h, fst__page *p);
void fst__html_confusion(const struct fst__html *h, fst__page *p);
void fst__html_pairs(const struct fst__html *h, fst__page *p);
void fst__html_cascade(const struct fst__html *h, fst__page *p); /* html_cascade.c */
void fst__html_data(const struct fst__html *h, fst__page *p);    /* html_data.c */
void fst__html_settings(const struct fst__html *h, fst__page *p);
void fst__html_provenance(const struct fst__html *h, fst__page *p);

#endif
