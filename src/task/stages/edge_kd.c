/* The kind edge_kd: a student from the labels and a teacher's soft labels of the cloud's samples. With baseline: true
 * it implies a second stage, which trains the same network in the same way on labels alone. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "distil_file.h"
#include "feature_maps.h"
#include "supervised.h"
#include "training_file.h"

/* ---- settings ---------------------------------------------------------------------------------------- */

const char *const fst__kd_losses[] = {"kl",           "cross_entropy", "mse_logits", "mse_probabilities",
                                      "standardised", "dkd",           NULL};

static const fst__field dkd_fields[] = {
    FST__F_DOUBLE(struct dkd_section, alpha, 0, 1e6, "1", "weight of the label against all others (TCKD)"),
    FST__F_DOUBLE(struct dkd_section, beta, 0, 1e6, "8", "weight of the others among themselves (NCKD)"),
    FST__F_INT(struct dkd_section, warmup_epochs, 0, FST__MANY, "0",
               "kd_weight rises linearly over so many epochs; the paper has 20 of 240"),
};

static bool check_dkd(const void *object, fst__complaint *c)
{
    const struct dkd_section *d = object;
    if (d->alpha > 0 || d->beta > 0)
        return true;
    c->key = "beta";
    snprintf(c->text, sizeof c->text, "is 0, as alpha is: nothing is left of the loss");
    return false;
}

const fst__schema fst__dkd_schema = FST__SCHEMA(struct dkd_section, dkd_fields, .check = check_dkd);

static const fst__field fields[] = {
    TRAINING_FIELDS("5"),
    FST__F_DOUBLE(struct edge_kd_section, temperature, 0, 1000, "0",
                  "of both softmaxes; 0: that of the soft labels, or 1 with peers",
                  .when = {FST__WITH("kd_loss", "kl", "cross_entropy", "standardised", "dkd"),
                           FST__WITH_ANY("kd_weight"), FST__WITHOUT_ANY("curriculum")}),
    FST__F_DOUBLE(struct edge_kd_section, ce_weight, 0, 1e6, "0.3", "weight of the hard labels' cross entropy"),
    FST__F_DOUBLE(struct edge_kd_section, kd_weight, 0, 1e6, "0.7", "weight of the distillation loss"),
    FST__F_ENUM(struct edge_kd_section, kd_loss, fst__kd_losses, "kl",
                "distillation loss; mse_logits, standardised and dkd take the teacher's logits",
                .when = {FST__WITH_ANY("kd_weight")}),
    FST__F_MAP(struct edge_kd_section, dkd, &fst__dkd_schema, "the weights of the parts of the loss",
               .when = {FST__WITH("kd_loss", "dkd"), FST__WITH_ANY("kd_weight")}),
    FST__F_OPTIONAL(
        struct edge_kd_section, temperature_schedule, has_temperature_schedule, &fst__ramp_schema,
        "the temperature moves to `temperature` over the epochs; soft labels are then logits; missing: constant",
        .when = {FST__WITH("kd_loss", "kl", "cross_entropy", "standardised", "dkd"), FST__WITH_ANY("kd_weight"),
                 FST__WITHOUT_ANY("curriculum")}),
    FST__F_OPTIONAL(struct edge_kd_section, curriculum, has_curriculum, &fst__curriculum_schema,
                    "the temperature is learnt against the student (CTKD); soft labels are then logits",
                    .when = {FST__WITH("kd_loss", "kl"), FST__WITH_ANY("kd_weight"), FST__WITHOUT_ANY("online")}),
    FST__F_OPTIONAL(struct edge_kd_section, online, has_online, &fst__online_schema,
                    "other networks are trained along with the student and are its teachers; no soft labels",
                    .when = {FST__WITH("kd_loss", "kl", "cross_entropy"), FST__WITH_ANY("kd_weight")}),
    FST__F_OPTIONAL(struct edge_kd_section, ce_weight_schedule, has_ce_weight_schedule, &fst__ramp_schema,
                    "the same of ce_weight"),
    FST__F_OPTIONAL(struct edge_kd_section, kd_weight_schedule, has_kd_weight_schedule, &fst__ramp_schema,
                    "the same of kd_weight", .when = {FST__WITH_ANY("kd_weight")}),
    FST__F_OPTIONAL(struct edge_kd_section, iterated, has_iterated, &fst__iterated_schema,
                    "iterated soft targets: part A by labels, then rounds of fresh parts B by soft labels, each for "
                    "`epochs` epochs, until the validation accuracy stops rising",
                    .when = {FST__WITH_ANY("kd_weight"), FST__WITHOUT_ANY("online")}),
    FST__F_OPTIONAL(struct edge_kd_section, fitnet, has_fitnet, &fst__fitnet_schema,
                    "a layer of the student learns to be one of the teacher's, through a learnt 1x1 convolution"),
    FST__F_OPTIONAL(struct edge_kd_section, attention, has_attention, &fst__attention_schema,
                    "layers of the student learn where those of the teacher are active (attention transfer)"),
    FST__F_STRING(struct edge_kd_section, teacher, NULL,
                  "stage or model file whose feature maps fitnet and attention compare with; missing: the stage "
                  "cloud_pretrain",
                  .aside = true),
    FST__F_STRING(struct edge_kd_section, soft_labels, NULL,
                  "stage whose soft labels it learns from; missing: the stage cloud_kd", .aside = true,
                  .when = {FST__WITH_ANY("kd_weight"), FST__WITHOUT_ANY("online")}),
    FST__F_BOOL(struct edge_kd_section, baseline, "false",
                "also train the student alone: same epochs, hard labels only", .aside = true),
};
/* The shared fields' offsets are those of struct training, which must therefore come first. */
_Static_assert(offsetof(struct edge_kd_section, training) == 0, "training comes first");

