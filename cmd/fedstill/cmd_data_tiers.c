/* fedstill data import, and the half of data split that deals samples out to a cloud and edges. Both write samples;
 * what only says who has which is in cmd_data.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd_data.h"

enum { TABLE_CLASSES = 12 };

/* ---- data split --out ------------------------------------------------------------------------ */

static void site_name(int site, char out[24])
{
    if (site == 0)
        snprintf(out, 24, "cloud");
    else
        snprintf(out, 24, "edge_%d", site);
}

static const int64_t *counts_of(const fst_tiers *t, int site, int part)
{
    return t->counts + ((size_t)site * FST_PARTS + (size_t)part) * (size_t)t->classes;
}

static int64_t sum(const int64_t *counts, int classes)
{
    int64_t n = 0;
    for (int c = 0; c < classes; c++)
        n += counts[c];
    return n;
}

static fst_status part_row(fst_table *t, const fst_tiers *d, int site, int part, fst_error *err)
{
    const int64_t *counts = counts_of(d, site, part);
    char name[24];
    int held = 0;
    site_name(site, name);
    fst_status s = fst_table_cell(t, err, "%s", name);
    if (!s)
        s = fst_table_cell(t, err, "%s", fst_part_name((fst_part)part));
    if (!s)
        s = fst_table_cell(t, err, "%" PRId64, sum(counts, d->classes));
    for (int c = 0; !s && c < d->classes; c++) {
        held += counts[c] > 0;
        if (d->classes <= TABLE_CLASSES)
            s = counts[c] ? fst_table_cell(t, err, "%" PRId64, counts[c]) : fst_table_cell(t, err, ".");
    }
    return s || d->classes <= TABLE_CLASSES ? s : fst_table_cell(t, err, "%d", held);
}

static fst_status site_table(fst_buf *out, const fst_tiers *d, bool ascii, int shown, fst_error *err)
{
    char titles[TABLE_CLASSES][24];
    fst_column columns[TABLE_CLASSES + 3] = {
        {"site", FST_LEFT}, {"part", FST_LEFT}, {"samples", FST_RIGHT}, {"classes", FST_RIGHT}};
    size_t n = 4;
    fst_table *t = NULL;
    if (d->classes <= TABLE_CLASSES) {
        n = (size_t)d->classes + 3;
        for (size_t c = 0; c < n - 3; c++) {
            snprintf(titles[c], sizeof titles[c], c ? "%zu" : "class %zu", c);
            columns[c + 3] = (fst_column){titles[c], FST_RIGHT};
        }
    }
    fst_status s = fst_table_new(&t, columns, n, err);
    for (int site = 0; !s && site < d->sites && site < shown; site++)
        for (int part = 0; !s && part < FST_PARTS; part++)
            if (sum(counts_of(d, site, part), d->classes))
                s = part_row(t, d, site, part, err);
    if (!s)
        s = write_table(t, ascii, out, err);
    fst_table_free(t);
    if (!s && d->sites > shown)
        s = fst_buf_printf(out, err, "%d more sites are not shown (--limit)\n", d->sites - shown);
    return s;
}

/* Classes that an edge has nothing of: no error, but somebody should know. */
static fst_status add_notes(fst_buf *out, const fst_tiers *d, const fst_source *s, fst_error *err)
{
    fst_status st = FST_OK;
    for (int site = 0; !st && site < d->sites; site++) {
        char name[24];
        bool any = false;
        site_name(site, name);
        for (int c = 0; !st && c < d->classes; c++) {
            int64_t n = counts_of(d, site, 0)[c] + counts_of(d, site, 1)[c] + counts_of(d, site, 2)[c];
            if (n || (site == 0 && d->spec.cloud <= 0))
                continue;
            st = any ? FST_OK : fst_buf_printf(out, err, "note: %s has no samples of", name);
            if (!st)
                st = s->class_names ? fst_buf_printf(out, err, "%s %s", any ? "," : "", s->class_names[c])
                                    : fst_buf_printf(out, err, "%s class %d", any ? "," : "", c);
            any = true;
        }
        if (!st && any)
            st = fst_buf_append(out, "\n", 1, err);
    }
    return st;
}

static fst_status add_split(fst_buf *out, const struct options *o, const fst_tiers *d, const fst_source *source,
                            fst_error *err)
{
    fst_status s = add_field(out, err, "split", "%s", option_string(o, "out"));
    if (!s)
        s = add_field(out, err, "seed", "%" PRIu64, d->spec.seed);
    if (!s)
        s = add_field(out, err, "samples", "%zu", d->samples);
    if (!s)
        s = d->by_group ? add_field(out, err, "bursts", "%zu, none of them cut", d->groups)
                        : add_field(out, err, "bursts", "not known: each sample for itself");
    if (!s)
        s = add_field(out, err, "data digest", "%s", d->data_digest);
    if (!s)
        s = fst_buf_append(out, "\n", 1, err);
    if (!s)
        s = site_table(out, d, option_flag(o, "ascii") || !output_is_utf8(), (int)option_int(o, "limit"), err);
    return s ? s : add_notes(out, d, source, err);
}

