/*
 * fedstill/compare.h - several runs side by side: which method is better, after how many rounds, bytes and seconds, and
 * whether the difference is more than chance. And the exact statistics that this takes.
 *
 * Runs that differ in nothing but the seed are one row, a method; rows are called by the settings in which they differ.
 * A figure of a row is a mean over its seeds with the standard deviation of a sample (divisor n - 1); where one seed
 * lacks the figure, the row lacks it. Everything is read from output folders: nothing is trained or measured here.
 *
 * What is never done in silence: a best round that was chosen on test samples is marked as such; runs that are not
 * finished, that are there twice, or whose data are others are named in a note; tests of significance leave out pairs
 * of runs that were not measured on the same samples.
 */
#ifndef FEDSTILL_COMPARE_H
#define FEDSTILL_COMPARE_H

#include "fedstill/report.h"

FST_BEGIN_DECLS

/* ---- statistics --------------------------------------------------------------------------- */

/* Of n values; NaN where there are too few: mean needs one, sd two. A NaN among them makes both NaN. */
typedef struct fst_spread {
    size_t n;
    double mean, sd;
} fst_spread;
FST_API fst_spread fst_spread_of(const double *values, size_t n);

/* Student's t distribution with `df` >= 1 degrees of freedom: the probability of |T| >= |t|, to about 1e-12, and the t
 * that |T| exceeds with probability p, 0 < p < 1 (p = 0.05 for an interval of 95 %). NaN for what is outside. */
FST_API double fst_t_two_sided(double t, double df);
FST_API double fst_t_critical(double p, double df);

/* Above so many pairs the exact test of signs would take too long: its p is NaN then. */
#define FST_FLIP_PAIRS 20
/* Differences a[i] - b[i] of n pairs. Everything is NaN that cannot be said: with fewer than two pairs all but the
 * mean. */
typedef struct fst_paired {
    size_t n;
    double mean, sd;
    double low, high; /* interval of 95 % for the mean, by the t distribution */
    double p_t;    /* two-sided paired t test. NaN too where all differences are the same: nothing is known of spread */
    double p_flip; /* exact permutation test: the share of the 2^n ways to give the differences signs whose mean is at
                    * least as far from 0. No distribution is assumed. It is 2^(1-n) at the least */
} fst_paired;
FST_API fst_paired fst_paired_of(const double *a, const double *b, size_t n);

/* ---- comparisons -------------------------------------------------------------------------- */

typedef struct fst_compare_run {
    const char *name;     /* for messages: how the caller was given the run */
    const char *output;   /* folder with summary.json and events.jsonl */
    const char *settings; /* lines "key=value" (fst_task_settings); NULL: not known, and the run is left out */
} fst_compare_run;

typedef struct fst_compare_options {
    const char *const *stages; /* stages to compare, a row for each; none: of each run the last that left a model */
    size_t stage_count;
    const double *targets; /* accuracies, 0 < a <= 1, to which rounds, bytes and seconds are counted; none: two that
                            * follow from the reference, which the output says */
    size_t target_count;
    const char *against; /* the reference: number of a row from 1, or what it is called; NULL: the first row */
} fst_compare_options;

typedef enum fst_compare_format {
    FST_COMPARE_TEXT,     /* tables of at most `width` columns */
    FST_COMPARE_MARKDOWN, /* the same as pipe tables */
    FST_COMPARE_CSV,      /* one table, a line for each row, RFC 4180 */
    FST_COMPARE_JSON,     /* everything, with the curves of every run: docs/compare.md */
    FST_COMPARE_HTML      /* one page that needs nothing else */
} fst_compare_format;

#define FST_COMPARE_RUNS 10000

/* Reads the runs; strings need not live on. FST_E_CONFIG: none of them can be compared (the message says why of the
 * first), no run has a stage, or there is no row `against`. */
typedef struct fst_compare fst_compare;
FST_MUST FST_API fst_status fst_compare_new(fst_compare **out, const fst_compare_run *runs, size_t n,
                                            const fst_compare_options *o, fst_error *err);
FST_API void fst_compare_free(fst_compare *c);
/* Appends it. width: of text, 40 at least (0: 80). ascii: text without other characters. */
FST_MUST FST_API fst_status fst_compare_write(fst_compare *c, fst_compare_format format, size_t width, bool ascii,
                                              fst_buf *out, fst_error *err);
/* Every table as CSV, the curves and the runs' own too; see fst_report_html_csv. */
FST_MUST FST_API fst_status fst_compare_csv(fst_compare *c, fst_csv_fn table, void *ctx, fst_error *err);

FST_END_DECLS

#endif