static bool check_settings(const void *object, fst__complaint *c)
{
    const struct edge_kd_section *e = object;
    const char *why = NULL;
    if (e->has_temperature_schedule && !(e->temperature_schedule.from > 0))
        c->key = "temperature_schedule.from", why = "must be above 0";
    else if (e->has_ce_weight_schedule && e->ce_weight_schedule.from == e->ce_weight)
        c->key = "ce_weight_schedule.from", why = "is what ce_weight is: nothing would change";
    else if (e->has_kd_weight_schedule && e->kd_weight_schedule.from == e->kd_weight)
        c->key = "kd_weight_schedule.from", why = "is what kd_weight is: nothing would change";
    else if (e->has_kd_weight_schedule && e->kd_loss == FST_KD_DKD && e->dkd.warmup_epochs)
        c->key = "kd_weight_schedule", why = "and dkd.warmup_epochs both move kd_weight: set one of them";
    if (why)
        snprintf(c->text, sizeof c->text, "%s", why);
    return !why;
}

static const fst__schema schema = FST__SCHEMA(struct edge_kd_section, fields, .check = check_settings);

bool fst__student_takes_logits(const struct edge_kd_section *e)
{
    return fst_kd_takes_logits((fst_kd_form)e->kd_loss) || e->has_temperature_schedule || e->has_curriculum;
}

static bool uses_soft_labels(const struct stage *own)
{
    const struct edge_kd_section *e = own->settings;
    return e->kd_weight > 0 && !e->has_online;
}

static bool uses_features(const struct stage *own)
{
    return fst__learns_features(own->settings);
}

static const struct stage_ref refs[] = {{.key = "init", .what = FST__LEAVES_MODEL, .file = true, .learns = true},
                                        {.key = "soft_labels",
                                         .what = FST__LEAVES_SOFT_LABELS,
                                         .fallback = "cloud_kd",
                                         .missing = "needs the stage cloud_kd (the soft labels), or kd_weight: 0",
                                         .wanted = uses_soft_labels},
                                        {.key = "teacher",
                                         .what = FST__LEAVES_MODEL,
                                         .file = true,
                                         .fallback = "cloud_pretrain",
                                         .missing = "fitnet and attention need a teacher: set teacher: STAGE or FILE",
                                         .wanted = uses_features}};

bool fst__soft_complains(const struct stage *own, const char *key, int kd_loss, double temperature,
                         const struct stage *labels, fst__complaint *c)
{
    const struct cloud_kd_section *k = labels->settings;
    char name[64];
    snprintf(name, sizeof name, "%stemperature", key);
    if (temperature != 0 && temperature != k->temperature && !own->kind->takes_logits(own) &&
        kd_loss < FST_KD_MSE_LOGITS)
        return fst__complain(c, own, name, "differs from %s's temperature: soft labels and student need the same one",
                             labels->name);
    if (kd_loss == FST_KD_MSE_PROBABILITIES && k->temperature != 1)
        return fst__complain(c, labels, "temperature",
                             "must be 1: %s.%skd_loss mse_probabilities compares at that temperature", own->name, key);
    return false;
}

