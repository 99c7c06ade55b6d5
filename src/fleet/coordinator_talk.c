/* What the coordinator says to sites, and what it makes of what they say: facts of their `struct known`, and nothing
 * else. See coordinator.h. */
#include "coordinator_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RATE = 1000 /* messages a second */, SHORT_LINKS = 3, MANY_SHORT_LINKS = 12 };
static const double welcome_every = 1, unsure_for = 2, at_once = 2;

/* ---- saying --------------------------------------------------------------------------------------------- */

fst_status fst__tell_site(struct coordinator *c, uint32_t k, const char *leaf, fst_frame_kind kind, const fst_buf *body)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {.kind = kind,
                   .run = c->spec.run,
                   .epoch = c->spec.epoch,
                   .seq = ++c->seq,
                   .sender = FST__CLOUD,
                   .body = body->data,
                   .body_len = body->len};
    fst_status st = fst_frame_encode(&f, &bytes, NULL);
    if (!st)
        st = fst_transport_publish(c->spec.transport, fst_topic_down(topic, c->spec.ids[k], leaf), bytes.data,
                                   bytes.len, NULL);
    fst_buf_release(&bytes);
    return st;
}

/* What does not get through is said again by `talk`, or in answer to a question that is repeated. */
static void say(struct coordinator *c, uint32_t k, fst_frame_kind kind, fst_status written, const fst_buf *body)
{
    if (!written)
        written = fst__tell_site(c, k, "ctl", kind, body);
    if (written && written != FST_E_BUSY)
        fst_log(FST_LOG_WARN, "%s: a message could not be sent: %s", c->spec.ids[k], fst_status_name(written));
}

static void say_welcome(struct coordinator *c, uint32_t k, double now, bool hello)
{
    fst_buf body = {0};
    const struct welcome m = {.hello = hello};
    if (now < c->site[k].welcome_at)
        return;
    c->site[k].welcome_at = now + (hello ? welcome_every : 0);
    fst_status st = fst__write_welcome(&m, &body, NULL);
    say(c, k, FST_KIND_WELCOME, st, &body);
    fst_buf_release(&body);
}

static void say_refusal(struct coordinator *c, uint32_t k, double now, const char *instance, const char *reason)
{
    fst_buf body = {0};
    struct refusal m = {.final = true};
    if (now < c->site[k].welcome_at)
        return;
    c->site[k].welcome_at = now + welcome_every;
    snprintf(m.reason, sizeof m.reason, "%s", reason);
    for (char *p = m.reason; *p; p++) /* it may quote what the site said */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    snprintf(m.instance, sizeof m.instance, "%s", instance);
    fst__note(c, k, now, NOTE_REFUSED, FST_LOG_WARN, "is refused: %s", m.reason);
    fst_status st = fst__write_refusal(&m, &body, NULL);
    say(c, k, FST_KIND_REFUSAL, st, &body);
    fst_buf_release(&body);
}

const fst_blob_manifest *fst__manifest_for(struct coordinator *c, uint32_t k, struct down *d)
{
    if (!c->site[k].hello.plain || d->manifest.codec == FST_BLOB_PLAIN)
        return &d->manifest;
    if (!d->plain.parts && (fst_blob_plain(d->raw.data, d->raw.len, &d->plain, NULL) ||
                            fst_blob_server_add(c->blobs, &d->plain, d->raw.data, NULL)))
        return &d->manifest; /* no memory: it says that it cannot, and is told again in the next round */
    return &d->plain;
}

void fst__say_order(struct coordinator *c, uint32_t k)
{
    fst_buf body = {0};
    struct order m = {.kind = ORDER_STOP};
    if (c->measuring && !c->stopping) {
        m = c->measure;
        m.counted = c->gift_count ? -1 : c->counted[k];
        if (c->gift_count)
            m.base = *fst__manifest_for(c, k, &c->gifts[c->site[k].given]);
    } else if (!c->stopping) {
        m = (struct order){.kind = ORDER_TRAIN, .round = c->open_round, .counted = c->counted[k]};
        memcpy(m.stage, c->stage, sizeof m.stage);
        m.base = *fst__manifest_for(c, k, &c->downs[c->site[k].down]);
    }
    m.classes = c->classes;
    memcpy(m.data, c->data, sizeof m.data);
    fst_status st = fst__write_order(&m, &body, NULL);
    say(c, k, FST_KIND_ORDER, st, &body);
    fst_buf_release(&body);
}

void fst__say_receipt(struct coordinator *c, uint32_t k)
{
    fst_buf body = {0};
    fst_status st = fst__write_receipt(&c->site[k].receipt, &body, NULL);
    say(c, k, FST_KIND_RECEIPT, st, &body);
    fst_buf_release(&body);
}

