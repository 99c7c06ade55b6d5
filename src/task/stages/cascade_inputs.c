/* What the stages of the cascade start from: tiers, batches, models; and what their results depend on. */
#include <stdio.h>
#include <string.h>

#include "cascade.h"

/* ---- which steps -------------------------------------------------------------------------------- */

bool fst__needs_teacher(const struct edge_infer_section *e)
{
    return e->threshold.has_target_accuracy || e->threshold.has_target_time;
}

static const char *model_name(const struct task_file *f, enum step step)
{
    const struct stages_section *s = &f->stages;
    if (step == STEP_EDGE)
        return s->edge_infer.model ? s->edge_infer.model : s->has_federated_train ? "federated_train" : "edge_kd";
    const char *name = step == STEP_CLOUD ? s->cloud_infer.model : s->cloud_direct_infer.model;
    return name ? name : "cloud_pretrain";
}

/* The step whose model a step of the cascade runs; STEPS: a file. */
static enum step model_step(const struct task_file *f, enum step step)
{
    static const enum step makers[] = {STEP_PRETRAIN, STEP_ALONE, STEP_DISTIL, STEP_FEDERATE};
    const char *name = model_name(f, step);
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (!strcmp(fst__step_names[makers[i]], name))
            return makers[i];
    return STEPS;
}

bool fst__infer_needs(const struct task_file *f, enum step step, enum step other)
{
    if (step == STEP_DEVICES)
        return false;
    if (other == STEP_DEVICES || other == model_step(f, step) || (step == STEP_CLOUD && other == STEP_EDGE))
        return true;
    return step == STEP_EDGE && fst__needs_teacher(&f->stages.edge_infer) && other == model_step(f, STEP_CLOUD);
}

/* ---- fingerprints --------------------------------------------------------------------------------- */

/* A file that is missing has no digest; the step that wants it says so when it runs. */
static fst_status add_model(const struct session *s, enum step step, fst_buf *text, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    enum step maker = model_step(f, step);
    char digest[FST_DIGEST_HEX] = "";
    if (maker != STEPS)
        return fst_buf_printf(text, err, "model=%s\n", s->records[maker].digest);
    char *path = fst_path_join(s->task->folder, model_name(f, step));
    if (!path)
        return fst_fail_memory(err, 256);
    if (fst_sha256_file(path, digest, NULL))
        digest[0] = 0;
    fst_free(path);
    return fst_buf_printf(text, err, "model=%s\n", digest);
}

static fst_status add_links(const struct topology_section *t, fst_buf *text, fst_error *err)
{
    const struct link_section *l[] = {&t->links.device_edge, &t->links.edge_cloud, &t->links.device_cloud};
    fst_status st = FST_OK;
    for (int i = 0; !st && i < 3; i++)
        st = fst_buf_printf(text, err, "link=%.17g %.17g\n", l[i]->rate, l[i]->latency);
    return st;
}

fst_status fst__infer_inputs(const struct session *s, enum step step, fst_buf *text, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    struct topology_section t;
    fst_status st = fst__tiers(f, &t, err);
    if (!st)
        st = fst_buf_printf(text, err, "devices=%lld edges=%lld\n", (long long)t.devices, (long long)t.edges);
    if (st || step == STEP_DEVICES)
        return st;
    st = fst_buf_printf(text, err, "device_load=%s\ninterval=%.17g\n", s->records[STEP_DEVICES].digest,
                        f->stages.device_load.interval);
    if (!st)
        st = add_model(s, step, text, err);
    if (!st)
        st = add_links(&t, text, err);
    if (!st && step == STEP_CLOUD)
        st = fst_buf_printf(text, err, "edge_infer=%s %s\n", s->records[STEP_EDGE].digest,
                            s->records[STEP_EDGE].extra_digest);
    if (!st && step == STEP_EDGE && fst__needs_teacher(&f->stages.edge_infer))
        st = add_model(s, STEP_CLOUD, text, err);
    if (!st && step == STEP_EDGE && f->stages.edge_infer.threshold.has_target_time) /* it looks at the cloud's times */
        st = fst_buf_printf(text, err, "cloud=%lld %lld %lld\n", (long long)f->stages.cloud_infer.batch_size,
                            (long long)f->stages.cloud_infer.threads, (long long)f->stages.cloud_infer.repeats);
    return st;
}

