/*
 * What a sweep is asked for: "key=a,b,c" of each --grid, "key=a,other=b" of each --point and the seeds become settings,
 * runs, and names for their folders. It knows no task file: whether a key exists is found when the runs' tasks are
 * loaded (sweep.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sweep_private.h"

enum { MAX_VALUE = 40, MAX_SETTING = 120, HASH = 8 };

/* ---- values ---------------------------------------------------------------------------------------------- */

/* A value ends at a comma that is in no quotes and no brackets. Quotes count where YAML lets a quoted text begin. */
static const char *value_end(const char *at, bool *open)
{
    int depth = 0;
    char quote = 0, before = ',';
    for (; *at; at++) {
        if (quote) {
            if (*at == '\\' && quote == '"' && at[1])
                at++;
            else if (*at == quote)
                quote = 0;
        } else if ((*at == '"' || *at == '\'') && strchr("[{,:", before)) {
            quote = *at;
        } else if (*at == '[' || *at == '{') {
            depth++;
        } else if (*at == ']' || *at == '}') {
            depth--;
        } else if (*at == ',' && depth <= 0) {
            break;
        }
        if (*at != ' ' && *at != '\t')
            before = *at;
    }
    *open = quote || depth != 0;
    return at;
}

static char *copy_trimmed(const char *from, const char *to)
{
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    char *text = fst_alloc((size_t)(to - from) + 1);
    if (text) {
        memcpy(text, from, (size_t)(to - from));
        text[to - from] = 0;
    }
    return text;
}

static fst_status add_value(struct grid_key *k, const char *grid, char *text, fst_error *err)
{
    if (!text)
        return fst_fail_memory(err, strlen(grid));
    if (k->count == FST_SWEEP_MAX_RUNS) {
        fst_free(text);
        return fst_fail(err, FST_E_CONFIG, "--grid %s=...: more than %d values", k->key, FST_SWEEP_MAX_RUNS);
    }
    k->value[k->count++] = text; /* released with the key, whatever it is */
    if (!*text)
        return fst_fail(err, FST_E_CONFIG, "--grid %s: value %zu is empty; an empty text is written \"\"", grid,
                        k->count);
    for (size_t i = 0; i + 1 < k->count; i++)
        if (!strcmp(k->value[i], text))
            return fst_fail(err, FST_E_CONFIG, "--grid %s: %s stands there twice", grid, text);
    return FST_OK;
}

static fst_status cut_values(struct grid_key *k, const char *grid, const char *values, fst_error *err)
{
    size_t most = 1;
    for (const char *c = values; *c; c++)
        most += *c == ',';
    most = most < FST_SWEEP_MAX_RUNS ? most : FST_SWEEP_MAX_RUNS;
    k->value = fst_calloc(most, sizeof *k->value);
    if (!k->value)
        return fst_fail_memory(err, most * sizeof *k->value);
    for (const char *at = values;; at++) {
        bool open;
        const char *end = value_end(at, &open);
        if (open)
            return fst_fail(err, FST_E_CONFIG, "--grid %s: a quote or bracket is not closed", grid);
        fst_status st = add_value(k, grid, copy_trimmed(at, end), err);
        if (st || !*end)
            return st;
        at = end;
    }
}

static fst_status check_key(const fst_sweep *s, const struct grid_key *k, const char *grid, fst_error *err)
{
    if (!strcmp(k->key, "seed"))
        return fst_fail(err, FST_E_CONFIG, "%s: seeds are given by --seeds, for instance --seeds 1,5,9", grid);
    if (!strcmp(k->key, "output"))
        return fst_fail(err, FST_E_CONFIG, "%s: a sweep gives every run an output of its own", grid);
    for (const struct grid_key *other = s->key; other < k; other++)
        if (!strcmp(other->key, k->key))
            return fst_fail(err, FST_E_CONFIG, "%s is given twice; write all its values into one --grid", k->key);
    for (size_t i = 0; !k->of_points && i < s->spec->nsets; i++) {
        const char *set = s->spec->sets[i];
        size_t n = strlen(k->key);
        if (!strncmp(set, k->key, n) && set[n] == '=')
            return fst_fail(err, FST_E_CONFIG, "--set %s has no effect: --grid gives %s other values", set, k->key);
    }
    return FST_OK;
}

static fst_status read_grid(fst_sweep *s, const char *grid, fst_error *err)
{
    struct grid_key *k = &s->key[s->keys++];
    const char *equals = strchr(grid, '=');
    if (!equals || equals == grid)
        return fst_fail(err, FST_E_CONFIG, "--grid %s: expected KEY=VALUE,VALUE, as in stages.edge_kd.epochs=5,10",
                        grid);
    k->key = copy_trimmed(grid, equals);
    fst_status st = k->key ? check_key(s, k, grid, err) : fst_fail_memory(err, strlen(grid));
    return st ? st : cut_values(k, grid, equals + 1, err);
}

