/*
 * Structured pruning: which channels matter least, and the model without them. Which channels belong together is nn's
 * affair. Looks at weights alone, trains nothing; the result does not depend on threads.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zoo.h"

const char *fst_importance_name(fst_importance i)
{
    return i == FST_IMPORTANCE_L1 ? "l1" : "batchnorm";
}

struct group { /* of channels that are removed together */
    fst_channel_group info;
    double *score; /* by channel */
    int sources;   /* layers or norms that it is the sum of; 0: it is not judged and stays */
    bool *removed;
    int *keep;
    int64_t left;
};

struct job {
    const fst_model *model;
    const fst_prune *o;
    fst_channels *channels;
    struct group *groups;
    size_t count;
};

static void release(struct job *j)
{
    for (size_t k = 0; j->groups && k < j->count; k++) {
        fst_free(j->groups[k].score);
        fst_free(j->groups[k].removed);
        fst_free(j->groups[k].keep);
    }
    fst_free(j->groups);
    fst_channels_free(j->channels);
}

/* ---- importance -------------------------------------------------------------------------------------------- */

/* Adds the magnitudes of each channel's row of a parameter to sum. */
static void add_rows(const fst_model *m, size_t param, double *sum)
{
    const fst_param_info p = fst_graph_param(m->graph, param);
    size_t rows = (size_t)p.shape.dim[0], width = p.count / rows;
    for (size_t i = 0; i < p.count; i++)
        sum[i / width] += fabs((double)m->state.params[p.offset + i]);
}

static bool is_norm(const fst_node_info *n)
{
    return !strcmp(n->op, "batchnorm2d") || !strcmp(n->op, "complex_batchnorm");
}

/* A layer that makes its group's channels: not a depthwise convolution, which filters each. */
static bool makes(const fst_node_info *n)
{
    return n->params && !is_norm(n) && n->groups <= 1;
}

/* A layer's part of its group's score. */
static fst_status judge_layer(const struct job *j, const fst_node_info *n, struct group *g, fst_error *err)
{
    size_t channels = (size_t)g->info.channels;
    double *sum = fst_calloc(channels, sizeof *sum), square = 0;
    bool l1 = j->o->importance == FST_IMPORTANCE_L1;
    if (!sum)
        return fst_fail_memory(err, channels * sizeof *sum);
    for (size_t k = 0; k < n->params; k++)
        if (l1 ? fst_graph_param(j->model->graph, n->first_param + k).shape.rank > 1 : k == 0)
            add_rows(j->model, n->first_param + k, sum);
    for (size_t i = 0; i < channels; i++)
        square += sum[i] * sum[i];
    double scale = l1 && square > 0 ? 1 / sqrt(square) : 1;
    for (size_t i = 0; i < channels; i++)
        g->score[i] += sum[i] * scale;
    g->sources++;
    fst_free(sum);
    return isfinite(square) ? FST_OK
                            : fst_fail(err, FST_E_NUMERIC, "%s: a weight is infinite or not a number", n->name);
}

static fst_status judge(struct job *j, fst_error *err)
{
    const fst_graph *g = j->model->graph;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < fst_graph_layers(g); i++) {
        int k = fst_channels_of(j->channels, (fst_value)i);
        const fst_node_info n = fst_graph_node(g, (fst_value)i);
        bool counts = k >= 0 && (j->o->importance == FST_IMPORTANCE_L1 ? makes(&n) : is_norm(&n));
        if (counts)
            s = judge_layer(j, &n, &j->groups[k], err);
    }
    for (size_t k = 0; !s && k < j->count; k++)
        for (int64_t i = 0; i < j->groups[k].info.channels; i++)
            j->groups[k].score[i] /= j->groups[k].sources ? j->groups[k].sources : 1;
    return s;
}

/* ---- choice ------------------------------------------------------------------------------------------------ */

struct candidate {
    double score;
    size_t group;
    int64_t channel;
};

static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    if (x->group != y->group)
        return x->group > y->group ? -1 : 1;
    return x->channel > y->channel ? -1 : x->channel < y->channel;
}

/* How many of so many a ratio is; 0.3 of 10 are 3, whatever 0.3 is in binary. */
static int64_t part(double ratio, int64_t of)
{
    return (int64_t)(ratio * (double)of + 1e-9);
}

/* Removes `most` of n candidates, the least important first, and leaves every group what it needs. */
static void remove_least(struct job *j, struct candidate *c, size_t n, int64_t most)
{
    qsort(c, n, sizeof *c, by_score);
    for (size_t i = 0; most > 0 && i < n; i++) {
        struct group *g = &j->groups[c[i].group];
        int64_t tenth = j->o->global ? (g->info.channels + 9) / 10 : 1;
        if (g->left <= g->info.least || g->left <= tenth)
            continue;
        g->removed[c[i].channel] = true;
        g->left--;
        most--;
    }
}

static size_t add_candidates(const struct job *j, size_t k, struct candidate *out)
{
    const struct group *g = &j->groups[k];
    size_t n = g->sources ? (size_t)g->info.channels : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (struct candidate){g->score[i], k, (int64_t)i};
    return n;
}

