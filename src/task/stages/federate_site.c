/*
 * One client of a task's federated stages, as a process of its own at a site.
 *
 * Data flow: task and options -> session with the samples (its own files alone where it has such), nothing run -> the
 * client's share. A message of the server -> the stage's federation, which is made when it is first asked for ->
 * fst_client_work, to the bits that a virtual client of the same number computes in a simulation.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "federate.h"
#include "fusion.h"
#include "supervised.h"

/* One federated stage as the site sees it. */
struct site_stage {
    struct federation f;
    fst_model model;
    fst_client *client;
    bool has_model, open;
};

struct fst_task_site {
    struct session session;
    uint32_t client;
    fst_task_identity identity;
    struct site_stage *stage; /* [session.steps] */
    bool resting;             /* the samples are not open */
    int classes;              /* as the server knows it, see fst_task_site_learn_of; 0: it did not say */
    char whole[FST_DIGEST_HEX];
};

/* ---- who it is ------------------------------------------------------------------------------------------ */

fst_status fst_task_site_digest(const fst_task *t, char out[FST_DIGEST_HEX], fst_error *err)
{
    fst_buf lines = {0};
    fst_sha256 sha;
    fst_status st = fst_task_site_settings(t, &lines, err);
    if (st)
        return st;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, lines.data, lines.len);
    fst_sha256_final(&sha, out);
    fst_buf_release(&lines);
    return FST_OK;
}

/* Paths of data differ between hosts; digests tell what is there. */
fst_status fst_task_site_settings(const fst_task *t, fst_buf *out, fst_error *err)
{
    fst_buf all = {0};
    fst_status st = fst_task_settings(t, &all, err);
    for (size_t at = 0; !st && at < all.len;) {
        const char *line = all.data + at, *end = memchr(line, '\n', all.len - at);
        size_t n = end ? (size_t)(end - line) + 1 : all.len - at;
        bool path = !strncmp(line, "data.path=", 10) || !strncmp(line, "data.edge_paths.", 16);
        if (!path)
            st = fst_buf_append(out, line, n, err);
        at += n;
    }
    fst_buf_release(&all);
    return st;
}

fst_status fst__client_digest(const struct samples *d, const fst_partition *p, uint32_t client,
                              char out[FST_DIGEST_HEX], fst_error *err)
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, d->test->digest, strlen(d->test->digest));
    for (size_t i = p->begin[client]; i < p->begin[client + 1]; i++) {
        fst_hash128 key;
        fst_status st = fst_source_key(d->train, p->index[i], &key, err);
        if (st)
            return st;
        fst_sha256_update(&sha, &key, sizeof key);
        fst_sha256_update(&sha, &d->train->labels[p->index[i]], sizeof *d->train->labels);
    }
    fst_sha256_final(&sha, out);
    return FST_OK;
}

static void describe_place(const struct samples *d, uint32_t client, fst_task_identity *id)
{
    memcpy(id->data, d->place[client], sizeof id->data);
    memcpy(id->samples, d->own.samples, sizeof id->samples);
    memcpy(id->names, d->own.names, sizeof id->names);
    memcpy(id->common, d->own.common, sizeof id->common);
    id->classes = d->own.classes;
}

static fst_status identify(fst_task_site *s, fst_error *err)
{
    const struct samples *d = &s->session.data;
    fst_task_identity *id = &s->identity;
    fst_partition p = {0};
    fst_status st = fst__clients(d, s->session.task, &p, err);
    if (st)
        return st;
    if (s->client >= (uint32_t)p.clients) {
        st = fst_fail(err, FST_E_CONFIG, "there is no %s %u: the task has %d", fst__federate_noun(&s->session),
                      (unsigned)s->client + 1, p.clients);
    } else {
        size_t at = p.begin[s->client], n = p.begin[s->client + 1] - at;
        id->client = s->client;
        id->learn = n;
        id->validate = d->edges ? d->edge[s->client].validate : 0;
        fst__missing_of(d->train, p.index + at, n, id->missing, sizeof id->missing);
        if (!d->places)
            st = fst__client_digest(d, &p, s->client, id->data, err);
        else
            describe_place(d, s->client, id);
    }
    fst_partition_release(&p);
    return st ? st : fst_task_site_digest(s->session.task, id->task, err);
}

const fst_task_identity *fst_task_site_identity(const fst_task_site *s)
{
    return &s->identity;
}

