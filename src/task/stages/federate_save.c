/*
 * Checkpoints of federated_train, at the boundaries of rounds: the shared model, the strategy's part, what every client
 * keeps, the edges' last models, and the sums of the report. A round that was open when the run ended is done again:
 * its exact sums make the bits the same.
 */
#include <stdio.h>
#include <string.h>

#include "federate.h"

enum { MAX_TENSORS = 3 * (FST__MAX_EDGES + 2) + 2 };

/* A checkpoint's tensors and their names. */
struct kept {
    fst_tensor t[MAX_TENSORS];
    char name[MAX_TENSORS][40];
    size_t n;
};

static void keep(struct kept *k, const char *prefix, const fst_state *s)
{
    const fst_tensor t[] = {{"params", FST_F32, FST_SHAPE((int64_t)s->param_count), s->params},
                            {"buffers", FST_F32, FST_SHAPE((int64_t)s->buffer_count), s->buffers},
                            {"counters", FST_I64, FST_SHAPE((int64_t)s->counter_count), s->counters}};
    for (int i = 0; i < 3; i++, k->n++) {
        snprintf(k->name[k->n], sizeof k->name[k->n], "%s%s", prefix, t[i].name);
        k->t[k->n] = t[i];
        k->t[k->n].name = k->name[k->n];
    }
}

static void tensors(const struct federation *f, struct kept *k)
{
    k->n = 0;
    if (!f->apart)
        keep(k, "", &f->model->state);
    snprintf(k->name[k->n], sizeof k->name[k->n], "rounds_of");
    k->t[k->n] = (fst_tensor){k->name[k->n], FST_I64, FST_SHAPE(f->partition.clients), f->rounds_of};
    k->n++;
    if (f->best.params)
        keep(k, "best.", &f->best);
    for (size_t e = 0; f->edge && e < f->s->data.edges; e++) {
        char prefix[24];
        snprintf(prefix, sizeof prefix, "edge_%d.", (int)e + 1);
        keep(k, prefix, &f->edge[e]);
    }
}

enum { FILE_NUMBERS = 4 };

static bool any_files(const struct federation *f)
{
    bool any = false;
    for (uint32_t c = 0; !any && c < (uint32_t)f->partition.clients; c++)
        any = fst_virtual_file_of(f->clients, c).stamp > 0;
    return any;
}

/* What clients keep between rounds, a tensor each; of those whose state is in a file its stamp, length and hash. */
static fst_status put_clients(const struct federation *f, fst_checkpoint_writer *w, uint64_t *files, fst_error *err)
{
    const fst_tensor list = {"client_files", FST_U64, FST_SHAPE(f->partition.clients, FILE_NUMBERS), files};
    fst_status st = FST_OK;
    bool any = any_files(f);
    for (uint32_t c = 0; !st && c < (uint32_t)f->partition.clients; c++) {
        char name[40];
        size_t len;
        const void *kept = fst_virtual_kept(f->clients, c, &len);
        snprintf(name, sizeof name, "client_%lu", (unsigned long)c + 1);
        const fst_tensor t = {name, FST_U8, FST_SHAPE((int64_t)len), (void *)kept};
        const fst_virtual_file in = fst_virtual_file_of(f->clients, c);
        if (kept && len)
            st = fst_checkpoint_add(w, &t, err);
        if (any)
            memcpy(files + FILE_NUMBERS * c, (uint64_t[]){in.stamp, in.len, in.hash.lo, in.hash.hi},
                   FILE_NUMBERS * sizeof *files);
    }
    return st || !any ? st : fst_checkpoint_add(w, &list, err);
}

