/* Optimisers, of clients and servers, and schedules. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/fed.h"
#include "golden.h"

/* ---- optimisers ------------------------------------------------------------------------------- */

static bool optim_of(const struct golden *g, fst_optim_spec *o)
{
    const char *name = golden_text(g, "optimizer", "");
    json_t *betas = json_object_get(g->attrs, "betas");
    *o = (fst_optim_spec){.learning_rate = golden_number(g, "lr", 0),
                          .weight_decay = golden_number(g, "weight_decay", 0),
                          .momentum = golden_number(g, "momentum", 0),
                          .nesterov = golden_number(g, "nesterov", 0) != 0,
                          .beta1 = json_number_value(json_array_get(betas, 0)),
                          .beta2 = json_number_value(json_array_get(betas, 1)),
                          .eps = golden_number(g, "eps", 0),
                          .clip_norm = golden_number(g, "max_norm", 0)};
    if (!strcmp(name, "sgd"))
        o->kind = FST_OPTIM_SGD;
    else if (!strcmp(name, "adam"))
        o->kind = FST_OPTIM_ADAM;
    else if (!strcmp(name, "adamw"))
        o->kind = FST_OPTIM_ADAMW;
    else
        return false;
    return true;
}

static bool server_of(const struct golden *g, fst_server_spec *o)
{
    const char *name = golden_text(g, "optimizer", "");
    *o = (fst_server_spec){.learning_rate = golden_number(g, "lr", 0),
                           .beta1 = golden_number(g, "beta1", 0),
                           .beta2 = golden_number(g, "beta2", 0),
                           .tau = golden_number(g, "tau", 0),
                           .v_init = golden_number(g, "v_init", 0)};
    for (int k = FST_SERVER_ADAGRAD; k <= FST_SERVER_YOGI; k++) {
        char full[64];
        snprintf(full, sizeof full, "server_%s", fst_server_kind_name((fst_server_kind)k));
        o->kind = (fst_server_kind)k;
        if (!strcmp(name, full))
            return true;
    }
    return false;
}

/* The spans of a case, and whichever optimiser works on them. */
struct course {
    float *params, *grads;
    size_t count;
    fst_optim optim;
    fst_server_optim server;
    bool at_server;
};

static void read_gradients(struct golden *g, const struct course *c, int step)
{
    struct spec p, s;
    size_t at = 0;
    char name[160];
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        snprintf(name, sizeof name, "grad%d.%s", step, p.name);
        if (!golden_find(g, "gradients", name, &s) || s.count != p.count) {
            golden_fail(g, "no %s", name);
            return;
        }
        float *v = golden_fill(g, &s);
        memcpy(c->grads + at, v, s.count * sizeof *v);
        at += s.count;
        fst_free(v);
    }
}

static void client_step(struct golden *g, struct course *c, int step)
{
    char name[160];
    fst_optim_input in = {.grads = &c->grads, .parts = 1, .learning_rate = c->optim.spec.learning_rate};
    double norm = fst_optim_step(&c->optim, c->params, &in, NULL);
    snprintf(name, sizeof name, "total_norm%d", step);
    if (golden_has(g, name))
        golden_compare_double(g, name, &norm, 1, 0);
}

/* In two parts, as a caller that works in blocks does. */
static void server_step(struct course *c)
{
    size_t half = c->count / 2;
    double *delta = fst_calloc(c->count, sizeof *delta);
    for (size_t i = 0; i < c->count; i++)
        delta[i] = (double)c->grads[i];
    fst_server_optim_step(&c->server, half, c->count - half, delta + half, c->params + half);
    fst_server_optim_step(&c->server, 0, half, delta, c->params);
    fst_free(delta);
}

static void optim_step(struct golden *g, struct course *c, int step)
{
    struct spec p;
    size_t at = 0;
    char name[160];
    read_gradients(g, c, step);
    if (c->at_server)
        server_step(c);
    else
        client_step(g, c, step);
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        snprintf(name, sizeof name, "step%d.%s", step, p.name);
        golden_compare(g, name, c->params + at, p.count, 0);
        at += p.count;
    }
}

void golden_optim(struct golden *g)
{
    fst_optim_spec spec;
    fst_server_spec server;
    struct course c = {0};
    struct spec p;
    size_t at = 0;
    fst_error err = {0};
    c.at_server = server_of(g, &server);
    if (!c.at_server && !optim_of(g, &spec)) {
        golden_skip(g, golden_text(g, "optimizer", "?"));
        return;
    }
    for (size_t i = 0; golden_at(g, "params", i, &p); i++)
        c.count += p.count;
    c.params = fst_calloc(c.count + 1, sizeof *c.params);
    c.grads = fst_calloc(c.count + 1, sizeof *c.grads);
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        float *v = golden_fill(g, &p);
        memcpy(c.params + at, v, p.count * sizeof *v);
        at += p.count;
        fst_free(v);
    }
    int steps = (int)golden_number(g, "steps", 0);
    if (!c.count || steps < 1)
        golden_fail(g, "nothing to do");
    else if (c.at_server ? fst_server_optim_init(&c.server, &server, c.count, &err)
                         : fst_optim_init(&c.optim, &spec, c.count, &err))
        golden_fail(g, "%s", err.message);
    for (int k = 1; k <= steps && g->outcome == PASSED; k++)
        optim_step(g, &c, k);
    fst_optim_release(&c.optim);
    fst_server_optim_release(&c.server);
    fst_free(c.params);
    fst_free(c.grads);
}

/* ---- schedules -------------------------------------------------------------------------------- */

static bool schedule_of(const struct golden *g, fst_schedule *s)
{
    const char *name = golden_text(g, "schedule", "");
    json_t *milestones = json_object_get(g->attrs, "milestones");
    *s = (fst_schedule){.eta_min = golden_number(g, "eta_min", 0),
                        .gamma = golden_number(g, "gamma", 0),
                        .total = (int64_t)golden_number(g, "t_max", golden_number(g, "total", 0)),
                        .warmup = (int64_t)golden_number(g, "warmup", 0),
                        .step_size = (int64_t)golden_number(g, "step_size", 0)};
    for (size_t i = 0; i < json_array_size(milestones) && i < FST_MAX_MILESTONES; i++)
        s->milestones[s->milestone_count++] = json_integer_value(json_array_get(milestones, i));
    if (!strcmp(name, "cosine"))
        s->kind = FST_SCHEDULE_COSINE;
    else if (!strcmp(name, "multistep"))
        s->kind = FST_SCHEDULE_MULTISTEP;
    else if (!strcmp(name, "step"))
        s->kind = FST_SCHEDULE_STEP;
    else if (!strcmp(name, "warmup_cosine"))
        s->kind = FST_SCHEDULE_WARMUP_COSINE;
    else
        return false;
    return true;
}

void golden_schedule(struct golden *g)
{
    fst_schedule s;
    size_t epochs = (size_t)golden_number(g, "epochs", 0);
    if (!schedule_of(g, &s)) {
        golden_skip(g, golden_text(g, "schedule", "?"));
        return;
    }
    double *got = fst_calloc(epochs + 1, sizeof *got);
    for (size_t e = 0; e < epochs; e++)
        got[e] = fst_schedule_rate(&s, golden_number(g, "base_lr", 0), (int64_t)e);
    golden_compare_double(g, "lr", got, epochs, 0);
    fst_free(got);
}
