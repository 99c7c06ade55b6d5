/* fedstill data info, data split: what a data set or a partition holds, and making partitions. Samples themselves
 * are written in cmd_data_tiers.c. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd_data.h"

/* Classes that a table has columns for, and columns of a picture: with more, a column stands for several classes. */
enum { TABLE_CLASSES = 12, PICTURE_COLUMNS = 50, BAR_WIDTH = 30 };

const char *const data_splits[] = {"train", "test", "val", NULL};
static const char *const kinds[] = {"iid", "dirichlet", "shards", "quantity", NULL};

#define LIMIT_OPTION                                                                                   \
    {                                                                                                  \
        .name = "limit", .letter = 'n', .argument = "N", .type = OPTION_INT, .min = 1, .max = 1000000, \
        .fallback = "30", .help = "Show the first N clients or classes."                               \
    }
#define ASCII_OPTION                                                                \
    {                                                                               \
        .name = "ascii", .type = OPTION_FLAG, .help = "Draw with ASCII characters." \
    }

static const struct option_spec info_options[] = {
    FORMAT_OPTION,
    SPLIT_OPTION,
    LAYOUT_OPTION,
    WINDOW_OPTION,
    LIMIT_OPTION,
    ASCII_OPTION,
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object; it has all clients and classes."},
    {0},
};

