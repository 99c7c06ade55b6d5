/* Two passes over a run's events: the first sees which of them count (run_log.h says which), the second hands these
 * out. Kept between are a few bytes an event. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "run_log.h"

enum { MAX_STAGES = 256, MAX_WORKS = 4096 };
#define MAX_STEP 1e9
#define NO_LINE SIZE_MAX

/* Epochs or rounds that go on with each other. */
struct work {
    char resumes[FST_DIGEST_HEX]; /* "": of an earlier version, which did not say */
    size_t stage;
    double last; /* the number of the last one */
    size_t top;  /* its last line that is not there again; NO_LINE: none */
};

struct stage {
    char name[64];
    size_t now, won; /* works; MAX_WORKS: none */
    double won_last; /* how many epochs or rounds the work had when it left what the stage shows */
    bool open;
};

/* What is remembered of an event. */
struct line {
    size_t work;   /* MAX_WORKS: of none */
    size_t before; /* the line of the same work that is under this one; NO_LINE */
    double step;
    int64_t run;
    bool resources, again; /* again: a later line says the same */
};

struct reader {
    struct stage *stage;
    size_t stages, stage_room;
    struct work *work;
    size_t works, work_room;
    struct line *line;
    size_t lines, line_room;
    fst__digest_fn digest;
    void *ctx;
    int64_t run;
    bool started, ended;
    fst_status status;
    fst_error *err;
};

const char *fst__event_text(const fst_event *e, const char *key)
{
    const fst_field *f = fst_event_field(e, key);
    return f && f->type == FST_FIELD_STRING && f->value.string ? f->value.string : "";
}

double fst__event_step(const fst_event *e)
{
    double n = fst_event_number(e, "round");
    n = isfinite(n) ? n : fst_event_number(e, "epoch");
    return n >= 1 && n <= MAX_STEP ? n : NAN;
}

/* Room for one more; NULL sets the status. */
static void *grown(struct reader *r, void *p, size_t used, size_t *room, size_t size)
{
    if (used < *room)
        return p;
    size_t more = *room ? 2 * *room : 64;
    void *q = fst_realloc(p, *room * size, more * size);
    if (!q) {
        r->status = fst_fail_memory(r->err, more * size);
        return NULL;
    }
    *room = more;
    return q;
}

