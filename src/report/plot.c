/* Charts as inline SVG and shaded tables. Colours are classes that the page's style sheet gives, for light and dark;
 * lines differ by their dashes too. Each chart says in words what it shows. No scales but linear ones. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "page.h"
#include "surface.h"

enum { WIDTH = 480, HEIGHT = 270, LEFT = 66, RIGHT = 24, TOP = 12, BOTTOM = 44, MOST_POINTS = 600, COLOURS = 6 };
enum { MOST_DOTS = 60, MOST_HOVERED = 120 };
enum { SHOWN_CLASSES = 12, TABLE_CLASSES = 32, BAR = 16, BAR_ROW = 46 };

struct range {
    double from, to, step;
};

/* Far beyond what anybody measures, and near enough to let differences overflow: not drawn. */
static bool is_drawable(double v)
{
    return fabs(v) < 1e100;
}

static bool has_band(const fst__series *s, size_t i)
{
    return s->low && is_drawable(s->low[i]) && is_drawable(s->high[i]);
}

static struct range span_of(const fst__chart *c, bool y)
{
    struct range r = {INFINITY, -INFINITY, 1};
    for (size_t s = 0; s < c->count; s++)
        for (size_t i = 0; i < c->series[s].n; i++) {
            double v = y ? c->series[s].y[i] : c->series[s].x[i];
            if (!is_drawable(v) || !is_drawable(y ? c->series[s].x[i] : c->series[s].y[i]))
                continue;
            r.from = fmin(r.from, y && has_band(&c->series[s], i) ? c->series[s].low[i] : v);
            r.to = fmax(r.to, y && has_band(&c->series[s], i) ? c->series[s].high[i] : v);
        }
    return r;
}

/* Widens to multiples of 1, 2 or 5 times a power of ten, about five of them. */
static struct range nice(struct range r, bool whole)
{
    double room = fmax(fabs(r.from), fabs(r.to));
    if (!(r.to - r.from > 1e-9 * room)) {
        r.from -= room > 0 ? room * 0.05 : 0.5;
        r.to += room > 0 ? room * 0.05 : 0.5;
    }
    double rough = (r.to - r.from) / 5, power = pow(10, floor(log10(rough))), f = rough / power;
    r.step = power * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
    r.step = whole && r.step < 1 ? 1 : r.step;
    r.from = floor(r.from / r.step + 1e-9) * r.step;
    r.to = ceil(r.to / r.step - 1e-9) * r.step;
    return r;
}

static double place_x(const struct range *r, double v)
{
    return LEFT + (v - r->from) / (r->to - r->from) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct range *r, double v)
{
    return HEIGHT - BOTTOM - (v - r->from) / (r->to - r->from) * (HEIGHT - TOP - BOTTOM);
}

/* As many decimals as tell neighbours apart. */
static const char *tick(double v, double step, bool percent, char out[48])
{
    double s = percent ? step * 100 : step, shown = percent ? v * 100 : v;
    int decimals = s >= 1 ? 0 : (int)ceil(-log10(s) - 1e-9);
    if (fabs(shown) >= 1e6 || decimals > 6)
        snprintf(out, 48, "%.3g%s", shown, percent ? " %" : "");
    else
        snprintf(out, 48, "%.*f%s", decimals, fabs(shown) < s / 2 ? 0.0 : shown, percent ? " %" : "");
    return out;
}

