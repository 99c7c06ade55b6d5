/*
 * The tables of a page as CSV: RFC 4180, UTF-8, lines end with CR LF. A page's cells are recorded while they are
 * written, with the numbers themselves in place of what is shown. Units stand in the titles ("time [s]"), which are
 * therefore written last, when the cells have said them. Text goes through fst_text_clean; what is not known is an
 * empty cell.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "page.h"

/* Data links make a page larger: neither one nor all together may take over. */
enum { MAX_LINK = 24 << 10, MAX_LINKS = 512 << 10 };

struct fst__recorder {
    size_t columns, at;
    fst_buf rows;
    char **title;
    const char **unit;
};

static void recorder_free(struct fst__recorder *r)
{
    if (!r)
        return;
    for (size_t i = 0; r->title && i < r->columns; i++)
        fst_free(r->title[i]);
    fst_free(r->title);
    fst_free(r->unit);
    fst_buf_release(&r->rows);
    fst_free(r);
}

void fst__page_release(fst__page *p)
{
    recorder_free(p->recorder);
    for (size_t i = 0; i < p->csv_count; i++)
        fst_buf_release(&p->csv[i].text);
    fst_free(p->csv);
    p->recorder = NULL;
    p->csv = NULL;
    p->csv_count = p->csv_room = 0;
}

static void fail(fst__page *p, fst_status st)
{
    p->status = p->status ? p->status : st;
}

static bool is_name(const fst__page *p, const char *name)
{
    for (size_t i = 0; i < p->csv_count; i++)
        if (!strcmp(p->csv[i].name, name))
            return true;
    return false;
}

