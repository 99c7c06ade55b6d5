/* Aggregation rules: one round of a strategy over the clients of the case. */
#include <stdio.h>
#include <string.h>

#include "fedstill/fed.h"
#include "golden.h"

/* The i-th client's specs, and how many floats they hold; buffers are what running statistics are named. */
static bool is_buffer(const char *name)
{
    return strstr(name, "running_") != NULL;
}

static json_t *client_specs(const struct golden *g, size_t k)
{
    return json_array_get(json_object_get(g->attrs, "clients"), k);
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
    for (size_t i = 0; i < json_array_size(specs); i++) {
        struct spec s = golden_spec(json_array_get(specs, i));
        float *v = golden_fill(g, &s), **to = is_buffer(s.name) ? &buffer : &param;
        memcpy(*to, v, s.count * sizeof *v);
        *to += s.count;
        fst_free(v);
    }
}

static void compare_state(struct golden *g, json_t *specs, const fst_fed_state *state)
{
    const float *param = state->params, *buffer = state->buffers;
    char name[200];
    for (size_t i = 0; i < json_array_size(specs); i++) {
        struct spec s = golden_spec(json_array_get(specs, i));
        const char *leaf = strchr(s.name, '.'); /* clientK.NAME */
        const float **from = is_buffer(s.name) ? &buffer : &param;
        snprintf(name, sizeof name, "result%s", leaf ? leaf : "");
        golden_compare(g, name, *from, s.count, 0);
        *from += s.count;
    }
    double counter = (double)state->counters[0];
    snprintf(name, sizeof name, "result.%s", golden_text(g, "counter", ""));
    golden_compare_double(g, name, &counter, 1, 0);
}

static void one_round(struct golden *g, fst_strategy *strategy, fst_fed_state *global, fst_fed_state *update)
{
    json_t *weights = json_object_get(g->attrs, "weights"), *counters = json_object_get(g->attrs, "counters");
    size_t n = json_array_size(json_object_get(g->attrs, "clients"));
    fst_error err = {0};
    fst_strategy_begin(strategy, 0);
    for (size_t k = 0; k < n; k++) {
        fill_state(g, client_specs(g, k), update);
        update->counters[0] = json_integer_value(json_array_get(counters, k));
        fst_update u = {.client = (uint32_t)k,
                        .samples = json_integer_value(json_array_get(weights, k)),
                        .state = fst_fed_state_view(update)};
        if (fst_strategy_fold(strategy, &u, &err))
            golden_fail(g, "client %zu: %s", k, err.message);
    }
    if (fst_strategy_publish(strategy, global, NULL, &err))
        golden_fail(g, "%s", err.message);
    else
        compare_state(g, client_specs(g, 0), global);
}

void golden_aggregate(struct golden *g)
{
    const char *name = golden_text(g, "aggregate", "?");
    fst_strategy *strategy = NULL;
    fst_fed_state global = {0}, update = {0};
    fst_error err = {0};
    if (!fst_strategy_find(name)) {
        golden_skip(g, name);
        return;
    }
    fst_fed_size size = size_of(client_specs(g, 0));
    fst_status s = fst_strategy_new(&strategy, name, NULL, size, &err);
    if (!s)
        s = fst_fed_state_init(&global, size, &err);
    if (!s)
        s = fst_fed_state_init(&update, size, &err);
    if (s)
        golden_fail(g, "%s", err.message);
    else
        one_round(g, strategy, &global, &update);
    fst_strategy_free(strategy);
    fst_fed_state_release(&global);
    fst_fed_state_release(&update);
}
