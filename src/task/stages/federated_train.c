/*
 * The kind federated_train as the task sees it: settings, what can be wrong with them, what the result depends on, what
 * a dry run says. The clients are the edges of the topology, or those of the section clients. The rounds themselves are
 * federate.c.
 */
#include <stdio.h>
#include <string.h>

#include "federate.h"
#include "fusion.h"
#include "supervised.h"
#include "training_file.h"

enum { SELECT_BEST = 0 };

/* ---- settings ---------------------------------------------------------------------------------------- */

static const char *const selections[] = {"best", "last", NULL};
static const char *const optimizer_states[] = {"fresh", "kept", NULL};

static const fst__field distillation_fields[] = {
    FST__F_STRING(struct local_kd_section, soft_labels, NULL, "stage whose soft labels the clients learn from",
                  .required = true, .aside = true),
    FST__F_DOUBLE(struct local_kd_section, temperature, 0, 1000, "0", "of both softmaxes; 0: that of the soft labels",
                  .when = {FST__WITH("kd_loss", "kl", "cross_entropy", "standardised", "dkd")}),
    FST__F_DOUBLE(struct local_kd_section, ce_weight, 0, 1e6, "0.3", "weight of the hard labels' cross entropy"),
    FST__F_ABOVE(struct local_kd_section, kd_weight, 0, 1e6, "0.7", "weight of the distillation loss"),
    FST__F_ENUM(struct local_kd_section, kd_loss, fst__kd_losses, "kl",
                "distillation loss; mse_logits, standardised and dkd take the teacher's logits"),
    FST__F_MAP(struct local_kd_section, dkd, &fst__dkd_schema, "the weights of the parts of the loss",
               .when = {FST__WITH("kd_loss", "dkd")}),
};
static const fst__schema distillation_schema =
    FST__SCHEMA(struct local_kd_section, distillation_fields, .shorthand = "soft_labels");

/* The fields that every strategy has; after them comes room for those of the strategies' own options. */
enum { OWN_FIELDS = 21 };
static fst__field fields[OWN_FIELDS + FST__OPTIONS] = {
    FST__F_STRING(struct federated_section, model, NULL,
                  "network; missing: that of the stage that it starts from, or else of edge_kd"),
    FST__F_ENUM(struct federated_section, strategy, fst__strategy_names, "fedavg", "what is sent and how it is joined"),
    FST__F_INT(struct federated_section, rounds, 1, 1000000, "10", "rounds"),
    FST__F_INT(struct federated_section, local_epochs, 1, 100000, "1", "epochs of a client in a round",
               .when = {FST__WITHOUT_ANY("local_steps")}),
    FST__F_INT(struct federated_section, local_steps, 0, 10000000, "0",
               "steps of a client in a round, whatever its number of samples; 0: by local_epochs", .aside = true),
    FST__F_INT(struct federated_section, batch_size, 1, 65536, "32", "samples a step"),
    FST__F_BOOL(struct federated_section, drop_last, "false",
                "leave out a client's last batch that is not full; every client needs a full one"),
    FST__F_INT(struct federated_section, clients_per_round, 0, 1000000, "0", "drawn for a round; 0: by fraction"),
    FST__F_ABOVE(struct federated_section, fraction, 0, 1, "1", "share of the clients drawn for a round",
                 .when = {FST__WITHOUT_ANY("clients_per_round")}),
    FST__F_INT(struct federated_section, quorum, 0, 1000000, "0", "fewest updates of a round; 0: one"),
    FST__F_DOUBLE(struct federated_section, clip_norm, 0, 1e6, "0", "largest norm of a gradient; 0: no limit"),
    CLASS_WEIGHTS(struct federated_section, "each client's own samples"),
    FST__F_MAP(struct federated_section, optimizer, &fst__optimizer_schema, "of the clients"),
    FST__F_ENUM(struct federated_section, optimizer_state, optimizer_states, "fresh",
                "momentum or Adam's moments and count of steps: fresh in every round, or kept by each client for its "
                "next one (docs/strategies.md); not with scaffold and fednova",
                .aside = true, .when = {FST__WITHOUT("strategy", "fedkd")}),
    FST__F_OPTIONAL(
        struct federated_section, distillation, has_distillation, &distillation_schema,
        "the clients learn from labels and soft labels; not with fd, fd_plus, fedkd, fedntd and fedgen, which bring a "
        "loss of their own"),
    FST__F_OPTIONAL(struct federated_section, fusion, has_fusion, &fst__federated_fusion_schema,
                    "MergeNet: after a round a matrix of the model is fused with one of a larger model at the server"),
    FST__F_OPTIONAL(struct federated_section, codec, has_codec, &fst__codecs_schema,
                    "updates and what is shared in fewer bytes; missing: as they are"),
    FST__F_OPTIONAL(struct federated_section, schedule, has_schedule, &fst__schedule_schema,
                    "learning rate of the clients by round: rounds stand for epochs; missing: constant"),
    FST__F_STRING(
        struct federated_section, init, "edge_kd",
        "what the rounds start from: the model of a stage, random weights (random), or a model file, relative "
        "to the task's folder"),
    FST__F_ENUM(struct federated_section, select, selections, "last",
                "the round whose model is kept; best: by the edges' validation samples, after aggregation"),
    FST__F_INT(struct federated_section, evaluate_every, 1, 1000000, "1", "rounds between two evaluations",
               .aside = true),
};
static fst__schema schema = FST__SCHEMA(struct federated_section, fields);

