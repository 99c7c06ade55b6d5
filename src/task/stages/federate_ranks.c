/*
 * A federated stage over several processes of mpirun (fedstill/ranks.h). Rank 0 runs the task as ever: it draws the
 * clients, folds, keeps what clients keep, and writes. Each other rank is one more worker of it: it is sent a client's
 * message and what that client kept, and sends back the update and what the client keeps from now on. It holds nothing
 * between two clients, so it can be lost without anything being lost; and which of them played a client changes no
 * bit, as which worker does.
 *
 * Data flow: fst_virtual_work -> fst__crew_play on a thread of rank 0 that stands for the other rank -> frame ->
 * fst_task_rank_serve there -> its own session and partition -> fst_client_work -> frame back.
 *
 * How a frame looks: rank_frame.h.
 */
#include <stdio.h>
#include <string.h>

#include "federate.h"
#include "fedstill/ranks.h"
#include "rank_frame.h"

#define MOST_BYTES ((uint64_t)1 << 40)

/* ---- rank 0 ---- */

struct fst__crew {
    fst_ranks *ranks;
    int others;
    struct lane {
        fst_buf out, in;
    } * lane; /* [others]: of each, in the hands of the thread that stands for it */
};

/* Of the samples and settings that all must have. */
static fst_status add_digests(const struct session *s, fst_buf *out, fst_error *err)
{
    char settings[FST_DIGEST_HEX];
    fst_status st = fst_task_site_digest(s->task, settings, err);
    if (!st)
        st = fst_buf_append(out, settings, sizeof settings, err);
    return st ? st : fst_buf_append(out, s->data.train->digest, FST_DIGEST_HEX, err);
}

/* Sends its lane's frame. Whatever goes wrong between ranks ends the run: without one the others could go on, but the
 * launcher ends them all. */
static fst_status tell(struct fst__crew *c, int other, fst_error *err)
{
    struct lane *l = &c->lane[other];
    fst_status st = fst_ranks_send(c->ranks, other + 1, &l->out, err);
    return st ? fst_fail_in(err, FST_E_CANCELLED, "a client is not played") : FST_OK;
}

/* Waits for the answer of this kind, or that the client failed. */
static fst_status hear(struct fst__crew *c, int other, enum fst__rank_what wanted, struct fst__rank_head *h,
                       const char **message, const char **kept, fst_error *err)
{
    struct lane *l = &c->lane[other];
    fst_status st = fst_ranks_receive(c->ranks, other + 1, MOST_BYTES, &l->in, err);
    if (!st)
        st = fst__rank_frame_read(l->in.data, l->in.len, true, h, message, kept, err);
    if (!st && h->what != wanted && h->what != FST__RANK_CANNOT &&
        (h->what != FST__RANK_FAILED || wanted != FST__RANK_PLAYED))
        st = fst_fail(err, FST_E_FORMAT, "rank %d answers something else", other + 1);
    if (st)
        return fst_fail_in(err, FST_E_CANCELLED, "a client is not played");
    return h->what == FST__RANK_CANNOT
               ? fst_fail(err, FST_E_CANCELLED, "rank %d cannot go on: %.*s", other + 1, (int)h->message, *message)
               : FST_OK;
}

/* All at the same time. */
static fst_status open_there(struct federation *f, fst_error *err)
{
    struct fst__crew *c = f->crew;
    const char *message = NULL, *kept = NULL;
    struct fst__rank_head h = {.what = FST__RANK_OPEN, .stage = (uint32_t)f->own->stage->at};
    fst_status st = FST_OK;
    for (int i = 0; !st && i < c->others; i++) {
        st = fst__rank_frame_begin(&c->lane[i].out, err);
        if (!st)
            st = add_digests(f->s, &c->lane[i].out, err);
        if (!st)
            st = fst__rank_frame_finish(&c->lane[i].out, h, "", err);
        if (!st)
            st = tell(c, i, err);
    }
    for (int i = 0; !st && i < c->others; i++)
        st = hear(c, i, FST__RANK_OPENED, &h, &message, &kept, err);
    return st;
}

fst_status fst__crew_begin(struct federation *f, fst_error *err)
{
    fst_ranks *r = f->s->options->ranks;
    struct fst__crew *c = r ? fst_calloc(1, sizeof *c) : NULL;
    if (!r || !c)
        return r ? fst_fail_memory(err, sizeof *c) : FST_OK;
    f->crew = c;
    c->ranks = r;
    c->others = fst_ranks_count(r) - 1;
    c->lane = fst_calloc((size_t)c->others, sizeof *c->lane);
    fst_status st = c->lane ? FST_OK : fst_fail_memory(err, (size_t)c->others * sizeof *c->lane);
    return st ? st : open_there(f, err);
}

