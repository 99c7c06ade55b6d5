/* A network's options as the text that model files keep, and one by one as people write them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zoo.h"

static void append(char *out, const char *fmt, double a)
{
    size_t at = strlen(out);
    if (at && out[at - 1] != ',')
        at += (size_t)snprintf(out + at, FST_OPTIONS_TEXT - at, " ");
    snprintf(out + at, FST_OPTIONS_TEXT - at, fmt, a);
}

void fst__options_text(const fst_model_config *c, char out[FST_OPTIONS_TEXT])
{
    out[0] = 0;
    if (c->stem == FST_STEM_CIFAR)
        append(out, "stem=cifar", 0);
    if (c->hidden)
        append(out, "hidden=%.0f", c->hidden);
    if (c->width > 0)
        append(out, "width=%.17g", c->width);
    if (c->stem_stride)
        append(out, "stem_stride=%.0f", c->stem_stride);
    for (int i = 0; c->stage_strides[0] && i < FST_STAGES; i++) {
        append(out, i ? "%.0f" : "stage_strides=%.0f", c->stage_strides[i]);
        if (i < FST_STAGES - 1)
            strncat(out, ",", FST_OPTIONS_TEXT - strlen(out) - 1);
    }
    for (int i = 0; i < FST_MODEL_WIDTHS && c->widths[i]; i++) {
        if (i)
            strncat(out, ",", FST_OPTIONS_TEXT - strlen(out) - 1);
        append(out, i ? "%.0f" : "widths=%.0f", c->widths[i]);
    }
}

/* A number after `key=`; *text moves after it. */
static bool number(const char **text, const char *key, double least, double most, double *out)
{
    size_t n = strlen(key);
    char *end;
    if (strncmp(*text, key, n))
        return false;
    *out = strtod(*text + n, &end);
    bool ok = end != *text + n && *out >= least && *out <= most;
    if (ok)
        *text = end;
    return ok;
}

static bool strides(const char **text, int *out)
{
    const char *key = "stage_strides=";
    double v;
    for (int i = 0; i < FST_STAGES; i++, key = ",") {
        if (!number(text, key, 1, 16, &v))
            return false;
        out[i] = (int)v;
    }
    return true;
}

static bool widths(const char **text, int out[FST_MODEL_WIDTHS])
{
    int list[FST_MODEL_WIDTHS] = {0}, n = 0;
    double v;
    for (const char *key = "widths="; n < FST_MODEL_WIDTHS && number(text, key, 1, 1 << 20, &v); key = ",") {
        if (v != (int)v)
            return false;
        list[n++] = (int)v;
    }
    memcpy(out, list, sizeof list);
    return n > 0;
}

bool fst__options_parse(const char *text, fst_model_config *c)
{
    double v;
    while (*text) {
        if (!strncmp(text, "stem=cifar", 10))
            c->stem = FST_STEM_CIFAR, text += 10;
        else if (number(&text, "hidden=", 1, 1 << 20, &v))
            c->hidden = (int)v;
        else if (number(&text, "width=", 0.01, 16, &v))
            c->width = v;
        else if (number(&text, "stem_stride=", 1, 16, &v))
            c->stem_stride = (int)v;
        else if (!widths(&text, c->widths) && !strides(&text, c->stage_strides))
            return false;
        if (*text && *text++ != ' ')
            return false;
    }
    return true;
}

/* ---- one by one --------------------------------------------------------------------------------- */

static const struct {
    const char *key, *networks, *values; /* networks: in blanks; NULL: all */
} known[] = {
    {"classes", NULL, "1 to 65536"},
    {"input", NULL, "a shape such as 3,32,32"},
    {"dropout1", " pfl_cifar mobilenet_v2 ", "0 to below 1"},
    {"dropout2", " pfl_cifar ", "0 to below 1"},
    {"stem", " resnet50 ", "imagenet or cifar"},
    {"hidden", " real_resnet20_link11_h complex_resnet50_link11_with_attention ", "1 to 1048576"},
    {"width", " mobilenet_v2 real_resnet20_link11_h complex_resnet50_link11_with_attention ", "0.01 to 16"},
    {"stem_stride", " mobilenet_v2 ", "1 to 16"},
    {"stage_strides", " mobilenet_v2 ", "seven numbers 1 to 16, by comma"},
    {"widths", NULL,
     "the channels that are left of each group of layers, by comma, as `fedstill model prune` leaves them"},
};
enum { KNOWN = sizeof known / sizeof *known };

static bool has(size_t k, const char *network)
{
    char word[80];
    snprintf(word, sizeof word, " %s ", network);
    return !known[k].networks || strstr(known[k].networks, word);
}

static fst_status no_such_option(const char *network, const char *setting, size_t key, fst_error *err)
{
    char list[256] = "";
    for (size_t k = 0; k < KNOWN; k++)
        if (has(k, network)) {
            size_t at = strlen(list);
            snprintf(list + at, sizeof list - at, at ? ", %s" : "%s", known[k].key);
        }
    return fst_fail(err, FST_E_CONFIG, "%.64s has no option \"%.*s\"; it has %s", network, (int)(key < 64 ? key : 64),
                    setting, list);
}

/* A whole number of the range, and nothing after it. */
static bool whole(const char *text, long most, int *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 1 || v > most)
        return false;
    *out = (int)v;
    return true;
}

static bool probability(const char *text, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0 && v < 1))
        return false;
    *out = v > 0 ? v : -1; /* 0 would stand for the default */
    return true;
}

static bool set_value(fst_model_config *c, const char *key, const char *setting, const char *value)
{
    if (!strcmp(key, "classes"))
        return whole(value, 65536, &c->classes);
    if (!strcmp(key, "input"))
        return fst__shape_parse(value, &c->input);
    if (!strcmp(key, "dropout1"))
        return probability(value, &c->dropout1);
    if (!strcmp(key, "dropout2"))
        return probability(value, &c->dropout2);
    if (!strcmp(setting, "stem=imagenet")) {
        c->stem = FST_STEM_IMAGENET;
        return true;
    }
    if (!strcmp(key, "hidden"))
        return whole(value, 1 << 20, &c->hidden);
    return *value && !strchr(setting, ' ') && fst__options_parse(setting, c);
}

fst_status fst_model_config_set(fst_model_config *c, const char *name, const char *setting, fst_error *err)
{
    size_t n = strcspn(setting, "="), k = 0;
    fst_model_config copy = *c;
    while (k < KNOWN && (strlen(known[k].key) != n || strncmp(known[k].key, setting, n)))
        k++;
    if (k == KNOWN || !has(k, name))
        return no_such_option(name, setting, n, err);
    if (setting[n] != '=' || !set_value(&copy, known[k].key, setting, setting + n + 1))
        return fst_fail(err, FST_E_CONFIG, "\"%.100s\": write %s=%s", setting, known[k].key, known[k].values);
    *c = copy;
    return FST_OK;
}
