/* What the stages of the cascade start from: tiers, batches, models; and what their results depend on. */
#include <stdio.h>
#include <string.h>

#include "cascade.h"

/* ---- fingerprints --------------------------------------------------------------------------------- */

bool fst__needs_teacher(const struct edge_infer_section *e)
{
    return e->threshold.has_target_accuracy || e->threshold.has_target_time;
}

/* A file that is missing has no digest; the step that wants it says so when it runs. */
static fst_status add_model(const struct session *s, const struct step *own, const char *key, fst_buf *text,
                            fst_error *err)
{
    const struct step *maker = fst__step_read(s, own, key, 0);
    char digest[FST_DIGEST_HEX] = "";
    fst_status st = maker ? FST_OK : fst__file_digest(s, fst__stage_file(own->stage, key, 0), digest, err);
    return st ? st : fst_buf_printf(text, err, "model=%s\n", maker ? maker->record.digest : digest);
}

static fst_status add_links(const struct topology_section *t, fst_buf *text, fst_error *err)
{
    const struct link_section *l[] = {&t->links.device_edge, &t->links.edge_cloud, &t->links.device_cloud};
    fst_status st = FST_OK;
    for (int i = 0; !st && i < 3; i++)
        st = fst_buf_printf(text, err, "link=%.17g %.17g\n", l[i]->rate, l[i]->latency);
    return st;
}

/* What edge_infer knows of the cloud. */
static fst_status add_cloud(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    const struct edge_infer_section *e = own->stage->settings;
    const struct stage *cloud = fst__stage_read(own->stage, "cloud", 0);
    const struct cloud_infer_section *c = cloud ? cloud->settings : NULL;
    fst_status st = c ? add_model(s, own, FST__TEACHER, text, err) : FST_OK;
    if (!st && c && e->threshold.has_target_time) /* it looks at the cloud's times */
        st = fst_buf_printf(text, err, "cloud=%lld %lld %lld\n", (long long)c->batch_size, (long long)c->threads,
                            (long long)c->repeats);
    return st;
}

fst_status fst__infer_inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    const struct step *devices = fst__step_read(s, own, "devices", 0), *edge = fst__step_read(s, own, "edge", 0);
    struct topology_section t;
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst__tiers(&s->task->file, &t, err);
    if (!st)
        st = fst_buf_printf(text, err, "devices=%lld edges=%lld\n", (long long)t.devices, (long long)t.edges);
    if (st || !devices)
        return st;
    const struct device_load_section *d = devices->stage->settings;
    st = fst_buf_printf(text, err, "device_load=%s\ninterval=%.17g\n", devices->record.digest, d->interval);
    if (!st)
        st = add_model(s, own, "model", text, err);
    if (!st)
        st = add_links(&t, text, err);
    if (!st && edge)
        st = fst_buf_printf(text, err, "edge_infer=%s %s\n", edge->record.digest, edge->record.extra_digest);
    if (!st && own->stage->kind->leaves == FST__LEAVES_ANSWERS)
        st = add_cloud(s, own, text, err);
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
    if (m->classes != s->data.train->classes)
        return fst_fail(err, FST_E_MISMATCH, "it knows %d classes, the data have %d", m->classes,
                        s->data.train->classes);
    fst_status st = fst_model_check_source(m, name, s->data.train, err);
    return st ? st : fst_model_check_source(m, name, s->data.test, err);
}

/* "stages.NAME.model": where the setting of a reference stands. */
static const char *key_of(const struct step *own, const char *key, char *out, size_t size)
{
    const struct stage *at = !strcmp(key, FST__TEACHER)   ? fst__stage_read(own->stage, "cloud", 0)
                             : !strcmp(key, FST__STUDENT) ? fst__stage_read(own->stage, "edge", 0)
                                                          : own->stage;
    return fst__stage_key(at, "model", out, size);
}