void fst__note_receipt(struct coordinator *c, uint32_t k, const char *stage, uint64_t round, bool folded,
                       const char *why)
{
    struct receipt *r = &c->site[k].receipt;
    *r = (struct receipt){.round = round, .folded = folded};
    snprintf(r->stage, sizeof r->stage, "%s", stage);
    snprintf(r->why, sizeof r->why, "%s", why);
    c->site[k].receipt_due = true;
}

/* ---- hello ---------------------------------------------------------------------------------------------- */

/* The first line in which two lists of settings differ, as "key: A here, B there". */
static void first_difference(const char *ours, const char *theirs, char *out, size_t size)
{
    while (*ours && *theirs) {
        size_t a = strcspn(ours, "\n"), b = strcspn(theirs, "\n");
        if (a != b || memcmp(ours, theirs, a) != 0) {
            snprintf(out, size, "the tasks differ: the cloud has %.*s, this site %.*s", (int)(a < 180 ? a : 180), ours,
                     (int)(b < 180 ? b : 180), theirs);
            return;
        }
        ours += a + (ours[a] == '\n');
        theirs += b + (theirs[b] == '\n');
    }
    snprintf(out, size, "the tasks differ: one has more settings, from \"%.160s\" on", *ours ? ours : theirs);
}

/* Sites with files of their own: what all must have alike. */
static void judge_place(const fst_task_identity *want, const struct hello *h, char *why, size_t size)
{
    bool named = *want->names || *h->names;
    if (strcmp(h->samples, want->samples))
        snprintf(why, size, "its samples are %s, the cloud's are %s", *h->samples ? h->samples : "not described",
                 want->samples);
    else if ((*want->names && *h->names && strcmp(want->names, h->names)) || (named && h->classes > want->classes))
        snprintf(why, size, "its samples have other classes (%d of them) than the cloud's (%d), or in another order",
                 h->classes, want->classes);
    else if (*h->common && strcmp(h->common, want->common))
        snprintf(why, size, "its copy of what data.path has is not the cloud's (digest %.12s, there %.12s)", h->common,
                 want->common);
}

/* Before a stage begins nobody knows what its clients should have. */
static void judge_samples(const struct coordinator *c, uint32_t k, const struct hello *h, char *why, size_t size)
{
    uint64_t learn = h->learn;
    const char *data = h->data;
    *why = 0;
    if (c->expects)
        judge_place(&c->expected, h, why, size);
    if (*why)
        return;
    if (c->of && c->of->samples && (uint64_t)c->of->samples[k] != learn)
        snprintf(why, size, "it has %llu samples, the cloud counts %lld for it", (unsigned long long)learn,
                 (long long)c->of->samples[k]);
    else if (c->of && c->of->data && strcmp(c->of->data[k], data) && c->expects)
        snprintf(
            why, size,
            "its samples are not those that this run began with (digest %.12s, then %.12s): bring them back, or begin "
            "anew, with --fresh at the cloud",
            data, c->of->data[k]);
    else if (c->of && c->of->data && strcmp(c->of->data[k], data))
        snprintf(why, size,
                 "its samples are not those that the cloud's data give it (digest %.12s, there %.12s): its data, or a "
                 "file that they are made by, are others",
                 data, c->of->data[k]);
}

/* "" when it may take part. */
static void judge(const struct coordinator *c, uint32_t k, const struct hello *h, char *why, size_t size)
{
    *why = 0;
    if (h->client != k)
        snprintf(why, size, "it says that it is client %lu, %s is client %lu", (unsigned long)h->client + 1,
                 c->spec.ids[k], (unsigned long)k + 1);
    else if (*h->task && strcmp(h->task, c->spec.task) != 0 && h->settings)
        first_difference(c->spec.settings, h->settings, why, size);
    else if (*h->task && strcmp(h->task, c->spec.task) != 0)
        snprintf(why, size, "the tasks differ: %.12s at the cloud, %.12s here", c->spec.task, h->task);
    else if (h->run && h->run != c->spec.run)
        snprintf(why, size,
                 "it is in the middle of run %016llx, the cloud runs %016llx: start the cloud with the output of that "
                 "run, or remove this site's folder fleet/%s and start it again",
                 (unsigned long long)h->run, (unsigned long long)c->spec.run, c->spec.ids[k]);
    else
        judge_samples(c, k, h, why, size);
}

/* Two processes of one id take each other's connection in turns: the one that was replaced is told to end, or no round
 * would. A process that is started again has another instance. */
