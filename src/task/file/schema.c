/*
 * Reading: a tree of nodes becomes a struct under the rule of a table. Wrong input is collected as up
 * to five one-line messages before giving up; only running out of memory stops at once.
 * It reads no files and knows no task: the tables do. Writing back is schema_write.c.
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema.h"

enum { MAX_ERRORS = 5, MAX_SHOWN = 60, MAX_LISTED = 300, MAX_WORD = 40, TAIL = 24 };

/* Where in the structure we are; the root has no key. */
struct path {
    const struct path *up;
    const char *key;
    size_t index; /* when key is NULL and there is an `up` */
};

struct reader {
    fst__unused unused;
    char idle[200]; /* keys that were given and are never read */
    size_t idle_used;
    char text[sizeof((fst_error *)0)->message];
    size_t used;
    int errors, more; /* shown, and left out */
};

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
    case FST__TYPE_MAP:
        break;
    }
    return f->table->size;
}

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
    static const char *const names[] = {"a text", "a whole number", "a number", "true or false", "one of ", "a map"};
    add(out, size, at, "%s", names[f->type]);
    if (f->type == FST__TYPE_INT || f->type == FST__TYPE_DOUBLE)
        add_limits(f, out, size, at);
    for (size_t i = 0; f->type == FST__TYPE_ENUM && f->names[i]; i++)
        add(out, size, at, "%s%s", i ? ", " : "", f->names[i]);
    if (f->type == FST__TYPE_MAP && f->table->shorthand)
        add(out, size, at, " or a bare %s", f->table->shorthand);
}

/* How many entries a list may have: an array in the struct may be smaller than count_max. */
static size_t most_entries(const fst__field *f)
{
    size_t fit = f->room ? f->room / fst__field_size(f) : f->count_max;
    return fit < f->count_max ? fit : f->count_max;
}

const char *fst__field_accepts(const fst__field *f, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    if (f->list && f->count_min == most_entries(f))
        add(out, size, &at, "a list of %zu entries, each ", f->count_min);
    else if (f->list && f->count_min)
        add(out, size, &at, "a list of %zu to %zu entries, each ", f->count_min, most_entries(f));
    else if (f->list)
        add(out, size, &at, "a list of at most %zu entries, each ", most_entries(f));
    add_one(f, out, size, &at);
    if (f->word)
        add(out, size, &at, ", or %s", f->word);
    return out;
}

/* ---- messages ----------------------------------------------------------------------------- */

static void add_path(const struct path *p, char *out, size_t size, size_t *at)
{
    if (!p || !p->up)
        return;
    add_path(p->up, out, size, at);
    if (p->key)
        add(out, size, at, "%s%s", *at ? "." : "", p->key);
    else
        add(out, size, at, "[%zu]", p->index);
}

static void complain(struct reader *r, const fst__node *node, bool at_key, const struct path *p, const char *fmt, ...)
    FST_PRINTF(5, 6);
static void complain(struct reader *r, const fst__node *node, bool at_key, const struct path *p, const char *fmt, ...)
{
    char line[sizeof r->text - TAIL], where[300];
    size_t at = 0, before;
    va_list ap;
    if (r->errors == MAX_ERRORS) {
        r->more++;
        return;
    }
    add(line, sizeof line, &at, "%s: ", fst__node_where(node, at_key, where, sizeof where));
    before = at;
    char keys[200] = "";
    size_t n = 0;
    add_path(p, keys, sizeof keys, &n);
    if (n)
        add(line, sizeof line, &before, "%s: ", keys);
    at = before;
    va_start(ap, fmt);
    vsnprintf(line + at, sizeof line - at, fmt, ap);
    va_end(ap);
    if (r->errors && r->used + strlen(line) + 1 + TAIL >= sizeof r->text) {
        r->more++;
        return;
    }
    r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%s%s", r->errors ? "\n" : "", line);
    r->errors++;
}

