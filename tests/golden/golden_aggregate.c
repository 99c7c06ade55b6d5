/* Aggregation rules: rounds of a strategy over the clients of the case, or a robust rule over all of them. */
#include <stdio.h>
#include <string.h>

#include "fedstill/fed.h"
#include "golden.h"

enum { MAX_CLIENTS = 64 };

/* Buffers are what running statistics are named. */
static bool is_buffer(const char *name)
{
    return strstr(name, "running_") != NULL;
}

static json_t *list_of(const struct golden *g, const char *key)
{
    return json_object_get(g->attrs, key);
}

static fst_fed_size size_of(json_t *specs)
{
    fst_fed_size size = {.counters = 1};
    for (size_t i = 0; i < json_array_size(specs); i++) {
        struct spec s = golden_spec(json_array_get(specs, i));
        *(is_buffer(s.name) ? &size.buffers : &size.params) += s.count;
    }
    return size;
}

static void fill_state(struct golden *g, json_t *specs, fst_fed_state *state)
{
    float *param = state->params, *buffer = state->buffers;
    if (!fst_fed_size_equal(size_of(specs), state->size)) {
        golden_fail(g, "states of different sizes");
        return;
    }
    for (size_t i = 0; i < json_array_size(specs); i++) {
        struct spec s = golden_spec(json_array_get(specs, i));
        float *v = golden_fill(g, &s), **to = is_buffer(s.name) ? &buffer : &param;
        memcpy(*to, v, s.count * sizeof *v);
        *to += s.count;
        fst_free(v);
    }
}

/* PREFIX.NAME of each tensor; a spec is called SOMETHING.NAME, with `dots` dots in SOMETHING. */
static void compare_state(struct golden *g, json_t *specs, int dots, const char *prefix, const fst_fed_state *state)
{
    const float *param = state->params, *buffer = state->buffers;
    char name[200];
    for (size_t i = 0; i < json_array_size(specs); i++) {
        struct spec s = golden_spec(json_array_get(specs, i));
        const char *leaf = s.name;
        for (int k = 0; leaf && k <= dots; k++)
            leaf = strchr(leaf + (k > 0), '.');
        const float **from = is_buffer(s.name) ? &buffer : &param;
        snprintf(name, sizeof name, "%s%s", prefix, leaf ? leaf : "");
        golden_compare(g, name, *from, s.count, 0);
        *from += s.count;
    }
}

static void compare_result(struct golden *g, const fst_fed_state *state)
{
    char name[200];
    double counter = (double)state->counters[0];
    compare_state(g, json_array_get(list_of(g, "clients"), 0), 0, "result", state);
    snprintf(name, sizeof name, "result.%s", golden_text(g, "counter", ""));
    golden_compare_double(g, name, &counter, 1, 0);
}

/* ---- strategies --------------------------------------------------------------------------------- */

static bool one_round(struct golden *g, fst_strategy *strategy, uint64_t round, json_t *clients, fst_fed_state *update)
{
    json_t *weights = list_of(g, "weights"), *counters = list_of(g, "counters");
    size_t n = json_array_size(clients);
    fst_error err = {0};
    fst_strategy_begin(strategy, round);
    for (size_t k = 0; k < n; k++) {
        fill_state(g, json_array_get(clients, k), update);
        update->counters[0] = json_integer_value(json_array_get(counters, k));
        fst_message u = fst_message_of("state");
        fst_fed_view view = fst_fed_state_view(update);
        u.client = (uint32_t)k;
        u.round = round;
        u.samples = json_integer_value(json_array_get(weights, k));
        if (fst_message_add_state(&u, &view, &err))
            golden_fail(g, "%s", err.message);
        if (fst_strategy_fold(strategy, &u, &err))
            golden_fail(g, "client %zu: %s", k, err.message);
    }
    if (fst_strategy_aggregate(strategy, NULL, NULL, &err))
        golden_fail(g, "%s", err.message);
    return g->outcome == PASSED;
}

static void rounds(struct golden *g, fst_strategy *strategy, fst_fed_state *global, fst_fed_state *update)
{
    json_t *all = list_of(g, "rounds");
    char prefix[32];
    if (!all) {
        if (one_round(g, strategy, 0, list_of(g, "clients"), update))
            compare_result(g, global);
        return;
    }
    fill_state(g, list_of(g, "server"), global);
    for (size_t r = 0; r < json_array_size(all); r++) {
        json_t *clients = json_array_get(all, r);
        snprintf(prefix, sizeof prefix, "round%zu", r + 1);
        if (!one_round(g, strategy, r, clients, update))
            return;
        compare_state(g, json_array_get(clients, 0), 1, prefix, global);
    }
}

