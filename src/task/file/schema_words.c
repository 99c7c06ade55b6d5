/*
 * Fields and their values in words, for messages and the reference: what a field accepts, and which of several names
 * somebody may have meant. It also knows how large a value is, how many a list may hold, and the entries of a map with
 * free keys. It reads nothing.
 */
#include <stdio.h>
#include <string.h>

#include "schema.h"

/* ---- what a field accepts ----------------------------------------------------------------- */

size_t fst__field_size(const fst__field *f)
{
    switch (f->type) {
    case FST__TYPE_STRING:
        return sizeof(char *);
    case FST__TYPE_INT:
        return sizeof(int64_t);
    case FST__TYPE_DOUBLE:
        return sizeof(double);
    case FST__TYPE_BOOL:
        return sizeof(bool);
    case FST__TYPE_ENUM:
        return sizeof(int);
    case FST__TYPE_NAMED:
        return sizeof(fst__named *);
    case FST__TYPE_MAP:
        break;
    }
    return f->table->size;
}

/* ---- maps with free keys ------------------------------------------------------------------ */

const fst__named *fst__named_entries(const fst__field *f, const void *object, size_t *count)
{
    const fst__named *entries;
    memcpy(&entries, (const char *)object + f->offset, sizeof entries);
    *count = *(const size_t *)(const void *)((const char *)object + f->count_at);
    return entries;
}

bool fst__choice_named(const fst__field *f, const char *name, size_t *i, fst__choice *out)
{
    for (size_t k = 0; f->choice(k, out); k++)
        if (!strcmp(out->name, name)) {
            if (i)
                *i = k;
            return true;
        }
    return false;
}

/* ---- what a field accepts, in words -------------------------------------------------------- */

/* Appends to a bounded text; what does not fit is cut. */
static void __attribute__((format(printf, 4, 5))) add(char *out, size_t size, size_t *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + *at, size - *at, fmt, ap);
    va_end(ap);
    *at += n < 0 ? 0 : (size_t)n < size - *at ? (size_t)n : size - *at - 1;
}

static void add_limits(const fst__field *f, char *out, size_t size, size_t *at)
{
    char lo[40], hi[40];
    bool has_lo, has_hi;
    if (f->type == FST__TYPE_INT) {
        has_lo = f->int_min != INT64_MIN;
        has_hi = f->int_max != INT64_MAX;
        snprintf(lo, sizeof lo, "%lld", (long long)f->int_min);
        snprintf(hi, sizeof hi, "%lld", (long long)f->int_max);
    } else {
        has_lo = isfinite(f->min);
        has_hi = isfinite(f->max);
        fst__number_text(has_lo ? f->min : 0, lo, sizeof lo);
        fst__number_text(has_hi ? f->max : 0, hi, sizeof hi);
    }
    if (has_lo && has_hi && !f->exclusive)
        add(out, size, at, " from %s to %s", lo, hi);
    else if (has_lo)
        add(out, size, at, " %s %s", f->exclusive ? ">" : ">=", lo);
    if (has_hi && (!has_lo || f->exclusive))
        add(out, size, at, "%s <= %s", has_lo ? " and" : "", hi);
}

static void add_one(const fst__field *f, char *out, size_t size, size_t *at)
{
    static const char *const names[] = {"a text",  "a whole number", "a number",     "true or false",
                                        "one of ", "a map",          "a map of maps"};
    add(out, size, at, "%s", names[f->type]);
    if (f->type == FST__TYPE_INT || f->type == FST__TYPE_DOUBLE)
        add_limits(f, out, size, at);
    for (size_t i = 0; f->type == FST__TYPE_ENUM && f->names[i]; i++)
        add(out, size, at, "%s%s", i ? ", " : "", f->names[i]);
    if (f->type == FST__TYPE_MAP && f->table->shorthand)
        add(out, size, at, " or a bare %s", f->table->shorthand);
}

/* How many entries a list may have: an array in the struct may be smaller than count_max. */
size_t fst__most_entries(const fst__field *f)
{
    size_t fit = f->room ? f->room / fst__field_size(f) : f->count_max;
    return fit < f->count_max ? fit : f->count_max;
}

const char *fst__value_accepts(const fst__field *f, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    add_one(f, out, size, &at);
    return out;
}

const char *fst__field_accepts(const fst__field *f, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    if (f->list && f->count_min == fst__most_entries(f))
        add(out, size, &at, "a list of %zu entries, each ", f->count_min);
    else if (f->list && f->count_min)
        add(out, size, &at, "a list of %zu to %zu entries, each ", f->count_min, fst__most_entries(f));
    else if (f->list)
        add(out, size, &at, "a list of at most %zu entries, each ", fst__most_entries(f));
    add_one(f, out, size, &at);
    if (f->word)
        add(out, size, &at, ", or %s", f->word);
    return out;
}

/* ---- names ---------------------------------------------------------------------------------- */

bool fst__is_name(const char *t)
{
    size_t n = strspn(t, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n && n <= FST__MAX_WORD && !t[n] && *t >= 'a' && *t <= 'z';
}

/* Insertions, deletions, changes and swapped neighbours that turn a into b (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    int row[3][FST__MAX_WORD + 1], la = (int)strlen(a), lb = (int)strlen(b);
    int *before = row[0], *last = row[1], *now = row[2];
    if (la > FST__MAX_WORD || lb > FST__MAX_WORD)
        return FST__MAX_WORD;
    for (int j = 0; j <= lb; j++)
        last[j] = before[j] = j;
    for (int i = 1; i <= la; i++) {
        now[0] = i;
        for (int j = 1; j <= lb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        int *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[lb];
}

/* Keeps the closer of *best and candidate, if it is close enough to be a slip of the fingers. */
void fst__closer(const char *given, const char *candidate, int *least, const char **best)
{
    int d = distance(given, candidate), allowed = (int)strlen(candidate) / 3;
    if (d <= (allowed ? allowed : 1) && d < *least && d < (int)strlen(candidate)) {
        *least = d;
        *best = candidate;
    }
}
