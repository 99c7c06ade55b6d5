/* fedstill eval: how well a model file does on labelled samples. It normalises as the model file says and
 * changes neither. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common.h"
#include "task_run.h"

enum { MAX_CONFUSION = 4096, TABLE_CLASSES = 20, BAR_WIDTH = 20 };

static const char *const splits[] = {"train", "test", "val", NULL};

static const struct option_spec options[] = {
    {.name = "split",
     .argument = "SPLIT",
     .type = OPTION_STRING,
     .fallback = "test",
     .choices = splits,
     .help = "Which part of the data; val where the data have one of their own."},
    {.name = "task",
     .argument = "TASK",
     .type = OPTION_STRING,
     .help = "Instead of DATA: the samples as a run of this task deals them. val is then what the task keeps for "
             "validation, also where the data have none of their own."},
    {.name = "place",
     .argument = "PLACE",
     .type = OPTION_STRING,
     .help = "With --task and a topology: only what cloud, edge-1, edge-2 ... has (default: all of them)."},
    SET_OPTION,
    {.name = "format",
     .argument = "FORMAT",
     .type = OPTION_STRING,
     .help = "idx, cifar10, cifar100, array, sigmf, radioml or folder (default: what the path looks like)."},
    LAYOUT_OPTION,
    {.name = "limit",
     .letter = 'n',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = INT64_MAX,
     .help = "Only N samples, of every class its share."},
    THREADS_OPTION("Threads (default: the CPUs)."),
    {.name = "batch",
     .letter = 'b',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .fallback = "256",
     .help = "Samples at a time."},
    {.name = "confusion",
     .letter = 'c',
     .type = OPTION_FLAG,
     .help = "Also show which class was taken for which: a table, or with more than 20 classes a picture of the "
             "mistakes."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object."},
    {0},
};

static const struct operand_spec operands[] = {
    {"MODEL", 1, 1, "A model file."},
    {"DATA", 0, 1,
     "A folder with IDX files, CIFAR-10 files or a folder of images for each class, or an array file (.safetensors, "
     ".npz, .npy)."},
    {0},
};

static const char *const examples[] = {
    "fedstill eval output/edge_kd/model.safetensors data/mnist",
    "Accuracy, macro F1 and cross entropy on the test samples, and the recall of every class.",
    "fedstill eval model.safetensors data/mnist --confusion --limit 1000",
    "The same on a thousand of them, and which digit was taken for which.",
    "fedstill eval tasks/mnist/output/edge_kd/model.safetensors --task tasks/mnist --split val",
    "On the samples that the task keeps for validation.",
    NULL,
};

struct eval {
    const struct options *o;
    fst_model model;
    fst_task *task; /* --task */
    fst_task_data *data;
    fst_source *source, *whole; /* whole: what source is a part of */
    fst_runner *runner;
    fst_loader *loader;
    size_t batch, classes; /* classes of the model */
    float *logits, *grad;
    double *rows;
    int64_t *samples, *correct; /* by class */
    int64_t *confusion;         /* true class x predicted class; NULL unless asked for */
    /* the sums */
    int64_t *answers; /* by class: samples taken for it */
    int64_t total, hits;
    double loss, seconds;
};

static void release(struct eval *e)
{
    fst_loader_free(e->loader);
    fst_runner_free(e->runner);
    fst_source_close(e->source);
    fst_source_close(e->whole);
    fst_task_data_free(e->data);
    fst_task_free(e->task);
    fst_model_release(&e->model);
    fst_free(e->logits);
    fst_free(e->grad);
    fst_free(e->rows);
    fst_free(e->samples);
    fst_free(e->correct);
    fst_free(e->confusion);
    fst_free(e->answers);
}

/* ---- the samples of a task ------------------------------------------------------------------------- */

static fst_status open_task(struct eval *e, fst_error *err)
{
    size_t sets, n = 0;
    const char *const *set = option_list(e->o, "set", &sets);
    fst_source_part parts[TASK_PLACES];
    fst_source *all = NULL;
    if (option_given(e->o, "format") || option_given(e->o, "layout"))
        return fst_fail(err, FST_E_CONFIG, "--format and --layout have no effect with --task: the task says them");
    fst_status s = fst_task_load(&e->task, option_string(e->o, "task"), set, sets, err);
    if (!s)
        s = fst_task_data_open(&e->data, e->task, NULL, NULL, err);
    if (!s && !strcmp(option_string(e->o, "split"), "test") && option_given(e->o, "place"))
        s = fst_fail(err, FST_E_CONFIG,
                     "--place has no effect with --split test: all places are tested on the same samples");
    if (!s && !strcmp(option_string(e->o, "split"), "test"))
        parts[n++] = (fst_source_part){fst_task_data_test(e->data), NULL, fst_task_data_test(e->data)->count};
    else if (!s)
        s = task_parts(e->data, !strcmp(option_string(e->o, "split"), "val"), option_string(e->o, "place"), parts, &n,
                       err);
    if (!s)
        s = fst_source_compose(&e->source, option_string(e->o, "task"), parts, n, err);
    all = e->source;
    size_t limit = (size_t)option_int(e->o, "limit");
    if (!s && limit && limit < all->count) {
        s = task_limit(&e->source, all, limit, err);
        e->whole = s ? NULL : all;
    }
    return s ? s : fst_model_check_source(&e->model, operand(e->o, 0), e->source, err);
}