/* NULL: the event is of no stage, or there are too many. */
static struct stage *stage_of(struct reader *r, const char *name)
{
    for (size_t i = 0; i < r->stages; i++)
        if (!strcmp(r->stage[i].name, name))
            return &r->stage[i];
    if (!*name || strlen(name) >= sizeof r->stage->name || r->stages == MAX_STAGES)
        return NULL;
    struct stage *more = grown(r, r->stage, r->stages, &r->stage_room, sizeof *more);
    if (!more)
        return NULL;
    r->stage = more;
    struct stage *s = &r->stage[r->stages++];
    *s = (struct stage){.now = MAX_WORKS, .won = MAX_WORKS};
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

/* The stage begins, or goes on. */
static void begin(struct reader *r, struct stage *s, const char *resumes)
{
    const size_t own = (size_t)(s - r->stage);
    bool goes_on = s->open && s->now < r->works && !strcmp(r->work[s->now].resumes, resumes);
    for (size_t i = r->works; !goes_on && *resumes && i-- > 0;)
        if (r->work[i].stage == own && !strcmp(r->work[i].resumes, resumes)) {
            s->now = i;
            goes_on = true;
        }
    s->open = true;
    if (goes_on)
        return;
    s->now = MAX_WORKS; /* none, should there be no room for it */
    struct work *more = r->works < MAX_WORKS ? grown(r, r->work, r->works, &r->work_room, sizeof *more) : NULL;
    if (!more)
        return;
    r->work = more;
    s->now = r->works++;
    r->work[s->now] = (struct work){.stage = own, .top = NO_LINE};
    snprintf(r->work[s->now].resumes, sizeof r->work[s->now].resumes, "%s", resumes);
}

/* A step that was done before: those from it on do not count any more. */
static void drop_from(struct reader *r, struct work *w, double step)
{
    for (; w->top != NO_LINE && r->line[w->top].step >= step; w->top = r->line[w->top].before)
        r->line[w->top].again = true;
}

static void take_step(struct reader *r, const struct stage *s, const fst_event *e, struct line *l)
{
    l->step = fst__event_step(e);
    if (s->now >= r->works || !isfinite(l->step))
        return;
    bool leads = !strcmp(e->event, "round") || !strcmp(e->event, "epoch"); /* others follow theirs */
    struct work *w = &r->work[s->now];
    if (leads && w->last >= l->step)
        drop_from(r, w, l->step);
    l->work = s->now;
    l->before = w->top;
    w->top = r->lines; /* where it is about to stand */
    w->last = leads ? l->step : w->last;
}

static void take_result(struct reader *r, struct stage *s, const fst_event *e)
{
    const char *digest = r->digest(r->ctx, s->name);
    s->open = false;
    if (s->now < r->works && digest && !strcmp(fst__event_text(e, "digest"), digest)) {
        s->won = s->now;
        s->won_last = r->work[s->now].last;
    }
}

static bool take(void *ctx, const fst_event *e)
{
    struct reader *r = ctx;
    struct stage *s = stage_of(r, e->stage);
    struct line *more = r->status ? NULL : grown(r, r->line, r->lines, &r->line_room, sizeof *more);
    if (!more)
        return false;
    r->line = more;
    struct line l = {.work = MAX_WORKS, .step = NAN, .run = e->run, .resources = !strcmp(e->event, "resources")};
    r->run = e->run;
    if (!strcmp(e->event, "start")) {
        r->started = true;
        r->ended = false;
    } else if (!strcmp(e->event, "run")) {
        r->ended = !strcmp(fst__event_text(e, "status"), "done");
    } else if (s && !strcmp(e->event, "stage") && !strcmp(fst__event_text(e, "state"), "runs")) {
        begin(r, s, fst__event_text(e, "resumes"));
    } else if (s && !strcmp(e->event, "result")) {
        take_result(r, s, e);
    } else if (s) {
        take_step(r, s, e, &l);
    }
    r->line[r->lines++] = l;
    return !r->status;
}

static bool line_counts(const struct reader *r, const struct line *l)
{
    if (l->work == MAX_WORKS) /* of a step, but of no stage that began; else samples of the last run alone */
        return !isfinite(l->step) && (!l->resources || l->run == r->run);
    const struct stage *s = &r->stage[r->work[l->work].stage];
    if (l->again)
        return false;
    return r->digest(r->ctx, s->name) ? l->work == s->won && l->step <= s->won_last : l->work == s->now;
}

fst_status fst__log_read(struct fst__log *out, const fst_buf *events, fst__digest_fn digest, void *ctx, fst_error *err)
{
    struct reader r = {.digest = digest, .ctx = ctx, .err = err};
    struct fst__log l = {.counts = NULL};
    fst_status st = fst_events_parse(events->data ? events->data : "", events->len, take, &r, NULL, err);
    st = st ? st : r.status;
    if (!st && !(l.counts = fst_alloc(r.lines + 1)))
        st = fst_fail_memory(err, r.lines + 1);
    for (size_t i = 0; !st && i < r.lines; i++)
        l.counts[i] = line_counts(&r, &r.line[i]);
    l.events = r.lines;
    l.unfinished = r.started && !r.ended;
    fst_free(r.line);
    fst_free(r.work);
    fst_free(r.stage);
    if (!st)
        *out = l;
    return st;
}

void fst__log_release(struct fst__log *l)
{
    fst_free(l->counts);
    *l = (struct fst__log){0};
}

/* ---- the second pass -------------------------------------------------------------------------------- */

struct hand_out {
    const struct fst__log *log;
    size_t at;
    fst_event_fn fn;
    void *ctx;
};

static bool hand_out(void *ctx, const fst_event *e)
{
    struct hand_out *h = ctx;
    size_t at = h->at++;
    return at >= h->log->events || !h->log->counts[at] || h->fn(h->ctx, e);
}

fst_status fst__log_each(const struct fst__log *l, const fst_buf *events, fst_event_fn fn, void *ctx, fst_error *err)
{
    struct hand_out h = {l, 0, fn, ctx};
    return fst_events_parse(events->data ? events->data : "", events->len, hand_out, &h, NULL, err);
}