static bool takes_logits(const struct stage *own)
{
    return fst__student_takes_logits(own->settings);
}

/* The setting of a schedule that follows an accuracy; NULL: none does. */
static const char *follows_accuracy(const struct edge_kd_section *e)
{
    if (e->has_temperature_schedule && e->temperature_schedule.name == FST_RAMP_ACCURACY)
        return "temperature_schedule";
    if (e->has_ce_weight_schedule && e->ce_weight_schedule.name == FST_RAMP_ACCURACY)
        return "ce_weight_schedule";
    return e->has_kd_weight_schedule && e->kd_weight_schedule.name == FST_RAMP_ACCURACY ? "kd_weight_schedule" : NULL;
}

/* Does anything learn from hard labels? Part A does, and peers that learn alone. */
static bool uses_hard_labels(const struct edge_kd_section *e)
{
    return e->ce_weight > 0 || e->has_ce_weight_schedule || e->baseline || e->has_iterated ||
           (e->has_online && e->online.learn == FST__PEERS_ALONE);
}

/* Settings of hard labels, and of a temperature, that would change nothing. */
static bool effect_complains(const struct stage *own, const struct stage *labels, fst__complaint *c)
{
    const struct edge_kd_section *e = own->settings;
    const struct cloud_kd_section *k = labels ? labels->settings : NULL;
    double temperature = e->temperature > 0 ? e->temperature : k ? k->temperature : 1;
    bool weighs = fst__weighs_classes(&e->training.weights);
    if (!uses_hard_labels(e) && (weighs || e->training.label_smoothing > 0))
        return fst__complain(c, own, weighs ? "class_weights" : "label_smoothing",
                             "has no effect: ce_weight is 0, and there is no baseline that learns hard labels");
    if (e->has_temperature_schedule && e->temperature_schedule.from == temperature)
        return fst__complain(c, own, "temperature_schedule.from",
                             "is %g, as the temperature at its end is: nothing would change", temperature);
    return false;
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    const struct edge_kd_section *e = own->settings;
    const struct stage *labels = fst__stage_read(own, "soft_labels", 0);
    const char *ramp = follows_accuracy(e);
    (void)all;
    if (e->training.has_quantise && (fst__learns_features(e) || e->has_online))
        return fst__complain(c, own, "quantise", "does not go with %s yet: leave one of them out",
                             e->has_online ? "online" : "fitnet and attention");
    if (e->has_iterated && e->training.has_early_stopping)
        return fst__complain(c, own, "early_stopping", "has no effect with iterated, whose patience counts rounds");
    if (e->has_iterated && !f->data.own_validation && f->data.validation == 0)
        return fst__complain(c, own, "iterated", "needs samples to judge rounds by: set data.validation");
    if (e->teacher && !fst__learns_features(e))
        return fst__complain(c, own, "teacher",
                             "has no effect without fitnet or attention; soft labels say whose they are");
    if (e->kd_weight == 0 && e->ce_weight == 0 && !e->has_ce_weight_schedule)
        return fst__complain(c, own, "kd_weight", "ce_weight and kd_weight are both 0: nothing to learn from");
    if (effect_complains(own, labels, c))
        return true;
    if (ramp && !f->data.own_validation && f->data.validation == 0)
        return fst__complain(c, own, ramp, "follows the validation accuracy: set data.validation");
    if (labels && f->has_topology && fst__at_clients(labels))
        return fst__complain(c, own, "soft_labels", "%s labels the samples of the edges (at_clients), not the cloud's",
                             labels->name);
    return (labels && fst__soft_complains(own, "", e->kd_loss, e->temperature, labels, c)) ||
           fst__training_complains(f, own, c);
}

/* ---- the student ----------------------------------------------------------------------------------- */

