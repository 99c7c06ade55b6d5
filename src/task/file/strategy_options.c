/*
 * Options of strategies -> fields of the task file. An option that several strategies have is one field, whose
 * condition lists them; "server.momentum" is the field `momentum` of the map `server`. The tables are completed before
 * main starts, since a schema is data that everybody reads.
 */
#include <stdio.h>
#include <string.h>

#include "strategy_options.h"

enum { MAPS = 4, TEXT = 32 };

const char *fst__strategy_names[FST__STRATEGIES + 1];

static struct {
    const fst_option *option;
    char fallback[TEXT];
} known[FST__OPTIONS];
static size_t count;

static struct map {
    char name[TEXT];
    fst__field field[FST__OPTIONS];
    fst__schema schema;
    fst__condition when;
} map[MAPS];
static size_t maps;

static size_t find(const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(known[i].option->name, name))
        i++;
    return i;
}

static void add_value(fst__condition *c, const char *strategy)
{
    size_t n = 0;
    while (c->values[n] && strcmp(c->values[n], strategy))
        n++;
    if (n + 1 < FST__CONDITION_VALUES)
        c->values[n] = strategy;
}

static void gather(void)
{
    for (size_t s = 0; fst_strategy_at(s) && s < FST__STRATEGIES; s++) {
        const fst_strategy_ops *ops = fst_strategy_at(s);
        fst__strategy_names[s] = ops->name;
        for (const fst_option *o = ops->options; o && o->name; o++) {
            size_t i = find(o->name);
            if (i < count || count == FST__OPTIONS)
                continue;
            known[count].option = o;
            if (o->type == FST_OPTION_CHOICE)
                snprintf(known[count].fallback, TEXT, "%s", o->choices[(int)o->fallback]);
            else if (o->type == FST_OPTION_FLAG)
                snprintf(known[count].fallback, TEXT, "%s", o->fallback != 0 ? "true" : "false");
            else
                fst__number_text(o->fallback, known[count].fallback, TEXT);
            count++;
        }
    }
}

/* A stage's inputs list these whatever its strategy, as they did when there were no others; all other options only for
 * the strategy that has them (fst__strategy_inputs), so that a new strategy changes no other's inputs. */
static bool always_input(const char *name)
{
    return !strcmp(name, "prox_mu") || !strncmp(name, "server.", 7);
}

static fst__field field_of(size_t i, const char *key, size_t offset)
{
    const fst_option *o = known[i].option;
    fst__field f = {.key = key,
                    .help = o->help,
                    .offset = offset + i * sizeof(union fst__option_value),
                    .fallback = known[i].fallback,
                    .aside = !always_input(o->name),
                    .when = {{.key = "strategy"}}};
    switch (o->type) {
    case FST_OPTION_NUMBER:
        f.type = FST__TYPE_DOUBLE;
        f.min = o->min;
        f.max = o->max;
        f.exclusive = o->above;
        break;
    case FST_OPTION_WHOLE:
        f.type = FST__TYPE_INT;
        f.int_min = (int64_t)o->min;
        f.int_max = (int64_t)o->max;
        break;
    case FST_OPTION_CHOICE:
        f.type = FST__TYPE_ENUM;
        f.names = o->choices;
        break;
    case FST_OPTION_FLAG:
        f.type = FST__TYPE_BOOL;
        break;
    }
    for (size_t s = 0; fst_strategy_at(s); s++)
        for (const fst_option *p = fst_strategy_at(s)->options; p && p->name; p++)
            if (!strcmp(p->name, o->name))
                add_value(&f.when[0], fst_strategy_at(s)->name);
    if (o->with)
        f.when[1] = (fst__condition)FST__WITH(o->with, o->choice);
    return f;
}

static struct map *map_of(const char *name, size_t len)
{
    for (size_t i = 0; i < maps; i++)
        if (strlen(map[i].name) == len && !memcmp(map[i].name, name, len))
            return &map[i];
    struct map *m = &map[maps++];
    snprintf(m->name, sizeof m->name, "%.*s", (int)len, name);
    m->schema = (fst__schema){.fields = m->field, .size = sizeof(struct strategy_settings)};
    m->when.key = "strategy";
    return m;
}

