/*
 * fedstill/report.h - numbers as people read them: aligned tables, pictures made of characters, units.
 * Everything is appended to an fst_buf; nothing here knows a terminal, a file or a locale.
 */
#ifndef FEDSTILL_REPORT_H
#define FEDSTILL_REPORT_H

#include "fedstill/base.h"

/* Terminal columns that UTF-8 text takes: combining marks take none, East Asian wide characters two. A
 * byte that is not UTF-8 takes one. */
FST_API size_t fst_text_width(const char *text);

/* ---- tables ------------------------------------------------------------------------------- */

typedef enum fst_align { FST_LEFT, FST_RIGHT } fst_align;
typedef struct fst_column {
    const char *title;
    fst_align align;
} fst_column;

/* Columns two blanks apart, a rule under the titles, no blanks at line ends. Text is copied; line breaks,
 * tabs and other control characters in cells become blanks. */
typedef struct fst_table fst_table;
FST_MUST FST_API fst_status fst_table_new(fst_table **out, const fst_column *columns, size_t ncolumns, fst_error *err);
FST_API void fst_table_free(fst_table *t);
/* The next cell, left to right; behind the last column a new row begins. */
FST_MUST FST_API fst_status fst_table_cell(fst_table *t, fst_error *err, const char *fmt, ...) FST_PRINTF(3, 4);
/* A rule between the rows so far and those to come (for totals). An unfinished row is filled up. */
FST_MUST FST_API fst_status fst_table_rule(fst_table *t, fst_error *err);
FST_API size_t fst_table_rows(const fst_table *t);
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
    const char *label; /* what stands behind the bar; NULL: the value */
} fst_bar;
FST_MUST FST_API fst_status fst_report_bars(const fst_bar *bars, size_t n, size_t width, double full, bool ascii,
                                            fst_buf *out, fst_error *err);
/* One such bar alone, without name or line end, for a cell of a table: `share` 1 is the full width. */
FST_MUST FST_API fst_status fst_report_bar(double share, size_t width, bool ascii, fst_buf *out, fst_error *err);

/* ---- runs --------------------------------------------------------------------------------- */

/* The table of a run's models, from its summary.json: accuracy, loss, parameters, time, bytes exchanged (both ways, of
 * the step that made the model), file. */
FST_MUST FST_API fst_status fst_report_summary(const char *path, bool ascii, fst_buf *out, fst_error *err);

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

#endif