/* Insertions, deletions, changes and swapped neighbours that turn a into b (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    int row[3][MAX_WORD + 1], la = (int)strlen(a), lb = (int)strlen(b);
    int *before = row[0], *last = row[1], *now = row[2];
    if (la > MAX_WORD || lb > MAX_WORD)
        return MAX_WORD;
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
static void closer(const char *given, const char *candidate, int *least, const char **best)
{
    int d = distance(given, candidate), allowed = (int)strlen(candidate) / 3;
    if (d <= (allowed ? allowed : 1) && d < *least && d < (int)strlen(candidate)) {
        *least = d;
        *best = candidate;
    }
}

/* "did you mean "x"? " or nothing. */
static const char *guess_text(const char *best, char *out, size_t size)
{
    if (best)
        snprintf(out, size, "did you mean \"%s\"? ", best);
    else
        *out = 0;
    return out;
}

static void complain_unknown(struct reader *r, const fst__schema *s, const fst__node *child, const struct path *up)
{
    char listed[MAX_LISTED] = "", shown[MAX_SHOWN + 4], guess[80];
    size_t at = 0;
    int least = MAX_WORD;
    const char *best = NULL;
    if (r->errors == MAX_ERRORS) {
        r->more++;
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        closer(child->key, s->fields[i].key, &least, &best);
        if (at + strlen(s->fields[i].key) + 8 < sizeof listed)
            add(listed, sizeof listed, &at, "%s%s", i ? ", " : "", s->fields[i].key);
        else if (at + 6 < sizeof listed) {
            add(listed, sizeof listed, &at, ", ...");
            at = sizeof listed - 1;
        }
    }
    struct path p = {up, fst__shown(child->key, MAX_SHOWN, shown, sizeof shown), 0};
    complain(r, child, true, &p, "unknown key; %saccepted: %s", guess_text(best, guess, sizeof guess), listed);
}

/* Quotes make a text, except where they are there only for the braces of "${NAME}". */
static bool is_text(const fst__node *n)
{
    return n->quoted && !n->expanded;
}

static void complain_value(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p, bool entry)
{
    char accepts[MAX_LISTED], shown[MAX_SHOWN + 4], guess[80];
    size_t at = 0;
    int least = MAX_WORD;
    const char *best = NULL;
    if (entry || !f->list)
        add_one(f, accepts, sizeof accepts, &at);
    else
        fst__field_accepts(f, accepts, sizeof accepts);
    bool number = f->type == FST__TYPE_INT || f->type == FST__TYPE_DOUBLE || f->type == FST__TYPE_BOOL;
    if (n->kind == FST__LIST && f->list && !entry) {
        complain(r, n, false, p, "%zu %s %s not %s", n->count, n->count == 1 ? "entry" : "entries",
                 n->count == 1 ? "is" : "are", accepts);
        return;
    }
    if (n->kind != FST__SCALAR) {
        complain(r, n, false, p, "a %s is not %s", n->kind == FST__LIST ? "list" : "map", accepts);
        return;
    }
    if (!n->quoted && !*n->text) {
        complain(r, n, false, p, "the value is missing; expected %s", accepts);
        return;
    }
    fst__shown(n->text, MAX_SHOWN, shown, sizeof shown);
    for (size_t i = 0; f->type == FST__TYPE_ENUM && (entry || !f->list) && f->names[i]; i++)
        closer(n->text, f->names[i], &least, &best);
    if (f->word && !entry)
        closer(n->text, f->word, &least, &best);
    guess_text(best, guess, sizeof guess);
    if (best)
        guess[strlen(guess) - 1] = 0;
    complain(r, n, false, p, "\"%s\"%s is not %s%s%s", shown, is_text(n) && number ? " in quotes is a text, it" : "",
             accepts, best ? "; " : "", guess);
}

/* ---- scalars ------------------------------------------------------------------------------ */

