/* The HTML report: reads the files of a run and puts the sections into one page. What the sections say is in the other
 * files of this name. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

static const struct {
    const char *path;
    size_t most; /* bytes */
} files[PIECES] = {{"summary.json", 16 << 20},
                   {"edge_infer/report.json", 64 << 20},
                   {"cloud_infer/report.json", 64 << 20},
                   {"cloud_direct_infer/report.json", 64 << 20},
                   {"events.jsonl", 256 << 20}};

/* ---- JSON ------------------------------------------------------------------------------------------ */

double fst__json_number(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *fst__json_text(json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

int64_t *fst__json_matrix(json_t *j, size_t *n)
{
    size_t rows = json_array_size(j);
    int64_t *m = rows && rows <= FST__MAX_CLASSES ? fst_calloc(rows * rows, sizeof *m) : NULL;
    for (size_t i = 0; m && i < rows; i++) {
        json_t *row = json_array_get(j, i);
        bool ok = json_array_size(row) == rows;
        for (size_t k = 0; ok && k < rows; k++) {
            int64_t *v = &m[i * rows + k];
            ok = fst_json_is_whole(json_array_get(row, k), v) && *v >= 0;
        }
        if (!ok) {
            fst_free(m);
            return NULL;
        }
    }
    *n = m ? rows : 0;
    return m;
}

/* ---- pieces ------------------------------------------------------------------------------------------- */

static void read_piece(struct fst__piece *f, const char *output, size_t most)
{
    fst_error e = {0};
    char *path = fst_path_join(output, f->path);
    f->there = path && fst_file_exists(path);
    if (f->there && fst_file_read(path, most, &f->text, &e))
        snprintf(f->why, sizeof f->why, "%s", e.message);
    fst_free(path);
}

static void parse_piece(struct fst__piece *f)
{
    json_error_t e;
    fst_error large = {0};
    if (!f->there || f->why[0])
        return;
    if (fst_json_fits(f->path, f->text.data ? f->text.data : "", f->text.len, f->text.len, &large)) {
        snprintf(f->why, sizeof f->why, "%s", large.message);
        return;
    }
    f->json = json_loadb(f->text.data ? f->text.data : "", f->text.len, 0, &e);
    if (!f->json)
        snprintf(f->why, sizeof f->why, "%s:%d:%d: %.160s", f->path, e.line, e.column, e.text);
    else if (!json_is_object(f->json))
        snprintf(f->why, sizeof f->why, "%s: is no JSON object", f->path);
    if (f->why[0]) {
        json_decref(f->json);
        f->json = NULL;
    }
}

void fst__html_release(struct fst__html *h)
{
    for (int i = 0; i < PIECES; i++) {
        json_decref(h->piece[i].json);
        fst_buf_release(&h->piece[i].text);
    }
    fst__history_release(&h->history);
}

/* Reports of stages that have names of their own: of several of a kind, the last one's. */
static void find_reports(struct fst__html *h)
{
    static const struct {
        enum piece piece;
        const char *kind;
    } reports[] = {{PIECE_EDGE, "edge_infer"}, {PIECE_CLOUD, "cloud_infer"}, {PIECE_DIRECT, "cloud_direct_infer"}};
    struct fst__piece *f = &h->piece[PIECE_SUMMARY];
    parse_piece(f);
    for (size_t i = 0; f->json && i < sizeof reports / sizeof *reports; i++) {
        const char *step = fst__last_of(h, reports[i].kind);
        if (!strchr(step, '/') && strlen(step) + sizeof "/report.json" <= sizeof h->path[0])
            snprintf(h->path[reports[i].piece], sizeof h->path[0], "%.40s/report.json", step);
    }
    json_decref(f->json);
    f->json = NULL;
    f->why[0] = 0;
}

/* ---- the page ------------------------------------------------------------------------------------------ */

static const char *task_name(const struct fst__html *h)
{
    const char *name = fst__json_text(h->piece[PIECE_SUMMARY].json, "task");
    for (int i = PIECE_EDGE; !name && i <= PIECE_DIRECT; i++)
        name = fst__json_text(h->piece[i].json, "task");
    return name ? name : h->r->run ? h->r->run->task : "a run";
}

static void banner(const struct fst__html *h, fst__page *p)
{
    char a[FST_HUMAN], b[FST_HUMAN];
    const fst_run *r = h->r->run;
    fst__put(p, "<header>\n");
    fst__say_in(p, "h1", task_name(h));
    fst__put(p, "<p class=\"sub\">");
    if (r) {
        fst__putf(p, "run %lld, %s, begun %s, worked %s on ", (long long)r->id, fst_run_status_name(r->status),
                  fst_human_time(r->started_ms, a), fst_human_seconds(r->seconds, b));
        fst__say(p, r->host);
    } else if (h->history.first[0]) {
        fst__put(p, "first event ");
        fst__say(p, h->history.first);
        fst__put(p, ", last ");
        fst__say(p, h->history.last);
    } else {
        fst__say(p, h->r->output);
    }
    fst__put(p, "</p>\n");
    fst__html_answers(h, p);
    fst__put(p, "</header>\n");
}

static void body(const struct fst__html *h, fst__page *p)
{
    fst__html_models(h, p);
    fst__html_stages(h, p);
    fst__html_curves(h, p);
    fst__html_rounds(h, p);
    fst__html_cascade(h, p);
    fst__html_by_class(h, p);
    fst__html_by_snr(h, p);
    fst__html_confusion(h, p);
    fst__html_pairs(h, p);
    fst__html_resources(h, p);
    fst__html_data(h, p);
    fst__html_settings(h, p);
    fst__html_provenance(h, p);
    fst__section_end(p);
}

fst_status fst__html_write(struct fst__html *h, fst_buf *out, fst_error *err)
{
    fst_buf inner = {0}, whole = {0};
    fst__page b = {.out = &inner, .err = err}, p = {.out = &whole, .err = err};
    struct fst__piece *events = &h->piece[PIECE_EVENTS];
    for (int i = 0; i < PIECES; i++) {
        h->piece[i].path = h->path[i][0] ? h->path[i] : files[i].path;
        if (i != PIECE_EVENTS)
            parse_piece(&h->piece[i]);
    }
    fst_status st = events->there && !events->why[0] ? fst__history_parse(&h->history, &events->text, err) : FST_OK;
    if (!st) {
        body(h, &b);
        st = b.status;
    }
    if (!st) {
        fst__page_head(&p, task_name(h), ": fedstill report");
        banner(h, &p);
        fst__page_main(&b, &p);
        st = p.status;
    }
    for (size_t i = 0; h->table && !st && i < b.csv_count; i++)
        st = h->table(h->ctx, b.csv[i].name, &b.csv[i].text, err);
    if (!st)
        st = fst_buf_append(out, whole.data, whole.len, err);
    fst__page_release(&b);
    fst__page_release(&p);
    fst_buf_release(&inner);
    fst_buf_release(&whole);
    return st;
}

fst_status fst_report_html_csv(const fst_html_report *r, fst_buf *out, fst_csv_fn table, void *ctx, fst_error *err)
{
    struct fst__html h = {.r = r, .table = table, .ctx = ctx};
    for (int i = 0; i < PIECES; i++) {
        h.piece[i].path = h.path[i][0] ? h.path[i] : files[i].path;
        read_piece(&h.piece[i], r->output, files[i].most);
        if (i == PIECE_SUMMARY && h.piece[i].there && !h.piece[i].why[0])
            find_reports(&h);
    }
    fst_status st = fst__html_write(&h, out, err);
    fst__html_release(&h);
    return st;
}

fst_status fst_report_html(const fst_html_report *r, fst_buf *out, fst_error *err)
{
    return fst_report_html_csv(r, out, NULL, NULL, err);
}
