/*
 * Where clients in other processes start from, when each has a model of its own and `init` names the first: the cloud
 * sends it to all before the rounds, and each site keeps it until its client has a model. Without a fleet the clients
 * find it in f->model (federate_clients.c).
 *
 * Data flow: f->model -> message "state" -> fst_task_options.ask -> fst__federate_take_first at each site -> f->model
 * there, and output/STAGE/first_model.safetensors, from which a site that is started again has it.
 */
#include <string.h>

#include "federate.h"

#define FIRST_MODEL "first_model.safetensors"

bool fst__federate_wants_first(const struct federation *f)
{
    return f->apart && fst__stage_reads(f->own->stage, "init");
}

fst_status fst__federate_pack(const struct federation *f, const fst_state *state, fst_buf *out, fst_error *err)
{
    fst_message m = fst_message_of("state");
    const fst_fed_view v = {state->params, state->buffers, state->counters, fst_graph_fed_size(f->model->graph)};
    m.round = f->round;
    fst_status st = fst_message_add_state(&m, &v, err);
    return st ? st : fst_message_pack(&m, out, err);
}

fst_status fst__federate_give_first(struct federation *f, fst_error *err)
{
    const fst_task_options *o = f->s->options;
    fst_buf given = {0};
    if (!o->rounds || !fst__federate_wants_first(f))
        return FST_OK;
    fst_status st = fst__federate_pack(f, &f->model->state, &given, err);
    if (!st)
        st = o->ask(o->rounds_ctx, f->own->stage->name, 0, &given, 1, f->figures, err);
    if (!st && f->round == 0) /* a run that goes on has counted it */
        f->bytes_down += given.len * (uint64_t)f->partition.clients;
    fst_buf_release(&given);
    return st;
}

static fst_status unpack(struct federation *f, const void *given, size_t len, fst_error *err)
{
    fst_message m;
    fst_fed_view v;
    fst_state *to = &f->model->state;
    fst_status st = fst_message_parse(&m, given, len, err);
    if (!st)
        st = fst_message_state(&m, fst_graph_fed_size(f->model->graph), &v, err);
    if (!st &&
        (fst_accumulator_check(v.params, v.size.params, err) || fst_accumulator_check(v.buffers, v.size.buffers, err)))
        st = FST_E_NUMERIC;
    if (st)
        return fst_fail_in(err, st, "the model that %s starts from", f->own->stage->name);
    fst_fed_state room = {to->params, to->buffers, to->counters, v.size};
    fst_fed_state_copy(&room, &v);
    f->given = true;
    return FST_OK;
}

fst_status fst__federate_take_first(struct federation *f, const void *given, size_t len, fst_error *err)
{
    fst_status st = unpack(f, given, len, err);
    if (st)
        return st;
    char *path = fst__step_path(f->s, f->own, FIRST_MODEL), *folder = fst__step_path(f->s, f->own, "");
    st = path && folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_file_write(path, given, len, err);
    fst_free(path);
    fst_free(folder);
    return st;
}

/* The cloud sends it before every run of rounds, so a file that cannot be taken is as good as none. */
void fst__federate_recall_first(struct federation *f)
{
    fst_buf file = {0};
    char *path = fst__federate_wants_first(f) ? fst__step_path(f->s, f->own, FIRST_MODEL) : NULL;
    if (path && fst_file_exists(path) && !fst__read_whole(path, NULL, &file, NULL, NULL))
        (void)unpack(f, file.data, file.len, NULL);
    fst_buf_release(&file);
    fst_free(path);
}

fst_status fst__federate_has_first(const struct federation *f, fst_error *err)
{
    if (!fst__federate_wants_first(f) || f->given)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "the model that %s starts from, which this site was sent, is gone: start the cloud again",
                    f->own->stage->name);
}