/* [+-] digits, and for fractional ones also a point and an exponent; nothing before or behind. */
static bool looks_like_number(const char *t, bool fractional)
{
    static const char *const digits = "0123456789";
    t += *t == '+' || *t == '-';
    size_t whole = strspn(t, digits), part = 0;
    t += whole;
    if (fractional && *t == '.') {
        part = strspn(t + 1, digits);
        t += 1 + part;
    }
    if (!whole && !part)
        return false;
    if (fractional && (*t == 'e' || *t == 'E')) {
        t += 1 + (t[1] == '+' || t[1] == '-');
        size_t n = strspn(t, digits);
        if (!n)
            return false;
        t += n;
    }
    return !*t;
}

static bool parse_double(const char *text, double *out)
{
    if (!looks_like_number(text, true))
        return false;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* the program may have set another one */
    if (!plain)
        return false;
    locale_t before = uselocale(plain);
    double v = strtod(text, NULL);
    uselocale(before);
    freelocale(plain);
    if (!isfinite(v))
        return false;
    *out = v == 0 ? 0 : v; /* no -0: it means the same */
    return true;
}

/* Digits alone are read exactly; 5.0 and 1e1 are whole numbers too. */
static bool parse_int(const char *text, int64_t *out)
{
    int64_t v = 0;
    bool minus = *text == '-';
    double x;
    if (!looks_like_number(text, false))
        return parse_double(text, &x) && fst_whole_of_double(x, out);
    for (text += *text == '+' || *text == '-'; *text; text++) {
        int digit = minus ? '0' - *text : *text - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *out = v;
    return true;
}

static bool read_int(const fst__field *f, const fst__node *n, void *at)
{
    int64_t v;
    if (is_text(n) || !parse_int(n->text, &v) || v < f->int_min || v > f->int_max)
        return false;
    *(int64_t *)at = v;
    return true;
}

static bool read_double(const fst__field *f, const fst__node *n, void *at)
{
    double v;
    if (is_text(n) || !parse_double(n->text, &v) || v < f->min || v > f->max || (f->exclusive && v == f->min))
        return false;
    *(double *)at = v;
    return true;
}

static bool read_bool(const fst__node *n, void *at)
{
    bool yes = !strcmp(n->text, "true") || !strcmp(n->text, "True") || !strcmp(n->text, "TRUE");
    bool no = !strcmp(n->text, "false") || !strcmp(n->text, "False") || !strcmp(n->text, "FALSE");
    if (is_text(n) || (!yes && !no))
        return false;
    *(bool *)at = yes;
    return true;
}

static bool read_enum(const fst__field *f, const fst__node *n, void *at)
{
    for (int i = 0; f->names[i]; i++)
        if (!strcmp(n->text, f->names[i])) {
            memcpy(at, &i, sizeof i);
            return true;
        }
    return false;
}

static fst_status read_scalar(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                              bool entry, void *at, fst_error *err)
{
    bool fine = n->kind == FST__SCALAR && (n->quoted || *n->text);
    if (fine && f->type == FST__TYPE_STRING) {
        if (!fst__node_is_null(n)) {
            char *copy = fst_strdup(n->text);
            if (!copy)
                return fst_fail_memory(err, strlen(n->text) + 1);
            *(char **)at = copy;
            return FST_OK;
        }
        fine = false;
    } else if (fine) {
        fine = f->type == FST__TYPE_INT      ? read_int(f, n, at)
               : f->type == FST__TYPE_DOUBLE ? read_double(f, n, at)
               : f->type == FST__TYPE_BOOL   ? read_bool(n, at)
                                             : read_enum(f, n, at);
    }
    if (!fine)
        complain_value(r, f, n, p, entry);
    return FST_OK;
}

/* ---- maps and lists ----------------------------------------------------------------------- */

static fst_status read_map(struct reader *r, const fst__schema *s, const fst__node *node, const struct path *p,
                           void *object, fst_error *err);

/* One value: the field's, or an entry of its list. */
static fst_status read_one(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p, bool entry,
                           void *at, fst_error *err)
{
    if (f->type != FST__TYPE_MAP)
        return read_scalar(r, f, n, p, entry, at, err);
    bool bare = n->kind == FST__SCALAR && f->table->shorthand && (n->quoted || *n->text) && !fst__node_is_null(n);
    if (bare) {
        fst__node pair = *n, map = *n;
        pair.key = f->table->shorthand;
        pair.next = NULL;
        map.kind = FST__MAP;
        map.first = map.last = &pair;
        map.count = 1;
        return read_map(r, f->table, &map, p, at, err);
    }
    if (n->kind == FST__MAP && (!n->was || f->table->shorthand))
        return read_map(r, f->table, n, p, at, err);
    complain_value(r, f, n->was ? n->was : n, p, entry);
    return FST_OK;
}

static fst_status read_list(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                            void *object, fst_error *err)
{
    size_t size = fst__field_size(f);
    char *at = (char *)object + f->offset;
    /* one number or word stands for the list that holds just it */
    bool single = n->kind == FST__SCALAR && f->type != FST__TYPE_MAP;
    size_t count = single ? 1 : n->count, i = 0;
    if (single && f->word && !strcmp(n->text, f->word)) {
        *((bool *)object + f->word_at) = true;
        return FST_OK;
    }
    if ((n->kind != FST__LIST && !single) || count < f->count_min || count > most_entries(f)) {
        complain_value(r, f, n, p, false);
        return FST_OK;
    }
    if (!f->room && count) {
        char *array = fst_calloc(count, size);
        if (!array)
            return fst_fail_memory(err, count * size);
        memcpy(at, &array, sizeof array);
        at = array;
    }
    *(size_t *)((char *)object + f->count_at) = count;
    for (const fst__node *c = single ? n : n->first; c; c = single ? NULL : c->next, i++) {
        struct path entry = {p, NULL, i};
        fst_status s = read_one(r, f, c, single ? p : &entry, !single || !f->word, at + i * size, err);
        if (s)
            return s;
    }
    return FST_OK;
}

static fst_status read_value(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                             void *object, fst_error *err)
{
    if (f->list)
        return read_list(r, f, n, p, object, err);
    return read_one(r, f, n, p, false, (char *)object + f->offset, err);
}

/* A field whose key is not there; `map` is where it would be. */
static fst_status read_missing(struct reader *r, const fst__field *f, const fst__node *map, const struct path *p,
                               void *object, fst_error *err)
{
    char accepts[MAX_LISTED];
    if (f->required) {
        complain(r, map, true, p, "this key is required; expected %s", fst__field_accepts(f, accepts, sizeof accepts));
        return FST_OK;
    }
    if (f->fallback && (f->list || f->type == FST__TYPE_MAP)) {
        fst__tree *tree;
        fst_status s = fst__tree_parse(&tree, "default", f->fallback, strlen(f->fallback), err);
        if (s)
            return fst_fail_in(err, s, "%s", f->key);
        s = read_value(r, f, fst__tree_root(tree), p, object, err);
        fst__tree_free(tree);
        return s;
    }
    fst__node n = {.kind = FST__SCALAR, .source = "default", .text = f->fallback};
    n.quoted = f->type == FST__TYPE_STRING || f->type == FST__TYPE_ENUM;
    if (f->fallback)
        return read_value(r, f, &n, p, object, err);
    if (f->type == FST__TYPE_MAP && !f->list && !f->present) {
        n = *map;
        n.kind = FST__MAP;
        n.first = n.last = NULL;
        n.was = NULL;
        n.count = 0;
        return read_map(r, f->table, &n, p, (char *)object + f->offset, err);
    }
    return FST_OK;
}

static const fst__field *find_field(const fst__schema *s, const char *key)
{
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->fields[i].key, key))
            return &s->fields[i];
    return NULL;
}

