/*
 * Writing: a struct becomes YAML that people read and the reader takes back, or canonical JSON for
 * digests; a table becomes its documentation. It emits text itself, so that the bytes depend on nothing
 * but the struct and the table.
 */
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "schema.h"

enum { MAX_HEADING = 6 };

/* Appends, remembering the first failure. */
struct writer {
    fst_buf *out;
    fst_error *err;
    fst_status status;
    bool json;
};

static void put(struct writer *w, const char *text)
{
    if (!w->status)
        w->status = fst_buf_append(w->out, text, strlen(text), w->err);
}

static void put_blanks(struct writer *w, int n)
{
    while (n-- > 0)
        put(w, " ");
}

/* Undoes what was appended if the writer failed. */
static fst_status finish(struct writer *w, size_t before)
{
    if (w->status && w->out->data) {
        w->out->len = before;
        w->out->data[before] = 0;
    }
    return w->status;
}

/* ---- scalars ------------------------------------------------------------------------------ */

const char *fst__number_text(double x, char *out, size_t size)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = (locale_t)0;
    if (plain)
        before = uselocale(plain);
    if (x == 0)
        x = 0; /* -0 means the same */
    bool whole = x == floor(x) && fabs(x) < 1e16;
    if (whole)
        snprintf(out, size, "%.0f", x); /* 100, not 1e+02 */
    for (int digits = 1; digits <= 17 && !whole; digits++) {
        snprintf(out, size, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            break;
    }
    if (plain) {
        uselocale(before);
        freelocale(plain);
    }
    return out;
}

/* Text that YAML cannot take for anything else and that needs no quotes: words and paths. */
static bool is_plain(const char *t)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    bool path = t[0] == '/' || (t[0] == '.' && (t[1] == '/' || (t[1] == '.' && t[2] == '/')));
    bool word = (t[0] >= 'a' && t[0] <= 'z') || (t[0] >= 'A' && t[0] <= 'Z');
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(t, words[i]))
            return false;
    return (path || word) &&
           strspn(t, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") == strlen(t);
}