/* ---- points ---------------------------------------------------------------------------------------------- */

/* The key of points that has this name, a new one if need be; a place for the value of each point. */
static fst_status point_key(fst_sweep *s, const char *point, char *name, struct grid_key **out, fst_error *err)
{
    for (size_t i = 0; i < s->keys; i++)
        if (!strcmp(s->key[i].key, name)) {
            *out = &s->key[i];
            fst_free(name);
            return FST_OK;
        }
    struct grid_key *k = *out = &s->key[s->keys++];
    k->key = name;
    k->of_points = true;
    k->value = fst_calloc(s->spec->npoints, sizeof *k->value);
    k->count = k->value ? s->spec->npoints : 0;
    return k->value ? check_key(s, k, point, err) : fst_fail_memory(err, s->spec->npoints * sizeof *k->value);
}

static fst_status read_pair(fst_sweep *s, size_t p, const char *from, const char *to, fst_error *err)
{
    const char *point = s->spec->point[p], *equals = memchr(from, '=', (size_t)(to - from));
    struct grid_key *k = NULL;
    if (!equals || equals == from)
        return fst_fail(err, FST_E_CONFIG,
                        "--point %s: expected KEY=VALUE,KEY=VALUE; a value with commas is written in "
                        "quotes or brackets",
                        point);
    char *name = copy_trimmed(from, equals), *value = copy_trimmed(equals + 1, to);
    fst_status st = name && value ? FST_OK : fst_fail_memory(err, strlen(point));
    if (!st && !*value)
        st = fst_fail(err, FST_E_CONFIG, "--point %s: %s is empty; an empty text is written \"\"", point, name);
    if (!st) {
        st = point_key(s, point, name, &k, err);
        name = NULL;
    }
    if (!st && k->value[p])
        st = fst_fail(err, FST_E_CONFIG, "--point %s: %s is given twice", point, k->key);
    if (!st) {
        k->value[p] = value;
        value = NULL;
    }
    fst_free(name);
    fst_free(value);
    return st;
}

static fst_status read_point(fst_sweep *s, size_t p, fst_error *err)
{
    const char *point = s->spec->point[p];
    for (const char *at = point;; at++) {
        const char *value = strchr(at, '=');
        bool open;
        const char *end = value_end(value ? value + 1 : at, &open);
        if (open)
            return fst_fail(err, FST_E_CONFIG, "--point %s: a quote or bracket is not closed", point);
        fst_status st = read_pair(s, p, at, end, err);
        if (st || !*end)
            return st;
        at = end;
    }
}

/* Keys of all grids and points, at most. */
static size_t count_keys(const fst_sweep_spec *p)
{
    size_t n = p->ngrid + 1;
    for (size_t i = 0; i < p->npoints; i++)
        for (const char *c = p->point[i], *next; c; c = next ? next + 1 : NULL, n++)
            next = strchr(c, ',');
    return n;
}

/* ---- names ----------------------------------------------------------------------------------------------- */

/* The last n parts of "a.b.c"; the whole when there are not so many. */
static const char *tail(const char *key, int n)
{
    const char *at = key + strlen(key);
    while (at > key) {
        if (at[-1] == '.' && --n == 0)
            break;
        at--;
    }
    return at;
}

static fst_status shorten_keys(fst_sweep *s, fst_error *err)
{
    for (size_t i = 0; i < s->keys; i++) {
        const char *shown;
        int n = 0;
        bool taken;
        do {
            shown = tail(s->key[i].key, ++n);
            taken = !strcmp(shown, "seed");
            for (size_t k = 0; k < s->keys; k++)
                taken = taken || (k != i && !strcmp(shown, tail(s->key[k].key, n)));
        } while (taken && shown != s->key[i].key);
        if (!(s->key[i].shown = fst_strdup(shown)))
            return fst_fail_memory(err, strlen(shown));
    }
    return FST_OK;
}

void fst__sweep_safe(const char *text, char *out, size_t size, bool *changed)
{
    size_t n = 0;
    for (; *text; text++) {
        char c = *text;
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._+-", c);
        *changed = *changed || !good || n + 1 >= size;
        if (n + 1 >= size)
            break;
        if (good)
            out[n++] = c;
        else if (!strchr("[]{}\"' \t", c))
            out[n++] = c == ',' ? '+' : c == '/' || c == ':' ? '-' : '_';
    }
    out[n] = 0;
}

