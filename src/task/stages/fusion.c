/* The large model of a fusion, and the checks before any work. */
#include <stdio.h>
#include <string.h>

#include "fusion.h"

const char *fst__fusion_network(const struct step *own, const struct fusion_section *f)
{
    const struct stage *other = fst__stage_read(own->stage, FST__FUSION_TEACHER, 0);
    return f->teacher_model ? f->teacher_model : other ? other->kind->network(other) : NULL;
}

/* Its weights are taken, not its answers. */
static fst_status read_teacher(const struct session *s, const struct step *own, fst_model *out, fst_error *err)
{
    fst_model m;
    char key[96];
    fst_status st = fst__read_model(s, own, FST__FUSION_TEACHER, 0, &m, NULL, err);
    if (st)
        return st;
    if (fst_model_is_int8(&m)) {
        fst_model_release(&m);
        return fst_fail(err, FST_E_CONFIG,
                        "%s: is an int8 model, which has no parameters to be fused: take the f32 one",
                        fst__stage_key(own->stage, FST__FUSION_TEACHER, key, sizeof key));
    }
    *out = m;
    return FST_OK;
}

fst_status fst__fusion_graph(const struct session *s, const struct step *own, const struct fusion_section *f,
                             fst_graph **out, fst_error *err)
{
    const char *network = fst__fusion_network(own, f);
    fst_model m;
    if (network)
        return fst__model_graph(&s->data, network, out, err);
    fst_status st = read_teacher(s, own, &m, err);
    if (st)
        return st;
    *out = m.graph;
    m.graph = NULL;
    fst_model_release(&m);
    return FST_OK;
}

fst_status fst__fusion_teacher(const struct session *s, const struct step *own, const struct fusion_section *f,
                               fst_model *out, fst_error *err)
{
    if (fst__stage_reads(own->stage, FST__FUSION_TEACHER))
        return read_teacher(s, own, out, err);
    fst_status st = fst__new_model(&s->data, f->teacher_model, out, err);
    if (!st)
        fst_state_randomise(&out->state, out->graph, fst__step_seed(s, own, "teacher.init", 0));
    return st;
}

static fst_status find(const struct step *own, const fst_graph *g, const char *key, const char *name,
                       fst_param_info *out, fst_error *err)
{
    char full[96];
    fst_status st = fst_fusion_find(g, name, out, err);
    return st ? fst_fail_in(err, st, "%s", fst__stage_key(own->stage, key, full, sizeof full)) : FST_OK;
}

fst_status fst__fusion_check(const struct session *s, const struct step *own, const struct fusion_section *f,
                             const char *network, fst_fusion_size *out, fst_error *err)
{
    char key[96];
    fst_graph *small = NULL, *large = NULL;
    fst_param_info target, source;
    fst_fusion_spec spec = fst__fusion_spec(f);
    spec.backend = s->machine.backend;
    fst_status st = fst__model_graph(&s->data, network, &small, err);
    if (!st)
        st = fst__fusion_graph(s, own, f, &large, err);
    if (!st)
        st = find(own, small, "fusion.target", f->target, &target, err);
    if (!st)
        st = find(own, large, "fusion.source", f->source, &source, err);
    if (!st) {
        st = fst_fusion_measure(&spec, &target, &source, out, err);
        if (st)
            st = fst_fail_in(err, st, "%s", fst__stage_key(own->stage, "fusion", key, sizeof key));
    }
    fst_graph_free(small);
    fst_graph_free(large);
    return st;
}

/* A gate of 0 gives back the matrix itself; what is learnt shows from the second fusion on. */
void fst__fusion_warn_idle(const struct step *own, const struct fusion_section *f, int64_t fusions)
{
    char key[96];
    bool learns = f->learns != FST_FUSION_NOTHING;
    if (f->gate != 0 || (learns && fusions > 1))
        return;
    fst_log(FST_LOG_WARN, "%s: changes nothing: the gate is 0%s", fst__stage_key(own->stage, "fusion", key, sizeof key),
            learns ? " until the adapter has learnt, and there is no fusion after the first"
                   : ", and nothing is learnt");
}
