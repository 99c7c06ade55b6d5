/* What events.jsonl says of each stage: its curve, and how often it was begun, resumed and finished. The latest run of
 * a stage counts; of an epoch or a round that is there twice, the later line. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

void fst__history_release(struct fst__history *h)
{
    for (size_t i = 0; i < h->stages; i++)
        fst_free(h->stage[i].point);
    fst_free(h->stage);
    fst_free(h->resource);
    *h = (struct fst__history){0};
}

const struct fst__stage_history *fst__history_find(const struct fst__history *h, const char *stage)
{
    for (size_t i = 0; i < h->stages; i++)
        if (!strcmp(h->stage[i].name, stage))
            return &h->stage[i];
    return NULL;
}

static struct fst__stage_history *stage_of(struct fst__history *h, const char *name)
{
    struct fst__stage_history *s = (struct fst__stage_history *)fst__history_find(h, name);
    if (s || h->stages == FST__SHOWN_STAGES || !*name || strlen(name) >= sizeof s->name)
        return s;
    if (h->stages == h->stage_room) {
        size_t room = h->stage_room ? 2 * h->stage_room : 8;
        struct fst__stage_history *more = fst_realloc(h->stage, h->stage_room * sizeof *more, room * sizeof *more);
        if (!more) {
            h->status = fst_fail_memory(h->err, room * sizeof *more);
            return NULL;
        }
        h->stage = more;
        h->stage_room = room;
    }
    s = &h->stage[h->stages++];
    *s = (struct fst__stage_history){0};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

static void take_state(struct fst__stage_history *s, const char *state)
{
    bool open = !strcmp(s->state, "runs");
    if (!strcmp(state, "runs")) {
        s->begun++;
        s->resumed = open ? s->resumed + 1 : 0;
        if (!open)
            s->points = 0;
    } else if (!strcmp(state, "done")) {
        s->finished++;
    }
    snprintf(s->state, sizeof s->state, "%s", state);
}

/* "" for what is no text. */
static void take_text(char *out, size_t size, const fst_event *e, const char *key)
{
    const fst_field *f = fst_event_field(e, key);
    snprintf(out, size, "%s", f && f->type == FST_FIELD_STRING && f->value.string ? f->value.string : "");
}

/* Seconds go on where the process before ended; another run starts anew. */
static void take_resources(struct fst__history *h, const struct fst__stage_history *s, const fst_event *e)
{
    struct fst__resource_point r = {fst_event_number(e, "seconds"), fst_event_number(e, "cpu_seconds"),
                                    fst_event_number(e, "rss_bytes"), !h->resources || h->begun,
                                    s ? (size_t)(s - h->stage) : FST__SHOWN_STAGES};
    if (!(r.seconds >= 0 && r.seconds < 1e9) || h->resources == FST__MAX_POINTS)
        return;
    if (r.first)
        h->offset = h->resources ? h->resource[h->resources - 1].seconds : 0;
    h->begun = false;
    r.seconds += h->offset;
    if (h->resources == h->resource_room) {
        size_t room = h->resource_room ? 2 * h->resource_room : 64;
        struct fst__resource_point *more =
            fst_realloc(h->resource, h->resource_room * sizeof *more, room * sizeof *more);
        if (!more) {
            h->status = fst_fail_memory(h->err, room * sizeof *more);
            return;
        }
        h->resource = more;
        h->resource_room = room;
    }
    h->resource[h->resources++] = r;
}

static void take_start(struct fst__history *h, const fst_event *e)
{
    take_text(h->version, sizeof h->version, e, "version");
    take_text(h->commit, sizeof h->commit, e, "commit");
    h->begun = true;
}

