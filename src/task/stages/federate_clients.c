/*
 * The clients of federated_train: which network each has, what it is told it has (fst_client_env), and, where a
 * strategy leaves each client a model of its own, their evaluation and their files.
 *
 * Data flow: clients.models -> `network`, `network_of`; a worker that plays client k -> client_env -> fst_virtual_work;
 * what clients keep -> fst_client_model -> evaluation, client_K_model.safetensors, clients.json.
 */
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "federate.h"

const char *fst__federate_noun(const struct session *s)
{
    return s->data.edges ? "edge" : "client";
}

/* ---- networks ------------------------------------------------------------------------------------------ */

/* "4 mnist_student" -> 4 and the rest; 0 without a number. */
static long counted(const char *entry, const char **name)
{
    char *end;
    long n = isdigit((unsigned char)*entry) ? strtol(entry, &end, 10) : 0;
    *name = entry;
    if (n > 0 && *end == ' ') {
        *name = end + strspn(end, " ");
        return n;
    }
    return 0;
}

fst_status fst__client_models(const struct session *s, const struct step *own, size_t clients, const char **name,
                              fst_error *err)
{
    const struct clients_section *c = &s->task->file.clients;
    size_t listed = s->data.edges ? 0 : c->model_count, at = 0, numbers = 0;
    for (size_t k = 0; k < clients && !listed; k++)
        name[k] = own->stage->kind->network(own->stage);
    for (size_t i = 0; i < listed; i++) {
        const char *its;
        long n = counted(c->models[i], &its);
        numbers += n > 0;
        for (long k = 0; k < (n ? n : 1); k++, at++)
            if (at < clients)
                name[at] = its;
    }
    if (!listed || at == clients)
        return FST_OK;
    if (numbers || at > clients)
        return fst_fail(err, FST_E_CONFIG, "clients.models: names the networks of %zu clients, there are %zu", at,
                        clients);
    for (size_t k = at; k < clients; k++)
        name[k] = name[k % at];
    return FST_OK;
}

static fst_status make_networks(struct federation *f, fst_error *err)
{
    size_t n = (size_t)f->partition.clients;
    const char **name = fst_calloc(n, sizeof *name);
    const char **known = fst_calloc(n, sizeof *known);
    f->network = fst_calloc(n, sizeof *f->network);
    f->network_of = fst_calloc(n, sizeof *f->network_of);
    fst_status st = name && known && f->network && f->network_of ? fst__client_models(f->s, f->own, n, name, err)
                                                                 : fst_fail_memory(err, n * sizeof *f->network);
    for (size_t k = 0; !st && k < n; k++) {
        int i = 0;
        while (i < f->networks && strcmp(known[i], name[k]))
            i++;
        f->network_of[k] = i;
        if (i < f->networks)
            continue;
        known[i] = name[k];
        st = fst__new_model(&f->s->data, name[k], &f->network[i], err);
        f->networks += !st;
    }
    fst_free(name);
    fst_free(known);
    size_t rooms = (size_t)f->s->machine.workers * (size_t)f->networks;
    if (!st && !(f->initial = fst_calloc(rooms, sizeof *f->initial)))
        st = fst_fail_memory(err, rooms * sizeof *f->initial);
    for (size_t i = 0; !st && i < rooms; i++)
        st = fst_fed_state_init(&f->initial[i], fst_graph_fed_size(f->network[i % (size_t)f->networks].graph), err);
    return st;
}

/* ---- a client ------------------------------------------------------------------------------------------ */

static bool stopped(void *ctx)
{
    return fst__session_stopped(ctx);
}

static fst_local_plan plan_of(const struct federation *f)
{
    const struct federated_section *c = f->section;
    return (fst_local_plan){.epochs = c->local_epochs,
                            .steps = c->local_steps,
                            .batch_size = (size_t)c->batch_size,
                            .drop_last = c->drop_last,
                            .optim = fst__optim_spec(&c->optimizer, c->clip_norm),
                            .keep_optim = c->optimizer_state == FST__OPTIM_KEPT,
                            .has_schedule = c->has_schedule,
                            .schedule = fst__schedule(&c->schedule, c->rounds),
                            .compute = fst__trainer_options(&f->s->machine, (size_t)c->batch_size, 1)};
}

