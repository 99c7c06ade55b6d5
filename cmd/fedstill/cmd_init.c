/* fedstill init: looks at data and writes a task file for them, every choice with its reason in a comment. It decides
 * nothing that the file does not say, trains nothing, and replaces nothing. What it writes has passed the checks of
 * `fedstill run --dry-run`, or is removed again.
 *
 *   data -> struct look (shape, classes, splits, counts, statistics) -> struct plan (networks, sizes) -> text -> check
 */
#define _GNU_SOURCE /* realpath */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd_data.h"
#include "fedstill/task.h"

static const struct option_spec options[] = {
    {.name = "data",
     .letter = 'd',
     .argument = "PATH",
     .type = OPTION_STRING,
     .help = "The data set, a file or folder as for `fedstill data info`. Needed."},
    {.name = "model",
     .letter = 'm',
     .argument = "NAME",
     .type = OPTION_STRING,
     .help = "The student's network, with its options: \"resnet8\", \"mobilenet_v2 width=0.5\" (default: by the shape "
             "of the samples)."},
    FORMAT_OPTION,
    LAYOUT_OPTION,
    WINDOW_OPTION,
    {.name = "channels",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 3,
     .help = "folder: read images as grey (1) or colour (3, the default)."},
    {0},
};

static const struct operand_spec operands[] = {
    {"FOLDER", 1, 1, "The task's folder, made if it is not there. A task.yaml in it is never replaced."},
    {0},
};

static const char *const examples[] = {
    "fedstill init tasks/birds --data photos/birds",
    "Writes tasks/birds/task.yaml for a folder of images.",
    "fedstill init tasks/radio --data recordings --window 1024",
    "The same for a folder of SigMF recordings, cut into windows of 1024 samples.",
    NULL,
};

/* ---- looking --------------------------------------------------------------------------------------- */

struct look {
    fst_source *train;
    fst_transform statistics;
    bool has_test, has_val;
    size_t test_count;
    size_t fewest; /* bursts (samples, where there are none) of the smallest class that has any */
    size_t units;  /* of all classes */
};

struct unit {
    int32_t class;
    int64_t group;
};

static int by_unit(const void *a, const void *b)
{
    const struct unit *x = a, *y = b;
    if (x->class != y->class)
        return (x->class > y->class) - (x->class < y->class);
    return (x->group > y->group) - (x->group < y->group);
}

static fst_status count_units(struct look *l, fst_error *err)
{
    const fst_source *d = l->train;
    size_t of_class = 0;
    struct unit *u = fst_alloc(d->count * sizeof *u);
    if (!u)
        return fst_fail_memory(err, d->count * sizeof *u);
    for (size_t i = 0; i < d->count; i++)
        u[i] = (struct unit){d->labels[i], d->group ? d->group[i] : (int64_t)i};
    qsort(u, d->count, sizeof *u, by_unit);
    l->fewest = SIZE_MAX;
    for (size_t i = 0; i < d->count; i++) {
        bool new_class = i == 0 || u[i].class != u[i - 1].class;
        if (new_class && of_class && of_class < l->fewest)
            l->fewest = of_class;
        of_class = new_class ? 0 : of_class;
        if (new_class || u[i].group != u[i - 1].group) {
            of_class++;
            l->units++;
        }
    }
    l->fewest = of_class < l->fewest ? of_class : l->fewest;
    fst_free(u);
    return FST_OK;
}

static fst_status open_split(fst_source **out, const struct options *o, const char *split, fst_error *err)
{
    const fst_source_spec spec = {.format = option_string(o, "format"),
                                  .path = option_string(o, "data"),
                                  .split = split,
                                  .layout = layout_option(o),
                                  .image_channels = (int)option_int(o, "channels"),
                                  .window = (size_t)option_int(o, "window")};
    return fst_source_open(out, &spec, err);
}

static fst_status look_at(struct look *l, const struct options *o, fst_error *err)
{
    fst_source *other = NULL;
    fst_error why = {0};
    fst_status s = open_split(&l->train, o, "train", err);
    if (!s)
        s = fst_source_statistics(l->train, &l->statistics, err);
    if (!s)
        s = count_units(l, err);
    if (s)
        return s;
    s = open_split(&other, o, "test", &why);
    l->has_test = !s;
    if (!s)
        l->test_count = other->count;
    else if (s == FST_E_ABSENT)
        fst_log(FST_LOG_INFO, "no test samples of their own, so the task keeps a fifth apart (%s)", why.message);
    else
        return fst_fail(err, s, "test samples: %s", why.message);
    fst_source_close(other);
    other = NULL;
    s = open_split(&other, o, "val", &why);
    l->has_val = !s;
    fst_source_close(other);
    return !s || s == FST_E_ABSENT ? FST_OK : fst_fail(err, s, "validation samples: %s", why.message);
}

