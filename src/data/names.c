/*
 * What may be the name of a class or a label. Names come from strangers' files and go to terminals, tables, JSON and
 * pages, so they are short texts of UTF-8 without characters that control what is shown: they are refused where they
 * are read.
 */
#include <string.h>

#include "formats.h"

/* The code point at s, of n bytes at least 1; 0 for what is not UTF-8. *used is how many bytes it has. */
static uint32_t code_point(const unsigned char *s, size_t n, size_t *used)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : 4;
    uint32_t c = len == 1 ? s[0] : s[0] & (0xFFu >> (len + 1));
    if (len > n || (s[0] >= 0x80 && s[0] < 0xC2) || s[0] > 0xF4)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    *used = len;
    return c < least[len] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000) ? 0 : c;
}

/* Controls of ASCII and Latin-1, characters without width, line breaks, and marks that turn the direction of text. */
static bool hides(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

const char *fst__name_fault(const char *text, size_t n)
{
    if (n == 0)
        return "is empty";
    if (n > FST__MAX_NAME)
        return "is longer than 255 bytes";
    for (size_t i = 0, used = 0; i < n; i += used) {
        uint32_t c = code_point((const unsigned char *)text + i, n - i, &used);
        if (c == 0 && text[i])
            return "is not UTF-8";
        if (hides(c))
            return "has control characters or invisible ones";
    }
    return NULL;
}

fst_status fst__check_names(const char *where, char *const *names, size_t n, fst_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const char *wrong = fst__name_fault(names[i], strlen(names[i]));
        if (wrong)
            return fst_fail(err, FST_E_FORMAT, "%s: the name of class %zu %s", where, i, wrong);
    }
    return FST_OK;
}
