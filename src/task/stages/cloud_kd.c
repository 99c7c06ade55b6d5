/* The kind cloud_kd: a teacher's soft labels of the cloud's samples, one row a sample, for the students that read them.
 * The teacher is the model of a stage, or a file. What the labels are (probabilities or logits) is what the students'
 * losses take, unless the setting content says it. */
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

static const fst__field fields[] = {
    FST__F_STRING(struct cloud_kd_section, teacher, NULL,
                  "stage whose model teaches, or a model file, relative to the task's folder; missing: the stage "
                  "cloud_pretrain",
                  .aside = true),
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
        if (fst__stage_read(&all->stage[k], "soft_labels", 0) == own && !i--)
            return &all->stage[k];
    return NULL;
}

static bool takes_logits(const struct stage *student)
{
    return fst__student_takes_logits(student->settings);
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
    const struct edge_kd_section *e = student->settings;
    if (e->has_temperature_schedule)
        snprintf(out, size, "temperature_schedule");
    else
        snprintf(out, size, "kd_loss %s", fst__find_field(student->kind->schema, "kd_loss")->names[e->kd_loss]);
    return out;
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    const struct cloud_kd_section *k = own->settings;
    const struct stage *one;
    bool logits = holds_logits(all, own);
    char text[64];
    (void)f;
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

fst_soft_spec fst__soft_spec(const struct session *s, const struct step *own)
{
    const struct cloud_kd_section *k = own->stage->settings;
    const struct step *teacher = fst__step_read(s, own, "teacher", 0);
    const char *file = fst__stage_file(own->stage, "teacher", 0);
    fst_soft_spec spec = {.content =
                              holds_logits(&s->task->stages, own->stage) ? FST_SOFT_LOGITS : FST_SOFT_PROBABILITIES,
                          .temperature = k->temperature,
                          .encoding = (fst_soft_encoding)k->encoding,
                          .top_k = (int)k->top_k};
    if (teacher)
        memcpy(spec.teacher_digest, teacher->record.digest, sizeof spec.teacher_digest);
    else
        (void)!fst__file_digest(s, file, spec.teacher_digest, NULL);
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

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct cloud_kd_section *k = own->stage->settings;
    const char *file = fst__stage_file(own->stage, "teacher", 0);
    char key[96];
    fst_model m;
    if (k->encoding == FST_SOFT_TOP_K && k->top_k > s->data.train->classes)
        return fst_fail(err, FST_E_CONFIG, "%s: is %lld, the data have %d classes",
                        fst__stage_key(own->stage, "top_k", key, sizeof key), (long long)k->top_k,
                        s->data.train->classes);
    fst_status st = file ? fst__read_model(s, own, "teacher", 0, &m, NULL, err) : FST_OK;
    if (file && !st)
        fst_model_release(&m);
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst_buf_printf(text, err, "content=%s\n", fst_soft_content_name(fst__soft_spec(s, own).content));
    return st ? st : fst__add_reads(s, own, "teacher", text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct stage *teacher = fst__stage_read(own->stage, "teacher", 0);
    fst_model m = {0};
    struct work w = {.network = teacher ? teacher->kind->network(teacher) : NULL,
                     .samples = (double)s->data.cloud.learn,
                     .batch = 128,
                     .plans = s->machine.threads,
                     .bytes_down = s->data.edges ? 0 : fst__soft_bytes(s, own->stage)};
    fst_status st = teacher ? FST_OK : fst__read_model(s, own, "teacher", 0, &m, NULL, err);
    if (!teacher && !st) {
        w.network = m.arch;
        w.graph = m.graph;
    }
    if (!st)
        st = fst__tell_work(s, own, &w, out, err);
    fst_model_release(&m);
    return st;
}

/* ---- making them ------------------------------------------------------------------------------------------ */

static void progress(void *ctx, size_t done, size_t total)
{
    (void)total;
    fst__watch_update(ctx, done, NULL);
}

static fst_status soften(struct session *s, const struct step *own, const fst_model *teacher, fst_soft_labels *labels,
                         fst_error *err)
{
    fst_runner *runner = NULL;
    fst_trainer_options o = fst__trainer_options(&s->machine, EVAL_BATCH, s->machine.threads);
    fst_status st = fst_runner_new(&runner, teacher->graph, &o, err);
    if (!st)
        fst_runner_hold(runner, &teacher->state);
    fst_soft_spec spec = fst__soft_spec(s, own);
    fst_soft_make how = {.source = s->data.train,
                         .subset = s->data.cloud.index,
                         .subset_count = s->data.cloud.learn,
                         .transform = fst__stage_file(own->stage, "teacher", 0) ? fst_model_transform(teacher)
                                                                                : s->data.transform,
                         .teacher = runner,
                         .teacher_state = &teacher->state,
                         .classes = teacher->classes,
                         .progress = progress,
                         .ctx = s};
    fst__watch_begin(s, own->stage->name, s->data.cloud.learn, "samples");
    fst__watch_update(s, 0, NULL);
    if (!st)
        st = fst_soft_labels_make(labels, &spec, &how, err);
    fst__watch_end(s, NULL);
    fst_runner_free(runner);
    return st;
}

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_size;
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    fst_model teacher;
    fst_soft_labels labels = {0};
    double start = fst_clock_seconds();
    fst_status st = fst__read_model(s, own, "teacher", 0, &teacher, NULL, err);
    if (st)
        return st;
    snprintf(r->artifact, sizeof r->artifact, "soft_labels.safetensors");
    char *path = fst__step_path(s, own, r->artifact);
    st = path ? soften(s, own, &teacher, &labels, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_soft_labels_write(&labels, path, r->digest, err);
    if (!st) {
        r->samples = (int64_t)labels.samples;
        r->accuracy = r->loss = NAN;
        r->bytes_down = s->data.edges ? 0 : file_bytes(path); /* what an edge fetches */
        r->seconds = fst_clock_seconds() - start;
    }
    fst_free(path);
    fst_soft_labels_release(&labels);
    fst_model_release(&teacher);
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
    .complains = complains,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = run,
};
