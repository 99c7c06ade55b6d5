/* How much memory reading a file may take, so that it grows with the file and with nothing that the file says. */
#include <string.h>

#include "fedstill/base.h"

enum { BASE = 1 << 20, FACTOR = 32 };

size_t fst_budget(uint64_t file_bytes)
{
    return file_bytes > (SIZE_MAX - BASE) / FACTOR ? SIZE_MAX : (size_t)(BASE + FACTOR * file_bytes);
}

/* What Jansson takes for the parts of a text, with the allocator's share: an object and its first table, a list with
 * room for eight, an entry of an object, a text or number; and the pointer of an entry, twice while a table grows. */
enum { OBJECT = 240, LIST = 128, ENTRY = 80, TEXT = 72, ITEM = 48 };

const char *fst_text_without_mark(const char *text, size_t *len)
{
    bool marked = *len >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3);
    *len -= marked ? 3 : 0;
    return marked ? text + 3 : text;
}

fst_status fst_json_fits(const char *name, const char *text, size_t len, uint64_t file_bytes, fst_error *err)
{
    size_t budget = fst_budget(file_bytes), cost = 0;
    bool quoted = false;
    for (size_t i = 0; i < len && cost <= budget; i++) {
        char c = text[i];
        if (quoted) {
            quoted = c != '"';
            i += c == '\\';
            cost += 2; /* the letter, and its place in the parser's buffer */
            continue;
        }
        quoted = c == '"';
        cost += c == '{' ? OBJECT : c == '[' ? LIST : c == ':' ? ENTRY : c == '"' ? TEXT : c == ',' ? ITEM : 0;
    }
    if (cost <= budget)
        return FST_OK;
    return fst_fail(err, FST_E_LIMIT, "%s: its JSON takes more memory than the %zu bytes that a file of its size may",
                    name, budget);
}
