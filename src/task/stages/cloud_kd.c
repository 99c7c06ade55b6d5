/* The kind cloud_kd: a teacher's soft labels of the cloud's samples, or at each client of its own, one row a sample,
 * for the students that read them. The teacher is the model of a stage, or a file. What the labels are (probabilities
 * or logits) is what the students' losses take, unless the setting content says it. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fedstill/infer.h"
#include "supervised.h"

enum { EVAL_BATCH = 512, CONTENT_AUTO = 0, CONTENT_LOGITS = 2 };

/* ---- settings ---------------------------------------------------------------------------------------- */

static const char *const contents[] = {"auto", "probabilities", "logits", NULL};
static const char *const encodings[] = {"f32", "f16", "top_k", NULL};

static const char *const ensembles[] = {"mean_probabilities", "mean_logits", "entropy", "confidence", NULL};

static const fst__field fields[] = {
    FST__F_STRINGS(struct cloud_kd_section, teacher, teacher_count, FST_MAX_TEACHERS, NULL,
                   "stage whose model teaches, or a model file, relative to the task's folder, or several of them; "
                   "missing: the stage cloud_pretrain",
                   .aside = true),
    FST__F_ENUM(struct cloud_kd_section, teacher_weights, ensembles, NULL,
                "how several teachers become one target (docs/distillation.md); missing: mean_probabilities",
                FST__PRESENT(struct cloud_kd_section, has_teacher_weights), .when = {FST__WITH_ANY("teacher")}),
    FST__F_BOOL(struct cloud_kd_section, at_clients, NULL,
                "each client labels its own samples, instead of the cloud the cloud's; no labels travel",
                FST__PRESENT(struct cloud_kd_section, has_at_clients)),
    FST__F_ABOVE(struct cloud_kd_section, temperature, 0, 1000, "4", "of the teacher's softmax"),
    FST__F_ENUM(struct cloud_kd_section, content, contents, "auto",
                "what is kept; auto: what the kd_loss of the students needs"),
    FST__F_ENUM(struct cloud_kd_section, encoding, encodings, "f32", "how it is kept"),
    FST__F_INT(struct cloud_kd_section, top_k, 1, FST_MAX_CLASSES, "5", "classes kept a sample",
               .when = {FST__WITH("encoding", "top_k")}),
};
static const fst__schema schema = FST__SCHEMA(struct cloud_kd_section, fields);

static const struct stage_ref refs[] = {
    {.key = "teacher",
     .what = FST__LEAVES_MODEL,
     .file = true,
     .fallback = "cloud_pretrain",
     .missing = "needs the stage cloud_pretrain (the teacher), or teacher: STAGE or teacher: FILE"}};

/* ---- its students ------------------------------------------------------------------------------------ */

/* The i-th student that reads the labels; NULL: no more. */
static const struct stage *student(const struct stage_list *all, const struct stage *own, size_t i)
{
    for (size_t k = 0; k < all->count; k++)
        for (size_t r = 0; r < all->stage[k].read_count; r++)
            if (all->stage[k].reads[r].stage == own && !i--)
                return &all->stage[k];
    return NULL;
}

static bool takes_logits(const struct stage *student)
{
    return student->kind->takes_logits(student);
}

/* The first student's loss decides where nothing else is said. */
static bool holds_logits(const struct stage_list *all, const struct stage *own)
{
    const struct cloud_kd_section *k = own->settings;
    const struct stage *first = student(all, own, 0);
    return k->content == CONTENT_AUTO ? first && takes_logits(first) : k->content == CONTENT_LOGITS;
}

/* "temperature_schedule", or "kd_loss mse_logits": what of a student says which soft labels it takes. */
static const char *decider(const struct stage *student, char *out, size_t size)
{
    const bool rounds = fst__at_clients(student);
    const struct edge_kd_section *e = student->settings;
    const struct federated_section *t = student->settings;
    if (rounds)
        snprintf(out, size, "distillation.kd_loss %s", fst__kd_losses[t->distillation.kd_loss]);
    else if (e->has_temperature_schedule || e->has_curriculum)
        snprintf(out, size, "%s", e->has_curriculum ? "curriculum" : "temperature_schedule");
    else
        snprintf(out, size, "kd_loss %s", fst__kd_losses[e->kd_loss]);
    return out;
}

