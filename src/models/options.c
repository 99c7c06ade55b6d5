/* A network's options as the text that model files keep. */
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
}

/* A number behind `key=`; *text moves behind it. */
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
        else if (!strides(&text, c->stage_strides))
            return false;
        if (*text && *text++ != ' ')
            return false;
    }
    return true;
}