static __attribute__((constructor)) void add_strategy_options(void)
{
    size_t at = 0;
    while (fields[at].key)
        at++;
    schema.count = at + fst__strategy_fields(fields + at, offsetof(struct federated_section, options));
}

/* ---- what it reads ----------------------------------------------------------------------------------- */

/* Nothing else says what the clients train. */
static bool wants_network(const struct stage *own)
{
    const struct federated_section *t = own->settings;
    return !t->model && !fst__stage_read(own, "init", 0);
}

static const struct stage_ref refs[] = {
    {.key = "init", .what = FST__LEAVES_MODEL, .file = true, .learns = true, .word = "random"},
    {.key = "model",
     .what = FST__LEAVES_MODEL,
     .settings = true,
     .fallback = "edge_kd",
     .missing = "needs a model, or the stage edge_kd to take it from",
     .wanted = wants_network},
    {.key = FST__LOCAL_LABELS, .what = FST__LEAVES_SOFT_LABELS},
    {.key = FST__FUSION_TEACHER, .what = FST__LEAVES_MODEL, .file = true, .learns = true, .word = "random"},
};

static bool takes_logits(const struct stage *own)
{
    const struct federated_section *t = own->settings;
    return fst_kd_takes_logits((fst_kd_form)t->distillation.kd_loss);
}

static bool at_clients(const struct stage *own)
{
    (void)own;
    return true;
}

static const char *network(const struct stage *own)
{
    const struct federated_section *t = own->settings;
    const struct stage *other = fst__stage_read(own, fst__stage_read(own, "init", 0) ? "init" : "model", 0);
    return t->model ? t->model : other ? other->kind->network(other) : NULL;
}

static int64_t total(const struct stage *own)
{
    return ((const struct federated_section *)own->settings)->rounds;
}

static bool extendable(const struct stage *own)
{
    const struct federated_section *t = own->settings;
    bool falls = t->has_fusion && t->fusion.fusion.schedule == FST__FUSION_COSINE;
    return !falls && (!t->has_schedule || fst__total_free(&t->schedule));
}

/* ---- what can be wrong --------------------------------------------------------------------------------- */

/* How many clients a round draws. */
static size_t drawn_of(const struct federated_section *t, size_t clients)
{
    size_t drawn = t->clients_per_round ? (size_t)t->clients_per_round : fst_share_of(clients, t->fraction);
    return drawn ? drawn : 1;
}

/* Can a round draw as many clients as it needs? */
static bool cohort_complains(const struct task_file *f, const struct stage *own, fst__complaint *c)
{
    const struct federated_section *t = own->settings;
    int64_t clients = f->has_topology ? f->topology.edges : f->clients.count;
    int64_t drawn = (int64_t)drawn_of(t, (size_t)clients);
    if (drawn > clients)
        return fst__complain(c, own, "clients_per_round", "is %lld, there are %lld clients", (long long)drawn,
                             (long long)clients);
    return t->quorum > drawn && fst__complain(c, own, "quorum", "is %lld, a round draws %lld of the %lld clients",
                                              (long long)t->quorum, (long long)drawn, (long long)clients);
}

