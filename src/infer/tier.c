/*
 * A model that answers windows as they come, to the bits of fst_infer_logits over the same samples.
 *
 * Logits depend on the plan that computes them, that is on the rows of a call, though not on what the other rows are.
 * So a tier has one runner of `batch` rows, which fills a call up with zeroes, as that of fst_infer_logits fills its
 * last batch up; and windows go through the arithmetic of a loader (the model's own transform).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apply.h"

struct fst_tier {
    const fst_model *model;
    const fst_state *state; /* the model's, or: */
    fst_state mapped;       /* the same with parameters in a file */
    size_t mapped_bytes;
    fst_source *shape_of; /* one sample of zeroes: what the transformer learns the shape from */
    void *zeroes;
    int32_t label;
    fst_transformer *transformer;
    fst_runner *runner;
    fst_tier_spec spec;
    size_t elements, bytes;
    float *x;
};

static fst_status prepare(fst_tier *t, fst_error *err)
{
    const fst_measure_spec how = {
        .batch_size = t->spec.batch, .backend = t->spec.backend, .precision = t->spec.precision};
    const fst_transform own = fst_model_transform(t->model);
    t->elements = (size_t)fst_shape_count(&t->spec.shape);
    t->bytes = t->elements * fst_dtype_size(t->spec.dtype);
    t->zeroes = fst_calloc(t->bytes, 1);
    t->x = fst_alloc(t->spec.batch * t->elements * sizeof *t->x);
    if (!t->zeroes || !t->x)
        return fst_fail_memory(err, t->spec.batch * t->elements * sizeof *t->x);
    fst_status st = fst_source_from_memory(&t->shape_of, "windows", t->spec.dtype, &t->spec.shape, 1, t->zeroes,
                                           &t->label, t->model->classes, err);
    if (!st)
        st = fst_model_check_source(t->model, NULL, t->shape_of, err);
    if (!st)
        st = fst_transformer_new(&t->transformer, &own, t->shape_of, err);
    return st ? st : fst__model_runner(&t->runner, t->model, &how, t->spec.batch, t->spec.threads, err);
}

fst_status fst_tier_new(fst_tier **out, const fst_model *m, const fst_tier_spec *spec, fst_error *err)
{
    if (!spec->batch || (spec->dtype != FST_U8 && spec->dtype != FST_F32) || !(spec->temperature > 0))
        return fst_fail(err, FST_E_ARGUMENT, "a tier has a batch, samples of U8 or F32, and a temperature above 0");
    fst_tier *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    t->model = m;
    t->state = &m->state;
    t->spec = *spec;
    fst_status st = prepare(t, err);
    if (st)
        fst_tier_free(t);
    else
        *out = t;
    return st;
}

void fst_tier_free(fst_tier *t)
{
    if (!t)
        return;
    fst_runner_free(t->runner);
    fst_transformer_free(t->transformer);
    fst_source_close(t->shape_of);
    fst_free(t->zeroes);
    fst_free(t->x);
    if (t->mapped_bytes)
        munmap(t->mapped.params, t->mapped_bytes);
    fst_free(t);
}

/* ---- memory ---- */

enum { LARGE = 16384 }; /* values; smaller tensors stay in memory */

/* A file without a name that holds the parameters. */
static fst_status write_params(const fst_state *state, const char *folder, int *fd, fst_error *err)
{
    size_t bytes = state->param_count * sizeof(float), done = 0;
    char *path = fst_path_join(folder, "parameters.tmp.XXXXXX");
    *fd = path ? mkostemp(path, O_CLOEXEC) : -1;
    fst_status st = !path ? fst_fail_memory(err, 256) : *fd < 0 ? fst_fail_errno(err, "%s", path) : FST_OK;
    if (!st)
        unlink(path);
    while (!st && done < bytes) {
        ssize_t n = write(*fd, (const char *)state->params + done, bytes - done);
        if (n < 0 && errno != EINTR)
            st = fst_fail_errno(err, "%s", path);
        done += n > 0 ? (size_t)n : 0;
    }
    fst_free(path);
    return st;
}

/* The whole pages of a large tensor, from and to as offsets in the span; false: it is a small one. */
static bool pages_of(const fst_graph *g, size_t i, size_t *from, size_t *to)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const fst_param_info p = fst_graph_param(g, i);
    *from = (p.offset * sizeof(float) + page - 1) / page * page;
    *to = (p.offset + p.count) * sizeof(float) / page * page;
    return p.count >= LARGE && *to > *from;
}