static fst_status put_state(struct federation *f, fst_checkpoint_writer *w, fst_buf *kept, uint64_t *files,
                            fst_error *err)
{
    struct kept k;
    tensors(f, &k);
    fst_status st = fst_strategy_save(f->strategy, kept, err);
    if (!st && kept->len)
        k.t[k.n++] = (fst_tensor){"strategy", FST_U8, FST_SHAPE((int64_t)kept->len), kept->data};
    if (!st)
        st = fst_checkpoint_add_all(w, k.t, k.n, err);
    if (!st)
        st = put_clients(f, w, files, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "best_accuracy", f->best_accuracy, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "best_round", f->best_round, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "round", f->round, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "elsewhere", f->s->options->rounds != NULL, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "bytes_up", f->bytes_up, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "bytes_down", f->bytes_down, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "raw_up", f->raw_up, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "raw_down", f->raw_down, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "seconds", f->seconds_before + fst_clock_seconds() - f->started, err);
    return st;
}

fst_status fst__federate_save(struct federation *f, const char *path, fst_error *err)
{
    double began = fst_clock_seconds();
    fst_checkpoint_writer *w = NULL;
    fst_buf kept = {0};
    size_t numbers = any_files(f) ? FILE_NUMBERS * (size_t)f->partition.clients : 0;
    uint64_t *files = fst_calloc(numbers, sizeof *files);
    fst_status st =
        files ? fst_checkpoint_writer_new(&w, f->own->resumes, err) : fst_fail_memory(err, numbers * sizeof *files);
    if (!st)
        st = put_state(f, w, &kept, files, err);
    if (!st)
        st = fst_checkpoint_write(w, path, NULL, err);
    fst_checkpoint_writer_free(w);
    fst_buf_release(&kept);
    fst_free(files);
    f->saves = fst__saved(began);
    if (st)
        return fst_fail_in(err, st, "%s: saving progress", f->own->stage->name);
    f->saved_round = f->round;
    if (path == f->checkpoint)
        fst_virtual_saved(f->clients);
    return FST_OK;
}

/* Until the record is written the checkpoint counts, so files may only go when it names the new ones. */
fst_status fst__federate_save_last(struct federation *f, fst_error *err)
{
    fst_status st = any_files(f) ? fst__federate_save(f, f->checkpoint, err) : FST_OK;
    return st ? st : fst__federate_save(f, f->last, err);
}

/* What clients in other processes keep is theirs, and what clients here keep is not theirs: neither goes on from the
 * other's rounds. */
static fst_status check_place(const struct federation *f, const fst_checkpoint *k, fst_error *err)
{
    uint64_t elsewhere = 0;
    if (!fst__clients_keep(f->section) || fst_checkpoint_uint(k, "elsewhere", &elsewhere, NULL))
        elsewhere = f->s->options->rounds != NULL;
    if (elsewhere == (f->s->options->rounds != NULL))
        return FST_OK;
    return fst_fail(
        err, FST_E_CONFIG,
        "with %s clients keep something from round to round, and those of these rounds were %s: go on there",
        f->ops->name, elsewhere ? "the sites of a fleet" : "in one process (fedstill run)");
}

/* Those of clients' states that are in files. */
static fst_status load_files(struct federation *f, const fst_tensor *t, fst_error *err)
{
    const unsigned char *at = t->data;
    fst_status st = FST_OK;
    if (t->dtype != FST_U64 || t->shape.rank != 2 || t->shape.dim[0] != f->partition.clients ||
        t->shape.dim[1] != FILE_NUMBERS)
        return fst_fail(err, FST_E_FORMAT, "the list of files is not one of %d clients", f->partition.clients);
    for (uint32_t c = 0; !st && c < (uint32_t)f->partition.clients; c++, at += FILE_NUMBERS * sizeof(uint64_t)) {
        uint64_t n[FILE_NUMBERS];
        memcpy(n, at, sizeof n);
        if (n[0])
            st =
                fst_virtual_restore_file(f->clients, c, &(fst_virtual_file){n[0], n[1], {.lo = n[2], .hi = n[3]}}, err);
        if (st)
            st = fst_fail_in(err, st, "what client %lu kept", (unsigned long)c + 1);
    }
    return st;
}