fst_status fst_task_clients(const fst_task *t, uint32_t *count, const char **noun, fst_error *err)
{
    const struct task_file *f = &t->file;
    fst_partition p = {0};
    fst_status st = FST_OK;
    if (!fst__has_kind(f, "federated_train"))
        return fst_fail(err, FST_E_CONFIG, "%s has no federated stage (of the kind federated_train)", t->path);
    *noun = f->has_topology ? "edge" : "client";
    *count = (uint32_t)(f->has_topology ? f->topology.edges : f->clients.count);
    if (f->has_topology || !f->clients.partition_file)
        return FST_OK;
    char *path = fst_path_join(t->folder, f->clients.partition_file);
    st = path ? fst_partition_read(&p, path, err) : fst_fail_memory(err, 256);
    *count = (uint32_t)p.clients;
    fst_partition_release(&p);
    fst_free(path);
    return st;
}

/* ---- a stage -------------------------------------------------------------------------------------------- */

static void close_stage(struct site_stage *g)
{
    fst_client_free(g->client);
    fst__federate_clients_release(&g->f);
    fst_partition_release(&g->f.partition);
    fst_partition_release(&g->f.validation);
    if (g->has_model)
        fst_model_release(&g->model);
    *g = (struct site_stage){.open = false};
}

/* What all sites' samples together are; a site has only its own. */
static void take_in_whole(fst_task_site *s)
{
    fst_source *train = s->session.data.train;
    if (s->resting || !s->session.data.places)
        return;
    train->classes = s->classes ? s->classes : train->classes;
    if (*s->whole)
        snprintf(train->digest, sizeof train->digest, "%s", s->whole);
}

static void release_samples(fst_task_site *s)
{
    fst__samples_release(&s->session.data);
    s->session.data = (struct samples){.nowned = 0};
}

void fst_task_site_rest(fst_task_site *s)
{
    for (size_t i = 0; i < s->session.steps; i++)
        close_stage(&s->stage[i]);
    fst__forget_runner(&s->session);
    release_samples(s);
    fst_backends_forget();
    s->resting = true;
}

fst_status fst__federate_elsewhere(const struct step *own, fst_error *err)
{
    const struct federated_section *c = own->stage->settings;
    const fst_strategy_ops *ops = fst_strategy_at((size_t)c->strategy);
    if (ops->flags & FST_SAME_MODEL && ops->flags & FST_OWN_MODEL && !(ops->flags & FST_MENTORS))
        return fst_fail(
            err, FST_E_CONFIG,
            "%s: %s has the clients' models answer together, and in a fleet no place has them all: fedstill "
            "run does this stage in one process",
            own->stage->name, ops->name);
    for (size_t i = 0; i < own->stage->read_count; i++) {
        const struct stage_read *r = &own->stage->reads[i];
        if (strcmp(r->ref->key, "init") && strcmp(r->ref->key, FST__FUSION_TEACHER) && /* the server reads those */
            strcmp(r->ref->key, FST__LOCAL_LABELS))                                    /* and labels are made there */
            return fst_fail(err, FST_E_CONFIG,
                            "%s: %s is read at the clients, and sites of a fleet are not sent what other stages leave "
                            "it: fedstill run does this stage in one process",
                            own->stage->name, r->ref->key);
    }
    const struct stage *labels = fst__stage_read(own->stage, FST__LOCAL_LABELS, 0);
    if (labels && !fst__at_clients(labels))
        return fst_fail(
            err, FST_E_CONFIG,
            "%s: %s labels the samples at the cloud, and sites of a fleet are not sent labels: set at_clients: "
            "true there",
            own->stage->name, labels->name);
    return FST_OK;
}

static fst_status open_stage(fst_task_site *s, struct step *own, struct site_stage *g, fst_error *err)
{
    struct federation *f = &g->f;
    fst_setting settings[FST_STRATEGY_OPTIONS];
    const struct share *public = &s->session.data.public;
    *f = (struct federation){.s = &s->session,
                             .own = own,
                             .section = own->stage->settings,
                             .model = &g->model,
                             .alone = true,
                             .client = s->client};
    f->ops = fst_strategy_at((size_t)f->section->strategy);
    f->apart = !(f->ops->flags & FST_SAME_MODEL);
    f->mentors = f->ops->flags & FST_MENTORS;
    size_t n = fst__strategy_settings(&f->section->options, f->ops, settings);
    fst_status st = fst__federate_elsewhere(own, err);
    if (!st)
        st = fst__new_model(&s->session.data, own->stage->kind->network(own->stage), &g->model, err);
    g->has_model = !st;
    g->open = true;
    if (!st)
        st = fst__clients(&s->session.data, s->session.task, &f->partition, err);
    if (!st && public->learn)
        st = fst_public_init(&f->public, s->session.data.train, public->index, public->learn,
                             &s->session.data.transform, err);
    if (!st)
        st = fst__federate_clients(f, settings, n, err);
    if (!st)
        st = fst_client_new(&g->client, f->ops, settings, n, err);
    if (!st)
        st = fst__federate_own_samples(f, err);
    if (!st)
        fst__federate_recall_first(f);
    return st;
}

