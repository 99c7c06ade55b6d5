/* Parses command lines by declarative tables. It knows long options (--name=value, --name value), single
 * letters (-n 5, -n5, -qv), "--", and operands; it does not know abbreviations, so that adding an option
 * never changes what an old script means. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "opt.h"

const struct option_spec common_options[] = {
    {.name = "help", .letter = 'h', .type = OPTION_FLAG, .help = "Show this help and exit."},
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, .help = "Show no progress; warnings and errors remain."},
    {0},
};

struct value {
    const struct option_spec *spec;
    bool given;
    const char *text;
    int64_t integer;
    double number;
    const char **list;
    size_t count;
};

struct options {
    const struct command *command;
    struct value *values;
    size_t nvalues;
    const char **operands;
    size_t noperands;
};

/* ---- nearest match ------------------------------------------------------------------------ */

enum { MAX_WORD = 40 };

/* Edit distance in which swapping two neighbours counts once; words longer than MAX_WORD are far away. */
static size_t distance(const char *a, const char *b)
{
    size_t d[MAX_WORD + 1][MAX_WORD + 1], na = strlen(a), nb = strlen(b);
    if (na > MAX_WORD || nb > MAX_WORD)
        return MAX_WORD;
    for (size_t i = 0; i <= na; i++)
        for (size_t j = 0; j <= nb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[na][nb];
}

const char *nearest(const char *word, const char *const *candidates, size_t n)
{
    const char *found = NULL;
    size_t length = strlen(word), best = length < 4 ? 2 : 3; /* must be below this */
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, candidates[i]);
        if (length >= 3 && !strncmp(word, candidates[i], length) && d >= best)
            d = best - 1; /* the beginning of a longer word */
        if (d < best) {
            best = d;
            found = candidates[i];
        }
    }
    return found;
}

/* ---- parsing ------------------------------------------------------------------------------ */

static struct value *find_value(const struct options *o, const char *name, size_t len)
{
    for (size_t i = 0; i < o->nvalues; i++)
        if (!strncmp(o->values[i].spec->name, name, len) && !o->values[i].spec->name[len])
            return &o->values[i];
    return NULL;
}

static struct value *find_letter(const struct options *o, char letter)
{
    for (size_t i = 0; i < o->nvalues; i++)
        if (o->values[i].spec->letter == letter)
            return &o->values[i];
    return NULL;
}

static fst_status unknown_option(const struct options *o, const char *name, size_t len, fst_error *err)
{
    char word[MAX_WORD + 2];
    const char *names[128];
    size_t n = 0;
    snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word - 1), name);
    for (; n < o->nvalues && n < sizeof names / sizeof *names; n++)
        names[n] = o->values[n].spec->name;
    const char *meant = nearest(word, names, n);
    if (meant)
        return fst_fail(err, FST_E_ARGUMENT, "unknown option --%.*s (did you mean --%s?)", (int)len, name, meant);
    return fst_fail(err, FST_E_ARGUMENT, "unknown option --%.*s", (int)len, name);
}

static fst_status set_int(struct value *v, const char *text, fst_error *err)
{
    const struct option_spec *s = v->spec;
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (end == text || *end || strchr(" \t\n\v\f\r", *text) || (errno && errno != ERANGE))
        return fst_fail(err, FST_E_ARGUMENT, "--%s needs a whole number, \"%s\" is none", s->name, text);
    bool outside = (s->min || s->max) && (x < s->min || x > s->max);
    if (errno == ERANGE || outside) {
        if (s->min || s->max)
            return fst_fail(err, FST_E_ARGUMENT, "--%s takes %lld to %lld, %s is outside", s->name, (long long)s->min,
                            (long long)s->max, text);
        return fst_fail(err, FST_E_ARGUMENT, "--%s: %s is too large", s->name, text);
    }
    v->integer = x;
    return FST_OK;
}

