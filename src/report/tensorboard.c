/*
 * TensorBoard's event files, by hand: three messages with a handful of fields need no library.
 *
 *   file    = TFRecord*        (tensorflow/core/lib/io/record_writer.h)
 *   record  = u64 length, u32 masked crc of the length, bytes, u32 masked crc of the bytes; little-endian
 *   Event   { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
 *   Summary { repeated Value value = 1; }  Value { string tag = 1; float simple_value = 2; }
 *
 * An event of the run becomes an Event with a Value for each of its numbers.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "export.h"

struct writer {
    fst_buf *out;
    size_t scalars;
    double first; /* time of the first event; NaN before it */
    int64_t run;
    fst_status status;
    fst_error *err;
};

/* ---- records ------------------------------------------------------------------------------------------ */

/* CRC-32C (Castagnoli), as TensorFlow masks it so that the crc of data that hold crcs is none of theirs. */
static uint32_t masked_crc(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = ~(uint32_t)0;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static fst_status put_little(fst_buf *out, uint64_t v, size_t bytes, fst_error *err)
{
    unsigned char b[8];
    for (size_t i = 0; i < bytes; i++)
        b[i] = (unsigned char)(v >> 8 * i);
    return fst_buf_append(out, b, bytes, err);
}

static fst_status put_record(fst_buf *out, const fst_buf *event, fst_error *err)
{
    size_t at = out->len;
    fst_status st = put_little(out, event->len, 8, err);
    if (!st)
        st = put_little(out, masked_crc(out->data + at, 8), 4, err);
    if (!st)
        st = fst_buf_append(out, event->data, event->len, err);
    return st ? st : put_little(out, masked_crc(event->data, event->len), 4, err);
}

/* ---- protocol buffers ------------------------------------------------------------------------------------ */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static fst_status put_varint(fst_buf *out, uint64_t v, fst_error *err)
{
    unsigned char b[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        b[n++] = (unsigned char)(v | 0x80);
    b[n++] = (unsigned char)v;
    return fst_buf_append(out, b, n, err);
}

static fst_status put_key(fst_buf *out, unsigned field, unsigned kind, fst_error *err)
{
    return put_varint(out, field << 3 | kind, err);
}

static fst_status put_bytes(fst_buf *out, unsigned field, const void *data, size_t n, fst_error *err)
{
    fst_status st = put_key(out, field, BYTES, err);
    if (!st)
        st = put_varint(out, n, err);
    return st || !n ? st : fst_buf_append(out, data, n, err);
}

static fst_status put_time(fst_buf *out, double wall, fst_error *err)
{
    uint64_t bits;
    memcpy(&bits, &wall, sizeof bits);
    fst_status st = put_key(out, 1, FIXED64, err);
    return st ? st : put_little(out, bits, 8, err);
}

static fst_status put_value(fst_buf *summary, const char *tag, double v, fst_error *err)
{
    fst_buf value = {0};
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    fst_status st = put_bytes(&value, 1, tag, strlen(tag), err);
    if (!st)
        st = put_key(&value, 2, FIXED32, err);
    if (!st)
        st = put_little(&value, bits, 4, err);
    if (!st)
        st = put_bytes(summary, 1, value.data, value.len, err);
    fst_buf_release(&value);
    return st;
}

/* ---- events ------------------------------------------------------------------------------------------------ */

/* "2025-01-31T12:00:00.123Z" as unix time; NaN for anything else. */
static double unix_time(const char *text)
{
    int y, mo, d, h, mi;
    double s;
    char zone;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%lf%c", &y, &mo, &d, &h, &mi, &s, &zone) != 7 || zone != 'Z' || y < 1970 ||
        mo < 1 || mo > 12 || d < 1 || d > 31 || !(s >= 0 && s < 61))
        return NAN;
    /* days since 1970, years beginning in March */
    int year = y - (mo <= 2), month = (mo + 9) % 12;
    int64_t days = 365LL * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + d - 1 - 719468;
    return (double)((days * 24 + h) * 60 + mi) * 60 + s;
}

/* Kinds that have curves: what stands between stage and key in a tag, and the field that numbers whom it is about. */
static const struct kind {
    const char *event, *word, *who, *or_who;
} kinds[] = {{"epoch", NULL, NULL, NULL},
             {"round", NULL, NULL, NULL},
             {"fusion", "fusion", NULL, NULL},
             {"peer", "peer", "peer", NULL},
             {"client", "client", "client", "edge"},
             {"resources", NULL, NULL, NULL}};

static const struct kind *kind_of(const char *event)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].event, event))
            return &kinds[i];
    return NULL;
}