/* ---- choosing -------------------------------------------------------------------------------------- */

struct plan {
    const char *teacher, *student, *why;
    const char *client_optimizer;
    double learning_rate, clip_norm;
    double test, validation;
    int epochs, batch, clients;
};

static bool accepts(const char *model, const fst_source *d)
{
    char name[64];
    fst_graph *g = NULL;
    const fst_model_config c = {.classes = d->classes, .input = d->shape};
    snprintf(name, sizeof name, "%.*s", (int)strcspn(model, " "), model);
    bool fits = fst_model_graph(&g, name, &c, NULL) == FST_OK;
    fst_graph_free(g);
    return fits;
}

enum {
    LARGEST_RESNET = 96
}; /* pixels a side; above, a CIFAR ResNet costs more than MobileNetV2, which shrinks first */

static void choose_networks(struct plan *p, const fst_source *d)
{
    const fst_shape *x = &d->shape;
    bool image = x->rank == 3, small = image && x->dim[1] <= LARGEST_RESNET && x->dim[2] <= LARGEST_RESNET;
    const char *signals = "real_resnet20_link11_h width=0.5 hidden=128";
    if (image && x->dim[0] == 1 && x->dim[1] == 28 && x->dim[2] == 28)
        *p = (struct plan){.teacher = "mnist_teacher", .student = "mnist_student", .why = "for grey images of 28 x 28"};
    else if (image && x->dim[0] == 3 && x->dim[1] == 32 && x->dim[2] == 32)
        *p = (struct plan){
            .teacher = "cifar_teacher", .student = "cifar_student", .why = "for colour images of 32 x 32"};
    else if (small && accepts("resnet20", d))
        *p = (struct plan){.teacher = "resnet20", .student = "resnet8", .why = "for images of any size up to about 96"};
    else if (image && accepts("mobilenet_v2", d))
        *p = (struct plan){.teacher = "mobilenet_v2",
                           .student = "mobilenet_v2 width=0.25",
                           .why = "for large images; smaller ones train much faster"};
    else if (x->rank == 2 && x->dim[0] == 2 && accepts(signals, d))
        *p = (struct plan){.teacher = signals,
                           .student = "real_resnet20_link11_h width=0.125 hidden=32",
                           .why = "for signals of 1024 complex samples",
                           .clip_norm = 5};
    else
        *p = (struct plan){.teacher = "logistic_regression",
                           .student = "logistic_regression",
                           .why = "one linear layer: no other network of `fedstill model list` accepts this shape"};
    p->learning_rate = 0.001;
    p->client_optimizer = p->clip_norm > 0 ? "adam, learning_rate: 0.0005" : "sgd, learning_rate: 0.01";
}

static size_t clamp(size_t x, size_t low, size_t high)
{
    return x < low ? low : x > high ? high : x;
}

static void choose(struct plan *p, const struct look *l, const struct options *o)
{
    enum { STEPS = 2000 }; /* that a network of this size wants, at the least */
    size_t count = l->train->count;
    choose_networks(p, l->train);
    if (option_given(o, "model"))
        p->student = option_string(o, "model");
    p->test = l->has_test ? 0 : 0.2;
    /* The smallest class should have a sample, or a burst, on every side. */
    p->validation = (double)l->fewest * (1 - p->test) * 0.1 >= 1 && !l->has_val ? 0.1 : 0;
    p->batch = count >= 20000 ? 128 : 32;
    p->epochs = (int)clamp((size_t)STEPS * (size_t)p->batch / count, 5, 30);
    p->clients = (int)clamp((l->train->group ? l->units / 8 : count / 100), 2, 10);
}

/* ---- paths ----------------------------------------------------------------------------------------- */

/* The absolute name of what may itself not be there, though its folder is (FOLDER/emnist-letters is part of a name). */
static char *absolute(const char *path)
{
    char *real = realpath(path, NULL), *copy = real ? fst_strdup(real) : NULL;
    const char *slash = strrchr(path, '/');
    if (!real) {
        char *folder = fst_strdup(path);
        if (folder)
            folder[slash ? slash - path + 1 : 0] = 0;
        real = folder ? realpath(*folder ? folder : ".", NULL) : NULL;
        copy = real ? fst_path_join(real, slash ? slash + 1 : path) : NULL;
        fst_free(folder);
    }
    free(real);
    return copy;
}

