/*
 * Parameters of the generators: one table gives names, limits and defaults, and reading and writing follow from it.
 * Files are JSON objects of groups; nothing in them is taken that the table does not know.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "synth_private.h"

enum type { NUMBER, INTEGER, RANGE, FLAG, LIST, CHOICE };
enum { FOR_LINK11 = 1, FOR_MODULATION = 2, FOR_BOTH = 3, MAX_FILE = 1 << 20 };

struct field {
    const char *group, *key;
    enum type type;
    int kinds;
    size_t at;
    double low, high; /* limits of every number in it */
    double value[2];  /* default; of a list: of its first two entries */
    int count;        /* entries of a list's default */
};

static const char *const amplifiers[] = {"rapp", "saleh", "mixed", NULL};

#define AT(g, k) #g, #k
#define OF(g, k) offsetof(fst_synth_params, g.k)
#define F(g, k, type, kinds, low, high, ...)                         \
    {                                                                \
        AT(g, k), type, kinds, OF(g, k), low, high, {__VA_ARGS__}, 0 \
    }

static const struct field fields[] = {
    F(emitters, iq_gain_db, RANGE, FOR_LINK11, 0, 3, 0.1, 1),
    F(emitters, iq_phase_deg, RANGE, FOR_LINK11, 0, 20, 0.5, 4),
    F(emitters, dc_dbc, RANGE, FOR_LINK11, -120, -10, -50, -32),
    F(emitters, rapp_p, RANGE, FOR_LINK11, 0.5, 10, 1, 3),
    F(emitters, backoff_db, RANGE, FOR_LINK11, 0, 40, 3, 8),
    F(emitters, saleh_spread, NUMBER, FOR_LINK11, 0, 0.5, 0.1),
    F(emitters, bias_ppm, RANGE, FOR_LINK11, -10, 10, -0.1, 0.1),
    F(emitters, phase_noise_dbc, RANGE, FOR_LINK11, -200, -60, -100, -80),
    F(emitters, amplifier, CHOICE, FOR_LINK11, 0, 0, FST_PA_MIXED),
    F(emitters, within, NUMBER, FOR_LINK11, 0, 1.0 / 3, 0.27),
    F(burst, window, INTEGER, FOR_BOTH, 64, FST_SYNTH_MAX_WINDOW, 1024),
    F(burst, fast, FLAG, FOR_LINK11, 0, 1, 1),
    F(burst, preamble, FLAG, FOR_LINK11, 0, 1, 1),
    F(burst, doppler_hz, RANGE, FOR_LINK11, -1000, 1000, -20, 20),
    F(burst, carrier_mhz, NUMBER, FOR_LINK11, 1, 10000, 10),
    F(burst, frequency, RANGE, FOR_MODULATION, -0.5, 0.5, -0.01, 0.01),
    F(burst, carrier_phase, FLAG, FOR_BOTH, 0, 1, 1),
    F(burst, timing, FLAG, FOR_BOTH, 0, 1, 1),
    F(burst, gain_db, RANGE, FOR_BOTH, -100, 100, -20, 20),
    F(burst, rx_iq_gain_db, NUMBER, FOR_BOTH, 0, 3, 0.02),
    F(burst, rx_iq_phase_deg, NUMBER, FOR_BOTH, 0, 20, 0.1),
    F(burst, normalise, FLAG, FOR_BOTH, 0, 1, 1),
    F(channel, multipath, FLAG, FOR_BOTH, 0, 1, 1),
    {AT(channel, delays), LIST, FOR_BOTH, OF(channel, delays), 0, FST__MAX_DELAY, {0, 1.8}, 3},
    {AT(channel, powers_db), LIST, FOR_BOTH, OF(channel, powers_db), -100, 0, {0, -2}, 3},
    F(channel, line_of_sight_db, NUMBER, FOR_BOTH, -100, 100, 20),
    F(modulation, rolloff, NUMBER, FOR_MODULATION, 0.05, 1, 0.35),
    F(modulation, gfsk_bt, NUMBER, FOR_MODULATION, 0.1, 5, 0.35),
    F(modulation, index, NUMBER, FOR_MODULATION, 0.1, 4, 0.5),
    F(modulation, bandwidth, NUMBER, FOR_MODULATION, 0.005, 0.25, 0.05),
    F(modulation, am_depth, NUMBER, FOR_MODULATION, 0.01, 1, 0.3),
    F(modulation, fm_deviation, NUMBER, FOR_MODULATION, 0.001, 0.25, 0.05),
};
enum { FIELDS = sizeof fields / sizeof *fields };

static bool of_kind(const struct field *f, fst_synth_kind kind)
{
    return f->kinds & (kind == FST_SYNTH_LINK11 ? FOR_LINK11 : FOR_MODULATION);
}

