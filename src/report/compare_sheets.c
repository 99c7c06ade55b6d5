/* The tables of a comparison, whatever shows them: which columns there are, and what stands in them. A column of which
 * no row knows anything is left out. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"

/* ---- building ------------------------------------------------------------------------------------------- */

static struct fst__sheet *new_sheet(fst_compare *c, const char *name, const char *title, size_t rows)
{
    struct fst__sheet *s = fst__compare_room(c, sizeof *s);
    struct fst__cell *cells = fst__compare_room(c, rows * FST__COLS * sizeof *cells);
    if (!s || !cells)
        return NULL;
    *s = (struct fst__sheet){.name = name, .title = title, .rows = rows, .cell = cells};
    for (size_t i = 0; i < rows * FST__COLS; i++)
        cells[i].v = (fst_spread){0, NAN, NAN};
    return s;
}

/* While a sheet is filled, its rows have FST__COLS cells; fst__sheet_of closes the gaps. */
static size_t add_col(struct fst__sheet *s, const char *title, enum fst__unit unit, bool spread)
{
    s->col[s->cols] = (struct fst__col){title, unit, spread, false};
    return s->cols++;
}

static void set(struct fst__sheet *s, size_t row, size_t col, fst_spread v)
{
    s->cell[row * FST__COLS + col].v = v;
}

static void set_number(struct fst__sheet *s, size_t row, size_t col, double v)
{
    set(s, row, col, (fst_spread){1, v, NAN});
}

static void set_text(struct fst__sheet *s, size_t row, size_t col, const char *text)
{
    s->cell[row * FST__COLS + col].text = text;
}

/* Row numbers, which every sheet has first. */
static void number_rows(struct fst__sheet *s)
{
    add_col(s, "row", FST__WHOLE, false);
    for (size_t i = 0; i < s->rows; i++)
        set_number(s, i, 0, (double)i + 1);
}

/* ---- methods ----------------------------------------------------------------------------------------------- */

static const struct {
    enum fst__figure figure;
    const char *title;
    enum fst__unit unit;
} figures[] = {{FST__ACCURACY, "accuracy", FST__SHARE}, {FST__BEST, "best round", FST__SHARE},
               {FST__LAST, "last round", FST__SHARE},   {FST__LOSS, "loss", FST__PLAIN},
               {FST__TOP5, "top-5", FST__SHARE},        {FST__F1, "macro-F1", FST__SHARE},
               {FST__ROUNDS, "rounds", FST__WHOLE},     {FST__SECONDS, "time", FST__TIME},
               {FST__UP, "sent up", FST__BYTES},        {FST__DOWN, "sent down", FST__BYTES}};

static bool known(const fst_compare *c, enum fst__figure figure)
{
    for (size_t i = 0; i < c->results; i++)
        if (isfinite(c->result[i].figure[figure]))
            return true;
    return false;
}

/* Was any run's best round chosen by its test accuracy? */
static bool peeked(const struct fst__row *r)
{
    for (size_t i = 0; i < r->count; i++)
        if (!r->result[i]->validated)
            return true;
    return false;
}

static const char *seeds_of(fst_compare *c, const struct fst__row *r)
{
    const char *text = "";
    for (size_t i = 0; i < r->count && i < 20; i++)
        text = fst__compare_text(c, "%s%s%lld", text, i ? " " : "", (long long)r->result[i]->seed);
    return r->count > 20 ? fst__compare_text(c, "%s and %zu more", text, r->count - 20) : text;
}

static struct fst__sheet *methods(fst_compare *c)
{
    struct fst__sheet *s = new_sheet(c, "methods", "Methods: mean and standard deviation over the seeds", c->rows);
    if (!s)
        return NULL;
    number_rows(s);
    size_t label = add_col(s, "method", FST__TEXT, false), seeds = add_col(s, "seeds", FST__WHOLE, false);
    for (size_t i = 0; i < c->rows; i++) {
        set_text(s, i, label,
                 fst__compare_text(c, "%s%s", c->row[i].label, c->row[i].other_test ? " (OTHER TEST DATA)" : ""));
        set_number(s, i, seeds, (double)c->row[i].count);
    }
    for (size_t f = 0; f < sizeof figures / sizeof *figures; f++) {
        if (!known(c, figures[f].figure))
            continue;
        size_t col = add_col(s, figures[f].title, figures[f].unit, true);
        for (size_t i = 0; i < c->rows; i++) {
            fst_spread v = fst__row_spread(&c->row[i], figures[f].figure);
            set(s, i, col, v);
            if (figures[f].figure == FST__BEST && isfinite(v.mean) && peeked(&c->row[i]))
                set_text(s, i, col, "on test");
        }
    }
    return s;
}

/* ---- differences --------------------------------------------------------------------------------------------- */