/* Data without samples for testing may have others: which, and what a task keeps apart, is worth knowing. */
static fst_status open_split(struct eval *e, const fst_source_spec *spec, fst_error *err)
{
    fst_status s = fst_source_open(&e->source, spec, err);
    if (!s || option_given(e->o, "split"))
        return s;
    fst_source_spec train = *spec;
    fst_source *source = NULL;
    fst_error first = *err, ignored = {0};
    train.split = "train";
    if (!fst_source_open(&source, &train, &ignored))
        s = fst_fail(err, s,
                     "%s. --split train measures on the samples that models learn from; --task TASK on those that a "
                     "task keeps apart for testing",
                     first.message);
    fst_source_close(source);
    return s;
}

static fst_status open_data(struct eval *e, fst_error *err)
{
    if (option_given(e->o, "task") == (operand_count(e->o) > 1))
        return fst_fail(err, FST_E_CONFIG, "what to measure on: DATA, or --task TASK, and not both");
    if (option_given(e->o, "task"))
        return open_task(e, err);
    if (option_given(e->o, "place") || option_given(e->o, "set"))
        return fst_fail(err, FST_E_CONFIG, "--place and --set have no effect without --task");
    const fst_shape *in = &e->model.config.input;
    bool image = in->rank == 3 && (in->dim[0] == 1 || in->dim[0] == 3);
    fst_source_spec spec = {.format = option_string(e->o, "format"),
                            .layout = layout_option(e->o),
                            .path = operand(e->o, 1),
                            .split = option_string(e->o, "split"),
                            .image_channels = image ? (int)in->dim[0] : 0,
                            .window = in->rank == 2 && in->dim[0] == 2 ? (size_t)in->dim[1] : 0,
                            .limit = (size_t)option_int(e->o, "limit")};
    fst_status s = open_split(e, &spec, err);
    return s ? s : fst_model_check_source(&e->model, operand(e->o, 0), e->source, err);
}

/* ---- computing ------------------------------------------------------------------------------------ */

static fst_status reserve(struct eval *e, fst_error *err)
{
    size_t n = e->batch * e->classes;
    bool confusion = option_flag(e->o, "confusion");
    if (confusion && e->classes > MAX_CONFUSION)
        return fst_fail(err, FST_E_LIMIT, "--confusion shows up to %d classes; the model has %zu", MAX_CONFUSION,
                        e->classes);
    e->logits = fst_alloc(n * sizeof *e->logits);
    e->grad = fst_alloc(n * sizeof *e->grad);
    e->rows = fst_alloc(e->batch * sizeof *e->rows);
    e->samples = fst_calloc(e->classes, sizeof *e->samples);
    e->correct = fst_calloc(e->classes, sizeof *e->correct);
    e->answers = fst_calloc(e->classes, sizeof *e->answers);
    e->confusion = confusion ? fst_calloc(e->classes * e->classes, sizeof *e->confusion) : NULL;
    if (!e->logits || !e->grad || !e->rows || !e->samples || !e->correct || !e->answers || (confusion && !e->confusion))
        return fst_fail_memory(err, 2 * n * sizeof *e->logits);
    return FST_OK;
}

static fst_status setup(struct eval *e, fst_error *err)
{
    fst_status s = load_model(&e->model, operand(e->o, 0), err);
    if (!s)
        s = open_data(e, err);
    if (s)
        return s;
    e->classes = (size_t)e->model.classes;
    e->batch = (size_t)option_int(e->o, "batch");
    if (e->batch > e->source->count)
        e->batch = e->source->count;
    fst_trainer_options to = {.batch_size = e->batch, .threads = (int)option_int(e->o, "threads")};
    fst_loader_spec spec = {
        .source = e->source, .batch_size = e->batch, .transform = fst_model_transform(&e->model), .background = true};
    s = reserve(e, err);
    if (!s)
        s = fst_runner_new(&e->runner, e->model.graph, &to, err);
    if (!s)
        fst_runner_hold(e->runner, &e->model.state);
    return s ? s : fst_loader_new(&e->loader, &spec, err);
}

