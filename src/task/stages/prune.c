/*
 * The kind prune: a finished model without the channels that matter least, which then learns from labels and from the
 * model that it was (or another teacher), on the cloud's samples. What is left is a network of the same name with other
 * widths, known only when it is there. The teacher's answers are made anew when training goes on after an interruption.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/infer.h"
#include "supervised.h"
#include "training_file.h"

enum { ANSWERS = 512 }; /* of the teacher at a time */

static const char *const importances[] = {"l1", "batchnorm", NULL}; /* as fst_importance */
static const char *const scopes[] = {"layer", "global", NULL};      /* fst_prune.global */

static const fst__field fields[] = {
    FST__F_STRING(
        struct prune_section, model, NULL,
        "stage whose model is pruned, or a model file, relative to the task's folder; missing: federated_train "
        "or edge_kd, the first of them that the task has",
        .aside = true),
    FST__F_ABOVE(struct prune_section, ratio, 0, 0.99, "0.5", "of the channels that are removed"),
    FST__F_ENUM(struct prune_section, importance, importances, "l1",
                "what a channel is worth: the magnitudes of the weights that make it, or the scale of the batch norm "
                "after it"),
    FST__F_ENUM(struct prune_section, scope, scopes, "layer",
                "the ratio is that of each layer, or of the network, wherever the least important are"),
    LEARNING_FIELDS("5"),
    FST__F_ABOVE(struct prune_section, temperature, 0, 1000, "4", "of both softmaxes",
                 .when = {FST__WITH_ANY("kd_weight")}),
    FST__F_DOUBLE(struct prune_section, ce_weight, 0, 1e6, "0.3", "weight of the hard labels' cross entropy"),
    FST__F_DOUBLE(struct prune_section, kd_weight, 0, 1e6, "0.7", "weight of the distillation loss"),
    FST__F_STRING(struct prune_section, teacher, NULL,
                  "stage whose model teaches, or a model file; missing: the model as it was before pruning",
                  .aside = true, .when = {FST__WITH_ANY("kd_weight")}),
};
_Static_assert(offsetof(struct prune_section, training) == 0, "training comes first");
static const fst__schema schema = FST__SCHEMA(struct prune_section, fields);

static const struct stage_ref refs[] = {{.key = "model",
                                         .what = FST__LEAVES_MODEL,
                                         .file = true,
                                         .learns = true,
                                         .fallback = "federated_train edge_kd",
                                         .missing = "needs a model, or a stage that leaves one: set model"},
                                        {.key = "teacher", .what = FST__LEAVES_MODEL, .file = true}};

static const char *network(const struct stage *own)
{
    (void)own;
    return NULL;
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    const struct prune_section *p = own->settings;
    bool weighs = fst__weighs_classes(&p->training.weights);
    (void)all;
    if (p->ce_weight == 0 && p->kd_weight == 0)
        return fst__complain(c, own, "kd_weight", "ce_weight and kd_weight are both 0: nothing to learn from");
    if (p->ce_weight == 0 && (weighs || p->training.label_smoothing > 0))
        return fst__complain(c, own, weighs ? "class_weights" : "label_smoothing", "has no effect: ce_weight is 0");
    return fst__training_complains(f, own, c);
}

/* ---- before it is there -------------------------------------------------------------------------------------- */

static fst_status cut(const struct step *own, const fst_model *whole, fst_model *out, fst_error *err)
{
    const struct prune_section *p = own->stage->settings;
    const fst_prune how = {.ratio = p->ratio, .importance = (fst_importance)p->importance, .global = p->scope == 1};
    char key[96];
    fst_status st = fst_model_prune(out, whole, &how, err);
    if (!st && out->state.param_count == whole->state.param_count) {
        fst_model_release(out);
        return fst_fail(err, FST_E_CONFIG, "%s: %g of so few channels are none",
                        fst__stage_key(own->stage, "ratio", key, sizeof key), p->ratio);
    }
    return st ? fst_fail_in(err, st == FST_E_MEMORY ? st : FST_E_CONFIG, "%s",
                            fst__stage_key(own->stage, "model", key, sizeof key))
              : FST_OK;
}

