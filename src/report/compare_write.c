/* A comparison as text, Markdown and CSV. What stands in the tables is decided elsewhere (compare_sheets.c). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "page.h"
#include "text.h"

enum { USUAL_WIDTH = 80, LEAST_WIDTH = 40, METHOD_WIDTH = 28 };

static const enum fst__sheet_kind shown[] = {FST__SHEET_METHODS,  FST__SHEET_DIFFERENCES, FST__SHEET_TARGETS,
                                             FST__SHEET_BY_ROUND, FST__SHEET_BY_BYTES,    FST__SHEET_BY_TIME};
enum { SHOWN = sizeof shown / sizeof *shown };

/* ---- text ------------------------------------------------------------------------------------------------ */

/* Words up to the width; lines after the first are indented. */
static fst_status wrapped(const char *text, size_t width, size_t indent, fst_buf *out, fst_error *err)
{
    char *clean = fst_strdup(text);
    size_t at = 0;
    fst_status st = clean ? FST_OK : fst_fail_memory(err, strlen(text));
    if (clean)
        fst_text_clean(clean, false);
    for (char *word = clean; !st && word && *word; word += strspn(word, " ")) {
        size_t n = strcspn(word, " ");
        char end = word[n];
        word[n] = 0;
        size_t w = fst_text_width(word);
        bool breaks = at && at + 1 + w > width;
        if (breaks)
            st = fst_buf_printf(out, err, "\n%*s", (int)indent, "");
        if (!st)
            st = fst_buf_printf(out, err, "%s%s", at && !breaks ? " " : "", word);
        at = breaks ? indent + w : at + (at > 0) + w;
        word[n] = end;
        word += n;
    }
    fst_free(clean);
    return st ? st : fst_buf_append(out, "\n", 1, err);
}

static size_t width_of(const struct fst__sheet *s, size_t col, const char *plus_minus)
{
    char text[128];
    size_t width = fst_text_width(fst__col_title(&s->col[col], text));
    for (size_t i = 0; i < s->rows; i++) {
        size_t w = fst_text_width(fst__cell_shown(&s->col[col], &s->cell[i * s->cols + col], plus_minus, text));
        width = w > width ? w : width;
    }
    return s->col[col].unit == FST__TEXT && width > METHOD_WIDTH ? METHOD_WIDTH : width;
}

/* Column 0, and columns from ... to - 1. */
static fst_status block(const struct fst__sheet *s, size_t from, size_t to, size_t width, bool ascii, fst_buf *out,
                        fst_error *err)
{
    fst_column columns[FST__COLS];
    fst_table *t = NULL;
    size_t n = 0, used[FST__COLS];
    char text[128], titles[FST__COLS][128];
    for (size_t k = 0; k < to; k++)
        if (k == 0 || k >= from) {
            columns[n] =
                (fst_column){fst__col_title(&s->col[k], titles[n]), s->col[k].unit == FST__TEXT ? FST_LEFT : FST_RIGHT};
            used[n++] = k;
        }
    fst_status st = fst_table_new(&t, columns, n, err);
    for (size_t i = 0; !st && i < s->rows; i++)
        for (size_t k = 0; !st && k < n; k++)
            st = fst_table_cell(
                t, err, "%s",
                fst__cell_shown(&s->col[used[k]], &s->cell[i * s->cols + used[k]], ascii ? " +- " : " ± ", text));
    if (!st) {
        fst_table_fit(t, width);
        st = fst_table_write(t, ascii, out, err);
    }
    fst_table_free(t);
    return st;
}

/* As many columns side by side as there is room for; the rest below, beside the rows' numbers again. */
static fst_status text_sheet(const struct fst__sheet *s, size_t width, bool ascii, fst_buf *out, fst_error *err)
{
    const char *plus_minus = ascii ? " +- " : " ± ";
    fst_status st = fst_buf_append(out, "\n", 1, err);
    if (!st)
        st = wrapped(s->title, width, 2, out, err);
    for (size_t from = 1; !st && from < s->cols;) {
        size_t to = from, total = width_of(s, 0, plus_minus);
        while (to < s->cols && (to == from || total + 2 + width_of(s, to, plus_minus) <= width))
            total += 2 + width_of(s, to++, plus_minus);
        if (from > 1)
            st = fst_buf_append(out, "\n", 1, err);
        if (!st)
            st = block(s, from, to, width, ascii, out, err);
        from = to;
    }
    return st;
}