static bool at_clients(const struct stage *own)
{
    return ((const struct cloud_kd_section *)own->settings)->at_clients;
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    const struct cloud_kd_section *k = own->settings;
    const struct stage *one;
    bool logits = holds_logits(all, own);
    char text[64];
    if (k->at_clients && f->has_topology && f->topology.cloud_share >= 1 && !f->data.edge_path_count)
        return fst__complain(c, own, "at_clients", "the edges have no samples: topology.cloud_share is 1");
    if (k->at_clients && !f->has_topology && !fst__has_kind(f, "federated_train"))
        return fst__complain(
            c, own, "at_clients",
            "has no effect: clients come from a topology or a stage federated_train, and there is none");
    if (k->has_teacher_weights && k->teacher_count < 2)
        return fst__complain(c, own, "teacher_weights",
                             "has no effect with one teacher: name several, or leave it out");
    if (logits && k->teacher_count > 1 && k->teacher_weights != FST_ENSEMBLE_MEAN_LOGITS)
        return fst__complain(c, own, "teacher_weights",
                             "the logits of several teachers are their mean: set teacher_weights: mean_logits");
    if (k->encoding == FST_SOFT_TOP_K && logits && k->content)
        return fst__complain(c, own, "top_k",
                             "encoding top_k cannot hold logits, which content asks for: set encoding: f16");
    if (k->encoding == FST_SOFT_TOP_K && logits)
        return fst__complain(
            c, own, "top_k", "encoding top_k cannot hold logits, which %s.%.*s takes: set encoding: f16",
            student(all, own, 0)->name, (int)strcspn(decider(student(all, own, 0), text, sizeof text), " "), text);
    for (size_t i = 0; (one = student(all, own, i)); i++) {
        if (takes_logits(one) == logits)
            continue;
        decider(one, text, sizeof text);
        if (k->content)
            return fst__complain(c, own, "content", "is %s, %s.%s takes %s: leave content out", contents[k->content],
                                 one->name, text, contents[logits ? 1 : 2]);
        return fst__complain(c, one, "soft_labels",
                             "%s takes %s, but the soft labels of %s hold %s for %s: give each student soft labels of "
                             "its own",
                             text, contents[logits ? 1 : 2], own->name, contents[logits ? 2 : 1],
                             student(all, own, 0)->name);
    }
    return false;
}

/* ---- what they are --------------------------------------------------------------------------------------- */

static void teacher_digest(const struct session *s, const struct step *own, size_t i, char out[FST_DIGEST_HEX])
{
    const struct step *teacher = fst__step_read(s, own, "teacher", i);
    if (teacher)
        memcpy(out, teacher->record.digest, FST_DIGEST_HEX);
    else
        (void)!fst__file_digest(s, fst__stage_file(own->stage, "teacher", i), out, NULL);
}

void fst__teachers_digest(const struct stage *own, const char (*digest)[FST_DIGEST_HEX], size_t n,
                          char out[FST_DIGEST_HEX])
{
    const struct cloud_kd_section *k = own->settings;
    const char *weights = fst_ensemble_name((fst_ensemble)k->teacher_weights);
    fst_sha256 sha;
    if (n == 1) {
        memcpy(out, digest[0], FST_DIGEST_HEX);
        return;
    }
    fst_sha256_init(&sha);
    for (size_t i = 0; i < n; i++)
        fst_sha256_update(&sha, digest[i], FST_DIGEST_HEX);
    fst_sha256_update(&sha, weights, strlen(weights));
    fst_sha256_final(&sha, out);
}

fst_soft_spec fst__soft_spec(const struct session *s, const struct step *own)
{
    const struct cloud_kd_section *k = own->stage->settings;
    char digest[FST_MAX_TEACHERS][FST_DIGEST_HEX];
    fst_soft_spec spec = {.content =
                              holds_logits(&s->task->stages, own->stage) ? FST_SOFT_LOGITS : FST_SOFT_PROBABILITIES,
                          .temperature = k->temperature,
                          .encoding = (fst_soft_encoding)k->encoding,
                          .top_k = (int)k->top_k};
    size_t teachers = fst__stage_reads(own->stage, "teacher");
    if (*own->taught) { /* at a site, which has no other word of them */
        memcpy(spec.teacher_digest, own->taught, sizeof spec.teacher_digest);
        return spec;
    }
    for (size_t i = 0; i < teachers; i++)
        teacher_digest(s, own, i, digest[i]);
    if (teachers)
        fst__teachers_digest(own->stage, (const char(*)[FST_DIGEST_HEX])digest, teachers, spec.teacher_digest);
    return spec;
}

