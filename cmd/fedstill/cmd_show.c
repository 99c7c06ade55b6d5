/* fedstill data show: a sample, or a sheet of all classes, as a PNG or SVG. The drawing is the library's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cmd_data.h"

static const struct option_spec options[] = {
    {.name = "out",
     .letter = 'o',
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The picture to write, .png or .svg. Needed."},
    {.name = "index",
     .letter = 'i',
     .argument = "I",
     .type = OPTION_INT,
     .min = 0,
     .max = INT64_MAX,
     .fallback = "0",
     .help = "Which sample, from 0."},
    {.name = "sheet", .letter = 's', .type = OPTION_FLAG, .help = "Samples of every class instead, with their names."},
    {.name = "plain",
     .type = OPTION_FLAG,
     .help = "Only the pixels of an image, in its own size, without title: a .png that `fedstill predict` reads."},
    {.name = "per-class",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = FST_SHEET_COLUMNS,
     .fallback = "4",
     .help = "Samples of each class on a sheet."},
    FORMAT_OPTION,
    LAYOUT_OPTION,
    SPLIT_OPTION,
    WINDOW_OPTION,
    {0},
};

static const struct operand_spec operands[] = {
    {"SOURCE", 1, 1, "A data set, as for `fedstill data info`."},
    {0},
};

static const char *const examples[] = {
    "fedstill data show signals.safetensors --index 7 --out window.png",
    "A window over time, as a constellation and as a spectrogram.",
    "fedstill data show data/mnist --split test --sheet --out classes.svg",
    "Four samples of each class.",
    "fedstill data show data/mnist --split test --index 5 --plain --out digit.png",
    "One image in its own size, for `fedstill predict`.",
    NULL,
};

struct show {
    const fst_source *source;
    void *raw;
    uint32_t *index; /* classes x columns: samples of the sheet; UINT32_MAX: none */
    size_t columns;
};

static fst_status get(struct show *h, size_t i, fst_sample *out, fst_error *err)
{
    const fst_source *d = h->source;
    fst_status s = d->v->get(d, i, h->raw, err);
    if (!s)
        *out = (fst_sample){d->dtype, d->shape, h->raw, d->class_names ? d->class_names[d->labels[i]] : NULL,
                            d->snr ? (double)d->snr[i] : NAN};
    return s;
}

static fst_status tile(void *ctx, size_t row, size_t column, fst_sample *out, bool *there, fst_error *err)
{
    struct show *h = ctx;
    uint32_t i = h->index[row * h->columns + column];
    *there = i != UINT32_MAX;
    return *there ? get(h, i, out, err) : FST_OK;
}

/* Each class's samples, evenly over the file, so that a sheet shows more than one recording. */
static fst_status choose(struct show *h, size_t rows, fst_error *err)
{
    const fst_source *d = h->source;
    uint64_t *count = fst_calloc(rows, sizeof *count), *seen = fst_calloc(rows, sizeof *seen);
    h->index = fst_alloc(rows * h->columns * sizeof *h->index);
    bool ok = count && seen && h->index;
    for (size_t i = 0; ok && i < rows * h->columns; i++)
        h->index[i] = UINT32_MAX;
    for (size_t i = 0; ok && i < d->count; i++)
        if ((size_t)d->labels[i] < rows)
            count[d->labels[i]]++;
    for (size_t i = 0; ok && i < d->count; i++) {
        size_t c = (size_t)d->labels[i];
        if (c >= rows)
            continue;
        uint64_t k = seen[c]++, shown = count[c] < h->columns ? count[c] : h->columns, at = k * shown / count[c];
        if (h->index[c * h->columns + at] == UINT32_MAX)
            h->index[c * h->columns + at] = (uint32_t)i;
    }
    fst_free(count);
    fst_free(seen);
    return ok ? FST_OK : fst_fail_memory(err, rows * h->columns * sizeof *h->index);
}