/* "learning_rate=0.1,rounds=5"; where that is not what was written, a digest of it makes the name one setting's. */
static fst_status name_run(fst_sweep *s, struct run *r, const size_t *of, fst_error *err)
{
    char name[FST__SWEEP_NAME] = "", part[MAX_VALUE], digest[FST_DIGEST_HEX];
    bool changed = false;
    size_t n = 0;
    fst_buf exact = {0};
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < s->keys; k++) {
        if (!s->key[k].value[of[k]])
            continue;
        fst__sweep_safe(s->key[k].shown, part, sizeof part, &changed);
        n += (size_t)snprintf(name + n, sizeof name - n, "%s%s=", n ? "," : "", part);
        n = n > MAX_SETTING ? MAX_SETTING : n;
        fst__sweep_safe(s->key[k].value[of[k]], part, sizeof part, &changed);
        n += (size_t)snprintf(name + n, sizeof name - n, "%s", part);
        changed = changed || n > MAX_SETTING;
        n = n > MAX_SETTING ? MAX_SETTING : n;
        name[n] = 0;
        st = fst_buf_printf(&exact, err, "%s=%s\n", s->key[k].key, s->key[k].value[of[k]]);
    }
    if (!st && changed) {
        fst__digest_text(exact.data, exact.len, digest);
        n += (size_t)snprintf(name + n, sizeof name - n, "~%.*s", HASH, digest);
    }
    snprintf(name + n, sizeof name - n, "%sseed=%lld", n ? "," : "", (long long)r->seed);
    fst_buf_release(&exact);
    char log[FST__SWEEP_NAME + 8];
    snprintf(log, sizeof log, "%s.log", name);
    r->name = fst_strdup(name);
    r->folder = fst_path_join(s->runs_folder, name);
    r->log = fst_path_join(s->logs_folder, log);
    return st ? st : r->name && r->folder && r->log ? FST_OK : fst_fail_memory(err, sizeof name);
}

/* ---- seeds ----------------------------------------------------------------------------------------------- */

static bool whole(const char **at, int64_t *out)
{
    char *end;
    errno = 0;
    if (**at < '0' || **at > '9')
        return false;
    long long n = strtoll(*at, &end, 10);
    *at = end;
    *out = n;
    return !errno;
}

static fst_status read_seeds(fst_sweep *s, int64_t own, fst_error *err)
{
    static const char *const form = "expected how many (3: the task's seed and the two after it), or which (1,5,9)";
    const char *text = s->spec->seeds ? s->spec->seeds : "1", *at = text;
    int64_t n = 0;
    s->seed = fst_calloc(FST_SWEEP_MAX_RUNS, sizeof *s->seed);
    if (!s->seed)
        return fst_fail_memory(err, FST_SWEEP_MAX_RUNS * sizeof *s->seed);
    if (!whole(&at, &n) || (*at && *at != ','))
        return fst_fail(err, FST_E_CONFIG, "--seeds %s: %s", text, form);
    if (!*at) {
        if (n < 1 || n > FST_SWEEP_MAX_RUNS || own > INT64_MAX - n)
            return fst_fail(err, FST_E_CONFIG, "--seeds %s: that many seeds is 1 to %d", text, FST_SWEEP_MAX_RUNS);
        for (s->seeds = 0; s->seeds < (size_t)n; s->seeds++)
            s->seed[s->seeds] = own + (int64_t)s->seeds;
        return FST_OK;
    }
    for (at = text;; at++) {
        if (!whole(&at, &n) || (*at && *at != ','))
            return fst_fail(err, FST_E_CONFIG, "--seeds %s: %s", text, form);
        for (size_t i = 0; i < s->seeds; i++)
            if (s->seed[i] == n)
                return fst_fail(err, FST_E_CONFIG, "--seeds %s: %lld stands there twice", text, (long long)n);
        if (s->seeds == FST_SWEEP_MAX_RUNS)
            return fst_fail(err, FST_E_CONFIG, "--seeds: more than %d", FST_SWEEP_MAX_RUNS);
        s->seed[s->seeds++] = n;
        if (!*at)
            return FST_OK;
    }
}

/* ---- settings and runs ----------------------------------------------------------------------------------- */

/* The value of each key in setting i: the last key changes fastest, points slowest. */
static void values_of(const fst_sweep *s, size_t i, size_t *of)
{
    for (size_t k = s->keys; k-- > 0;)
        if (!s->key[k].of_points) {
            of[k] = i % s->key[k].count;
            i /= s->key[k].count;
        }
    for (size_t k = 0; k < s->keys; k++)
        if (s->key[k].of_points)
            of[k] = i;
}

