/* Plain-text tables: aligned columns, one rule under the titles. No colours, no boxes. Cells are kept as text, row by
 * row; how wide columns become is decided when the table is written, when it may have to fit a terminal: columns are
 * left out or wrapped then, and a row takes as many lines as its longest wrapped cell. A table that fits has a line a
 * row, so that awk can read it. */
#include <stdio.h>
#include <string.h>

#include "text.h"

enum { GAP = 2, NARROWEST = 8 };

struct column {
    char *title;
    fst_align align;
    size_t width; /* of its widest text */
    int rank;     /* above 0: may be left out */
};

/* How a table is written: columns' widths, 0 for one that is left out. */
struct layout {
    size_t *width;
    size_t columns;
};

struct fst_table {
    struct column *columns;
    size_t ncolumns;
    char **cells; /* row-major; a rule is a row whose first cell is NULL */
    size_t count, cap;
    size_t rows;
    size_t fit; /* columns of the terminal; 0: any */
};

void fst_table_free(fst_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; t->columns && i < t->ncolumns; i++)
        fst_free(t->columns[i].title);
    for (size_t i = 0; i < t->count; i++)
        fst_free(t->cells[i]);
    fst_free(t->columns);
    fst_free(t->cells);
    fst_free(t);
}

fst_status fst_table_new(fst_table **out, const fst_column *columns, size_t n, fst_error *err)
{
    if (n == 0)
        return fst_fail(err, FST_E_ARGUMENT, "a table needs a column");
    fst_table *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    t->columns = fst_calloc(n, sizeof *t->columns);
    t->ncolumns = t->columns ? n : 0;
    bool ok = t->columns != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        t->columns[i] = (struct column){fst_strdup(columns[i].title), columns[i].align, 0, 0};
        ok = t->columns[i].title != NULL;
        if (ok) {
            fst_text_clean(t->columns[i].title, false);
            t->columns[i].width = fst_text_width(t->columns[i].title);
        }
    }
    if (!ok) {
        fst_table_free(t);
        return fst_fail_memory(err, n * sizeof *t->columns);
    }
    *out = t;
    return FST_OK;
}

/* Takes the text over, also on failure. */
static fst_status push(fst_table *t, char *text, fst_error *err)
{
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        char **cells = fst_realloc(t->cells, t->count * sizeof *cells, cap * sizeof *cells);
        if (!cells) {
            fst_free(text);
            return fst_fail_memory(err, cap * sizeof *cells);
        }
        t->cells = cells;
        t->cap = cap;
    }
    t->cells[t->count++] = text;
    return FST_OK;
}

