/* Texts of a pickle that need work before they are what they mean: the escapes of protocol 0, and bytes that
 * Python 3 wrote as Latin-1 texts for Python 2. */
#include <string.h>

#include "pickle_private.h"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* `n` hexadecimal digits; -1 when they are not there. */
static int64_t hex_number(const char *p, size_t left, size_t n)
{
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        int d = i < left ? hex_digit(p[i]) : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* What stands after a backslash in Python 2's repr of a str: its byte, and how many letters it took. 0: wrong. */
static size_t escape(const char *p, size_t left, char *out)
{
    static const char letters[] = "\\'\"abfnrtv", meant[] = "\\'\"\a\b\f\n\r\t\v";
    const char *hit = left && p[0] ? strchr(letters, p[0]) : NULL;
    if (hit) {
        *out = meant[hit - letters];
        return 1;
    }
    if (left && p[0] == 'x') {
        int64_t v = hex_number(p + 1, left - 1, 2);
        *out = (char)v;
        return v < 0 ? 0 : 3;
    }
    size_t n = 0;
    int v = 0;
    while (n < 3 && n < left && p[n] >= '0' && p[n] <= '7')
        v = v * 8 + (p[n++] - '0');
    *out = (char)v;
    return n;
}

/* What the letters at `copy` are, as a value. */
static fst_status made(fst_pickle *p, int kind, const char *copy, size_t n, fst_pickle_value **out, fst_error *err)
{
    fst_status s = fst__pickle_value(p, kind, out, err);
    if (!s) {
        (*out)->text.data = copy;
        (*out)->text.length = n;
    }
    return s;
}

fst_status fst__pickle_string(fst_pickle *p, const char *line, size_t n, fst_pickle_value **out, fst_error *err)
{
    size_t k = 0;
    void *copy = NULL;
    if (n < 2 || (line[0] != '\'' && line[0] != '"') || line[n - 1] != line[0])
        return fst__pickle_fail(p, err, "a text in quotes is needed");
    fst_status s = fst__pickle_take(p, n, &copy, err);
    if (s)
        return s;
    char *to = copy;
    for (size_t i = 1; i + 1 < n; k++) {
        if (line[i] != '\\') {
            to[k] = line[i++];
            continue;
        }
        size_t used = escape(line + i + 1, n - 2 - i, &to[k]);
        if (!used)
            return fst__pickle_fail(p, err, "a text with a wrong escape");
        i += 1 + used;
    }
    return made(p, FST_PICKLE_BYTES, copy, k, out, err);
}

static size_t put_utf8(uint32_t c, char *out)
{
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 0; c >>= 6)
        out[i] = (char)(i ? 0x80 | (c & 0x3F) : lead[n] | c);
    return n;
}

fst_status fst__pickle_unicode(fst_pickle *p, const char *line, size_t n, fst_pickle_value **out, fst_error *err)
{
    size_t k = 0;
    void *copy = NULL;
    fst_status s = fst__pickle_take(p, 2 * n + 4, &copy, err); /* a Latin-1 letter takes two bytes at most */
    if (s)
        return s;
    for (size_t i = 0; i < n;) {
        int64_t c = (unsigned char)line[i];
        size_t digits = c == '\\' && i + 1 < n ? (line[i + 1] == 'u' ? 4 : line[i + 1] == 'U' ? 8 : 0) : 0;
        if (digits)
            c = hex_number(line + i + 2, n - i - 2, digits);
        if (c < 0 || c > 0x10FFFF)
            return fst__pickle_fail(p, err, "a text with a wrong escape");
        k += put_utf8((uint32_t)c, (char *)copy + k);
        i += digits ? 2 + digits : 1;
    }
    return made(p, FST_PICKLE_TEXT, copy, k, out, err);
}

fst_status fst__pickle_latin1(fst_pickle *p, const fst_pickle_value *text, fst_pickle_value **out, fst_error *err)
{
    const unsigned char *from = (const unsigned char *)text->text.data;
    size_t n = text->text.length, k = 0;
    void *copy = NULL;
    fst_status s = fst__pickle_fill(p, from, n, err);
    if (!s)
        s = fst__pickle_take(p, n + 1, &copy, err);
    unsigned char *to = copy;
    for (size_t i = 0; !s && i < n; i++) {
        unsigned c = from[i];
        if (c >= 0x80) {
            if ((c != 0xC2 && c != 0xC3) || i + 1 == n || (from[i + 1] & 0xC0) != 0x80)
                return fst__pickle_fail(p, err, "a letter that Latin-1 has not");
            c = (c & 3) << 6 | (from[++i] & 0x3F);
        }
        to[k++] = (unsigned char)c;
    }
    return s ? s : made(p, FST_PICKLE_BYTES, copy, k, out, err);
}