/* The model of a client that has none yet: that which `init` names, else random, from a stream of the client's. */
static const fst_fed_view *first_model_of(struct federation *f, int worker, uint32_t client, fst_fed_view *out)
{
    int i = f->network_of[client];
    fst_fed_state *room = &f->initial[worker * f->networks + i];
    fst_state nn = {room->params,      room->buffers,      room->counters,
                    room->size.params, room->size.buffers, room->size.counters};
    if (!f->mentors && fst__stage_reads(f->own->stage, "init"))
        fst_state_copy(&nn, &f->model->state); /* federated_train.c sees to it that all have that network */
    else
        fst_state_randomise(&nn, f->network[i].graph, fst__step_seed(f->s, f->own, "init", client + 1));
    *out = fst_fed_state_view(room);
    return out;
}

void fst__federate_env(struct federation *f, int worker, uint32_t client, bool kept, fst_client_env *out)
{
    struct session *s = f->s;
    int classes = f->partition.classes;
    bool own = f->apart || f->mentors;
    const int64_t *counts = f->partition.counts + (size_t)client * (size_t)classes;
    *out = (fst_client_env){.seed = (uint64_t)s->task->file.seed,
                            .stream = "step.federated_train",
                            .client = client,
                            .classes = classes,
                            .graph = own ? f->network[f->network_of[client]].graph : f->model->graph,
                            .shared = f->mentors ? f->model->graph : NULL,
                            .initial = own && !kept ? first_model_of(f, worker, client, &f->first[worker]) : NULL,
                            .pub = f->public.count ? &f->public : NULL,
                            .source = s->data.train,
                            .subset = f->partition.index + f->partition.begin[client],
                            .count = f->partition.begin[client + 1] - f->partition.begin[client],
                            .transform = s->data.transform,
                            .augment = s->data.transform.crop_padding > 0 || s->data.transform.flip,
                            .class_weight = fst__weights_of(&f->section->weights, counts, classes, f->weight[worker]),
                            .plan = f->plan,
                            .codecs = f->codecs,
                            .work = &f->work};
}

/* What a virtual client has: called on its worker. */
static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    struct federation *f = ctx;
    size_t kept = 0;
    (void)err;
    (void)fst_virtual_kept(f->clients, client, &kept);
    fst__federate_env(f, worker, client, kept > 0, out);
    return FST_OK;
}

/* An update that the server refuses is nobody's model: the edge's last one stays. */
static bool can_be_folded(const fst_fed_view *v)
{
    return !fst_accumulator_check(v->params, v->size.params, NULL) &&
           !fst_accumulator_check(v->buffers, v->size.buffers, NULL);
}

fst_status fst__federate_play(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    return fst_virtual_work(((struct federation *)ctx)->clients, worker, down, up, err);
}

void fst__federate_arrived(void *ctx, const fst_message *up)
{
    struct federation *f = ctx;
    fst_message m;
    fst_fed_view v;
    if (!fst_strategy_decode(f->strategy, up, &m, NULL) &&
        !fst_message_state(&m, fst_graph_fed_size(f->model->graph), &v, NULL) && can_be_folded(&v)) {
        fst_state *e = &f->edge[up->client];
        fst_fed_state to = {e->params, e->buffers, e->counters, v.size};
        fst_fed_state_copy(&to, &v);
    }
}

void fst__federate_settle(void *ctx, const fst_round_report *r)
{
    fst_virtual_settle(((struct federation *)ctx)->clients, r);
}

/* ---- setting up ----------------------------------------------------------------------------------------- */

fst_status fst__federate_clients(struct federation *f, const fst_setting *settings, size_t n, fst_error *err)
{
    struct session *s = f->s;
    const fst_virtual_spec spec = {.ops = f->ops,
                                   .settings = settings,
                                   .nsettings = n,
                                   .clients = (uint32_t)f->partition.clients,
                                   .workers = s->machine.workers,
                                   .ctx = f,
                                   .env = client_env,
                                   .elsewhere = f->crew ? s->machine.workers - 1 : 0,
                                   .play = f->crew ? fst__crew_play : NULL,
                                   .folder = f->folder,
                                   .budget = (uint64_t)s->task->file.checkpoint.client_memory << 20};
    f->work = (fst_work){.ctx = s, .stopped = stopped};
    f->plan = plan_of(f);
    f->codecs = fst__codecs(f->section);
    fst_status st = fst__federate_labels(f, err);
    if (!st && f->ops->flags & FST_OWN_MODEL)
        st = make_networks(f, err);
    if (st)
        return st;
    f->first = fst_calloc((size_t)s->machine.workers, sizeof *f->first);
    f->weight = fst_calloc((size_t)s->machine.workers, sizeof *f->weight);
    for (int i = 0; f->weight && i < s->machine.workers; i++)
        if (!(f->weight[i] = fst_calloc((size_t)s->data.train->classes, sizeof(double))))
            return fst_fail_memory(err, (size_t)s->data.train->classes * sizeof(double));
    return f->weight && f->first ? fst_virtual_new(&f->clients, &spec, err)
                                 : fst_fail_memory(err, (size_t)s->machine.workers * sizeof *f->weight);
}