/* A name that is a file's on every system and no other table's. */
static void name_table(fst__page *p, const char *name, char out[FST__TABLE_NAME])
{
    char base[FST__TABLE_NAME - 12];
    snprintf(base, sizeof base, "%s", name);
    for (char *c = base; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", *c))
            *c = '_';
    snprintf(out, FST__TABLE_NAME, "%s", base);
    for (size_t n = 2; is_name(p, out); n++)
        snprintf(out, FST__TABLE_NAME, "%s-%zu", base, n);
}

static struct fst__recorder *recorder_new(const char *const *titles, bool marked)
{
    struct fst__recorder *r = fst_calloc(1, sizeof *r);
    while (r && titles[r->columns])
        r->columns++;
    if (r) {
        r->title = fst_calloc(r->columns + 1, sizeof *r->title);
        r->unit = fst_calloc(r->columns + 1, sizeof *r->unit);
    }
    bool ok = r && r->title && r->unit;
    for (size_t i = 0; ok && i < r->columns; i++)
        ok = (r->title[i] = fst_strdup(titles[i] + (marked && titles[i][0] == '#'))) != NULL;
    if (!ok) {
        recorder_free(r);
        return NULL;
    }
    return r;
}

void fst__record_begin(fst__page *p, const char *name, const char *const *titles, bool marked)
{
    if (p->status || p->recorder)
        return;
    if (p->csv_count == p->csv_room) {
        size_t room = p->csv_room ? 2 * p->csv_room : 16;
        fst__csv *more = fst_realloc(p->csv, p->csv_room * sizeof *more, room * sizeof *more);
        if (!more) {
            fail(p, fst_fail_memory(p->err, room * sizeof *more));
            return;
        }
        p->csv = more;
        p->csv_room = room;
    }
    p->recorder = recorder_new(titles, marked);
    if (!p->recorder) {
        fail(p, fst_fail_memory(p->err, sizeof *p->recorder));
        return;
    }
    fst__csv *t = &p->csv[p->csv_count];
    name_table(p, name, t->name);
    t->text = (fst_buf){0};
    p->csv_count++;
}

/* ---- cells ----------------------------------------------------------------------------------- */

static fst_status put_text(fst_buf *out, const char *text, fst_error *err)
{
    char *clean = fst_strdup(text ? text : "");
    if (!clean)
        return fst_fail_memory(err, strlen(text));
    fst_text_clean(clean, false);
    size_t n = strlen(clean);
    bool quoted = strpbrk(clean, ",\"") || (n && (clean[0] == ' ' || clean[n - 1] == ' '));
    fst_status st = quoted ? fst_buf_append(out, "\"", 1, err) : FST_OK;
    for (const char *c = clean; !st && *c; c++)
        st = fst_buf_append(out, *c == '"' ? "\"\"" : c, *c == '"' ? 2 : 1, err);
    if (!st && quoted)
        st = fst_buf_append(out, "\"", 1, err);
    fst_free(clean);
    return st;
}

/* The shortest text that reads back as the same number. */
static fst_status put_number(fst_buf *out, double x, fst_error *err)
{
    char text[40] = "";
    for (int digits = 15; isfinite(x) && digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    return fst_buf_append(out, text, strlen(text), err);
}

/* Before each cell. False: nothing is recorded, or the row is full. */
static bool next_cell(fst__page *p)
{
    struct fst__recorder *r = p->recorder;
    if (p->status || !r || r->at == r->columns)
        return false;
    if (r->at)
        fail(p, fst_buf_append(&r->rows, ",", 1, p->err));
    r->at++;
    return !p->status;
}

void fst__record_text(fst__page *p, const char *text)
{
    if (next_cell(p))
        fail(p, put_text(&p->recorder->rows, text, p->err));
}

void fst__record_number(fst__page *p, double value, const char *unit)
{
    if (!next_cell(p))
        return;
    p->recorder->unit[p->recorder->at - 1] = unit;
    fail(p, put_number(&p->recorder->rows, value, p->err));
}

const char *fst__record_title(const fst__page *p)
{
    const struct fst__recorder *r = p->recorder;
    return r && r->at ? r->title[r->at - 1] : "";
}

void fst__record_row(fst__page *p)
{
    struct fst__recorder *r = p->recorder;
    if (p->status || !r)
        return;
    while (r->at < r->columns)
        if (!next_cell(p))
            return;
    r->at = 0;
    fail(p, fst_buf_append(&r->rows, "\r\n", 2, p->err));
}

/* ---- the end of a table ------------------------------------------------------------------------ */

static fst_status put_titles(const struct fst__recorder *r, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < r->columns; i++) {
        char title[256];
        snprintf(title, sizeof title, "%s%s%s%s", r->title[i], r->unit[i] ? " [" : "", r->unit[i] ? r->unit[i] : "",
                 r->unit[i] ? "]" : "");
        if (i)
            st = fst_buf_append(out, ",", 1, err);
        if (!st)
            st = put_text(out, title, err);
    }
    return st ? st : fst_buf_append(out, "\r\n", 2, err);
}

static void put_link(fst__page *p, const fst__csv *t)
{
    if (t->text.len > MAX_LINK || p->csv_linked + t->text.len > MAX_LINKS)
        return;
    p->csv_linked += t->text.len;
    fst__putf(p, "<p class=\"csv\"><a download=\"%s.csv\" href=\"data:text/csv;charset=utf-8,", t->name);
    for (size_t i = 0; i < t->text.len && !p->status; i++) {
        unsigned char c = (unsigned char)t->text.data[i];
        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("-_.,", c)))
            fail(p, fst_buf_append(p->out, &c, 1, p->err));
        else
            fail(p, fst_buf_printf(p->out, p->err, "%%%02X", c));
    }
    fst__putf(p, "\">%s.csv</a></p>\n", t->name);
}

void fst__record_end(fst__page *p, bool link)
{
    struct fst__recorder *r = p->recorder;
    if (!r)
        return;
    fst__csv *t = &p->csv[p->csv_count - 1];
    if (!p->status)
        fail(p, put_titles(r, &t->text, p->err));
    if (!p->status && r->rows.len)
        fail(p, fst_buf_append(&t->text, r->rows.data, r->rows.len, p->err));
    recorder_free(r);
    p->recorder = NULL;
    if (link && !p->status)
        put_link(p, t);
}
