/* What others see of an edge that answers its devices: lines, and copies of how it is. See serve.h. */
#include "serve_private.h"

#include <stdio.h>
#include <string.h>

static const double look_every = 0.1;

void fst__serve_say(struct serve *s, fst_log_level level, const char *fmt, ...)
{
    char text[FST__REASON + 100];
    va_list arguments;
    va_start(arguments, fmt);
    vsnprintf(text, sizeof text, fmt, arguments);
    va_end(arguments);
    fst_log(level, "%s", text);
    if (s->spec.note)
        s->spec.note(s->spec.ctx, text);
}

void fst__serve_show(struct serve *s, double now)
{
    if (now < s->look_at)
        return;
    s->look_at = now + look_every;
    const fst_cascade_bundle *b = s->at_work ? &s->at_work->bundle : NULL;
    s->count.waiting = s->answers ? (uint32_t)fst__answerer_waiting(s->answers) : 0;
    s->count.away = s->cloud ? (uint32_t)fst__asker_left(s->cloud) : 0;
    pthread_mutex_lock(&s->lock);
    s->seen = (struct serve_view){
        .up = s->up, .devices = s->devices, .count = s->count, .traffic = *fst_transport_count(s->local)};
    if (b) {
        s->seen.loaded = true;
        s->seen.relay = b->relay;
        s->seen.temperature = b->tier.temperature;
        s->seen.threshold = b->tier.threshold;
        s->seen.confidence = fst_confidence_name(b->tier.kind);
        s->seen.batch = b->tier.batch;
    }
    for (uint32_t k = 0; k < s->devices; k++) {
        const struct device *d = &s->device[k];
        struct device_view *v = &s->seen_device[k];
        *v = (struct device_view){.known = d->known,
                                  .bye = d->bye,
                                  .done = d->done,
                                  .heard = d->heard,
                                  .windows = d->windows,
                                  .received = d->received,
                                  .answered = d->answered};
        memcpy(v->id, d->id, sizeof v->id);
    }
    pthread_mutex_unlock(&s->lock);
}

void fst__serve_look(struct serve *s, struct serve_view *out, struct device_view *each, uint32_t room)
{
    pthread_mutex_lock(&s->lock);
    *out = s->seen;
    for (uint32_t k = 0; k < s->devices && k < room; k++)
        each[k] = s->seen_device[k];
    pthread_mutex_unlock(&s->lock);
}
