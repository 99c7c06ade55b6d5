/*
 * What can be said about a task before any of its stages starts: settings that do not fit the data or each other, named
 * by their full keys. A run and a dry run ask the same questions. What the tables of the task file can tell alone is
 * there.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session.h"

/* ---- the output folder ------------------------------------------------------------------------------ */

/* The folder itself, or the nearest above it that is there: what a run would make them in. Changes nothing. */
fst_status fst__check_output(const char *output, fst_error *err)
{
    struct stat info;
    char *path = fst_strdup(output[0] ? output : ".");
    if (!path)
        return fst_fail_memory(err, strlen(output));
    fst_status st = FST_OK;
    while (stat(path, &info)) {
        char *slash = strrchr(path, '/');
        if (errno != ENOENT || slash == path) {
            st = fst_fail_errno(err, "cannot make folder %s", output);
            break;
        }
        if (slash)
            *slash = 0;
        else
            snprintf(path, strlen(path) + 1, ".");
    }
    if (!st && !S_ISDIR(info.st_mode))
        st = fst_fail(err, FST_E_IO, "cannot make folder %s: there is a file of the name %s", output, path);
    else if (!st && access(path, W_OK | X_OK))
        st = fst_fail_errno(err, "cannot write to folder %s", path);
    fst_free(path);
    return st;
}

/* ---- data ------------------------------------------------------------------------------------------ */

/* With source auto only the opened data tell which format it is. */
static fst_status check_format(const struct session *s, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    const char *format = s->nowned ? s->owned[0]->v->format : "";
    const struct {
        const char *key, *format;
        bool given;
    } keys[] = {{"x", "array", d->x != NULL},         {"y", "array", d->y != NULL},
                {"layout", "array", d->layout != 0},  {"channels", "folder", d->channels != 0},
                {"height", "folder", d->height != 0}, {"width", "folder", d->width != 0},
                {"window", "sigmf", d->window != 0}};
    if (d->source != 0 || !strcmp(format, "composed") || !strcmp(format, "memory"))
        return FST_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].given && strcmp(keys[i].format, format))
            return fst_fail(err, FST_E_CONFIG, "data.%s: has no effect with source %s, only with source %s",
                            keys[i].key, format, keys[i].format);
    return FST_OK;
}

static fst_status check_images(const struct session *s, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    const fst_shape *shape = &s->train->shape;
    char text[64];
    fst_shape_text(shape, text, sizeof text);
    if ((d->crop_padding || d->flip) && shape->rank != 3)
        return fst_fail(
            err, FST_E_CONFIG,
            "data.%s: only images (channels, height, width) can be cropped and mirrored, these samples are %s",
            d->crop_padding ? "crop_padding" : "flip", text);
    if (d->crop_padding && (d->crop_padding >= shape->dim[1] || d->crop_padding >= shape->dim[2]))
        return fst_fail(err, FST_E_CONFIG,
                        "data.crop_padding: is %lld; it must be smaller than the images, which are %s",
                        (long long)d->crop_padding, text);
    return FST_OK;
}

/* What is left of a sample to learn from: a loader says what its transform cannot do. */
static fst_status check_transform(const struct session *s, fst_error *err)
{
    fst_loader *loader = NULL;
    fst_loader_spec spec = {.source = s->train, .batch_size = 1, .transform = s->transform};
    fst_status st = check_images(s, err);
    if (!st)
        st = fst_loader_new(&loader, &spec, err);
    fst_loader_free(loader);
    return st ? fst_fail_in(err, st, "data") : FST_OK;
}

/* ---- stages ---------------------------------------------------------------------------------------- */

static fst_status check_model(const struct session *s, const char *stage, const char *arch, fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(s, arch, &g, err);
    fst_graph_free(g);
    return st ? fst_fail_in(err, st == FST_E_MEMORY ? st : FST_E_CONFIG, "stages.%s.model", stage) : FST_OK;
}