static void axes(fst__page *p, const fst__chart *c, const struct range *x, const struct range *y)
{
    char text[48];
    fst__put(p, "<g class=\"grid\">");
    for (int i = 0; i <= 12 && y->from + i * y->step <= y->to + y->step / 2; i++)
        fst__putf(p, "<path d=\"M%d %.1fH%d\"/>", LEFT, place_y(y, y->from + i * y->step), WIDTH - RIGHT);
    fst__put(p, "</g><g class=\"tick\">");
    for (int i = 0; i <= 12 && y->from + i * y->step <= y->to + y->step / 2; i++)
        fst__putf(p, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", LEFT - 6,
                  place_y(y, y->from + i * y->step) + 4, tick(y->from + i * y->step, y->step, c->percent, text));
    for (int i = 0; i <= 12 && x->from + i * x->step <= x->to + x->step / 2; i++)
        fst__putf(p, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", place_x(x, x->from + i * x->step),
                  HEIGHT - BOTTOM + 18, tick(x->from + i * x->step, x->step, c->x_percent, text));
    fst__putf(p, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", WIDTH - RIGHT, HEIGHT - 6);
    fst__say(p, c->x_title);
    fst__put(p, "</text></g>\n");
}

static const char *value_text(double v, bool percent, char out[FST_HUMAN])
{
    if (percent)
        return fst_human_percent(v, out);
    snprintf(out, FST_HUMAN, "%.4g", v);
    return out;
}

static void say_point(fst__page *p, const fst__chart *c, const fst__series *s, size_t i)
{
    char a[FST_HUMAN], b[FST_HUMAN];
    fst__put(p, "<title>");
    fst__say(p, s->name);
    fst__putf(p, ", ");
    fst__say(p, c->x_title);
    fst__putf(p, " %s: %s", value_text(s->x[i], c->x_percent, a), value_text(s->y[i], c->percent, b));
    if (has_band(s, i))
        fst__putf(p, " (%s to %s)", value_text(s->low[i], c->percent, a), value_text(s->high[i], c->percent, b));
    fst__put(p, "</title>");
}

static bool drawn(const fst__series *s, size_t i)
{
    return is_drawable(s->x[i]) && is_drawable(s->y[i]);
}

/* Out along the upper edge and back along the lower one. */
static void draw_band(fst__page *p, const fst__series *s, const struct range *x, const struct range *y)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (drawn(s, i) && has_band(s, i))
            fst__putf(p, "%s%.1f %.1f", n++ ? "L" : "<path class=\"band\" d=\"M", place_x(x, s->x[i]),
                      place_y(y, s->high[i]));
    for (size_t i = s->n; i-- > 0;)
        if (drawn(s, i) && has_band(s, i))
            fst__putf(p, "L%.1f %.1f", place_x(x, s->x[i]), place_y(y, s->low[i]));
    fst__put(p, n ? "Z\"/>" : "");
}

static void draw_series(fst__page *p, const fst__chart *c, size_t k, const struct range *x, const struct range *y)
{
    const fst__series *s = &c->series[k];
    size_t step = s->n / MOST_POINTS + 1;
    bool pen = false;
    fst__putf(p, "<g class=\"s%zu\">", k % COLOURS);
    draw_band(p, s, x, y);
    fst__put(p, "<path class=\"line\" d=\"");
    for (size_t i = 0; i < s->n; i += i + step < s->n || i + 1 == s->n ? step : s->n - 1 - i) {
        if (drawn(s, i))
            fst__putf(p, "%s%.1f %.1f", pen ? "L" : "M", place_x(x, s->x[i]), place_y(y, s->y[i]));
        pen = drawn(s, i);
    }
    fst__put(p, "\"/>");
    /* what a pointer over a point is told; the circle that it has to meet is larger than the one that is seen */
    step = s->n / MOST_HOVERED + 1;
    for (size_t i = 0; i < s->n; i += step)
        if (drawn(s, i)) {
            double at = place_x(x, s->x[i]), up = place_y(y, s->y[i]);
            fst__put(p, "<g>");
            say_point(p, c, s, i);
            if (s->n <= MOST_DOTS)
                fst__putf(p, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", at, up);
            fst__putf(p, "<circle class=\"over\" cx=\"%.1f\" cy=\"%.1f\" r=\"8\"/></g>", at, up);
        }
    fst__put(p, "</g>\n");
}

static size_t last_drawn(const fst__series *s, bool first)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = first ? i : s->n - 1 - i;
        if (drawn(s, at))
            return at;
    }
    return s->n;
}

/* The chart in words. */
static void describe(fst__page *p, const fst__chart *c)
{
    char a[FST_HUMAN], b[FST_HUMAN], u[FST_HUMAN], v[FST_HUMAN];
    fst__say(p, c->title);
    for (size_t k = 0; k < c->count; k++) {
        const fst__series *s = &c->series[k];
        size_t first = last_drawn(s, true), last = last_drawn(s, false);
        if (first == s->n)
            continue;
        fst__put(p, ". ");
        fst__say(p, s->name);
        fst__putf(p, ": %s at ", value_text(s->y[first], c->percent, a));
        fst__say(p, c->x_title);
        fst__putf(p, " %s, %s at %s", value_text(s->x[first], c->x_percent, u), value_text(s->y[last], c->percent, b),
                  value_text(s->x[last], c->x_percent, v));
    }
}

static void legend(fst__page *p, const char *(*name)(const void *, size_t), const void *ctx, size_t n, bool lines)
{
    fst__put(p, "<ul class=\"legend\">");
    for (size_t k = 0; k < n; k++) {
        fst__putf(p, "<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\" class=\"s%zu\">%s</svg>", k % COLOURS,
                  lines ? "<path class=\"line\" d=\"M0 6H26\"/>"
                        : "<rect class=\"bar\" y=\"1\" width=\"26\" height=\"10\"/>");
        fst__say(p, name(ctx, k));
        fst__put(p, "</li>");
    }
    fst__put(p, "</ul>");
}