/* A value that never gets to where its setting says, or is there from the beginning. */
static void check_ramp(const struct step *own, const char *key, bool there, const struct ramp_section *r)
{
    int64_t last = r->over, epochs = fst__training_total(own->stage);
    for (size_t i = 0; r->name == FST_RAMP_STEP && i < r->milestone_count; i++)
        last = r->milestones[i] + 1 > last ? r->milestones[i] + 1 : last;
    if (there && last > epochs)
        fst_log(FST_LOG_WARN, "stages.%s.%s: takes %lld epochs, and there are %lld: %.*s never gets to its last value",
                own->stage->name, key, (long long)last, (long long)epochs, (int)(strlen(key) - strlen("_schedule")),
                key);
    if (there && epochs == 1 && !r->over && (r->name == FST_RAMP_LINEAR || r->name == FST_RAMP_COSINE))
        fst_log(FST_LOG_WARN, "stages.%s.%s: there is one epoch, which has the last value already", own->stage->name,
                key);
}

static void check_curriculum(const struct step *own, const struct edge_kd_section *e)
{
    int64_t epochs = e->training.epochs * (e->has_iterated ? 1 + e->iterated.rounds : 1);
    if (e->has_curriculum && e->curriculum.over >= epochs)
        fst_log(FST_LOG_WARN,
                "stages.%s.curriculum.over: its whole strength comes after %lld epochs, and there are %lld",
                own->stage->name, (long long)e->curriculum.over, (long long)epochs);
}

/* Is there something in each part, and with drop_last a full batch? */
static fst_status check_parts(const struct session *s, const struct step *own, const struct edge_kd_section *e,
                              fst_error *err)
{
    fst_parts p = {0};
    char key[96];
    fst_status st =
        fst_parts_init(&p, s->data.cloud.index, s->data.cloud.learn, e->iterated.part_a, e->iterated.part_b, 0, err);
    size_t fewest = p.a < p.b ? p.a : p.b;
    if (!st && e->training.drop_last && fewest < (size_t)e->training.batch_size)
        st = fst_fail(err, FST_E_CONFIG,
                      "a part has %zu samples, which make no full batch of %lld, and drop_last is set", fewest,
                      (long long)e->training.batch_size);
    fst_parts_release(&p);
    return st ? fst_fail_in(err, st, "%s", fst__stage_key(own->stage, "iterated", key, sizeof key)) : FST_OK;
}

