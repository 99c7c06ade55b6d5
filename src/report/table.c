/* Plain-text tables: aligned columns, one rule under the titles. No colours, no boxes, no wrapping: what is
 * printed can be read by awk as well. */
#include <stdio.h>
#include <string.h>

#include "text.h"

enum { GAP = 2 };

struct column {
    char *title;
    fst_align align;
    size_t width;
};

struct fst_table {
    struct column *columns;
    size_t ncolumns;
    char **cells; /* row-major; a rule is a row whose first cell is NULL */
    size_t count, cap;
    size_t rows;
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
        t->columns[i] =
            (struct column){fst_strdup(columns[i].title), columns[i].align, fst_text_width(columns[i].title)};
        ok = t->columns[i].title != NULL;
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
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            *p = ' ';
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

/* cells NULL: the titles. have: how many cells the row has. */
static fst_status write_row(const fst_table *t, char *const *cells, size_t have, fst_buf *out, fst_error *err)
{
    size_t from = out->len;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < t->ncolumns; i++) {
        const struct column *c = &t->columns[i];
        const char *text = !cells ? c->title : i < have ? cells[i] : "";
        size_t room = c->width - fst_text_width(text);
        s = fst__pad(out, (i ? GAP : 0) + (c->align == FST_RIGHT ? room : 0), err);
        if (!s)
            s = fst_buf_append(out, text, strlen(text), err);
        if (!s && c->align == FST_LEFT)
            s = fst__pad(out, room, err);
    }
    trim(out, from);
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

static fst_status write_rule(const fst_table *t, bool ascii, fst_buf *out, fst_error *err)
{
    size_t from = out->len;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < t->ncolumns; i++) {
        s = fst__pad(out, i ? GAP : 0, err);
        if (!s)
            s = fst__repeat(out, ascii ? "-" : "─", t->columns[i].width, err);
    }
    trim(out, from);
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

fst_status fst_table_write(const fst_table *t, bool ascii, fst_buf *out, fst_error *err)
{
    size_t before = out->len;
    fst_status s = write_row(t, NULL, 0, out, err);
    if (!s)
        s = write_rule(t, ascii, out, err);
    for (size_t at = 0; !s && at < t->count; at += t->ncolumns) {
        size_t have = t->count - at < t->ncolumns ? t->count - at : t->ncolumns;
        s = t->cells[at] ? write_row(t, t->cells + at, have, out, err) : write_rule(t, ascii, out, err);
    }
    if (s && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return s;
}