static fst_status text_list(fst_compare *c, size_t width, fst_buf *out, fst_error *err)
{
    const char *line;
    fst_status st = fst_buf_append(out, "\n", 1, err);
    for (size_t i = 0; !st && i < c->notes; i++)
        st = wrapped(fst__compare_text(c, "Note: %s.", c->note[i]), width, 2, out, err);
    for (size_t i = 0; !st && (line = fst__compare_legend(c, i)); i++)
        st = wrapped(line, width, 2, out, err);
    return st;
}

static fst_status write_text(fst_compare *c, size_t width, bool ascii, fst_buf *out, fst_error *err)
{
    fst_status st = wrapped(fst__compare_head(c), width, 2, out, err);
    for (size_t i = 0; !st && !c->status && i < SHOWN; i++) {
        const struct fst__sheet *s = fst__sheet_of(c, shown[i]);
        if (s)
            st = text_sheet(s, width, ascii, out, err);
    }
    return st ? st : text_list(c, width, out, err);
}

/* ---- Markdown ---------------------------------------------------------------------------------------------- */

/* A cell's text: what ends a cell or begins something else is escaped. */
static fst_status markdown(const char *text, fst_buf *out, fst_error *err)
{
    char *clean = fst_strdup(text);
    fst_status st = clean ? FST_OK : fst_fail_memory(err, strlen(text));
    if (clean)
        fst_text_clean(clean, false);
    for (const char *p = clean; !st && p && *p; p++) {
        if (strchr("|\\`*<>[]_", *p))
            st = fst_buf_append(out, "\\", 1, err);
        if (!st)
            st = fst_buf_append(out, p, 1, err);
    }
    fst_free(clean);
    return st;
}

static fst_status markdown_sheet(const struct fst__sheet *s, fst_buf *out, fst_error *err)
{
    char text[128];
    fst_status st = fst_buf_append(out, "\n", 1, err);
    if (!st)
        st = markdown(s->title, out, err);
    if (!st)
        st = fst_buf_printf(out, err, ":\n\n");
    for (size_t k = 0; !st && k < s->cols; k++) {
        st = fst_buf_printf(out, err, "| ");
        if (!st)
            st = markdown(fst__col_title(&s->col[k], text), out, err);
        if (!st)
            st = fst_buf_printf(out, err, k + 1 < s->cols ? " " : " |\n");
    }
    for (size_t k = 0; !st && k < s->cols; k++)
        st = fst_buf_printf(out, err, "|%s%s",
                            s->col[k].unit == FST__TEXT ? "---" : "---:", k + 1 < s->cols ? "" : "|\n");
    for (size_t i = 0; !st && i < s->rows; i++)
        for (size_t k = 0; !st && k < s->cols; k++) {
            st = fst_buf_printf(out, err, "| ");
            if (!st)
                st = markdown(fst__cell_shown(&s->col[k], &s->cell[i * s->cols + k], " ± ", text), out, err);
            if (!st)
                st = fst_buf_printf(out, err, k + 1 < s->cols ? " " : " |\n");
        }
    return st;
}

static fst_status markdown_item(const char *text, bool first, fst_buf *out, fst_error *err)
{
    fst_status st = fst_buf_printf(out, err, "%s- ", first ? "\n" : "");
    if (!st)
        st = markdown(text, out, err);
    return st ? st : fst_buf_append(out, "\n", 1, err);
}

static fst_status write_markdown(fst_compare *c, fst_buf *out, fst_error *err)
{
    const char *line;
    fst_status st = markdown(fst__compare_head(c), out, err);
    if (!st)
        st = fst_buf_append(out, "\n", 1, err);
    for (size_t i = 0; !st && !c->status && i < SHOWN; i++) {
        const struct fst__sheet *s = fst__sheet_of(c, shown[i]);
        if (s)
            st = markdown_sheet(s, out, err);
    }
    for (size_t i = 0; !st && i < c->notes; i++)
        st = markdown_item(fst__compare_text(c, "Note: %s.", c->note[i]), i == 0, out, err);
    for (size_t i = 0; !st && (line = fst__compare_legend(c, i)); i++)
        st = markdown_item(line, i + c->notes == 0, out, err);
    return st;
}

