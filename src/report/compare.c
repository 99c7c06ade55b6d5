/*
 * Runs become rows: those that differ in nothing but the seed are one. Rows are called by what tells them apart, the
 * reference is chosen, and data that are not the reference's are found. Nothing here reads a file or writes a table.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

enum { LABEL_SETTINGS = 3, MAX_NOTES = 200 };

/* ---- memory ------------------------------------------------------------------------------------------- */

void *fst__compare_room(fst_compare *c, size_t bytes)
{
    if (c->kept_count == c->kept_room) {
        size_t room = c->kept_room ? 2 * c->kept_room : 64;
        void **more = fst_realloc(c->kept, c->kept_room * sizeof *more, room * sizeof *more);
        if (!more) {
            c->status = fst_fail_memory(c->err, room * sizeof *more);
            return NULL;
        }
        c->kept = more;
        c->kept_room = room;
    }
    void *p = fst_calloc(1, bytes + 1);
    if (!p)
        c->status = fst_fail_memory(c->err, bytes);
    else
        c->kept[c->kept_count++] = p;
    return p;
}

static const char *text_of(fst_compare *c, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = n < 0 ? NULL : fst__compare_room(c, (size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text ? text : "";
}

const char *fst__compare_text(fst_compare *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = text_of(c, fmt, ap);
    va_end(ap);
    return text;
}

void fst__compare_note(fst_compare *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = text_of(c, fmt, ap);
    va_end(ap);
    if (!c->note)
        c->note = fst__compare_room(c, MAX_NOTES * sizeof *c->note);
    if (!c->note || c->notes == MAX_NOTES)
        return;
    c->note[c->notes] = c->notes + 1 < MAX_NOTES ? text : "there are more notes than these";
    c->notes++;
}

void fst_compare_free(fst_compare *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->results; i++)
        fst_free(c->result[i].curve.round);
    for (size_t i = 0; i < c->kept_count; i++)
        fst_free(c->kept[i]);
    fst_free(c->result);
    fst_free(c->kept);
    fst_free(c);
}

/* ---- rows ------------------------------------------------------------------------------------------------ */

static size_t line_length(const char *at)
{
    return strcspn(at, "\n");
}

static const char *next_line(const char *at)
{
    at += line_length(at);
    return at + (*at == '\n');
}

/* The settings without the seed, each line with its end. */
static const char *identity_of(fst_compare *c, const char *settings)
{
    char *out = fst__compare_room(c, strlen(settings) + 1), *to = out;
    for (const char *at = settings; out && *at; at = next_line(at))
        if (strncmp(at, "seed=", 5)) {
            size_t n = line_length(at);
            memcpy(to, at, n);
            to[n] = '\n';
            to += n + 1;
        }
    return out ? out : "";
}

static bool same_data(const struct fst__result *a, const struct fst__result *b)
{
    bool classes = !isfinite(a->classes) || !isfinite(b->classes) || a->classes == b->classes;
    return classes && !strcmp(a->test, b->test);
}

static void join(fst_compare *c, struct fst__row *row, struct fst__result *r)
{
    size_t at = row->count;
    for (size_t i = 0; i < row->count; i++)
        if (row->result[i]->seed == r->seed) {
            bool same = !strcmp(row->result[i]->digest, r->digest) && same_data(row->result[i], r);
            fst__compare_note(c, "%s and %s have the same settings and seed%s: only the first counts",
                              row->result[i]->name, r->name, same ? "" : " (and not the same result or data)");
            return;
        }
    while (at && row->result[at - 1]->seed > r->seed) {
        row->result[at] = row->result[at - 1];
        at--;
    }
    row->result[at] = r;
    row->count++;
}

static void make_rows(fst_compare *c)
{
    c->row = fst__compare_room(c, c->results * sizeof *c->row);
    for (size_t i = 0; !c->status && i < c->results; i++) {
        struct fst__result *r = &c->result[i];
        const char *identity = identity_of(c, r->settings);
        size_t k = 0;
        while (k < c->rows && (strcmp(c->row[k].identity, identity) || strcmp(c->row[k].result[0]->stage, r->stage)))
            k++;
        if (k == c->rows) {
            c->row[k].identity = identity;
            c->row[k].result = fst__compare_room(c, c->results * sizeof *c->row[k].result);
            c->rows++;
        }
        if (!c->status)
            join(c, &c->row[k], r);
    }
}

/* ---- names of rows --------------------------------------------------------------------------------------- */

static bool has_line(const char *lines, const char *line, size_t n)
{
    for (const char *at = lines; *at; at = next_line(at))
        if (line_length(at) == n && !memcmp(at, line, n))
            return true;
    return false;
}

static bool has_key(const char *lines, const char *key, size_t n)
{
    for (const char *at = lines; *at; at = next_line(at))
        if (!strncmp(at, key, n) && at[n] == '=')
            return true;
    return false;
}

static bool all_have(const fst_compare *c, const char *line, size_t n)
{
    for (size_t i = 0; i < c->rows; i++)
        if (!has_line(c->row[i].identity, line, n))
            return false;
    return true;
}

/* The lines that all rows have: one row's, as far as the others have them. */
static const char *common_lines(fst_compare *c)
{
    char *out = fst__compare_room(c, strlen(c->row[0].identity)), *to = out;
    for (const char *at = c->row[0].identity; out && *at; at = next_line(at)) {
        size_t n = line_length(at);
        if (!all_have(c, at, n))
            continue;
        memcpy(to, at, n + 1);
        to += n + 1;
    }
    return out ? out : "";
}

/* "stages.federated_train.rounds=3" is "rounds=3" in a row of federated_train. */
static const char *shorten(const struct fst__row *r, const char *line, size_t *n)
{
    static const char stages[] = "stages.";
    const char *stage = r->result[0]->stage;
    size_t skip = strncmp(line, stages, sizeof stages - 1) ? 0 : sizeof stages - 1, m = strlen(stage);
    if (skip && !strncmp(line + skip, stage, m) && line[skip + m] == '.')
        skip += m + 1;
    *n -= skip;
    return line + skip;
}

/* "without fusion": of the keys of another row that this one lacks, the first, as far as nothing here begins so. */
static const char *lacking(fst_compare *c, const struct fst__row *r)
{
    for (size_t i = 0; i < c->rows; i++)
        for (const char *at = c->row[i].identity; *at; at = next_line(at)) {
            size_t n = strcspn(at, "="), m = n;
            if (has_key(r->identity, at, n))
                continue;
            for (size_t k = 0; k < n; k++) {
                bool begins = false;
                for (const char *own = r->identity; at[k] == '.' && !begins && *own; own = next_line(own))
                    begins = !strncmp(own, at, k + 1);
                if (at[k] == '.' && !begins) {
                    m = k;
                    break;
                }
            }
            const char *name = shorten(&c->row[i], at, &m);
            return fst__compare_text(c, "without %.*s", (int)m, name);
        }
    return "";
}

static bool stages_differ(const fst_compare *c)
{
    for (size_t i = 1; i < c->rows; i++)
        if (strcmp(c->row[i].result[0]->stage, c->row[0].result[0]->stage))
            return true;
    return false;
}

static fst_status name_row(fst_compare *c, struct fst__row *r, const char *common, bool with_stage, fst_error *err)
{
    fst_buf label = {0}, all = {0};
    size_t shown = 0, more = 0;
    fst_status st = with_stage ? fst_buf_printf(&label, err, "%s", r->result[0]->stage) : FST_OK;
    for (const char *at = r->identity; !st && *at; at = next_line(at)) {
        size_t n = line_length(at);
        if (has_line(common, at, n))
            continue;
        st = fst_buf_printf(&all, err, "%.*s\n", (int)n, at);
        const char *line = shorten(r, at, &n);
        if (shown == LABEL_SETTINGS)
            more++;
        else if (!st)
            st = fst_buf_printf(&label, err, "%s%.*s", shown++ ? ", " : with_stage ? ": " : "", (int)n, line);
    }
    if (!st && more)
        st = fst_buf_printf(&label, err, ", %zu more", more);
    const char *lacks = shown ? "" : lacking(c, r);
    if (!st && *lacks)
        st = fst_buf_printf(&label, err, "%s%s", with_stage ? ": " : "", lacks);
    if (!st && !label.len)
        st = fst_buf_printf(&label, err, "%s", c->rows > 1 ? "(the others' settings and more)" : r->result[0]->task);
    r->label = fst__compare_text(c, "%s", label.data ? label.data : "");
    r->differs = fst__compare_text(c, "%s", all.data ? all.data : "");
    fst_buf_release(&label);
    fst_buf_release(&all);
    return st;
}

/* ---- the reference ------------------------------------------------------------------------------------------ */

static fst_status choose_reference(fst_compare *c, const char *against, fst_error *err)
{
    char *end = NULL;
    unsigned long n = against ? strtoul(against, &end, 10) : 1;
    if (!against)
        return FST_OK;
    if (*against >= '0' && *against <= '9' && !*end && n >= 1 && n <= c->rows) {
        c->against = n - 1;
        return FST_OK;
    }
    for (size_t i = 0; i < c->rows; i++)
        if (!strcmp(c->row[i].label, against)) {
            c->against = i;
            return FST_OK;
        }
    return fst_fail(err, FST_E_CONFIG, "there is no row \"%s\": rows are 1 to %zu, the first is called \"%s\"", against,
                    c->rows, c->row[0].label);
}

static const struct fst__result *of_seed(const struct fst__row *r, int64_t seed)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->result[i]->seed == seed)
            return r->result[i];
    return NULL;
}