static const char *series_name(const void *ctx, size_t k)
{
    return ((const fst__series *)ctx)[k].name;
}

static const char *part_name(const void *ctx, size_t k)
{
    return ((const char *const *)ctx)[k];
}

void fst__line_chart(fst__page *p, const fst__chart *c)
{
    struct range x = span_of(c, false), y = span_of(c, true);
    if (!(x.from <= x.to))
        return;
    x = nice(x, c->whole);
    y = nice(y, false);
    if (c->percent && y.to > 1 && y.from >= 0)
        y.to = 1;
    fst__put(p, "<figure class=\"chart\"><figcaption>");
    fst__say(p, c->title);
    fst__putf(p, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    describe(p, c);
    fst__put(p, "\">\n");
    axes(p, c, &x, &y);
    for (size_t k = 0; k < c->count; k++)
        draw_series(p, c, k, &x, &y);
    if (c->mark && isfinite(c->mark_x) && isfinite(c->mark_y) && c->mark_x >= x.from && c->mark_x <= x.to &&
        c->mark_y >= y.from && c->mark_y <= y.to) {
        double at = place_x(&x, c->mark_x), up = place_y(&y, c->mark_y);
        fst__putf(p,
                  "<g class=\"mark\"><circle cx=\"%.1f\" cy=\"%.1f\" r=\"6\"/><text x=\"%.1f\" y=\"%.1f\" "
                  "text-anchor=\"%s\">",
                  at, up, at + (at > WIDTH / 2.0 ? -10 : 10), up + (up > HEIGHT - BOTTOM - 30 ? -10 : 20),
                  at > WIDTH / 2.0 ? "end" : "start");
        fst__say(p, c->mark);
        fst__put(p, "</text></g>");
    }
    fst__put(p, "</svg>\n");
    if (c->count > 1 || strcmp(c->series[0].name, c->title))
        legend(p, series_name, c->series, c->count, true);
    fst__put(p, "</figure>\n");
}

/* ---- bars --------------------------------------------------------------------------------------------- */

static double length_of(const fst__bar_row *r, size_t parts)
{
    double sum = 0;
    for (size_t k = 0; k < parts; k++)
        sum += r->part[k] > 0 && is_drawable(r->part[k]) ? r->part[k] : 0;
    return sum;
}

void fst__bar_chart(fst__page *p, const char *title, const char *const *parts, size_t nparts, const fst__bar_row *rows,
                    size_t nrows)
{
    double longest = 0;
    for (size_t i = 0; i < nrows; i++)
        longest = fmax(longest, length_of(&rows[i], nparts));
    if (!(longest > 0))
        return;
    fst__put(p, "<figure class=\"chart\"><figcaption>");
    fst__say(p, title);
    fst__putf(p, "</figcaption>\n<svg viewBox=\"0 0 %d %zu\" role=\"img\" aria-label=\"", WIDTH, nrows * BAR_ROW);
    fst__say(p, title);
    for (size_t i = 0; i < nrows; i++) {
        fst__put(p, i ? "; " : ": ");
        fst__say(p, rows[i].name);
        fst__put(p, " ");
        fst__say(p, rows[i].label);
    }
    fst__put(p, "\">\n");
    for (size_t i = 0; i < nrows; i++) {
        double at = 0;
        fst__putf(p, "<text class=\"name\" x=\"0\" y=\"%zu\">", i * BAR_ROW + 16);
        fst__say(p, rows[i].name);
        fst__putf(p, "</text><text class=\"name\" x=\"%d\" y=\"%zu\" text-anchor=\"end\">", WIDTH, i * BAR_ROW + 16);
        fst__say(p, rows[i].label);
        fst__put(p, "</text>");
        for (size_t k = 0; k < nparts; k++) {
            double part = rows[i].part[k] > 0 && is_drawable(rows[i].part[k]) ? rows[i].part[k] / longest * WIDTH : 0;
            if (part > 0)
                fst__putf(p,
                          "<g class=\"s%zu\"><rect class=\"bar\" x=\"%.2f\" y=\"%zu\" width=\"%.2f\" "
                          "height=\"%d\"/></g>",
                          k % COLOURS, at, i * BAR_ROW + 22, part, BAR);
            at += part;
        }
        fst__put(p, "\n");
    }
    fst__put(p, "</svg>\n");
    if (nparts > 1)
        legend(p, part_name, parts, nparts, false);
    fst__put(p, "</figure>\n");
}

/* ---- confusion ------------------------------------------------------------------------------------------ */

static void class_title(fst__page *p, const char *const *names, size_t i)
{
    if (names)
        fst__say(p, names[i]);
    else
        fst__putf(p, "%zu", i);
}

static double row_sum(size_t n, const int64_t *row)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += row[j] > 0 ? (double)row[j] : 0;
    return sum;
}

