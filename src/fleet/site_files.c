/* What a site keeps on its disk, see site.h: the run that it is in, its update until the server has it, and what its
 * client keeps from round to round. Large updates are served from their file. Files: "site" {run, epoch}; "outbox" and
 * "next" and "kept": a line of JSON {run, stage, round, ...}, then bytes. */
#include <stdio.h>
#include <string.h>

#include "site_private.h"

/* ---- files ---------------------------------------------------------------------------------------------- */

static fst_status put(struct site *s, const char *name, const struct line_of_file *head, const void *bytes, size_t len,
                      fst_error *err)
{
    fst_buf line = {0};
    fst_status st = fst__line_write(head, &line, err);
    if (!st)
        st = s->spec.store.put(s->spec.store.ctx, name, &line, bytes, len, err);
    fst_buf_release(&line);
    return st;
}

/* head.round < 0: there is none. */
static fst_status get(struct site *s, const char *name, struct line_of_file *head, fst_buf *bytes, fst_error *err)
{
    fst_buf file = {0};
    bool found = false;
    size_t at = 0;
    *head = FST__NO_LINE;
    bytes->len = 0;
    fst_status st = s->spec.store.get(s->spec.store.ctx, name, &file, &found, err);
    if (!st && found) {
        st = fst__line_read(head, file.data, file.len, &at, err);
        if (!st)
            st = fst_buf_append(bytes, file.data + at, file.len - at, err);
        if (st)
            st = fst_fail_in(err, st, "%s", name);
    }
    fst_buf_release(&file);
    return st;
}

fst_status fst__site_save_run(struct site *s, fst_error *err)
{
    const struct line_of_file head = {.run = s->run, .epoch = s->epoch, .round = 0};
    s->save = false;
    return put(s, "site", &head, NULL, 0, err);
}

uint64_t fst__site_in_memory(const struct site *s)
{
    return s->spec.in_memory ? s->spec.in_memory : FST_BLOB_IN_MEMORY;
}

void fst__site_hide_outbox(struct site *s)
{
    if (s->served[0])
        fst_blob_server_remove(s->server, s->served);
    s->served[0] = 0;
    if (s->shown)
        s->spec.store.unview(s->spec.store.ctx, s->shown, s->shown_len);
    s->shown = NULL;
}

/* A large outbox is served from its file, which then holds at least its head. */
static fst_status show_outbox(struct site *s, fst_error *err)
{
    struct line_of_file head;
    const void *file;
    if (!s->spec.store.view)
        return FST_OK;
    fst_status st = s->spec.store.view(s->spec.store.ctx, "outbox", &file, &s->shown_len, err);
    if (st)
        return st;
    s->shown = file;
    st = fst__line_read(&head, s->shown, s->shown_len, &s->shown_at, err);
    if (!st && (!head.has_manifest || head.manifest.bytes != s->shown_len - s->shown_at))
        st = fst_fail(err, FST_E_FORMAT, "outbox: not as long as it says");
    if (st)
        fst__site_hide_outbox(s);
    return st;
}

void fst__site_serve_outbox(struct site *s)
{
    if (!s->shown)
        fst__site_hide_outbox(s);
    const void *bytes = s->shown ? s->shown + s->shown_at : s->outbox.data;
    if (s->outbox_of.round >= 0 && !fst_blob_server_add(s->server, &s->manifest, bytes, NULL))
        memcpy(s->served, s->manifest.digest, sizeof s->served);
}

/* remove: its file too. */
void fst__site_let_go(struct held *h, bool remove)
{
    if (remove)
        fst_blob_fetch_drop(h->fetch);
    else
        fst_blob_fetch_free(h->fetch);
    fst_buf_release(&h->raw);
    *h = (struct held){.len = 0};
}

/* Another run, or the end of one: what was kept for it is nobody's. */
void fst__site_forget_run(struct site *s)
{
    fst__site_hide_outbox(s);
    fst__site_let_go(&s->down, true);
    /* base, given: what a process before this one began to fetch, too */
    static const char *const files[] = {"outbox", "next", "kept", "site", "base", "base.have", "given", "given.have"};
    const struct store *k = &s->spec.store;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        k->drop(k->ctx, files[i]);
    s->outbox_of = s->next_of = s->kept_of = FST__NO_LINE;
    s->outbox.len = s->next.len = s->kept.len = 0;
    s->run = 0;
    fst__site_serve_outbox(s);
}

/* ---- what the client keeps ------------------------------------------------------------------------------- */

bool fst__site_is_of(const struct line_of_file *f, const char *stage, int64_t round)
{
    return f->round >= 0 && f->round == round && !strcmp(f->stage, stage);
}