void fst__federate_clients_release(struct federation *f)
{
    for (int i = 0; f->weight && i < f->s->machine.workers; i++)
        fst_free(f->weight[i]);
    fst_free(f->weight);
    fst_free(f->first);
    fst_virtual_free(f->clients);
    for (int i = 0; f->initial && i < f->s->machine.workers * f->networks; i++)
        fst_fed_state_release(&f->initial[i]);
    fst_free(f->initial);
    for (int i = 0; i < f->networks; i++)
        fst_model_release(&f->network[i]);
    fst_free(f->network);
    fst_free(f->network_of);
    fst_public_release(&f->public);
    fst__federate_labels_release(f);
}

/* ---- models of their own -------------------------------------------------------------------------------- */

bool fst__federate_model_of(struct federation *f, uint32_t client, fst_state *out, fst_status *st, fst_error *err)
{
    fst_fed_view v;
    const void *kept = NULL;
    size_t len = 0;
    if (!*st)
        *st = fst_virtual_read(f->clients, client, &f->room, &kept, &len, err);
    if (*st || !len)
        return false;
    *st = fst_client_model(kept, len, fst_graph_fed_size(f->network[f->network_of[client]].graph), &v, err);
    *out = (fst_state){(float *)v.params, (float *)v.buffers, (int64_t *)v.counters,
                       v.size.params,     v.size.buffers,     v.size.counters};
    return !*st;
}

static fst_status score_here(struct federation *f, fst_client_figures *each, fst_error *err)
{
    fst_status st = FST_OK;
    for (int i = 0; i < f->networks; i++) /* network by network, so that one is made ready for inference once */
        for (uint32_t c = 0; c < (uint32_t)f->partition.clients; c++) {
            fst_state state;
            struct score score = FST__NO_SCORE;
            if (f->network_of[c] != i || !fst__federate_model_of(f, c, &state, &st, err))
                continue;
            st = fst__evaluate_test(f->s, f->network[i].graph, &state, &score, err);
            if (st)
                return st;
            each[c].has = true;
            each[c].accuracy = score.accuracy;
            each[c].loss = score.loss;
            each[c].samples = score.samples;
        }
    return st;
}

fst_status fst__federate_score(struct federation *f, const char *fingerprint, struct score *out,
                               fst_client_figures *each, fst_error *err)
{
    const fst_task_options *o = f->s->options;
    double accuracy = 0, loss = 0;
    size_t n = 0;
    for (int c = 0; c < f->partition.clients; c++)
        each[c] = (fst_client_figures){.accuracy = NAN, .loss = NAN};
    fst_status st = o->measure ? o->measure(o->rounds_ctx, f->own->stage->name, f->round, fingerprint, each, err)
                               : score_here(f, each, err);
    for (int i = 0; !st && i < f->networks; i++) /* in an order of its own, for the bits of the sums */
        for (int c = 0; c < f->partition.clients; c++) {
            if (f->network_of[c] != i || !each[c].has)
                continue;
            accuracy += each[c].accuracy;
            loss += each[c].loss;
            out->samples = (size_t)each[c].samples;
            n++;
        }
    if (!st && n) {
        out->accuracy = accuracy / (double)n;
        out->loss = loss / (double)n;
    }
    return st;
}

void fst__client_file(const struct session *s, uint32_t client, char out[64])
{
    snprintf(out, 64, "%s_%lu_model.safetensors", fst__federate_noun(s), (unsigned long)client + 1);
}

/* The model's file, where the client is here; elsewhere it has written it itself. */
static fst_status write_own(struct federation *f, uint32_t client, fst_client_figures *own, struct own_figures *at_home,
                            struct record *r, char file[64], fst_error *err)
{
    fst_model m = f->network[f->network_of[client]];
    fst_status st = FST_OK;
    if (f->s->options->measure)
        *at_home = (struct own_figures){(int64_t)own->own_samples, own->own_accuracy, own->own_global_accuracy};
    if (!own->has || f->s->options->measure || !fst__federate_model_of(f, client, &m.state, &st, err))
        return st;
    fst__client_file(f->s, client, file);
    st = fst__state_sound(&m.state, err);
    if (!st)
        st = fst__federate_own(f, client, &m, at_home, err);
    return st ? st : fst__write_model(f->s, f->own, &m, r, file, own->accuracy, own->digest, err);
}