/* `to` as seen from the folder `from`, both absolute. */
static fst_status relative(fst_buf *out, const char *from, const char *to, fst_error *err)
{
    size_t same = 0;
    fst_status s = FST_OK;
    for (size_t i = 0;; i++) {
        bool from_ends = from[i] == '/' || !from[i], to_ends = to[i] == '/' || !to[i];
        if (from_ends && to_ends)
            same = i;
        if (from[i] != to[i] || !from[i])
            break;
    }
    const char *rest = to + same + (to[same] == '/');
    for (const char *p = from + same; !s && *p; p++)
        if (*p == '/' && p[1])
            s = fst_buf_printf(out, err, "../");
    if (!s)
        s = fst_buf_printf(out, err, "%s", rest);
    return s ? s : *rest || out->len ? FST_OK : fst_buf_printf(out, err, ".");
}

/* A text in double quotes, as YAML and the task file's ${NAME} take it literally. */
static fst_status quote(fst_buf *out, const char *text, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err, "\"");
    for (; !s && *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f)
            s = fst_buf_printf(out, err, "\\x%02x", c);
        else if (c == '"' || c == '\\')
            s = fst_buf_printf(out, err, "\\%c", c);
        else
            s = c == '$' ? fst_buf_printf(out, err, "$$") : fst_buf_append(out, text, 1, err);
    }
    return s ? s : fst_buf_printf(out, err, "\"");
}

/* ---- writing --------------------------------------------------------------------------------------- */

static fst_status write_numbers(fst_buf *out, const float *v, int n, fst_error *err)
{
    fst_status s = FST_OK;
    for (int i = 0; !s && i < n; i++)
        s = fst_buf_printf(out, err, "%s%.6g", i ? ", " : "[", (double)v[i]);
    return s ? s : fst_buf_printf(out, err, "]");
}

/* "# 3 classes: bird, cat, dog", names that would make the line too long left out. */
static fst_status write_classes(fst_buf *out, const fst_source *d, fst_error *err)
{
    enum { LINE = 100 };
    size_t begin = out->len;
    fst_status s = fst_buf_printf(out, err, "# %d classes", d->classes);
    for (int c = 0; !s && d->class_names && c < d->classes; c++) {
        if (out->len - begin + strlen(d->class_names[c]) > LINE) {
            s = fst_buf_printf(out, err, ", ...");
            break;
        }
        s = fst_buf_printf(out, err, "%s%s", c ? ", " : ": ", d->class_names[c]);
    }
    if (!s)
        fst_text_clean(out->data + begin, false);
    return s ? s : fst_buf_printf(out, err, ".\n");
}

static fst_status write_head(fst_buf *out, const struct look *l, const char *folder, fst_error *err)
{
    char shape[128];
    const char *slash = strrchr(folder, '/');
    fst_status s =
        fst_buf_printf(out, err, "# Written by `fedstill init` from the data: %zu training samples of shape %s.\n",
                       l->train->count, fst_shape_text(&l->train->shape, shape, sizeof shape));
    if (!s)
        s = write_classes(out, l->train, err);
    if (!s)
        s = fst_buf_printf(out, err,
                           "# Yours from here on: change what you like. docs/task-file.md has all keys, and\n"
                           "# `fedstill run FOLDER --dry-run` shows what would be done.\n\nname: ");
    if (!s)
        s = quote(out, slash && slash[1] ? slash + 1 : "task", err);
    return s ? s : fst_buf_printf(out, err, "\nseed: 42     # of every random draw: same seed, same bits\n\n");
}

