/* fedstill data synth: files of synthetic signals. What they are like is the library's business and that of a
 * parameter file; here are only the command line and the progress bar. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "fedstill/synth.h"

static const char *const formats[] = {"safetensors", "npz", "sigmf", NULL};

static const struct option_spec options[] = {
    {.name = "out",
     .letter = 'o',
     .argument = "PATH",
     .type = OPTION_STRING,
     .help = "The file to write. Needed. SigMF writes two, PATH.sigmf-data and PATH.sigmf-meta."},
    {.name = "count",
     .letter = 'n',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1000000000,
     .fallback = "10000",
     .help = "How many windows."},
    {.name = "first",
     .argument = "N",
     .type = OPTION_INT,
     .min = 0,
     .max = 1000000000000,
     .fallback = "0",
     .help = "Number of the first window, a multiple of the windows a burst: other bursts of the same emitters, "
             "for a test set."},
    SEED_OPTION("Of every draw. Emitters follow from it too."),
    {.name = "windows-per-burst",
     .argument = "K",
     .type = OPTION_INT,
     .min = 1,
     .max = FST_SYNTH_MAX_WINDOWS_PER_BURST,
     .fallback = "4",
     .help = "Windows that share a burst's channel, carrier and timing."},
    {.name = "snr",
     .argument = "MIN:MAX",
     .type = OPTION_STRING,
     .fallback = "-10:30",
     .help = "Signal to noise ratio in dB, uniform, one a burst. One number stands for both."},
    {.name = "classes",
     .argument = "NAME,...",
     .type = OPTION_LIST,
     .help = "Only these classes, labelled in this order (default: all)."},
    {.name = "params",
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "JSON file of parameters; docs/signals.md has the table."},
    {.name = "format",
     .argument = "FORMAT",
     .type = OPTION_STRING,
     .choices = formats,
     .help = "Of the file (default: by PATH's ending)."},
    THREADS_OPTION("Default: as many as there are processors. No result depends on it."),
    {.name = "force", .letter = 'f', .type = OPTION_FLAG, .help = "Replace PATH if it is there."},
    {0},
};

static const struct operand_spec operands[] = {
    {"KIND", 1, 1, "link11 (seven emitters of Link-11 bursts) or modulation (eleven modulations)."},
    {0},
};

static const char *const examples[] = {
    "fedstill data synth link11 --out train.safetensors --count 40000 --snr 10:30",
    "Training data.",
    "fedstill data synth link11 --out test.safetensors --first 40000 --count 8000 --snr 10:30",
    "Test data: the same emitters, other bursts.",
    "fedstill data synth modulation --out mod.sigmf --classes BPSK,QPSK,GFSK",
    "A SigMF recording of three modulations.",
    NULL,
};

enum { MAX_CLASSES = 64 };

static fst_status parse_snr(const char *text, fst_synth_spec *spec, fst_error *err)
{
    char *end = NULL;
    double low = strtod(text, &end), high = low;
    bool good = end != text;
    if (good && *end == ':') {
        const char *second = end + 1;
        high = strtod(second, &end);
        good = end != second;
    }
    if (!good || *end || !(low >= -100 && high <= 200 && low <= high))
        return fst_fail(err, FST_E_CONFIG, "--snr %s: MIN:MAX in dB is needed, from -100 to 200 and MIN no larger",
                        text);
    spec->snr_min = low;
    spec->snr_max = high;
    return FST_OK;
}

static fst_status unknown_class(const char *name, size_t len, fst_synth_kind kind, fst_error *err)
{
    fst_buf known = {0};
    fst_status s = FST_OK;
    for (const char *const *p = fst_synth_names(kind); !s && *p; p++)
        s = fst_buf_printf(&known, err, " %s", *p);
    if (!s)
        s = fst_fail(err, FST_E_CONFIG, "--classes: %s has no class \"%.*s\"; it has%s", fst_synth_kind_name(kind),
                     (int)(len < 40 ? len : 40), name, known.data);
    fst_buf_release(&known);
    return s;
}

static fst_status add_classes(const char *text, fst_synth_kind kind, int *classes, int *count, fst_error *err)
{
    const char *const *names = fst_synth_names(kind);
    for (;;) {
        size_t len = strcspn(text, ",");
        int c = 0;
        while (names[c] && (strlen(names[c]) != len || strncmp(names[c], text, len)))
            c++;
        if (!names[c] || *count >= MAX_CLASSES)
            return unknown_class(text, len, kind, err);
        classes[(*count)++] = c;
        if (!text[len])
            return FST_OK;
        text += len + 1;
    }
}

static fst_status read_spec(const struct options *o, fst_synth_spec *spec, int *classes, fst_error *err)
{
    const char *kind = operand(o, 0);
    size_t lists = 0;
    const char *const *list = option_list(o, "classes", &lists);
    spec->kind = !strcmp(kind, "modulation") ? FST_SYNTH_MODULATION : FST_SYNTH_LINK11;
    if (strcmp(kind, fst_synth_kind_name(spec->kind)))
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is no kind of signals; link11 and modulation are", kind);
    spec->seed = (uint64_t)option_int(o, "seed");
    spec->windows_per_burst = (int)option_int(o, "windows-per-burst");
    fst_synth_params_default(&spec->params, spec->kind);
    fst_status s = parse_snr(option_string(o, "snr"), spec, err);
    for (size_t i = 0; !s && i < lists; i++)
        s = add_classes(list[i], spec->kind, classes, &spec->class_count, err);
    if (lists)
        spec->classes = classes;
    if (!s && option_string(o, "params"))
        s = fst_synth_params_read(&spec->params, spec->kind, option_string(o, "params"), err);
    return s;
}

static fst_status check(const struct options *o, fst_synth_format *format, fst_error *err)
{
    const char *path = option_string(o, "out"), *name = option_string(o, "format");
    if (!path)
        return fst_fail(err, FST_E_CONFIG, "--out is needed; see fedstill data synth --help");
    if (name ? !fst_synth_format_parse(name, format) : !fst_synth_format_guess(path, format))
        return fst_fail(err, FST_E_CONFIG,
                        "%s: no format has this ending; say --format, or end it in .safetensors, "
                        ".npz or .sigmf",
                        path);
    if (option_int(o, "first") % option_int(o, "windows-per-burst"))
        return fst_fail(err, FST_E_CONFIG, "--first %" PRId64 " is not the first window of a burst of %" PRId64,
                        option_int(o, "first"), option_int(o, "windows-per-burst"));
    if (!option_flag(o, "force") && fst_synth_exists(path, *format))
        return fst_fail(err, FST_E_IO, "%s: is there already; --force replaces it", path);
    return FST_OK;
}

static bool show(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    (void)total;
    progress_update(done, NULL);
    return true;
}

static fst_status add_summary(fst_buf *out, const struct options *o, const fst_synth *g, double seconds, fst_error *err)
{
    const fst_synth_spec *spec = fst_synth_spec_of(g);
    int64_t count = option_int(o, "count"), k = spec->windows_per_burst;
    fst_status s =
        add_field(out, err, "signals", "%s, %d classes", fst_synth_kind_name(spec->kind), fst_synth_classes(g));
    if (!s)
        s = add_field(out, err, "windows", "%" PRId64 " of %d samples in %" PRId64 " bursts", count,
                      spec->params.burst.window, (count + k - 1) / k);
    if (!s)
        s = add_field(out, err, "SNR", "%g to %g dB", spec->snr_min, spec->snr_max);
    if (!s)
        s = add_field(out, err, "seed", "%" PRIu64, spec->seed);
    if (!s)
        s = add_field(out, err, "speed", "%.0f windows/s", (double)count / (seconds > 1e-9 ? seconds : 1e-9));
    return s ? s : add_field(out, err, "written", "%s", option_string(o, "out"));
}

static fst_status run(const struct options *o, fst_error *err)
{
    int classes[MAX_CLASSES];
    fst_synth_spec spec = {0};
    fst_synth_format format = FST_SYNTH_SAFETENSORS;
    fst_synth *g = NULL;
    fst_pool *pool = NULL;
    fst_buf out = {0};
    fst_status s = check(o, &format, err);
    if (!s)
        s = read_spec(o, &spec, classes, err);
    if (!s)
        s = fst_synth_new(&g, &spec, err);
    if (!s)
        s = fst_pool_new(&pool, option_given(o, "threads") ? (int)option_int(o, "threads") : fst_cpu_count(), err);
    if (!s) {
        uint64_t count = (uint64_t)option_int(o, "count");
        double begin = fst_clock_seconds();
        progress_begin("signals", count, "windows");
        progress_update(0, NULL);
        s = fst_synth_write(g, pool, (uint64_t)option_int(o, "first"), count, option_string(o, "out"), format, show,
                            NULL, err);
        progress_end(s ? "failed" : "done");
        if (!s)
            s = add_summary(&out, o, g, fst_clock_seconds() - begin, err);
    }
    fst_pool_free(pool);
    fst_synth_free(g);
    return finish_output(&out, s);
}

const struct command cmd_data_synth = {
    .name = "data synth",
    .summary = "Make synthetic radio signals",
    .description =
        "Writes windows of complex samples with label, SNR and burst: bursts of seven Link-11 emitters that differ by "
        "the faults of their transmitters alone, or eleven modulations. The same seed and parameters give the same "
        "signals; window i does not depend on how many there are. docs/signals.md says how signals are made, "
        "docs/formats.md what the files hold.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