static fst_status check_peers(const struct session *s, const struct step *own, const struct online_section *o,
                              fst_error *err)
{
    fst_status st = FST_OK;
    char key[96];
    for (size_t i = 0; !st && i < o->peer_count; i++) {
        fst_graph *g = NULL;
        st = fst__model_graph(&s->data, o->peers[i], &g, err);
        fst_graph_free(g);
    }
    return st ? fst_fail_in(err, st == FST_E_MEMORY ? st : FST_E_CONFIG, "%s",
                            fst__stage_key(own->stage, "online.peers", key, sizeof key))
              : FST_OK;
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct edge_kd_section *e = own->stage->settings;
    fst_status st = fst__training_check(s, own, err);
    if (!st && fst__learns_features(e))
        st = fst__features_check(s, own, err);
    if (!st && e->has_iterated)
        st = check_parts(s, own, e, err);
    if (!st && e->has_online)
        st = check_peers(s, own, &e->online, err);
    if (!st && e->kd_loss == FST_KD_DKD && e->dkd.warmup_epochs > e->training.epochs)
        fst_log(FST_LOG_WARN,
                "stages.%s.dkd.warmup_epochs: is %lld, and there are %lld epochs: kd_weight never gets to %g",
                own->stage->name, (long long)e->dkd.warmup_epochs, (long long)e->training.epochs, e->kd_weight);
    check_curriculum(own, e);
    check_ramp(own, "temperature_schedule", e->has_temperature_schedule, &e->temperature_schedule);
    check_ramp(own, "ce_weight_schedule", e->has_ce_weight_schedule, &e->ce_weight_schedule);
    check_ramp(own, "kd_weight_schedule", e->has_kd_weight_schedule, &e->kd_weight_schedule);
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst__training_inputs(s, own, text, err);
    if (!st)
        st = fst__add_reads(s, own, "soft_labels", text, err);
    return st ? st : fst__add_reads(s, own, "teacher", text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct edge_kd_section *e = own->stage->settings;
    const struct stage *labels = fst__stage_read(own->stage, "soft_labels", 0);
    const double learn = (double)s->data.cloud.learn, a = e->iterated.part_a;
    const double parts = a + (double)e->iterated.rounds * (1 - a) * e->iterated.part_b; /* at most */
    struct work all = {.network = e->training.model,
                       .samples = floor(learn * (double)e->training.epochs * (e->has_iterated ? parts : 1)),
                       .training = true,
                       .batch = (size_t)e->training.batch_size,
                       .plans = s->machine.threads,
                       .bytes_down = labels && !s->data.edges ? fst__soft_bytes(s, labels) : 0};
    fst_status st = fst__tell_work(s, own, &all, out, err);
    for (size_t i = 0; !st && e->has_online && i < e->online.peer_count; i++) {
        struct work w = {.network = e->online.peers[i],
                         .samples = (double)s->data.cloud.learn * (double)e->training.epochs,
                         .training = true,
                         .batch = (size_t)e->training.batch_size,
                         .plans = s->machine.threads};
        st = fst__tell_work(s, own, &w, out, err);
    }
    return st;
}

fst_soft_spec fst__expected_labels(const struct session *s, const struct step *own, int kd_loss, double temperature,
                                   const struct step *labels)
{
    fst_soft_spec spec = fst__soft_spec(s, labels);
    spec.content = own->stage->kind->takes_logits(own->stage) ? FST_SOFT_LOGITS : FST_SOFT_PROBABILITIES;
    if (kd_loss == FST_KD_MSE_PROBABILITIES)
        spec.temperature = 1;
    else if (temperature > 0)
        spec.temperature = temperature;
    return spec;
}

static void move(struct lesson *l, enum fst__moving what, bool there, const struct ramp_section *r, double to)
{
    fst_ramp *ramp = &l->ramp[what];
    l->moves[what] = there;
    if (!there)
        return;
    *ramp = (fst_ramp){.kind = (fst_ramp_kind)r->name,
                       .from = r->from,
                       .to = to,
                       .epochs = r->over ? r->over : l->training->epochs,
                       .milestone_count = (int)r->milestone_count,
                       .low = r->low,
                       .high = r->high};
    memcpy(ramp->milestones, r->milestones, sizeof ramp->milestones);
}

/* The student's loss, without soft labels yet. */
static struct lesson student_lesson(const struct step *own, double temperature)
{
    const struct edge_kd_section *e = own->stage->settings;
    struct lesson l = {.step = own,
                       .training = &e->training,
                       .loss = {.ce_weight = e->ce_weight,
                                .kd_weight = e->kd_weight,
                                .temperature = temperature,
                                .kd_form = (fst_kd_form)e->kd_loss,
                                .label_smoothing = e->training.label_smoothing,
                                .tckd_weight = e->dkd.alpha,
                                .nckd_weight = e->dkd.beta,
                                .soft_logits = fst__student_takes_logits(e) && !e->has_online},
                       .kd_warmup = e->kd_loss == FST_KD_DKD ? e->dkd.warmup_epochs : 0};
    l.features = fst__learns_features(e);
    l.iterated = e->has_iterated ? &e->iterated : NULL;
    l.online = e->has_online ? &e->online : NULL;
    if (e->has_curriculum)
        l.curriculum = &e->curriculum;
    move(&l, MOVES_TEMPERATURE, e->has_temperature_schedule, &e->temperature_schedule, temperature);
    move(&l, MOVES_CE_WEIGHT, e->has_ce_weight_schedule, &e->ce_weight_schedule, e->ce_weight);
    move(&l, MOVES_KD_WEIGHT, e->has_kd_weight_schedule, &e->kd_weight_schedule, e->kd_weight);
    return l;
}

fst_status fst__fetch_labels(const struct session *s, const struct step *from, const fst_soft_spec *want,
                             const uint32_t *index, size_t count, uint32_t *rows, fst_soft_labels *labels,
                             size_t *bytes, fst_error *err)
{
    fst_buf text = {0};
    char *path = fst__step_path(s, from, from->record.artifact);
    fst_status st = path ? fst__read_artifact(s, from, from->record.artifact, &text, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_soft_labels_parse(labels, path, text.data, text.len, err);
    *bytes = text.len;
    fst_buf_release(&text);
    if (!st)
        st = fst_soft_labels_bind(labels, want, s->data.train, index, count, rows, err);
    fst_free(path);
    return st;
}

static fst_status distil(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct edge_kd_section *e = own->stage->settings;
    const struct step *from = fst__step_read(s, own, "soft_labels", 0);
    const struct share *share = &s->data.cloud;
    const fst_soft_spec want = fst__expected_labels(s, own, e->kd_loss, e->temperature, from);
    fst_soft_labels labels = {0};
    size_t travelled = 0;
    uint32_t *rows = fst_calloc(s->data.train->count, sizeof *rows);
    fst_status st = rows ? fst__fetch_labels(s, from, &want, share->index, share->learn, rows, &labels, &travelled, err)
                         : fst_fail_memory(err, s->data.train->count * sizeof *rows);
    if (!st) {
        fst_soft_binding binding = {&labels, rows};
        struct lesson l = student_lesson(own, want.temperature);
        l.soft = &binding;
        st = fst__learn(s, &l, r, err);
        r->bytes_down = s->data.edges ? 0 : travelled; /* what an edge fetches */
    }
    fst_free(rows);
    fst_soft_labels_release(&labels);
    return st;
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct edge_kd_section *e = own->stage->settings;
    if (uses_soft_labels(own->stage))
        return distil(s, own, r, err);
    struct lesson l = student_lesson(own, e->has_online && e->temperature > 0 ? e->temperature : 1);
    return fst__learn(s, &l, r, err);
}

/* ---- the baseline ------------------------------------------------------------------------------------ */

static fst_status alone_run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct training *t = own->stage->settings;
    struct lesson l = {.step = own, .training = t, .loss = fst__hard_loss(t)};
    return fst__learn(s, &l, r, err);
}

/* It depends on how the student is trained, not on how it is distilled. */
static fst_status alone_inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst_buf_printf(text, err, "training=");
    if (!st)
        st = fst__schema_json(&fst__training_schema, own->stage->settings, text, err);
    if (!st)
        st = fst_buf_append(text, "\n", 1, err);
    return st ? st : fst__training_inputs(s, own, text, err);
}