void fst__crew_free(struct federation *f)
{
    struct fst__crew *c = f->crew;
    for (int i = 0; c && c->lane && i < c->others; i++) {
        fst_buf_release(&c->lane[i].out);
        fst_buf_release(&c->lane[i].in);
    }
    if (c)
        fst_free(c->lane);
    fst_free(c);
    f->crew = NULL;
}

fst_status fst__crew_play(void *ctx, int worker, const void *kept, size_t len, const fst_message *down, fst_message *up,
                          fst_buf *keep, fst_error *err)
{
    struct federation *f = ctx;
    int other = worker - 1;
    struct lane *l = &f->crew->lane[other];
    const char *message = NULL, *keeps = NULL;
    struct fst__rank_head h = {
        .what = FST__RANK_PLAY, .client = down->client, .stage = (uint32_t)f->own->stage->at, .kept = (uint64_t)len};
    fst_message m;
    fst_status st = fst__rank_frame_begin(&l->out, err);
    if (!st)
        st = fst_message_pack(down, &l->out, err);
    if (!st)
        st = fst__rank_frame_finish(&l->out, h, kept, err);
    if (!st)
        st = tell(f->crew, other, err);
    if (!st)
        st = hear(f->crew, other, FST__RANK_PLAYED, &h, &message, &keeps, err);
    if (st)
        return st;
    if (h.what == FST__RANK_FAILED)
        return fst_fail(err, (fst_status)h.status, "%.*s", (int)h.message, message);
    if (fst_message_parse(&m, message, (size_t)h.message, err))
        return fst_fail_in(err, FST_E_CANCELLED, "rank %d", other + 1);
    st = fst_buf_append(keep, keeps, (size_t)h.kept, err);
    if (!st)
        *up = m;
    return st;
}

void fst_task_ranks_end(fst_ranks *r)
{
    fst_buf b = {0};
    fst_error err;
    for (int i = 1; r && i < fst_ranks_count(r); i++)
        if (!fst__rank_frame_begin(&b, NULL) &&
            !fst__rank_frame_finish(&b, (struct fst__rank_head){.what = FST__RANK_END}, "", NULL))
            if (fst_ranks_send(r, i, &b, &err))
                fst_log(FST_LOG_WARN, "rank %d was not told of the end: %s", i, err.message);
    fst_buf_release(&b);
}

/* ---- the others ---- */

struct player {
    struct session session;
    struct federation f; /* of the stage that is open */
    fst_model model;
    fst_client *client;
    bool has_model, open;
    uint32_t stage;
};

static void close_stage(struct player *p)
{
    fst_client_free(p->client);
    fst__federate_clients_release(&p->f);
    fst_partition_release(&p->f.partition);
    fst_partition_release(&p->f.validation);
    if (p->has_model)
        fst_model_release(&p->model);
    p->f = (struct federation){.s = NULL};
    p->client = NULL;
    p->has_model = p->open = false;
}

/* What the stage reads was made by rank 0: it is looked up as a dry run does. */
static fst_status look_up(struct player *p, struct step *own, fst_error *err)
{
    struct session *s = &p->session;
    for (size_t i = 0; i < s->steps; i++)
        s->step[i].chosen = &s->step[i] == own;
    return fst__check_needs(s, err);
}

static fst_status make_stage(struct player *p, struct step *own, fst_error *err)
{
    struct federation *f = &p->f;
    const struct share *public = &p->session.data.public;
    fst_setting settings[FST_STRATEGY_OPTIONS];
    bool given;
    *f = (struct federation){.s = &p->session, .own = own, .section = own->stage->settings, .model = &p->model};
    f->ops = fst_strategy_at((size_t)f->section->strategy);
    f->apart = !(f->ops->flags & FST_SAME_MODEL);
    f->mentors = f->ops->flags & FST_MENTORS;
    size_t n = fst__strategy_settings(&f->section->options, f->ops, settings);
    fst_status st = fst__new_model(&p->session.data, own->stage->kind->network(own->stage), &p->model, err);
    p->has_model = !st;
    if (!st)
        st = fst__clients(&p->session.data, p->session.task, &f->partition, err);
    if (!st && f->apart)
        st = fst__start_from(&p->session, own, &p->model, &given, err);
    if (!st && public->learn)
        st = fst_public_init(&f->public, p->session.data.train, public->index, public->learn,
                             &p->session.data.transform, err);
    if (!st)
        st = fst__federate_own_samples(f, err);
    if (!st)
        st = fst__federate_clients(f, settings, n, err);
    return st ? st : fst_client_new(&p->client, f->ops, settings, n, err);
}

