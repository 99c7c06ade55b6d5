/* What a run would do, told before it does it. Builds graphs and plans to ask them, and trains nothing. */
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

struct work {
    const char *stage, *arch;
    double samples; /* forward passes, or with training forward and backward */
    bool training;
    size_t batch;
    int plans;
    double bytes_up, bytes_down;
    const fst_graph *graph; /* NULL: that of arch */
};

static fst_status tell(const struct session *s, const struct work *w, fst_buf *out, fst_error *err)
{
    char up[32], down[32], mem[32];
    fst_graph *own = NULL;
    double memory = 0;
    fst_status st = w->graph ? FST_OK : fst__model_graph(s, w->arch, &own, err);
    const fst_graph *g = w->graph ? w->graph : own;
    if (!st)
        st = training_memory(g, w->batch, w->plans, s->precision, &memory, err);
    double flops = st ? 0 : fst_graph_flops(g) * w->samples * (w->training ? 3 : 1) / 1e9;
    if (!st)
        st = fst_buf_printf(out, err, "  %-16s %s\n  %-16s %zu parameters, %.0f samples\n", w->stage, w->arch, "",
                            fst_graph_param_count(g), w->samples);
    if (!st)
        st = fst_buf_printf(out, err, "  %-16s %.1f GFLOP, memory %s\n", "", flops, bytes_text(memory, mem));
    if (!st && (w->bytes_up > 0 || w->bytes_down > 0))
        st = fst_buf_printf(out, err, "  %-16s %s%s%s%s%s\n", "", w->bytes_up > 0 ? "up " : "",
                            w->bytes_up > 0 ? bytes_text(w->bytes_up, up) : "",
                            w->bytes_up > 0 && w->bytes_down > 0 ? ", " : "", w->bytes_down > 0 ? "down " : "",
                            w->bytes_down > 0 ? bytes_text(w->bytes_down, down) : "");
    fst_graph_free(own);
    return st;
}

static fst_status state_bytes(const struct session *s, const char *arch, double *out, fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(s, arch, &g, err);
    if (!st)
        *out =
            4.0 * (double)(fst_graph_param_count(g) + fst_graph_buffer_count(g)) + 8.0 * (double)fst_graph_counters(g);
    fst_graph_free(g);
    return st;
}

static double soft_bytes(const struct session *s)
{
    const struct cloud_kd_section *k = &s->task->file.stages.cloud_kd;
    double row = k->encoding == FST_SOFT_F32   ? 4.0 * s->train->classes
                 : k->encoding == FST_SOFT_F16 ? 2.0 * s->train->classes
                                               : 4.0 * (double)k->top_k;
    return (double)s->learn * (row + 16);
}

static fst_status tell_federated(const struct session *s, fst_buf *out, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    const struct federated_section *t = &f->stages.federated_train;
    fst_partition p = {0};
    double state = 0;
    fst_status st = fst__clients(s, &p, err);
    if (st)
        return st;
    size_t clients = (size_t)p.clients, samples = p.begin[clients];
    fst_partition_release(&p);
    size_t drawn = t->clients_per_round ? (size_t)t->clients_per_round : fst_share_of(clients, t->fraction);
    double cohort = drawn ? (double)drawn : 1;
    st = state_bytes(s, fst__federated_model(f), &state, err);
    struct work w = {.stage = "federated_train",
                     .arch = fst__federated_model(f),
                     .samples = (double)samples * cohort / (double)clients * (double)(t->rounds * t->local_epochs),
                     .training = true,
                     .batch = (size_t)t->batch_size,
                     .plans = s->workers,
                     .bytes_up = cohort * (double)t->rounds * state,
                     .bytes_down = cohort * (double)t->rounds * state};
    return st ? st : tell(s, &w, out, err);
}