/* Samples that no stage learns from, and nobody looks at? */
static bool public_complains(const struct stage_list *all, const struct stage *own, fst__complaint *c)
{
    char names[300];
    for (size_t i = 0; i < all->count; i++) {
        const struct federated_section *t = all->stage[i].settings;
        if (all->stage[i].kind == own->kind && (fst_strategy_at((size_t)t->strategy)->flags & FST_PUBLIC_DATA ||
                                                (t->has_fusion && t->fusion.learns_from == FST__FUSION_PUBLIC)))
            return false;
    }
    c->key = "data.public";
    snprintf(c->text, sizeof c->text,
             "has no effect but fewer samples to learn from: strategies with public samples: %s; or a fusion that "
             "learns_from public",
             fst_strategy_names(FST_PUBLIC_DATA, 0, names, sizeof names));
    return true;
}

static bool fusion_complains(const struct task_file *f, const struct stage *own, fst__complaint *c)
{
    char names[400];
    const struct federated_section *t = own->settings;
    unsigned flags = fst_strategy_at((size_t)t->strategy)->flags;
    if (!(flags & FST_SAME_MODEL) || flags & FST_KEEPS_SHARED)
        return fst__complain(c, own, "fusion",
                             "strategy %s: only a model that all share, and no round is behind on, can "
                             "be fused: %s",
                             fst__strategy_names[t->strategy],
                             fst_strategy_names(FST_SAME_MODEL, FST_KEEPS_SHARED, names, sizeof names));
    if (t->fusion.start_round > t->rounds)
        return fst__complain(c, own, "fusion.start_round", "is %lld, there are %lld rounds",
                             (long long)t->fusion.start_round, (long long)t->rounds);
    return t->fusion.learns_from == FST__FUSION_PUBLIC && f->data.public == 0 &&
           fst__complain(c, own, "fusion.learns_from",
                         "public needs public samples: set data.public, for instance to "
                         "0.1");
}

fst_codecs fst__codecs(const struct federated_section *t)
{
    fst_codecs c = {{.kind = FST_CODEC_NONE}, {.kind = FST_CODEC_NONE}};
    if (t->has_codec)
        c = fst__codecs_of(&t->codec);
    if (fst_strategy_at((size_t)t->strategy)->predicts) /* a task that gives it is refused */
        c.up.feedback = c.down.feedback = false;
    return c;
}

bool fst__clients_keep(const struct federated_section *t)
{
    const fst_codecs codecs = fst__codecs(t);
    return fst_strategy_keeps(fst_strategy_at((size_t)t->strategy)) || fst_codecs_keep(&codecs) ||
           t->optimizer_state == FST__OPTIM_KEPT;
}

static bool optimizer_state_complains(const struct stage *own, fst__complaint *c)
{
    const struct federated_section *t = own->settings;
    return t->optimizer_state == FST__OPTIM_KEPT && t->optimizer.name == FST_OPTIM_SGD && t->optimizer.momentum == 0 &&
           fst__complain(c, own, "optimizer_state",
                         "kept has no effect: sgd without momentum has no state; set optimizer.momentum, or "
                         "optimizer.name to adam or adamw");
}

