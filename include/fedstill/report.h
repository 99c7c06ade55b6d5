/*
 * fedstill/report.h - what people look at: aligned tables, pictures made of characters, units, pictures of samples, and
 * the HTML report of a run. Everything is appended to an fst_buf; nothing here knows a terminal or a locale.
 */
#ifndef FEDSTILL_REPORT_H
#define FEDSTILL_REPORT_H

#include "fedstill/store.h"

FST_BEGIN_DECLS

/* Terminal columns that UTF-8 text takes: combining marks take none, East Asian wide characters two. A
 * byte that is not UTF-8 takes one. */
FST_API size_t fst_text_width(const char *text);

/*
 * Text from files and names may hold what a terminal obeys (escape sequences, C1 controls such as U+009B) or what makes
 * text look like another (marks of direction such as U+202E, invisible characters). Everything that is printed goes
 * through one of these two.
 *
 * fst_text_clean replaces it in place; the text gets no longer. Controls of ASCII become blanks, the rest and bytes
 * that are not UTF-8 "?". lines: line breaks and tabs stay, and other controls become "?" too.
 */
FST_API void fst_text_clean(char *text, bool lines);
/* Appends JSON with such characters, which can only stand in its strings, as \u escapes: a program reads the same text.
 */
FST_MUST FST_API fst_status fst_text_json(fst_buf *out, const char *json, fst_error *err);

/* ---- tables ------------------------------------------------------------------------------- */

typedef enum fst_align { FST_LEFT, FST_RIGHT } fst_align;
typedef struct fst_column {
    const char *title;
    fst_align align;
} fst_column;

/* Columns two blanks apart, a rule under the titles, no blanks at line ends. Text is copied and goes through
 * fst_text_clean. */
typedef struct fst_table fst_table;
FST_MUST FST_API fst_status fst_table_new(fst_table **out, const fst_column *columns, size_t ncolumns, fst_error *err);
FST_API void fst_table_free(fst_table *t);
/* The next cell, left to right; after the last column a new row begins. */
FST_MUST FST_API fst_status fst_table_cell(fst_table *t, fst_error *err, const char *fmt, ...) FST_PRINTF(3, 4);
/* A rule between the rows so far and those to come (for totals). An unfinished row is filled up. */
FST_MUST FST_API fst_status fst_table_rule(fst_table *t, fst_error *err);
FST_API size_t fst_table_rows(const fst_table *t);
/*
 * Makes fst_table_write keep lines to `width` columns (0: any width, as at the start) as far as that goes. Columns with
 * a rank above 0 are left out first, the highest rank first; then the widest columns that are aligned left are wrapped,
 * at blanks where there are some. Numbers are never cut.
 */
FST_API void fst_table_fit(fst_table *t, size_t width);
FST_API void fst_table_rank(fst_table *t, size_t column, int rank);
/* ascii: rules of '-' instead of a box-drawing line. */
FST_MUST FST_API fst_status fst_table_write(const fst_table *t, bool ascii, fst_buf *out, fst_error *err);

/* ---- pictures ----------------------------------------------------------------------------- */

/* A matrix (row-major) in five shades, " ░▒▓█" or " .:*#": blank for zero alone, then quarters of the largest
 * value; what is negative or not finite shows as '?'. Under it stands what the shades mean. row_names and
 * column_names may be NULL (numbers are shown). */
typedef struct fst_heat_map {
    const char *row_title, *column_title;
    const char *const *row_names, *const *column_names;
    size_t rows, columns;
    const double *values;
} fst_heat_map;
FST_MUST FST_API fst_status fst_report_heat_map(const fst_heat_map *m, bool ascii, fst_buf *out, fst_error *err);

/* One horizontal bar a row: name, bar of at most `width` characters (eighths of a block, or '#'), value.
 * The longest belongs to the largest value, or to `full` where that is > 0. */
typedef struct fst_bar {
    const char *name;
    double value;
    const char *label; /* what stands after the bar; NULL: the value */
} fst_bar;
FST_MUST FST_API fst_status fst_report_bars(const fst_bar *bars, size_t n, size_t width, double full, bool ascii,
                                            fst_buf *out, fst_error *err);
/* One such bar alone, without name or line end, for a cell of a table: `share` 1 is the full width. */
FST_MUST FST_API fst_status fst_report_bar(double share, size_t width, bool ascii, fst_buf *out, fst_error *err);

/* ---- runs --------------------------------------------------------------------------------- */

/* The table of a run's models, from its summary.json: accuracy, loss, parameters, time, bytes exchanged (both ways, of
 * the step that made the model), file. */
FST_MUST FST_API fst_status fst_report_summary(const char *path, bool ascii, fst_buf *out, fst_error *err);

/* ---- pictures of samples ------------------------------------------------------------------- */

/* A raw sample, as a source gives it: FST_U8 or FST_F32. (2, L) is a signal, I and Q; (H, W), (1, H, W) and (3, H, W)
 * are images; all others are drawn as one line over their elements. */
typedef struct fst_sample {
    fst_dtype dtype;
    fst_shape shape;
    const void *data;
    const char *name; /* of its class; NULL: none */
    double snr;       /* dB; NaN: not known */
} fst_sample;