static fst_status tell_stages(const struct session *s, const bool chosen[STAGES], fst_buf *out, fst_error *err)
{
    const struct stages_section *f = &s->task->file.stages;
    fst_status st = FST_OK;
    if (chosen[0]) {
        const struct training *t = &f->cloud_pretrain;
        struct work w = {"cloud_pretrain",
                         t->model,
                         (double)s->learn * (double)t->epochs,
                         true,
                         (size_t)t->batch_size,
                         s->threads,
                         0,
                         0,
                         NULL};
        st = tell(s, &w, out, err);
    }
    if (!st && chosen[1]) {
        const char *file = fst__teacher_file(&s->task->file);
        fst_model teacher = {0};
        struct work w = {.stage = "cloud_kd",
                         .arch = f->cloud_pretrain.model,
                         .samples = (double)s->learn,
                         .batch = 128,
                         .plans = s->threads,
                         .bytes_down = s->edges ? 0 : soft_bytes(s)};
        if (file)
            st = fst__open_model_file(s, "stages.cloud_kd.teacher", file, &teacher, err);
        if (file && !st) {
            w.arch = teacher.arch;
            w.graph = teacher.graph;
        }
        if (!st)
            st = tell(s, &w, out, err);
        fst_model_release(&teacher);
    }
    if (!st && chosen[2]) {
        const struct training *t = &f->edge_kd.training;
        struct work w = {"edge_kd",
                         t->model,
                         (double)s->learn * (double)t->epochs,
                         true,
                         (size_t)t->batch_size,
                         s->threads,
                         0,
                         f->edge_kd.kd_weight > 0 && !s->edges ? soft_bytes(s) : 0,
                         NULL};
        st = tell(s, &w, out, err);
        if (!st && f->edge_kd.baseline) {
            w.stage = "edge_alone";
            w.bytes_down = 0;
            st = tell(s, &w, out, err);
        }
    }
    return !st && chosen[3] ? tell_federated(s, out, err) : st;
}

/* Samples of the devices, and which network looks at them; how many the edge sends on is not known before. */
static fst_status tell_cascade(const struct session *s, const bool chosen[STAGES], fst_buf *out, fst_error *err)
{
    static const char *const what[] = {"handed over by the devices", "to the student",
                                       "to the teacher, as the threshold says", "to the teacher, all"};
    fst_status st = FST_OK;
    for (int i = 0; !st && i < 4; i++)
        if (chosen[4 + i])
            st = fst_buf_printf(out, err, "  %-16s up to %zu samples %s\n", fst__step_names[STEP_DEVICES + i],
                                s->test->count, what[i]);
    return st;
}

static fst_status tell_places(const struct session *s, fst_buf *out, fst_error *err)
{
    const struct topology_section *t = &s->task->file.topology;
    fst_status st =
        fst_buf_printf(out, err, "  the cloud has %zu + %zu of them (training + validation)\n", s->learn, s->validate);
    for (size_t k = 0; !st && k < s->edges; k++) {
        const struct share *h = &s->edge[k];
        int64_t devices = 0;
        char missing[200];
        bool lacks = fst__missing_classes(s, h, missing, sizeof missing) > 0;
        for (int64_t d = 0; d < t->devices; d++)
            devices += fst__edge_of_device(t, d) == (int64_t)k;
        st = fst_buf_printf(out, err, "  edge %zu, with %lld devices, has %zu + %zu%s%s\n", k + 1, (long long)devices,
                            h->learn, h->validate, lacks ? ", none of " : "", missing);
    }
    return st;
}

fst_status fst_task_dry_run(fst_task *t, const fst_task_options *o, fst_buf *out, fst_error *err)
{
    struct session s = {.dry = true};
    bool chosen[STAGES];
    char shape[64];
    fst__session_init(&s, t, o);
    fst_status st = fst__chosen_stages(t, o, chosen, err);
    if (!st)
        st = fst__check_output(t->output, err);
    if (!st)
        st = fst__session_open_data(&s, err);
    if (!st)
        st = fst__note_samples(&s, err);
    if (!st)
        st = fst__check_stages(&s, chosen, err);
    if (!st)
        st = fst__check_needs(&s, chosen, err);
    if (!st)
        st = fst_task_dump(t, out, err);
    if (!st)
        st = fst_buf_printf(out, err,
                            "\n# The work ahead (what is up to date already is not done again):\n"
                            "  data: %zu training samples, %zu for validation, %zu for testing,\n"
                            "        %s, %d classes\n",
                            s.edges ? s.train->count : s.learn, s.edges ? 0 : s.validate, s.test->count,
                            fst_shape_text(&s.train->shape, shape, sizeof shape), s.train->classes);
    if (!st && s.edges)
        st = tell_places(&s, out, err);
    if (!st)
        st = tell_stages(&s, chosen, out, err);
    if (!st)
        st = tell_cascade(&s, chosen, out, err);
    fst__session_close(&s);
    return st;
}