/* Before a round: what was kept becomes what the server has counted. */
fst_status fst__site_settle_kept(struct site *s, const struct order *o, fst_error *err)
{
    if (o->counted < 0) {
        s->kept.len = 0;
        s->kept_of = FST__NO_LINE;
        return FST_OK;
    }
    if (fst__site_is_of(&s->kept_of, o->stage, o->counted))
        return FST_OK;
    if (fst__site_is_of(&s->next_of, o->stage, o->counted)) {
        fst_status st = put(s, "kept", &s->next_of, s->next.data, s->next.len, err);
        fst_buf old = s->kept;
        if (st)
            return st;
        s->kept = s->next;
        s->kept_of = s->next_of;
        s->next = old;
        s->next_of = FST__NO_LINE;
        return FST_OK;
    }
    s->kept.len = 0;
    s->kept_of = FST__NO_LINE;
    if (s->spec.keeps(s->spec.ctx, o->stage))
        snprintf(
            s->cannot, sizeof s->cannot,
            "what this client kept of round %lld is gone (its folder was lost or exchanged), and the method needs it",
            (long long)o->counted + 1);
    return FST_OK;
}

/* To measure, both stay as they are: the round may not be saved yet, and be played again. */
const fst_buf *fst__site_kept_after(const struct site *s, const struct order *o)
{
    return fst__site_is_of(&s->kept_of, o->stage, o->counted)   ? &s->kept
           : fst__site_is_of(&s->next_of, o->stage, o->counted) ? &s->next
                                                                : NULL;
}

/* ---- the update ------------------------------------------------------------------------------------------- */

fst_status fst__site_keep_update(struct site *s, const void *up, size_t len, const void *keep, size_t keep_len,
                                 fst_error *err)
{
    struct line_of_file head = {
        .run = s->run, .epoch = s->epoch, .round = (int64_t)s->order.round, .seconds = s->seconds};
    memcpy(head.stage, s->order.stage, sizeof head.stage);
    fst__site_hide_outbox(s);
    s->next.len = s->outbox.len = 0;
    s->next_of = s->outbox_of = FST__NO_LINE;
    fst_status st = keep_len ? fst_buf_append(&s->next, keep, keep_len, err) : FST_OK;
    if (!st)
        st = put(s, "next", &head, s->next.data, s->next.len, err);
    if (!st)
        st = fst_blob_encode(up, len, &s->outbox, &s->manifest, err);
    if (st)
        return st;
    s->next_of = head;
    head.manifest = s->manifest;
    head.has_manifest = true;
    bool plain = s->manifest.codec == FST_BLOB_PLAIN,
         large = s->manifest.bytes > fst__site_in_memory(s) && s->spec.store.view;
    st = put(s, "outbox", &head, plain ? up : s->outbox.data, (size_t)s->manifest.bytes, err);
    if (!st && large)
        st = show_outbox(s, err);
    else if (!st && plain)
        st = fst_buf_append(&s->outbox, up, len, err);
    if (!st && large) {
        fst_buf_release(&s->outbox);
        s->outbox = (fst_buf){0};
    }
    if (!st)
        s->outbox_of = head;
    return st;
}

/* ---- what an earlier process left -------------------------------------------------------------------------- */

static fst_status get_outbox(struct site *s, fst_error *err)
{
    fst_status st = get(s, "outbox", &s->outbox_of, &s->outbox, err);
    if (st || s->outbox_of.round < 0)
        return st;
    if (!s->outbox_of.has_manifest || s->outbox_of.manifest.bytes != s->outbox.len)
        return fst_fail(err, FST_E_FORMAT, "outbox: not as long as it says");
    if (s->outbox.len <= fst__site_in_memory(s) || !s->spec.store.view)
        return FST_OK;
    fst_buf_release(&s->outbox);
    s->outbox = (fst_buf){0};
    return show_outbox(s, err);
}

fst_status fst__site_take_up(struct site *s, fst_error *err)
{
    struct line_of_file head;
    fst_buf none = {0};
    fst_status st = get(s, "site", &head, &none, err);
    fst_buf_release(&none);
    if (st || head.round < 0)
        return st;
    s->run = head.run;
    s->epoch = head.epoch;
    st = get(s, "kept", &s->kept_of, &s->kept, err);
    if (!st)
        st = get(s, "next", &s->next_of, &s->next, err);
    if (!st)
        st = get_outbox(s, err);
    if (st || s->outbox_of.round < 0)
        return st;
    s->manifest = s->outbox_of.manifest;
    s->seconds = s->outbox_of.seconds;
    fst__site_serve_outbox(s);
    return FST_OK;
}
