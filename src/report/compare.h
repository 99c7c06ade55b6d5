/*
 * Between the files of a comparison. Data flow: compare_events.c reads the curve of one stage of one run,
 * compare_read.c the rest of the run; compare.c puts runs that differ in their seed into rows, names the rows and says
 * which can be compared; compare_sheets.c makes tables of that, which compare_write.c and compare_html.c show and
 * compare_json.c does not need. All memory belongs to the comparison and goes with it.
 */
#ifndef FST_REPORT_COMPARE_H
#define FST_REPORT_COMPARE_H

#include "fedstill/compare.h"
#include "page.h"

enum { FST__TARGETS = 16, FST__BUDGETS = 6 };

enum fst__figure {
    FST__ACCURACY, /* of the model that the stage left, on the test samples */
    FST__BEST,     /* of the best round: see fst__result.validated */
    FST__LAST,     /* of the last round or epoch */
    FST__LOSS,
    FST__TOP5,
    FST__F1,
    FST__ROUNDS,
    FST__SECONDS,
    FST__UP,
    FST__DOWN,
    FST__FIGURES
};

/* What a curve is over. Bytes and seconds are sums over the rounds so far, both ways, without what measuring took. */
enum fst__axis { FST__BY_ROUND, FST__BY_BYTES, FST__BY_TIME, FST__AXES };

/* A round. NaN for what was not measured after it. */
struct fst__round {
    double x[FST__AXES];
    double accuracy, validation; /* on the test samples; on the validation samples */
};

/* What events.jsonl says of the stage that left the model with a digest. */
struct fst__curve {
    struct fst__round *round;
    size_t rounds;
    bool epochs;     /* not rounds: accuracy is not known, bytes neither */
    bool found;      /* the events have that model's rounds, from the first to the last */
    bool unfinished; /* the last process that worked there did not come to its end */
    bool validated;  /* some round or epoch was measured on validation samples */
};
/* The rounds are new memory, fst_free. */
FST_MUST fst_status fst__curve_parse(struct fst__curve *out, const fst_buf *events, const char *stage,
                                     const char *digest, fst_error *err);

/* What a stage of one run left. */
struct fst__result {
    const char *name, *output, *settings, *task, *stage, *kind, *digest;
    const char *train, *test; /* digests of the data */
    int64_t seed;
    double classes, test_samples; /* classes: NaN in summaries of earlier versions */
    double figure[FST__FIGURES];
    bool validated; /* FST__BEST is of the round that validation samples chose; else test samples chose it */
    struct fst__curve curve;
    double reached[FST__TARGETS][FST__AXES]; /* NaN: never */
};

/* Mean and spread at some points of an axis. */
struct fst__mean_curve {
    double *x, *mean, *low, *high, *sd;
    size_t n;
};

struct fst__row {
    const char *label;           /* "strategy=fedavg, rounds=3" */
    const char *differs;         /* all settings in which it differs from other rows, a line each */
    const char *identity;        /* its settings without the seed */
    struct fst__result **result; /* by seed */
    size_t count;
    bool other_test; /* than the reference has, for a seed that both have: not comparable */
    bool other_train;
};

struct fst__difference {
    size_t row;
    fst_paired test; /* of accuracy, row minus reference */
    size_t left_out; /* pairs of one seed with different test samples */
};

struct fst_compare {
    struct fst__result *result;
    size_t results, room;
    struct fst__row *row;
    size_t rows, against;
    double target[FST__TARGETS];
    size_t targets;
    bool chosen_targets;                /* by the caller */
    struct fst__difference *difference; /* of every row but the reference */
    const char **note;
    size_t notes;
    void **kept;
    size_t kept_count, kept_room;
    fst_status status; /* of the first allocation that failed */
    fst_error *err;
};

/* ---- memory (compare.c): zeroed, freed with the comparison; NULL sets c->status ---- */
void *fst__compare_room(fst_compare *c, size_t bytes);
const char *fst__compare_text(fst_compare *c, const char *fmt, ...) FST_PRINTF(2, 3);
void fst__compare_note(fst_compare *c, const char *fmt, ...) FST_PRINTF(2, 3);