/* Parameters of their own pages for small tensors, which kernels read as they are, and of the file's for large ones:
 * next to a page of a file that is read the system brings in others, and small tensors stand between large ones. */
static fst_status map_params(fst_tier *t, const char *folder, fst_error *err)
{
    const fst_state *state = &t->model->state;
    size_t bytes = state->param_count * sizeof(float), from, to;
    int fd = -1;
    char *map = MAP_FAILED;
    fst_status st = write_params(state, folder, &fd, err);
    if (!st)
        map = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!st && map == MAP_FAILED)
        st = fst_fail_errno(err, "memory for parameters");
    for (size_t i = 0, done = 0; !st && i <= fst_graph_params(t->model->graph); i++) {
        bool large = i < fst_graph_params(t->model->graph) && pages_of(t->model->graph, i, &from, &to);
        size_t own_to = large ? from : i < fst_graph_params(t->model->graph) ? done : bytes;
        memcpy(map + done, (const char *)state->params + done, own_to - done);
        done = own_to;
        if (large && mmap(map + from, to - from, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)from) == MAP_FAILED)
            st = fst_fail_errno(err, "parameters in %s", folder);
        done = large ? to : done;
    }
    if (fd >= 0)
        close(fd);
    if (st && map != MAP_FAILED)
        munmap(map, bytes + 1);
    if (st)
        return st;
    t->mapped = *state;
    t->mapped.params = (float *)(void *)map;
    t->mapped_bytes = bytes + 1;
    return FST_OK;
}

/* All that is made of the parameters is made by the first pass. */
static fst_status rehearse(fst_tier *t, fst_error *err)
{
    const void *window = t->zeroes;
    float *logits = fst_alloc((size_t)t->model->classes * sizeof *logits);
    if (!logits)
        return fst_fail_memory(err, (size_t)t->model->classes * sizeof *logits);
    fst_status st = fst_tier_logits(t, &window, 1, logits, err);
    fst_free(logits);
    return st;
}

static void read_from(fst_tier *t, const fst_state *state)
{
    t->state = state;
    fst_runner_hold(t->runner, state);
}

fst_status fst_tier_settle(fst_tier *t, fst_model *m, const char *folder, fst_error *err)
{
    if (m != t->model || t->mapped_bytes)
        return fst_fail(err, FST_E_ARGUMENT, "a tier settles once, with its own model");
    fst_status st = map_params(t, folder, err);
    if (st)
        return st;
    read_from(t, &t->mapped);
    st = rehearse(t, err);
    if (st) {
        read_from(t, &m->state);
        munmap(t->mapped.params, t->mapped_bytes);
        t->mapped_bytes = 0;
        return st;
    }
    for (size_t i = 0, from, to; i < fst_graph_params(m->graph); i++)
        if (pages_of(m->graph, i, &from, &to)) /* what is read again comes back */
            madvise((char *)t->mapped.params + from, to - from, MADV_DONTNEED);
    fst_free(m->state.params);
    m->state.params = NULL;
    return FST_OK;
}

const fst_tier_spec *fst_tier_look(const fst_tier *t)
{
    return &t->spec;
}

const fst_model *fst_tier_model(const fst_tier *t)
{
    return t->model;
}

fst_status fst_tier_logits(fst_tier *t, const void *const *windows, size_t n, float *logits, fst_error *err)
{
    if (!n || n > t->spec.batch)
        return fst_fail(err, FST_E_ARGUMENT, "%zu windows for a tier of %zu", n, t->spec.batch);
    for (size_t i = 0; i < n; i++)
        fst_transformer_apply(t->transformer, windows[i], t->x + i * t->elements);
    return fst_runner_logits(t->runner, t->state, t->x, n, logits, err);
}

void fst_tier_judge(const fst_tier *t, const float *logits, fst_tier_answer *out)
{
    int32_t answer = 0;
    double confidence = 0;
    for (int k = 0; k < t->model->classes; k++)
        if (!isfinite(logits[k])) {
            *out = (fst_tier_answer){.answer = -1};
            return;
        }
    fst_predict(logits, 1, t->model->classes, &answer);
    if (fst_confidence(t->spec.kind, logits, 1, t->model->classes, t->spec.temperature, &confidence, NULL))
        answer = -1;
    *out = (fst_tier_answer){.answer = answer, .confidence = confidence, .sure = confidence >= t->spec.threshold};
}