static struct fst__sheet *differences(fst_compare *c)
{
    if (c->rows < 2)
        return NULL;
    struct fst__sheet *s = new_sheet(c, "differences",
                                     fst__compare_text(c, "Accuracy minus that of row %zu (%s), paired by seed",
                                                       c->against + 1, c->row[c->against].label),
                                     c->rows - 1);
    if (!s)
        return NULL;
    add_col(s, "row", FST__WHOLE, false);
    add_col(s, "method", FST__TEXT, false);
    add_col(s, "pairs", FST__WHOLE, false);
    add_col(s, "points", FST__POINTS, true);
    add_col(s, "95 % from", FST__POINTS, false);
    add_col(s, "to", FST__POINTS, false);
    add_col(s, "p (t test)", FST__P, false);
    add_col(s, "p (signs)", FST__P, false);
    size_t at = 0;
    for (size_t i = 0; i < c->rows; i++) {
        if (i == c->against)
            continue;
        const fst_paired *t = &c->difference[i].test;
        set_number(s, at, 0, (double)i + 1);
        set_text(s, at, 1, c->row[i].label);
        set_number(s, at, 2, (double)t->n);
        set(s, at, 3, (fst_spread){t->n, t->mean, t->sd});
        set_number(s, at, 4, t->low);
        set_number(s, at, 5, t->high);
        set_number(s, at, 6, t->p_t);
        set_number(s, at++, 7, t->p_flip);
    }
    return s;
}

/* ---- targets --------------------------------------------------------------------------------------------------- */

static struct fst__sheet *targets(fst_compare *c)
{
    bool any = false;
    for (size_t i = 0; i < c->rows; i++)
        any = any || fst__row_has_curve(&c->row[i]);
    if (!any || !c->targets)
        return NULL;
    struct fst__sheet *s = new_sheet(c, "targets", "Rounds, bytes and seconds to an accuracy", c->rows * c->targets);
    if (!s)
        return NULL;
    add_col(s, "row", FST__WHOLE, false);
    add_col(s, "method", FST__TEXT, false);
    add_col(s, "accuracy", FST__SHARE, false);
    add_col(s, "reached by", FST__TEXT, false);
    add_col(s, "rounds", FST__WHOLE, true);
    add_col(s, "bytes", FST__BYTES, true);
    add_col(s, "seconds", FST__TIME, true);
    for (size_t i = 0, at = 0; i < c->rows; i++)
        for (size_t t = 0; t < c->targets; t++, at++) {
            const struct fst__row *r = &c->row[i];
            size_t got = 0;
            set_number(s, at, 0, (double)i + 1);
            set_text(s, at, 1, r->label);
            set_number(s, at, 2, c->target[t]);
            for (int a = 0; a < FST__AXES; a++)
                set(s, at, 4 + (size_t)a, fst__row_reached(r, t, a, &got));
            set_text(s, at, 3,
                     fst__row_has_curve(r) ? fst__compare_text(c, "%zu of %zu", got, r->count) : "not measured");
        }
    return s;
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

static const char *budget_title(fst_compare *c, enum fst__axis axis, double x)
{
    char text[FST_HUMAN];
    if (axis == FST__BY_ROUND)
        return fst__compare_text(c, "%.0f", x);
    return fst__compare_text(c, "%s", axis == FST__BY_BYTES ? fst_human_bytes(x, text) : fst_human_seconds(x, text));
}

static struct fst__sheet *curve(fst_compare *c, enum fst__axis axis)
{
    static const char *const names[] = {"by_round", "by_bytes", "by_time"};
    static const char *const titles[] = {"Accuracy in per cent after so many rounds, on the test samples",
                                         "Accuracy in per cent after so many bytes, up and down, on the test samples",
                                         "Accuracy in per cent after so much time of rounds, on the test samples"};
    double budget[FST__BUDGETS];
    size_t n = fst__budgets(c, axis, budget);
    struct fst__sheet *s = n ? new_sheet(c, names[axis], titles[axis], c->rows) : NULL;
    if (!s)
        return NULL;
    number_rows(s);
    for (size_t k = 0; k < n; k++) {
        size_t col = add_col(s, budget_title(c, axis, budget[k]), FST__SHARE, true);
        s->col[col].bare = true;
        for (size_t i = 0; i < c->rows; i++)
            if (fst__row_has_curve(&c->row[i]))
                set(s, i, col, fst__row_at(&c->row[i], axis, budget[k]));
    }
    return s;
}

static struct fst__sheet *curve_points(fst_compare *c)
{
    static const char *const axes[] = {"round", "bytes", "seconds"};
    size_t n = 0, at = 0;
    for (size_t i = 0; i < c->rows; i++)
        for (int a = 0; a < FST__AXES; a++)
            n += fst__row_has_curve(&c->row[i]) ? fst__row_curve(c, &c->row[i], a).n : 0;
    struct fst__sheet *s =
        n ? new_sheet(c, "curves", "Curves: accuracy on the test samples over rounds, bytes, seconds", n) : NULL;
    if (!s)
        return NULL;
    add_col(s, "row", FST__WHOLE, false);
    add_col(s, "method", FST__TEXT, false);
    add_col(s, "over", FST__TEXT, false);
    add_col(s, "at", FST__PLAIN, false);
    add_col(s, "accuracy", FST__SHARE, true);
    for (size_t i = 0; i < c->rows; i++)
        for (int a = 0; a < FST__AXES && fst__row_has_curve(&c->row[i]); a++) {
            struct fst__mean_curve m = fst__row_curve(c, &c->row[i], a);
            for (size_t k = 0; k < m.n && at < n; k++, at++) {
                set_number(s, at, 0, (double)i + 1);
                set_text(s, at, 1, c->row[i].label);
                set_text(s, at, 2, axes[a]);
                set_number(s, at, 3, m.x[k]);
                set(s, at, 4, (fst_spread){c->row[i].count, m.mean[k], m.sd[k]});
            }
        }
    return s;
}

/* ---- runs ---------------------------------------------------------------------------------------------------------
 */

static struct fst__sheet *runs(fst_compare *c)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < c->rows; i++)
        n += c->row[i].count;
    struct fst__sheet *s = new_sheet(c, "runs", "Runs", n);
    if (!s)
        return NULL;
    add_col(s, "row", FST__WHOLE, false);
    add_col(s, "method", FST__TEXT, false);
    add_col(s, "seed", FST__WHOLE, false);
    for (size_t f = 0; f < sizeof figures / sizeof *figures; f++)
        add_col(s, figures[f].title, figures[f].unit, false);
    add_col(s, "test data", FST__TEXT, false);
    add_col(s, "output", FST__TEXT, false);
    for (size_t i = 0; i < c->rows; i++)
        for (size_t k = 0; k < c->row[i].count; k++, at++) {
            const struct fst__result *r = c->row[i].result[k];
            set_number(s, at, 0, (double)i + 1);
            set_text(s, at, 1, c->row[i].label);
            set_number(s, at, 2, (double)r->seed);
            for (size_t f = 0; f < sizeof figures / sizeof *figures; f++)
                set_number(s, at, 3 + f, r->figure[figures[f].figure]);
            set_text(s, at, s->cols - 2, fst__compare_text(c, "%.12s", r->test));
            set_text(s, at, s->cols - 1, r->output);
        }
    return s;
}

