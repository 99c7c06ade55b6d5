/* The words of a page: escaping, sections, tables, lists of facts. What stands in which section is decided elsewhere.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "page.h"
#include "text.h"

void fst__put(fst__page *p, const char *html)
{
    if (!p->status && !p->only_csv)
        p->status = fst_buf_append(p->out, html, strlen(html), p->err);
}

void fst__putf(fst__page *p, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!p->status && (n < 0 || (size_t)n >= sizeof text))
        p->status = fst_fail(p->err, FST_E_LIMIT, "a piece of a page of %d bytes", n);
    fst__put(p, p->status ? "" : text);
}

/* What XML 1.0 takes for a character, U+FFFE and U+FFFF left out; n: bytes that it was written in. */
static bool is_character(uint32_t c, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return c >= least[n] && !(c >= 0xD800 && c < 0xE000) && c <= 0x10FFFF && (c & 0xFFFE) != 0xFFFE;
}

void fst__say(fst__page *p, const char *text)
{
    for (uint32_t c; text && *text && !p->status && !p->only_csv;) {
        size_t n = fst__utf8_next(text, &c);
        const char *as = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '"'  ? "&quot;"
                         : c == '\'' ? "&#39;"
                                     : NULL;
        if (!as && ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F || (c >= 0x80 && c < 0xA0)))
            as = " ";
        if (!as && (!is_character(c, n) || (n == 1 && c >= 0x80) || (fst__is_unprintable(c) && c != '\n' && c != '\t')))
            as = "\xEF\xBF\xBD";
        p->status = fst_buf_append(p->out, as ? as : text, as ? strlen(as) : n, p->err);
        text += n;
    }
}

void fst__say_in(fst__page *p, const char *element, const char *text)
{
    fst__putf(p, "<%s>", element);
    fst__say(p, text);
    fst__putf(p, "</%s>\n", element);
}

/* ---- the frame ----------------------------------------------------------------------------------- */

void fst__page_head(fst__page *p, const char *title, const char *kind)
{
    fst__put(
        p,
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
        "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
        "<meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" content=\"fedstill " FST_VERSION
        "\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n<title>");
    fst__say(p, title);
    fst__say(p, kind);
    fst__put(p, "</title>\n<style>\n");
    fst__put(p, fst__html_style);
    fst__put(p, "</style>\n</head>\n<body>\n");
}

static void contents(const fst__page *body, fst__page *p)
{
    fst__put(p, "<nav aria-label=\"Sections\"><ul>");
    for (size_t i = 0; i < body->sections; i++) {
        fst__putf(p, "<li><a href=\"#%s\">", body->section[i].id);
        fst__say(p, body->section[i].title);
        fst__put(p, "</a></li>");
    }
    fst__put(p, "</ul></nav>\n");
}

void fst__page_main(const fst__page *body, fst__page *p)
{
    contents(body, p);
    fst__put(p, "<main>\n");
    fst__put(p, body->out->data ? body->out->data : "");
    fst__put(p, "</main>\n<footer><p>Written by fedstill " FST_VERSION
                ". This page needs no network; charts and tables are part of it.</p></footer>\n<script>\n");
    fst__put(p, fst__html_script);
    fst__put(p, "</script>\n</body>\n</html>\n");
}

/* ---- sections ----------------------------------------------------------------------------------- */

void fst__section_end(fst__page *p)
{
    if (p->open)
        fst__put(p, "</section>\n");
    p->open = false;
}

void fst__section(fst__page *p, const char *id, const char *title)
{
    fst__section_end(p);
    if (p->sections < FST__SECTIONS) {
        p->section[p->sections].id = id;
        p->section[p->sections++].title = title;
    }
    fst__putf(p, "\n<section id=\"%s\" aria-labelledby=\"h-%s\">\n<h2 id=\"h-%s\">", id, id, id);
    fst__say(p, title);
    fst__put(p, "</h2>\n");
    p->open = true;
}

void fst__subtitle(fst__page *p, const char *title)
{
    fst__say_in(p, "h3", title);
}

void fst__missing(fst__page *p, const char *what, const char *why)
{
    fst__put(p, "<p class=\"missing\"><strong>");
    fst__say(p, what);
    fst__put(p, "</strong> ");
    fst__say(p, why);
    fst__put(p, "</p>\n");
}

/* ---- tables -------------------------------------------------------------------------------------- */