/* The pruned model, as far as that can be told: that of a file itself; of a stage's network one with other weights,
 * whose widths are right where they do not depend on weights. Without a graph: it cannot. */
static fst_status foresee(const struct session *s, const struct step *own, fst_model *out, fst_error *err)
{
    const struct stage *other = fst__stage_read(own->stage, "model", 0);
    const char *name = other ? other->kind->network(other) : NULL;
    fst_model whole = {0};
    fst_status st = FST_OK;
    if (!other)
        st = fst__read_f32(s, own, "model", ", which cannot be pruned", &whole, err);
    else if (name)
        st = fst__new_model(&s->data, name, &whole, err);
    if (!st && whole.graph)
        st = cut(own, &whole, out, err);
    fst_model_release(&whole);
    return st;
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct training *t = own->stage->settings;
    fst_model m = {0}, teacher = {0};
    fst_status st = foresee(s, own, &m, err);
    if (!st && m.graph && t->has_quantise)
        st = fst__check_learns_int8(own, m.graph, err);
    if (!st && fst__stage_file(own->stage, "teacher", 0))
        st = fst__read_model(s, own, "teacher", 0, &teacher, NULL, err);
    if (!st)
        st = fst__check_class_weights(&s->data, own->stage->name, &t->weights, err);
    if (!st)
        st = fst__check_training_batches(s, own, t, m.graph, err);
    if (!st)
        st = fst__check_schedule(own, &t->schedule, &t->optimizer, t->epochs, "epochs", err);
    fst_model_release(&m);
    fst_model_release(&teacher);
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst__add_reads(s, own, "model", text, err);
    return st ? st : fst__add_reads(s, own, "teacher", text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct prune_section *p = own->stage->settings;
    char text[128];
    fst_model m = {0};
    fst_status st = foresee(s, own, &m, err);
    if (!st && !m.graph)
        return fst__tell_later(own, "model", out, err);
    snprintf(text, sizeof text, "%s, pruned by %g%s", st ? "" : m.arch, p->ratio,
             p->scope ? " (widths may differ)" : "");
    struct work w = {.network = text,
                     .graph = m.graph,
                     .samples = (double)s->data.cloud.learn * (double)p->training.epochs,
                     .training = true,
                     .batch = (size_t)p->training.batch_size,
                     .plans = s->machine.threads};
    if (!st)
        st = fst__tell_work(s, own, &w, out, err);
    fst_model_release(&m);
    return st;
}

/* ---- the work ------------------------------------------------------------------------------------------------- */

static void progress(void *ctx, size_t done, size_t total)
{
    (void)total;
    fst__watch_update(ctx, done, NULL);
}

/* The teacher's logits of the samples to learn from. */
static fst_status ask(struct session *s, const struct step *own, const fst_model *teacher, fst_soft_labels *labels,
                      uint32_t *rows, fst_error *err)
{
    const struct share *share = &s->data.cloud;
    const struct prune_section *p = own->stage->settings;
    const fst_soft_spec spec = {.content = FST_SOFT_LOGITS, .temperature = p->temperature, .encoding = FST_SOFT_F32};
    fst_trainer_options o = fst__trainer_options(&s->machine, ANSWERS, s->machine.threads);
    fst_runner *runner = NULL;
    fst_status st = fst_runner_new(&runner, teacher->graph, &o, err);
    const fst_soft_make how = {.source = s->data.train,
                               .subset = share->index,
                               .subset_count = share->learn,
                               .transform = fst__stage_file(own->stage, "teacher", 0) ? fst_model_transform(teacher)
                                                                                      : s->data.transform,
                               .teacher = runner,
                               .teacher_state = &teacher->state,
                               .classes = teacher->classes,
                               .progress = progress,
                               .ctx = s};
    if (!st) {
        fst_runner_hold(runner, &teacher->state);
        fst__watch_begin(s, own->stage->name, share->learn, "samples");
        st = fst_soft_labels_make(labels, &spec, &how, err);
        fst__watch_end(s, NULL);
    }
    if (!st)
        st = fst_soft_labels_bind(labels, &spec, s->data.train, share->index, share->learn, rows, err);
    fst_runner_free(runner);
    return st;
}

static fst_status learn(struct session *s, const struct step *own, const fst_model *whole, fst_model *m,
                        struct record *r, fst_error *err)
{
    const struct prune_section *p = own->stage->settings;
    fst_model other = {0};
    fst_soft_labels labels = {0};
    uint32_t *rows = fst_calloc(s->data.train->count, sizeof *rows);
    fst_soft_binding binding = {&labels, rows};
    struct lesson l = {.step = own,
                       .training = &p->training,
                       .loss = {.ce_weight = p->ce_weight,
                                .kd_weight = p->kd_weight,
                                .temperature = p->temperature,
                                .kd_form = FST_KD_KL,
                                .label_smoothing = p->training.label_smoothing,
                                .soft_logits = true},
                       .soft = p->kd_weight > 0 ? &binding : NULL,
                       .begun = true};
    fst_status st = rows ? FST_OK : fst_fail_memory(err, s->data.train->count * sizeof *rows);
    if (!st && l.soft && fst__stage_reads(own->stage, "teacher"))
        st = fst__read_model(s, own, "teacher", 0, &other, NULL, err);
    if (!st && l.soft)
        st = ask(s, own, other.graph ? &other : whole, &labels, rows, err);
    if (!st)
        st = fst__train(s, &l, m, r, err);
    fst_free(rows);
    fst_soft_labels_release(&labels);
    fst_model_release(&other);
    return st;
}

/* What cutting alone has cost, on validation samples. */
static fst_status tell_cut(struct session *s, const struct step *own, const fst_model *whole, const fst_model *m,
                           fst_error *err)
{
    struct score before = FST__NO_SCORE, after = FST__NO_SCORE;
    char text[64] = "";
    fst_status st = fst__evaluate_validation(s, own->stage, whole->graph, &whole->state, &before, err);
    if (!st)
        st = fst__evaluate_validation(s, own->stage, m->graph, &m->state, &after, err);
    fst__forget_runner(s);
    if (st)
        return st;
    const fst_field f[] = {FST_INT("parameters_before", (int64_t)whole->state.param_count),
                           FST_INT("parameters", (int64_t)m->state.param_count),
                           FST_DOUBLE("flops_before", fst_graph_flops(whole->graph)),
                           FST_DOUBLE("flops", fst_graph_flops(m->graph)),
                           FST_DOUBLE("validation_accuracy_before", before.accuracy),
                           FST_DOUBLE("validation_accuracy", after.accuracy)};
    fst__emit(&s->books, "prune", f, sizeof f / sizeof *f);
    if (isfinite(after.accuracy))
        snprintf(text, sizeof text, ", validation accuracy %.2f %%, %.2f %% before", 100 * after.accuracy,
                 100 * before.accuracy);
    fst_log(FST_LOG_INFO, "%s: %zu of %zu parameters are left%s", own->stage->name, m->state.param_count,
            whole->state.param_count, text);
    return FST_OK;
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    fst_model whole = {0}, m = {0};
    fst_status st = fst__read_f32(s, own, "model", ", which cannot be pruned", &whole, err);
    if (!st)
        st = cut(own, &whole, &m, err);
    if (!st)
        st = tell_cut(s, own, &whole, &m, err);
    if (!st)
        st = learn(s, own, &whole, &m, r, err);
    if (!st)
        st = fst__save_model(s, own, &m, r, err);
    r->samples = (int64_t)s->data.cloud.learn;
    fst__forget_runner(s);
    fst_model_release(&m);
    fst_model_release(&whole);
    return st;
}

const struct stage_kind fst__prune = {
    .name = "prune",
    .help = "a finished model with fewer channels, trained further",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_FEDERATED | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .counts = "epoch",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .network = network,
    .total = fst__training_total,
    .extendable = fst__training_extendable,
    .complains = complains,
    .check = FST__TRAINS ? check : NULL, /* fedstill-edge is asked none of this, and has no pruning in it */
    .inputs = inputs,
    .tell = FST__TRAINS ? tell : NULL,
    .run = FST__TRAINS ? run : NULL,
};
