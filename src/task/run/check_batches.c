/*
 * What batches a stage will train on, told before it starts: with drop_last there must be a whole one, and without it a
 * last batch of one sample means nothing to a batch norm that sees one value a channel of it. The sizes of batches
 * follow from the numbers of samples alone, so nothing is read or computed here.
 */
#include <stdio.h>

#include "session.h"

/* How samples of one place become batches. */
struct cut {
    const char *stage; /* its name: stages.STAGE is the key */
    int64_t batch;
    bool drop_last;
};

static bool has_single(const struct cut *c, size_t samples)
{
    return c->batch == 1 || (!c->drop_last && samples % (size_t)c->batch == 1);
}

/* Once, whatever number of places it concerns: the run is right, but learns less than its settings say. */
static void warn(const fst_graph *g, const struct cut *c, const char *who)
{
    const char *norm = fst_graph_single_value_norm(g, 1);
    if (norm && c->batch == 1)
        fst_log(
            FST_LOG_WARN,
            "stages.%s.batch_size: batch norm %s sees one value a channel in every batch, which has no variance: it "
            "learns nothing from them. A batch_size above 1 mends that",
            c->stage, norm);
    else if (norm)
        fst_log(
            FST_LOG_WARN,
            "stages.%s: %sthe last batch of an epoch has one sample, of which batch norm %s sees one value a channel: "
            "without a variance its running statistics are left alone. drop_last: true leaves such batches out; "
            "another batch_size avoids them",
            c->stage, who, norm);
}

static fst_status warn_of(const struct session *s, const struct cut *c, const char *model, const char *who,
                          fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(&s->data, model, &g, err);
    if (st)
        return fst_fail_in(err, st, "stages.%s.model", c->stage);
    warn(g, c, who);
    fst_graph_free(g);
    return FST_OK;
}

fst_status fst__check_training_batches(const struct session *s, const struct step *own, const struct training *t,
                                       const fst_graph *network, fst_error *err)
{
    const struct cut c = {own->stage->name, t->batch_size, t->drop_last};
    if (c.drop_last && s->data.cloud.learn < (size_t)c.batch)
        return fst_fail(
            err, FST_E_CONFIG,
            "stages.%s.drop_last: there are %zu samples to learn from, fewer than one batch of %lld: nothing "
            "is left; set a smaller batch_size, or drop_last: false",
            c.stage, s->data.cloud.learn, (long long)c.batch);
    if (!has_single(&c, s->data.cloud.learn))
        return FST_OK;
    if (!network && t->model)
        return warn_of(s, &c, t->model, "", err);
    if (network)
        warn(network, &c, "");
    return FST_OK;
}

fst_status fst__check_client_batches(const struct session *s, const struct step *own, fst_error *err)
{
    const struct federated_section *f = own->stage->settings;
    const struct cut c = {own->stage->name, f->batch_size, f->drop_last};
    const char *noun = s->data.edges ? "edge" : "client";
    size_t small = 0, single = 0, first = 0;
    char who[96];
    fst_partition p = {0};
    fst_status st = fst__clients(&s->data, s->task, &p, err);
    if (st)
        return st;
    for (int k = 0; k < p.clients; k++) {
        size_t n = p.begin[k + 1] - p.begin[k];
        first = !small && n && n < (size_t)c.batch ? (size_t)k + 1 : first;
        small += n && n < (size_t)c.batch;
        single += n && has_single(&c, n);
    }
    if (c.drop_last && small)
        st = fst_fail(err, FST_E_CONFIG,
                      "stages.%s.drop_last: %s %zu has fewer samples than one batch of %lld, so that nothing "
                      "is left to learn from (%zu of %d %ss): set a smaller batch_size, or drop_last: false",
                      c.stage, noun, first, (long long)c.batch, small, p.clients, noun);
    snprintf(who, sizeof who, "for %zu of %d %ss ", single, p.clients, noun);
    if (!st && single)
        st = warn_of(s, &c, own->stage->kind->network(own->stage), who, err);
    fst_partition_release(&p);
    return st;
}