static void say_replaced(struct coordinator *c, uint32_t k, double now, const char *instance)
{
    char why[FST__REASON];
    snprintf(why, sizeof why, "another process of %s joined after this one: only one may run", c->spec.ids[k]);
    say_refusal(c, k, now, instance, why);
}

/* In the order in which they came; -1: it is new. */
static int age_of(const struct known *s, const char *instance)
{
    for (int i = 0; i < s->instances; i++)
        if (!strcmp(s->seen[i], instance))
            return i;
    return -1;
}

static void note_instance(struct known *s, const char *instance)
{
    if (age_of(s, instance) >= 0)
        return;
    if (s->instances == SEEN)
        memmove(s->seen[0], s->seen[1], (size_t)--s->instances * sizeof s->seen[0]);
    memcpy(s->seen[s->instances++], instance, FST__INSTANCE);
}

/* A message of a process that was killed may come late, and its successor then takes its place again. Only when that
 * goes on for long are there two, and the older one has to go. */
static bool is_in_the_way(const struct known *s, const char *instance)
{
    int age = age_of(s, instance);
    return s->swaps > SWAPS && age >= 0 && age < age_of(s, s->instance);
}

/* Whether it is let in; if not, it is told why. */
static bool let_in(struct coordinator *c, uint32_t k, double now, const struct hello *h)
{
    struct known *s = &c->site[k];
    char why[FST__REASON];
    /* Its cloud may be at work, and take its place back in a moment: a refusal now would end its sites. */
    if (h->run && h->run != c->spec.run && now < c->judge_from)
        return false;
    judge(c, k, h, why, sizeof why);
    if (*why) {
        say_refusal(c, k, now, h->instance, why);
        return false;
    }
    if (age_of(s, h->instance) >= 0 && age_of(s, h->instance) < age_of(s, s->instance))
        s->swaps++;
    if (!is_in_the_way(s, h->instance))
        return true;
    say_replaced(c, k, now, h->instance);
    return false;
}

static void tell_joined(struct coordinator *c, uint32_t k, double now, const struct hello *h)
{
    fst__note(c, k, now, NOTE_JOINED, FST_LOG_INFO, "joined: %llu samples%s%s", (unsigned long long)h->learn,
              h->missing[0] ? ", none of " : "", h->missing);
    if (c->spec.numerics[0] && strcmp(c->spec.numerics, h->numerics))
        fst__note(c, k, now, NOTE_NUMERICS, FST_LOG_INFO,
                  "computes in another way (%s; here %s): bits may differ from one process's", h->numerics,
                  c->spec.numerics);
}

static void take_in(struct coordinator *c, uint32_t k, double now, const struct hello *h)
{
    struct known *s = &c->site[k];
    if (s->known && s->present && strcmp(s->instance, h->instance)) {
        fst__note(c, k, now, NOTE_AGAIN, FST_LOG_INFO, "started again");
        s->answered = false;
        s->say_at = now;
    } else if (!s->known || !s->present) {
        tell_joined(c, k, now, h);
    }
    if (strcmp(s->instance,
               h->instance)) /* what the last process offered may be gone with it: the order goes out again */
        s->offered = false;
    note_instance(s, h->instance);
    memcpy(s->instance, h->instance, sizeof s->instance);
    s->hello = *h;
    s->hello.settings = NULL;
    s->known = s->present = true;
    s->heard = now;
    s->gone_at = INFINITY;
    s->welcome_at = 0;
    say_welcome(c, k, now, false);
}

static void on_hello(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct hello h;
    if (fst__read_hello(&h, f->body, f->body_len, NULL)) {
        c->refused[FST_REFUSED_BODY]++;
        return;
    }
    if (let_in(c, k, now, &h))
        take_in(c, k, now, &h);
    fst__hello_release(&h);
}

void fst__check_samples(struct coordinator *c, uint32_t k, double now)
{
    struct known *s = &c->site[k];
    char why[FST__REASON];
    if (!s->known)
        return;
    judge_samples(c, k, &s->hello, why, sizeof why);
    if (!*why)
        return;
    s->welcome_at = now; /* whatever was just said to it */
    say_refusal(c, k, now, s->instance, why);
    s->known = s->present = false;
}

/* ---- other messages -------------------------------------------------------------------------------------- */

/* Whether the message is of the process that is the site now; an older one is told that it is not. */
static bool is_current(struct coordinator *c, uint32_t k, double now, const char *instance)
{
    struct known *s = &c->site[k];
    if (!strcmp(s->instance, instance))
        return true;
    if (is_in_the_way(s, instance))
        say_replaced(c, k, now, instance);
    else
        say_welcome(c, k, now, true); /* if it lives, it introduces itself again */
    return false;
}