static void take_point(struct fst__history *h, struct fst__stage_history *s, const fst_event *e, bool round)
{
    struct fst__step_point p = {.number = fst_event_number(e, round ? "round" : "epoch")};
    if (!(p.number >= 0 && p.number <= 1e9))
        return;
    if (s->rounds != round)
        s->points = 0;
    s->rounds = round;
    while (s->points && s->point[s->points - 1].number >= p.number)
        s->points--;
    if (s->points == FST__MAX_POINTS)
        return;
    if (s->points == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        struct fst__step_point *more = fst_realloc(s->point, s->room * sizeof *more, room * sizeof *more);
        if (!more) {
            h->status = fst_fail_memory(h->err, room * sizeof *more);
            return;
        }
        s->point = more;
        s->room = room;
    }
    s->clients = 0;
    p.loss = fst_event_number(e, round ? "train_loss" : "loss");
    p.accuracy = fst_event_number(e, "accuracy");
    p.other_loss = fst_event_number(e, round ? "test_loss" : "validation_loss");
    p.other_accuracy = fst_event_number(e, round ? "test_accuracy" : "validation_accuracy");
    p.selected = fst_event_number(e, "selected");
    p.reported = fst_event_number(e, "reported");
    p.lost = fst_event_number(e, "lost");
    p.bytes_up = fst_event_number(e, "bytes_up");
    p.bytes_down = fst_event_number(e, "bytes_down");
    p.raw_up = fst_event_number(e, "raw_bytes_up");
    p.raw_down = fst_event_number(e, "raw_bytes_down");
    p.mb_up = p.bytes_up / 1e6;
    p.mb_down = p.bytes_down / 1e6;
    p.seconds = fst_event_number(e, "seconds");
    p.norm = fst_event_number(e, "update_norm");
    p.rate = fst_event_number(e, "learning_rate");
    p.validation = round ? fst_event_number(e, "validation_accuracy") : NAN;
    take_text(s->loss_kind, sizeof s->loss_kind, e, "loss_kind");
    s->point[s->points++] = p;
}

/* Of the round before it in the file. */
static void take_client(struct fst__stage_history *s, const fst_event *e)
{
    const fst_field *edge = fst_event_field(e, "edge"), *reported = fst_event_field(e, "reported");
    double round = fst_event_number(e, "round");
    if (!s->rounds || !s->points || s->clients == FST__MAX_CLIENTS || !(round >= s->point[s->points - 1].number) ||
        !(round <= s->point[s->points - 1].number))
        return;
    s->client[s->clients++] = (struct fst__client_point){
        .client = fst_event_number(e, edge ? "edge" : "client"),
        .reported = reported && reported->type == FST_FIELD_BOOL ? reported->value.boolean : NAN,
        .samples = fst_event_number(e, "samples"),
        .loss = fst_event_number(e, "train_loss"),
        .seconds = fst_event_number(e, "seconds"),
        .bytes_up = fst_event_number(e, "bytes_up"),
        .bytes_down = fst_event_number(e, "bytes_down"),
        .raw_up = fst_event_number(e, "raw_bytes_up"),
        .raw_down = fst_event_number(e, "raw_bytes_down")};
}

static bool take_event(void *ctx, const fst_event *e)
{
    struct fst__history *h = ctx;
    const fst_field *f = fst_event_field(e, "state");
    struct fst__stage_history *s = stage_of(h, e->stage);
    if (!h->first[0])
        snprintf(h->first, sizeof h->first, "%s", e->time);
    snprintf(h->last, sizeof h->last, "%s", e->time);
    if (s && !strcmp(e->event, "stage") && f && f->type == FST_FIELD_STRING && f->value.string)
        take_state(s, f->value.string);
    else if (s && (!strcmp(e->event, "epoch") || !strcmp(e->event, "round")))
        take_point(h, s, e, e->event[0] == 'r');
    else if (s && !strcmp(e->event, "client"))
        take_client(s, e);
    if (h->run != e->run)
        h->resources = 0;
    h->run = e->run;
    if (!strcmp(e->event, "start"))
        take_start(h, e);
    else if (!strcmp(e->event, "resources"))
        take_resources(h, s, e);
    h->lost_clients += !strcmp(e->event, "client_lost");
    return !h->status;
}

fst_status fst__history_parse(struct fst__history *h, const fst_buf *text, fst_error *err)
{
    struct fst__history n = {.err = err};
    fst_status st = fst_events_parse(text->data ? text->data : "", text->len, take_event, &n, &n.skipped, err);
    st = st ? st : n.status;
    if (st)
        fst__history_release(&n);
    else
        *h = n;
    return st;
}
