/* How wide text is, and numbers with units. Widths are those of common terminals, from ranges rather than
 * from the locale, so that a table is the same bytes everywhere. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text.h"

size_t fst__utf8_next(const char *text, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3 : 0;
    if (p[0] >= 0xF0 && p[0] < 0xF5)
        n = 4;
    uint32_t c = n == 1 ? p[0] : n ? p[0] & (0x7Fu >> n) : 0xFFFD;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            *code = 0xFFFD;
            return 1;
        }
        c = c << 6 | (p[i] & 0x3F);
    }
    *code = c;
    return n ? n : 1;
}

/* ---- text from elsewhere -------------------------------------------------------------------- */

bool fst__is_unprintable(uint32_t c)
{
    static const struct {
        uint32_t from, to;
    } ranges[] = {{0x7F, 0x9F},     {0xAD, 0xAD},     {0x61C, 0x61C},     {0x180E, 0x180E},      {0x200B, 0x200B},
                  {0x200E, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},   {0xD800, 0xDFFF},      {0xFEFF, 0xFEFF},
                  {0xFFF0, 0xFFFB}, {0xFFFE, 0xFFFF}, {0xE0000, 0xE0FFF}, {0x110000, UINT32_MAX}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i].from && c <= ranges[i].to)
            return true;
    return c < 0x20;
}

/* Whether the n bytes that gave `c` are UTF-8 in its shortest form. */
static bool is_utf8(uint32_t c, size_t n)
{
    return n == 1 ? c < 0x80 : c >= (n == 2 ? 0x80u : n == 3 ? 0x800u : 0x10000u);
}

void fst_text_clean(char *text, bool lines)
{
    char *to = text;
    for (const char *from = text; *from;) {
        uint32_t c;
        size_t n = fst__utf8_next(from, &c);
        bool ascii = n == 1 && c < 0x80;
        if (lines && ascii && (c == '\n' || c == '\t')) {
            *to++ = (char)c;
        } else if (!is_utf8(c, n) || fst__is_unprintable(c)) {
            *to++ = ascii && !lines ? ' ' : '?';
        } else {
            memmove(to, from, n);
            to += n;
        }
        from += n;
    }
    *to = 0;
}

fst_status fst_text_json(fst_buf *out, const char *json, fst_error *err)
{
    fst_status s = FST_OK;
    while (!s && *json) {
        uint32_t c;
        size_t n = fst__utf8_next(json, &c);
        bool layout = n == 1 && (c == '\n' || c == '\t' || c == '\r');
        if (layout || !fst__is_unprintable(c))
            s = fst_buf_append(out, json, n, err);
        else if (c < 0x10000)
            s = fst_buf_printf(out, err, "\\u%04x", c);
        else
            s = fst_buf_printf(out, err, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
        json += n;
    }
    return s;
}

/* ---- widths --------------------------------------------------------------------------------- */

static size_t code_width(uint32_t c)
{
    if ((c >= 0x300 && c <= 0x36F) || (c >= 0x1AB0 && c <= 0x1AFF) || (c >= 0x20D0 && c <= 0x20FF) ||
        (c >= 0x200B && c <= 0x200F) || (c >= 0xFE00 && c <= 0xFE0F))
        return 0;
    if ((c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF && c != 0x303F) || (c >= 0xAC00 && c <= 0xD7A3) ||
        (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
        (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1F64F) || (c >= 0x1F900 && c <= 0x1F9FF) ||
        (c >= 0x20000 && c <= 0x3FFFD))
        return 2;
    return 1;
}

size_t fst_text_width(const char *text)
{
    size_t width = 0;
    uint32_t c;
    while (*text) {
        text += fst__utf8_next(text, &c);
        width += code_width(c);
    }
    return width;
}

fst_status fst__pad(fst_buf *out, size_t n, fst_error *err)
{
    static const char blanks[] = "                                ";
    fst_status s = FST_OK;
    while (!s && n) {
        size_t now = n < sizeof blanks - 1 ? n : sizeof blanks - 1;
        s = fst_buf_append(out, blanks, now, err);
        n -= now;
    }
    return s;
}

fst_status fst__repeat(fst_buf *out, const char *what, size_t n, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < n; i++)
        s = fst_buf_append(out, what, strlen(what), err);
    return s;
}

/* ---- units -------------------------------------------------------------------------------- */

/* One decimal below 100, none above: 1.2, 12.3, 123; whole numbers below 1000 stay whole, and what is below 1
 * keeps three digits. */
static const char *scaled(double x, const char *const *units, size_t count, const char *gap, char out[FST_HUMAN])
{
    size_t u = 0;
    double a = fabs(x);
    if (!isfinite(x)) {
        snprintf(out, FST_HUMAN, "-");
        return out;
    }
    while (u + 1 < count && a >= (u ? 999.5 : 1000)) {
        a /= 1000;
        u++;
    }
    if (u == 0 && a > 0 && a < 1) {
        snprintf(out, FST_HUMAN, "%.3g%s%s", x, *units[0] ? gap : "", units[0]);
        return out;
    }
    int decimals = u == 0 && a == floor(a) ? 0 : a >= 99.95 ? 0 : 1;
    snprintf(out, FST_HUMAN, "%s%.*f%s%s", x < 0 ? "-" : "", decimals, a, *units[u] ? gap : "", units[u]);
    return out;
}

const char *fst_human_bytes(double bytes, char out[FST_HUMAN])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    return scaled(bytes, units, sizeof units / sizeof *units, " ", out);
}

const char *fst_human_count(double count, char out[FST_HUMAN])
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    return scaled(count, units, sizeof units / sizeof *units, "", out);
}

const char *fst_human_seconds(double seconds, char out[FST_HUMAN])
{
    double a = fabs(seconds);
    if (!isfinite(seconds))
        snprintf(out, FST_HUMAN, "-");
    else if (a == 0)
        snprintf(out, FST_HUMAN, "0 s");
    else if (a < 0.9995e-3)
        snprintf(out, FST_HUMAN, "%.3g µs", seconds * 1e6);
    else if (a < 0.9995)
        snprintf(out, FST_HUMAN, "%.3g ms", seconds * 1e3);
    else if (a < 59.95)
        snprintf(out, FST_HUMAN, "%.1f s", seconds);
    else if (a < 3599.5)
        snprintf(out, FST_HUMAN, "%.0f min %02d s", trunc(round(seconds) / 60), (int)fmod(round(a), 60));
    else
        snprintf(out, FST_HUMAN, "%.0f h %02d min", trunc(round(seconds / 60) / 60), (int)fmod(round(a / 60), 60));
    return out;
}

const char *fst_human_percent(double share, char out[FST_HUMAN])
{
    if (isfinite(share))
        snprintf(out, FST_HUMAN, "%.2f %%", share * 100);
    else
        snprintf(out, FST_HUMAN, "-");
    return out;
}

const char *fst_human_time(int64_t unix_ms, char out[FST_HUMAN])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (unix_ms == 0 || !localtime_r(&seconds, &tm) || !strftime(out, FST_HUMAN, "%Y-%m-%d %H:%M:%S", &tm))
        snprintf(out, FST_HUMAN, "-");
    return out;
}
