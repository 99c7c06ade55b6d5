/*
 * On what a field's effect depends: the conditions that stand in a table, looked up in a struct, put into words,
 * checked against the tables. It decides nothing: the reader refuses keys without effect, the writer leaves them out.
 */
#include <stdio.h>
#include <string.h>

#include "schema.h"

/* Appends to a bounded text; what does not fit is cut. */
static void __attribute__((format(printf, 4, 5))) add(char *out, size_t size, size_t *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + *at, size - *at, fmt, ap);
    va_end(ap);
    *at += n < 0 ? 0 : (size_t)n < size - *at ? (size_t)n : size - *at - 1;
}

/* ---- looking up ------------------------------------------------------------------------------ */

static const fst__field *field_of(const fst__schema *s, const char *key, size_t len)
{
    for (size_t i = 0; s && i < s->count; i++)
        if (strlen(s->fields[i].key) == len && !memcmp(s->fields[i].key, key, len))
            return &s->fields[i];
    return NULL;
}

static bool present(const fst__field *f, const void *object)
{
    return !f->present || *((const bool *)object + f->present - 1);
}

/* The field that a condition names and the struct that it is in: *object is NULL when a map on the way is not there.
 * *kind: of a map with free keys, the kind of which there must be an entry; NULL where none is named. */
static const fst__field *look_up(const char *key, const fst__scope *in, const void **object, const char **kind)
{
    size_t len = strcspn(key, ".");
    const fst__field *f = NULL;
    for (; in && !f; in = f ? in : in->up)
        f = field_of(in->s, key, len);
    *object = in ? in->object : NULL;
    *kind = NULL;
    while (f && key[len]) {
        if (f->type == FST__TYPE_NAMED) {
            *kind = key + len + 1;
            return f;
        }
        key += len + 1;
        len = strcspn(key, ".");
        if (f->type != FST__TYPE_MAP || f->list)
            return NULL;
        *object = *object && present(f, *object) ? (const char *)*object + f->offset : NULL;
        f = field_of(f->table, key, len);
    }
    return f;
}

bool fst__is_set(const fst__field *f, const void *object)
{
    const char *at = (const char *)object + f->offset;
    int value;
    if (!present(f, object))
        return false;
    if (f->word && *((const bool *)object + f->word_at))
        return true;
    if (f->list)
        return *(const size_t *)(const void *)((const char *)object + f->count_at) > 0;
    switch (f->type) {
    case FST__TYPE_STRING:
        return *(char *const *)(const void *)at;
    case FST__TYPE_INT:
        return *(const int64_t *)(const void *)at != 0;
    case FST__TYPE_DOUBLE:
        return *(const double *)(const void *)at != 0;
    case FST__TYPE_BOOL:
        return *(const bool *)at;
    case FST__TYPE_ENUM:
        memcpy(&value, at, sizeof value);
        return value >= 0;
    case FST__TYPE_NAMED:
        return *(const size_t *)(const void *)((const char *)object + f->count_at) > 0;
    case FST__TYPE_MAP:
        break;
    }
    return true;
}

static bool has_entry_of(const fst__field *f, const void *object, const char *kind)
{
    size_t count;
    const fst__named *entries = fst__named_entries(f, object, &count);
    fst__choice c;
    for (size_t i = 0; i < count; i++)
        if (f->choice(entries[i].choice, &c) && !strcmp(c.name, kind))
            return true;
    return false;
}

static const char *enum_name(const fst__field *f, const void *object)
{
    int value, count = 0;
    memcpy(&value, (const char *)object + f->offset, sizeof value);
    while (f->names[count])
        count++;
    return value >= 0 && value < count ? f->names[value] : NULL;
}

static bool is_set_there(const char *key, const fst__scope *in)
{
    const void *object;
    const char *kind;
    const fst__field *f = look_up(key, in, &object, &kind);
    return f && object && (kind ? has_entry_of(f, object, kind) : fst__is_set(f, object));
}

static bool holds(const fst__condition *c, const fst__scope *in)
{
    const void *object;
    const char *kind;
    const fst__field *f = look_up(c->key, in, &object, &kind);
    bool so = false;
    if (!f) /* a part of a table alone, as tests have them: nothing is known against it */
        return true;
    if (!c->values[0]) {
        so = is_set_there(c->key, in) || (c->or_key && is_set_there(c->or_key, in));
    } else if (object) {
        const char *name = enum_name(f, object);
        for (size_t i = 0; name && c->values[i]; i++)
            so = so || !strcmp(name, c->values[i]);
    }
    return so != c->without;
}

const fst__condition *fst__unmet(const fst__field *f, const fst__scope *in)
{
    for (int i = 0; i < FST__CONDITIONS && f->when[i].key; i++)
        if (!holds(&f->when[i], in))
            return &f->when[i];
    return NULL;
}

/* ---- in words --------------------------------------------------------------------------------- */

const char *fst__condition_text(const fst__condition *c, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    if (!c->values[0]) {
        add(out, size, &at, "%s %s%s%s", c->without ? "without" : "with", c->key, c->or_key ? " or " : "",
            c->or_key ? c->or_key : "");
        return out;
    }
    add(out, size, &at, "with %s %s", c->key, c->without ? "other than " : "");
    for (size_t i = 0; c->values[i]; i++)
        add(out, size, &at, "%s%s", !i ? "" : c->values[i + 1] ? ", " : " or ", c->values[i]);
    return out;
}

const char *fst__unmet_text(const fst__condition *c, const fst__scope *in, char *out, size_t size)
{
    char needs[200];
    const void *object;
    const char *kind;
    const fst__field *f = look_up(c->key, in, &object, &kind);
    const char *name = f && object && f->type == FST__TYPE_ENUM ? enum_name(f, object) : NULL;
    size_t at = 0;
    *out = 0;
    if (name)
        add(out, size, &at, "has no effect with %s %s, only %s", c->key, name,
            fst__condition_text(c, needs, sizeof needs));
    else if (c->values[0])
        add(out, size, &at, "has no effect, only %s", fst__condition_text(c, needs, sizeof needs));
    else if (c->without)
        add(out, size, &at, "has no effect with %s: leave out one of the two", c->key);
    else
        add(out, size, &at, "has no effect without %s%s%s: set that too, or leave this out", c->key,
            c->or_key ? " or " : "", c->or_key ? c->or_key : "");
    return out;
}

/* ---- checking a table --------------------------------------------------------------------------- */

const char *fst__wrong_condition(const fst__field *f, const fst__scope *in)
{
    for (int i = 0; i < FST__CONDITIONS && f->when[i].key; i++) {
        const fst__condition *c = &f->when[i];
        const void *object;
        const char *kind, *second_kind = NULL;
        fst__choice choice;
        const fst__field *other = look_up(c->key, in, &object, &kind);
        const fst__field *second = c->or_key ? look_up(c->or_key, in, &object, &second_kind) : other;
        if (!other || other == f || !second || second == f)
            return "its condition names no other field of this map or those around it";
        if ((kind && !fst__choice_named(other, kind, NULL, &choice)) ||
            (second_kind && !fst__choice_named(second, second_kind, NULL, &choice)))
            return "its condition names a kind that the other field does not have";
        if ((other->type == FST__TYPE_ENUM && !other->list) != (c->values[0] != NULL))
            return "a condition has values exactly where the other field is an enum";
        for (size_t k = 0; c->values[k]; k++) {
            size_t n = 0;
            while (other->names[n] && strcmp(other->names[n], c->values[k]))
                n++;
            if (!other->names[n])
                return "its condition names a value that the other field does not have";
        }
    }
    return NULL;
}