static size_t largest(const float *z, size_t n)
{
    size_t best = 0;
    for (size_t j = 1; j < n; j++)
        best = z[j] > z[best] ? j : best;
    return best;
}

static fst_status count_batch(struct eval *e, const fst_batch *b, fst_error *err)
{
    fst_loss ce = FST_LOSS_CROSS_ENTROPY;
    fst_loss_input in = {
        .logits = e->logits, .rows = b->rows, .classes = e->model.classes, .labels = b->labels, .divisor = 1};
    fst_status s = fst_runner_logits(e->runner, &e->model.state, b->x, b->rows, e->logits, err);
    if (s)
        return s;
    fst_loss_rows(&ce, &in, e->grad, e->rows, NULL, NULL);
    for (size_t i = 0; i < b->rows; i++) {
        size_t label = (size_t)b->labels[i], best = largest(e->logits + i * e->classes, e->classes);
        if (!isfinite(e->rows[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: sample %lu makes the model's output infinite or not a number",
                            e->source->name, (unsigned long)b->index[i]);
        e->loss += e->rows[i];
        e->samples[label]++;
        e->correct[label] += best == label;
        e->hits += best == label;
        e->answers[best]++;
        if (e->confusion)
            e->confusion[label * e->classes + best]++;
    }
    e->total += (int64_t)b->rows;
    return FST_OK;
}

static fst_status compute(struct eval *e, fst_error *err)
{
    double started = fst_clock_seconds();
    fst_status s = fst_loader_start(e->loader, 0, 0, err);
    progress_begin("eval", e->source->count, "samples");
    progress_update(0, NULL);
    for (fst_batch b = {.rows = 1}; !s && b.rows;) {
        s = fst_loader_next(e->loader, &b, err);
        if (!s && b.rows)
            s = count_batch(e, &b, err);
        progress_update((uint64_t)e->total, NULL);
    }
    progress_end(NULL);
    e->seconds = fst_clock_seconds() - started;
    return s;
}

/* ---- showing ---------------------------------------------------------------------------------------- */

static double accuracy(const struct eval *e)
{
    return (double)e->hits / (double)e->total;
}

static double rate(const struct eval *e)
{
    return e->seconds > 0 ? (double)e->total / e->seconds : NAN;
}

static double recall(const struct eval *e, size_t class)
{
    return e->samples[class] ? (double)e->correct[class] / (double)e->samples[class] : NAN;
}

static fst_status add_recall(const struct eval *e, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {
        {"class", FST_RIGHT}, {"name", FST_LEFT}, {"samples", FST_RIGHT}, {"recall", FST_RIGHT}, {"", FST_LEFT}};
    char text[FST_HUMAN];
    bool ascii = !output_is_utf8();
    fst_table *t = NULL;
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !s && i < e->classes; i++) {
        const char *name = class_name(&e->model, (int)i);
        s = fst_table_cell(t, err, "%zu", i);
        if (!s)
            s = fst_table_cell(t, err, "%s", name ? name : "-");
        if (!s)
            s = fst_table_cell(t, err, "%lld", (long long)e->samples[i]);
        if (!s)
            s = fst_table_cell(t, err, "%s", fst_human_percent(recall(e, i), text));
        if (!s)
            s = bar_cell(t, recall(e, i), BAR_WIDTH, ascii, err);
    }
    if (!s)
        fst_table_rank(t, 4, 1);
    if (!s)
        s = write_table(t, ascii, out, err);
    fst_table_free(t);
    return s;
}

static fst_status confusion_rows(const struct eval *e, fst_table *t, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < e->classes; i++) {
        s = fst_table_cell(t, err, "%zu", i);
        for (size_t j = 0; !s && j < e->classes; j++) {
            long long n = (long long)e->confusion[i * e->classes + j];
            s = n ? fst_table_cell(t, err, "%lld", n) : fst_table_cell(t, err, ".");
        }
    }
    return s;
}

static fst_status confusion_table(const struct eval *e, fst_buf *out, fst_error *err)
{
    char titles[TABLE_CLASSES][24];
    fst_column columns[TABLE_CLASSES + 1] = {{"true", FST_RIGHT}};
    fst_table *t = NULL;
    for (size_t i = 0; i < e->classes; i++) {
        snprintf(titles[i], sizeof titles[i], "%zu", i);
        columns[i + 1] = (fst_column){titles[i], FST_RIGHT};
    }
    fst_status s = fst_buf_printf(out, err,
                                  "\nconfusion: a row for each true class, a column for what it was taken "
                                  "for\n\n");
    if (!s)
        s = fst_table_new(&t, columns, e->classes + 1, err);
    if (!s)
        s = confusion_rows(e, t, err);
    if (!s)
        s = write_table(t, !output_is_utf8(), out, err);
    fst_table_free(t);
    return s;
}