double fst__soft_bytes(const struct session *s, const struct stage *own)
{
    const struct cloud_kd_section *k = own->settings;
    double row = k->encoding == FST_SOFT_F32   ? 4.0 * s->data.train->classes
                 : k->encoding == FST_SOFT_F16 ? 2.0 * s->data.train->classes
                                               : 4.0 * (double)k->top_k;
    return (double)s->data.cloud.learn * (row + 16);
}

/* ---- whose samples --------------------------------------------------------------------------------------- */

/* The samples to label: positions in the training samples. */
struct targets {
    const uint32_t *index;
    size_t count;
    fst_partition clients; /* owns them where they are the clients'; clients 0: they are the cloud's */
};

static fst_status targets_of(const struct session *s, const struct step *own, struct targets *out, fst_error *err)
{
    *out = (struct targets){.index = s->data.cloud.index, .count = s->data.cloud.learn};
    fst_status st = at_clients(own->stage) ? fst__clients(&s->data, s->task, &out->clients, err) : FST_OK;
    if (!st && out->clients.clients) {
        out->index = out->clients.index;
        out->count = out->clients.begin[out->clients.clients];
    }
    return st;
}

/* What a teacher costs on the way to every client. */
static uint64_t sent_to_clients(const struct targets *t, const fst_graph *teacher)
{
    uint64_t model = 4 * (uint64_t)(fst_graph_param_count(teacher) + fst_graph_buffer_count(teacher)) +
                     8 * (uint64_t)fst_graph_counters(teacher);
    return model * (uint64_t)t->clients.clients;
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct cloud_kd_section *k = own->stage->settings;
    char key[96];
    fst_status st = FST_OK;
    if (k->encoding == FST_SOFT_TOP_K && k->top_k > s->data.train->classes)
        return fst_fail(err, FST_E_CONFIG, "%s: is %lld, the data have %d classes",
                        fst__stage_key(own->stage, "top_k", key, sizeof key), (long long)k->top_k,
                        s->data.train->classes);
    for (size_t i = 0; !st && i < fst__stage_reads(own->stage, "teacher"); i++) {
        fst_model m = {0};
        if (fst__stage_file(own->stage, "teacher", i))
            st = fst__read_model(s, own, "teacher", i, &m, NULL, err);
        fst_model_release(&m);
    }
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst_buf_printf(text, err, "content=%s\n", fst_soft_content_name(fst__soft_spec(s, own).content));
    if (!st && at_clients(own->stage) && !s->data.edges)
        st = fst__add_clients(s, text, err);
    if (!st && at_clients(own->stage) && s->options->rounds) /* their file is not here */
        st = fst_buf_printf(text, err, "kept_at=sites\n");
    return st ? st : fst__add_reads(s, own, "teacher", text, err);
}

static fst_status tell_teacher(const struct session *s, const struct step *own, const struct targets *t, size_t i,
                               fst_buf *out, fst_error *err)
{
    const struct stage *teacher = fst__stage_read(own->stage, "teacher", i);
    fst_model m = {0};
    fst_graph *g = NULL;
    struct work w = {.network = teacher ? teacher->kind->network(teacher) : NULL,
                     .samples = (double)t->count,
                     .batch = 128,
                     .plans = s->machine.threads};
    if (teacher && !w.network)
        return fst__tell_later(own, "teacher", out, err);
    fst_status st =
        teacher ? fst__model_graph(&s->data, w.network, &g, err) : fst__read_model(s, own, "teacher", i, &m, NULL, err);
    if (!st) {
        w.network = teacher ? w.network : m.arch;
        w.graph = teacher ? g : m.graph;
        w.bytes_down = t->clients.clients       ? (double)sent_to_clients(t, w.graph)
                       : s->data.edges || i > 0 ? 0
                                                : fst__soft_bytes(s, own->stage);
        st = fst__tell_work(s, own, &w, out, err);
    }
    fst_graph_free(g);
    fst_model_release(&m);
    return st;
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    struct targets t;
    fst_status st = targets_of(s, own, &t, err);
    for (size_t i = 0; !st && i < fst__stage_reads(own->stage, "teacher"); i++)
        st = tell_teacher(s, own, &t, i, out, err);
    fst_partition_release(&t.clients);
    return st;
}

/* ---- making them ------------------------------------------------------------------------------------------ */

