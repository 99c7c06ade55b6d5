/*
 * What people see of a coordinator: lines of the log, the newest of them kept as notes, and views of what is. A site
 * can make each kind of line happen as often as it likes; it is written at once, then held back and counted for some
 * seconds. See coordinator.h.
 */
#include "coordinator_private.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const double quiet_seconds = 5;

/* ---- lines ---------------------------------------------------------------------------------------------- */

void fst__note(struct coordinator *c, uint32_t k, double now, enum note_kind kind, fst_log_level level, const char *fmt,
               ...)
{
    struct quiet *q = &c->site[k].quiet[kind];
    char text[FST__REASON + 400];
    va_list arguments;
    if (now < q->until) {
        q->held++;
        c->held = true;
        return;
    }
    int n = snprintf(text, sizeof text, "%s ", c->spec.ids[k]);
    va_start(arguments, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, arguments);
    va_end(arguments);
    q->until = now + quiet_seconds;
    fst_log(level, "%s", text);
    fst__note_keep(&c->notes, now, text);
}

static void tell_one(struct coordinator *c, uint32_t k, double now, enum note_kind kind)
{
    static const char *const what[] = {"joined",   "started again", "said how it computes",   "left",
                                       "was lost", "was refused",   "sent too many messages", "waited"};
    char text[160];
    struct quiet *q = &c->site[k].quiet[kind];
    snprintf(text, sizeof text, "%s %s %lu times more", c->spec.ids[k], what[kind], (unsigned long)q->held);
    q->held = 0;
    q->until = now + quiet_seconds;
    fst_log(FST_LOG_INFO, "%s", text);
    fst__note_keep(&c->notes, now, text);
}

void fst__tell_held(struct coordinator *c, double now)
{
    bool held = false;
    for (uint32_t k = 0; c->held && k < c->spec.clients; k++)
        for (int i = 0; i < NOTE_KINDS; i++) {
            const struct quiet *q = &c->site[k].quiet[i];
            if (q->held && now >= q->until)
                tell_one(c, k, now, (enum note_kind)i);
            held = held || q->held;
        }
    c->held = held;
}

/* ---- views ---------------------------------------------------------------------------------------------- */

const double fst__update_bucket[FST__UPDATE_BUCKETS] = {0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600};

void fst__count_update(struct coordinator *c, double seconds)
{
    size_t i = 0;
    seconds = isfinite(seconds) && seconds > 0 ? seconds : 0;
    while (i < FST__UPDATE_BUCKETS && seconds > fst__update_bucket[i])
        i++;
    c->count.update_in[i]++;
    c->count.updates++;
    c->count.update_seconds += seconds;
}

struct site_view fst__coordinator_site(const struct coordinator *c, uint32_t k)
{
    const struct known *s = &c->site[k];
    struct site_view v = {.id = c->spec.ids[k],
                          .known = s->known,
                          .present = s->present,
                          .fetching = s->fetch != NULL,
                          .state = s->state,
                          .round = s->round,
                          .heard = s->heard,
                          .drawn = s->has_down,
                          .awaited = c->open && s->wanted,
                          .folded = s->receipt.folded,
                          .why = s->receipt.why,
                          .dropped = s->dropped,
                          .windows = s->windows,
                          .offloaded = s->offloaded};
    if (s->fetch) {
        v.parts = fst_blob_fetch_manifest(s->fetch)->parts;
        v.here = fst_blob_fetch_here(s->fetch);
    }
    return v;
}

struct coordinator_view fst__coordinator_look(const struct coordinator *c)
{
    return (struct coordinator_view){.up = c->up,
                                     .in_stage = c->server != NULL,
                                     .open = c->open,
                                     .busy = c->busy,
                                     .measuring = c->measuring,
                                     .stopping = c->stopping,
                                     .stage = c->stage,
                                     .want = c->want,
                                     .rounds = c->of ? c->of->rounds : 0,
                                     .engine = c->engine,
                                     .opened = c->opened_at};
}

const struct coordinator_counters *fst__coordinator_count(const struct coordinator *c)
{
    return &c->count;
}

size_t fst__coordinator_notes(const struct coordinator *c, struct note out[FST__NOTES])
{
    return fst__notes_copy(&c->notes, out);
}

const uint64_t *fst__coordinator_refused(const struct coordinator *c)
{
    return c->refused;
}