/* Code points that a YAML reader refuses or folds when they stand there as they are. */
static bool must_escape(int32_t c, bool json)
{
    if (c < 0x20)
        return true;
    return !json && ((c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe);
}

static void put_quoted(struct writer *w, const char *text)
{
    static const char letters[] = "btn?fr"; /* for 8 ... 13 */
    put(w, "\"");
    while (*text && !w->status) {
        char code[16];
        const char *from = text;
        int32_t c = fst__yaml_code_point(&text);
        if (c < 0) {
            w->status = fst_fail(w->err, FST_E_ARGUMENT, "a text in the configuration is not valid UTF-8");
            return;
        }
        if (c == '"' || c == '\\')
            snprintf(code, sizeof code, "\\%c", (int)c);
        else if (c >= 8 && c <= 13 && c != 11)
            snprintf(code, sizeof code, "\\%c", letters[c - 8]);
        else if (must_escape(c, w->json))
            snprintf(code, sizeof code, c > 0xffff ? "\\U%08" PRIx32 : "\\u%04" PRIx32, (uint32_t)c);
        else if (c == '$' && !w->json)
            snprintf(code, sizeof code, "$$");
        else {
            memcpy(code, from, (size_t)(text - from));
            code[text - from] = 0;
        }
        put(w, code);
    }
    put(w, "\"");
}

static void put_enum(struct writer *w, const fst__field *f, const void *at)
{
    int value, count = 0;
    memcpy(&value, at, sizeof value);
    while (f->names[count])
        count++;
    if (value < 0 || value >= count) {
        w->status =
            fst_fail(w->err, FST_E_ARGUMENT, "%s: %d is not the index of one of its %d names", f->key, value, count);
        return;
    }
    if (w->json || !is_plain(f->names[value]))
        put_quoted(w, f->names[value]);
    else
        put(w, f->names[value]);
}

static void put_scalar(struct writer *w, const fst__field *f, const void *at)
{
    char text[40];
    const char *string = f->type == FST__TYPE_STRING ? *(char *const *)at : NULL;
    if (w->status)
        return;
    switch (f->type) {
    case FST__TYPE_STRING:
        if (!w->json && string && is_plain(string))
            put(w, string);
        else
            put_quoted(w, string ? string : "");
        return;
    case FST__TYPE_INT:
        snprintf(text, sizeof text, "%" PRId64, *(const int64_t *)at);
        put(w, text);
        return;
    case FST__TYPE_DOUBLE:
        if (!isfinite(*(const double *)at))
            w->status = fst_fail(w->err, FST_E_NUMERIC, "%s: not a finite number", f->key);
        put(w, fst__number_text(isfinite(*(const double *)at) ? *(const double *)at : 0, text, sizeof text));
        return;
    case FST__TYPE_BOOL:
        put(w, *(const bool *)at ? "true" : "false");
        return;
    case FST__TYPE_ENUM:
        put_enum(w, f, at);
        return;
    case FST__TYPE_MAP:
    case FST__TYPE_NAMED:
        return; /* written by the callers, who know their nesting */
    }
}

/* ---- what is there ------------------------------------------------------------------------ */

/* The field's values: one, or those of its list. */
static const char *values(const fst__field *f, const void *object, size_t *count)
{
    const char *at = (const char *)object + f->offset, *array = at;
    *count = 1;
    if (f->list) {
        *count = *(const size_t *)((const char *)object + f->count_at);
        if (!f->room)
            memcpy(&array, at, sizeof array);
    }
    return array;
}

/* Does a word stand in the place of the list? */
static bool is_word(const fst__field *f, const void *object)
{
    return f->word && *((const bool *)object + f->word_at);
}

/* Does the field hold anything to write? What was not given and has no default does not. */
static bool is_there(const fst__field *f, const void *object, bool json)
{
    size_t count;
    if (f->present && !*((const bool *)object + f->present - 1) && !(json && f->fallback))
        return false;
    const char *at = values(f, object, &count);
    return f->list || f->type != FST__TYPE_STRING || *(char *const *)(const void *)at;
}

/* ---- YAML --------------------------------------------------------------------------------- */

static void dump_map(struct writer *w, const fst__scope *in, const char *kind, int indent, bool indented);

static void dump_list(struct writer *w, const fst__scope *in, const fst__field *f, int indent)
{
    const void *object = in->object;
    size_t count, size = fst__field_size(f);
    const char *at = values(f, object, &count);
    if (f->type != FST__TYPE_MAP || !count) {
        put(w, " [");
        for (size_t i = 0; i < count && !w->status; i++) {
            put(w, i ? ", " : "");
            put_scalar(w, f, at + i * size);
        }
        put(w, "]\n");
        return;
    }
    put(w, "\n");
    for (size_t i = 0; i < count && !w->status; i++) {
        put_blanks(w, indent + 2);
        const fst__scope inside = {in, f->table, at + i * size};
        put(w, "- ");
        dump_map(w, &inside, NULL, indent + 4, true);
    }
}

static void dump_named(struct writer *w, const fst__scope *in, const fst__field *f, int indent)
{
    size_t count;
    const fst__named *entries = fst__named_entries(f, in->object, &count);
    fst__choice c;
    put(w, count ? "\n" : " {}\n");
    for (size_t i = 0; i < count && !w->status && f->choice(entries[i].choice, &c); i++) {
        const fst__scope inside = {in, c.table, entries[i].object};
        put_blanks(w, indent);
        put(w, entries[i].name);
        put(w, ":\n");
        dump_map(w, &inside, strcmp(c.name, entries[i].name) ? c.name : NULL, indent + 2, false);
    }
}

/* kind: the value of the key "kind" before all others, NULL: there is none. indented: the blanks before the first key
 * are there already, after a dash. */
static void dump_map(struct writer *w, const fst__scope *in, const char *kind, int indent, bool indented)
{
    bool any = kind != NULL;
    if (kind) {
        put_blanks(w, indented ? 0 : indent);
        put(w, FST__KIND ": ");
        put(w, kind);
        put(w, "\n");
    }
    for (size_t i = 0; i < in->s->count && !w->status; i++) {
        const fst__field *f = &in->s->fields[i];
        const fst__scope inside = {in, f->table, (const char *)in->object + f->offset};
        if (!is_there(f, in->object, false) || fst__unmet(f, in))
            continue;
        put_blanks(w, any || !indented ? indent : 0);
        any = true;
        put(w, f->key);
        put(w, ":");
        if (is_word(f, in->object)) {
            put(w, " ");
            put(w, f->word);
            put(w, "\n");
        } else if (f->type == FST__TYPE_NAMED) {
            dump_named(w, in, f, indent + 2);
        } else if (f->list) {
            dump_list(w, in, f, indent);
        } else if (f->type == FST__TYPE_MAP) {
            put(w, "\n");
            dump_map(w, &inside, NULL, indent + 2, false);
        } else {
            put(w, " ");
            put_scalar(w, f, (const char *)in->object + f->offset);
            put(w, "\n");
        }
    }
    if (!any) {
        put_blanks(w, indented ? 0 : indent);
        put(w, "{}\n");
    }
}

fst_status fst__schema_dump(const fst__schema *s, const void *object, fst_buf *out, fst_error *err)
{
    struct writer w = {.out = out, .err = err};
    const fst__scope scope = {NULL, s, object};
    size_t before = out->len;
    dump_map(&w, &scope, NULL, 0, false);
    return finish(&w, before);
}

/* ---- JSON --------------------------------------------------------------------------------- */

static const fst__field *next_in_order(const fst__schema *s, const fst__field *last)
{
    const fst__field *best = NULL;
    for (size_t i = 0; i < s->count; i++) {
        const fst__field *f = &s->fields[i];
        if ((!last || strcmp(f->key, last->key) > 0) && (!best || strcmp(f->key, best->key) < 0))
            best = f;
    }
    return best;
}

static const fst__named *next_by_name(const fst__named *entries, size_t count, const fst__named *last)
{
    const fst__named *best = NULL;
    for (size_t i = 0; i < count; i++)
        if ((!last || strcmp(entries[i].name, last->name) > 0) && (!best || strcmp(entries[i].name, best->name) < 0))
            best = &entries[i];
    return best;
}

static void json_map(struct writer *w, const fst__schema *s, const void *object, const char *kind);

static void json_named(struct writer *w, const fst__field *f, const void *object)
{
    size_t count;
    const fst__named *entries = fst__named_entries(f, object, &count), *e = next_by_name(entries, count, NULL);
    fst__choice c;
    put(w, "{");
    for (bool any = false; e && !w->status && f->choice(e->choice, &c); e = next_by_name(entries, count, e)) {
        put(w, any ? ",\"" : "\"");
        put(w, e->name);
        put(w, "\":");
        json_map(w, c.table, e->object, strcmp(c.name, e->name) ? c.name : NULL);
        any = true;
    }
    put(w, "}");
}

/* kind: the value of the key "kind", NULL: there is none. */
static void json_map(struct writer *w, const fst__schema *s, const void *object, const char *kind)
{
    bool any = kind != NULL;
    put(w, "{");
    if (kind) {
        put(w, "\"" FST__KIND "\":\"");
        put(w, kind);
        put(w, "\"");
    }
    for (const fst__field *f = next_in_order(s, NULL); f && !w->status; f = next_in_order(s, f)) {
        size_t count;
        if (f->aside || !is_there(f, object, true))
            continue;
        const char *at = values(f, object, &count);
        put(w, any ? ",\"" : "\"");
        put(w, f->key);
        any = true;
        if (is_word(f, object)) {
            put(w, "\":\"");
            put(w, f->word);
            put(w, "\"");
            continue;
        }
        if (f->type == FST__TYPE_NAMED) {
            put(w, "\":");
            json_named(w, f, object);
            continue;
        }
        put(w, f->list ? "\":[" : "\":");
        for (size_t i = 0; i < count && !w->status; i++) {
            put(w, i ? "," : "");
            if (f->type == FST__TYPE_MAP)
                json_map(w, f->table, at + i * fst__field_size(f), NULL);
            else
                put_scalar(w, f, at + i * fst__field_size(f));
        }
        put(w, f->list ? "]" : "");
    }
    put(w, "}");
}

fst_status fst__schema_json(const fst__schema *s, const void *object, fst_buf *out, fst_error *err)
{
    struct writer w = {.out = out, .err = err, .json = true};
    size_t before = out->len;
    json_map(&w, s, object, NULL);
    return finish(&w, before);
}

/* ---- finding a part ----------------------------------------------------------------------- */

static const fst__field *map_field(const fst__schema *s, const char *key, size_t len)
{
    for (size_t i = 0; i < s->count; i++)
        if (strlen(s->fields[i].key) == len && !memcmp(s->fields[i].key, key, len))
            return s->fields[i].type >= FST__TYPE_MAP ? &s->fields[i] : NULL;
    return NULL;
}

/* The entry of that name; its table is *table. */
static const void *named_entry(const fst__field *f, const void *object, const char *name, size_t len,
                               const fst__schema **table)
{
    size_t count;
    const fst__named *entries = fst__named_entries(f, object, &count);
    fst__choice c;
    for (size_t i = 0; i < count; i++)
        if (strlen(entries[i].name) == len && !memcmp(entries[i].name, name, len) && f->choice(entries[i].choice, &c)) {
            *table = c.table;
            return entries[i].object;
        }
    return NULL;
}

fst_status fst__schema_find(const fst__schema *s, const void *object, const char *path, const fst__schema **sub,
                            const void **sub_object, fst_error *err)
{
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "."), count, index = 0;
        const fst__field *f = map_field(s, at, len);
        if (!f || !is_there(f, object, false))
            return fst_fail(err, FST_E_ARGUMENT, "%s: \"%.*s\" is not a map that is there", path, (int)len, at);
        at += len + (at[len] == '.');
        if (f->type == FST__TYPE_NAMED) {
            len = strcspn(at, ".");
            object = named_entry(f, object, at, len, &s);
            if (!object)
                return fst_fail(err, FST_E_ARGUMENT, "%s: \"%.*s\" is not a map that is there", path, (int)len, at);
            at += len + (at[len] == '.');
            continue;
        }
        const char *value = values(f, object, &count);
        if (f->list) {
            char *end;
            index = strtoul(at, &end, 10);
            if (*at < '0' || *at > '9' || (*end && *end != '.') || index >= count)
                return fst_fail(err, FST_E_ARGUMENT,
                                "%s: %s is a list of %zu maps; its key must be followed by an index", path, f->key,
                                count);
            at = end + (*end == '.');
        }
        object = value + index * fst__field_size(f);
        s = f->table;
    }
    *sub = s;
    *sub_object = object;
    return FST_OK;
}

