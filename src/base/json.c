/*
 * Whole numbers out of JSON values that jansson parsed, and values that jansson alone would not make. JSON has one type
 * of number: 100, 100.0 and 1E+2 are the same one, and many programs write whole numbers with a point. Everything else
 * (texts, true, 1.5) is refused by name and never read as 0. Parsing is left to jansson.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/base.h"

/* Up to here every whole number is a double of its own, so that none was rounded to another one when it was parsed. */
#define EXACT 9007199254740992.0 /* 2^53 */

bool fst_whole_of_double(double x, int64_t *out)
{
    if (!(fabs(x) <= EXACT) || x != floor(x))
        return false;
    *out = (int64_t)x;
    return true;
}

bool fst_json_is_whole(const struct json_t *j, int64_t *out)
{
    if (json_is_integer(j))
        *out = json_integer_value(j);
    return json_is_integer(j) || (json_is_real(j) && fst_whole_of_double(json_real_value(j), out));
}

/* The text's first characters, whole ones of UTF-8. */
static void quote(const char *text, size_t n, char *out, size_t size)
{
    size_t most = size > 8 ? size - 7 : 1, cut = n < most ? n : most;
    while (cut < n && cut > 0 && ((unsigned char)text[cut] & 0xC0) == 0x80)
        cut--;
    snprintf(out, size, "\"%.*s%s\"", (int)cut, text, cut < n ? "..." : "");
}

const char *fst_json_found(const struct json_t *j, char out[FST_JSON_FOUND])
{
    switch (j ? (int)json_typeof(j) : -1) {
    case JSON_STRING:
        quote(json_string_value(j), json_string_length(j), out, FST_JSON_FOUND);
        break;
    case JSON_INTEGER:
        snprintf(out, FST_JSON_FOUND, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
        break;
    case JSON_REAL:
        snprintf(out, FST_JSON_FOUND, "%.15g", json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(out, FST_JSON_FOUND, "%s", json_is_true(j) ? "true" : "false");
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        snprintf(out, FST_JSON_FOUND, "%s", json_is_object(j) ? "an object" : "a list");
        break;
    case JSON_NULL:
        snprintf(out, FST_JSON_FOUND, "null");
        break;
    default:
        snprintf(out, FST_JSON_FOUND, "missing");
    }
    return out;
}

fst_status fst_json_whole(const struct json_t *object, const char *key, int64_t low, int64_t high, int64_t *out,
                          fst_error *err)
{
    char found[FST_JSON_FOUND], range[64] = "";
    const json_t *j = json_object_get(object, key);
    int64_t v = 0;
    if (!j)
        return FST_OK;
    if (fst_json_is_whole(j, &v) && v >= low && v <= high) {
        *out = v;
        return FST_OK;
    }
    if (high == INT64_MAX && low > INT64_MIN)
        snprintf(range, sizeof range, " >= %" PRId64, low);
    else if (low > INT64_MIN)
        snprintf(range, sizeof range, " from %" PRId64 " to %" PRId64, low, high);
    return fst_fail(err, FST_E_FORMAT, "%s must be a whole number%s, not %s", key, range, fst_json_found(j, found));
}

struct json_t *fst_json_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

struct json_t *fst_json_text(const char *text)
{
    json_t *j = text ? json_string(text) : json_null();
    char *copy = j ? NULL : fst_strdup(text);
    for (char *p = copy; p && *p; p++)
        *p = (unsigned char)*p < 0x80 ? *p : '?';
    if (copy)
        j = json_string(copy);
    fst_free(copy);
    return j;
}