static const struct option_spec split_options[] = {
    {.name = "clients",
     .letter = 'c',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1000000,
     .help = "How many clients. Needed for a partition file."},
    {.name = "partition",
     .letter = 'p',
     .argument = "KIND",
     .type = OPTION_STRING,
     .choices = kinds,
     .help = "How samples are dealt: iid (equal shares), dirichlet (each class by Dirichlet(alpha) shares), shards "
             "(so many classes each), quantity (sizes by Dirichlet(alpha)). Needed for a partition file."},
    {.name = "alpha",
     .letter = 'a',
     .argument = "A",
     .type = OPTION_DOUBLE,
     .low = 1e-6,
     .high = 1e6,
     .fallback = "0.5",
     .help = "dirichlet, quantity, --out: small is uneven."},
    {.name = "classes-per-client",
     .argument = "K",
     .type = OPTION_INT,
     .min = 1,
     .max = FST_MAX_CLASSES,
     .fallback = "2",
     .help = "shards: how many shards, mostly of one class each, every client gets."},
    {.name = "min-samples",
     .argument = "M",
     .type = OPTION_INT,
     .min = 1,
     .max = INT64_MAX,
     .fallback = "1",
     .help = "Every client gets at least so many."},
    SEED_OPTION("Same data, settings and seed give the same split, everywhere."),
    {.name = "output",
     .letter = 'o',
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The partition file to write. This or --out is needed."},
    {.name = "out",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help =
         "The folder to write samples to, for a cloud and edges: cloud/train.safetensors, val, test, edge_1/..., and "
         "split.json with digests and counts."},
    {.name = "cloud",
     .argument = "SHARE",
     .type = OPTION_DOUBLE,
     .low = 0,
     .high = 1,
     .fallback = "0.5",
     .help = "--out: the cloud's share of every class."},
    {.name = "edges",
     .argument = "N",
     .type = OPTION_INT,
     .min = 0,
     .max = FST_MAX_EDGES,
     .fallback = "2",
     .help = "--out: how many edges share the rest, each class by Dirichlet(alpha)."},
    {.name = "val",
     .argument = "SHARE",
     .type = OPTION_DOUBLE,
     .low = 0,
     .high = 0.99,
     .fallback = "0.1",
     .help = "--out: share of every class at every site for validation."},
    {.name = "test",
     .argument = "SHARE",
     .type = OPTION_DOUBLE,
     .low = 0,
     .high = 0.99,
     .fallback = "0.1",
     .help = "--out: share of every class at every site for the test."},
    {.name = "samples",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = INT64_MAX,
     .help = "Deal only N samples, of every class its share: those of a task with data.limit N."},
    {.name = "force",
     .letter = 'f',
     .type = OPTION_FLAG,
     .help = "Replace FILE or DIR (which must hold a split) if it is there."},
    FORMAT_OPTION,
    SPLIT_OPTION,
    LAYOUT_OPTION,
    WINDOW_OPTION,
    LIMIT_OPTION,
    ASCII_OPTION,
    {0},
};

static const struct operand_spec info_operands[] = {
    {"PATH", 1, 1, "A data set (folder or array file), or a partition file."},
    {0},
};
static const struct operand_spec split_operands[] = {
    {"PATH", 1, 1, "A data set (folder or array file)."},
    {0},
};
static const char *const info_examples[] = {
    "fedstill data info data/mnist --split test",
    "Samples, classes and statistics of the test images.",
    "fedstill data info split.safetensors",
    "Which client has how many samples of which class.",
    NULL,
};
static const char *const split_examples[] = {
    "fedstill data split data/mnist --clients 10 --partition dirichlet --alpha 0.3 --output split.safetensors",
    "Splits the training samples unevenly among ten clients.",
    "fedstill data split signals.safetensors --out split --cloud 0.5 --edges 2 --alpha 0.3",
    "Half of the samples for the cloud, the rest unevenly for two edges, bursts whole, as files.",
    NULL,
};

/* What the options say about how to show things. */
struct look {
    size_t limit;
    bool ascii;
};

static struct look look_of(const struct options *o)
{
    return (struct look){(size_t)option_int(o, "limit"), option_flag(o, "ascii") || !output_is_utf8()};
}

static fst_status not_shown(fst_buf *out, size_t all, size_t shown, const char *what, fst_error *err)
{
    return all > shown ? fst_buf_printf(out, err, "%zu more %s are not shown (--limit)\n", all - shown, what) : FST_OK;
}

/* ---- partitions: the table ---------------------------------------------------------------------- */

static int64_t count_of(const fst_partition *p, size_t client, size_t class)
{
    return p->counts[client * (size_t)p->classes + class];
}

static size_t size_of(const fst_partition *p, size_t client)
{
    return p->begin[client + 1] - p->begin[client];
}

static size_t classes_held(const fst_partition *p, size_t client)
{
    size_t n = 0;
    for (int c = 0; c < p->classes; c++)
        n += count_of(p, client, (size_t)c) > 0;
    return n;
}

static fst_status count_cell(fst_table *t, int64_t n, fst_error *err)
{
    return n ? fst_table_cell(t, err, "%" PRId64, n) : fst_table_cell(t, err, ".");
}

static fst_status client_row(fst_table *t, const fst_partition *p, size_t client, fst_error *err)
{
    fst_status s = fst_table_cell(t, err, "%zu", client + 1);
    if (!s)
        s = fst_table_cell(t, err, "%zu", size_of(p, client));
    if (!s && p->classes > TABLE_CLASSES)
        return fst_table_cell(t, err, "%zu", classes_held(p, client));
    for (int c = 0; !s && c < p->classes; c++)
        s = count_cell(t, count_of(p, client, (size_t)c), err);
    return s;
}

static fst_status total_row(fst_table *t, const fst_partition *p, fst_error *err)
{
    int held = 0;
    fst_status s = fst_table_rule(t, err);
    if (!s)
        s = fst_table_cell(t, err, "all");
    if (!s)
        s = fst_table_cell(t, err, "%zu", p->begin[p->clients]);
    for (int c = 0; !s && c < p->classes; c++) {
        int64_t sum = 0;
        for (int k = 0; k < p->clients; k++)
            sum += count_of(p, (size_t)k, (size_t)c);
        held += sum > 0;
        if (p->classes <= TABLE_CLASSES)
            s = count_cell(t, sum, err);
    }
    return s || p->classes <= TABLE_CLASSES ? s : fst_table_cell(t, err, "%d", held);
}

/* Client, samples, and a column for each class; with many classes how many of them the client has. */
static fst_status client_table(fst_buf *out, const fst_partition *p, const struct look *look, fst_error *err)
{
    char titles[TABLE_CLASSES][24];
    fst_column columns[TABLE_CLASSES + 2] = {{"client", FST_RIGHT}, {"samples", FST_RIGHT}, {"classes", FST_RIGHT}};
    size_t n = 3, clients = (size_t)p->clients, shown = clients < look->limit ? clients : look->limit;
    fst_table *t = NULL;
    if (p->classes <= TABLE_CLASSES) {
        n = (size_t)p->classes + 2;
        for (size_t c = 0; c < n - 2; c++) {
            snprintf(titles[c], sizeof titles[c], c ? "%zu" : "class %zu", c);
            columns[c + 2] = (fst_column){titles[c], FST_RIGHT};
        }
    }
    fst_status s = fst_table_new(&t, columns, n, err);
    for (size_t k = 0; !s && k < shown; k++)
        s = client_row(t, p, k, err);
    if (!s)
        s = total_row(t, p, err);
    if (!s)
        s = write_table(t, look->ascii, out, err);
    if (!s)
        s = not_shown(out, clients, shown, "clients", err);
    fst_table_free(t);
    return s;
}

/* ---- partitions: the picture ----------------------------------------------------------------------- */

/* Neighbouring classes share a column when there are many; a column is named after its first class. */
static fst_status picture(fst_buf *out, const fst_partition *p, const struct look *look, fst_error *err)
{
    char title[64] = "class", names[PICTURE_COLUMNS][24];
    const char *name_list[PICTURE_COLUMNS];
    size_t classes = (size_t)p->classes, rows = (size_t)p->clients < look->limit ? (size_t)p->clients : look->limit;
    size_t group = (classes + PICTURE_COLUMNS - 1) / PICTURE_COLUMNS, columns = (classes + group - 1) / group;
    double *values = fst_calloc(rows * columns, sizeof *values);
    char(*clients)[24] = fst_calloc(rows, sizeof *clients); /* numbered from 1 */
    const char **client_list = fst_calloc(rows, sizeof *client_list);
    fst_status s = values && clients && client_list ? FST_OK : fst_fail_memory(err, rows * columns * sizeof *values);
    for (size_t k = 0; !s && k < rows; k++) {
        snprintf(clients[k], sizeof clients[k], "%zu", k + 1);
        client_list[k] = clients[k];
    }
    for (size_t k = 0; !s && k < rows; k++)
        for (size_t c = 0; c < classes; c++)
            values[k * columns + c / group] += (double)count_of(p, k, c);
    for (size_t i = 0; i < columns; i++) {
        snprintf(names[i], sizeof names[i], "%zu", i * group);
        name_list[i] = names[i];
    }
    if (group > 1)
        snprintf(title, sizeof title, "classes, %zu a column", group);
    fst_heat_map map = {.row_title = "client",
                        .column_title = title,
                        .row_names = client_list,
                        .column_names = name_list,
                        .rows = rows,
                        .columns = columns,
                        .values = values};
    if (!s)
        s = fst_report_heat_map(&map, look->ascii, out, err);
    fst_free(values);
    fst_free(clients);
    fst_free(client_list);
    return s ? s : not_shown(out, (size_t)p->clients, rows, "clients", err);
}

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static fst_status add_sizes(fst_buf *out, const fst_partition *p, fst_error *err)
{
    size_t n = (size_t)p->clients, *sizes = fst_alloc(n * sizeof *sizes);
    if (!sizes)
        return fst_fail_memory(err, n * sizeof *sizes);
    for (size_t k = 0; k < n; k++)
        sizes[k] = size_of(p, k);
    qsort(sizes, n, sizeof *sizes, by_size);
    double median = ((double)sizes[(n - 1) / 2] + (double)sizes[n / 2]) / 2;
    fst_status s =
        add_field(out, err, "samples each", "smallest %zu, median %.10g, largest %zu", sizes[0], median, sizes[n - 1]);
    fst_free(sizes);
    return s;
}

static fst_status add_partition(fst_buf *out, const fst_partition *p, const char *path, const struct look *look,
                                fst_error *err)
{
    fst_status s = add_field(out, err, "partition", "%s", path);
    if (!s)
        s = add_field(out, err, "method", "%s", p->method);
    if (!s)
        s = add_field(out, err, "seed", "%" PRIu64, p->seed);
    if (!s)
        s = add_field(out, err, "clients", "%d", p->clients);
    if (!s)
        s = add_field(out, err, "classes", "%d", p->classes);
    if (!s)
        s = add_field(out, err, "samples", "%zu of %zu given out", p->begin[p->clients], p->samples);
    if (!s)
        s = add_sizes(out, p, err);
    if (!s)
        s = add_field(out, err, "data digest", "%s", p->data_digest);
    if (!s)
        s = fst_buf_append(out, "\n", 1, err);
    if (!s)
        s = client_table(out, p, look, err);
    if (!s)
        s = fst_buf_append(out, "\n", 1, err);
    return s ? s : picture(out, p, look, err);
}

static json_t *partition_json(const fst_partition *p, const char *path)
{
    char seed[24]; /* as text: JSON readers keep 53 bits */
    json_t *counts = json_array();
    for (int k = 0; k < p->clients; k++) {
        json_t *row = json_array();
        for (int c = 0; c < p->classes; c++)
            json_array_append_new(row, json_integer(count_of(p, (size_t)k, (size_t)c)));
        json_array_append_new(counts, row);
    }
    snprintf(seed, sizeof seed, "%" PRIu64, p->seed);
    return json_pack("{s:s, s:o, s:o, s:s, s:i, s:i, s:I, s:I, s:s, s:o}", "kind", "partition", "path",
                     fst_json_text(path), "method", fst_json_text(p->method), "seed", seed, "clients", p->clients,
                     "classes", p->classes, "samples", (json_int_t)p->samples, "given_out",
                     (json_int_t)p->begin[p->clients], "data_digest", p->data_digest, "counts", counts);
}

/* ---- data sets ---------------------------------------------------------------------------------------- */

fst_status open_data(fst_source **out, const struct options *o, const char *limit, fst_error *err)
{
    fst_source_spec spec = {.format = option_string(o, "format"),
                            .path = operand(o, 0),
                            .split = option_string(o, "split"),
                            .layout = layout_option(o),
                            .window = (size_t)option_int(o, "window"),
                            .limit = limit ? (size_t)option_int(o, limit) : 0};
    return fst_source_open(out, &spec, err);
}

static fst_status class_counts(int64_t **out, const fst_source *d, fst_error *err)
{
    int64_t *counts = fst_calloc((size_t)d->classes, sizeof *counts);
    if (!counts)
        return fst_fail_memory(err, (size_t)d->classes * sizeof *counts);
    for (size_t i = 0; i < d->count; i++)
        counts[d->labels[i]]++;
    *out = counts;
    return FST_OK;
}

static fst_status class_row(fst_table *t, const fst_source *d, const int64_t *counts, int class, int64_t most,
                            bool ascii, fst_error *err)
{
    char text[FST_HUMAN];
    fst_status s = fst_table_cell(t, err, "%d", class);
    if (!s)
        s = fst_table_cell(t, err, "%s", d->class_names ? d->class_names[class] : "-");
    if (!s)
        s = fst_table_cell(t, err, "%" PRId64, counts[class]);
    if (!s)
        s = fst_table_cell(t, err, "%s", fst_human_percent((double)counts[class] / (double)d->count, text));
    return s ? s : bar_cell(t, (double)counts[class] / (double)most, BAR_WIDTH, ascii, err);
}

static fst_status class_table(fst_buf *out, const fst_source *d, const int64_t *counts, const struct look *look,
                              fst_error *err)
{
    static const fst_column columns[] = {
        {"class", FST_RIGHT}, {"name", FST_LEFT}, {"samples", FST_RIGHT}, {"share", FST_RIGHT}, {"", FST_LEFT}};
    size_t classes = (size_t)d->classes, shown = classes < look->limit ? classes : look->limit;
    int64_t most = 1;
    fst_table *t = NULL;
    for (int c = 0; c < d->classes; c++)
        most = counts[c] > most ? counts[c] : most;
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t c = 0; !s && c < shown; c++)
        s = class_row(t, d, counts, (int)c, most, look->ascii, err);
    if (!s)
        fst_table_rank(t, 4, 1);
    if (!s)
        s = write_table(t, look->ascii, out, err);
    if (!s)
        s = not_shown(out, classes, shown, "classes", err);
    fst_table_free(t);
    return s;
}

