/*
 * Checks tables, for tests: keys, limits, rooms, conditions, and that every default is accepted. Tables are static
 * data, so what is wrong in one is a fault of the program; nothing here is called when a task is read.
 */
#include <math.h>
#include <string.h>

#include "schema.h"

/* ---- checking a table --------------------------------------------------------------------- */

static const char *wrong_with(const fst__schema *s, const fst__field *f)
{
    bool named = f->type == FST__TYPE_NAMED;
    bool scalar = !f->list && f->type != FST__TYPE_STRING && f->type != FST__TYPE_MAP && !named;
    if (!f->key || !*f->key || strspn(f->key, "abcdefghijklmnopqrstuvwxyz_0123456789") != strlen(f->key) ||
        *f->key == '_')
        return "a key is made of a-z, 0-9 and _, and does not begin with _";
    if (fst__find_field(s, f->key) != f)
        return "the key stands twice in the table";
    if (!f->help || !*f->help)
        return "has no help text";
    if ((f->type == FST__TYPE_MAP) != (f->table != NULL) || (f->type == FST__TYPE_ENUM) != (f->names != NULL))
        return "a map needs a table, an enum needs names";
    if (named != (f->choice != NULL) || (named && (f->list || f->fallback || f->present || !f->count_max)))
        return "a map with free keys needs choices and a limit, and is neither a list nor optional";
    if (f->offset + (f->list && !f->room ? sizeof(void *) : f->room ? f->room : fst__field_size(f)) > s->size)
        return "lies outside the struct";
    if (f->type == FST__TYPE_MAP && !f->list && f->room != f->table->size)
        return "the member is not of the struct that its table describes";
    if (f->list &&
        (!fst__most_entries(f) || f->count_min > fst__most_entries(f) || fst__most_entries(f) < f->count_max))
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

/* The default goes through the reader, as the only field of a table. */
static fst_status verify_default(const fst__schema *s, const fst__field *f, fst_error *err)
{
    fst__field alone = *f;
    const fst__schema one = {.fields = &alone, .count = 1, .size = s->size};
    void *object = fst_calloc(1, s->size);
    if (!object)
        return fst_fail_memory(err, s->size);
    memset(alone.when, 0, sizeof alone.when);
    fst_status status = fst__schema_load(&one, "default", "{}", 2, NULL, 0, object, err);
    if (!status)
        fst__schema_release(&one, object);
    fst_free(object);
    return status && status != FST_E_MEMORY ? FST_E_ARGUMENT : status;
}

static fst_status verify(const fst__scope *in, fst_error *err);

static fst_status verify_choices(const fst__scope *in, const fst__field *f, fst_error *err)
{
    fst__choice c;
    for (size_t i = 0; f->choice && f->choice(i, &c); i++) {
        const fst__scope inside = {in, c.table, NULL};
        if (!fst__is_name(c.name) || !c.help || fst__find_field(c.table, FST__KIND))
            return fst_fail(err, FST_E_ARGUMENT, "%s: a choice has a name, help, and no key \"" FST__KIND "\"", c.name);
        fst_status status = verify(&inside, err);
        if (status)
            return fst_fail_in(err, status, "%s", c.name);
    }
    return FST_OK;
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
        if (!status)
            status = verify_choices(in, f, err);
        if (status)
            return fst_fail_in(err, FST_E_ARGUMENT, "%s", f->key);
    }
    const fst__field *bare = s->shorthand ? fst__find_field(s, s->shorthand) : NULL;
    if (s->shorthand && (!bare || bare->list || bare->type == FST__TYPE_MAP))
        return fst_fail(err, FST_E_ARGUMENT, "the shorthand \"%s\" is not a scalar of the table", s->shorthand);
    return FST_OK;
}

fst_status fst__schema_verify(const fst__schema *s, fst_error *err)
{
    const fst__scope scope = {NULL, s, NULL};
    return verify(&scope, err);
}