static fst_status write_data(fst_buf *out, const struct look *l, const struct plan *p, const struct options *o,
                             const char *folder, fst_error *err)
{
    const char *given = option_string(o, "data");
    fst_buf path = {0};
    char *real = absolute(given);
    fst_status s = real ? FST_OK : fst_fail(err, FST_E_IO, "%s: has no absolute name", given);
    if (!s)
        s = *given == '/' ? fst_buf_printf(&path, err, "%s", given) : relative(&path, folder, real, err);
    if (!s)
        s = fst_buf_printf(out, err, "data:\n  source: %s\n  path: ", l->train->v->format);
    if (!s)
        s = quote(out, path.data, err);
    if (!s)
        s = fst_buf_printf(out, err, "%s\n", *given == '/' ? "" : "     # relative to this folder");
    if (!s && option_given(o, "channels"))
        s = fst_buf_printf(out, err, "  channels: %d\n", (int)option_int(o, "channels"));
    if (!s && option_given(o, "layout") && layout_option(o))
        s = fst_buf_printf(out, err, "  layout: %s\n", option_string(o, "layout"));
    if (!s && option_given(o, "window"))
        s = fst_buf_printf(out, err, "  window: %lld     # complex samples\n", (long long)option_int(o, "window"));
    if (!s && l->has_test)
        s = fst_buf_printf(out, err, "  # test samples: the data's own, %zu\n", l->test_count);
    else if (!s)
        s = fst_buf_printf(out, err, "  test: %g     # share kept for testing: the data have no test samples\n",
                           p->test);
    if (!s && l->has_val)
        s = fst_buf_printf(out, err, "  own_validation: true     # the data's own split val chooses the best epoch\n");
    else if (!s && p->validation > 0)
        s = fst_buf_printf(out, err, "  validation: %g     # share that chooses the best epoch\n", p->validation);
    else if (!s)
        s = fst_buf_printf(out, err, "  # validation: 0.1     # left out: a class has only %zu %s\n", l->fewest,
                           l->train->group ? "bursts" : "samples");
    fst_free(real);
    fst_buf_release(&path);
    return s;
}

static fst_status write_transform(fst_buf *out, const struct look *l, fst_error *err)
{
    const fst_shape *x = &l->train->shape;
    fst_status s =
        fst_buf_printf(out, err, "  normalise:     # of all these samples%s, as `fedstill data info` has it\n",
                       l->train->dtype == FST_U8 ? " scaled to 0 ... 1" : "");
    if (!s)
        s = fst_buf_printf(out, err, "    mean: ");
    if (!s)
        s = write_numbers(out, l->statistics.mean, l->statistics.channels, err);
    if (!s)
        s = fst_buf_printf(out, err, "\n    std: ");
    if (!s)
        s = write_numbers(out, l->statistics.std, l->statistics.channels, err);
    if (!s && x->rank == 3)
        s = fst_buf_printf(
            out, err,
            "\n  # flip: true           # mirror training images at random, where left and right mean the "
            "same\n  # crop_padding: 4      # shift training images by up to 4 pixels at random");
    if (!s && x->rank == 2 && x->dim[0] == 2)
        s = fst_buf_printf(out, err,
                           "\n  # fingerprint: true    # to tell transmitters apart, without normalise "
                           "(docs/signals.md)");
    return s ? s : fst_buf_printf(out, err, "\n\n");
}

static fst_status write_clients(fst_buf *out, const struct plan *p, fst_error *err)
{
    return fst_buf_printf(out, err,
                          "clients:                   # who trains in federated_train\n"
                          "  count: %d\n"
                          "  partition: dirichlet     # each class by shares drawn from Dirichlet(alpha)\n"
                          "  alpha: 0.5               # small: few classes a client; large: all alike\n\n",
                          p->clients);
}

static fst_status write_training(fst_buf *out, const char *stage, const char *what, const char *model,
                                 const struct plan *p, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err, "  %s:     # %s\n    model: %s", stage, what, model);
    if (!s)
        s = fst_buf_printf(out, err, "\n    epochs: %d\n    batch_size: %d\n", p->epochs, p->batch);
    if (!s)
        s = fst_buf_printf(out, err, "    optimizer: {name: adam, learning_rate: %g}\n    schedule: cosine\n",
                           p->learning_rate);
    return s || p->clip_norm == 0 ? s : fst_buf_printf(out, err, "    clip_norm: %g\n", p->clip_norm);
}

static fst_status write_stages(fst_buf *out, const struct plan *p, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err, "stages:\n  # Networks: %s.\n", p->why);
    if (!s)
        s = write_training(out, "cloud_pretrain", "1. the cloud trains the teacher", p->teacher, p, err);
    if (!s)
        s = fst_buf_printf(out, err,
                           "\n  cloud_kd:     # 2. the teacher's probabilities of every training sample, softened\n"
                           "    temperature: 4\n\n");
    if (!s)
        s = write_training(out, "edge_kd", "3. the student learns from labels and from these probabilities", p->student,
                           p, err);
    if (!s)
        s = fst_buf_printf(out, err,
                           "    temperature: 4         # as in cloud_kd\n"
                           "    ce_weight: 0.3         # weight of the labels\n"
                           "    kd_weight: 0.7         # weight of the teacher\n"
                           "    baseline: true         # also train it on labels alone, to compare with\n\n"
                           "  federated_train:     # 4. the clients train the student further, each on its samples\n"
                           "    strategy: fedavg\n"
                           "    rounds: 10\n"
                           "    local_epochs: 1\n"
                           "    batch_size: 32\n"
                           "    optimizer: {name: %s}\n"
                           "    init: edge_kd\n\n",
                           p->client_optimizer);
    return s ? s
             : fst_buf_printf(out, err,
                              "  # 5 to 8, with `--mode full_pipeline`: the student answers what it is sure of, the "
                              "teacher the rest.\n"
                              "  device_load: {batch_size: 32}\n"
                              "  edge_infer: {threshold: 0.9, calibrate: false}\n"
                              "  cloud_infer: {}\n"
                              "  cloud_direct_infer: {}     # with `--mode device_to_cloud`: the teacher alone\n");
}

