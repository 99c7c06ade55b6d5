/*
 * Feature maps of a student and its teacher. Two tapped networks are built from the names of layers in the task file:
 * the teacher's, which answers with its maps, and the student's with a 1x1 convolution (the regressor) at the layer
 * that is to become the teacher's. The regressor's parameters follow the student's in one span, are trained with them
 * and thrown away.
 */
#include <stdio.h>
#include <string.h>

#include "feature_maps.h"
#include "supervised.h"

bool fst__learns_features(const struct edge_kd_section *e)
{
    return e->has_fitnet || e->has_attention;
}

/* ---- the networks ----------------------------------------------------------------------------------- */

struct pair { /* of layers */
    const char *key, *student, *teacher;
    fst_feature_form form;
    double weight;
};

static size_t pairs_of(const struct edge_kd_section *e, struct pair *p)
{
    size_t n = 0;
    if (e->has_fitnet)
        p[n++] = (struct pair){"fitnet", e->fitnet.student, e->fitnet.teacher, FST_FEATURE_MSE, e->fitnet.weight};
    for (size_t i = 0; e->has_attention && i < e->attention.student_count; i++)
        p[n++] = (struct pair){"attention", e->attention.student[i], e->attention.teacher[i], FST_FEATURE_ATTENTION,
                               e->attention.weight};
    return n;
}

static fst_status find(const struct step *own, const struct pair *p, const char *side, const fst_graph *g,
                       const char *layer, fst_value *out, fst_error *err)
{
    char key[96], name[64];
    snprintf(name, sizeof name, "%s.%s", p->key, side);
    *out = fst_graph_feature(g, layer);
    if (*out >= 0)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "%s: the network of the %s has no layer \"%s\"; `fedstill model info` names them",
                    fst__stage_key(own->stage, name, key, sizeof key), side, layer);
}

/* A learnt map from the student's channels to the teacher's, position by position. */
static fst_value add_regressor(fst_graph *g, fst_value map, const fst_shape *target)
{
    fst_conv2d c = {.out_channels = target->dim[0], .kernel = {1, 1}, .stride = {1, 1}, .bias = true};
    if (target->rank == 1)
        return fst_graph_linear(g, map, "fitnet_regressor", target->dim[0], true);
    return target->rank == 3 ? fst_graph_conv2d(g, map, "fitnet_regressor", &c) : map;
}

static bool same_places(const fst_shape *a, const fst_shape *b)
{
    bool same = a->rank == b->rank && (a->rank == 1 || a->rank == 3);
    for (int i = 1; same && i < a->rank; i++)
        same = a->dim[i] == b->dim[i];
    return same;
}

static fst_status add_pair(struct features *f, const struct step *own, const struct pair *p, fst_value *mine,
                           fst_value *theirs, fst_error *err)
{
    char key[96], a[64], b[64];
    fst_status st = find(own, p, "student", f->learner, p->student, mine, err);
    if (!st)
        st = find(own, p, "teacher", f->asked, p->teacher, theirs, err);
    if (st)
        return st;
    fst_shape have = fst_graph_value_shape(f->learner, *mine), want = fst_graph_value_shape(f->asked, *theirs);
    if (!same_places(&have, &want) || (p->form == FST_FEATURE_ATTENTION && have.rank != 3))
        return fst_fail(err, FST_E_CONFIG, "%s: layer %s of the student is %s, layer %s of the teacher %s: %s",
                        fst__stage_key(own->stage, p->key, key, sizeof key), p->student,
                        fst_shape_text(&have, a, sizeof a), p->teacher, fst_shape_text(&want, b, sizeof b),
                        p->form == FST_FEATURE_ATTENTION ? "maps of equal height and width are needed"
                                                         : "height and width must be equal");
    if (p->form == FST_FEATURE_MSE)
        *mine = add_regressor(f->learner, *mine, &want);
    f->loss[f->count] = (fst_feature_loss){.form = p->form, .weight = p->weight, .tap = f->count, .target_shape = want};
    f->count++;
    return FST_OK;
}

static fst_status build(struct features *f, const struct step *own, const fst_graph *student, const fst_graph *teacher,
                        fst_error *err)
{
    struct pair p[1 + FST__ATTENTION_LAYERS];
    fst_value mine[FST_MAX_TAPS], theirs[FST_MAX_TAPS], logits[2];
    size_t n = pairs_of(own->stage->settings, p);
    fst_status st = fst_graph_copy(&f->learner, student, &logits[0], err);
    if (!st)
        st = fst_graph_copy(&f->asked, teacher, &logits[1], err);
    for (size_t i = 0; !st && i < n; i++)
        st = add_pair(f, own, &p[i], &mine[i], &theirs[i], err);
    if (!st)
        st = fst_graph_finish_tapped(f->learner, logits[0], mine, (int)n, err);
    if (!st)
        st = fst_graph_finish_tapped(f->asked, logits[1], theirs, (int)n, err);
    return st;
}

