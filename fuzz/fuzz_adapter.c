/* The saved bytes of a fusion at the server (fedstill/fuse.h), for a full adapter (an even first byte) or one of low
 * rank. What is taken is saved as the same bytes, and fuses to finite numbers or says why not; what is refused changes
 * nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/fed.h"
#include "fedstill/fuse.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum { FEATURES = 5, HIDDEN = 4, CLASSES = 3, ROUND = 2 };

static void must(bool fine)
{
    if (!fine)
        abort();
}

static fst_graph *network(const char *first, int hidden)
{
    fst_graph *g = NULL;
    fst_error err;
    must(!fst_graph_new(&g, &err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(FEATURES));
    x = fst_graph_relu(g, fst_graph_linear(g, x, first, hidden, true));
    must(!fst_graph_finish(g, fst_graph_linear(g, x, "last", CLASSES, true), &err));
    return g;
}

/* Values that are the same in every run. */
static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i % 7) / 7 - 0.4f;
}

static struct {
    fst_graph *small, *large;
    float *teacher;
    fst_fed_state global;
} w;

static void set_up(void)
{
    fst_error err;
    w.small = network("conv", HIDDEN);
    w.large = network("first", 6);
    w.teacher = calloc(fst_graph_param_count(w.large), sizeof *w.teacher);
    must(w.teacher != NULL && !fst_fed_state_init(&w.global, fst_graph_fed_size(w.small), &err));
    fill(w.teacher, fst_graph_param_count(w.large));
}

static fst_fuser *make(bool low_rank)
{
    fst_fuser *f = NULL;
    fst_error err;
    const fst_server_env env = {.seed = 1,
                                .clients = 2,
                                .classes = CLASSES,
                                .global = &w.global,
                                .graph = w.small,
                                .compute = {.threads = 1, .backend = "reference"}};
    const fst_fuser_spec spec = {
        .fusion = {.rank = low_rank ? 2 : 0, .d_attention = 4, .heads = 2, .layers = 1, .gate = 0.2, .clip_norm = 50},
        .target = "conv.weight",
        .source = "first.weight",
        .start_round = 1,
        .every = 1,
        .steps = 1,
        .learning_rate = 0.01};
    must(!fst_fuser_new(&f, &spec, &env, w.large, w.teacher, &err));
    return f;
}

static void fuse(const fst_after *after)
{
    fst_error err = {0};
    fill(w.global.params, w.global.size.params);
    if (after->run(after->ctx, ROUND, &w.global, NULL, &err)) {
        must(err.message[0]);
        return;
    }
    for (size_t i = 0; i < w.global.size.params; i++)
        must(isfinite(w.global.params[i]));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_error err = {0};
    fst_buf before = {0}, now = {0};
    if (!size)
        return 0;
    if (!w.small)
        set_up();
    fst_fuser *f = make(data[0] & 1);
    const fst_after *after = fst_fuser_after(f);
    must(!after->save(after->ctx, &before, NULL));
    fst_status st = after->load(after->ctx, data + 1, size - 1, &err);
    must(st ? st == FST_E_FORMAT && err.message[0] : true);
    must(!after->save(after->ctx, &now, NULL));
    must(now.len == (st ? before.len : size - 1));
    must(!memcmp(now.data, st ? (const unsigned char *)before.data : data + 1, now.len));
    if (!st)
        fuse(after);
    fst_buf_release(&before);
    fst_buf_release(&now);
    fst_fuser_free(f);
    return 0;
}