size_t fst__strategy_fields(fst__field *out, size_t offset)
{
    size_t n = 0;
    gather();
    for (size_t i = 0; i < count; i++) {
        const char *name = known[i].option->name, *dot = strchr(name, '.');
        if (!dot) {
            out[n++] = field_of(i, name, offset);
            continue;
        }
        struct map *m = map_of(name, (size_t)(dot - name));
        fst__field f = field_of(i, dot + 1, 0);
        for (size_t k = 0; f.when[0].values[k]; k++)
            add_value(&m->when, f.when[0].values[k]);
        m->field[m->schema.count++] = f;
    }
    for (size_t i = 0; i < maps; i++)
        out[n++] = (fst__field){.key = map[i].name,
                                .help = "options of the strategy's step at the server",
                                .type = FST__TYPE_MAP,
                                .table = &map[i].schema,
                                .offset = offset,
                                .room = sizeof(struct strategy_settings),
                                .when = {map[i].when}};
    return n;
}

size_t fst__strategy_settings(const struct strategy_settings *s, const fst_strategy_ops *ops,
                              fst_setting out[FST_STRATEGY_OPTIONS])
{
    size_t n = 0;
    for (const fst_option *o = ops->options; o && o->name && n < FST_STRATEGY_OPTIONS; o++) {
        const union fst__option_value *v = &s->value[find(o->name)];
        double value = o->type == FST_OPTION_NUMBER   ? v->number
                       : o->type == FST_OPTION_WHOLE  ? (double)v->whole
                       : o->type == FST_OPTION_CHOICE ? (double)v->choice
                                                      : (double)v->flag;
        out[n++] = (fst_setting){o->name, value};
    }
    return n;
}

fst_status fst__strategy_inputs(const struct strategy_settings *s, const fst_strategy_ops *ops, fst_buf *text,
                                fst_error *err)
{
    fst_setting set[FST_STRATEGY_OPTIONS];
    char number[TEXT];
    fst_status st = FST_OK;
    size_t n = fst__strategy_settings(s, ops, set);
    for (size_t i = 0; !st && i < n; i++)
        if (!always_input(set[i].name))
            st = fst_buf_printf(text, err, "%s=%s\n", set[i].name, fst__number_text(set[i].value, number, TEXT));
    return st;
}

fst_status fst__strategy_reference(fst_buf *out, fst_error *err)
{
    fst_status st =
        fst_buf_printf(out, err,
                       "## Strategies\n\nWhat the stage's `strategy` may be. There is no secure aggregation: "
                       "the server sees each client's updates.\n\n"
                       "| strategy | what it does | clients' models | needs | what the server can learn |\n"
                       "|---|---|---|---|---|\n");
    for (size_t i = 0; !st && fst_strategy_at(i); i++) {
        const fst_strategy_ops *s = fst_strategy_at(i);
        st = fst_buf_printf(out, err, "| `%s` | %s | %s | %s | %s |\n", s->name, s->summary,
                            s->flags & FST_SAME_MODEL ? "one for all" : "each its own",
                            s->flags & FST_PUBLIC_DATA   ? "`data.public`"
                            : s->flags & FST_ALL_UPDATES ? "memory for all updates of a round"
                                                         : "",
                            s->leaks);
    }
    return st;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static bool same(const fst_option *a, const fst_option *b)
{
    return a->type == b->type && a->fallback == b->fallback && a->min == b->min && a->max == b->max &&
           a->above == b->above && a->choices == b->choices && same_text(a->with, b->with) &&
           same_text(a->choice, b->choice) && !strcmp(a->help, b->help);
}

const char *fst__strategy_options_clash(void)
{
    for (size_t s = 0; fst_strategy_at(s); s++) {
        size_t n = 0;
        for (const fst_option *o = fst_strategy_at(s)->options; o && o->name; o++, n++)
            if (n >= FST_STRATEGY_OPTIONS || find(o->name) == count || !same(o, known[find(o->name)].option))
                return o->name;
    }
    return NULL;
}