static bool is_open(const struct coordinator *c, const char *stage, uint64_t round)
{
    return c->server && c->open && !strcmp(stage, c->stage) && round == c->open_round;
}

static void on_beat(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct beat b;
    if (fst__read_beat(&b, f->body, f->body_len, NULL)) {
        c->refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, b.instance))
        return;
    s->state = b.state;
    s->round = b.round;
    memcpy(s->stage, b.stage, sizeof s->stage);
    if (*b.waits && strcmp(b.waits, s->waits))
        fst__note(c, k, now, NOTE_WAITS, FST_LOG_WARN, "cannot go on yet: %s", b.waits);
    memcpy(s->waits, b.waits, sizeof s->waits);
    s->windows = b.windows;
    s->offloaded = b.offloaded;
    s->answered = is_open(c, b.stage, b.round) && b.state >= SITE_FETCH;
    if (s->answered && b.state == SITE_KEEP && s->wanted && !s->offered)
        s->answered = false; /* it believes that it is done: the order again makes it offer */
}

static void on_result(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct result r;
    if (fst__read_result(&r, 0, f->body, f->body_len, NULL)) {
        c->refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, r.instance))
        return;
    s->state = SITE_OFFER;
    s->round = r.round;
    if (!is_open(c, r.stage, r.round)) {
        if (c->server && !c->busy) {
            c->count.discarded[FST_WHY_LATE]++;
            fst__note_receipt(c, k, r.stage, r.round, false, "its round is over");
        }
        return;
    }
    s->answered = true;
    if (!c->busy && fst_server_folded(c->server, k)) {
        fst__note_receipt(c, k, r.stage, r.round, true, "");
        return;
    }
    if (!s->wanted || s->offered)
        return;
    uint64_t most = r.blob.raw_bytes > r.blob.bytes ? r.blob.raw_bytes : r.blob.bytes;
    if (most > c->most) {
        s->cannot = true;
        snprintf(s->reason, sizeof s->reason, "it offers %llu bytes, %llu are expected at most",
                 (unsigned long long)most, (unsigned long long)c->most);
        return;
    }
    s->offered = true;
    s->result = r;
}

static void on_cannot(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct cannot m;
    if (fst__read_cannot(&m, f->body, f->body_len, NULL)) {
        c->refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, m.instance) || !is_open(c, m.stage, m.round))
        return;
    s->answered = true;
    if (s->wanted && !s->cannot) {
        s->cannot = true;
        memcpy(s->reason, m.reason, sizeof s->reason);
    }
    fst__note_receipt(c, k, m.stage, m.round, false, "noted");
}

static void on_figures(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct figures m;
    if (fst__read_figures(&m, f->body, f->body_len, NULL)) {
        c->refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, m.instance) || f->epoch != c->spec.epoch || !c->measuring || s->measured ||
        m.round != c->measure.round || strcmp(m.stage, c->measure.stage) ||
        strcmp(m.fingerprint, c->measure.fingerprint))
        return;
    /* two questions after one round differ in what was given alone */
    if (strcmp(m.given, c->gift_count ? fst__manifest_for(c, k, &c->gifts[s->given])->digest : ""))
        return;
    s->measured = true;
    s->figures = m;
}

static void on_bye(struct coordinator *c, uint32_t k, double now)
{
    struct known *s = &c->site[k];
    bool was = s->present;
    s->present = false;
    if (was && !c->stopping)
        fst__note(c, k, now, NOTE_LEFT, FST_LOG_INFO, "left");
}

static void on_ctl(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    if (f->run && f->run != c->spec.run)
        c->other_run = f->run;
    c->newer = c->newer || (f->run == c->spec.run && f->epoch > c->spec.epoch);
    if (f->kind == FST_KIND_HELLO) {
        on_hello(c, k, now, f);
        return;
    }
    if (f->run != c->spec.run) {
        c->refused[FST_REFUSED_RUN]++;
        return;
    }
    if (!s->known || (!s->present && f->kind != FST_KIND_BYE)) {
        say_welcome(c, k, now, true); /* of before we started, or we gave it up: let it introduce itself */
        return;
    }
    s->heard = now;
    s->gone_at = INFINITY;
    if (f->kind == FST_KIND_BEAT)
        on_beat(c, k, now, f);
    else if (f->kind == FST_KIND_RESULT)
        on_result(c, k, now, f);
    else if (f->kind == FST_KIND_CANNOT)
        on_cannot(c, k, now, f);
    else if (f->kind == FST_KIND_FIGURES)
        on_figures(c, k, now, f);
    else if (f->kind == FST_KIND_BYE)
        on_bye(c, k, now);
    else
        c->refused[FST_REFUSED_TOPIC]++;
}