fst_status fst_table_cell(fst_table *t, fst_error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return fst_fail(err, FST_E_ARGUMENT, "bad format string");
    char *text = fst_alloc((size_t)n + 1);
    if (!text)
        return fst_fail_memory(err, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    fst_text_clean(text, false);
    size_t column = t->count % t->ncolumns, width = fst_text_width(text);
    fst_status s = push(t, text, err);
    if (s)
        return s;
    if (width > t->columns[column].width)
        t->columns[column].width = width;
    t->rows += column == 0;
    return FST_OK;
}

fst_status fst_table_rule(fst_table *t, fst_error *err)
{
    fst_status s = FST_OK;
    while (!s && t->count % t->ncolumns)
        s = fst_table_cell(t, err, "%s", "");
    for (size_t i = 0; !s && i < t->ncolumns; i++)
        s = push(t, NULL, err);
    return s;
}

size_t fst_table_rows(const fst_table *t)
{
    return t->rows;
}

/* Takes blanks off the end, back to `from` at most. */
static void trim(fst_buf *out, size_t from)
{
    while (out->len > from && out->data[out->len - 1] == ' ')
        out->data[--out->len] = 0;
}

/* ---- layout ---------------------------------------------------------------------------------- */

void fst_table_fit(fst_table *t, size_t width)
{
    t->fit = width;
}

void fst_table_rank(fst_table *t, size_t column, int rank)
{
    if (column < t->ncolumns)
        t->columns[column].rank = rank;
}

static size_t line_width(const struct layout *l)
{
    size_t sum = 0, shown = 0;
    for (size_t i = 0; i < l->columns; i++) {
        sum += l->width[i];
        shown += l->width[i] > 0;
    }
    return sum + (shown ? (shown - 1) * GAP : 0);
}

/* Leaves out the shown column of the highest rank, of equal ones the last. False: there is none. */
static bool leave_out(const fst_table *t, struct layout *l)
{
    size_t at = l->columns;
    for (size_t i = 0; i < l->columns; i++)
        if (l->width[i] && t->columns[i].rank > 0 && (at == l->columns || t->columns[i].rank >= t->columns[at].rank))
            at = i;
    if (at == l->columns)
        return false;
    l->width[at] = 0;
    return true;
}

/* Takes a column off the widest one that is aligned left. False: all are as narrow as they may be. */
static bool narrow(const fst_table *t, struct layout *l)
{
    size_t at = l->columns;
    for (size_t i = 0; i < l->columns; i++)
        if (t->columns[i].align == FST_LEFT && l->width[i] > NARROWEST &&
            (at == l->columns || l->width[i] > l->width[at]))
            at = i;
    if (at == l->columns)
        return false;
    l->width[at]--;
    return true;
}

static fst_status lay_out(const fst_table *t, struct layout *l, fst_error *err)
{
    l->columns = t->ncolumns;
    l->width = fst_alloc(t->ncolumns * sizeof *l->width);
    if (!l->width)
        return fst_fail_memory(err, t->ncolumns * sizeof *l->width);
    for (size_t i = 0; i < t->ncolumns; i++)
        l->width[i] = t->columns[i].width;
    while (t->fit && line_width(l) > t->fit && leave_out(t, l))
        ;
    while (t->fit && line_width(l) > t->fit && narrow(t, l))
        ;
    return FST_OK;
}

/* How many bytes of text go on a line of `width` columns: all that fit, or up to the last blank among them. */
static size_t line_bytes(const char *text, size_t width)
{
    size_t n = 0, used = 0, blank = 0;
    while (text[n]) {
        uint32_t c;
        size_t bytes = fst__utf8_next(text + n, &c), wide;
        char one[5] = {0};
        memcpy(one, text + n, bytes);
        wide = fst_text_width(one);
        if (used + wide > width)
            return blank ? blank : n ? n : bytes;
        if (c == ' ')
            blank = n + 1;
        used += wide;
        n += bytes;
    }
    return n;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The next line of a cell, padded to `width` columns; *text is moved past it. A column of numbers is never wrapped. */
static fst_status write_cell(const struct column *c, size_t width, const char **text, fst_buf *out, fst_error *err)
{
    size_t all = strlen(*text), n = c->align == FST_RIGHT ? all : line_bytes(*text, width), wide = 0;
    char *line = fst_alloc(n + 1);
    if (!line)
        return fst_fail_memory(err, n + 1);
    memcpy(line, *text, n);
    line[n] = 0;
    *text += n;
    if (n < all)
        while (n && line[n - 1] == ' ')
            line[--n] = 0;
    wide = fst_text_width(line);
    size_t room = wide < width ? width - wide : 0;
    fst_status s = c->align == FST_RIGHT ? fst__pad(out, room, err) : FST_OK;
    if (!s)
        s = fst_buf_append(out, line, n, err);
    if (!s && c->align == FST_LEFT)
        s = fst__pad(out, room, err);
    fst_free(line);
    return s;
}

/* cells: where each column's text goes on; moved on by a line. *more: some have text left. */
static fst_status write_line(const fst_table *t, const struct layout *l, const char **cells, bool *more, fst_buf *out,
                             fst_error *err)
{
    size_t from = out->len;
    bool first = true;
    fst_status s = FST_OK;
    *more = false;
    for (size_t i = 0; !s && i < t->ncolumns; i++) {
        if (!l->width[i])
            continue;
        s = fst__pad(out, first ? 0 : GAP, err);
        if (!s)
            s = write_cell(&t->columns[i], l->width[i], &cells[i], out, err);
        *more = *more || *cells[i];
        first = false;
    }
    trim(out, from);
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

/* cells NULL: the titles. have: how many cells the row has. */
static fst_status write_row(const fst_table *t, const struct layout *l, char *const *cells, size_t have, fst_buf *out,
                            fst_error *err)
{
    const char **at = fst_alloc(t->ncolumns * sizeof *at);
    bool more = true;
    fst_status s = at ? FST_OK : fst_fail_memory(err, t->ncolumns * sizeof *at);
    for (size_t i = 0; at && i < t->ncolumns; i++)
        at[i] = !cells ? t->columns[i].title : i < have ? cells[i] : "";
    while (!s && more)
        s = write_line(t, l, at, &more, out, err);
    fst_free(at);
    return s;
}

static fst_status write_rule(const struct layout *l, bool ascii, fst_buf *out, fst_error *err)
{
    size_t from = out->len;
    bool first = true;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < l->columns; i++) {
        if (!l->width[i])
            continue;
        s = fst__pad(out, first ? 0 : GAP, err);
        if (!s)
            s = fst__repeat(out, ascii ? "-" : "─", l->width[i], err);
        first = false;
    }
    trim(out, from);
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

fst_status fst_table_write(const fst_table *t, bool ascii, fst_buf *out, fst_error *err)
{
    size_t before = out->len;
    struct layout l = {0};
    fst_status s = lay_out(t, &l, err);
    if (!s)
        s = write_row(t, &l, NULL, 0, out, err);
    if (!s)
        s = write_rule(&l, ascii, out, err);
    for (size_t at = 0; !s && at < t->count; at += t->ncolumns) {
        size_t have = t->count - at < t->ncolumns ? t->count - at : t->ncolumns;
        s = t->cells[at] ? write_row(t, &l, t->cells + at, have, out, err) : write_rule(&l, ascii, out, err);
    }
    if (s && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    fst_free(l.width);
    return s;
}