static void run_strategy(struct golden *g, const char *name, fst_fed_size size)
{
    fst_strategy *strategy = NULL;
    fst_fed_state global = {0}, update = {0};
    fst_error err = {0};
    double tau = golden_number(g, "tau", 0), v_init = golden_number(g, "v_init", tau * tau);
    const fst_setting all[] = {{"server.learning_rate", golden_number(g, "lr", 0)},
                               {"server.momentum", golden_number(g, "momentum", 0)},
                               {"server.beta1", golden_number(g, "beta1", 0)},
                               {"server.beta2", golden_number(g, "beta2", 0)},
                               {"server.tau", tau}};
    const fst_strategy_ops *ops = fst_strategy_find(name);
    const fst_server_env env = {.clients = MAX_CLIENTS, .global = &global};
    fst_setting set[5];
    size_t n = 0;
    for (size_t i = 0; i < 5; i++)
        for (const fst_option *o = ops->options; o && o->name; o++)
            if (all[i].value != 0 && !strcmp(o->name, all[i].name))
                set[n++] = all[i];
    if (v_init < 0.999999 * tau * tau || v_init > 1.000001 * tau * tau)
        golden_fail(g, "v_init is %g; strategies start at tau^2, %g", v_init, tau * tau);
    fst_status s = fst_fed_state_init(&global, size, &err);
    if (!s)
        s = fst_strategy_new(&strategy, ops, set, n, &env, &err);
    if (!s)
        s = fst_fed_state_init(&update, size, &err);
    if (s)
        golden_fail(g, "%s", err.message);
    else
        rounds(g, strategy, &global, &update);
    fst_strategy_free(strategy);
    fst_fed_state_release(&global);
    fst_fed_state_release(&update);
}

/* ---- robust rules --------------------------------------------------------------------------------- */

struct crowd {
    fst_fed_state state[MAX_CLIENTS], result;
    fst_fed_view view[MAX_CLIENTS];
    double weight[MAX_CLIENTS];
    size_t n;
};

static fst_status median(struct golden *g, struct crowd *c, fst_error *err)
{
    (void)g;
    return fst_robust_median(c->view, c->n, &c->result, err);
}

static fst_status trimmed_mean(struct golden *g, struct crowd *c, fst_error *err)
{
    return fst_robust_trimmed_mean(c->view, c->n, golden_number(g, "trim", 0), &c->result, err);
}

static fst_status krum(struct golden *g, struct crowd *c, fst_error *err)
{
    size_t chosen[MAX_CLIENTS], m = (size_t)golden_number(g, "m", 1), f = (size_t)golden_number(g, "f", 0);
    double score[MAX_CLIENTS], number[MAX_CLIENTS];
    if (m > MAX_CLIENTS)
        return fst_fail(err, FST_E_LIMIT, "m is %zu", m);
    fst_status s = fst_robust_krum(c->view, c->n, f, m, &c->result, chosen, score, err);
    for (size_t k = 0; !s && k < m; k++)
        number[k] = (double)chosen[k];
    if (!s) {
        golden_compare_double(g, "score", score, c->n, 0);
        golden_compare_double(g, "chosen", number, m, 0);
    }
    return s;
}

static fst_status geometric_median(struct golden *g, struct crowd *c, fst_error *err)
{
    return fst_robust_geometric_median(c->view, list_of(g, "weights") ? c->weight : NULL, c->n,
                                       (int)golden_number(g, "iterations", 0), golden_number(g, "eps", 0), &c->result,
                                       err);
}

static bool open_crowd(struct golden *g, fst_fed_size size, struct crowd *c)
{
    json_t *clients = list_of(g, "clients");
    fst_error err = {0};
    fst_status s = fst_fed_state_init(&c->result, size, &err);
    if (json_array_size(clients) > MAX_CLIENTS) {
        golden_fail(g, "%zu clients; this program takes %d", json_array_size(clients), MAX_CLIENTS);
        return false;
    }
    for (size_t k = 0; !s && k < json_array_size(clients); k++, c->n++) {
        s = fst_fed_state_init(&c->state[k], size, &err);
        if (s)
            break;
        fill_state(g, json_array_get(clients, k), &c->state[k]);
        c->state[k].counters[0] = json_integer_value(json_array_get(list_of(g, "counters"), k));
        c->view[k] = fst_fed_state_view(&c->state[k]);
        c->weight[k] = json_number_value(json_array_get(list_of(g, "weights"), k));
    }
    if (s)
        golden_fail(g, "%s", err.message);
    return g->outcome == PASSED;
}

typedef fst_status (*robust_fn)(struct golden *g, struct crowd *c, fst_error *err);

static void run_robust(struct golden *g, robust_fn rule, fst_fed_size size)
{
    struct crowd *c = fst_calloc(1, sizeof *c);
    fst_error err = {0};
    if (open_crowd(g, size, c)) {
        if (rule(g, c, &err))
            golden_fail(g, "%s", err.message);
        else
            compare_result(g, &c->result);
    }
    for (size_t k = 0; k < c->n; k++)
        fst_fed_state_release(&c->state[k]);
    fst_fed_state_release(&c->result);
    fst_free(c);
}

void golden_aggregate(struct golden *g)
{
    static const struct {
        const char *name;
        robust_fn rule;
    } robust[] = {{"median", median},
                  {"trimmed_mean", trimmed_mean},
                  {"krum", krum},
                  {"multi_krum", krum},
                  {"geometric_median", geometric_median}};
    const char *name = golden_text(g, "aggregate", "?");
    json_t *server = list_of(g, "server");
    fst_fed_size size = size_of(server ? server : json_array_get(list_of(g, "clients"), 0));
    for (size_t i = 0; i < sizeof robust / sizeof *robust; i++)
        if (!strcmp(name, robust[i].name)) {
            run_robust(g, robust[i].rule, size);
            return;
        }
    if (fst_strategy_find(name))
        run_strategy(g, name, size);
    else
        golden_skip(g, name);
}
