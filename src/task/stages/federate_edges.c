/*
 * What the edges of a topology make of models: each measures on its own validation samples, and keeps a last local
 * model beside the global one. Where the edges are is decided here: in this process their samples are read; elsewhere
 * they are given the model and answer with two whole numbers.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "federate.h"

/* ---- on their validation samples ------------------------------------------------------------------------ */

static fst_status validate_here(struct federation *f, size_t k, const fst_state *state, struct score *out,
                                fst_error *err)
{
    const struct share *h = &f->s->data.edge[k];
    return fst__evaluate(f->s, f->model->graph, state, f->s->data.train, h->index + h->learn, h->validate, out, err);
}

/* given: room, one buffer a model. */
static fst_status ask_edges(struct federation *f, const fst_state *const *of, size_t models, fst_buf *given,
                            struct score *score, fst_error *err)
{
    const fst_task_options *o = f->s->options;
    const struct samples *d = &f->s->data;
    fst_client_figures *each = f->figures;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < models; k++)
        if (of[k] && (models == 1 || d->edge[k].validate))
            st = fst__federate_pack(f, of[k], &given[k], err);
    for (size_t k = 0; k < d->edges; k++)
        each[k] = (fst_client_figures){.has = false};
    if (!st)
        st = o->ask(o->rounds_ctx, f->own->stage->name, f->round, given, models, each, err);
    for (size_t k = 0; !st && k < d->edges; k++) {
        if (!each[k].has)
            continue;
        if (each[k].samples != d->edge[k].validate || each[k].right > each[k].samples)
            return fst_fail(err, FST_E_CONFIG, "edge %zu knew %llu of %llu validation samples, it said it has %zu",
                            k + 1, (unsigned long long)each[k].right, (unsigned long long)each[k].samples,
                            d->edge[k].validate);
        score[k].samples = (size_t)each[k].samples;
        score[k].accuracy = (double)each[k].right / (double)each[k].samples;
    }
    return st;
}

fst_status fst__federate_validate(struct federation *f, const fst_state *const *of, size_t models, struct score *score,
                                  fst_error *err)
{
    const struct samples *d = &f->s->data;
    fst_buf *given = d->elsewhere ? fst_calloc(models, sizeof *given) : NULL;
    fst_status st = d->elsewhere && !given ? fst_fail_memory(err, models * sizeof *given) : FST_OK;
    for (size_t k = 0; k < d->edges; k++)
        score[k] = FST__NO_SCORE;
    for (size_t k = 0; !st && !d->elsewhere && k < d->edges; k++) {
        const fst_state *state = of[models == 1 ? 0 : k];
        if (state && d->edge[k].validate)
            st = validate_here(f, k, state, &score[k], err);
    }
    if (!st && d->elsewhere)
        st = ask_edges(f, of, models, given, score, err);
    for (size_t k = 0; given && k < models; k++)
        fst_buf_release(&given[k]);
    fst_free(given);
    return st;
}

/* ---- their last local models ------------------------------------------------------------------------------ */

/* An edge that never finished a round has no model; one of an earlier run must not stand for it. */
static fst_status remove_edge(struct federation *f, size_t k, fst_error *err)
{
    char name[64];
    snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
    char *path = fst__step_path(f->s, f->own, name);
    if (!path)
        return fst_fail_memory(err, sizeof name);
    fst_status st = unlink(path) && errno != ENOENT ? fst_fail_errno(err, "%s", path) : FST_OK;
    fst_free(path);
    return st;
}

static fst_status write_edge(struct federation *f, size_t k, struct record *r, struct score *test, fst_error *err)
{
    char name[64];
    fst_model m = *f->model;
    m.state = f->edge[k];
    snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
    fst_status st = fst__evaluate_test(f->s, m.graph, &m.state, test, err);
    return st ? st : fst__write_model(f->s, f->own, &m, r, name, test->accuracy, r->edge[k].digest, err);
}

static void tell_edge(const struct federation *f, size_t k, const struct edge_figures *e)
{
    fst_field fields[] = {FST_INT("edge", (int64_t)k + 1),
                          FST_INT("samples", e->samples),
                          FST_DOUBLE("test_accuracy", e->accuracy),
                          FST_DOUBLE("own_accuracy", e->own_accuracy),
                          FST_INT("rounds", e->rounds),
                          FST_STRING("missing_classes", e->missing)};
    fst__emit(&f->s->books, "edge", fields, sizeof fields / sizeof *fields);
}

static fst_status save_edge(struct federation *f, size_t k, struct record *r, fst_error *err)
{
    const struct share *h = &f->s->data.edge[k];
    struct edge_figures *e = &r->edge[k];
    struct score test = FST__NO_SCORE;
    e->rounds = f->rounds_of[k];
    e->samples = (int64_t)h->learn;
    e->validation = (int64_t)h->validate;
    fst_status st = e->rounds ? write_edge(f, k, r, &test, err) : remove_edge(f, k, err);
    e->accuracy = test.accuracy;
    fst__missing_classes(&f->s->data, h, e->missing, sizeof e->missing);
    return st;
}

fst_status fst__federate_save_edges(struct federation *f, struct record *r, fst_error *err)
{
    size_t edges = f->s->data.edges;
    const fst_state *of[FST__MAX_EDGES], *global = &f->model->state;
    fst_status st = FST_OK;
    for (size_t k = 0; k < edges; k++)
        of[k] = f->rounds_of[k] ? &f->edge[k] : NULL;
    for (size_t k = 0; !st && k < edges; k++)
        st = save_edge(f, k, r, err);
    if (!st && edges)
        st = fst__federate_validate(f, of, edges, f->worth, err);
    for (size_t k = 0; k < edges; k++)
        r->edge[k].own_accuracy = f->worth[k].accuracy;
    if (!st && edges)
        st = fst__federate_validate(f, &global, 1, f->worth, err);
    for (size_t k = 0; k < edges; k++) {
        r->edge[k].global_accuracy = f->worth[k].accuracy;
        if (!st)
            tell_edge(f, k, &r->edge[k]);
    }
    r->edges = st ? 0 : edges;
    return st;
}