/* The samples are read again, to the same shares. */
static fst_status wake(fst_task_site *s, fst_error *err)
{
    if (!s->resting)
        return FST_OK;
    fst_status st = fst__session_open_data(&s->session, err);
    s->resting = st != FST_OK;
    if (st)
        release_samples(s);
    take_in_whole(s);
    return st;
}

static fst_status does_not_train(const char *stage, fst_error *err)
{
    return fst_fail(err, FST_E_UNSUPPORTED, "%s: this program does not train; its site needs `fedstill edge`", stage);
}

static fst_status find_stage(fst_task_site *s, const char *name, struct site_stage **out, fst_error *err)
{
    if (!FST__TRAINS)
        return does_not_train(name, err);
    fst_status woken = wake(s, err);
    if (woken)
        return woken;
    for (size_t i = 0; i < s->session.steps; i++) {
        struct step *own = &s->session.step[i];
        if (strcmp(own->stage->name, name) || strcmp(own->stage->kind->name, "federated_train"))
            continue;
        *out = &s->stage[i];
        if ((*out)->open)
            return FST_OK;
        fst_status st = open_stage(s, own, *out, err);
        if (st)
            close_stage(*out);
        return st;
    }
    return fst_fail(err, FST_E_CONFIG, "the task has no federated stage \"%s\"", name);
}

fst_status fst_task_site_work(fst_task_site *s, const char *stage, const void *kept, size_t len,
                              const struct fst_message *down, struct fst_message *up, fst_buf *keep, fst_error *err)
{
    struct site_stage *g = NULL;
    fst_client_env env;
    fst_status st = find_stage(s, stage, &g, err);
    if (!st && !len)
        st = fst__federate_has_first(&g->f, err);
    if (st)
        return st;
    fst__federate_env(&g->f, 0, s->client, len > 0, &env);
    up->client = s->client;
    up->round = down->round;
    up->base = down->base;
    up->samples = (int64_t)env.count;
    st = fst_client_work(g->client, &env, kept, len, down, up, keep, err);
    up->client = s->client;
    up->round = down->round;
    return st;
}

bool fst_task_site_keeps(const fst_task_site *s, const char *stage)
{
    for (size_t i = 0; i < s->session.steps; i++) {
        const struct stage *g = s->session.step[i].stage;
        const struct federated_section *t = g->settings;
        if (strcmp(g->name, stage) || strcmp(g->kind->name, "federated_train"))
            continue;
        return fst__clients_keep(t);
    }
    return false;
}

/* ---- what it is given ------------------------------------------------------------------------------------ */

fst_status fst_task_site_learn_of(fst_task_site *s, int classes, const char *data, fst_error *err)
{
    const fst_source *train = s->session.data.train;
    for (size_t i = 0; i < s->session.steps; i++)
        if (s->stage[i].open)
            return FST_OK;
    if (!s->resting && s->session.data.places && classes &&
        (classes < train->classes || classes > FST_MAX_CLASSES || (classes > train->classes && train->class_names)))
        return fst_fail(err, FST_E_MISMATCH, "the cloud counts %d classes, this site's samples show %d", classes,
                        train->classes);
    s->classes = classes;
    snprintf(s->whole, sizeof s->whole, "%s", data);
    take_in_whole(s);
    return FST_OK;
}

/* A shared model on the client's validation samples. */
static fst_status validate(fst_task_site *s, struct site_stage *g, const void *given, size_t len,
                           fst_client_figures *out, fst_error *err)
{
    const struct samples *d = &s->session.data;
    const struct share *h = d->edges ? &d->edge[s->client] : NULL;
    const fst_partition *own = &g->f.validation;
    const uint32_t *index = h && h->validate ? h->index + h->learn : NULL;
    size_t n = h ? h->validate : 0;
    struct score score = FST__NO_SCORE;
    fst_message m;
    fst_fed_view v;
    if (!h && own->clients) {
        index = own->index + own->begin[s->client];
        n = own->begin[s->client + 1] - own->begin[s->client];
    }
    if (!n)
        return FST_OK;
    fst_status st = fst_message_parse(&m, given, len, err);
    if (!st)
        st = fst_message_state(&m, fst_graph_fed_size(g->model.graph), &v, err);
    if (st)
        return st;
    const fst_state state = {(float *)v.params, (float *)v.buffers, (int64_t *)v.counters,
                             v.size.params,     v.size.buffers,     v.size.counters};
    st = fst__evaluate(&s->session, g->model.graph, &state, d->train, index, n, &score, err);
    out->has = !st;
    out->accuracy = score.accuracy;
    out->loss = score.loss;
    out->samples = score.samples;
    out->right = (uint64_t)llround(score.accuracy * (double)score.samples);
    return st;
}