static void on_part(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    s->heard = now;
    if (s->fetch && f->kind == FST_KIND_PART)
        (void)fst_blob_fetch_part(s->fetch, now, f->body, f->body_len);
}

static void on_get(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    fst_blob_get g;
    c->site[k].heard = now;
    if (f->kind == FST_KIND_GET && fst_blob_get_read(&g, f->body, f->body_len))
        (void)fst_blob_server_ask(c->blobs, k, &g);
    else
        c->refused[FST_REFUSED_BODY]++;
}

static bool find_site(const struct coordinator *c, const char *id, uint32_t *k)
{
    for (*k = 0; *k < c->spec.clients; ++*k)
        if (!strcmp(c->spec.ids[*k], id))
            return true;
    return false;
}

/* A site that floods is cut short; the others go on. */
static bool too_many(struct coordinator *c, uint32_t k, double now)
{
    struct known *s = &c->site[k];
    if (now - s->second >= 1) {
        s->second = now;
        s->in_second = 0;
    }
    if (++s->in_second <= RATE)
        return false;
    if (s->in_second == RATE + 1)
        fst__note(c, k, now, NOTE_FLOOD, FST_LOG_WARN, "sends more than %d messages a second: the rest is dropped",
                  (int)RATE);
    s->dropped++;
    return true;
}

void fst__coordinator_message(struct coordinator *c, double now, const char *topic, const void *data, size_t len)
{
    bool up;
    char site[FST_SITE_ID], why[FST__REASON];
    const char *leaf;
    uint32_t k;
    fst_frame f = {.version = 0};
    if (!fst_topic_split(topic, &up, site, &leaf) || !up || !find_site(c, site, &k)) {
        c->refused[FST_REFUSED_TOPIC]++;
        return;
    }
    if (!strcmp(leaf, "will")) { /* of the broker: no frame of the site's own */
        if (c->site[k].known && c->site[k].present && !isfinite(c->site[k].gone_at))
            c->site[k].gone_at = now;
        return;
    }
    fst_frame_refusal no = too_many(c, k, now) ? FST_REFUSED_RATE : fst_frame_decode(&f, data, len);
    if (!no && strcmp(f.sender, site))
        no = FST_REFUSED_TOPIC;
    c->refused[no]++;
    if (no == FST_REFUSED_VERSION) {
        snprintf(why, sizeof why, "it speaks version %u of the protocol, the cloud version %u", (unsigned)f.version,
                 (unsigned)FST_FRAME_VERSION);
        say_refusal(c, k, now, "", why);
    }
    if (no)
        return;
    if (!strcmp(leaf, "ctl"))
        on_ctl(c, k, now, &f);
    else if (f.run != c->spec.run)
        c->refused[FST_REFUSED_RUN]++;
    else if (!strcmp(leaf, "part"))
        on_part(c, k, now, &f);
    else if (!strcmp(leaf, "get"))
        on_get(c, k, now, &f);
}

void fst__coordinator_link(struct coordinator *c, double now, bool up)
{
    c->up = up;
    if (up)
        c->up_at = now;
    else
        c->short_links = now - c->up_at < at_once ? c->short_links + 1 : 0;
    if (up && !isfinite(c->judge_from))
        c->judge_from = now + unsure_for;
    for (uint32_t k = 0; up && k < c->spec.clients; k++) { /* silence while it was down was ours */
        c->site[k].say_at = now;
        if (c->site[k].present)
            c->site[k].heard = now;
        else
            say_welcome(c, k, now, true); /* whoever waits need not wait for his next beat */
    }
}

/* Two clouds have one name at the broker, and each throws the other out: links that end at once are the sign of it, and
 * sites, which both hear in turn, the witnesses. A site that lies cannot break links. */
fst_status fst__coordinator_alone(const struct coordinator *c, fst_error *err)
{
    bool leads = false;
    for (uint32_t k = 0; !leads && k < c->spec.clients; k++)
        leads = c->site[k].known;
    if (c->short_links < SHORT_LINKS)
        return FST_OK;
    if (c->newer)
        return fst_fail(err, FST_E_CONFIG,
                        "another process is the cloud of this run and began after this one: only one may run");
    if (!c->other_run || (leads && (c->short_links < MANY_SHORT_LINKS || c->spec.run < c->other_run)))
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "another process is the cloud of this fleet, with run %016llx: only one may run",
                    (unsigned long long)c->other_run);
}