/* Whether all names fit over a column of numbers; others are turned by the style sheet. */
static bool is_short(const char *const *names, size_t n)
{
    for (size_t i = 0; names && i < n; i++)
        if (fst_text_width(names[i]) > 3)
            return false;
    return true;
}

static void confusion_table(fst__page *p, const char *title, size_t n, const char *const *names, const int64_t *v)
{
    fst__put(p, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    fst__say(p, title);
    fst__putf(p, "\"><table class=\"heat confusion%s\">\n<caption><span>", is_short(names, n) ? " short" : "");
    fst__say(p, title);
    fst__put(p, "</span></caption>\n<thead><tr><th scope=\"col\">true \\ answered</th>");
    for (size_t j = 0; j < n; j++) {
        fst__put(p, "<th scope=\"col\"><span>");
        class_title(p, names, j);
        fst__put(p, "</span></th>");
    }
    fst__put(p, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < n; i++) {
        double sum = row_sum(n, v + i * n);
        fst__put(p, "<tr><th scope=\"row\">");
        class_title(p, names, i);
        fst__put(p, "</th>");
        for (size_t j = 0; j < n; j++) {
            long long count = (long long)v[i * n + j];
            double share = sum > 0 && count > 0 ? (double)count / sum : 0;
            if (count)
                fst__putf(p, "<td class=\"%s\" style=\"--v:%.3f\">%lld</td>", i == j ? "hit" : "miss", sqrt(share),
                          count);
            else
                fst__put(p, "<td class=\"none\">0</td>");
        }
        fst__put(p, "</tr>\n");
    }
    fst__put(p, "</tbody></table></div>\n");
}

static const char *record_name(const char *const *names, size_t i, char number[24])
{
    snprintf(number, 24, "%zu", i);
    return names ? names[i] : number;
}

static void confusion_csv(fst__page *p, const char *name, size_t n, const char *const *names, const int64_t *v)
{
    char number[24];
    char(*numbers)[24] = fst_alloc((n + 1) * sizeof *numbers);
    const char **titles = fst_calloc(n + 2, sizeof *titles);
    if ((!titles || !numbers) && !p->status)
        p->status = fst_fail_memory(p->err, (n + 2) * sizeof *titles);
    if (!p->status) {
        titles[0] = "true class";
        for (size_t j = 0; j < n; j++)
            titles[j + 1] = record_name(names, j, numbers[j]);
        fst__record_begin(p, name, titles, false);
    }
    for (size_t i = 0; i < n && !p->status; i++) {
        fst__record_text(p, record_name(names, i, number));
        for (size_t j = 0; j < n; j++)
            fst__record_number(p, (double)v[i * n + j], NULL);
        fst__record_row(p);
    }
    fst__record_end(p, true);
    fst_free(titles);
    fst_free(numbers);
}

static void confusion_picture(fst__page *p, const char *title, size_t n, const int64_t *v)
{
    fst__image m = {0};
    if (p->status || (p->status = fst__image_init(&m, n, n, p->err)))
        return;
    for (size_t i = 0; i < n; i++) {
        double sum = row_sum(n, v + i * n);
        for (size_t j = 0; j < n; j++) {
            fst__colour c = fst__viridis(sum > 0 && v[i * n + j] > 0 ? sqrt((double)v[i * n + j] / sum) : 0);
            memcpy(m.rgb + 3 * (i * n + j), &c, 3);
        }
    }
    fst__put(p, "<figure class=\"chart\"><figcaption>");
    fst__say(p, title);
    fst__putf(
        p,
        "; %zu classes, a row for each true class, a column for what was answered, bright for a large share of the "
        "row</figcaption><img class=\"pixels\" width=\"480\" height=\"480\" alt=\"",
        n);
    fst__say(p, title);
    fst__put(p, "\" src=\"");
    if (!p->status)
        p->status = fst__image_address(&m, p->out, p->err);
    fst__put(p, "\"/></figure>\n");
    fst__image_release(&m);
}

void fst__confusion(fst__page *p, const char *name, const char *title, size_t n, const char *const *names,
                    const int64_t *values)
{
    fst__put(p, "<div class=\"matrix\">\n");
    if (n <= SHOWN_CLASSES) {
        confusion_table(p, title, n, names, values);
    } else {
        confusion_picture(p, title, n, values);
        if (n <= TABLE_CLASSES) {
            fst__put(p, "<details><summary>As a table</summary>\n");
            confusion_table(p, title, n, names, values);
            fst__put(p, "</details>\n");
        }
    }
    confusion_csv(p, name, n, names, values);
    fst__put(p, "</div>\n");
}