typedef enum fst_picture_format { FST_PICTURE_PNG, FST_PICTURE_SVG } fst_picture_format;

/* One sample: a signal over time, as a constellation and as a spectrogram; an image as it is. Appended to out. */
FST_MUST FST_API fst_status fst_report_sample(const fst_sample *s, const char *title, fst_picture_format format,
                                              fst_buf *out, fst_error *err);
/* The sample's own pixels as a PNG, without title or margin: what reads images has the sample again. Of u8 images with
 * one or three channels only (FST_E_ARGUMENT). */
FST_MUST FST_API fst_status fst_report_pixels(const fst_sample *s, fst_buf *out, fst_error *err);

/* Sample `column` of row `row` of a sheet, valid until the next call. *there false: the row has no such sample. */
typedef fst_status (*fst_sample_fn)(void *ctx, size_t row, size_t column, fst_sample *out, bool *there, fst_error *err);
#define FST_SHEET_ROWS 256
#define FST_SHEET_COLUMNS 64
/* A contact sheet: a row for each class, its name, and spectrograms of signals or images. */
typedef struct fst_sheet {
    const char *title;
    size_t rows, columns;     /* 1 ... FST_SHEET_ROWS, 1 ... FST_SHEET_COLUMNS */
    const char *const *names; /* rows; NULL: numbers */
    fst_sample_fn sample;
    void *ctx;
} fst_sheet;
FST_MUST FST_API fst_status fst_report_sheet(const fst_sheet *s, fst_picture_format format, fst_buf *out,
                                             fst_error *err);

/* ---- the HTML report ------------------------------------------------------------------------ */

/* Samples of each class somewhere: "training", "test", "client 0". */
typedef struct fst_place_counts {
    const char *name;
    const int64_t *counts; /* classes */
} fst_place_counts;

typedef struct fst_snr_count {
    double from, to; /* dB; equal: just this one */
    int64_t samples, right;
} fst_snr_count;

/* A model that the caller tried on the test samples. */
typedef struct fst_tried_model {
    const char *step;         /* "edge_kd" */
    const int64_t *confusion; /* classes x classes: true by answered */
    const fst_snr_count *snr; /* NULL: not known */
    size_t snr_bins;
    const char *digest; /* of its file; NULL: the one that the summary names */
} fst_tried_model;

/* What the report is made of: the files of an output folder, and what the caller knows besides. Everything but output
 * may be NULL or 0. */
typedef struct fst_html_report {
    const char *output;        /* folder with summary.json, events.jsonl, STEP/report.json */
    const char *settings;      /* the task with all defaults, as YAML */
    const char *settings_note; /* where they come from */
    const fst_run *run;        /* of the registry */
    int classes;
    const char *const *class_names; /* classes */
    const fst_place_counts *places;
    size_t place_count;
    const char *places_note; /* why they are missing, or where they come from */
    const fst_tried_model *models;
    size_t model_count;
    const char *test_digest; /* of the data that models were tried on and examples are of */
    /* A sample of class `truth`. *exact: one that the model of `step` took for `taken_for`, which is looked for first;
     * false: any. *there false: there is none at all. It is valid until the next call. */
    fst_status (*example)(void *ctx, const char *step, int truth, int taken_for, fst_sample *out, bool *there,
                          bool *exact, fst_error *err);
    void *ctx;
} fst_html_report;

/*
 * Appends one HTML page that needs nothing else: no network, no script to be read. It is well-formed XML too. Sections
 * of which there are no data are left out; a file that is damaged or too large is named in its section and is no error.
 * All text from files is escaped.
 */
FST_MUST FST_API fst_status fst_report_html(const fst_html_report *r, fst_buf *out, fst_error *err);
/* The same, and every table of the page as CSV (RFC 4180, UTF-8, numbers as they are, units in the titles): table is
 * called with each one's name, made of lower-case letters, digits, "-" and "_". Its first error ends it and is
 * returned. */
typedef fst_status (*fst_csv_fn)(void *ctx, const char *name, const fst_buf *text, fst_error *err);
FST_MUST FST_API fst_status fst_report_html_csv(const fst_html_report *r, fst_buf *out, fst_csv_fn table, void *ctx,
                                                fst_error *err);

/* ---- units -------------------------------------------------------------------------------- */

/* Each writes into out and returns it. What is not finite is "-". */
#define FST_HUMAN 32
/* "999 B", "1.2 kB", "345 MB": powers of 1000. */
FST_API const char *fst_human_bytes(double bytes, char out[FST_HUMAN]);
/* "999", "12.3k", "4.5M". */
FST_API const char *fst_human_count(double count, char out[FST_HUMAN]);
/* "1.2 ms", "3.4 s", "2 min 05 s", "3 h 07 min". */
FST_API const char *fst_human_seconds(double seconds, char out[FST_HUMAN]);
/* 0.9871 is "98.71 %". */
FST_API const char *fst_human_percent(double share, char out[FST_HUMAN]);
/* Local time "2025-01-31 12:00:05"; 0 is "-". */
FST_API const char *fst_human_time(int64_t unix_ms, char out[FST_HUMAN]);

FST_END_DECLS

#endif
