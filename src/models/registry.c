/* Networks by name. */
#include <string.h>

#include "zoo.h"

static const struct fst_zoo_entry *const families[] = {fst__zoo_small, fst__zoo_resnet, fst__zoo_mobilenet,
                                                       fst__zoo_complex};

static const struct fst_zoo_entry *entry_at(size_t i)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct fst_zoo_entry *e = families[f]; e->build; e++)
            if (i-- == 0)
                return e;
    return NULL;
}

size_t fst_models(void)
{
    size_t n = 0;
    while (entry_at(n))
        n++;
    return n;
}

fst_model_info fst_model_at(size_t i)
{
    const struct fst_zoo_entry *e = entry_at(i);
    return e ? e->info : (fst_model_info){0};
}

static fst_status unknown(const char *name, fst_error *err)
{
    char list[1024] = "";
    for (size_t i = 0; entry_at(i); i++) {
        if (i)
            strncat(list, ", ", sizeof list - strlen(list) - 1);
        strncat(list, entry_at(i)->info.name, sizeof list - strlen(list) - 1);
    }
    return fst_fail(err, FST_E_CONFIG, "no model \"%s\"; known are: %s", name, list);
}

/* The network with the widths of its configuration in place of its own. */
static fst_status narrow(fst_graph **g, const int *widths, fst_error *err)
{
    fst_channels *c = NULL;
    fst_graph *to = NULL;
    size_t count = 0;
    while (count < FST_MODEL_WIDTHS && widths[count])
        count++;
    if (!count)
        return FST_OK;
    fst_status s = fst_channels_new(&c, *g, err);
    if (!s)
        s = fst_graph_narrow(&to, c, widths, count, err);
    fst_channels_free(c);
    if (!s) {
        fst_graph_free(*g);
        *g = to;
    }
    return s;
}

fst_status fst_model_graph(fst_graph **out, const char *name, const fst_model_config *config, fst_error *err)
{
    const struct fst_zoo_entry *e = NULL;
    for (size_t i = 0; entry_at(i); i++)
        if (!strcmp(entry_at(i)->info.name, name))
            e = entry_at(i);
    if (!e)
        return unknown(name, err);
    fst_model_config c = config ? *config : (fst_model_config){0};
    if (!c.classes)
        c.classes = e->info.classes;
    if (!c.input.rank)
        c.input = e->info.input;
    c.dropout1 = c.dropout1 < 0 ? 0 : c.dropout1 > 0 ? c.dropout1 : e->info.dropout1;
    c.dropout2 = c.dropout2 < 0 ? 0 : c.dropout2 > 0 ? c.dropout2 : e->info.dropout2;
    if (c.classes < 1 || c.classes > 65536)
        return fst_fail(err, FST_E_CONFIG, "model %s: classes must be 1 to 65536, not %d", name, c.classes);
    fst_graph *g = NULL;
    fst_status s = fst_graph_new(&g, err);
    if (s)
        return s;
    s = fst_graph_finish(g, e->build(g, fst_graph_input(g, &c.input), &c), err);
    if (!s)
        s = narrow(&g, c.widths, err);
    if (s) {
        char text[64];
        fst_graph_free(g);
        return fst_fail_in(err, s, "model %s with input %s", name, fst_shape_text(&c.input, text, sizeof text));
    }
    *out = g;
    return FST_OK;
}
