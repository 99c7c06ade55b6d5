/* MergeNet in a federated stage: the fuser from the stage's settings, and what is told of each round. */
#include <math.h>
#include <stdio.h>

#include "federate.h"
#include "fusion.h"

static fst_fuser_spec spec_of(const struct federated_section *t)
{
    const struct federated_fusion_section *o = &t->fusion;
    return (fst_fuser_spec){.fusion = fst__fusion_spec(&o->fusion),
                            .target = o->fusion.target,
                            .source = o->fusion.source,
                            .start_round = (uint64_t)o->start_round,
                            .every = (uint64_t)o->fusion_frequency,
                            .steps = (uint64_t)o->steps,
                            .learning_rate = o->fusion.learning_rate,
                            .rounds = o->fusion.schedule == FST__FUSION_COSINE ? (uint64_t)t->rounds : 0,
                            .proxy = o->learns_from == FST__FUSION_PUBLIC,
                            .proxy_learning_rate = o->public_learning_rate,
                            .proxy_batch_size = (size_t)o->public_batch_size};
}

fst_status fst__federate_fuser(struct federation *f, const fst_server_env *env, fst_error *err)
{
    fst_model teacher;
    const fst_fuser_spec spec = spec_of(f->section);
    fst_status st = fst__fusion_teacher(f->s, f->own, &f->section->fusion.fusion, &teacher, err);
    if (st)
        return st;
    st = fst_fuser_new(&f->fuser, &spec, env, teacher.graph, teacher.state.params, err);
    fst_model_release(&teacher);
    return st ? fst_fail_in(err, st, "stages.%s.fusion", f->own->stage->name) : FST_OK;
}

fst_status fst__federate_fusion_size(const struct session *s, const struct step *own, const char *network,
                                     fst_fusion_size *out, fst_error *err)
{
    const struct federated_section *t = own->stage->settings;
    const fst_fuser_spec spec = spec_of(t);
    fst_graph *small = NULL, *large = NULL;
    fst_status st = fst__fusion_check(s, own, &t->fusion.fusion, network, out, err);
    if (!st)
        st = fst__model_graph(&s->data, network, &small, err);
    if (!st)
        st = fst__fusion_graph(s, own, &t->fusion.fusion, &large, err);
    if (!st)
        st = fst_fuser_measure(&spec, small, large, out, err);
    fst_graph_free(small);
    fst_graph_free(large);
    return st;
}

/* Public samples are learnt from before a fusion, and make running statistics anew whatever the gate is. */
void fst__federate_warn_fusion(const struct step *own)
{
    const struct federated_section *t = own->stage->settings;
    if (t->fusion.learns_from == FST__FUSION_AVERAGE)
        fst__fusion_warn_idle(own, &t->fusion.fusion,
                              (t->rounds - t->fusion.start_round) / t->fusion.fusion_frequency + 1);
}

static const char *learnt_from(const struct federated_section *t)
{
    return t->fusion.fusion.learns == FST_FUSION_NOTHING ? "nothing"
           : t->fusion.learns_from == FST__FUSION_PUBLIC ? "public samples"
                                                         : "the next average";
}

void fst__federate_record_fusion(const struct federation *f, struct record *r)
{
    snprintf(r->fused_from, sizeof r->fused_from, "%s", learnt_from(f->section));
    r->gate = fst_fuser_gate(f->fuser);
}

static double told(bool there, double x)
{
    return there ? x : (double)NAN;
}

void fst__federate_tell_fusion(struct federation *f)
{
    const fst_fuser_report *r = fst_fuser_last(f->fuser);
    const char *from = r->learnt ? learnt_from(f->section) : "nothing";
    fst_field fields[] = {FST_INT("round", (int64_t)r->round + 1),
                          FST_BOOLEAN("fused", r->fused),
                          FST_STRING("learnt_from", from),
                          FST_DOUBLE("gate", r->gate),
                          FST_DOUBLE("moved", r->moved),
                          FST_DOUBLE("loss", told(r->learnt, r->loss)),
                          FST_DOUBLE("grad_norm", told(r->learnt, r->grad_norm)),
                          FST_DOUBLE("seconds", r->seconds)};
    fst__emit(&f->s->books, "fusion", fields, sizeof fields / sizeof *fields);
}
