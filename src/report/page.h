/* Writing HTML and SVG that are well-formed XML too, and each table as CSV beside it. Text from anywhere outside goes
 * through fst__say, which escapes; fst__put and fst__putf are for the program's own words and for numbers. The first
 * error sticks, and what comes after it does nothing, so that nobody has to look in between. */
#ifndef FST_REPORT_PAGE_H
#define FST_REPORT_PAGE_H

#include "fedstill/report.h"

enum { FST__SECTIONS = 24, FST__TABLE_NAME = 64 };

/* A table as CSV (RFC 4180). */
typedef struct fst__csv {
    char name[FST__TABLE_NAME]; /* "stages": a file name without its ending */
    fst_buf text;
} fst__csv;

typedef struct fst__page {
    fst_buf *out;
    fst_error *err;
    fst_status status;
    size_t sections; /* that were begun, for the list of contents */
    struct {
        const char *id, *title;
    } section[FST__SECTIONS];
    bool open; /* a section is */
    /* the tables so far; the last is the one that is being recorded */
    fst__csv *csv;
    size_t csv_count, csv_room, csv_linked; /* csv_linked: bytes of the links so far */
    bool only_csv;                          /* what follows is recorded and not shown */
    struct fst__recorder *recorder;         /* NULL: no table is open */
} fst__page;
/* Frees what a page holds besides what it wrote. */
void fst__page_release(fst__page *p);

void fst__put(fst__page *p, const char *html);
void fst__putf(fst__page *p, const char *fmt, ...) FST_PRINTF(2, 3);
/* Any bytes; NULL says nothing. Bytes that are not UTF-8, marks of direction and invisible characters become
 * U+FFFD, characters that XML has not become blanks. */
void fst__say(fst__page *p, const char *text);
/* <p class="kind">text</p> */
void fst__say_in(fst__page *p, const char *element, const char *text);

/* Everything up to the body; kind is put behind the title. Then, behind what the page begins with: the list of the
 * sections that `body` has, what was written to body->out as <main>, and the end of the page. */
void fst__page_head(fst__page *p, const char *title, const char *kind);
void fst__page_main(const fst__page *body, fst__page *p);
extern const char fst__html_style[], fst__html_script[]; /* html_style.c */

/* Ends the section before it. id and title are kept, not copied. */
void fst__section(fst__page *p, const char *id, const char *title);
void fst__section_end(fst__page *p);
void fst__subtitle(fst__page *p, const char *title);
/* What is missing, and why. */
void fst__missing(fst__page *p, const char *what, const char *why);

/* ---- tables ---- */
/* name: of the CSV file. Titles end with NULL; a title that begins with '#' (left out) is of a column of numbers. */
void fst__table_begin(fst__page *p, const char *name, const char *caption, const char *const *titles);
void fst__table_end(fst__page *p);
void fst__row_begin(fst__page *p);
void fst__row_end(fst__page *p);
/* The first cell of a row. */
void fst__cell_head(fst__page *p, const char *text);
void fst__cell(fst__page *p, const char *text);
/* shown: text of the number; value: itself, for sorting and for programs. Not finite: "-". */
void fst__cell_number(fst__page *p, double value, const char *shown);
void fst__cell_percent(fst__page *p, double share);
void fst__cell_count(fst__page *p, double value); /* a whole number, all digits */
void fst__cell_seconds(fst__page *p, double value);
void fst__cell_bytes(fst__page *p, double value);
void fst__cell_plain(fst__page *p, double value); /* four digits */

/* ---- tables as CSV (csv.c) ----
 * fst__table_begin and the cells record by themselves; the rest is for tables that are written otherwise. A second
 * table of the same name becomes "NAME-2". marked: titles of numbers begin with '#', which is left out. unit: "s", "B",
 * "share", or NULL; it becomes part of the column's title. */
void fst__record_begin(fst__page *p, const char *name, const char *const *titles, bool marked);
void fst__record_text(fst__page *p, const char *text);
void fst__record_number(fst__page *p, double value, const char *unit); /* not finite: an empty cell */
void fst__record_row(fst__page *p);                                    /* ends the row; the next cell begins another */
/* The title of the cell that was recorded last; "" when no table is open. */
const char *fst__record_title(const fst__page *p);
/* link: also writes a link that holds the table, if it is small. */
void fst__record_end(fst__page *p, bool link);

/* A name and what it is, in a list that fst__facts_begin opens. */
void fst__facts_begin(fst__page *p);
void fst__fact(fst__page *p, const char *name, const char *text); /* nothing when text is NULL or "" */
void fst__fact_number(fst__page *p, const char *name, double value, const char *shown); /* nothing when not finite */
void fst__fact_digest(fst__page *p, const char *name, const char *digest);
void fst__facts_end(fst__page *p);

/* ---- charts (plot.c) ---- */
typedef struct fst__series {
    const char *name;
    const double *x, *y; /* points whose x or y is not finite break the line */
    size_t n;
    const double *low, *high; /* a band around the line, where both are finite; NULL: none */
} fst__series;
typedef struct fst__chart {
    const char *title, *x_title, *y_title;
    const fst__series *series;
    size_t count;
    bool percent;          /* y is a share */
    bool x_percent;        /* x too */
    bool whole;            /* x counts something */
    double mark_x, mark_y; /* a point that is singled out; NaN: none */
    const char *mark;
} fst__chart;
/* A figure; nothing when no series has two points, or one. */
void fst__line_chart(fst__page *p, const fst__chart *c);

enum { FST__PARTS = 6 };
typedef struct fst__bar_row {
    const char *name, *label;
    double part[FST__PARTS];
} fst__bar_row;
/* Horizontal bars, stacked, of one scale. parts: names, at most FST__PARTS. */
void fst__bar_chart(fst__page *p, const char *title, const char *const *parts, size_t nparts, const fst__bar_row *rows,
                    size_t nrows);
/* values: n x n, true by answered. names may be NULL. Up to 12 classes a table that fits a phone; above a picture, and
 * up to 32 a table to be opened. */
void fst__confusion(fst__page *p, const char *name, const char *title, size_t n, const char *const *names,
                    const int64_t *values);

#endif