static bool codec_complains(const struct stage *own, fst__complaint *c)
{
    const struct federated_section *t = own->settings;
    const fst_codecs codecs = fst__codecs(t);
    fst_error err;
    return fst_codecs_check(&codecs, fst_strategy_at((size_t)t->strategy), &err) &&
           fst__complain(c, own, "codec", "%s", err.message);
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    const struct federated_section *t = own->settings;
    bool shared = fst_strategy_at((size_t)t->strategy)->flags & FST_SAME_MODEL;
    for (size_t i = 0; i < all->count && !shared; i++)
        for (size_t k = 0; k < all->stage[i].read_count; k++)
            if (all->stage[i].reads[k].stage == own)
                return fst__complain(c, own, "strategy",
                                     "%s leaves a model of its own to each client, but %s reads one that all have",
                                     fst__strategy_names[t->strategy], all->stage[i].name);
    const struct stage *labels = fst__stage_read(own, FST__LOCAL_LABELS, 0);
    if (labels && fst_strategy_at((size_t)t->strategy)->flags & FST_OWN_LOSS)
        return fst__complain(c, own, "distillation", "has no effect: the strategy %s brings a loss of its own",
                             fst__strategy_names[t->strategy]);
    if (labels && f->has_topology && !fst__at_clients(labels))
        return fst__complain(c, own, FST__LOCAL_LABELS, "%s labels the cloud's samples: set at_clients: true there",
                             labels->name);
    if (labels && t->distillation.ce_weight == 0 && fst__weighs_classes(&t->weights))
        return fst__complain(c, own, "class_weights", "has no effect: distillation.ce_weight is 0");
    if (labels &&
        fst__soft_complains(own, "distillation.", t->distillation.kd_loss, t->distillation.temperature, labels, c))
        return true;
    if (f->has_topology && f->topology.cloud_share >= 1 && !f->data.edge_path_count) {
        c->key = "topology.cloud_share";
        snprintf(c->text, sizeof c->text, "is 1: the edges have nothing to train on in %s", own->name);
        return true;
    }
    if (f->data.public > 0 && public_complains(all, own, c))
        return true;
    if (f->has_topology && (t->clients_per_round || t->fraction < 1))
        return fst__complain(c, own, t->clients_per_round ? "clients_per_round" : "fraction",
                             "with a topology all edges take part in every round: leave it out");
    if (t->has_fusion && fusion_complains(f, own, c))
        return true;
    if (codec_complains(own, c) || optimizer_state_complains(own, c))
        return true;
    if (t->select == SELECT_BEST && !f->has_topology)
        return fst__complain(c, own, "select", "best needs a topology, whose edges keep samples for it");
    if (t->select == SELECT_BEST && !f->data.own_validation && f->data.validation == 0)
        return fst__complain(c, own, "select", "best needs samples to choose by: set data.validation");
    return cohort_complains(f, own, c);
}

static fst_status check_edges(const struct session *s, const struct step *own, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    size_t validate = 0;
    for (size_t k = 0; k < s->data.edges; k++)
        validate += s->data.edge[k].validate;
    if (t->select == SELECT_BEST && !validate)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.select: best: the edges have no validation samples; a "
                        "larger data.validation or more samples are needed",
                        own->stage->name);
    return FST_OK;
}

/* Strategies that compare features need as many of every network. */
static fst_status check_features(const struct session *s, const struct step *own, const char **model, size_t clients,
                                 fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    const char *strategy = fst_strategy_at((size_t)t->strategy)->name;
    int64_t first = 0;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < clients; k++) {
        fst_graph *g = NULL;
        if (k && !strcmp(model[k], model[k - 1]))
            continue;
        st = fst__model_graph(&s->data, model[k], &g, err);
        fst_shape shape = st ? (fst_shape){0} : fst_graph_value_shape(g, fst_graph_last_features(g));
        int64_t width = shape.rank ? fst_shape_count(&shape) : 0;
        if (!st && !width)
            st = fst_fail(err, FST_E_CONFIG, "stages.%s.strategy: %s compares features, and %s has no layer of them",
                          own->stage->name, strategy, model[k]);
        if (!st && k && width != first)
            st =
                fst_fail(err, FST_E_CONFIG,
                         "clients.models: %s ends in %lld features, %s in %lld; strategy %s compares them and needs as "
                         "many of all",
                         model[0], (long long)first, model[k], (long long)width, strategy);
        first = k ? first : width;
        fst_graph_free(g);
    }
    return st;
}

/* Can the strategy's clients train this network as the stage says? */
static fst_status check_plan_of(const struct session *s, const struct step *own, const char *model, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    const fst_strategy_ops *ops = fst_strategy_at((size_t)t->strategy);
    const fst_local_plan plan = {.epochs = t->local_epochs,
                                 .steps = t->local_steps,
                                 .batch_size = (size_t)t->batch_size,
                                 .optim = fst__optim_spec(&t->optimizer, t->clip_norm),
                                 .keep_optim = t->optimizer_state == FST__OPTIM_KEPT};
    fst_setting settings[FST_STRATEGY_OPTIONS];
    size_t n = fst__strategy_settings(&t->options, ops, settings);
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(&s->data, model, &g, err);
    if (!st)
        st = fst_strategy_check_plan(ops, settings, n, g, &plan, err);
    fst_graph_free(g);
    return st ? fst_fail_in(err, st, "stages.%s", own->stage->name) : FST_OK;
}