static fst_status set_double(struct value *v, const char *text, fst_error *err)
{
    const struct option_spec *s = v->spec;
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || strchr(" \t\n\v\f\r", *text) || !isfinite(x))
        return fst_fail(err, FST_E_ARGUMENT, "--%s needs a number, \"%s\" is none", s->name, text);
    if ((s->low != 0 || s->high != 0) && (x < s->low || x > s->high))
        return fst_fail(err, FST_E_ARGUMENT, "--%s takes %g to %g, %s is outside", s->name, s->low, s->high, text);
    v->number = x;
    return FST_OK;
}

static fst_status check_choice(const struct option_spec *s, const char *text, fst_error *err)
{
    char all[512] = "";
    size_t at = 0, n = 0;
    if (!s->choices)
        return FST_OK;
    for (; s->choices[n]; n++) {
        if (!strcmp(s->choices[n], text))
            return FST_OK;
        if (at < sizeof all)
            at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", n ? ", " : "", s->choices[n]);
    }
    const char *meant = nearest(text, s->choices, n);
    return fst_fail(err, FST_E_ARGUMENT, "--%s: \"%s\" is none of: %s%s%s%s", s->name, text, all,
                    meant ? " (did you mean " : "", meant ? meant : "", meant ? "?)" : "");
}

static fst_status push(struct value *v, const char *text, fst_error *err)
{
    const char **list = fst_realloc(v->list, v->count * sizeof *list, (v->count + 1) * sizeof *list);
    if (!list)
        return fst_fail_memory(err, (v->count + 1) * sizeof *list);
    list[v->count++] = text;
    v->list = list;
    return FST_OK;
}

static fst_status set_value(struct value *v, const char *text, fst_error *err)
{
    fst_status s = FST_OK;
    switch (v->spec->type) {
    case OPTION_FLAG:
        break;
    case OPTION_STRING:
        s = check_choice(v->spec, text, err);
        break;
    case OPTION_INT:
        s = set_int(v, text, err);
        break;
    case OPTION_DOUBLE:
        s = set_double(v, text, err);
        break;
    case OPTION_LIST:
        s = push(v, text, err);
        break;
    }
    if (!s)
        v->text = text;
    return s;
}

static fst_status needs_argument(const struct value *v, fst_error *err)
{
    return fst_fail(err, FST_E_ARGUMENT, "--%s needs an argument: --%s=%s", v->spec->name, v->spec->name,
                    v->spec->argument);
}

/* word is "--name" or "--name=value"; *i moves on when the next word is the value. */
static fst_status parse_long(struct options *o, int argc, char *const *argv, int *i, fst_error *err)
{
    const char *name = argv[*i] + 2, *text = strchr(name, '=');
    size_t len = text ? (size_t)(text - name) : strlen(name);
    struct value *v = find_value(o, name, len);
    if (!v)
        return unknown_option(o, name, len, err);
    if (v->spec->type == OPTION_FLAG && text)
        return fst_fail(err, FST_E_ARGUMENT, "--%s takes no argument", v->spec->name);
    v->given = true;
    if (v->spec->type == OPTION_FLAG)
        return FST_OK;
    if (text)
        return set_value(v, text + 1, err);
    if (*i + 1 >= argc)
        return needs_argument(v, err);
    return set_value(v, argv[++*i], err);
}

static fst_status parse_letters(struct options *o, int argc, char *const *argv, int *i, fst_error *err)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        struct value *v = find_letter(o, *p);
        if (!v)
            return fst_fail(err, FST_E_ARGUMENT, "unknown option -%c%s", *p,
                            strchr("0123456789.", *p) ? " (for a negative number put -- in front of it)" : "");
        v->given = true;
        if (v->spec->type == OPTION_FLAG)
            continue;
        if (p[1])
            return set_value(v, p + 1, err);
        if (*i + 1 >= argc)
            return needs_argument(v, err);
        return set_value(v, argv[++*i], err);
    }
    return FST_OK;
}