/* The value of a field that counts as given, or NULL. */
static const fst__node *given(const fst__schema *s, const fst__node *map, const char *key)
{
    const fst__node *n = fst__node_find(map, key);
    if (!n && map->was && s->shorthand && !strcmp(s->shorthand, key))
        n = map->was;
    return n && !fst__node_is_null(n) ? n : NULL;
}

static void check_whole(struct reader *r, const fst__schema *s, const fst__node *map, const struct path *p,
                        const void *object)
{
    fst__complaint c = {0};
    if (!s->check || s->check(object, &c))
        return;
    /* the nearest node on the way to the key */
    const fst__node *n = NULL, *in = map;
    for (const char *key = c.key; key && in && in->kind == FST__MAP;
         key = strchr(key, '.') ? strchr(key, '.') + 1 : NULL) {
        char part[MAX_WORD];
        snprintf(part, sizeof part, "%.*s", (int)strcspn(key, "."), key);
        in = in == map ? given(s, map, part) : fst__node_find(in, part);
        n = in ? in : n;
    }
    const struct path at = {p, c.key, 0};
    complain(r, n ? n : map, false, c.key ? &at : p, "%s", c.text);
}

static fst_status read_map(struct reader *r, const fst__schema *s, const fst__node *node, const struct path *p,
                           void *object, fst_error *err)
{
    int before = r->errors + r->more;
    fst_status status = FST_OK;
    for (const fst__node *c = node->first; c && !status; c = c->next) {
        const fst__field *f = find_field(s, c->key);
        struct path at = {p, c->key, 0};
        if (!f) {
            complain_unknown(r, s, c, p);
            continue;
        }
        if (fst__node_is_null(c))
            continue;
        if (f->present)
            *((bool *)object + f->present - 1) = true;
        status = read_value(r, f, c, &at, object, err);
    }
    for (size_t i = 0; i < s->count && !status; i++) {
        const fst__field *f = &s->fields[i];
        struct path at = {p, f->key, 0};
        const fst__node *n = given(s, node, f->key);
        if (n && n == node->was)
            status = read_value(r, f, n, &at, object, err);
        else if (!n)
            status = read_missing(r, f, node, &at, object, err);
    }
    if (!status && r->errors + r->more == before)
        check_whole(r, s, node, p, object);
    return status;
}