/* Appends the run's results. A run that has none becomes a note. */
FST_MUST fst_status fst__compare_read(fst_compare *c, const fst_compare_run *run, const fst_compare_options *o,
                                      fst_error *err);

/* The same from the texts of summary.json and events.jsonl. */
FST_MUST fst_status fst__compare_take(fst_compare *c, const fst_compare_run *run, const fst_buf *summary_text,
                                      const fst_buf *events, const fst_compare_options *o, fst_error *err);
/* Rows, their names, the reference and its differences from the results that were taken. */
FST_MUST fst_status fst__compare_finish(fst_compare *c, const fst_compare_options *o, fst_error *err);

/* ---- figures of rows (compare_curves.c) ---- */
fst_spread fst__row_spread(const struct fst__row *r, enum fst__figure figure);
/* Rounds to a target; `got` of the row's runs reached it, over which the spread is. */
fst_spread fst__row_reached(const struct fst__row *r, size_t target, enum fst__axis axis, size_t *got);
/* All its runs have rounds that were measured. */
bool fst__row_has_curve(const struct fst__row *r);
/* Of the accuracy that each run had when it had spent x; NaN unless all had. */
fst_spread fst__row_at(const struct fst__row *r, enum fst__axis axis, double x);
/* At every point where one of its runs was measured, from the first that all have to the last. */
struct fst__mean_curve fst__row_curve(fst_compare *c, const struct fst__row *r, enum fst__axis axis);
/* Up to FST__BUDGETS points of an axis that tables show; returns how many. */
size_t fst__budgets(const fst_compare *c, enum fst__axis axis, double out[FST__BUDGETS]);
void fst__reach_targets(fst_compare *c);

/* ---- tables (compare_sheets.c) ---- */
enum fst__unit {
    FST__TEXT,
    FST__WHOLE,
    FST__SHARE,  /* shown in per cent */
    FST__POINTS, /* a difference of shares, shown in points */
    FST__PLAIN,
    FST__TIME,
    FST__BYTES,
    FST__P /* a probability */
};
struct fst__col {
    const char *title;
    enum fst__unit unit;
    bool spread; /* of a mean and its standard deviation */
    bool bare;   /* the title says no unit */
};
struct fst__cell {
    const char *text; /* FST__TEXT; of a number: what stands behind it, or NULL */
    fst_spread v;
};
enum { FST__COLS = 20 };
struct fst__sheet {
    const char *name, *title;
    struct fst__col col[FST__COLS];
    size_t cols, rows;
    struct fst__cell *cell; /* row-major */
};
enum fst__sheet_kind {
    FST__SHEET_METHODS,
    FST__SHEET_DIFFERENCES,
    FST__SHEET_TARGETS,
    FST__SHEET_BY_ROUND,
    FST__SHEET_BY_BYTES,
    FST__SHEET_BY_TIME,
    FST__SHEET_RUNS,
    FST__SHEET_CURVES, /* every point of the mean curves */
    FST__SHEETS
};
/* NULL when it would be empty, or memory is lacking (c->status). */
struct fst__sheet *fst__sheet_of(fst_compare *c, enum fst__sheet_kind kind);
/* A column's title, with the unit where cells do not say it. */
const char *fst__col_title(const struct fst__col *col, char out[128]);
/* What a cell shows; "-" for what is not known. */
const char *fst__cell_shown(const struct fst__col *col, const struct fst__cell *cell, const char *plus_minus,
                            char out[128]);
/* What is compared: "6 runs, 2 methods, seeds 1 2 3; ..." */
const char *fst__compare_head(fst_compare *c);
/* The i-th sentence on how to read the tables; NULL: no more. */
const char *fst__compare_legend(fst_compare *c, size_t i);

/* Begins recording it as CSV; fst__record_end ends that. */
void fst__sheet_record(fst_compare *c, fst__page *p, const struct fst__sheet *s);

FST_MUST fst_status fst__compare_html(fst_compare *c, fst_buf *out, fst_error *err);
FST_MUST fst_status fst__compare_json(fst_compare *c, fst_buf *out, fst_error *err);

#endif