static fst_status check_operands(const struct options *o, fst_error *err)
{
    size_t least = 0, most = 0;
    bool endless = false;
    for (const struct operand_spec *s = o->command->operands; s && s->name; s++) {
        least += (size_t)s->min;
        if (o->noperands < least)
            return fst_fail(err, FST_E_ARGUMENT, "%s is missing", s->name);
        endless |= s->max < 0;
        most += s->max > 0 ? (size_t)s->max : 0;
    }
    if (!endless && o->noperands > most)
        return fst_fail(err, FST_E_ARGUMENT, "unexpected argument \"%s\"", o->operands[most]);
    return FST_OK;
}

static fst_status parse_words(struct options *o, int argc, char *const *argv, fst_error *err)
{
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        fst_status s = FST_OK;
        if (only_operands || argv[i][0] != '-' || !argv[i][1])
            o->operands[o->noperands++] = argv[i];
        else if (!strcmp(argv[i], "--"))
            only_operands = true;
        else if (argv[i][1] == '-')
            s = parse_long(o, argc, argv, &i, err);
        else
            s = parse_letters(o, argc, argv, &i, err);
        if (s)
            return s;
        if (option_flag(o, "help"))
            return FST_OK; /* whatever follows */
    }
    return check_operands(o, err);
}

static size_t count_options(const struct option_spec *s)
{
    size_t n = 0;
    while (s && s[n].name)
        n++;
    return n;
}

static fst_status add_options(struct options *o, const struct option_spec *s, fst_error *err)
{
    for (; s && s->name; s++) {
        struct value *v = &o->values[o->nvalues++];
        v->spec = s;
        if (s->fallback && set_value(v, s->fallback, err))
            return fst_fail_in(err, FST_E_ARGUMENT, "the option's own fallback");
    }
    return FST_OK;
}

fst_status options_parse(struct options **out, const struct command *c, int argc, char *const *argv, fst_error *err)
{
    struct options *o = fst_calloc(1, sizeof *o);
    if (!o)
        return fst_fail_memory(err, sizeof *o);
    size_t n = count_options(c->options) + count_options(common_options);
    o->command = c;
    o->values = fst_calloc(n, sizeof *o->values);
    o->operands = fst_calloc((size_t)argc + 1, sizeof *o->operands);
    fst_status s = o->values && o->operands ? FST_OK : fst_fail_memory(err, n * sizeof *o->values);
    if (!s)
        s = add_options(o, c->options, err);
    if (!s)
        s = add_options(o, common_options, err);
    if (!s)
        s = parse_words(o, argc, argv, err);
    if (s) {
        options_free(o);
        return s;
    }
    *out = o;
    return FST_OK;
}

void options_free(struct options *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->nvalues; i++)
        fst_free(o->values[i].list);
    fst_free(o->values);
    fst_free(o->operands);
    fst_free(o);
}

/* ---- what commands ask -------------------------------------------------------------------- */

/* A name that is not in the table is a slip in the program's own source, found by its first test run. */
static const struct value *must_find(const struct options *o, const char *name, enum option_type type)
{
    const struct value *v = find_value(o, name, strlen(name));
    if (!v || v->spec->type != type) {
        fprintf(stderr, "fedstill %s: its table has no such option --%s\n", o->command->name, name);
        abort();
    }
    return v;
}

bool option_flag(const struct options *o, const char *name)
{
    return must_find(o, name, OPTION_FLAG)->given;
}

bool option_given(const struct options *o, const char *name)
{
    const struct value *v = find_value(o, name, strlen(name));
    return v && v->given;
}

const char *option_string(const struct options *o, const char *name)
{
    return must_find(o, name, OPTION_STRING)->text;
}

int64_t option_int(const struct options *o, const char *name)
{
    return must_find(o, name, OPTION_INT)->integer;
}

double option_double(const struct options *o, const char *name)
{
    return must_find(o, name, OPTION_DOUBLE)->number;
}

const char *const *option_list(const struct options *o, const char *name, size_t *count)
{
    const struct value *v = must_find(o, name, OPTION_LIST);
    *count = v->count;
    return v->list;
}

const char *operand(const struct options *o, size_t i)
{
    return i < o->noperands ? o->operands[i] : NULL;
}

size_t operand_count(const struct options *o)
{
    return o->noperands;
}