/* ---- keys without effect ------------------------------------------------------------------- */

static void check_effects(struct reader *r, const fst__scope *in, const fst__node *map, const struct path *p);

/* Below a field that has an effect: its maps. */
static void check_below(struct reader *r, const fst__scope *in, const fst__field *f, const fst__node *n,
                        const struct path *p)
{
    const char *at = (const char *)in->object + f->offset;
    size_t i = 0;
    if (f->type != FST__TYPE_MAP)
        return;
    if (f->list && !f->room)
        memcpy(&at, (const void *)at, sizeof at);
    for (const fst__node *c = f->list ? n->first : n; c; c = f->list ? c->next : NULL, i++) {
        const struct path entry = {p, NULL, i};
        const fst__scope inside = {in, f->table, at + i * fst__field_size(f)};
        if (c->kind == FST__MAP)
            check_effects(r, &inside, c, f->list ? &entry : p);
    }
}

static void check_effects(struct reader *r, const fst__scope *in, const fst__node *map, const struct path *p)
{
    for (size_t i = 0; i < in->s->count; i++) {
        const fst__field *f = &in->s->fields[i];
        const fst__node *n = given(in->s, map, f->key);
        const struct path at = {p, f->key, 0};
        char why[MAX_LISTED], keys[200] = "";
        size_t used = 0;
        if (!n)
            continue;
        if (f->unused)
            add(r->idle, sizeof r->idle, &r->idle_used, "%s%s", r->idle_used ? ", " : "", f->key);
        const fst__condition *c = fst__unmet(f, in);
        bool asks = f->type == FST__TYPE_MAP ? n->count || n->kind == FST__SCALAR : fst__is_set(f, in->object);
        if (!c)
            check_below(r, in, f, n, &at);
        else if (asks && (r->unused == FST__UNUSED_REFUSED || !n->line))
            complain(r, n, true, &at, "%s", fst__unmet_text(c, in, why, sizeof why));
        else if (asks && r->unused == FST__UNUSED_WARNED) {
            add_path(&at, keys, sizeof keys, &used);
            fst_log(FST_LOG_WARN, "%s: %s: %s", n->source, keys, fst__unmet_text(c, in, why, sizeof why));
        }
    }
}