static fst_status write_one(struct federation *f, uint32_t client, fst_client_figures *own, struct record *r,
                            json_t *list, fst_error *err)
{
    const char *arch = f->network[f->network_of[client]].arch, *who = fst__federate_noun(f->s);
    char file[64] = "";
    struct own_figures at_home = {.accuracy = NAN, .global_accuracy = NAN};
    fst_status st = write_own(f, client, own, &at_home, r, file, err);
    if (st)
        return fst_fail_in(err, st, "%s %lu", who, (unsigned long)client + 1);
    fst__federate_own_add(&r->own, &at_home);
    json_t *j = json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:o, s:o}", who, (json_int_t)client + 1, "arch", arch,
                          "model", file, "digest", own->digest, "samples", (json_int_t)f->samples[client], "rounds",
                          (json_int_t)f->rounds_of[client], "test_accuracy", fst_json_number(own->accuracy),
                          "test_loss", fst_json_number(own->loss));
    if (at_home.samples)
        json_object_set_new(j, "own_validation", fst__own_json(&at_home));
    json_array_append_new(list, j);
    fst_field fields[] = {FST_INT(who, (int64_t)client + 1),          FST_STRING("arch", arch),
                          FST_INT("samples", f->samples[client]),     FST_INT("rounds", f->rounds_of[client]),
                          FST_DOUBLE("test_accuracy", own->accuracy), FST_DOUBLE("test_loss", own->loss)};
    fst__emit(&f->s->books, "client_model", fields, sizeof fields / sizeof *fields);
    return FST_OK;
}

static fst_status write_list(struct federation *f, const json_t *list, struct record *r, fst_error *err)
{
    char digest[FST_DIGEST_HEX] = "";
    char *path = fst__step_path(f->s, f->own, FST__CLIENTS);
    char *text = json_dumps(list, JSON_INDENT(2));
    fst_status st = path && text ? fst_file_write(path, text, strlen(text), err) : fst_fail_memory(err, 4096);
    if (!st)
        st = fst_sha256_file(path, digest, err);
    memcpy(r->clients_digest, digest, sizeof r->clients_digest);
    if (!st && f->apart) {
        snprintf(r->artifact, sizeof r->artifact, FST__CLIENTS);
        snprintf(r->digest, sizeof r->digest, "%s", digest);
    }
    fst_free(path);
    free(text);
    return st;
}

/* What the shared model is worth on the samples on which clients elsewhere have measured their own. */
static fst_status ask_of_shared(struct federation *f, fst_client_figures *each, fst_error *err)
{
    const fst_task_options *o = f->s->options;
    fst_client_figures *shared = f->figures;
    bool any = false;
    fst_buf given = {0};
    for (int k = 0; k < f->partition.clients; k++)
        any |= each[k].own_samples > 0;
    if (!o->measure || !f->mentors || !any)
        return FST_OK;
    fst_status st = fst__federate_pack(f, &f->model->state, &given, err);
    if (!st)
        st = o->ask(o->rounds_ctx, f->own->stage->name, f->round, &given, 1, shared, err);
    for (int k = 0; !st && k < f->partition.clients; k++)
        if (shared[k].has && shared[k].samples == each[k].own_samples)
            each[k].own_global_accuracy = (double)shared[k].right / (double)shared[k].samples;
    fst_buf_release(&given);
    return st;
}

fst_status fst__federate_write_clients(struct federation *f, struct record *r, fst_error *err)
{
    size_t n = (size_t)f->partition.clients;
    struct score mean = FST__NO_SCORE;
    fst_client_figures *each = fst_calloc(n, sizeof *each);
    json_t *list = json_array();
    fst_status st = each && list ? FST_OK : fst_fail_memory(err, n * sizeof *each);
    if (!st)
        st = fst__federate_score(f, r->fingerprint, &mean, each, err);
    if (!st)
        st = ask_of_shared(f, each, err);
    for (size_t k = 0; !st && k < n; k++)
        st = write_one(f, (uint32_t)k, &each[k], r, list, err);
    if (!st)
        st = write_list(f, list, r, err);
    if (f->apart) { /* there is no other model to measure */
        r->accuracy = mean.accuracy;
        r->loss = mean.loss;
    }
    json_decref(list);
    fst_free(each);
    return st;
}