/* ---- tiers and models ------------------------------------------------------------------------------- */

fst_status fst__tiers(const struct task_file *f, struct topology_section *out, fst_error *err)
{
    if (!f->has_topology)
        return fst__schema_load(&fst__topology_schema, "topology", "{}", 2, NULL, 0, out, err);
    *out = f->topology;
    return FST_OK;
}

/* A model of exactly the data's classes: logits of both tiers lie side by side. */
static fst_status check_model(const struct session *s, const fst_model *m, const char *name, fst_error *err)
{
    if (m->classes != s->train->classes)
        return fst_fail(err, FST_E_MISMATCH, "it knows %d classes, the data have %d", m->classes, s->train->classes);
    fst_status st = fst_model_check_source(m, name, s->train, err);
    return st ? st : fst_model_check_source(m, name, s->test, err);
}

/* name: of the model where warnings are wanted. */
static fst_status load_tier(const struct session *s, enum step step, const char *name, struct tier_model *out,
                            fst_error *err)
{
    const struct task_file *f = &s->task->file;
    enum step maker = model_step(f, step);
    struct tier_model m = {0};
    snprintf(m.name, sizeof m.name, "%s", model_name(f, step));
    char *path = maker == STEPS ? fst_path_join(s->task->folder, m.name) : NULL;
    fst_status st = maker != STEPS ? fst__load_step_model(s, maker, &m.model, err)
                    : path         ? fst__load_model(path, NULL, &m.model, m.digest, err)
                                   : fst_fail_memory(err, 256);
    if (maker != STEPS)
        memcpy(m.digest, s->records[maker].digest, sizeof m.digest);
    fst_free(path);
    if (!st)
        st = check_model(s, &m.model, name, err);
    if (st) {
        fst_model_release(&m.model);
        return fst_fail_in(err, st, "stages.%s.model: %s", fst__step_names[step], m.name);
    }
    *out = m;
    return FST_OK;
}

fst_status fst__tier_model(const struct session *s, enum step step, struct tier_model *out, fst_error *err)
{
    return load_tier(s, step, NULL, out, err);
}

static bool same_transform(const fst_transform *a, const fst_transform *b)
{
    size_t n = (size_t)a->channels * sizeof *a->mean;
    return a->channels == b->channels && a->fingerprint == b->fingerprint && !memcmp(a->mean, b->mean, n) &&
           !memcmp(a->std, b->std, n);
}

/* A model from a file is tried on the data before anything is trained. One that a stage of this run may still write is
 * checked when it is there. */
static fst_status check_file(const struct session *s, enum step step, fst_error *err)
{
    const char *name = model_name(&s->task->file, step);
    struct tier_model m;
    char *path = fst_path_join(s->task->folder, name);
    if (!path)
        return fst_fail_memory(err, 256);
    size_t n = strlen(s->task->output);
    bool own = !strncmp(path, s->task->output, n) && path[n] == '/';
    fst_free(path);
    if (own || model_step(&s->task->file, step) != STEPS)
        return FST_OK;
    fst_status st = load_tier(s, step, name, &m, err);
    if (st)
        return st;
    fst_transform of_model = fst_model_transform(&m.model);
    if (!same_transform(&of_model, &s->transform))
        fst_log(FST_LOG_INFO,
                "stages.%s.model: %s sees samples as its file says (normalisation, fingerprint), not as "
                "the task's data section does",
                fst__step_names[step], name);
    fst_model_release(&m.model);
    return FST_OK;
}

