/*
 * What a sweep has to do: opens the data of every run, as a dry run does, and computes the fingerprint of each of its
 * stages. A stage that reads one which is still to be made gets a fingerprint of what that would be; runs have a stage
 * in common exactly where these are the same, since fingerprints hold everything that a result depends on. Samples are
 * opened once for all runs that have the same. Writes nothing.
 */
#include <stdio.h>
#include <string.h>

#include "fedstill/strategy.h"
#include "sweep_private.h"

struct opened { /* samples that the last run had */
    bool there;
    fst_buf key;
    struct samples data;
};

/* ---- samples --------------------------------------------------------------------------------------------- */

/* What samples and their shares follow from: the task without its stages and its output. */
static fst_status samples_key(const fst_task *t, fst_buf *out, fst_error *err)
{
    fst_status st = fst_task_dump(t, out, err);
    char *stages = st ? NULL : strstr(out->data, "\nstages:"), *output = st ? NULL : strstr(out->data, "\noutput:");
    if (stages) {
        *stages = 0;
        out->len = (size_t)(stages - out->data);
    }
    if (output && (!stages || output < stages)) {
        char *end = strchr(output + 1, '\n');
        size_t rest = end ? strlen(end) + 1 : 1;
        memmove(output, end ? end : output, end ? rest : 0);
        if (!end)
            *output = 0;
        out->len = strlen(out->data);
    }
    return st;
}

static fst_status open_samples(struct session *se, struct opened *o, fst_error *err)
{
    fst_buf key = {0};
    fst_status st = samples_key(se->task, &key, err);
    if (!st && o->there && key.len == o->key.len && !memcmp(key.data, o->key.data, key.len)) {
        se->data = o->data;
        o->there = false;
        fst_buf_release(&key);
        return FST_OK;
    }
    if (o->there)
        fst__samples_release(&o->data);
    o->there = false;
    fst_buf_release(&o->key);
    o->key = key;
    if (!st)
        st = fst__session_open_data(se, err);
    if (!st)
        st = fst__note_samples(&se->data, &se->task->file.data, err);
    return st;
}

/* ---- items ----------------------------------------------------------------------------------------------- */

static fst_status item_of(fst_sweep *s, size_t run, const struct step *step, size_t *out, fst_error *err)
{
    for (*out = 0; *out < s->items; ++*out)
        if (!strcmp(s->item[*out].fingerprint, step->fingerprint) && !strcmp(s->item[*out].stage, step->stage->name))
            return FST_OK;
    if (s->items == s->item_room) {
        size_t room = s->item_room ? 2 * s->item_room : 64;
        struct item *more = fst_realloc(s->item, s->items * sizeof *more, room * sizeof *more);
        if (!more)
            return fst_fail_memory(err, room * sizeof *more);
        s->item = more;
        s->item_room = room;
    }
    struct item *i = &s->item[s->items++];
    *i = (struct item){.first = run, .owner = FST__NOBODY, .seconds = NAN};
    memcpy(i->fingerprint, step->fingerprint, sizeof i->fingerprint);
    snprintf(i->stage, sizeof i->stage, "%s", step->stage->name);
    if (step->stage->kind->counts)
        i->total = step->stage->kind->total(step->stage);
    return FST_OK;
}

/* Until it is made, those who read it have what it would be in their fingerprints. */
static void pretend(struct step *step)
{
    step->record = (struct record){.validation = NAN};
    memcpy(step->record.digest, step->fingerprint, sizeof step->record.digest);
    memcpy(step->record.extra_digest, step->fingerprint, sizeof step->record.extra_digest);
}

static fst_status plan_step(fst_sweep *s, size_t run, struct session *se, struct step *step, fst_error *err)
{
    struct run *r = &s->run[run];
    struct need *n = &r->need[r->needs++];
    char state[FST__STATE];
    fst_status st = fst__fingerprint(se, step, err);
    if (!st)
        st = item_of(s, run, step, &n->item, err);
    if (st)
        return st;
    struct item *i = &s->item[n->item];
    n->here = fst__record_current(se, step, &step->record);
    step->done = n->here;
    if (!n->here)
        st = fst__keep_find(se, step, state, err);
    if (!st && !step->done)
        pretend(step);
    if (st || !step->done)
        return st;
    i->there = true;
    i->seconds = step->record.seconds;
    if (!n->here && !i->from && !(i->from = fst_strdup(state)))
        return fst_fail_memory(err, strlen(state));
    return FST_OK;
}