/* ---- CSV ---------------------------------------------------------------------------------------------------- */

static const char *unit_of(const struct fst__col *col)
{
    switch (col->unit) {
    case FST__SHARE:
    case FST__POINTS:
        return "share";
    case FST__TIME:
        return "s";
    case FST__BYTES:
        return "B";
    default:
        return NULL;
    }
}

/* Of a spread two columns, and of a number with words behind it one more for these. */
void fst__sheet_record(fst_compare *c, fst__page *p, const struct fst__sheet *s)
{
    const char *titles[3 * FST__COLS + 1] = {NULL};
    bool words[FST__COLS] = {false};
    size_t n = 0;
    for (size_t k = 0; k < s->cols; k++) {
        for (size_t i = 0; i < s->rows; i++)
            words[k] = words[k] || (s->col[k].unit != FST__TEXT && s->cell[i * s->cols + k].text);
        titles[n++] = s->col[k].title;
        if (s->col[k].spread)
            titles[n++] = fst__compare_text(c, "%s, standard deviation", s->col[k].title);
        if (words[k])
            titles[n++] = fst__compare_text(c, "%s, note", s->col[k].title);
    }
    fst__record_begin(p, s->name, titles, false);
    for (size_t i = 0; i < s->rows; i++) {
        for (size_t k = 0; k < s->cols; k++) {
            const struct fst__cell *cell = &s->cell[i * s->cols + k];
            if (s->col[k].unit == FST__TEXT)
                fst__record_text(p, cell->text);
            else
                fst__record_number(p, cell->v.mean, unit_of(&s->col[k]));
            if (s->col[k].spread)
                fst__record_number(p, cell->v.sd, unit_of(&s->col[k]));
            if (words[k])
                fst__record_text(p, cell->text);
        }
        fst__record_row(p);
    }
}

fst_status fst_compare_csv(fst_compare *c, fst_csv_fn table, void *ctx, fst_error *err)
{
    fst_buf none = {0};
    fst__page p = {.out = &none, .err = err, .only_csv = true};
    for (int k = 0; k < FST__SHEETS && !c->status; k++) {
        const struct fst__sheet *s = fst__sheet_of(c, k);
        if (s) {
            fst__sheet_record(c, &p, s);
            fst__record_end(&p, false);
        }
    }
    fst_status st = p.status ? p.status : c->status;
    for (size_t i = 0; !st && i < p.csv_count; i++)
        st = table(ctx, p.csv[i].name, &p.csv[i].text, err);
    fst__page_release(&p);
    fst_buf_release(&none);
    return st;
}

static fst_status first_table(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    return strcmp(name, "methods") ? FST_OK : fst_buf_append(ctx, text->data, text->len, err);
}

fst_status fst_compare_write(fst_compare *c, fst_compare_format format, size_t width, bool ascii, fst_buf *out,
                             fst_error *err)
{
    fst_buf text = {0};
    fst_status st;
    width = !width ? USUAL_WIDTH : width < LEAST_WIDTH ? LEAST_WIDTH : width;
    c->err = err;
    c->status = FST_OK;
    switch (format) {
    case FST_COMPARE_MARKDOWN:
        st = write_markdown(c, &text, err);
        break;
    case FST_COMPARE_CSV:
        st = fst_compare_csv(c, first_table, &text, err);
        break;
    case FST_COMPARE_JSON:
        st = fst__compare_json(c, &text, err);
        break;
    case FST_COMPARE_HTML:
        st = fst__compare_html(c, &text, err);
        break;
    default:
        st = write_text(c, width, ascii, &text, err);
    }
    st = st ? st : c->status;
    if (!st)
        st = fst_buf_append(out, text.data, text.len, err);
    fst_buf_release(&text);
    c->err = NULL;
    return st;
}