/* Can the strategy do with these clients and data? */
static fst_status check_strategy(const struct session *s, const struct step *own, size_t clients, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    const fst_strategy_ops *ops = fst_strategy_at((size_t)t->strategy);
    const char *name = own->stage->name, *its = network(own->stage);
    char names[300];
    const char **model = fst_calloc(clients, sizeof *model);
    fst_status st =
        model ? fst__client_models(s, own, clients, model, err) : fst_fail_memory(err, clients * sizeof *model);
    bool others = false, same = ops->flags & FST_SAME_MODEL, mentors = ops->flags & FST_MENTORS;
    for (size_t k = 0; !st && k < clients; k++) {
        others |= strcmp(model[k], its) != 0;
        if (k == 0 || strcmp(model[k], model[k - 1]))
            st = fst__check_network(s, own, model[k], err);
        if (!st && mentors && (k == 0 || strcmp(model[k], model[k - 1])))
            st = check_plan_of(s, own, model[k], err);
    }
    if (!st && (ops->flags & FST_SAME_FEATURES))
        st = check_features(s, own, model, clients, err);
    fst_free(model);
    if (!st && same && others && !mentors)
        return fst_fail(
            err, FST_E_CONFIG,
            "clients.models: not all clients have the network %s of stages.%s, whose strategy %s trains one "
            "model with all; strategies that let clients have their own: %s",
            its, name, ops->name, fst_strategy_names(FST_OWN_MODEL, FST_SAME_MODEL, names, sizeof names));
    if (!st && !same && others && fst__stage_reads(own->stage, "init"))
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.init: one model cannot be the first of different networks: set init: random", name);
    if (!st && !same && t->select == SELECT_BEST)
        return fst_fail(err, FST_E_CONFIG, "stages.%s.select: best chooses a shared model; strategy %s has none", name,
                        ops->name);
    if (!st && (ops->flags & FST_PUBLIC_DATA) && !s->data.public.learn)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.strategy: %s needs public samples: set data.public, for instance to 0.1", name,
                        ops->name);
    return st;
}

/* Are the strategy's clients enough, and can they train the shared network? */
static fst_status check_plan(const struct session *s, const struct step *own, size_t clients, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    const fst_strategy_ops *ops = fst_strategy_at((size_t)t->strategy);
    fst_setting settings[FST_STRATEGY_OPTIONS];
    size_t n = fst__strategy_settings(&t->options, ops, settings);
    fst_status st = check_plan_of(s, own, network(own->stage), err);
    if (st)
        return st;
    st = fst_strategy_check_cohort(ops, settings, n, drawn_of(t, clients), err);
    if (!st)
        st = fst_strategy_check_drawn(ops, settings, n, drawn_of(t, clients), clients, err);
    return st ? fst_fail_in(err, st, "stages.%s", own->stage->name) : FST_OK;
}

/* Samples that clients keep to themselves are for models of their own: with strategies that leave one to all, nobody
 * looks at them. Said for the first of the stages. */
static void warn_unmeasured(const struct session *s, const struct step *own)
{
    char names[300];
    bool own_models = s->task->file.clients.validation == 0, first = true;
    for (size_t i = 0; i < s->steps; i++) {
        const struct stage *one = s->step[i].stage;
        if (one->kind != own->stage->kind)
            continue;
        const struct federated_section *t = one->settings;
        own_models = own_models || fst_strategy_at((size_t)t->strategy)->flags & FST_OWN_MODEL;
        first = first && !(s->step[i].chosen && &s->step[i] < own);
    }
    if (!own_models && first)
        fst_log(FST_LOG_WARN,
                "clients.validation: no stage looks at these samples, there are but fewer to learn from: clients have "
                "models of their own, which are measured on them, with %s",
                fst_strategy_names(FST_OWN_MODEL, 0, names, sizeof names));
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    fst_partition p = {0};
    fst_fusion_size size;
    fst_status st = fst__check_network(s, own, network(own->stage), err);
    if (!st)
        st = fst__check_init(s, own, err);
    if (!st && t->has_fusion)
        st = fst__federate_fusion_size(s, own, network(own->stage), &size, err);
    if (!st)
        st = fst__clients(&s->data, s->task, &p, err);
    if (!st)
        st = check_plan(s, own, (size_t)p.clients, err);
    if (!st)
        st = check_strategy(s, own, (size_t)p.clients, err);
    fst_partition_release(&p);
    if (!st && s->data.edges)
        st = check_edges(s, own, err);
    if (!st)
        st = fst__check_class_weights(&s->data, own->stage->name, &t->weights, err);
    if (!st)
        st = fst__check_client_batches(s, own, err);
    if (!st && t->has_schedule)
        st = fst__check_schedule(own, &t->schedule, &t->optimizer, t->rounds, "rounds", err);
    if (!st && t->has_fusion)
        fst__federate_warn_fusion(own);
    if (!st)
        warn_unmeasured(s, own);
    return st;
}

