/*
 * What can be said about a task before any of its stages starts, once its data are open: settings that do not fit them,
 * named by their full keys. What concerns one kind of stage stands with that kind (its member `check`) and is asked
 * from here; a run and a dry run ask the same questions. What the task file alone can tell is found when it is read.
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
    const char *format = s->data.nowned ? s->data.owned[0]->v->format : "";
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

/* With one class there is nothing to learn, and every model is always right. What others have is not known here. */
static fst_status check_classes(const struct session *s, fst_error *err)
{
    const fst_source *train = s->data.train;
    if (s->place > 0 || s->data.elsewhere || train->classes != 1)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "data: all samples of %s are of one class, \"%s\": two at least are needed, since with one every "
                    "model is always right",
                    train->name, train->class_names ? train->class_names[0] : "0");
}

static fst_status check_images(const struct session *s, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    const fst_shape *shape = &s->data.train->shape;
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
    fst_loader_spec spec = {.source = s->data.train, .batch_size = 1, .transform = s->data.transform};
    fst_status st = check_images(s, err);
    if (!st)
        st = fst_loader_new(&loader, &spec, err);
    fst_loader_free(loader);
    return st ? fst_fail_in(err, st, "data") : FST_OK;
}

/* ---- stages ---------------------------------------------------------------------------------------- */

fst_status fst__check_network(const struct session *s, const struct step *own, const char *network, fst_error *err)
{
    char key[96];
    fst_graph *g = NULL;
    fst__stage_key(own->stage, "model", key, sizeof key);
    if (!network)
        return fst_fail(
            err, FST_E_CONFIG,
            "%s: the network of what it starts from is known when that is there: set model, of a pruned one "
            "with its widths",
            key);
    fst_status st = fst__model_graph(&s->data, network, &g, err);
    fst_graph_free(g);
    return st ? fst_fail_in(err, st == FST_E_MEMORY ? st : FST_E_CONFIG, "%s", key) : FST_OK;
}

fst_status fst__check_stages(const struct session *s, fst_error *err)
{
    fst_status st = check_format(s, err);
    if (!st)
        st = check_classes(s, err);
    if (!st)
        st = check_transform(s, err);
    if (!st)
        st = fst__check_scale(s, err);
    for (size_t i = 0; !st && i < s->steps; i++) {
        const struct step *step = &s->step[i];
        if (step->chosen && step->stage->kind->check)
            st = step->stage->kind->check(s, step, err);
    }
    return st;
}