/* What run would refuse must not be written. */
static fst_status check_task(const char *path, fst_error *err)
{
    fst_task *task = NULL;
    fst_buf out = {0};
    const fst_task_options full = {.mode = "full_pipeline"};
    fst_status s = fst_task_load(&task, path, NULL, 0, err);
    if (!s)
        s = fst_task_dry_run(task, &full, &out, err);
    fst_buf_release(&out);
    fst_task_free(task);
    return s;
}

static fst_status write_task(const struct look *l, const struct plan *p, const struct options *o, const char *file,
                             fst_error *err)
{
    fst_buf text = {0};
    char *folder = realpath(operand(o, 0), NULL);
    fst_status s = folder ? FST_OK : fst_fail(err, FST_E_IO, "%s: %s", operand(o, 0), strerror(errno));
    if (!s)
        s = write_head(&text, l, folder, err);
    if (!s)
        s = write_data(&text, l, p, o, folder, err);
    if (!s)
        s = write_transform(&text, l, err);
    if (!s)
        s = write_clients(&text, p, err);
    if (!s)
        s = write_stages(&text, p, err);
    if (!s)
        s = fst_file_write(file, text.data, text.len, err);
    if (!s && (s = check_task(file, err)))
        unlink(file);
    fst_buf_release(&text);
    free(folder);
    return s;
}

/* ---- the command ------------------------------------------------------------------------------------- */

static fst_status add_result(fst_buf *out, const struct look *l, const struct plan *p, const char *file, fst_error *err)
{
    char shape[128];
    fst_status s = add_field(out, err, "data", "%s, %zu samples of %s, %d classes", l->train->v->format,
                             l->train->count, fst_shape_text(&l->train->shape, shape, sizeof shape), l->train->classes);
    if (!s)
        s = l->has_test ? add_field(out, err, "test", "%zu samples of the data's own", l->test_count)
                        : add_field(out, err, "test", "a share of %g, kept apart", p->test);
    if (!s)
        s = add_field(out, err, "teacher", "%s", p->teacher);
    if (!s)
        s = add_field(out, err, "student", "%s", p->student);
    if (!s)
        s = add_field(out, err, "networks", "%s", p->why);
    return s ? s : add_field(out, err, "written", "%s", file);
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct look l = {0};
    struct plan p = {0};
    fst_buf out = {0};
    const char *folder = operand(o, 0);
    if (!option_given(o, "data"))
        return fst_fail(err, FST_E_CONFIG, "--data is needed: the data set that the task is for");
    char *file = fst_path_join(folder, "task.yaml");
    if (!file)
        return fst_fail_memory(err, strlen(folder));
    bool new_folder = !fst_file_exists(folder);
    fst_status s = fst_file_exists(file) ? fst_fail(err, FST_E_IO, "%s: is there already, and stays as it is", file)
                                         : look_at(&l, o, err);
    if (!s) {
        choose(&p, &l, o);
        s = fst_make_folders(folder, err);
        if (!s)
            s = write_task(&l, &p, o, file, err);
        if (s && new_folder)
            rmdir(folder);
    }
    if (!s)
        s = add_result(&out, &l, &p, file, err);
    fst_source_close(l.train);
    fst_free(file);
    return finish_output(&out, s);
}

const struct command cmd_init = {
    .name = "init",
    .summary = "Write a task file for a data set",
    .description =
        "Looks at a data set (format, shape, classes, splits, how many samples) and writes FOLDER/task.yaml for it: "
        "all "
        "stages from teacher to cascade, networks that fit the shape, the normalisation of the samples, a share for "
        "testing where the data have no test samples. Every line can be changed afterwards.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
