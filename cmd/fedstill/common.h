/* What several commands need when they load models and data and write results: nothing here decides what a
 * command does. Results are gathered in a fst_buf and written at the end, so that stdout gets a whole one or none. */
#ifndef FEDSTILL_COMMON_H
#define FEDSTILL_COMMON_H

#include <jansson.h>

#include "cmd.h"
#include "fedstill/data.h"
#include "fedstill/infer.h"
#include "fedstill/models.h"
#include "fedstill/report.h"

/* ---- results ------------------------------------------------------------------------------ */

/* "name           text\n"; the text goes through fst_text_clean. */
FST_MUST fst_status add_field(fst_buf *out, fst_error *err, const char *name, const char *fmt, ...) FST_PRINTF(4, 5);
/* A table cell with a bar of at most `width` characters. */
FST_MUST fst_status bar_cell(fst_table *t, double share, size_t width, bool ascii, fst_error *err);
/* fst_table_write for as many columns as stdout has. */
FST_MUST fst_status write_table(fst_table *t, bool ascii, fst_buf *out, fst_error *err);
/* JSON on one line or indented. Takes j over; NULL is taken for lack of memory. */
FST_MUST fst_status add_json(fst_buf *out, json_t *j, bool indent, fst_error *err);
json_t *shape_json(const fst_shape *s);
json_t *floats_json(const float *v, int n);
json_t *texts_json(char *const *texts, int n); /* null for NULL */
/* A fst_csv_fn: writes name.csv into the folder ctx, a path. */
FST_MUST fst_status write_csv(void *ctx, const char *name, const fst_buf *text, fst_error *err);
/* Writes `out`, lines of text or JSON, to stdout unless s is an error; releases it and returns s. */
FST_MUST fst_status finish_output(fst_buf *out, fst_status s);

/* ---- models and data ------------------------------------------------------------------------ */

/* fst_model_load for a file that somebody named: also checks its normalisation, and a network that this version
 * does not know is the file's fault, not one of usage. */
FST_MUST fst_status load_model(fst_model *m, const char *path, fst_error *err);
/* The model's name of a class; NULL when it has none. */
const char *class_name(const fst_model *m, int class);

extern const char *const data_layouts[]; /* as fst_layout */
#define LAYOUT_OPTION                                                                                               \
    {                                                                                                               \
        .name = "layout", .argument = "LAYOUT", .type = OPTION_STRING, .fallback = "auto", .choices = data_layouts, \
        .help = "array: nchw (channels first) or nhwc (channels last, which are turned); auto refuses what "        \
                "looks like channels last.",                                                                        \
    }
/* What --layout says. */
fst_layout layout_option(const struct options *o);

#endif