/* ---- all ------------------------------------------------------------------------------------------------------------
 */

struct fst__sheet *fst__sheet_of(fst_compare *c, enum fst__sheet_kind kind)
{
    struct fst__sheet *s = NULL;
    switch (kind) {
    case FST__SHEET_METHODS:
        s = methods(c);
        break;
    case FST__SHEET_DIFFERENCES:
        s = differences(c);
        break;
    case FST__SHEET_TARGETS:
        s = targets(c);
        break;
    case FST__SHEET_BY_ROUND:
    case FST__SHEET_BY_BYTES:
    case FST__SHEET_BY_TIME:
        s = curve(c, (enum fst__axis)(kind - FST__SHEET_BY_ROUND));
        break;
    case FST__SHEET_RUNS:
        s = runs(c);
        break;
    case FST__SHEET_CURVES:
        s = curve_points(c);
        break;
    default:
        break;
    }
    for (size_t i = 1; s && i < s->rows; i++)
        memmove(s->cell + i * s->cols, s->cell + i * FST__COLS, s->cols * sizeof *s->cell);
    return c->status ? NULL : s;
}

/* ---- cells
 * ------------------------------------------------------------------------------------------------------------ */

static void one(enum fst__unit unit, double v, char out[48])
{
    char text[FST_HUMAN];
    switch (unit) {
    case FST__SHARE:
    case FST__POINTS:
        snprintf(out, 48, unit == FST__POINTS ? "%+.2f" : "%.2f", 100 * v);
        break;
    case FST__TIME:
        snprintf(out, 48, "%s", fst_human_seconds(v, text));
        break;
    case FST__BYTES:
        snprintf(out, 48, "%s", fst_human_bytes(v, text));
        break;
    case FST__WHOLE:
        snprintf(out, 48, fabs(v - round(v)) < 1e-9 ? "%.0f" : "%.1f", v);
        break;
    case FST__P:
        snprintf(out, 48, v < 0.0001 ? "<0.0001" : "%.4f", v);
        break;
    default:
        snprintf(out, 48, "%.4g", v);
    }
}