/* ---- entry points ------------------------------------------------------------------------- */

static fst_status report(struct reader *r, fst_error *err)
{
    if (!r->errors)
        return FST_OK;
    if (r->more)
        add(r->text, sizeof r->text, &r->used, "\n(and %d more)", r->more);
    return fst_fail(err, FST_E_CONFIG, "%s", r->text);
}

static fst_status read_tree(const fst__schema *s, const fst__tree *tree, fst__unused unused, void *out, fst_error *err)
{
    struct reader r = {.unused = unused};
    const struct path top = {0};
    const fst__node *root = fst__tree_root(tree);
    const fst__field whole = {.type = FST__TYPE_MAP, .table = s};
    void *object = fst_calloc(1, s->size);
    if (!object)
        return fst_fail_memory(err, s->size);
    fst_status status = read_one(&r, &whole, root, &top, false, object, err);
    const fst__scope scope = {NULL, s, object};
    if (!status && !r.errors && root->kind == FST__MAP)
        check_effects(&r, &scope, root, &top);
    if (!status)
        status = report(&r, err);
    if (!status && r.idle_used)
        fst_log(FST_LOG_WARN, "%s: has no effect here: %s", root->source, r.idle);
    if (status)
        fst__schema_release(s, object);
    else
        memcpy(out, object, s->size);
    fst_free(object);
    return status;
}

fst_status fst__schema_read(const fst__schema *s, const fst__tree *tree, void *out, fst_error *err)
{
    return read_tree(s, tree, FST__UNUSED_REFUSED, out, err);
}

fst_status fst__schema_load(const fst__schema *s, const char *name, const char *text, size_t len,
                            const char *const *sets, size_t nsets, void *out, fst_error *err)
{
    return fst__schema_load_as(s, name, text, len, sets, nsets, FST__UNUSED_REFUSED, out, err);
}

fst_status fst__schema_load_as(const fst__schema *s, const char *name, const char *text, size_t len,
                               const char *const *sets, size_t nsets, fst__unused unused, void *out, fst_error *err)
{
    fst__tree *tree;
    fst_status status = fst__tree_parse(&tree, name, text, len, err);
    if (status)
        return status;
    for (size_t i = 0; i < nsets && !status; i++)
        status = fst__tree_set(tree, sets[i], err);
    if (!status)
        status = read_tree(s, tree, unused, out, err);
    fst__tree_free(tree);
    return status;
}

static void release_one(const fst__field *f, void *at)
{
    if (f->type == FST__TYPE_STRING)
        fst_free(*(char **)at);
    else if (f->type == FST__TYPE_MAP)
        fst__schema_release(f->table, at);
}

void fst__schema_release(const fst__schema *s, void *object)
{
    if (!object)
        return;
    for (size_t i = 0; i < s->count; i++) {
        const fst__field *f = &s->fields[i];
        char *at = (char *)object + f->offset, *array = at;
        if (!f->list) {
            release_one(f, at);
            continue;
        }
        if (!f->room)
            memcpy(&array, at, sizeof array);
        size_t count = *(size_t *)((char *)object + f->count_at);
        for (size_t k = 0; array && k < count; k++)
            release_one(f, array + k * fst__field_size(f));
        if (!f->room)
            fst_free(array);
    }
    memset(object, 0, s->size);
}

/* ---- checking a table --------------------------------------------------------------------- */