static fst_status open_stage(struct player *p, const struct fst__rank_head *h, const char *digests, fst_error *err)
{
    struct session *s = &p->session;
    fst_buf own = {0};
    close_stage(p);
    if (h->stage >= s->steps || strcmp(s->step[h->stage].stage->kind->name, "federated_train"))
        return fst_fail(err, FST_E_MISMATCH, "the task has no such federated stage here");
    fst_status st = add_digests(s, &own, err);
    if (!st && (own.len != h->message || memcmp(own.data, digests, own.len)))
        st = fst_fail(err, FST_E_MISMATCH, "its task or its samples are others than those of rank 0");
    fst_buf_release(&own);
    if (!st)
        st = look_up(p, &s->step[h->stage], err);
    if (!st)
        st = make_stage(p, &s->step[h->stage], err);
    p->open = !st;
    p->stage = h->stage;
    return st;
}

/* The answer's message, and *keep. A client that fails is an answer; a failure of this function is not. */
static fst_status play(struct player *p, const struct fst__rank_head *h, const char *message, const char *kept,
                       fst_buf *out, fst_buf *keep, struct fst__rank_head *back, fst_error *err)
{
    fst_client_env env;
    fst_message down, up = fst_message_of("");
    fst_error why = {0};
    if (!p->open || p->stage != h->stage || h->client >= (uint32_t)p->f.partition.clients)
        return fst_fail(err, FST_E_ARGUMENT, "client %lu of a stage that is not open", (unsigned long)h->client + 1);
    fst_status st = fst_message_parse(&down, message, (size_t)h->message, err);
    if (!st && down.client != h->client)
        st = fst_fail(err, FST_E_MISMATCH, "client %lu is sent the message of another", (unsigned long)h->client + 1);
    if (st)
        return st;
    fst__federate_env(&p->f, 0, h->client, h->kept > 0, &env);
    keep->len = 0;
    st = fst_client_work(p->client, &env, kept, (size_t)h->kept, &down, &up, keep, &why);
    if (st == FST_E_CANCELLED) {
        if (err)
            *err = why;
        return st;
    }
    *back = (struct fst__rank_head){.what = st ? FST__RANK_FAILED : FST__RANK_PLAYED, .status = (uint32_t)st};
    back->kept = st ? 0 : keep->len;
    return st ? fst_buf_append(out, why.message, strlen(why.message), err) : fst_message_pack(&up, out, err);
}

static fst_status answer(struct player *p, const fst_error *cannot, const fst_buf *in, fst_buf *out, fst_buf *keep,
                         bool *ended, fst_error *err)
{
    struct fst__rank_head h, back = {.what = FST__RANK_OPENED};
    const char *message = NULL, *kept = NULL;
    fst_error why = {0};
    fst_status st = fst__rank_frame_read(in->data, in->len, false, &h, &message, &kept, err);
    *ended = !st && h.what == FST__RANK_END;
    if (st || *ended || (st = fst__rank_frame_begin(out, err)))
        return st;
    fst_status own = FST_OK;
    if (cannot)
        why = *cannot;
    else
        own = h.what == FST__RANK_OPEN ? open_stage(p, &h, message, &why)
                                       : play(p, &h, message, kept, out, keep, &back, &why);
    if (cannot || own) {
        back = (struct fst__rank_head){.what = FST__RANK_CANNOT};
        st = fst__rank_frame_begin(out, err);
        if (!st)
            st = fst_buf_append(out, why.message, strlen(why.message), err);
    }
    return st ? st : fst__rank_frame_finish(out, back, back.kept ? keep->data : "", err);
}

static fst_status serve(struct player *p, fst_ranks *r, const fst_error *cannot, fst_error *err)
{
    fst_buf in = {0}, out = {0}, keep = {0};
    fst_status st = FST_OK;
    for (bool ended = false; !st && !ended;) {
        st = fst_ranks_receive(r, 0, MOST_BYTES, &in, err);
        if (!st)
            st = answer(p, cannot, &in, &out, &keep, &ended, err);
        if (!st && !ended)
            st = fst_ranks_send(r, 0, &out, err);
    }
    fst_buf_release(&in);
    fst_buf_release(&out);
    fst_buf_release(&keep);
    return st;
}

fst_status fst_task_rank_serve(fst_ranks *r, fst_task *t, const fst_task_options *o, const fst_error *why,
                               fst_error *err)
{
    struct player *p = fst_calloc(1, sizeof *p);
    fst_error own = {0};
    fst_task_options options = *o;
    if (!p)
        return fst_fail_memory(err, sizeof *p);
    options.ranks = NULL;
    options.workers = 1;
    p->session.dry = true; /* it looks at what is there, and touches nothing */
    p->session.place = FST__ALL_PLACES;
    fst_status st = why ? FST_OK : fst__session_init(&p->session, t, &options, &own);
    if (!st && !why)
        st = fst__session_open_data(&p->session, &own);
    st = serve(p, r, st ? &own : why, err);
    close_stage(p);
    if (!why)
        fst__session_close(&p->session);
    fst_free(p);
    return st;
}