static void set_default(const struct field *f, void *to)
{
    if (f->type == NUMBER)
        *(double *)to = f->value[0];
    else if (f->type == RANGE)
        *(fst_range *)to = (fst_range){f->value[0], f->value[1]};
    else if (f->type == FLAG)
        *(bool *)to = f->value[0] != 0;
    else if (f->type == LIST)
        *(fst_synth_list *)to = (fst_synth_list){f->count, {f->value[0], f->value[1]}};
    else
        *(int *)to = (int)f->value[0];
}

void fst_synth_params_default(fst_synth_params *p, fst_synth_kind kind)
{
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < FIELDS; i++)
        set_default(&fields[i], (char *)p + fields[i].at);
    p->channel.delays.value[2] = 3.4;
    p->channel.powers_db.value[2] = -10;
    if (kind == FST_SYNTH_MODULATION)
        p->burst.preamble = false;
}

/* ---- reading ------------------------------------------------------------------------------------ */

struct place {
    const char *file;
    const struct field *field;
};

static fst_status refuse(const struct place *at, const json_t *found, fst_error *err)
{
    char what[FST_JSON_FOUND];
    const struct field *f = at->field;
    char text[160] = "true or false";
    if (f->type == NUMBER || f->type == INTEGER)
        snprintf(text, sizeof text, "a %snumber from %g to %g", f->type == INTEGER ? "whole " : "", f->low, f->high);
    else if (f->type == RANGE)
        snprintf(text, sizeof text, "[min, max], both from %g to %g and min no larger than max", f->low, f->high);
    else if (f->type == LIST)
        snprintf(text, sizeof text, "a list of 1 to %d numbers from %g to %g", FST_SYNTH_TAPS, f->low, f->high);
    else if (f->type == CHOICE)
        snprintf(text, sizeof text, "one of \"rapp\", \"saleh\", \"mixed\"");
    return fst_fail(err, FST_E_CONFIG, "%s: %s.%s must be %s, not %s", at->file, f->group, f->key, text,
                    fst_json_found(found, what));
}

static bool number(const json_t *j, const struct field *f, double *out)
{
    double v = json_number_value(j);
    if (!json_is_number(j) || !(v >= f->low && v <= f->high))
        return false;
    *out = v;
    return true;
}

static bool take_numbers(const struct field *f, const json_t *j, size_t least, size_t most, double *out)
{
    size_t n = json_array_size(j);
    if (!json_is_array(j) || n < least || n > most)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!number(json_array_get(j, i), f, &out[i]))
            return false;
    return true;
}

static bool take(const struct field *f, const json_t *j, void *to)
{
    double v[FST_SYNTH_TAPS] = {0};
    int64_t whole;
    switch (f->type) {
    case NUMBER:
        return number(j, f, to);
    case INTEGER:
        if (!fst_json_is_whole(j, &whole) || !number(j, f, v))
            return false;
        *(int *)to = (int)whole;
        return true;
    case RANGE:
        if (!take_numbers(f, j, 2, 2, v) || v[0] > v[1])
            return false;
        *(fst_range *)to = (fst_range){v[0], v[1]};
        return true;
    case FLAG:
        *(bool *)to = json_is_true(j);
        return json_is_boolean(j);
    case LIST:
        if (!take_numbers(f, j, 1, FST_SYNTH_TAPS, v))
            return false;
        ((fst_synth_list *)to)->count = (int)json_array_size(j);
        memcpy(((fst_synth_list *)to)->value, v, sizeof v);
        return true;
    case CHOICE:
        for (int i = 0; json_is_string(j) && amplifiers[i]; i++)
            if (!strcmp(json_string_value(j), amplifiers[i])) {
                *(int *)to = i;
                return true;
            }
    }
    return false;
}

static fst_status unknown(const char *file, const char *group, const char *key, fst_synth_kind kind, fst_error *err)
{
    fst_buf known = {0};
    fst_status s = FST_OK;
    const char *last = "";
    for (size_t i = 0; !s && i < FIELDS; i++)
        if (of_kind(&fields[i], kind)) {
            if (key && !strcmp(fields[i].group, group))
                s = fst_buf_printf(&known, err, " %s", fields[i].key);
            else if (!key && strcmp(fields[i].group, last))
                s = fst_buf_printf(&known, err, " %s", fields[i].group);
            last = fields[i].group;
        }
    if (!s)
        s = fst_fail(err, FST_E_CONFIG, "%s: %s has no %s \"%.40s%s%.40s\"; known:%s", file, fst_synth_kind_name(kind),
                     key ? "parameter" : "group of parameters", group, key ? "." : "", key ? key : "", known.data);
    fst_buf_release(&known);
    return s;
}

