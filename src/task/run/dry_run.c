/* What a run would do, told before it does it: the task with all defaults, the data, and the work of every chosen
 * stage, which its kind describes. Builds graphs and plans to ask them, and trains nothing. */
#include <stdio.h>
#include <string.h>

#include "session.h"

static const char *bytes_text(double n, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    for (; n >= 1000 && u < 4; u++)
        n /= 1000;
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", n, units[u]);
    return out;
}

/* Of a model in int8, which is not trained. */
static fst_status inference_memory(const fst_graph *g, size_t batch, int plans, double *out, fst_error *err)
{
    enum { ROWS = 32 }; /* of a plan, at most, about */
    fst_plan *plan = NULL;
    fst_plan_options o = {.batch = batch < ROWS ? (int64_t)batch : ROWS, .measure = true};
    fst_status st = fst_plan_new(&plan, g, &o, err);
    if (!st)
        *out = (double)plans * (double)fst_plan_arena_bytes(plan) + (double)fst_graph_param_count(g) * sizeof(float);
    fst_plan_free(plan);
    return st;
}

/* Arena of one training plan of the model, times the plans that live at once, plus spans. */
static fst_status training_memory(const fst_graph *g, size_t batch, int plans, fst_precision precision, double *out,
                                  fst_error *err)
{
    fst_plan *plan = NULL;
    fst_trainer *trainer = NULL;
    fst_trainer_options o = {.batch_size = batch, .threads = 1, .precision = precision};
    fst_status st = fst_trainer_new(&trainer, g, &o, err);
    fst_plan_options po = {
        .batch = st ? 1 : (int64_t)fst_trainer_shard(trainer), .training = true, .precision = precision};
    if (!st)
        st = fst_plan_new(&plan, g, &po, err);
    if (!st) {
        size_t shards = (batch + fst_trainer_shard(trainer) - 1) / fst_trainer_shard(trainer);
        size_t alive = shards < (size_t)plans ? shards : (size_t)plans;
        if (fst_trainer_plans(trainer) > alive) /* batch norm: all shards are under way at once */
            alive = fst_trainer_plans(trainer);
        *out = (double)alive * (double)fst_plan_arena_bytes(plan) +
               (double)(3 + shards) * (double)fst_graph_param_count(g) * sizeof(float);
    }
    fst_plan_free(plan);
    fst_trainer_free(trainer);
    return st;
}

fst_status fst__tell_work(const struct session *s, const struct step *own, const struct work *w, fst_buf *out,
                          fst_error *err)
{
    char up[32], down[32], mem[32], held[32];
    fst_graph *made = NULL;
    double memory = 0;
    fst_status st = w->graph ? FST_OK : fst__model_graph(&s->data, w->network, &made, err);
    const fst_graph *g = w->graph ? w->graph : made;
    if (!st)
        st = fst_graph_is_int8(g) ? inference_memory(g, w->batch, w->plans, &memory, err)
                                  : training_memory(g, w->batch, w->plans, s->machine.precision, &memory, err);
    double flops = st ? 0 : fst_graph_flops(g) * w->samples * (w->training ? 3 : 1) / 1e9;
    if (!st)
        st = fst_buf_printf(out, err, "  %-16s %s\n  %-16s %zu parameters, %.0f samples\n", own->stage->name,
                            w->network, "", fst_graph_param_count(g), w->samples);
    if (!st)
        st = fst_buf_printf(out, err, "  %-16s %.1f GFLOP, memory %s\n", "", flops, bytes_text(memory, mem));
    if (!st && (w->bytes_up > 0 || w->bytes_down > 0))
        st = fst_buf_printf(out, err, "  %-16s %s%s%s%s%s\n", "", w->bytes_up > 0 ? "up " : "",
                            w->bytes_up > 0 ? bytes_text(w->bytes_up, up) : "",
                            w->bytes_up > 0 && w->bytes_down > 0 ? ", " : "", w->bytes_down > 0 ? "down " : "",
                            w->bytes_down > 0 ? bytes_text(w->bytes_down, down) : "");
    if (!st && w->bytes_held > 0)
        st = fst_buf_printf(out, err, "  %-16s the server holds all updates of a round: %s\n", "",
                            bytes_text(w->bytes_held, held));
    fst_graph_free(made);
    return st;
}

