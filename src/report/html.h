/* Between the files of the HTML report: what was read, and the sections. */
#ifndef FST_REPORT_HTML_H
#define FST_REPORT_HTML_H

#include <jansson.h>

#include "page.h"

enum piece { PIECE_SUMMARY, PIECE_EDGE, PIECE_CLOUD, PIECE_DIRECT, PIECE_EVENTS, PIECES };
enum { FST__MAX_STAGES = 32, FST__MAX_POINTS = 100000, FST__MAX_CLASSES = 1024 };

/* A file of the run. */
struct fst__piece {
    const char *path; /* below the output folder */
    fst_buf text;
    bool there;
    char why[sizeof((fst_error *)0)->message]; /* why it is not used; "" for one that is, or that is not there */
    json_t *json;  /* not of the events */
};

/* An epoch or a round as its event says; NaN for what it does not say. */
struct fst__step_point {
    double number, loss, accuracy, other_loss, other_accuracy;
    double selected, reported, lost, bytes_up, bytes_down, seconds, norm;
    double mb_up, mb_down; /* the bytes in megabytes, for charts */
};

struct fst__stage_history {
    char name[64], state[32];
    int begun, resumed, finished; /* how often; resumed: begun and not finished before */
    bool rounds;                  /* points are rounds, not epochs */
    struct fst__step_point *point;
    size_t points, room;
};

struct fst__history {
    struct fst__stage_history stage[FST__MAX_STAGES];
    size_t stages, skipped, lost_clients;
    char first[32], last[32]; /* times */
    fst_status status;
    fst_error *err;
};

struct fst__html {
    const fst_html_report *r;
    struct fst__piece piece[PIECES];
    struct fst__history history;
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

/* ---- sections ---- */
const char *fst__step_title(const char *step);
json_t *fst__stage_json(const struct fst__html *h, const char *step);
void fst__html_figures(const struct fst__html *h, fst__page *p); /* the tiles under the title */
void fst__html_stages(const struct fst__html *h, fst__page *p);  /* html_stages.c */
void fst__html_curves(const struct fst__html *h, fst__page *p);
void fst__html_rounds(const struct fst__html *h, fst__page *p);
void fst__html_by_class(const struct fst__html *h, fst__page *p); /* html_accuracy.c */
void fst__html_by_snr(const struct fst__html *h, fst__page *p);
void fst__html_confusion(const struct fst__html *h, fst__page *p);
void fst__html_pairs(const struct fst__html *h, fst__page *p);
void fst__html_cascade(const struct fst__html *h, fst__page *p); /* html_cascade.c */
void fst__html_data(const struct fst__html *h, fst__page *p);    /* html_data.c */
void fst__html_settings(const struct fst__html *h, fst__page *p);
void fst__html_provenance(const struct fst__html *h, fst__page *p);

extern const char fst__html_style[], fst__html_script[]; /* html_style.c */

#endif