/* Of one seed if both have it; else one that any run of the reference has. */
static void compare_data(const struct fst__row *reference, struct fst__row *row)
{
    for (size_t i = 0; i < row->count; i++) {
        const struct fst__result *mine = row->result[i], *its = of_seed(reference, mine->seed);
        bool test = its && same_data(mine, its), train = its && !strcmp(mine->train, its->train);
        for (size_t k = 0; !its && k < reference->count; k++) {
            test = test || same_data(mine, reference->result[k]);
            train = train || !strcmp(mine->train, reference->result[k]->train);
        }
        row->other_test = row->other_test || !test;
        row->other_train = row->other_train || !train;
    }
}

/* Where data are made or dealt by the seed, seeds have test samples of their own. */
static bool seeds_differ(const struct fst__row *r)
{
    for (size_t k = 1; k < r->count; k++)
        if (!same_data(r->result[0], r->result[k]))
            return true;
    return false;
}

static void check_data(fst_compare *c)
{
    const struct fst__row *reference = &c->row[c->against];
    size_t differ = 0;
    for (size_t i = 0; i < c->rows; i++)
        differ += seeds_differ(&c->row[i]);
    if (differ == c->rows)
        fst__compare_note(c, "each seed has test samples of its own, as where data are made or dealt by the seed");
    for (size_t i = 0; i < c->rows; i++) {
        struct fst__row *r = &c->row[i];
        if (differ < c->rows && seeds_differ(r))
            fst__compare_note(c, "row %zu: its seeds were measured on different test samples", i + 1);
        if (i != c->against)
            compare_data(reference, r);
        if (r->other_test)
            fst__compare_note(
                c,
                "row %zu was measured on OTHER TEST SAMPLES than row %zu (digest %.12s, not %.12s): their "
                "figures cannot be compared",
                i + 1, c->against + 1, r->result[0]->test, reference->result[0]->test);
        if (r->other_train)
            fst__compare_note(c, "row %zu was trained on other samples than row %zu (digest %.12s, not %.12s)", i + 1,
                              c->against + 1, r->result[0]->train, reference->result[0]->train);
    }
}