/* name: of the model where warnings are wanted. */
static fst_status load_tier(const struct session *s, const struct step *own, const char *key, const char *name,
                            struct tier_model *out, fst_error *err)
{
    const struct step *maker = fst__step_read(s, own, key, 0);
    const char *file = fst__stage_file(own->stage, key, 0);
    struct tier_model m = {0};
    char full[96];
    snprintf(m.name, sizeof m.name, "%s", maker ? maker->stage->name : file);
    char *path = maker ? NULL : fst_path_join(s->task->folder, file);
    fst_status st = maker  ? fst__load_step_model(s, maker, &m.model, err)
                    : path ? fst__load_model(path, NULL, &m.model, m.digest, err)
                           : fst_fail_memory(err, 256);
    if (maker)
        memcpy(m.digest, maker->record.digest, sizeof m.digest);
    fst_free(path);
    if (!st)
        st = check_model(s, &m.model, name, err);
    if (st) {
        fst_model_release(&m.model);
        return fst_fail_in(err, st, "%s: %s", key_of(own, key, full, sizeof full), m.name);
    }
    *out = m;
    return FST_OK;
}

fst_status fst__tier_model(const struct session *s, const struct step *own, const char *key, struct tier_model *out,
                           fst_error *err)
{
    return load_tier(s, own, key, NULL, out, err);
}

static bool same_transform(const fst_transform *a, const fst_transform *b)
{
    size_t n = (size_t)a->channels * sizeof *a->mean;
    return a->channels == b->channels && a->fingerprint == b->fingerprint && !memcmp(a->mean, b->mean, n) &&
           !memcmp(a->std, b->std, n);
}

/* A model from a file is tried on the data before anything is trained. One that a stage of this run may still write is
 * checked when it is there. */
fst_status fst__check_tier(const struct session *s, const struct step *own, const char *key, fst_error *err)
{
    const char *name = fst__stage_file(own->stage, key, 0);
    struct tier_model m;
    char full[96];
    char *path = name ? fst_path_join(s->task->folder, name) : NULL;
    if (!name)
        return FST_OK;
    if (!path)
        return fst_fail_memory(err, 256);
    size_t n = strlen(s->task->output);
    bool of_run = !strncmp(path, s->task->output, n) && path[n] == '/';
    fst_free(path);
    if (of_run)
        return FST_OK;
    fst_status st = load_tier(s, own, key, name, &m, err);
    if (st)
        return st;
    fst_transform of_model = fst_model_transform(&m.model);
    if (!same_transform(&of_model, &s->data.transform))
        fst_log(FST_LOG_INFO,
                "%s: %s sees samples as its file says (normalisation, fingerprint), not as "
                "the task's data section does",
                key_of(own, key, full, sizeof full), name);
    fst_model_release(&m.model);
    return FST_OK;
}

/* ---- batches ------------------------------------------------------------------------------------------ */

fst_status fst__batches_label(const struct session *s, struct batches *b, fst_error *err)
{
    b->labels = fst_calloc(b->count + 1, sizeof *b->labels);
    b->snr = s->data.test->snr ? fst_calloc(b->count + 1, sizeof *b->snr) : NULL;
    if (!b->labels || (s->data.test->snr && !b->snr))
        return fst_fail_memory(err, b->count * sizeof *b->labels);
    for (size_t i = 0; i < b->count; i++) {
        b->labels[i] = s->data.test->labels[b->index[i]];
        if (b->snr)
            b->snr[i] = s->data.test->snr[b->index[i]];
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
        if (b->index[i] >= s->data.test->count || b->device[i] >= t.devices)
            st = fst_fail(err, FST_E_FORMAT, "entry %zu: sample %u of device %u; there are %zu samples, %lld devices",
                          i, b->index[i], b->device[i], s->data.test->count, (long long)t.devices);
    return st;
}

fst_status fst__batches_read(const struct session *s, const struct step *own, struct batches *out, fst_error *err)
{
    const struct step *from = fst__step_read(s, own, "devices", 0);
    struct batches b = {0};
    fst_safetensors *f = NULL;
    fst_buf bytes = {0};
    char *path = fst__step_path(s, from, from->record.artifact);
    size_t devices = 0;
    fst_status st = path ? fst__read_artifact(s, from, from->record.artifact, &bytes, err) : fst_fail_memory(err, 256);
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