/* Can a network start from a file? */
static fst_status check_start(const struct session *s, const char *stage, const char *arch, const char *file,
                              fst_error *err)
{
    char key[64];
    fst_model m;
    if (!file)
        return FST_OK;
    fst_status st = fst__new_model(s, arch, &m, err);
    if (st)
        return st;
    snprintf(key, sizeof key, "stages.%s.init", stage);
    st = fst__start_from(s, key, file, &m, err);
    fst_model_release(&m);
    return st;
}

/* The model that the rounds start from must be the one that they train. */
static fst_status check_init(const struct session *s, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    enum step step = fst__init_step(f);
    const char *own = fst__federated_model(f);
    const char *from = step == STEP_PRETRAIN ? f->stages.cloud_pretrain.model : f->stages.edge_kd.training.model;
    char *path = fst__init_file(f) ? fst_path_join(s->task->folder, fst__init_file(f)) : NULL;
    bool there = path && fst_file_exists(path);
    fst_free(path);
    if (fst__init_file(f) && !there)
        return fst_fail(
            err, FST_E_CONFIG,
            "stages.federated_train.init: \"%s\" is none of edge_kd, edge_alone, cloud_pretrain and random, "
            "and there is no such model file",
            fst__init_file(f));
    if (step == STEPS)
        return check_start(s, "federated_train", own, fst__init_file(f), err);
    if (!strcmp(own, from))
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "stages.federated_train.init: %s is a %s, but the stage trains %s: set model or init",
                    fst__step_names[step], from, own);
}

static fst_status check_teacher(const struct session *s, fst_error *err)
{
    const char *file = fst__teacher_file(&s->task->file);
    fst_model m;
    fst_status st = file ? fst__open_model_file(s, "stages.cloud_kd.teacher", file, &m, err) : FST_OK;
    if (file && !st)
        fst_model_release(&m);
    return st;
}

static fst_status check_edges(const struct session *s, fst_error *err)
{
    size_t validate = 0;
    for (size_t k = 0; k < s->edges; k++)
        validate += s->edge[k].validate;
    if (s->task->file.stages.federated_train.select == 0 && !validate)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.federated_train.select: best: the edges have no validation samples; a "
                        "larger data.validation or more samples are needed");
    return FST_OK;
}

static fst_status check_clients(const struct session *s, fst_error *err)
{
    fst_partition p = {0};
    fst_status st = fst__clients(s, &p, err);
    fst_partition_release(&p);
    return !st && s->edges ? check_edges(s, err) : st;
}

static fst_status check_soft(const struct session *s, fst_error *err)
{
    const struct cloud_kd_section *k = &s->task->file.stages.cloud_kd;
    if (k->encoding != FST_SOFT_TOP_K || k->top_k <= s->train->classes)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "stages.cloud_kd.top_k: is %lld, the data have %d classes", (long long)k->top_k,
                    s->train->classes);
}

fst_status fst__check_stages(const struct session *s, const bool chosen[STAGES], fst_error *err)
{
    const struct task_file *f = &s->task->file;
    fst_status st = check_format(s, err);
    if (!st)
        st = check_transform(s, err);
    if (!st && f->stages.has_cloud_kd)
        st = check_soft(s, err);
    if (!st && chosen[0])
        st = check_model(s, "cloud_pretrain", f->stages.cloud_pretrain.model, err);
    if (!st && chosen[0])
        st = check_start(s, "cloud_pretrain", f->stages.cloud_pretrain.model, f->stages.cloud_pretrain.init, err);
    if (!st && chosen[1])
        st = check_teacher(s, err);
    if (!st && chosen[2])
        st = check_model(s, "edge_kd", f->stages.edge_kd.training.model, err);
    if (!st && chosen[2])
        st = check_start(s, "edge_kd", f->stages.edge_kd.training.model, f->stages.edge_kd.training.init, err);
    if (!st && chosen[3])
        st = check_model(s, "federated_train", fst__federated_model(f), err);
    if (!st && chosen[3])
        st = check_init(s, err);
    if (!st && chosen[3])
        st = check_clients(s, err);
    if (!st)
        st = fst__check_class_weights(s, chosen, err);
    if (!st)
        st = fst__check_batches(s, chosen, err);
    if (!st)
        st = fst__check_rates(s, chosen, err);
    return st ? st : fst__check_cascade(s, chosen, err);
}