/* ---- documentation ------------------------------------------------------------------------ */

/* Text for a cell of a Markdown table. */
static void put_cell(struct writer *w, const char *text)
{
    for (; *text && !w->status; text++) {
        char two[3] = {'\\', *text, 0};
        put(w, *text == '|' || *text == '<' ? two : *text == '\n' ? " " : two + 1);
    }
}

static void put_row(struct writer *w, const fst__field *f)
{
    char accepts[1000];
    put(w, "| `");
    put(w, f->key);
    put(w, "` | ");
    put_cell(w, fst__field_accepts(f, accepts, sizeof accepts));
    put(w, " | ");
    if (f->fallback) {
        put(w, "`");
        put_cell(w, *f->fallback ? f->fallback : "\"\"");
        put(w, "`");
    } else {
        bool own = f->type == FST__TYPE_MAP && !f->list && !f->present;
        put(w, f->required ? "required" : own ? "its own defaults" : f->list && !f->present ? "`[]`" : "not set");
    }
    put(w, " | ");
    put_cell(w, f->help);
    for (int i = 0; i < FST__CONDITIONS && f->when[i].key; i++) {
        put(w, i ? " and " : "; only ");
        put_cell(w, fst__condition_text(&f->when[i], accepts, sizeof accepts));
    }
    put(w, " |\n");
}