static fst_status choose(struct job *j, fst_error *err)
{
    size_t all = 0, n = 0;
    for (size_t k = 0; k < j->count; k++)
        all += (size_t)j->groups[k].info.channels;
    struct candidate *c = fst_calloc(all, sizeof *c);
    if (!c)
        return fst_fail_memory(err, all * sizeof *c);
    for (size_t k = 0; k < j->count; k++) {
        n = j->o->global ? n : 0;
        n += add_candidates(j, k, c + n);
        if (!j->o->global)
            remove_least(j, c, n, part(j->o->ratio, (int64_t)n));
    }
    if (j->o->global)
        remove_least(j, c, n, part(j->o->ratio, (int64_t)n));
    fst_free(c);
    return FST_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------- */

static fst_status narrow_state(const struct job *j, fst_model *out, fst_error *err)
{
    fst_channel_pick *pick = fst_calloc(j->count, sizeof *pick);
    if (!pick)
        return fst_fail_memory(err, j->count * sizeof *pick);
    for (size_t k = 0; k < j->count; k++) {
        struct group *g = &j->groups[k];
        int n = 0;
        for (int i = 0; i < g->info.channels; i++)
            if (!g->removed[i])
                g->keep[n++] = i;
        pick[k] = (fst_channel_pick){g->keep, n};
    }
    fst_state_narrow(&out->state, out->graph, &j->model->state, j->channels, pick);
    fst_free(pick);
    return FST_OK;
}

static fst_status make(const struct job *j, fst_model *out, fst_error *err)
{
    fst_model p = {0};
    bool fewer = false;
    fst_status s = fst__model_copy_head(&p, j->model, err);
    for (size_t k = 0; k < j->count; k++)
        fewer = fewer || j->groups[k].left < j->groups[k].info.channels;
    for (size_t k = 0; fewer && k < j->count; k++)
        p.config.widths[k] = (int)j->groups[k].left;
    if (!s)
        s = fst_model_graph(&p.graph, p.arch, &p.config, err);
    if (!s)
        s = fst_state_init(&p.state, p.graph, err);
    if (!s)
        s = narrow_state(j, &p, err);
    if (s) {
        fst_model_release(&p);
        return s;
    }
    *out = p;
    return FST_OK;
}

/* The zoo's networks that have channels to remove, or norms to judge them by. */
static void list_networks(bool norms, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < fst_models(); i++) {
        fst_graph *g = NULL;
        fst_channels *c = NULL;
        const char *name = fst_model_at(i).name;
        bool there = !fst_model_graph(&g, name, NULL, NULL) && !fst_channels_new(&c, g, NULL);
        bool takes = there && !norms && fst_channels_groups(c) > 0;
        for (size_t v = 0; there && norms && v < fst_graph_layers(g); v++) {
            fst_node_info n = fst_graph_node(g, (fst_value)v);
            takes = takes || (is_norm(&n) && fst_channels_of(c, (fst_value)v) >= 0);
        }
        if (takes && at < size)
            at += (size_t)snprintf(out + at, size - at, at ? ", %s" : "%s", name);
        fst_channels_free(c);
        fst_graph_free(g);
    }
}

static fst_status refuse(const fst_model *m, bool norms, fst_error *err)
{
    char list[512];
    list_networks(norms, list, sizeof list);
    return fst_fail(err, FST_E_UNSUPPORTED, "%s has no %s; networks that have: %s", m->arch,
                    norms ? "batch norms after channels that can be removed" : "channels that can be removed", list);
}

static fst_status check(const fst_model *m, const fst_prune *o, fst_error *err)
{
    if (!(o->ratio >= 0 && o->ratio < 1))
        return fst_fail(err, FST_E_CONFIG, "the ratio of channels that are removed is 0 to below 1, not %g", o->ratio);
    if (o->importance != FST_IMPORTANCE_L1 && o->importance != FST_IMPORTANCE_BATCHNORM)
        return fst_fail(err, FST_E_ARGUMENT, "there is no importance %d", (int)o->importance);
    return fst_model_need_f32(m, m->arch, "cannot be pruned", err);
}

/* The groups, not judged yet. */
static fst_status open_groups(struct job *j, fst_error *err)
{
    fst_status s = fst_channels_new(&j->channels, j->model->graph, err);
    if (s)
        return s;
    size_t count = fst_channels_groups(j->channels);
    if (!count)
        return refuse(j->model, false, err);
    if (count > FST_MODEL_WIDTHS)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s has %zu groups of channels; at most %d are described",
                        j->model->arch, count, FST_MODEL_WIDTHS);
    j->groups = fst_calloc(count, sizeof *j->groups);
    if (!j->groups)
        return fst_fail_memory(err, count * sizeof *j->groups);
    j->count = count;
    for (size_t k = 0; k < count; k++) {
        struct group *g = &j->groups[k];
        g->info = fst_channels_group(j->channels, k);
        g->left = g->info.channels;
        size_t n = (size_t)g->left;
        g->score = fst_calloc(n, sizeof *g->score);
        g->removed = fst_calloc(n, sizeof *g->removed);
        g->keep = fst_calloc(n, sizeof *g->keep);
        if (!g->score || !g->removed || !g->keep)
            return fst_fail_memory(err, n * sizeof *g->score);
    }
    return FST_OK;
}

fst_status fst_model_prune(fst_model *out, const fst_model *m, const fst_prune *o, fst_error *err)
{
    struct job j = {.model = m, .o = o};
    bool judged = false;
    fst_status s = check(m, o, err);
    if (!s)
        s = open_groups(&j, err);
    if (!s)
        s = judge(&j, err);
    for (size_t k = 0; !s && k < j.count; k++)
        judged = judged || j.groups[k].sources;
    if (!s && !judged)
        s = refuse(m, true, err);
    if (!s)
        s = choose(&j, err);
    if (!s)
        s = make(&j, out, err);
    release(&j);
    return s;
}