/* Fields that number the event are none of its values. */
static bool is_number_of(const struct kind *k, const char *key)
{
    return !strcmp(key, "round") || !strcmp(key, "epoch") || (k->who && !strcmp(key, k->who)) ||
           (k->or_who && !strcmp(key, k->or_who));
}

/* "federated_train/client 3/train_loss". The stage and the key are text from a file, and may be any. */
static fst_status tag_of(const fst_event *e, const struct kind *k, const char *key, fst_buf *out, fst_error *err)
{
    double who = k->who ? fst_event_number(e, k->who) : NAN;
    if (k->or_who && !isfinite(who))
        who = fst_event_number(e, k->or_who);
    fst_status st = fst_buf_printf(out, err, "%s/", strcmp(k->event, "resources") ? e->stage : "resources");
    if (!st && k->word)
        st = isfinite(who) ? fst_buf_printf(out, err, "%s %.0f/", k->word, who)
                           : fst_buf_printf(out, err, "%s/", k->word);
    return st ? st : fst_buf_printf(out, err, "%s", key);
}

static fst_status put_values(struct writer *w, const fst_event *e, const struct kind *k, fst_buf *summary)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < e->nfields; i++) {
        const fst_field *f = &e->fields[i];
        double v = f->type == FST_FIELD_INT      ? (double)f->value.integer
                   : f->type == FST_FIELD_DOUBLE ? f->value.number
                                                 : NAN;
        fst_buf tag = {0};
        if (!isfinite(v) || fabs(v) > 3e38 || is_number_of(k, f->key))
            continue;
        st = tag_of(e, k, f->key, &tag, w->err);
        if (!st)
            st = put_value(summary, tag.data, v, w->err);
        w->scalars += !st;
        fst_buf_release(&tag);
    }
    return st;
}

static bool take(void *ctx, const fst_event *e)
{
    struct writer *w = ctx;
    const struct kind *k = kind_of(e->event);
    double wall = unix_time(e->time), step = fst__event_step(e);
    if (!isfinite(w->first))
        w->first = wall;
    w->run = e->run;
    if (k && !strcmp(k->event, "resources"))
        step = floor(fst_event_number(e, "seconds"));
    if (!k || !(step >= 0 && step <= 1e15))
        return true;
    fst_buf summary = {0}, event = {0};
    fst_status st = put_values(w, e, k, &summary);
    if (!st && summary.len) {
        st = put_time(&event, isfinite(wall) ? wall : 0, w->err);
        if (!st)
            st = put_key(&event, 2, VARINT, w->err);
        if (!st)
            st = put_varint(&event, (uint64_t)step, w->err);
        if (!st)
            st = put_bytes(&event, 5, summary.data, summary.len, w->err);
        if (!st)
            st = put_record(w->out, &event, w->err);
    }
    w->status = st;
    fst_buf_release(&summary);
    fst_buf_release(&event);
    return !st;
}

/* The first record of a file. */
static fst_status put_version(fst_buf *out, double wall, fst_error *err)
{
    static const char version[] = "brain.Event:2";
    fst_buf event = {0};
    fst_status st = put_time(&event, isfinite(wall) ? wall : 0, err);
    if (!st)
        st = put_bytes(&event, 3, version, sizeof version - 1, err);
    if (!st)
        st = put_record(out, &event, err);
    fst_buf_release(&event);
    return st;
}

fst_status fst__export_tensorboard(const struct fst__export *x, fst_buf *out, char name[FST_EXPORT_NAME],
                                   size_t *scalars, fst_error *err)
{
    fst_buf records = {0};
    struct writer w = {.out = &records, .first = NAN, .err = err};
    fst_status st = fst__log_each(&x->log, &x->events, take, &w, err);
    st = st ? st : w.status;
    if (!st)
        st = put_version(out, w.first, err);
    if (!st && records.len)
        st = fst_buf_append(out, records.data, records.len, err);
    snprintf(name, FST_EXPORT_NAME, "events.out.tfevents.%.0f.fedstill.%lld", isfinite(w.first) ? floor(w.first) : 0.0,
             (long long)w.run);
    *scalars = w.scalars;
    fst_buf_release(&records);
    return st;
}