/* ---- the stage that counts ------------------------------------------------------------------------------- */

static bool is_model(const struct step *step)
{
    return step->chosen && !step->stage->of && step->stage->kind->leaves == FST__LEAVES_MODEL;
}

static fst_status choose_stage(fst_sweep *s, const struct session *se, fst_error *err)
{
    const char *wanted = s->spec->by;
    const struct step *found = NULL;
    char list[400] = "";
    for (size_t i = 0; i < se->steps; i++) {
        if (!is_model(&se->step[i]))
            continue;
        const char *name = se->step[i].stage->name;
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", name);
        if (!wanted || !strcmp(wanted, name))
            found = &se->step[i];
    }
    if (!found && wanted)
        return fst_fail(err, FST_E_CONFIG, "--by %s: no stage of this name trains a model here; there are %s", wanted,
                        list);
    if (!found)
        return fst_fail(err, FST_E_CONFIG,
                        "none of the stages that are run trains a model: there is nothing to compare");
    snprintf(s->by, sizeof s->by, "%s", found->stage->name);
    return FST_OK;
}

/* How many samples the stage would be validated on. */
static size_t validated_on(const struct session *se, const struct step *step)
{
    size_t n = 0;
    if (!se->data.edges || !fst__at_clients(step->stage))
        return se->data.cloud.validate;
    for (size_t k = 0; k < se->data.edges; k++)
        n += se->data.edge[k].validate;
    return n;
}

static fst_status look_at_stage(fst_sweep *s, const struct session *se, bool first, fst_error *err)
{
    const struct stage *stage = fst__stage_named(&se->task->stages, s->by);
    const struct step *step = stage ? fst__step_of(se, stage) : NULL;
    if (!step || !is_model(step))
        return fst_fail(err, FST_E_CONFIG, "stage %s, whose accuracy counts, is not there", s->by);
    int64_t total = stage->kind->total(stage);
    bool rounds = !strcmp(stage->kind->counts, "round");
    const struct federated_section *f = rounds ? stage->settings : NULL;
    s->unit = stage->kind->counts;
    s->keeps_best = !rounds || f->select == 0;
    s->total = first || s->total == total ? total : 0;
    if (!s->spec->halving)
        return FST_OK;
    if (!validated_on(se, step))
        return fst_fail(err, FST_E_CONFIG,
                        "--halving compares settings on validation samples, and never on test samples: stage %s has "
                        "none; set data.validation, for instance --set data.validation=0.1",
                        s->by);
    if (rounds && !(fst_strategy_at((size_t)f->strategy)->flags & FST_SAME_MODEL))
        return fst_fail(err, FST_E_CONFIG,
                        "--halving: the clients of stage %s have models of their own (strategy %s), which are not "
                        "measured on validation samples after each round",
                        s->by, fst_strategy_at((size_t)f->strategy)->name);
    return FST_OK;
}

/* ---- one run --------------------------------------------------------------------------------------------- */

static fst_status plan_session(fst_sweep *s, size_t run, struct session *se, struct opened *o, fst_error *err)
{
    struct run *r = &s->run[run];
    bool checks = run % s->seeds == 0; /* the others differ in their seed */
    fst_status st = fst__choose_steps(se, err);
    if (!st)
        st = fst__check_output(r->folder, err);
    if (!st)
        st = open_samples(se, o, err);
    if (!st && checks)
        st = fst__check_stages(se, err);
    if (!st)
        st = fst__check_needs(se, err);
    if (!st && !s->by[0])
        st = choose_stage(s, se, err);
    if (!st && checks)
        st = look_at_stage(s, se, run == 0, err);
    r->need = st ? NULL : fst_calloc(se->steps + 1, sizeof *r->need);
    if (!st && !r->need)
        st = fst_fail_memory(err, se->steps * sizeof *r->need);
    for (size_t i = 0; !st && i < se->steps; i++)
        if (se->step[i].chosen)
            st = plan_step(s, run, se, &se->step[i], err);
    return st;
}

