/* Virtual clients: a few fst_clients, one a worker, play as many clients as there are. What each keeps between rounds
 * stands here in memory, as the bytes that a process at a site would write to its disk. What a client kept in the open
 * round waits in `next` until it is known whether its update entered the result. */
#include <string.h>

#include "fed_private.h"

struct fst_virtual {
    fst_virtual_spec spec;
    fst_client **worker;  /* [workers] */
    fst_buf *kept, *next; /* [clients] */
};

fst_status fst_virtual_new(fst_virtual **out, const fst_virtual_spec *spec, fst_error *err)
{
    fst_virtual *v = fst_calloc(1, sizeof *v);
    if (!v)
        return fst_fail_memory(err, sizeof *v);
    v->spec = *spec;
    v->worker = fst_calloc((size_t)spec->workers, sizeof(fst_client *));
    v->kept = fst_calloc(spec->clients, sizeof *v->kept);
    v->next = fst_calloc(spec->clients, sizeof *v->next);
    fst_status st =
        v->worker && v->kept && v->next ? FST_OK : fst_fail_memory(err, 2 * spec->clients * sizeof *v->kept);
    for (int i = 0; !st && i < spec->workers; i++)
        st = fst_client_new(&v->worker[i], spec->ops, spec->settings, spec->nsettings, err);
    if (st)
        fst_virtual_free(v);
    else
        *out = v;
    return st;
}

void fst_virtual_free(fst_virtual *v)
{
    if (!v)
        return;
    for (int i = 0; v->worker && i < v->spec.workers; i++)
        fst_client_free(v->worker[i]);
    for (uint32_t c = 0; c < v->spec.clients; c++) {
        if (v->kept)
            fst_buf_release(&v->kept[c]);
        if (v->next)
            fst_buf_release(&v->next[c]);
    }
    fst_free(v->worker);
    fst_free(v->kept);
    fst_free(v->next);
    fst_free(v);
}

fst_status fst_virtual_work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_virtual *v = ctx;
    uint32_t c = down->client;
    fst_client_env env = {.client = c};
    fst_status st = v->spec.env(v->spec.ctx, worker, c, &env, err);
    v->next[c].len = 0;
    if (!st)
        st = fst_client_work(v->worker[worker], &env, v->kept[c].data, v->kept[c].len, down, up, &v->next[c], err);
    return st;
}

void fst_virtual_settle(void *ctx, const fst_round_report *report)
{
    fst_virtual *v = ctx;
    for (uint32_t i = 0; i < report->selected; i++) {
        uint32_t c = report->by_client[i].client;
        if (report->by_client[i].reported && v->next[c].len) {
            fst_buf old = v->kept[c];
            v->kept[c] = v->next[c];
            v->next[c] = old;
        }
        fst_buf_release(&v->next[c]);
        v->next[c] = (fst_buf){0};
    }
}

const void *fst_virtual_kept(const fst_virtual *v, uint32_t client, size_t *len)
{
    *len = v->kept[client].len;
    return v->kept[client].data;
}

fst_status fst_virtual_restore(fst_virtual *v, uint32_t client, const void *kept, size_t len, fst_error *err)
{
    fst_buf b = {0};
    fst_status st = len ? fst_buf_append(&b, kept, len, err) : FST_OK;
    if (st)
        return st;
    fst_buf_release(&v->kept[client]);
    v->kept[client] = b;
    return FST_OK;
}
