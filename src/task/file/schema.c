/*
 * Reading: a tree of nodes becomes a struct under the rule of a table. Wrong input is collected as up
 * to five one-line messages before giving up; only running out of memory stops at once.
 * It reads no files and knows no task: the tables do. Writing back is schema_write.c, words are schema_words.c, and
 * whether the tables themselves are sound is schema_verify.c.
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema.h"

enum { MAX_ERRORS = 5, MAX_SHOWN = 60, MAX_LISTED = 300, MAX_WORD = FST__MAX_WORD, TAIL = 24 };

/* Where in the structure we are; the root has no key. */
struct path {
    const struct path *up;
    const char *key;
    size_t index; /* when key is NULL and there is an `up` */
};

struct reader {
    fst__unused unused;
    const fst__node *entry; /* the entry of a map with free keys that is being read */
    char idle[200];         /* keys that were given and are never read */
    size_t idle_used;
    char text[sizeof((fst_error *)0)->message];
    size_t used;
    int errors, more; /* shown, and left out */
};

/* Appends to a bounded text; what does not fit is cut. */
static void __attribute__((format(printf, 4, 5))) add(char *out, size_t size, size_t *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + *at, size - *at, fmt, ap);
    va_end(ap);
    *at += n < 0 ? 0 : (size_t)n < size - *at ? (size_t)n : size - *at - 1;
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
        fst__closer(child->key, s->fields[i].key, &least, &best);
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

/* An entry of a map with free keys whose kind nobody knows. kind: the node that says it, NULL: its name does. */
static void complain_kind(struct reader *r, const fst__field *f, const fst__node *entry, const fst__node *kind,
                          const struct path *at)
{
    char listed[MAX_LISTED] = "", shown[MAX_SHOWN + 4], guess[80];
    const char *given = kind ? kind->text : entry->key, *best = NULL;
    size_t used = 0;
    int least = MAX_WORD;
    fst__choice c;
    for (size_t i = 0; f->choice(i, &c); i++) {
        fst__closer(given, c.name, &least, &best);
        add(listed, sizeof listed, &used, "%s%s", i ? ", " : "", c.name);
    }
    fst__shown(given, MAX_SHOWN, shown, sizeof shown);
    guess_text(best, guess, sizeof guess);
    if (kind)
        complain(r, kind, false, at, "\"%s\" is no kind; %sthere are %s", shown, guess, listed);
    else
        complain(r, entry, true, at, "unknown key; %saccepted: %s, or any name with a kind: {kind: %s, ...}", guess,
                 listed, best ? best : "NAME");
}

/* Quotes make a text, except where they are there only for the braces of "${NAME}". */
static bool is_text(const fst__node *n)
{
    return n->quoted && !n->expanded;
}