static fst_status settings_digest(const fst_task *t, char out[FST_DIGEST_HEX], fst_error *err)
{
    fst_buf text = {0};
    fst_status st = fst_task_settings(t, &text, err);
    if (!st)
        fst__digest_text(text.data, text.len, out);
    fst_buf_release(&text);
    return st;
}

static fst_status plan_run(fst_sweep *s, size_t run, struct opened *o, fst_error *err)
{
    struct run *r = &s->run[run];
    fst_task *t = NULL;
    struct session *se = fst_calloc(1, sizeof *se);
    const fst_task_options options = {.mode = s->spec->mode,
                                      .backend = s->spec->backend,
                                      .threads = s->spec->threads,
                                      .no_reuse = s->spec->no_reuse,
                                      .beside = s->runs_folder,
                                      .stop = s->spec->stop};
    if (!se)
        return fst_fail_memory(err, sizeof *se);
    se->dry = true;
    fst_status st = fst_task_load(&t, s->spec->task, r->sets, r->nsets, err);
    if (!st)
        st = settings_digest(t, r->settings, err);
    if (!st)
        st = fst_task_set_output(t, r->folder, err);
    if (!st)
        st = fst__session_init(se, t, &options, err);
    if (!st)
        st = plan_session(s, run, se, o, err);
    if (!st) { /* for the next run */
        o->data = se->data;
        o->there = true;
        se->data = (struct samples){.nowned = 0};
    }
    if (se->task)
        fst__session_close(se);
    fst_free(se);
    fst_task_free(t);
    return st && s->keys ? fst_fail_in(err, st, "%s", r->name) : st;
}

/* ---- all ------------------------------------------------------------------------------------------------- */

static bool same_items(const struct run *a, const struct run *b)
{
    bool same = a->needs == b->needs;
    for (size_t i = 0; same && i < a->needs; i++)
        same = a->need[i].item == b->need[i].item;
    return same;
}

static fst_status check_differences(const fst_sweep *s, fst_error *err)
{
    for (size_t i = 0; i < s->settings_count; i++)
        for (size_t k = 0; k < i; k++)
            if (same_items(&s->run[i * s->seeds], &s->run[k * s->seeds]))
                return fst_fail(err, FST_E_CONFIG,
                                "%s and %s make no difference to any stage that is run: leave one of them out",
                                s->setting[k], s->setting[i]);
    return FST_OK;
}

/* What is complete needs no process: each of its stages is there, and the sweep has seen it end. */
static void find_done(fst_sweep *s)
{
    for (size_t i = 0; i < s->runs; i++) {
        struct run *r = &s->run[i];
        bool done = r->journal_done;
        for (size_t k = 0; k < r->needs; k++)
            done = done && r->need[k].here;
        r->state = done ? FST_SWEEP_DONE : FST_SWEEP_MISSING;
        if (done)
            fst__sweep_figures(s, r);
    }
}

fst_status fst_sweep_plan(fst_sweep *s, fst_error *err)
{
    struct opened o = {.there = false};
    const fst_sweep_observer *w = &s->spec->observer;
    size_t n = 0;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < s->seeds; k++) /* seeds outside: runs of one seed have the same samples */
        for (size_t i = 0; !st && i < s->settings_count; i++) {
            if (w->checking)
                w->checking(w->ctx, n++, s->runs);
            st = fst__sweep_stopped(s) ? fst_fail(err, FST_E_CANCELLED, "stopped before the first run")
                                       : plan_run(s, i * s->seeds + k, &o, err);
        }
    if (w->checking)
        w->checking(w->ctx, s->runs, s->runs);
    if (o.there)
        fst__samples_release(&o.data);
    fst_buf_release(&o.key);
    if (!st)
        st = check_differences(s, err);
    if (!st && s->spec->halving)
        st = fst__halving_check(s, err);
    if (!st)
        find_done(s);
    s->planned = !st;
    return st;
}
