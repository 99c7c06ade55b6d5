/* Pictures made of characters: heat maps and bars. They show shape at a glance; exact numbers belong into a
 * table. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

enum { STEPS = 5, CELL = 2 }; /* a cell is two characters wide, which makes it about square */

static const char *const shades_utf8[STEPS] = {" ", "░", "▒", "▓", "█"};
static const char *const shades_ascii[STEPS] = {" ", ".", ":", "*", "#"};

/* Zero alone is blank; the rest is split into four equal parts of the range up to the largest. */
static int shade(double value, double largest)
{
    if (!(value > 0))
        return 0;
    int step = (int)ceil(value / largest * (STEPS - 1));
    return step < 1 ? 1 : step > STEPS - 1 ? STEPS - 1 : step;
}

static bool is_drawable(double x)
{
    return isfinite(x) && x >= 0;
}

static double largest_of(const fst_heat_map *m)
{
    double largest = 0;
    for (size_t i = 0; i < m->rows * m->columns; i++)
        if (is_drawable(m->values[i]) && m->values[i] > largest)
            largest = m->values[i];
    return largest;
}

static const char *name_of(const char *const *names, size_t i, char scratch[24])
{
    if (names)
        return names[i];
    snprintf(scratch, 24, "%zu", i);
    return scratch;
}

static fst_status right(fst_buf *out, const char *text, size_t width, fst_error *err)
{
    size_t w = fst_text_width(text);
    fst_status s = fst__pad(out, width > w ? width - w : 0, err);
    return s ? s : fst_buf_append(out, text, strlen(text), err);
}

/* Column names in full where they fit into a cell, else every column whose name has room. */
static fst_status column_head(const fst_heat_map *m, size_t margin, fst_buf *out, fst_error *err)
{
    char scratch[24];
    size_t at = 0, free_from = 0; /* where the line is, and where the next name may stand */
    fst_status s = FST_OK;
    if (m->column_title) {
        s = fst__pad(out, margin + 1, err);
        if (!s)
            s = fst_buf_printf(out, err, "%s\n", m->column_title);
    }
    if (!s)
        s = right(out, m->row_title ? m->row_title : "", margin, err);
    if (!s)
        s = fst_buf_append(out, " ", 1, err);
    for (size_t i = 0; !s && i < m->columns; i++) {
        const char *name = name_of(m->column_names, i, scratch);
        if (i * CELL < free_from)
            continue;
        s = fst__pad(out, i * CELL - at, err);
        if (!s)
            s = fst_buf_append(out, name, strlen(name), err);
        at = i * CELL + fst_text_width(name);
        free_from = at + 1;
    }
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

static fst_status heat_row(const fst_heat_map *m, size_t row, double largest, size_t margin, bool ascii, fst_buf *out,
                           fst_error *err)
{
    char scratch[24];
    const char *const *shades = ascii ? shades_ascii : shades_utf8;
    fst_status s = right(out, name_of(m->row_names, row, scratch), margin, err);
    if (!s)
        s = fst_buf_append(out, ascii ? "|" : "│", strlen(ascii ? "|" : "│"), err);
    for (size_t i = 0; !s && i < m->columns; i++) {
        double v = m->values[row * m->columns + i];
        s = fst__repeat(out, is_drawable(v) ? shades[shade(v, largest)] : "?", CELL, err);
    }
    return s ? s : fst_buf_printf(out, err, "%s\n", ascii ? "|" : "│");
}

static fst_status legend(double largest, size_t margin, bool ascii, fst_buf *out, fst_error *err)
{
    const char *const *shades = ascii ? shades_ascii : shades_utf8;
    char a[FST_HUMAN];
    fst_status s = fst__pad(out, margin + 1, err);
    if (!s)
        s = fst_buf_printf(out, err, "blank: 0");
    for (int i = 1; !s && largest > 0 && i < STEPS; i++)
        s = fst_buf_printf(out, err, "  %s%s: to %s", shades[i], shades[i],
                           fst_human_count(largest * i / (STEPS - 1), a));
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

static fst_status undo(fst_buf *out, size_t len, fst_status s)
{
    if (s && out->data) {
        out->len = len;
        out->data[len] = 0;
    }
    return s;
}

fst_status fst_report_heat_map(const fst_heat_map *m, bool ascii, fst_buf *out, fst_error *err)
{
    char scratch[24];
    size_t before = out->len, margin = fst_text_width(m->row_title ? m->row_title : "");
    if (!m->rows || !m->columns || !m->values)
        return fst_fail(err, FST_E_ARGUMENT, "a heat map needs rows, columns and values");
    for (size_t i = 0; i < m->rows; i++) {
        size_t w = fst_text_width(name_of(m->row_names, i, scratch));
        margin = w > margin ? w : margin;
    }
    double largest = largest_of(m);
    fst_status s = column_head(m, margin, out, err);
    for (size_t i = 0; !s && i < m->rows; i++)
        s = heat_row(m, i, largest, margin, ascii, out, err);
    if (!s)
        s = legend(largest, margin, ascii, out, err);
    return undo(out, before, s);
}

static fst_status draw_bar(double share, size_t width, bool ascii, fst_buf *out, fst_error *err)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    size_t units = ascii ? 1 : 8;
    size_t length = share > 0 ? (size_t)llround(share * (double)(width * units)) : 0;
    if (length > width * units)
        length = width * units;
    if (length == 0 && share > 0)
        length = 1; /* something is not nothing */
    fst_status s = fst__repeat(out, ascii ? "#" : "█", length / units, err);
    return s || ascii ? s : fst__repeat(out, eighths[length % units], 1, err);
}

fst_status fst_report_bar(double share, size_t width, bool ascii, fst_buf *out, fst_error *err)
{
    size_t before = out->len;
    return undo(out, before, draw_bar(isfinite(share) && share < 1 ? share : share >= 1, width, ascii, out, err));
}

static fst_status bar_line(const fst_bar *bar, size_t margin, size_t width, double full, bool ascii, fst_buf *out,
                           fst_error *err)
{
    char a[FST_HUMAN];
    bool sound = isfinite(bar->value);
    size_t used = fst_text_width(bar->name);
    fst_status s = fst_buf_append(out, bar->name, strlen(bar->name), err);
    if (!s)
        s = fst__pad(out, margin - used + 2, err);
    if (!s)
        s = draw_bar(sound && full > 0 ? bar->value / full : 0, width, ascii, out, err);
    const char *label = bar->label ? bar->label : fst_human_count(bar->value, a);
    bool drawn = !s && out->len && out->data[out->len - 1] != ' ';
    return s ? s : fst_buf_printf(out, err, "%s%s\n", drawn ? " " : "", label);
}

fst_status fst_report_bars(const fst_bar *bars, size_t n, size_t width, double full, bool ascii, fst_buf *out,
                           fst_error *err)
{
    size_t before = out->len, margin = 0;
    double largest = full > 0 ? full : 0;
    fst_status s = FST_OK;
    for (size_t i = 0; i < n; i++) {
        size_t w = fst_text_width(bars[i].name);
        margin = w > margin ? w : margin;
        if (!(full > 0) && isfinite(bars[i].value) && bars[i].value > largest)
            largest = bars[i].value;
    }
    for (size_t i = 0; !s && i < n; i++)
        s = bar_line(&bars[i], margin, width, largest, ascii, out, err);
    return undo(out, before, s);
}