static fst_status name_setting(fst_sweep *s, size_t i, const size_t *of, fst_error *err)
{
    fst_buf text = {0};
    fst_status st = fst_buf_append(&text, "", 0, err);
    for (size_t k = 0; !st && k < s->keys; k++)
        if (s->key[k].value[of[k]])
            st = fst_buf_printf(&text, err, "%s%s=%s", text.len ? "," : "", s->key[k].shown, s->key[k].value[of[k]]);
    if (!st && !(s->setting[i] = fst_strdup(text.data ? text.data : "")))
        st = fst_fail_memory(err, text.len);
    for (size_t k = 0; !st && k < i; k++)
        if (!strcmp(s->setting[k], s->setting[i]))
            st = fst_fail(err, FST_E_CONFIG, "%s stands there twice", s->setting[i]);
    fst_buf_release(&text);
    return st;
}

static fst_status make_run(fst_sweep *s, size_t i, const size_t *of, fst_error *err)
{
    struct run *r = &s->run[i];
    const size_t base = s->spec->nsets;
    r->setting = i / s->seeds;
    r->seed = s->seed[i % s->seeds];
    r->validation = r->test = r->stopped_value = NAN;
    r->sets = fst_calloc(base + s->keys + 1, sizeof *r->sets);
    r->seed_set = fst_alloc(32);
    if (!r->sets || !r->seed_set)
        return fst_fail_memory(err, base * sizeof *r->sets);
    for (; r->nsets < base; r->nsets++)
        r->sets[r->nsets] = s->spec->sets[r->nsets];
    for (size_t k = 0; k < s->keys; k++) {
        fst_buf set = {0};
        if (!s->key[k].value[of[k]])
            continue;
        fst_status st = fst_buf_printf(&set, err, "%s=%s", s->key[k].key, s->key[k].value[of[k]]);
        if (st)
            return st;
        r->sets[r->nsets++] = set.data; /* the run's own */
    }
    snprintf(r->seed_set, 32, "seed=%lld", (long long)r->seed);
    r->sets[r->nsets++] = r->seed_set;
    return name_run(s, r, of, err);
}

static fst_status count_runs(fst_sweep *s, fst_error *err)
{
    double runs = (double)s->seeds * (double)(s->spec->npoints ? s->spec->npoints : 1);
    for (size_t k = 0; k < s->keys; k++)
        runs *= s->key[k].of_points ? 1 : (double)s->key[k].count;
    if (runs > FST_SWEEP_MAX_RUNS)
        return fst_fail(err, FST_E_CONFIG, "%.0f combinations with %zu seeds are %.0f runs; a sweep has %d at most",
                        runs / (double)s->seeds, s->seeds, runs, FST_SWEEP_MAX_RUNS);
    s->settings_count = (size_t)runs / s->seeds;
    s->setting = fst_calloc(s->settings_count, sizeof *s->setting);
    s->run = fst_calloc((size_t)runs, sizeof *s->run);
    s->runs = s->run ? (size_t)runs : 0;
    return s->setting && s->run ? FST_OK : fst_fail_memory(err, (size_t)runs * sizeof *s->run);
}

fst_status fst__sweep_ask(fst_sweep *s, int64_t seed, fst_error *err)
{
    fst_status st = FST_OK;
    if (s->spec->npoints > FST_SWEEP_MAX_RUNS)
        return fst_fail(err, FST_E_CONFIG, "%zu points; a sweep has %d runs at most", s->spec->npoints,
                        FST_SWEEP_MAX_RUNS);
    size_t room = count_keys(s->spec), *of = fst_calloc(room, sizeof *of);
    s->key = fst_calloc(room, sizeof *s->key);
    if (!s->key || !of)
        st = fst_fail_memory(err, room * sizeof *s->key);
    for (size_t i = 0; !st && i < s->spec->npoints; i++)
        st = read_point(s, i, err);
    for (size_t i = 0; !st && i < s->spec->ngrid; i++)
        st = read_grid(s, s->spec->grid[i], err);
    if (!st)
        st = read_seeds(s, seed, err);
    if (!st && !s->keys && s->seeds < 2)
        st = fst_fail(err, FST_E_CONFIG, "nothing varies: give --grid KEY=VALUE,VALUE, or --seeds 3");
    if (!st)
        st = count_runs(s, err);
    if (!st)
        st = shorten_keys(s, err);
    for (size_t i = 0; !st && i < s->runs; i++) {
        values_of(s, i / s->seeds, of);
        if (i % s->seeds == 0)
            st = name_setting(s, i / s->seeds, of, err);
        if (!st)
            st = make_run(s, i, of, err);
    }
    fst_free(of);
    return st;
}