/* Pairs of one seed, measured on the same samples. */
static void test_rows(fst_compare *c)
{
    double *a = fst__compare_room(c, c->results * sizeof *a), *b = fst__compare_room(c, c->results * sizeof *b);
    c->difference = fst__compare_room(c, c->rows * sizeof *c->difference);
    if (c->status)
        return;
    for (size_t i = 0; i < c->rows; i++) {
        const struct fst__row *r = &c->row[i];
        size_t n = 0, left_out = 0;
        for (size_t k = 0; k < r->count; k++) {
            const struct fst__result *its = of_seed(&c->row[c->against], r->result[k]->seed);
            if (its && !same_data(its, r->result[k])) {
                left_out++;
            } else if (its) {
                a[n] = r->result[k]->figure[FST__ACCURACY];
                b[n++] = its->figure[FST__ACCURACY];
            }
        }
        c->difference[i] = (struct fst__difference){i, fst_paired_of(a, b, n), left_out};
        if (n < 2 && i != c->against)
            fst__compare_note(c,
                              "rows %zu and %zu have %zu %s of one seed: nothing can be said of chance in their "
                              "difference",
                              i + 1, c->against + 1, n, n == 1 ? "pair" : "pairs");
        if (left_out)
            fst__compare_note(c,
                              "rows %zu and %zu: %zu pairs of one seed with different test samples are left out of "
                              "their difference",
                              i + 1, c->against + 1, left_out);
    }
}