static fst_status channel_table(fst_buf *out, const fst_transform *st, bool ascii, fst_error *err)
{
    static const fst_column columns[] = {{"channel", FST_RIGHT}, {"mean", FST_RIGHT}, {"std", FST_RIGHT}};
    fst_table *t = NULL;
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (int c = 0; !s && c < st->channels; c++) {
        s = fst_table_cell(t, err, "%d", c);
        if (!s)
            s = fst_table_cell(t, err, "%.6f", (double)st->mean[c]);
        if (!s)
            s = fst_table_cell(t, err, "%.6f", (double)st->std[c]);
    }
    if (!s)
        s = write_table(t, ascii, out, err);
    fst_table_free(t);
    return s;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* How many different groups there are. */
static fst_status count_groups(const fst_source *d, size_t *out, fst_error *err)
{
    size_t n = 0;
    int64_t *all = fst_alloc(d->count * sizeof *all);
    if (!all)
        return fst_fail_memory(err, d->count * sizeof *all);
    memcpy(all, d->group, d->count * sizeof *all);
    qsort(all, d->count, sizeof *all, by_number);
    for (size_t i = 0; i < d->count; i++)
        n += i == 0 || all[i] != all[i - 1];
    fst_free(all);
    *out = n;
    return FST_OK;
}

/* SNR and bursts, where they are known. */
static fst_status add_beside(fst_buf *out, const fst_source *d, fst_error *err)
{
    double low = INFINITY, high = -INFINITY;
    size_t groups = 0;
    fst_status s = FST_OK;
    for (size_t i = 0; d->snr && i < d->count; i++) {
        low = fmin(low, (double)d->snr[i]); /* NaN is not the smaller */
        high = fmax(high, (double)d->snr[i]);
    }
    if (low <= high)
        s = add_field(out, err, "SNR", "%.4g ... %.4g dB", low, high);
    if (!s && d->group)
        s = count_groups(d, &groups, err);
    return s || !d->group ? s : add_field(out, err, "bursts", "%zu", groups);
}

static fst_status add_source(fst_buf *out, const struct options *o, const fst_source *d, fst_error *err)
{
    char text[256], bytes[FST_HUMAN];
    double size = (double)fst_source_sample_bytes(d) * (double)d->count;
    fst_status s = add_field(out, err, "data", "%s (%s, %s)", operand(o, 0), d->v->format, option_string(o, "split"));
    if (!s)
        s = add_field(out, err, "samples", "%zu", d->count);
    if (!s)
        s = add_field(out, err, "shape", "%s of %s (%s in all)", fst_shape_text(&d->shape, text, sizeof text),
                      fst_dtype_name(d->dtype), fst_human_bytes(size, bytes));
    if (!s)
        s = add_field(out, err, "classes", "%d", d->classes);
    if (!s)
        s = add_beside(out, d, err);
    return s ? s : add_field(out, err, "SHA-256", "%s", d->digest);
}

static fst_status add_all(fst_buf *out, const struct options *o, const fst_source *d, const int64_t *counts,
                          const fst_transform *st, fst_error *err)
{
    struct look look = look_of(o);
    fst_status s = add_source(out, o, d, err);
    if (!s)
        s = fst_buf_append(out, "\n", 1, err);
    if (!s)
        s = class_table(out, d, counts, &look, err);
    if (!s)
        s = fst_buf_printf(out, err, "\n%s", d->dtype == FST_U8 ? "bytes scaled to 0 ... 1:\n" : "");
    return s ? s : channel_table(out, st, look.ascii, err);
}

static json_t *source_json(const struct options *o, const fst_source *d, const int64_t *counts, const fst_transform *st)
{
    json_t *list = json_array();
    for (int c = 0; c < d->classes; c++)
        json_array_append_new(list, json_integer(counts[c]));
    return json_pack("{s:s, s:o, s:s, s:s, s:I, s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:s}", "kind", "data", "path",
                     fst_json_text(operand(o, 0)), "format", d->v->format, "split", option_string(o, "split"),
                     "samples", (json_int_t)d->count, "shape", shape_json(&d->shape), "dtype", fst_dtype_name(d->dtype),
                     "classes", d->classes, "class_names", texts_json(d->class_names, d->classes), "counts", list,
                     "mean", floats_json(st->mean, st->channels), "std", floats_json(st->std, st->channels), "digest",
                     d->digest);
}

static fst_status source_info(fst_buf *out, const struct options *o, fst_error *err)
{
    fst_source *d = NULL;
    int64_t *counts = NULL;
    fst_transform st = {0};
    fst_status s = open_data(&d, o, NULL, err);
    if (!s)
        s = class_counts(&counts, d, err);
    if (!s)
        s = fst_source_statistics(d, &st, err);
    if (!s)
        s = option_flag(o, "json") ? add_json(out, source_json(o, d, counts, &st), true, err)
                                   : add_all(out, o, d, counts, &st, err);
    fst_free(counts);
    fst_source_close(d);
    return s;
}

/* ---- data info ------------------------------------------------------------------------------------------ */

static fst_status partition_info(fst_buf *out, const struct options *o, fst_error *err)
{
    fst_partition p = {0};
    struct look look = look_of(o);
    fst_status s = fst_partition_read(&p, operand(o, 0), err);
    if (!s)
        s = option_flag(o, "json") ? add_json(out, partition_json(&p, operand(o, 0)), false, err)
                                   : add_partition(out, &p, operand(o, 0), &look, err);
    fst_partition_release(&p);
    return s;
}

/* What a safetensors file says that it is ("" when it does not or is none), cut to 63 letters. */
static void declared_format(const char *path, char out[64])
{
    fst_safetensors *f = NULL;
    out[0] = 0;
    if (fst_safetensors_open(&f, path, NULL))
        return;
    const char *format = fst_safetensors_meta(f, "format");
    snprintf(out, 64, "%s", format ? format : "");
    fst_safetensors_free(f);
}

static fst_status run_info(const struct options *o, fst_error *err)
{
    char format[64];
    fst_buf out = {0};
    fst_status s;
    declared_format(operand(o, 0), format);
    if (!strncmp(format, "fedstill-partition-", strlen("fedstill-partition-")))
        s = partition_info(&out, o, err);
    else if (!strcmp(format, FST_MODEL_FORMAT))
        s = fst_fail(err, FST_E_FORMAT, "%s: is a model, not data: see `fedstill model info`", operand(o, 0));
    else
        s = source_info(&out, o, err);
    return finish_output(&out, s);
}

/* ---- data split ----------------------------------------------------------------------------------------- */

bool is_empty_folder(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    bool empty = d != NULL;
    while (empty && (e = readdir(d)))
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    if (d)
        closedir(d);
    return empty;
}

static fst_status check_split(const struct options *o, fst_partition_kind *kind, fst_error *err)
{
    static const char *const needed[] = {"clients", "partition", "output"};
    static const char *const others[] = {"cloud", "edges", "val", "test"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (option_given(o, others[i]))
            return fst_fail(err, FST_E_CONFIG, "--%s means nothing without --out", others[i]);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!option_given(o, needed[i]))
            return fst_fail(err, FST_E_CONFIG, "--%s is needed; see fedstill data split --help", needed[i]);
    if (!fst_partition_kind_parse(option_string(o, "partition"), kind))
        return fst_fail(err, FST_E_CONFIG, "unknown partition \"%s\"", option_string(o, "partition"));
    if (option_given(o, "alpha") && *kind != FST_PARTITION_DIRICHLET && *kind != FST_PARTITION_QUANTITY)
        return fst_fail(err, FST_E_CONFIG, "--alpha means nothing with --partition %s", option_string(o, "partition"));
    if (option_given(o, "classes-per-client") && *kind != FST_PARTITION_SHARDS)
        return fst_fail(err, FST_E_CONFIG, "--classes-per-client means nothing with --partition %s",
                        option_string(o, "partition"));
    if (!option_flag(o, "force") && fst_file_exists(option_string(o, "output")))
        return fst_fail(err, FST_E_IO, "%s: is there already; --force replaces it", option_string(o, "output"));
    return FST_OK;
}

static fst_status make_partition(fst_partition *out, const struct options *o, fst_partition_kind kind, fst_error *err)
{
    fst_source *d = NULL;
    fst_partition_spec spec = {.kind = kind,
                               .clients = (int)option_int(o, "clients"),
                               .alpha = option_double(o, "alpha"),
                               .classes_per_client = (int)option_int(o, "classes-per-client"),
                               .min_samples = (size_t)option_int(o, "min-samples"),
                               .seed = (uint64_t)option_int(o, "seed")};
    fst_status s = open_data(&d, o, "samples", err);
    if (!s)
        s = fst_partition_make(out, d, &spec, err);
    fst_source_close(d);
    return s;
}

static fst_status run_split(const struct options *o, fst_error *err)
{
    const char *path = option_string(o, "output");
    fst_partition_kind kind = FST_PARTITION_IID;
    fst_partition p = {0};
    fst_buf out = {0};
    struct look look = look_of(o);
    if (option_given(o, "out"))
        return split_tiers(o, err);
    fst_status s = check_split(o, &kind, err);
    if (!s)
        s = make_partition(&p, o, kind, err);
    if (!s)
        s = add_partition(&out, &p, path, &look, err);
    if (!s)
        s = fst_partition_write(&p, path, NULL, err);
    fst_partition_release(&p);
    return finish_output(&out, s);
}

const struct command cmd_data_info = {
    .name = "data info",
    .summary = "Show what a data set or a partition holds",
    .description =
        "Of a data set: samples, shape, classes with their counts, digest, and the mean and standard "
        "deviation of every channel, as a task's normalise takes them. Of a partition file: how many samples "
        "of which class every client has, as a table and as a picture.",
    .options = info_options,
    .operands = info_operands,
    .examples = info_examples,
    .run = run_info,
};

const struct command cmd_data_split = {
    .name = "data split",
    .summary = "Split a data set among clients",
    .description =
        "Writes a partition file, which says which client has which sample and holds no samples itself, and "
        "shows it as `fedstill data info` does. A file that is there is replaced only with --force.\n\n"
        "With --out it writes the samples themselves, for a cloud and edges that are machines of their own: training, "
        "validation and test files for each, by class and, where it is known, by SNR. Samples of one burst stay "
        "together, so that no test knows what was trained on.",
    .options = split_options,
    .operands = split_operands,
    .examples = split_examples,
    .run = run_split,
};