/* The right answers would outshine everything: they are left out. */
static fst_status confusion_picture(const struct eval *e, fst_buf *out, fst_error *err)
{
    size_t n = e->classes;
    double *values = fst_calloc(n * n, sizeof *values);
    if (!values)
        return fst_fail_memory(err, n * n * sizeof *values);
    for (size_t i = 0; i < n * n; i++)
        values[i] = i / n == i % n ? 0 : (double)e->confusion[i];
    fst_heat_map map = {.row_title = "true", .column_title = "taken for", .rows = n, .columns = n, .values = values};
    fst_status s = fst_buf_printf(out, err, "\nmistakes: samples of each class that were taken for another\n\n");
    if (!s)
        s = fst_report_heat_map(&map, !output_is_utf8(), out, err);
    fst_free(values);
    return s;
}

static const char *data_name(const struct eval *e)
{
    return e->task ? option_string(e->o, "task") : operand(e->o, 1);
}

static fst_status add_text(const struct eval *e, fst_buf *out, fst_error *err)
{
    char a[FST_HUMAN], b[FST_HUMAN];
    double f1, balanced;
    fst_status s =
        add_field(out, err, "data", "%s (%s, %s)", data_name(e), e->source->v->format, option_string(e->o, "split"));
    if (!s)
        s = add_field(out, err, "accuracy", "%s (%lld of %lld samples)", fst_human_percent(accuracy(e), a),
                      (long long)e->hits, (long long)e->total);
    fst_macro_scores(e->samples, e->answers, e->correct, e->classes, &f1, &balanced);
    if (!s)
        s = add_field(out, err, "macro F1", "%.4f (balanced accuracy %s)", f1, fst_human_percent(balanced, a));
    if (!s)
        s = add_field(out, err, "cross entropy", "%.6g", e->loss / (double)e->total);
    if (!s)
        s = add_field(out, err, "speed", "%s samples/s (%s)", fst_human_count(rate(e), a),
                      fst_human_seconds(e->seconds, b));
    if (!s)
        s = fst_buf_append(out, "\n", 1, err);
    if (!s)
        s = add_recall(e, out, err);
    if (!s && e->confusion)
        s = e->classes <= TABLE_CLASSES ? confusion_table(e, out, err) : confusion_picture(e, out, err);
    return s;
}

static json_t *classes_json(const struct eval *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->classes; i++)
        json_array_append_new(list, json_pack("{s:I, s:o, s:I, s:I, s:o}", "class", (json_int_t)i, "name",
                                              fst_json_text(class_name(&e->model, (int)i)), "samples",
                                              (json_int_t)e->samples[i], "correct", (json_int_t)e->correct[i], "recall",
                                              fst_json_number(recall(e, i))));
    return list;
}

static json_t *confusion_json(const struct eval *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->classes; i++) {
        json_t *row = json_array();
        for (size_t j = 0; j < e->classes; j++)
            json_array_append_new(row, json_integer(e->confusion[i * e->classes + j]));
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *eval_json(const struct eval *e)
{
    json_t *j =
        json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "model", fst_json_text(operand(e->o, 0)),
                  "data", fst_json_text(data_name(e)), "split", option_string(e->o, "split"), "data_digest",
                  e->source->digest, "samples", (json_int_t)e->total, "correct", (json_int_t)e->hits, "accuracy",
                  fst_json_number(accuracy(e)), "loss", fst_json_number(e->loss / (double)e->total), "seconds",
                  fst_json_number(e->seconds), "samples_per_s", fst_json_number(rate(e)), "classes", classes_json(e));
    double f1, balanced;
    fst_macro_scores(e->samples, e->answers, e->correct, e->classes, &f1, &balanced);
    if (j) {
        json_object_set_new(j, "macro_f1", fst_json_number(f1));
        json_object_set_new(j, "balanced_accuracy", fst_json_number(balanced));
    }
    if (j && e->confusion && json_object_set_new(j, "confusion", confusion_json(e))) {
        json_decref(j);
        return NULL;
    }
    return j;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct eval e = {.o = o};
    fst_buf out = {0};
    fst_status s = setup(&e, err);
    if (!s)
        s = compute(&e, err);
    if (!s)
        s = option_flag(o, "json") ? add_json(&out, eval_json(&e), true, err) : add_text(&e, &out, err);
    release(&e);
    return finish_output(&out, s);
}

const struct command cmd_eval = {
    .name = "eval",
    .summary = "Measure a model on labelled samples",
    .description = "Shows the accuracy (the share of samples whose largest output is the label's), the mean cross "
                   "entropy, and the recall of every class. Samples are normalised as the model file says. Data of "
                   "another shape, or with classes that the model does not know, is an error.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