/* ---- targets -------------------------------------------------------------------------------------------------- */

static void set_targets(fst_compare *c, const fst_compare_options *o)
{
    c->chosen_targets = o->target_count > 0;
    for (size_t i = 0; i < o->target_count && i < FST__TARGETS; i++)
        c->target[c->targets++] = o->targets[i];
    double of = fst__row_spread(&c->row[c->against], FST__LAST).mean;
    double usual[] = {floor(of * 0.9 * 1000) / 1000, floor((of - 0.01) * 1000) / 1000};
    for (size_t i = 0; !c->chosen_targets && isfinite(of) && i < 2; i++)
        if (usual[i] > 0 && (!i || usual[1] > usual[0]))
            c->target[c->targets++] = usual[i];
}

static fst_status check_options(const fst_compare_options *o, size_t n, fst_error *err)
{
    if (n > FST_COMPARE_RUNS)
        return fst_fail(err, FST_E_LIMIT, "%zu runs; up to %d can be compared", n, FST_COMPARE_RUNS);
    if (o->target_count > FST__TARGETS)
        return fst_fail(err, FST_E_LIMIT, "%zu target accuracies; up to %d can be given", o->target_count,
                        FST__TARGETS);
    for (size_t i = 0; i < o->target_count; i++)
        if (!(o->targets[i] > 0 && o->targets[i] <= 1))
            return fst_fail(err, FST_E_CONFIG, "a target accuracy of %g; it is a share above 0 and up to 1, as 0.9",
                            o->targets[i]);
    return FST_OK;
}

fst_status fst__compare_finish(fst_compare *c, const fst_compare_options *o, fst_error *err)
{
    if (!c->results)
        return fst_fail(err, FST_E_CONFIG, "there is nothing to compare: %s",
                        c->notes ? c->note[0] : "no run was given");
    fst_status st = FST_OK;
    make_rows(c);
    bool with_stage = !c->status && stages_differ(c);
    const char *common = c->status ? "" : common_lines(c);
    for (size_t i = 0; !st && !c->status && i < c->rows; i++)
        st = name_row(c, &c->row[i], common, with_stage, err);
    if (!st && !c->status)
        st = choose_reference(c, o->against, err);
    if (!st && !c->status) {
        check_data(c);
        set_targets(c, o);
        fst__reach_targets(c);
        test_rows(c);
    }
    return st ? st : c->status;
}

fst_status fst_compare_new(fst_compare **out, const fst_compare_run *runs, size_t n, const fst_compare_options *o,
                           fst_error *err)
{
    static const fst_compare_options usual = {.targets = NULL};
    o = o ? o : &usual;
    fst_status st = check_options(o, n, err);
    fst_compare *c = st ? NULL : fst_calloc(1, sizeof *c);
    if (!c)
        return st ? st : fst_fail_memory(err, sizeof *c);
    c->err = err;
    for (size_t i = 0; !st && i < n; i++)
        st = fst__compare_read(c, &runs[i], o, err);
    if (!st)
        st = fst__compare_finish(c, o, err);
    c->err = NULL;
    if (st)
        fst_compare_free(c);
    else
        *out = c;
    return st;
}