static void complain_value(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p, bool entry)
{
    char accepts[MAX_LISTED], shown[MAX_SHOWN + 4], guess[80];
    int least = MAX_WORD;
    const char *best = NULL;
    if (entry || !f->list)
        fst__value_accepts(f, accepts, sizeof accepts);
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
    if (!*n->text && (!n->quoted || (f->type == FST__TYPE_STRING && f->required))) {
        complain(r, n, false, p, "the value is missing; expected %s", accepts);
        return;
    }
    fst__shown(n->text, MAX_SHOWN, shown, sizeof shown);
    for (size_t i = 0; f->type == FST__TYPE_ENUM && (entry || !f->list) && f->names[i]; i++)
        fst__closer(n->text, f->names[i], &least, &best);
    if (f->word && !entry)
        fst__closer(n->text, f->word, &least, &best);
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
        if (!fst__node_is_null(n) && (*n->text || !f->required)) {
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
    if ((n->kind != FST__LIST && !single) || count < f->count_min || count > fst__most_entries(f)) {
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

static fst_status read_entry(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                             fst__named *out, fst_error *err)
{
    const fst__node *kind = n->kind == FST__MAP ? fst__node_find(n, FST__KIND) : NULL;
    const struct path below = {p, FST__KIND, 0};
    fst__choice c;
    if (kind && fst__node_is_null(kind))
        kind = NULL;
    if (!fst__is_name(n->key)) {
        complain(r, n, true, p, "a name is made of a-z, 0-9 and _ and begins with a letter, %d at most", MAX_WORD);
        return FST_OK;
    }
    if ((kind && kind->kind != FST__SCALAR) || !fst__choice_named(f, kind ? kind->text : n->key, &out->choice, &c)) {
        complain_kind(r, f, n, kind && kind->kind == FST__SCALAR ? kind : NULL, kind ? &below : p);
        return FST_OK;
    }
    out->name = fst_strdup(n->key);
    out->object = fst_calloc(1, c.table->size);
    if (!out->name || !out->object)
        return fst_fail_memory(err, c.table->size);
    const fst__field whole = {.key = n->key, .type = FST__TYPE_MAP, .table = c.table};
    r->entry = n;
    return read_one(r, &whole, n, p, false, out->object, err);
}

/* Entries without a value are not there. */
static fst_status read_named(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                             void *object, fst_error *err)
{
    size_t *count = (size_t *)(void *)((char *)object + f->count_at);
    if (n->kind != FST__MAP || n->was) {
        complain_value(r, f, n->was ? n->was : n, p, false);
        return FST_OK;
    }
    if (n->count > f->count_max) {
        complain(r, n, false, p, "has %zu entries, more than %zu", n->count, f->count_max);
        return FST_OK;
    }
    fst__named *entries = fst_calloc(n->count + 1, sizeof *entries);
    if (!entries)
        return fst_fail_memory(err, n->count * sizeof *entries);
    memcpy((char *)object + f->offset, &entries, sizeof(fst__named *));
    *count = 0;
    for (const fst__node *c = n->first; c; c = c->next) {
        const struct path at = {p, c->key, 0};
        if (fst__node_is_null(c))
            continue;
        fst_status s = read_entry(r, f, c, &at, &entries[*count], err);
        *count += entries[*count].name != NULL || entries[*count].object != NULL;
        if (s)
            return s;
    }
    return FST_OK;
}

static fst_status read_value(struct reader *r, const fst__field *f, const fst__node *n, const struct path *p,
                             void *object, fst_error *err)
{
    if (f->type == FST__TYPE_NAMED)
        return read_named(r, f, n, p, object, err);
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

const fst__field *fst__find_field(const fst__schema *s, const char *key)
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

/* A check without a text for what is wrong ran out of memory. */
static fst_status check_whole(struct reader *r, const fst__schema *s, const fst__node *map, const struct path *p,
                              const void *object, fst_error *err)
{
    fst__complaint c = {0};
    if (!s->check || s->check(object, &c))
        return FST_OK;
    if (!c.text[0])
        return fst_fail_memory(err, s->size);
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
    return FST_OK;
}

static fst_status read_map(struct reader *r, const fst__schema *s, const fst__node *node, const struct path *p,
                           void *object, fst_error *err)
{
    int before = r->errors + r->more;
    fst_status status = FST_OK;
    for (const fst__node *c = node->first; c && !status; c = c->next) {
        const fst__field *f = fst__find_field(s, c->key);
        struct path at = {p, c->key, 0};
        if (!f && node == r->entry && !strcmp(c->key, FST__KIND))
            continue;
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
        status = check_whole(r, s, node, p, object, err);
    return status;
}

/* ---- keys without effect ------------------------------------------------------------------- */

static void check_effects(struct reader *r, const fst__scope *in, const fst__node *map, const struct path *p);

static void check_entries(struct reader *r, const fst__scope *in, const fst__field *f, const fst__node *n,
                          const struct path *p)
{
    size_t count;
    const fst__named *entries = fst__named_entries(f, in->object, &count);
    for (size_t i = 0; i < count; i++) {
        const fst__node *c = fst__node_find(n, entries[i].name);
        const struct path at = {p, entries[i].name, 0};
        fst__choice choice;
        if (!c || !f->choice(entries[i].choice, &choice))
            continue;
        const fst__scope inside = {in, choice.table, entries[i].object};
        check_effects(r, &inside, c, &at);
    }
}

/* Below a field that has an effect: its maps. */
static void check_below(struct reader *r, const fst__scope *in, const fst__field *f, const fst__node *n,
                        const struct path *p)
{
    const char *at = (const char *)in->object + f->offset;
    size_t i = 0;
    if (f->type == FST__TYPE_NAMED)
        check_entries(r, in, f, n, p);
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

static void release_named(const fst__field *f, void *object)
{
    size_t count;
    fst__named *entries = (fst__named *)fst__named_entries(f, object, &count);
    fst__choice c;
    for (size_t i = 0; entries && i < count; i++) {
        if (f->choice(entries[i].choice, &c))
            fst__schema_release(c.table, entries[i].object);
        fst_free(entries[i].object);
        fst_free(entries[i].name);
    }
    fst_free(entries);
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
        if (f->type == FST__TYPE_NAMED) {
            release_named(f, object);
            continue;
        }
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