void fst__features_release(struct features *f)
{
    fst_runner_free(f->runner);
    fst_model_release(&f->teacher);
    fst_state_release(&f->state);
    fst_graph_free(f->learner);
    fst_graph_free(f->asked);
    fst_free(f->rows);
}

/* ---- before any work ---------------------------------------------------------------------------------- */

/* The teacher sees the student's batches, which are normalised as the task says. */
static fst_status check_teacher(const struct session *s, const struct step *own, const fst_model *m, fst_error *err)
{
    const fst_transform *t = &s->data.transform;
    char key[96];
    bool same = m->fingerprint == t->fingerprint && m->channels == t->channels &&
                !memcmp(m->mean, t->mean, (size_t)t->channels * sizeof *t->mean) &&
                !memcmp(m->std, t->std, (size_t)t->channels * sizeof *t->std);
    if (same)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "%s: it was trained with another normalisation than data.normalise, and sees the student's batches",
                    fst__stage_key(own->stage, "teacher", key, sizeof key));
}

fst_status fst__features_check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct stage *other = fst__stage_read(own->stage, "teacher", 0);
    const char *network = other ? other->kind->network(other) : NULL;
    struct features f = {.count = 0};
    fst_graph *student = NULL, *teacher = NULL;
    if (other && !network) /* not known before it is there */
        return FST_OK;
    fst_status st = fst__model_graph(&s->data, own->stage->kind->network(own->stage), &student, err);
    if (!st && other)
        st = fst__model_graph(&s->data, network, &teacher, err);
    else if (!st)
        st = fst__read_model(s, own, "teacher", 0, &f.teacher, NULL, err);
    if (!st && !other)
        st = check_teacher(s, own, &f.teacher, err);
    if (!st)
        st = build(&f, own, student, other ? teacher : f.teacher.graph, err);
    fst__features_release(&f);
    fst_graph_free(student);
    fst_graph_free(teacher);
    return st;
}

/* ---- while it trains ----------------------------------------------------------------------------------- */

fst_status fst__features_open(struct features *f, const struct session *s, const struct step *own,
                              const fst_model *student, size_t batch, fst_error *err)
{
    fst_trainer_options o = fst__trainer_options(&s->machine, batch, s->machine.threads);
    *f = (struct features){.count = 0};
    fst_status st = fst__read_model(s, own, "teacher", 0, &f->teacher, NULL, err);
    if (!st)
        st = check_teacher(s, own, &f->teacher, err);
    if (!st)
        st = build(f, own, student->graph, f->teacher.graph, err);
    if (!st)
        st = fst_runner_new(&f->runner, f->asked, &o, err);
    if (!st)
        st = fst_state_init(&f->state, f->learner, err);
    if (st)
        return st;
    fst_shape out = fst_graph_output_shape(f->asked);
    size_t width = (size_t)fst_shape_count(&out);
    f->rows = fst_calloc(batch * width, sizeof *f->rows);
    if (!f->rows)
        return fst_fail_memory(err, batch * width * sizeof *f->rows);
    for (size_t i = 0; i < f->count; i++) {
        f->loss[i].target = f->rows + fst_graph_tap(f->asked, i).at;
        f->loss[i].target_stride = width;
    }
    fst_runner_hold(f->runner, &f->teacher.state);
    return FST_OK;
}

/* The student's spans are the beginning of the learner's. */
static void copy_state(fst_state *to, const fst_state *from, const fst_state *size)
{
    memcpy(to->params, from->params, size->param_count * sizeof *to->params);
    memcpy(to->buffers, from->buffers, size->buffer_count * sizeof *to->buffers);
    memcpy(to->counters, from->counters, size->counter_count * sizeof *to->counters);
}

void fst__features_start(struct features *f, const fst_model *student, uint64_t seed)
{
    fst_state_randomise(&f->state, f->learner, seed);
    copy_state(&f->state, &student->state, &student->state);
}

void fst__features_give(const struct features *f, fst_model *student)
{
    copy_state(&student->state, &f->state, &student->state);
}

fst_status fst__features_ask(struct features *f, const float *x, size_t rows, fst_error *err)
{
    return fst_runner_logits(f->runner, &f->teacher.state, x, rows, f->rows, err);
}