fst_status fst__check_cascade(const struct session *s, const bool chosen[STAGES], fst_error *err)
{
    const struct edge_infer_section *e = &s->task->file.stages.edge_infer;
    const struct threshold_section *t = &e->threshold;
    const bool edge = chosen[5], teacher = chosen[6] || (edge && fst__needs_teacher(e));
    fst_status st = FST_OK;
    if (edge && !s->validate && (t->has_target_accuracy || t->has_target_offload))
        return fst_fail(err, FST_E_CONFIG,
                        "stages.edge_infer.threshold: a target of accuracy or share is met on "
                        "validation samples: set data.validation, for instance to 0.1");
    if (edge)
        st = check_file(s, STEP_EDGE, err);
    if (!st && teacher)
        st = check_file(s, STEP_CLOUD, err);
    if (!st && chosen[7])
        st = check_file(s, STEP_DIRECT, err);
    return st || !chosen[4] ? st : fst__check_devices(s, err);
}

/* ---- batches ------------------------------------------------------------------------------------------ */

fst_status fst__batches_label(const struct session *s, struct batches *b, fst_error *err)
{
    b->labels = fst_calloc(b->count + 1, sizeof *b->labels);
    b->snr = s->test->snr ? fst_calloc(b->count + 1, sizeof *b->snr) : NULL;
    if (!b->labels || (s->test->snr && !b->snr))
        return fst_fail_memory(err, b->count * sizeof *b->labels);
    for (size_t i = 0; i < b->count; i++) {
        b->labels[i] = s->test->labels[b->index[i]];
        if (b->snr)
            b->snr[i] = s->test->snr[b->index[i]];
    }
    return FST_OK;
}

static fst_status read_list(const fst_safetensors *f, const char *name, size_t *count, uint32_t **out, fst_error *err)
{
    size_t i;
    if (!fst_safetensors_find(f, name, &i))
        return fst_fail(err, FST_E_FORMAT, "no tensor \"%s\"", name);
    fst_tensor t = fst_safetensors_at(f, i);
    size_t n = (size_t)fst_shape_count(&t.shape);
    if (t.dtype != FST_U32 || t.shape.rank != 1)
        return fst_fail(err, FST_E_FORMAT, "\"%s\" is not a list of U32", name);
    *out = fst_calloc(n + 1, sizeof **out);
    if (!*out)
        return fst_fail_memory(err, n * sizeof **out);
    *count = n;
    return fst_safetensors_read(f, i, *out, n * sizeof **out, err);
}

static fst_status check_batches(const struct session *s, const struct batches *b, fst_error *err)
{
    struct topology_section t;
    fst_status st = fst__tiers(&s->task->file, &t, err);
    for (size_t i = 0; !st && i < b->count; i++)
        if (b->index[i] >= s->test->count || b->device[i] >= t.devices)
            st = fst_fail(err, FST_E_FORMAT, "entry %zu: sample %u of device %u; there are %zu samples, %lld devices",
                          i, b->index[i], b->device[i], s->test->count, (long long)t.devices);
    return st;
}

fst_status fst__batches_read(const struct session *s, struct batches *out, fst_error *err)
{
    struct batches b = {0};
    fst_safetensors *f = NULL;
    fst_buf bytes = {0};
    char *path = fst__step_path(s, STEP_DEVICES, s->records[STEP_DEVICES].artifact);
    size_t devices = 0;
    fst_status st = path ? fst__read_artifact(s, STEP_DEVICES, s->records[STEP_DEVICES].artifact, &bytes, err)
                         : fst_fail_memory(err, 256);
    if (!st)
        st = fst_safetensors_open_memory(&f, path, bytes.data, bytes.len, err);
    if (!st)
        st = read_list(f, "index", &b.count, &b.index, err);
    if (!st)
        st = read_list(f, "device", &devices, &b.device, err);
    if (!st && (devices != b.count || !devices))
        st = fst_fail(err, FST_E_FORMAT, "%zu samples of %zu devices", b.count, devices);
    if (!st)
        st = check_batches(s, &b, err);
    if (!st)
        st = fst__batches_label(s, &b, err);
    if (st) {
        fst__batches_release(&b);
        st = fst_fail_in(err, st, "%s", path ? path : "batches");
    } else {
        *out = b;
    }
    fst_safetensors_free(f);
    fst_buf_release(&bytes);
    fst_free(path);
    return st;
}

void fst__batches_release(struct batches *b)
{
    fst_free(b->index);
    fst_free(b->device);
    fst_free(b->labels);
    fst_free(b->snr);
    memset(b, 0, sizeof *b);
}