static const char *wrong_with(const fst__schema *s, const fst__field *f)
{
    bool scalar = !f->list && f->type != FST__TYPE_STRING && f->type != FST__TYPE_MAP;
    if (!f->key || !*f->key || strspn(f->key, "abcdefghijklmnopqrstuvwxyz_0123456789") != strlen(f->key) ||
        *f->key == '_')
        return "a key is made of a-z, 0-9 and _, and does not begin with _";
    if (find_field(s, f->key) != f)
        return "the key stands twice in the table";
    if (!f->help || !*f->help)
        return "has no help text";
    if ((f->type == FST__TYPE_MAP) != (f->table != NULL) || (f->type == FST__TYPE_ENUM) != (f->names != NULL))
        return "a map needs a table, an enum needs names";
    if (f->offset + (f->list && !f->room ? sizeof(void *) : f->room ? f->room : fst__field_size(f)) > s->size)
        return "lies outside the struct";
    if (f->type == FST__TYPE_MAP && !f->list && f->room != f->table->size)
        return "the member is not of the struct that its table describes";
    if (f->list && (!most_entries(f) || f->count_min > most_entries(f) || most_entries(f) < f->count_max))
        return "a list's limits do not fit each other or its array";
    if (f->word && (!f->list || f->count_min || f->fallback))
        return "a word stands in the place of a list that may be empty and has no default";
    if (f->int_min > f->int_max || f->min > f->max || isnan(f->min) || isnan(f->max))
        return "the minimum is larger than the maximum";
    if (f->required && f->fallback)
        return "is required and has a default";
    if (f->fallback && strstr(f->fallback, "${"))
        return "the default uses the environment";
    if (f->type == FST__TYPE_MAP && f->present && f->fallback)
        return "a map has a present flag or a default, not both";
    if ((scalar || (f->list && f->count_min)) && !f->fallback && !f->required && !f->present)
        return "needs a default, a present flag, or to be required";
    return NULL;
}

static fst_status verify_default(const fst__schema *s, const fst__field *f, fst_error *err)
{
    struct reader r = {.used = 0};
    const struct path top = {0}, at = {&top, f->key, 0};
    const fst__node map = {.kind = FST__MAP, .source = "default"};
    void *object = fst_calloc(1, s->size);
    if (!object)
        return fst_fail_memory(err, s->size);
    fst_status status = read_missing(&r, f, &map, &at, object, err);
    if (!status && report(&r, err))
        status = FST_E_ARGUMENT;
    fst__schema_release(s, object);
    fst_free(object);
    return status;
}

static fst_status verify(const fst__scope *in, fst_error *err)
{
    const fst__schema *s = in->s;
    for (size_t i = 0; i < s->count; i++) {
        const fst__field *f = &s->fields[i];
        const fst__scope inside = {in, f->table, NULL};
        const char *wrong = wrong_with(s, f);
        if (!wrong)
            wrong = fst__wrong_condition(f, in);
        if (wrong)
            return fst_fail(err, FST_E_ARGUMENT, "%s: %s", f->key ? f->key : "(no key)", wrong);
        fst_status status = FST_OK;
        if (f->fallback)
            status = verify_default(s, f, err);
        if (!status && f->table && f->table != s)
            status = verify(&inside, err);
        if (status)
            return fst_fail_in(err, FST_E_ARGUMENT, "%s", f->key);
    }
    const fst__field *bare = s->shorthand ? find_field(s, s->shorthand) : NULL;
    if (s->shorthand && (!bare || bare->list || bare->type == FST__TYPE_MAP))
        return fst_fail(err, FST_E_ARGUMENT, "the shorthand \"%s\" is not a scalar of the table", s->shorthand);
    return FST_OK;
}

fst_status fst__schema_verify(const fst__schema *s, fst_error *err)
{
    const fst__scope scope = {NULL, s, NULL};
    return verify(&scope, err);
}