fst_status split_tiers(const struct options *o, fst_error *err)
{
    static const char *const others[] = {"clients", "partition", "classes-per-client", "min-samples", "output"};
    fst_source *d = NULL;
    fst_tiers t = {0};
    fst_buf out = {0};
    fst_tiers_spec spec = {.cloud = option_double(o, "cloud"),
                           .edges = (int)option_int(o, "edges"),
                           .alpha = option_double(o, "alpha"),
                           .val = option_double(o, "val"),
                           .test = option_double(o, "test"),
                           .seed = (uint64_t)option_int(o, "seed")};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (option_given(o, others[i]))
            return fst_fail(err, FST_E_CONFIG, "--%s is for a partition file; it means nothing with --out", others[i]);
    if (spec.cloud >= 1 && !option_given(o, "edges"))
        spec.edges = 0;
    if (!option_flag(o, "force") && fst_file_exists(option_string(o, "out")) &&
        !is_empty_folder(option_string(o, "out")))
        return fst_fail(err, FST_E_IO, "%s: is there already; --force replaces it", option_string(o, "out"));
    fst_status s = open_data(&d, o, "samples", err);
    if (!s)
        s = fst_tiers_make(&t, d, &spec, err);
    if (!s)
        s = add_split(&out, o, &t, d, err);
    if (!s)
        s = fst_tiers_write(&t, d, option_string(o, "out"), option_flag(o, "force"), err);
    fst_tiers_release(&t);
    fst_source_close(d);
    return finish_output(&out, s);
}

/* ---- data import ----------------------------------------------------------------------------- */

static const struct option_spec import_options[] = {
    {.name = "out",
     .letter = 'o',
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The file to write, .safetensors or .npz. Needed."},
    {.name = "force", .letter = 'f', .type = OPTION_FLAG, .help = "Replace FILE if it is there."},
    {.name = "limit",
     .letter = 'n',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = INT64_MAX,
     .help = "Only N samples, of every class its share."},
    FORMAT_OPTION,
    SPLIT_OPTION,
    LAYOUT_OPTION,
    WINDOW_OPTION,
    {0},
};
static const struct operand_spec import_operands[] = {
    {"PATH", 1, 1, "A data set in any format that is read (file or folder)."},
    {0},
};
static const char *const import_examples[] = {
    "fedstill data import RML2016.10a_dict.pkl --out rml.safetensors",
    "A pickle becomes arrays that any program reads without running anything.",
    "fedstill data import recordings/ --window 1024 --out windows.npz",
    "Annotated SigMF recordings become windows of 1024 samples.",
    NULL,
};

static fst_status add_import(fst_buf *out, const struct options *o, const fst_source *d, const char *digest,
                             fst_error *err)
{
    char text[256];
    fst_status s = add_field(out, err, "file", "%s", option_string(o, "out"));
    if (!s)
        s = add_field(out, err, "samples", "%zu of shape %s, %s", d->count,
                      fst_shape_text(&d->shape, text, sizeof text), fst_dtype_name(d->dtype));
    if (!s)
        s = add_field(out, err, "classes", "%d", d->classes);
    if (!s)
        s = add_field(out, err, "beside them", "%s",
                      d->snr && d->group ? "SNR, bursts"
                      : d->snr           ? "SNR"
                      : d->group         ? "bursts"
                                         : "nothing");
    if (!s)
        s = add_field(out, err, "data digest", "%s", d->digest);
    return s ? s : add_field(out, err, "SHA-256", "%s", digest);
}

static fst_status run_import(const struct options *o, fst_error *err)
{
    const char *path = option_string(o, "out");
    char digest[FST_DIGEST_HEX];
    fst_source *d = NULL;
    fst_buf out = {0};
    if (!path)
        return fst_fail(err, FST_E_CONFIG, "--out is needed; see fedstill data import --help");
    if (!option_flag(o, "force") && fst_file_exists(path))
        return fst_fail(err, FST_E_IO, "%s: is there already; --force replaces it", path);
    fst_status s = open_data(&d, o, "limit", err);
    if (!s)
        s = fst_source_write(d, NULL, 0, path, digest, err);
    if (!s)
        s = add_import(&out, o, d, digest, err);
    fst_source_close(d);
    return finish_output(&out, s);
}

const struct command cmd_data_import = {
    .name = "data import",
    .summary = "Convert a data set to arrays",
    .description =
        "Reads a data set in any format and writes its samples, labels, names of classes, and where they are known SNR "
        "and burst of every sample, to one safetensors or npz file, which task files and the other commands read. "
        "Samples are kept as they are: the data's digest does not change.",
    .options = import_options,
    .operands = import_operands,
    .examples = import_examples,
    .run = run_import,
};