void fst__table_begin(fst__page *p, const char *name, const char *caption, const char *const *titles)
{
    fst__record_begin(p, name, titles, true);
    fst__put(p, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    fst__say(p, caption);
    fst__put(p, "\"><table class=\"sorts\">\n<caption><span>");
    fst__say(p, caption);
    fst__put(p, "</span></caption>\n<thead><tr>");
    for (; *titles; titles++) {
        bool number = **titles == '#';
        fst__putf(p, "<th scope=\"col\"%s>", number ? " class=\"n\"" : "");
        fst__say(p, *titles + number);
        fst__put(p, "</th>");
    }
    fst__put(p, "</tr></thead>\n<tbody>\n");
}

void fst__table_end(fst__page *p)
{
    fst__put(p, "</tbody></table></div>\n");
    fst__record_end(p, true);
}

void fst__row_begin(fst__page *p)
{
    fst__put(p, "<tr>");
}

void fst__row_end(fst__page *p)
{
    fst__put(p, "</tr>\n");
    fst__record_row(p);
}

void fst__cell_head(fst__page *p, const char *text)
{
    fst__record_text(p, text);
    fst__put(p, "<th scope=\"row\">");
    fst__say(p, text);
    fst__put(p, "</th>");
}

/* The column's title stands in the cell too, for narrow screens, where rows are lists. */
static void cell_open(fst__page *p, const char *kind)
{
    fst__putf(p, "<td class=\"%s\" data-label=\"", kind);
    fst__say(p, fst__record_title(p));
    fst__put(p, "\"");
}

void fst__cell(fst__page *p, const char *text)
{
    fst__record_text(p, text);
    cell_open(p, "t");
    fst__put(p, ">");
    fst__say(p, text);
    fst__put(p, "</td>");
}

static void cell_number(fst__page *p, double value, const char *shown, const char *unit)
{
    fst__record_number(p, value, unit);
    if (!isfinite(value)) {
        cell_open(p, "n");
        fst__put(p, ">-</td>");
        return;
    }
    cell_open(p, "n");
    fst__putf(p, " data-value=\"%.17g\">", value);
    fst__say(p, shown);
    fst__put(p, "</td>");
}

void fst__cell_number(fst__page *p, double value, const char *shown)
{
    cell_number(p, value, shown, NULL);
}

void fst__cell_percent(fst__page *p, double share)
{
    char text[FST_HUMAN];
    cell_number(p, share, fst_human_percent(share, text), "share");
}

void fst__cell_count(fst__page *p, double value)
{
    char text[48];
    snprintf(text, sizeof text, "%.0f", value);
    fst__cell_number(p, value, fabs(value) < 1e15 ? text : "many");
}

void fst__cell_seconds(fst__page *p, double value)
{
    char text[FST_HUMAN];
    cell_number(p, value, fst_human_seconds(value, text), "s");
}

void fst__cell_bytes(fst__page *p, double value)
{
    char text[FST_HUMAN];
    cell_number(p, value, fst_human_bytes(value, text), "B");
}

void fst__cell_plain(fst__page *p, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.4g", value);
    fst__cell_number(p, value, text);
}

/* ---- facts ------------------------------------------------------------------------------------------ */

void fst__facts_begin(fst__page *p)
{
    fst__put(p, "<dl>\n");
}

void fst__facts_end(fst__page *p)
{
    fst__put(p, "</dl>\n");
}

void fst__fact(fst__page *p, const char *name, const char *text)
{
    if (!text || !*text)
        return;
    fst__put(p, "<div><dt>");
    fst__say(p, name);
    fst__put(p, "</dt><dd>");
    fst__say(p, text);
    fst__put(p, "</dd></div>\n");
}

void fst__fact_number(fst__page *p, const char *name, double value, const char *shown)
{
    if (!isfinite(value))
        return;
    fst__put(p, "<div><dt>");
    fst__say(p, name);
    fst__putf(p, "</dt><dd data-value=\"%.17g\">", value);
    fst__say(p, shown);
    fst__put(p, "</dd></div>\n");
}

void fst__fact_digest(fst__page *p, const char *name, const char *digest)
{
    if (!digest || !*digest)
        return;
    fst__put(p, "<div><dt>");
    fst__say(p, name);
    fst__put(p, "</dt><dd><code>");
    fst__say(p, digest);
    fst__put(p, "</code></dd></div>\n");
}