/* The strategy's part and the clients', each of which checks its bytes before it takes them. */
static fst_status load_parts(struct federation *f, const fst_checkpoint *k, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < fst_checkpoint_count(k); i++) {
        fst_tensor t = fst_checkpoint_at(k, i);
        size_t len = (size_t)fst_shape_count(&t.shape);
        unsigned long client;
        char end;
        if (!strcmp(t.name, "strategy"))
            st = fst_strategy_load(f->strategy, t.data, len, err);
        else if (sscanf(t.name, "client_%lu%c", &client, &end) == 1 && client >= 1 &&
                 client <= (unsigned long)f->partition.clients)
            st = fst_virtual_restore(f->clients, (uint32_t)client - 1, t.data, len, err);
        else if (!strcmp(t.name, "client_files"))
            st = load_files(f, &t, err);
    }
    return st;
}

/* Outputs are untouched on failure, except the strategy and what clients keep. */
static fst_status take(struct federation *f, const fst_checkpoint *k, fst_error *err)
{
    struct kept own;
    struct federation n = *f;
    fst_status st = fst_checkpoint_uint(k, "round", &n.round, err);
    if (!st)
        st = fst_checkpoint_uint(k, "bytes_up", &n.bytes_up, err);
    if (!st)
        st = fst_checkpoint_uint(k, "bytes_down", &n.bytes_down, err);
    if (!st && (fst_checkpoint_uint(k, "raw_up", &n.raw_up, NULL) ||
                fst_checkpoint_uint(k, "raw_down", &n.raw_down, NULL))) { /* of a program that knew no codecs */
        n.raw_up = n.bytes_up;
        n.raw_down = n.bytes_down;
    }
    if (!st)
        st = fst_checkpoint_double(k, "seconds", &n.seconds_before, err);
    if (!st)
        st = fst_checkpoint_double(k, "best_accuracy", &n.best_accuracy, err);
    if (!st)
        st = fst_checkpoint_uint(k, "best_round", &n.best_round, err);
    if (!st && (n.round > (uint64_t)f->section->rounds || n.best_round > n.round))
        st = fst_fail(err, FST_E_MISMATCH, "%s: its round is not of this training", f->checkpoint);
    if (!st)
        st = load_parts(f, k, err);
    tensors(f, &own);
    if (!st)
        st = fst_checkpoint_load(k, own.t, own.n, err);
    if (st)
        return st;
    n.saved_round = n.round;
    *f = n;
    return FST_OK;
}

/* Goes on from a checkpoint when there is a sound one of exactly these inputs and not of more rounds. */
static fst_status resume_from(struct federation *f, const char *path, bool *resumed, fst_error *err)
{
    fst_checkpoint *k = NULL;
    fst_error why = {0};
    uint64_t round = 0;
    if (*resumed || !fst_file_exists(path))
        return FST_OK;
    fst_status st = fst_checkpoint_open(&k, path, f->own->resumes, &why);
    if (!st && !fst_checkpoint_uint(k, "round", &round, NULL) && round > (uint64_t)f->section->rounds)
        st = fst_fail(&why, FST_E_MISMATCH, "%s is of %llu rounds already", path, (unsigned long long)round);
    if (st) {
        fst_checkpoint_free(k);
        fst_log(st == FST_E_MISMATCH ? FST_LOG_INFO : FST_LOG_WARN, "%s: starting anew: %s", f->own->stage->name,
                why.message);
        return FST_OK;
    }
    st = check_place(f, k, err);
    if (!st)
        st = take(f, k, err);
    fst_checkpoint_free(k);
    if (st)
        return fst_fail_in(err, st, "%s cannot go on; --fresh starts over", f->own->stage->name);
    fst_log(FST_LOG_INFO, "%s: going on at round %llu", f->own->stage->name, (unsigned long long)f->round + 1);
    *resumed = true;
    return FST_OK;
}

/* From where it was stopped, or from the end of a run of fewer rounds. */
fst_status fst__federate_resume(struct federation *f, fst_error *err)
{
    bool resumed = false;
    fst_status st = resume_from(f, f->checkpoint, &resumed, err);
    if (st || resumed)
        return st;
    st = resume_from(f, f->last, &resumed, err);
    f->saved_round = 0; /* the rounds that come have no checkpoint of their own yet */
    return st;
}