/* ---- what the result depends on ---------------------------------------------------------------------------- */

/* Who the clients are follows from their settings and the samples to deal, which others add, with two exceptions: a
 * file says it, or bursts do, since fewest samples once were fewest bursts. What cannot be made has no digest; the step
 * says why. */
fst_status fst__add_clients(const struct session *s, fst_buf *text, fst_error *err)
{
    const struct clients_section *c = &s->task->file.clients;
    const fst__schema *table;
    const void *settings;
    fst_partition p = {0};
    char digest[FST_DIGEST_HEX] = "";
    fst_status st = fst__schema_find(&fst__task_schema, &s->task->file, "clients", &table, &settings, err);
    if (!st)
        st = fst_buf_printf(text, err, "clients=");
    if (!st)
        st = fst__schema_json(table, settings, text, err);
    if (!st)
        st = fst_buf_append(text, "\n", 1, err);
    for (size_t i = 0; !st && i < c->model_count; i++)
        st = fst_buf_printf(text, err, "models=%s\n", c->models[i]);
    if (!st && c->validation > 0) /* a line that was not there before the setting was */
        st = fst_buf_printf(text, err, "validation=%.17g\n", c->validation);
    if (st || !(c->partition_file || (s->data.train->group && c->min_samples > 1)))
        return st;
    if (!fst__clients(&s->data, s->task, &p, NULL))
        fst__clients_digest(&p, digest);
    fst_partition_release(&p);
    return fst_buf_printf(text, err, "owners=%s\n", digest);
}

/* Labels that the clients make are what the teacher and the settings make of samples which the inputs have already; in
 * a fleet there is no file of all of them. */
static fst_status add_labels(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    const struct step *from = fst__step_read(s, own, FST__LOCAL_LABELS, 0);
    if (!from || !fst__at_clients(from->stage))
        return fst__add_reads(s, own, FST__LOCAL_LABELS, text, err);
    const fst_soft_spec l = fst__soft_spec(s, from);
    return fst_buf_printf(text, err, "cloud_kd=%s at temperature %.17g, %s as %s, %d of a teacher with digest %s\n",
                          "labels", l.temperature, fst_soft_content_name(l.content), fst_soft_encoding_name(l.encoding),
                          l.encoding == FST_SOFT_TOP_K ? l.top_k : 0, l.teacher_digest);
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst__strategy_inputs(&t->options, fst_strategy_at((size_t)t->strategy), text, err);
    if (!st && !s->data.edges)
        st = fst__add_clients(s, text, err);
    if (!st && t->local_steps) /* a line that was not there before the setting was */
        st = fst_buf_printf(text, err, "local_steps=%lld\n", (long long)t->local_steps);
    if (!st && t->optimizer_state == FST__OPTIM_KEPT) /* likewise */
        st = fst_buf_printf(text, err, "optimizer_state=kept\n");
    if (!st)
        st = fst_buf_printf(text, err, "model=%s\n", network(own->stage));
    if (!st)
        st = fst__add_reads(s, own, "init", text, err);
    if (!st)
        st = fst__add_reads(s, own, FST__FUSION_TEACHER, text, err);
    return st ? st : add_labels(s, own, text, err);
}

/* ---- a dry run ------------------------------------------------------------------------------------------------ */