static fst_status alone_tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    return fst__training_tell(s, own, 0, out, err);
}

/* Its settings are the student's, which begin with a struct training. It starts from the same weights and sees the same
 * batches. */
static const struct stage_kind edge_alone = {
    .name = "edge_alone",
    .help = "a student on hard labels alone: edge_kd with baseline: true",
    .schema = &schema,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .streams = "edge_kd",
    .counts = "epoch",
    .refs = refs, /* the first of them */
    .ref_count = 1,
    .network = fst__training_network,
    .total = fst__training_total,
    .extendable = fst__training_extendable,
    .inputs = alone_inputs,
    .tell = alone_tell,
    .run = FST__TRAINS ? alone_run : NULL,
};

/* A value on its way to the end of the stage has another one in every epoch when the end is elsewhere. */
static bool ramp_total_free(bool there, const struct ramp_section *r)
{
    return !there || r->over || r->name == FST_RAMP_STEP || r->name == FST_RAMP_ACCURACY;
}

static bool extendable(const struct stage *own)
{
    const struct edge_kd_section *e = own->settings;
    return fst__training_extendable(own) && !e->has_iterated &&
           ramp_total_free(e->has_temperature_schedule, &e->temperature_schedule) &&
           ramp_total_free(e->has_ce_weight_schedule, &e->ce_weight_schedule) &&
           ramp_total_free(e->has_kd_weight_schedule, &e->kd_weight_schedule);
}

static const struct stage_kind *implies(const struct stage *own, char *name, size_t size)
{
    if (!((const struct edge_kd_section *)own->settings)->baseline)
        return NULL;
    if (!strcmp(own->name, "edge_kd"))
        snprintf(name, size, "edge_alone");
    else
        snprintf(name, size, "%s_alone", own->name);
    return &edge_alone;
}

/* ---- the kind --------------------------------------------------------------------------------------------- */

const struct stage_kind fst__edge_kd = {
    .name = "edge_kd",
    .help = "the student, from soft and hard labels",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_DISTILLATION | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .counts = "epoch",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .implied = &edge_alone,
    .implies = implies,
    .network = fst__training_network,
    .takes_logits = takes_logits,
    .total = fst__training_total,
    .extendable = extendable,
    .complains = complains,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? run : NULL,
};