/* The unit of the first, where both have the same one. */
static void drop_unit(char *mean, const char *sd)
{
    char *a = strchr(mean, ' '); /* "1 min 14 s" has two, and keeps them */
    const char *b = strrchr(sd, ' ');
    if (a && b && !strcmp(a, b))
        *a = 0;
}

const char *fst__col_title(const struct fst__col *col, char out[128])
{
    snprintf(out, 128, "%.100s%s", col->title, col->unit == FST__SHARE && !col->bare ? ", %" : "");
    return out;
}

const char *fst__cell_shown(const struct fst__col *col, const struct fst__cell *cell, const char *plus_minus,
                            char out[128])
{
    char mean[48] = "-", sd[48] = "";
    if (col->unit == FST__TEXT)
        return cell->text ? cell->text : "-";
    if (isfinite(cell->v.mean))
        one(col->unit, cell->v.mean, mean);
    if (col->spread && isfinite(cell->v.mean) && isfinite(cell->v.sd) &&
        !(cell->v.sd == 0 && (col->unit == FST__BYTES || col->unit == FST__WHOLE)))
        one(col->unit == FST__POINTS ? FST__SHARE : col->unit, cell->v.sd, sd);
    if (*sd) /* "62.4 ± 4.5 ms" */
        drop_unit(mean, sd);
    snprintf(out, 128, "%s%s%s%s%s", mean, *sd ? plus_minus : "", sd, cell->text ? " " : "",
             cell->text ? cell->text : "");
    return out;
}

/* ---- words
 * -------------------------------------------------------------------------------------------------------------- */

const char *fst__compare_head(fst_compare *c)
{
    size_t runs_used = 0;
    const char *stages = "";
    for (size_t i = 0; i < c->rows; i++) {
        bool there = false;
        for (size_t k = 0; k < i; k++)
            there = there || !strcmp(c->row[k].result[0]->stage, c->row[i].result[0]->stage);
        if (!there)
            stages = fst__compare_text(c, "%s%s%s", stages, *stages ? ", " : "", c->row[i].result[0]->stage);
        runs_used += c->row[i].count;
    }
    const struct fst__row *r = &c->row[c->against];
    return fst__compare_text(c, "%s: %zu %s of %zu %s (stage %s); seeds of row %zu: %s; %.0f test samples",
                             r->result[0]->task, runs_used, runs_used == 1 ? "run" : "runs", c->rows,
                             c->rows == 1 ? "method" : "methods", stages, c->against + 1, seeds_of(c, r),
                             r->result[0]->test_samples);
}

static const char *targets_legend(fst_compare *c)
{
    if (c->chosen_targets)
        return "Target accuracies are those of --target.";
    if (!c->targets)
        return "No target accuracies: the reference has no last round; --target gives some.";
    if (c->targets == 1)
        return fst__compare_text(c,
                                 "Target accuracy: %.1f %%, 90 %% of what row %zu had in its last round; --target "
                                 "chooses others.",
                                 100 * c->target[0], c->against + 1);
    return fst__compare_text(
        c,
        "Target accuracies: 90 %% of what row %zu had in its last round (%.1f %%), and that less one "
        "point (%.1f %%); --target chooses others.",
        c->against + 1, 100 * c->target[0], 100 * c->target[1]);
}

const char *fst__compare_legend(fst_compare *c, size_t i)
{
    bool on_test = false, best = known(c, FST__BEST);
    for (size_t k = 0; k < c->rows; k++)
        on_test = on_test || (peeked(&c->row[k]) && isfinite(fst__row_spread(&c->row[k], FST__BEST).mean));
    switch (i) {
    case 0:
        return "Shares are measured on the test samples; accuracy is that of the model that the stage "
               "left.";
    case 1:
        return on_test
                   ? "Best round \"on test\": the highest of the test accuracies, chosen by looking at them, so too "
                     "good; where validation samples chose the round, nothing stands beside it."
               : best ? "The best round is the one that validation samples chose; its accuracy is on the test samples."
                      : "No best round: nothing was measured after each one.";
    case 2:
        return "Time, bytes and rounds are of the stage alone, not of a teacher or labels that it builds on. Time of "
               "rounds "
               "is without measuring; time in the first table is all that the stage took, on the machine that ran it.";
    case 3:
        return targets_legend(c);
    case 4:
        return c->rows < 2
                   ? NULL
                   : fst__compare_text(c,
                                       "Differences: paired over seeds. The interval and the first p are of "
                                       "Student's t; p (signs) is the exact permutation test, which is %g at the "
                                       "least with %zu pairs. Nothing is corrected for the number of "
                                       "comparisons (%zu). Fewer than 2 pairs say nothing.",
                                       pow(2, 1 - (double)c->row[c->against].count), c->row[c->against].count,
                                       c->rows - 1);
    default:
        return NULL;
    }
}