fst_status fst__tell_later(const struct step *own, const char *key, fst_buf *out, fst_error *err)
{
    const struct stage *other = fst__stage_read(own->stage, key, 0);
    return fst_buf_printf(out, err, "  %-16s the network that %s leaves, which is known when that is done\n",
                          own->stage->name, other ? other->name : key);
}

fst_status fst__tell_fusion(const fst_fusion_size *size, fst_buf *out, fst_error *err)
{
    char mem[32];
    return fst_buf_printf(out, err, "  %-16s fusion at the server: adapter of %zu parameters, memory %s besides\n", "",
                          size->parameters, bytes_text((double)size->bytes, mem));
}

fst_status fst__tell_sentence(const char *text, fst_buf *out, fst_error *err)
{
    enum { COLUMNS = 61 }; /* after the first 19 */
    fst_status st = FST_OK;
    while (!st && *text) {
        size_t n = strlen(text);
        for (size_t i = n > COLUMNS ? COLUMNS : 0; i > 0; i--)
            if (text[i] == ' ') {
                n = i;
                break;
            }
        st = fst_buf_printf(out, err, "  %-16s %.*s\n", "", (int)n, text);
        text += n + (text[n] == ' ');
    }
    return st;
}

fst_status fst__state_bytes(const struct session *s, const char *network, double *out, fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(&s->data, network, &g, err);
    if (!st)
        *out =
            4.0 * (double)(fst_graph_param_count(g) + fst_graph_buffer_count(g)) + 8.0 * (double)fst_graph_counters(g);
    fst_graph_free(g);
    return st;
}

static fst_status tell_places(const struct session *s, fst_buf *out, fst_error *err)
{
    const struct topology_section *t = &s->task->file.topology;
    fst_status st = fst_buf_printf(out, err, "  the cloud has %zu + %zu of them (training + validation)\n",
                                   s->data.cloud.learn, s->data.cloud.validate);
    for (size_t k = 0; !st && k < s->data.edges; k++) {
        const struct share *h = &s->data.edge[k];
        int64_t devices = 0;
        char missing[200];
        bool lacks = fst__missing_classes(&s->data, h, missing, sizeof missing) > 0;
        for (int64_t d = 0; d < t->devices; d++)
            devices += fst__edge_of_device(t, d) == (int64_t)k;
        st = fst_buf_printf(out, err, "  edge %zu, with %lld devices, has %zu + %zu%s%s\n", k + 1, (long long)devices,
                            h->learn, h->validate, lacks ? ", none of " : "", missing);
    }
    return st;
}

static fst_status tell_data(const struct session *s, fst_buf *out, fst_error *err)
{
    const struct samples *d = &s->data;
    char shape[64];
    fst_status st =
        fst_buf_printf(out, err,
                       "\n# The work ahead (what is up to date already is not done again):\n"
                       "  data: %zu training samples, %zu for validation, %zu for testing,\n"
                       "        %s, %d classes\n",
                       d->edges ? d->train->count : d->cloud.learn, d->edges ? 0 : d->cloud.validate, d->test->count,
                       fst_shape_text(&d->train->shape, shape, sizeof shape), d->train->classes);
    return !st && d->edges ? tell_places(s, out, err) : st;
}

static fst_status tell_all(struct session *s, fst_buf *out, fst_error *err)
{
    fst_status st = fst__choose_steps(s, err);
    if (!st)
        st = fst__check_output(s->task->output, err);
    if (!st)
        st = fst__session_open_data(s, err);
    if (!st)
        st = fst__note_samples(&s->data, &s->task->file.data, err);
    if (!st)
        st = fst__check_stages(s, err);
    if (!st)
        st = fst__check_needs(s, err);
    if (!st)
        st = fst_task_dump(s->task, out, err);
    if (!st)
        st = tell_data(s, out, err);
    for (size_t i = 0; !st && i < s->steps; i++)
        if (s->step[i].chosen)
            st = s->step[i].stage->kind->tell(s, &s->step[i], out, err);
    return st;
}

fst_status fst_task_dry_run(fst_task *t, const fst_task_options *o, fst_buf *out, fst_error *err)
{
    struct session *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->dry = true;
    fst_status st = fst__session_init(s, t, o, err);
    if (!st)
        st = tell_all(s, out, err);
    fst__session_close(s);
    fst_free(s);
    return st;
}