static bool known_group(const char *group, fst_synth_kind kind)
{
    for (size_t i = 0; i < FIELDS; i++)
        if (of_kind(&fields[i], kind) && !strcmp(fields[i].group, group))
            return true;
    return false;
}

static fst_status take_group(fst_synth_params *p, fst_synth_kind kind, const char *file, const char *group, json_t *all,
                             fst_error *err)
{
    const char *key;
    json_t *value;
    if (!known_group(group, kind))
        return unknown(file, group, NULL, kind, err);
    if (!json_is_object(all))
        return fst_fail(err, FST_E_CONFIG, "%s: %s must be an object of parameters", file, group);
    json_object_foreach(all, key, value)
    {
        const struct field *f = NULL;
        for (size_t i = 0; i < FIELDS && !f; i++)
            if (of_kind(&fields[i], kind) && !strcmp(fields[i].group, group) && !strcmp(fields[i].key, key))
                f = &fields[i];
        if (!f)
            return unknown(file, group, key, kind, err);
        if (!take(f, value, (char *)p + f->at))
            return refuse(&(struct place){file, f}, value, err);
    }
    return FST_OK;
}

fst_status fst_synth_params_parse(fst_synth_params *p, fst_synth_kind kind, const char *name, const char *text,
                                  size_t len, fst_error *err)
{
    json_error_t where;
    fst_synth_params q = *p;
    const char *group;
    json_t *value;
    fst_status s = FST_OK;
    if (len > MAX_FILE)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu bytes, parameters have at most %d", name, len, MAX_FILE);
    text = fst_text_without_mark(text, &len);
    s = fst_json_fits(name, text, len, len, err);
    if (s)
        return s;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return fst_fail(err, FST_E_CONFIG, "%s:%d:%d: not JSON: %s", name, where.line, where.column, where.text);
    if (!json_is_object(root))
        s = fst_fail(err, FST_E_CONFIG, "%s: an object of groups of parameters is needed", name);
    else
        json_object_foreach(root, group, value) if ((s = take_group(&q, kind, name, group, value, err))) break;
    json_decref(root);
    if (!s && q.channel.delays.count != q.channel.powers_db.count)
        s = fst_fail(err, FST_E_CONFIG,
                     "%s: channel.delays has %d entries and channel.powers_db %d; as many are needed", name,
                     q.channel.delays.count, q.channel.powers_db.count);
    if (!s)
        *p = q;
    return s;
}

fst_status fst_synth_params_read(fst_synth_params *p, fst_synth_kind kind, const char *path, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = fst_file_read(path, MAX_FILE, &text, err);
    if (!s)
        s = fst_synth_params_parse(p, kind, path, text.data, text.len, err);
    fst_buf_release(&text);
    return s;
}

/* ---- writing -------------------------------------------------------------------------------------- */

/* The shortest text that reads back as v. */
static fst_status put_number(fst_buf *out, double v, fst_error *err)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return fst_buf_printf(out, err, "%s", text);
}

static fst_status put_numbers(fst_buf *out, const double *v, int n, fst_error *err)
{
    fst_status s = FST_OK;
    for (int i = 0; !s && i < n; i++) {
        s = fst_buf_append(out, i ? "," : "[", 1, err);
        if (!s)
            s = put_number(out, v[i], err);
    }
    return s ? s : fst_buf_append(out, "]", 1, err);
}

static fst_status put_value(fst_buf *out, const struct field *f, const void *from, fst_error *err)
{
    const fst_synth_list *list = from;
    switch (f->type) {
    case NUMBER:
        return put_number(out, *(const double *)from, err);
    case INTEGER:
        return fst_buf_printf(out, err, "%d", *(const int *)from);
    case RANGE:
        return put_numbers(out, (const double[]){((const fst_range *)from)->min, ((const fst_range *)from)->max}, 2,
                           err);
    case FLAG:
        return fst_buf_printf(out, err, "%s", *(const bool *)from ? "true" : "false");
    case LIST:
        return put_numbers(out, list->value, list->count, err);
    case CHOICE:
        break;
    }
    return fst_buf_printf(out, err, "\"%s\"", amplifiers[*(const int *)from]);
}

fst_status fst_synth_params_json(const fst_synth_params *p, fst_synth_kind kind, fst_buf *out, fst_error *err)
{
    const char *last = NULL;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < FIELDS; i++) {
        const struct field *f = &fields[i];
        if (!of_kind(f, kind))
            continue;
        bool same = last && !strcmp(last, f->group);
        if (same)
            s = fst_buf_printf(out, err, ",\"%s\":", f->key);
        else
            s = fst_buf_printf(out, err, "%s\"%s\":{\"%s\":", last ? "}," : "{", f->group, f->key);
        if (!s)
            s = put_value(out, f, (const char *)p + f->at, err);
        last = f->group;
    }
    return s ? s : fst_buf_append(out, "}}", 2, err);
}
