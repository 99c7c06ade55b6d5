/* A strict check that a text is well-formed XML: tags nest and close, attributes are quoted and differ, "<" and "&" are
 * escaped, characters are XML's, in UTF-8. Knows the five entities and numbers, no DTD, no CDATA. Written from the
 * XML 1.0 grammar, apart from the code that it checks. */
#ifndef TESTS_XML_CHECK_H
#define TESTS_XML_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct xml_check {
    const unsigned char *p, *end;
    const char *why;
    struct {
        const unsigned char *name;
        size_t len;
    } open[128];
    size_t depth, roots;
};

static inline bool xml_fail(struct xml_check *x, const char *why)
{
    x->why = x->why ? x->why : why;
    return false;
}

static inline bool xml_name_char(unsigned char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
           (!first && ((c >= '0' && c <= '9') || c == '-' || c == '.'));
}

static inline size_t xml_name(struct xml_check *x)
{
    const unsigned char *from = x->p;
    while (x->p < x->end && xml_name_char(*x->p, x->p == from))
        x->p++;
    return (size_t)(x->p - from);
}

static inline void xml_blanks(struct xml_check *x)
{
    while (x->p < x->end && strchr(" \t\r\n", *x->p) && *x->p)
        x->p++;
}

static inline bool xml_reference(struct xml_check *x)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"};
    for (size_t i = 0; i < 5; i++) {
        size_t n = strlen(known[i]);
        if ((size_t)(x->end - x->p) >= n && !memcmp(x->p, known[i], n)) {
            x->p += n;
            return true;
        }
    }
    if (x->end - x->p < 4 || x->p[1] != '#')
        return xml_fail(x, "a bare &");
    size_t digits = 0;
    for (x->p += 2; x->p < x->end && *x->p >= '0' && *x->p <= '9'; x->p++)
        digits++;
    if (!digits || x->p == x->end || *x->p++ != ';')
        return xml_fail(x, "a bare &#");
    return true;
}

/* One character as it stands. */
static inline bool xml_character(struct xml_check *x)
{
    unsigned c = *x->p, n = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    if ((c >= 0x80 && c < 0xC0) || c > 0xF7 || (size_t)(x->end - x->p) < n)
        return xml_fail(x, "bytes that are not UTF-8");
    unsigned code = n == 1 ? c : c & (0x7Fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((x->p[i] & 0xC0) != 0x80)
            return xml_fail(x, "bytes that are not UTF-8");
        code = code << 6 | (x->p[i] & 0x3F);
    }
    if (code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) || code == 0xFFFE || code == 0xFFFF ||
        (code < 0x20 && code != '\t' && code != '\n' && code != '\r'))
        return xml_fail(x, "a character that XML does not have");
    x->p += n;
    return true;
}

static inline bool xml_attributes(struct xml_check *x)
{
    struct {
        const unsigned char *name;
        size_t len;
    } seen[64];
    for (size_t n = 0;; n++) {
        const unsigned char *before = x->p;
        xml_blanks(x);
        if (x->p == x->end)
            return xml_fail(x, "a tag without end");
        if (*x->p == '>' || *x->p == '/' || *x->p == '?')
            return true;
        seen[n].name = x->p;
        seen[n].len = xml_name(x);
        if (before == seen[n].name || !seen[n].len || n == 63)
            return xml_fail(x, "no attribute");
        for (size_t i = 0; i < n; i++)
            if (seen[i].len == seen[n].len && !memcmp(seen[i].name, seen[n].name, seen[n].len))
                return xml_fail(x, "an attribute twice");
        if (x->end - x->p < 2 || *x->p++ != '=' || (*x->p != '"' && *x->p != '\''))
            return xml_fail(x, "an attribute without quotes");
        unsigned char quote = *x->p++;
        while (x->p < x->end && *x->p != quote) {
            if (*x->p == '<')
                return xml_fail(x, "< in an attribute");
            if (*x->p == '&' ? !xml_reference(x) : !xml_character(x))
                return false;
        }
        if (x->p++ == x->end)
            return xml_fail(x, "an attribute without end");
    }
}

static inline bool xml_tag(struct xml_check *x)
{
    bool closing = x->end - x->p > 1 && x->p[1] == '/';
    x->p += closing ? 2 : 1;
    const unsigned char *name = x->p;
    size_t len = xml_name(x);
    if (!len)
        return xml_fail(x, "a bare <");
    if (closing) {
        xml_blanks(x);
        if (x->p == x->end || *x->p++ != '>' || !x->depth || x->open[x->depth - 1].len != len ||
            memcmp(x->open[x->depth - 1].name, name, len))
            return xml_fail(x, "a closing tag that is not that of the open element");
        x->depth--;
        return true;
    }
    if (!xml_attributes(x))
        return false;
    bool empty = *x->p == '/';
    x->p += empty;
    if (x->p == x->end || *x->p++ != '>')
        return xml_fail(x, "a tag without >");
    x->roots += x->depth == 0;
    if (x->roots > 1)
        return xml_fail(x, "a second root");
    if (empty)
        return true;
    if (x->depth == 128)
        return xml_fail(x, "too deep");
    x->open[x->depth].name = name;
    x->open[x->depth++].len = len;
    return true;
}

/* Whether the text is well-formed; otherwise where and why not. A first <!DOCTYPE html> or <?xml ...?> may stand. */
static inline bool xml_check(const char *text, size_t len, size_t *at, char *why, size_t size)
{
    struct xml_check x = {.p = (const unsigned char *)text, .end = (const unsigned char *)text + len};
    static const char doctype[] = "<!DOCTYPE html>";
    bool ok = true;
    if (len >= sizeof doctype - 1 && !memcmp(text, doctype, sizeof doctype - 1))
        x.p += sizeof doctype - 1;
    while (ok && x.p < x.end) {
        if (*x.p == '<')
            ok = xml_tag(&x);
        else if (!x.depth && !strchr(" \t\r\n", *x.p))
            ok = xml_fail(&x, "text outside the root");
        else
            ok = *x.p == '&' ? xml_reference(&x) : xml_character(&x);
    }
    if (ok && (x.depth || x.roots != 1))
        ok = xml_fail(&x, "an element is not closed, or there is none");
    *at = (size_t)(x.p - (const unsigned char *)text);
    snprintf(why, size, "%s", x.why ? x.why : "");
    return ok;
}

#endif