static void progress(void *ctx, size_t done, size_t total)
{
    (void)total;
    fst__watch_update(ctx, done, NULL);
}

/* The teachers' networks, ready to answer. */
struct teachers {
    fst_soft_teacher ready[FST_MAX_TEACHERS];
    size_t count;
};

static fst_status open_teachers(const struct session *s, const struct step *own, const fst_model *model, size_t count,
                                struct teachers *t, fst_error *err)
{
    fst_trainer_options o = fst__trainer_options(&s->machine, EVAL_BATCH, s->machine.threads);
    fst_status st = FST_OK;
    for (t->count = 0; !st && t->count < count; t->count += !st) {
        const fst_model *m = &model[t->count];
        fst_soft_teacher *ready = &t->ready[t->count];
        ready->state = &m->state;
        ready->transform =
            fst__stage_file(own->stage, "teacher", t->count) ? fst_model_transform(m) : s->data.transform;
        st = fst_runner_new(&ready->runner, m->graph, &o, err);
        if (!st)
            fst_runner_hold(ready->runner, &m->state);
    }
    return st;
}

fst_status fst__soften(struct session *s, const struct step *own, const fst_model *teacher, size_t teachers,
                       const uint32_t *index, size_t count, fst_soft_labels *labels, fst_error *err)
{
    const struct cloud_kd_section *k = own->stage->settings;
    fst_soft_spec spec = fst__soft_spec(s, own);
    struct teachers t = {.count = 0};
    fst_status st = open_teachers(s, own, teacher, teachers, &t, err);
    fst_soft_make how = {.source = s->data.train,
                         .subset = index,
                         .subset_count = count,
                         .transform = t.ready[0].transform,
                         .teacher = t.ready[0].runner,
                         .teacher_state = t.ready[0].state,
                         .more = t.ready + 1,
                         .more_count = t.count - 1,
                         .weights = (fst_ensemble)k->teacher_weights,
                         .classes = teacher[0].classes,
                         .progress = progress,
                         .ctx = s};
    fst__watch_begin(s, own->stage->name, count, "samples");
    fst__watch_update(s, 0, NULL);
    if (!st)
        st = fst_soft_labels_make(labels, &spec, &how, err);
    fst__watch_end(s, NULL);
    for (size_t i = 0; i < t.count; i++)
        fst_runner_free(t.ready[i].runner);
    return st;
}

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_size;
}

static fst_status read_teachers(const struct session *s, const struct step *own, fst_model *model, size_t *count,
                                fst_error *err)
{
    fst_status st = FST_OK;
    for (*count = 0; !st && *count < fst__stage_reads(own->stage, "teacher"); *count += !st)
        st = fst__read_model(s, own, "teacher", *count, &model[*count], NULL, err);
    return st;
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    fst_model model[FST_MAX_TEACHERS];
    size_t teachers = 0;
    fst_soft_labels labels = {0};
    struct targets of;
    double start = fst_clock_seconds();
    if (s->options->rounds && at_clients(own->stage))
        return fst__label_elsewhere(s, own, r, err);
    fst_status st = targets_of(s, own, &of, err);
    if (!st)
        st = read_teachers(s, own, model, &teachers, err);
    snprintf(r->artifact, sizeof r->artifact, FST__SOFT_LABELS);
    char *path = fst__step_path(s, own, r->artifact);
    if (!st)
        st = path ? fst__soften(s, own, model, teachers, of.index, of.count, &labels, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_soft_labels_write(&labels, path, r->digest, err);
    if (!st) {
        r->samples = (int64_t)labels.samples;
        r->accuracy = r->loss = NAN;
        r->bytes_down = s->data.edges || of.clients.clients ? 0 : file_bytes(path); /* what an edge fetches */
        for (size_t i = 0; i < teachers; i++)
            r->bytes_down += sent_to_clients(&of, model[i].graph);
        r->seconds = fst_clock_seconds() - start;
    }
    fst_free(path);
    fst_partition_release(&of.clients);
    fst_soft_labels_release(&labels);
    while (teachers > 0)
        fst_model_release(&model[--teachers]);
    return st;
}

const struct stage_kind fst__cloud_kd = {
    .name = "cloud_kd",
    .help = "the teacher's soft labels",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_DISTILLATION | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_SOFT_LABELS,
    .trained = true,
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .at_clients = at_clients,
    .complains = complains,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? run : NULL,
};