static fst_status draw_sheet(struct show *h, const struct options *o, fst_picture_format f, fst_buf *out,
                             fst_error *err)
{
    char title[300];
    const fst_source *d = h->source;
    size_t rows = d->classes < FST_SHEET_ROWS ? (size_t)d->classes : FST_SHEET_ROWS;
    h->columns = (size_t)option_int(o, "per-class");
    snprintf(title, sizeof title, "%.200s, %s: %d classes%s", operand(o, 0), option_string(o, "split"), d->classes,
             rows < (size_t)d->classes ? " (the first 256)" : "");
    fst_sheet sheet = {.title = title,
                       .rows = rows,
                       .columns = h->columns,
                       .names = (const char *const *)d->class_names,
                       .sample = tile,
                       .ctx = h};
    fst_status s = choose(h, rows, err);
    return s ? s : fst_report_sheet(&sheet, f, out, err);
}

static fst_status draw_one(struct show *h, const struct options *o, fst_picture_format f, fst_buf *out, fst_error *err)
{
    char title[300], number[24], snr[48] = "";
    size_t i = (size_t)option_int(o, "index");
    fst_sample sample;
    if (i >= h->source->count)
        return fst_fail(err, FST_E_CONFIG, "--index %zu: %s has samples 0 ... %zu", i, h->source->name,
                        h->source->count - 1);
    fst_status s = get(h, i, &sample, err);
    if (s)
        return s;
    snprintf(number, sizeof number, "%d", (int)h->source->labels[i]);
    if (isfinite(sample.snr))
        snprintf(snr, sizeof snr, ", %.1f dB", sample.snr);
    snprintf(title, sizeof title, "%.120s%s, sample %zu", sample.name ? sample.name : number, snr, i);
    return option_flag(o, "plain") ? fst_report_pixels(&sample, out, err)
                                   : fst_report_sample(&sample, title, f, out, err);
}

static fst_status check(const struct options *o, fst_picture_format *format, fst_error *err)
{
    const char *out = option_string(o, "out"), *dot = out ? strrchr(out, '.') : NULL;
    if (!out)
        return fst_fail(err, FST_E_CONFIG, "--out is needed: a file that ends in .png or .svg");
    if (!dot || (strcmp(dot, ".png") && strcmp(dot, ".svg")))
        return fst_fail(err, FST_E_CONFIG, "--out %s: a file that ends in .png or .svg", out);
    if (option_flag(o, "sheet") && option_given(o, "index"))
        return fst_fail(err, FST_E_CONFIG, "--sheet and --index exclude each other");
    if (option_flag(o, "plain") && (option_flag(o, "sheet") || strcmp(dot, ".png")))
        return fst_fail(err, FST_E_CONFIG, "--plain writes one image, to a .png");
    *format = strcmp(dot, ".png") ? FST_PICTURE_SVG : FST_PICTURE_PNG;
    return FST_OK;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct show h = {0};
    fst_source *d = NULL;
    fst_buf out = {0};
    fst_picture_format format = FST_PICTURE_PNG;
    fst_status s = check(o, &format, err);
    if (!s)
        s = open_data(&d, o, NULL, err);
    h.source = d;
    if (!s && !(h.raw = fst_alloc(fst_source_sample_bytes(d))))
        s = fst_fail_memory(err, fst_source_sample_bytes(d));
    if (!s)
        s = option_flag(o, "sheet") ? draw_sheet(&h, o, format, &out, err) : draw_one(&h, o, format, &out, err);
    if (!s)
        s = fst_file_write(option_string(o, "out"), out.data, out.len, err);
    fst_buf_release(&out);
    fst_free(h.index);
    fst_free(h.raw);
    fst_source_close(d);
    return s;
}

const struct command cmd_data_show = {
    .name = "data show",
    .summary = "Draw samples",
    .description =
        "Draws a signal's window over time, as a constellation and as a spectrogram, and an image as it is; with "
        "--sheet samples of every class, signals as spectrograms (time across, frequency up, 60 dB).",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
