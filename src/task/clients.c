/*
 * The clients of federated_train and their samples: with a topology the edges, each with its share, else as many as the
 * task names, among whom the samples to learn from are dealt. Both come from the shares that session_data.c settled, so
 * samples of validation and test belong to no client. Nothing is trained and nothing is written here.
 */
#include <stdio.h>
#include <string.h>

#include "session.h"

static fst_status reserve(fst_partition *p, size_t samples, fst_error *err)
{
    size_t clients = (size_t)p->clients;
    p->index = fst_calloc(samples, sizeof *p->index);
    p->begin = fst_calloc(clients + 1, sizeof *p->begin);
    p->counts = fst_calloc(clients * (size_t)p->classes, sizeof *p->counts);
    if (p->index && p->begin && p->counts)
        return FST_OK;
    fst_partition_release(p);
    return fst_fail_memory(err, samples * sizeof *p->index);
}

/* The edges' samples to learn from; the cloud's and those of validation are nobody's. */
static fst_status of_edges(const struct session *s, fst_partition *out, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    fst_partition p = {
        .clients = (int)s->edges, .classes = s->train->classes, .samples = s->train->count, .seed = (uint64_t)f->seed};
    size_t total = 0;
    for (size_t k = 0; k < s->edges; k++)
        total += s->edge[k].learn;
    fst_status st = reserve(&p, total, err);
    if (st)
        return st;
    for (size_t k = 0; k < s->edges; k++) {
        const struct share *h = &s->edge[k];
        memcpy(p.index + p.begin[k], h->index, h->learn * sizeof *h->index);
        p.begin[k + 1] = p.begin[k] + h->learn;
        for (size_t i = 0; i < h->learn; i++)
            p.counts[k * (size_t)p.classes + (size_t)s->train->labels[h->index[i]]]++;
    }
    memcpy(p.data_digest, s->train->digest, sizeof p.data_digest);
    if (f->data.edge_path_count)
        snprintf(p.method, sizeof p.method, "own");
    else
        snprintf(p.method, sizeof p.method, "dirichlet(%.9g)", f->topology.alpha);
    *out = p;
    return FST_OK;
}

static fst_status dealt(const struct session *s, fst_partition *out, fst_error *err)
{
    const struct clients_section *c = &s->task->file.clients;
    const fst_partition_spec spec = {.subset = s->order,
                                     .subset_count = s->learn,
                                     .kind = (fst_partition_kind)c->partition,
                                     .clients = (int)c->count,
                                     .alpha = c->alpha,
                                     .classes_per_client = (int)c->classes_per_client,
                                     .min_samples = (size_t)c->min_samples,
                                     .seed = (uint64_t)s->task->file.seed};
    return fst_partition_make(out, s->train, &spec, err);
}

fst_status fst__clients(const struct session *s, fst_partition *out, fst_error *err)
{
    fst_status st = s->edges ? of_edges(s, out, err) : dealt(s, out, err);
    return st ? fst_fail_in(err, st, "clients") : FST_OK;
}
