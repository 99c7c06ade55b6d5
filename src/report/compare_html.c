/* A comparison as one HTML page: the report's style sheet and script, tables, and curves with bands of one standard
 * deviation whose points say what they are under a pointer. Nothing is loaded. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"
#include "html.h"

/* ---- tables ------------------------------------------------------------------------------------------------ */

static void cell(fst__page *p, const struct fst__col *col, const struct fst__cell *v, bool head)
{
    char text[128];
    if (head) {
        fst__put(p, "<th scope=\"row\">");
    } else {
        fst__putf(p, "<td class=\"%s\" data-label=\"", col->unit == FST__TEXT ? "t" : "n");
        fst__say(p, fst__col_title(col, text));
        fst__put(p, "\"");
        if (col->unit != FST__TEXT && isfinite(v->v.mean))
            fst__putf(p, " data-value=\"%.17g\"", v->v.mean);
        fst__put(p, ">");
    }
    fst__say(p, fst__cell_shown(col, v, " ± ", text));
    fst__put(p, head ? "</th>" : "</td>");
}

/* The first `names` columns, and columns from ... to - 1. */
static void part(fst__page *p, const struct fst__sheet *s, const char *title, size_t names, size_t from, size_t to)
{
    char text[128];
    fst__put(p, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    fst__say(p, title);
    fst__put(p, "\"><table class=\"sorts\">\n<caption><span>");
    fst__say(p, title);
    fst__put(p, "</span></caption>\n<thead><tr>");
    for (size_t k = 0; k < to; k++) {
        if (k >= names && k < from)
            continue;
        fst__putf(p, "<th scope=\"col\"%s>", s->col[k].unit == FST__TEXT ? "" : " class=\"n\"");
        fst__say(p, fst__col_title(&s->col[k], text));
        fst__put(p, "</th>");
    }
    fst__put(p, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < s->rows; i++) {
        fst__put(p, "<tr>");
        for (size_t k = 0; k < to; k++)
            if (k < names || k >= from)
                cell(p, &s->col[k], &s->cell[i * s->cols + k], k == 0);
        fst__put(p, "</tr>\n");
    }
    fst__put(p, "</tbody></table></div>\n");
}

static void table(fst_compare *c, fst__page *p, enum fst__sheet_kind kind)
{
    const struct fst__sheet *s = fst__sheet_of(c, kind);
    size_t costs = 1;
    if (!s)
        return;
    while (kind == FST__SHEET_METHODS && costs < s->cols &&
           (costs < 3 || (s->col[costs].unit != FST__WHOLE && s->col[costs].unit != FST__TIME)))
        costs++;
    if (kind == FST__SHEET_METHODS && costs < s->cols) {
        part(p, s, s->title, 1, 1, costs);
        part(p, s, "What it cost", 2, costs, s->cols);
    } else {
        part(p, s, s->title, 1, 1, s->cols);
    }
    fst__sheet_record(c, p, s);
    fst__record_end(p, true);
}

/* ---- curves -------------------------------------------------------------------------------------------------- */

enum { CHARTED = 12 }; /* rows; more lines than that tell nothing */

static void chart(fst_compare *c, fst__page *p, enum fst__axis axis)
{
    static const char *const titles[] = {"Accuracy over rounds", "Accuracy over bytes, up and down",
                                         "Accuracy over time of rounds"};
    static const char *const x_titles[] = {"round", "MB", "seconds"};
    fst__series series[CHARTED];
    size_t n = 0;
    for (size_t i = 0; i < c->rows && n < CHARTED; i++) {
        if (!fst__row_has_curve(&c->row[i]))
            continue;
        struct fst__mean_curve m = fst__row_curve(c, &c->row[i], axis);
        for (size_t k = 0; axis == FST__BY_BYTES && k < m.n; k++)
            m.x[k] /= 1e6;
        series[n++] = (fst__series){.name = fst__compare_text(c, "%zu: %s", i + 1, c->row[i].label),
                                    .x = m.x,
                                    .y = m.mean,
                                    .n = m.n,
                                    .low = m.low,
                                    .high = m.high};
    }
    const fst__chart of = {.title = titles[axis],
                           .x_title = x_titles[axis],
                           .series = series,
                           .count = n,
                           .percent = true,
                           .whole = axis == FST__BY_ROUND,
                           .mark_x = NAN,
                           .mark_y = NAN};
    if (n && !c->status)
        fst__line_chart(p, &of);
}

static void curves(fst_compare *c, fst__page *p)
{
    bool any = false;
    size_t with = 0;
    for (size_t i = 0; i < c->rows; i++) {
        any = any || fst__row_has_curve(&c->row[i]);
        with += fst__row_has_curve(&c->row[i]);
    }
    if (!any)
        return;
    fst__section(p, "curves", "Curves");
    fst__put(p,
             "<p>Mean over the seeds of the accuracy on the test samples, with one standard deviation. At each point "
             "every seed counts with its last round that was over by then; a curve ends where the first seed "
             "ends.</p>\n");
    if (with < c->rows)
        fst__missing(p, "Rows without a curve:", "they were measured at the end only, or their events are not there.");
    if (with > CHARTED)
        fst__missing(p, "Not all rows are drawn:", "only the first twelve; the tables have all.");
    fst__put(p, "<div class=\"charts\">\n");
    for (int a = 0; a < FST__AXES; a++)
        chart(c, p, a);
    fst__put(p, "</div>\n<details><summary>As tables</summary>\n");
    table(c, p, FST__SHEET_BY_ROUND);
    table(c, p, FST__SHEET_BY_BYTES);
    table(c, p, FST__SHEET_BY_TIME);
    fst__put(p, "</details>\n");
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void notes(fst_compare *c, fst__page *p)
{
    const char *line;
    for (size_t i = 0; i < c->notes; i++)
        fst__missing(p, "Note:", c->note[i]);
    fst__put(p, "<details open=\"open\"><summary>How to read this</summary>\n<ul>\n");
    for (size_t i = 0; (line = fst__compare_legend(c, i)); i++)
        fst__say_in(p, "li", line);
    fst__put(p, "</ul></details>\n");
}

static void settings(fst_compare *c, fst__page *p)
{
    fst__section(p, "settings", "Settings in which the rows differ");
    for (size_t i = 0; i < c->rows; i++) {
        fst__subtitle(p, fst__compare_text(c, "Row %zu: %s", i + 1, c->row[i].label));
        fst__say_in(p, "pre", *c->row[i].differs ? c->row[i].differs : "none");
    }
}

static void body(fst_compare *c, fst__page *p)
{
    fst__section(p, "methods", "Methods");
    table(c, p, FST__SHEET_METHODS);
    notes(c, p);
    if (c->rows > 1) {
        fst__section(p, "differences", "Differences");
        table(c, p, FST__SHEET_DIFFERENCES);
    }
    curves(c, p);
    struct fst__sheet *s = fst__sheet_of(c, FST__SHEET_TARGETS);
    if (s) {
        fst__section(p, "targets", "To a given accuracy");
        fst__say_in(p, "p", fst__compare_legend(c, 3));
        table(c, p, FST__SHEET_TARGETS);
    }
    settings(c, p);
    fst__section(p, "runs", "Runs");
    table(c, p, FST__SHEET_RUNS);
    fst__section_end(p);
}

fst_status fst__compare_html(fst_compare *c, fst_buf *out, fst_error *err)
{
    fst_buf inner = {0}, whole = {0};
    fst__page b = {.out = &inner, .err = err}, p = {.out = &whole, .err = err};
    body(c, &b);
    fst_status st = b.status ? b.status : c->status;
    if (!st) {
        fst__page_head(&p, c->row[0].result[0]->task, ": fedstill comparison");
        fst__put(&p, "<header>\n");
        fst__say_in(&p, "h1", fst__compare_text(c, "Comparison: %s", c->row[0].result[0]->task));
        fst__put(&p, "<p class=\"sub\">");
        fst__say(&p, fst__compare_head(c));
        fst__put(&p, "</p>\n</header>\n");
        fst__page_main(&b, &p);
        st = p.status ? p.status : c->status;
    }
    if (!st)
        st = fst_buf_append(out, whole.data, whole.len, err);
    fst__page_release(&b);
    fst__page_release(&p);
    fst_buf_release(&inner);
    fst_buf_release(&whole);
    return st;
}