/* A map on the way from the top, so that a table inside itself is described once. */
struct described {
    const struct described *up;
    const fst__schema *s;
};

static void put_section(struct writer *w, const struct described *d, const char *title, const char *help, int heading,
                        bool code)
{
    const fst__schema *s = d->s;
    for (int i = 0; i < heading && i < MAX_HEADING; i++)
        put(w, "#");
    put(w, code ? " `" : " ");
    put(w, title);
    put(w, code ? "`\n\n" : "\n\n");
    if (help) {
        put(w, help);
        put(w, ".\n\n");
    }
    if (s->shorthand) {
        put(w, "A bare value stands for `");
        put(w, s->shorthand);
        put(w, "`.\n\n");
    }
    put(w, "| key | accepts | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < s->count; i++)
        put_row(w, &s->fields[i]);
    put(w, "\n");
}

static void put_parts(struct writer *w, const struct described *d, const char *prefix, int heading);

/* A map with free keys: its kinds, and a section for each. */
static void put_choices(struct writer *w, const struct described *d, const fst__field *f, int heading)
{
    fst__choice c;
    for (int i = 0; i < heading && i < MAX_HEADING; i++)
        put(w, "#");
    put(w, " `");
    put(w, f->key);
    put(w, "`\n\n");
    put(w, f->help);
    put(w, ".\n\nThe keys are names, made of a-z, 0-9 and _. What an entry is says its key `" FST__KIND
           "`, or its name where that is missing.\n\n| " FST__KIND " | meaning |\n|---|---|\n");
    for (size_t i = 0; f->choice(i, &c); i++) {
        put(w, "| `");
        put(w, c.name);
        put(w, "` | ");
        put_cell(w, c.help);
        put(w, " |\n");
    }
    put(w, "\n");
    for (size_t i = 0; f->choice(i, &c) && !w->status; i++) {
        const struct described part = {d, c.table};
        fst_buf name = {0};
        w->status = fst_buf_printf(&name, w->err, "%s.%s", f->key, c.name);
        if (!w->status) {
            put_section(w, &part, name.data, c.help, heading, true);
            put_parts(w, &part, name.data, heading);
        }
        fst_buf_release(&name);
    }
}

static void put_parts(struct writer *w, const struct described *d, const char *prefix, int heading)
{
    for (size_t i = 0; i < d->s->count && !w->status; i++) {
        const fst__field *f = &d->s->fields[i];
        if (f->type == FST__TYPE_NAMED)
            put_choices(w, d, f, heading);
        const struct described part = {d, f->table}, *up = d;
        while (up && up->s != f->table)
            up = up->up;
        if (f->type != FST__TYPE_MAP || up)
            continue;
        fst_buf name = {0};
        w->status = fst_buf_printf(&name, w->err, "%s%s%s%s", prefix, *prefix ? "." : "", f->key, f->list ? "[]" : "");
        if (!w->status) {
            put_section(w, &part, name.data, f->help, heading, true);
            put_parts(w, &part, name.data, heading);
        }
        fst_buf_release(&name);
    }
}

fst_status fst__schema_reference(const fst__schema *s, const char *title, int heading, fst_buf *out, fst_error *err)
{
    struct writer w = {.out = out, .err = err};
    const struct described top = {NULL, s};
    size_t before = out->len;
    put_section(&w, &top, title, NULL, heading, false);
    put_parts(&w, &top, "", heading + 1);
    return finish(&w, before);
}