/* Public samples that a client learns from in a round, each as often as it is seen. */
static double digested(const struct session *s, const struct federated_section *t, const fst_strategy_ops *ops)
{
    fst_setting settings[FST_STRATEGY_OPTIONS];
    size_t n = fst__strategy_settings(&t->options, ops, settings);
    double rows = 0, epochs = 0, all = (double)s->data.public.learn;
    for (size_t i = 0; i < n; i++) {
        rows = strcmp(settings[i].name, "public_samples") ? rows : settings[i].value;
        epochs = strcmp(settings[i].name, "digest_epochs") ? epochs : settings[i].value;
    }
    return epochs * (rows > 0 && rows < all ? rows : all);
}

/* Samples that clients learn from in all rounds, whoever is drawn counting alike: all clients, or those of one network.
 * name: by client, NULL where it does not count. */
static double learnt(const struct session *s, const struct step *own, const fst_partition *p, const char **name,
                     const char *network)
{
    const struct federated_section *t = own->stage->settings;
    double public = digested(s, t, fst_strategy_at((size_t)t->strategy)), sum = 0;
    size_t n = (size_t)p->clients;
    for (size_t k = 0; k < n; k++) {
        double local = (double)(p->begin[k + 1] - p->begin[k]) * (double)t->local_epochs;
        if (name && (!name[k] || strcmp(name[k], network)))
            continue;
        if (t->local_steps)
            local = (double)(t->local_steps * t->batch_size);
        sum += local * (double)t->rounds + public * (double)(t->rounds - 1); /* the first round has nothing yet */
    }
    return sum * (double)drawn_of(t, n) / (double)n;
}

/* Each network that clients have, with what those train that have it. */
static fst_status tell_networks(const struct session *s, const struct step *own, const fst_partition *p, struct work w,
                                fst_buf *out, fst_error *err)
{
    size_t n = (size_t)p->clients;
    const char **name = fst_calloc(n, sizeof *name);
    fst_status st = name ? fst__client_models(s, own, n, name, err) : fst_fail_memory(err, n * sizeof *name);
    for (size_t i = 0; !st && i < n; i++) {
        w.network = name[i];
        if (!w.network)
            continue;
        w.samples = learnt(s, own, p, name, w.network);
        st = fst__tell_work(s, own, &w, out, err);
        for (size_t k = n; k-- > i;) /* is told */
            name[k] = name[k] && strcmp(name[k], w.network) ? name[k] : NULL;
    }
    fst_free(name);
    return st;
}

static fst_status tell_training(const struct session *s, const struct step *own, const fst_partition *p, fst_buf *out,
                                fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    unsigned flags = fst_strategy_at((size_t)t->strategy)->flags;
    double cohort = (double)drawn_of(t, (size_t)p->clients), state = 0;
    struct work w = {.training = true, .batch = (size_t)t->batch_size, .plans = s->machine.workers};
    struct work shared = w;
    fst_status st = fst__state_bytes(s, network(own->stage), &state, err);
    shared.network = network(own->stage);
    shared.samples = learnt(s, own, p, NULL, NULL);
    if (flags & FST_SENDS_STATE && !t->has_codec) /* how much is coded is known when it is done */
        shared.bytes_up = shared.bytes_down = cohort * (double)t->rounds * state;
    if (flags & FST_ALL_UPDATES)
        shared.bytes_held = (cohort + 1) * state;
    if (!st && (flags & FST_SAME_MODEL))
        st = fst__tell_work(s, own, &shared, out, err);
    if (!st && (!(flags & FST_SAME_MODEL) || flags & FST_MENTORS))
        st = tell_networks(s, own, p, w, out, err);
    return st;
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    fst_partition p = {0};
    fst_fusion_size size;
    fst_status st = fst__clients(&s->data, s->task, &p, err);
    if (!st)
        st = tell_training(s, own, &p, out, err);
    fst_partition_release(&p);
    if (!st && t->has_fusion)
        st = fst__federate_fusion_size(s, own, network(own->stage), &size, err);
    if (!st && t->has_fusion)
        st = fst__tell_fusion(&size, out, err);
    return st ? st : fst__tell_sentence(fst_strategy_at((size_t)t->strategy)->leaks, out, err);
}

const struct stage_kind fst__federated_train = {
    .name = "federated_train",
    .help = "rounds over the clients' own data",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_FEDERATED | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .at_clients = at_clients,
    .takes_logits = takes_logits,
    .counts = "round",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .network = network,
    .total = total,
    .extendable = extendable,
    .complains = complains,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? fst__federate : NULL,
};
