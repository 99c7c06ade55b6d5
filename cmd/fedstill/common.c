/* Helpers of the commands. See common.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

/* ---- results ------------------------------------------------------------------------------ */

fst_status add_field(fst_buf *out, fst_error *err, const char *name, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = n < 0 ? NULL : fst_alloc((size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    if (text)
        fst_text_clean(text, false);
    fst_status s = text ? fst_buf_printf(out, err, "%-14s %s\n", name, text) : fst_fail_memory(err, (size_t)n + 1);
    fst_free(text);
    return s;
}

fst_status bar_cell(fst_table *t, double share, size_t width, bool ascii, fst_error *err)
{
    fst_buf bar = {0};
    fst_status s = fst_report_bar(share, width, ascii, &bar, err);
    if (!s)
        s = fst_table_cell(t, err, "%s", bar.data ? bar.data : "");
    fst_buf_release(&bar);
    return s;
}

fst_status write_table(fst_table *t, bool ascii, fst_buf *out, fst_error *err)
{
    fst_table_fit(t, output_width());
    return fst_table_write(t, ascii, out, err);
}

fst_status add_json(fst_buf *out, json_t *j, bool indent, fst_error *err)
{
    size_t form = JSON_REAL_PRECISION(10) | (indent ? JSON_INDENT(2) : JSON_COMPACT);
    char *text = j ? json_dumps(j, form) : NULL;
    fst_status s = text ? fst_text_json(out, text, err) : fst_fail_memory(err, 1);
    free(text);
    json_decref(j);
    return s ? s : fst_buf_append(out, "\n", 1, err);
}

json_t *shape_json(const fst_shape *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->rank; i++)
        json_array_append_new(list, json_integer(s->dim[i]));
    return list;
}

json_t *floats_json(const float *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, fst_json_number((double)v[i]));
    return list;
}

json_t *texts_json(char *const *texts, int n)
{
    if (!texts)
        return json_null();
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, fst_json_text(texts[i]));
    return list;
}

fst_status write_csv(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    char file[128];
    snprintf(file, sizeof file, "%.100s.csv", name);
    char *path = fst_path_join(ctx, file);
    fst_status s = path ? fst_file_write(path, text->data, text->len, err) : fst_fail_memory(err, sizeof file);
    fst_free(path);
    return s;
}

fst_status finish_output(fst_buf *out, fst_status s)
{
    if (!s && out->len) { /* main looks whether stdout took it */
        fst_text_clean(out->data, true);
        fputs(out->data, stdout);
    }
    fst_buf_release(out);
    return s;
}

/* ---- models and data ------------------------------------------------------------------------ */

static fst_status check_normalisation(const fst_model *m, const char *path, fst_error *err)
{
    char text[256];
    const fst_shape *in = &m->config.input;
    if (m->channels > 1 && (in->rank < 1 || in->dim[0] != m->channels))
        return fst_fail(err, FST_E_FORMAT, "%s: normalises %d channels, but its input is %s", path, m->channels,
                        fst_shape_text(in, text, sizeof text));
    for (int i = 0; i < m->channels; i++)
        if (!isfinite(m->mean[i]) || !isfinite(m->std[i]) || !(m->std[i] > 0))
            return fst_fail(err, FST_E_FORMAT, "%s: normalises channel %d by mean %g, std %g; std must be above 0",
                            path, i, (double)m->mean[i], (double)m->std[i]);
    return FST_OK;
}

fst_status load_model(fst_model *m, const char *path, fst_error *err)
{
    fst_model n = {0};
    fst_status s = fst_model_load(&n, path, err);
    if (s == FST_E_CONFIG)
        return fst_fail_in(err, FST_E_FORMAT, "%s", path);
    if (!s)
        s = check_normalisation(&n, path, err);
    if (s)
        fst_model_release(&n);
    else
        *m = n;
    return s;
}

const char *class_name(const fst_model *m, int class)
{
    return m->class_names ? m->class_names[class] : NULL;
}

const char *const data_layouts[] = {"auto", "nchw", "nhwc", NULL};

fst_layout layout_option(const struct options *o)
{
    int i = 0;
    while (data_layouts[i] && strcmp(data_layouts[i], option_string(o, "layout")))
        i++;
    return (fst_layout)i;
}