fst_status fst_task_site_answer(fst_task_site *s, const char *stage, const void *given, size_t len,
                                fst_client_figures *out, fst_error *err)
{
    struct site_stage *g = NULL;
    *out = (fst_client_figures){.accuracy = NAN, .loss = NAN};
    fst_status st = FST__TRAINS ? wake(s, err) : does_not_train(stage, err);
    if (st)
        return st;
    for (size_t i = 0; FST__TRAINS && i < s->session.steps; i++) {
        struct step *own = &s->session.step[i];
        if (!strcmp(own->stage->name, stage) && !strcmp(own->stage->kind->name, "cloud_kd"))
            return fst__label_own(&s->session, own, s->client, given, len, out, err);
    }
    st = find_stage(s, stage, &g, err);
    if (!st && fst__federate_wants_first(&g->f))
        return fst__federate_take_first(&g->f, given, len, err);
    if (!st && g->f.apart)
        st = fst_fail(err, FST_E_ARGUMENT, "the stage \"%s\" has no shared model to measure", stage);
    return st ? st : validate(s, g, given, len, out, err);
}

/* ---- its own model -------------------------------------------------------------------------------------- */

static fst_status write_own(fst_task_site *s, const struct site_stage *g, const fst_model *m, const char *fingerprint,
                            fst_client_figures *out, fst_error *err)
{
    char file[64];
    struct record r = {.edges = 0};
    char *folder = fst__step_path(&s->session, g->f.own, "");
    snprintf(r.fingerprint, sizeof r.fingerprint, "%s", fingerprint);
    fst__client_file(&s->session, s->client, file);
    fst_status st = folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst__state_sound(&m->state, err);
    if (!st)
        st = fst__write_model(&s->session, g->f.own, m, &r, file, out->accuracy, out->digest, err);
    fst_free(folder);
    return st;
}

fst_status fst_task_site_measure(fst_task_site *s, const char *stage, const void *kept, size_t len,
                                 const char *fingerprint, fst_client_figures *out, fst_error *err)
{
    struct site_stage *g = NULL;
    fst_fed_view v;
    struct score score = FST__NO_SCORE;
    *out = (fst_client_figures){.accuracy = NAN, .loss = NAN};
    fst_status st = find_stage(s, stage, &g, err);
    if (st || !len || !(g->f.apart || g->f.mentors))
        return st;
    fst_model m = g->f.network[g->f.network_of[s->client]];
    st = fst_client_model(kept, len, fst_graph_fed_size(m.graph), &v, err);
    if (st)
        return st;
    m.state = (fst_state){(float *)v.params, (float *)v.buffers, (int64_t *)v.counters,
                          v.size.params,     v.size.buffers,     v.size.counters};
    st = fst__evaluate_test(&s->session, m.graph, &m.state, &score, err);
    out->has = !st;
    out->accuracy = score.accuracy;
    out->loss = score.loss;
    out->samples = score.samples;
    out->right = st ? 0 : (uint64_t)llround(score.accuracy * (double)score.samples);
    snprintf(out->arch, sizeof out->arch, "%s", m.arch);
    if (st || !*fingerprint)
        return st;
    struct own_figures own;
    st = fst__federate_own(&g->f, s->client, &m, &own, err);
    out->own_samples = (uint64_t)own.samples;
    out->own_accuracy = own.accuracy;
    out->own_global_accuracy = own.global_accuracy;
    return st ? st : write_own(s, g, &m, fingerprint, out, err);
}

/* ---- opening -------------------------------------------------------------------------------------------- */

fst_status fst_task_site_open(fst_task_site **out, fst_task *t, const fst_task_options *o, uint32_t client,
                              fst_error *err)
{
    fst_task_site *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->client = client;
    s->session.place = fst_task_has_places(t) ? (int)client + 1 : FST__ALL_PLACES;
    fst_status st = fst__session_init(&s->session, t, o, err);
    if (!st && !fst__has_kind(&t->file, "federated_train"))
        st = fst_fail(err, FST_E_CONFIG, "%s has no federated stage (of the kind federated_train)", t->path);
    if (!st && !(s->stage = fst_calloc(s->session.steps + 1, sizeof *s->stage)))
        st = fst_fail_memory(err, s->session.steps * sizeof *s->stage);
    s->session.machine.workers = 1;
    if (!st)
        st = fst_make_folders(t->output, err);
    if (!st)
        st = fst__session_open_data(&s->session, err);
    if (!st)
        st = identify(s, err);
    if (st)
        fst_task_site_close(s);
    else
        *out = s;
    return st;
}

void fst_task_site_close(fst_task_site *s)
{
    if (!s)
        return;
    for (size_t i = 0; s->stage && i < s->session.steps; i++)
        close_stage(&s->stage[i]);
    fst_free(s->stage);
    fst__session_close(&s->session);
    fst_free(s);
}
