/*
 * Events as JSON lines. Writing is append-only, one write() a line, so that lines of several processes do
 * not mix and a crash can cut off only the last one. It keeps no history and never repairs old lines: the
 * reader skips what is no event.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fedstill/store.h"

struct fst_events {
    pthread_mutex_t lock; /* guards everything below */
    char *path;
    int fd;
    int64_t run;
    char stage[64];
    fst_buf line; /* kept, so that the steady state does not allocate */
    bool cut;     /* the file does not end with a line break */
};

/* ---- writing ------------------------------------------------------------------------------ */

static bool ends_cut(int fd)
{
    struct stat st;
    char last;
    return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 && pread(fd, &last, 1, st.st_size - 1) == 1 &&
           last != '\n';
}

fst_status fst_events_open(fst_events **out, const char *path, int64_t run, fst_error *err)
{
    fst_events *e = fst_calloc(1, sizeof *e);
    if (!e)
        return fst_fail_memory(err, sizeof *e);
    e->run = run;
    e->path = fst_strdup(path);
    if (!e->path) {
        fst_free(e);
        return fst_fail_memory(err, strlen(path));
    }
    e->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (e->fd < 0) {
        fst_status s = fst_fail_errno(err, "cannot write events to %s", path);
        fst_free(e->path);
        fst_free(e);
        return s;
    }
    pthread_mutex_init(&e->lock, NULL);
    e->cut = ends_cut(e->fd);
    *out = e;
    return FST_OK;
}

void fst_events_free(fst_events *e)
{
    if (!e)
        return;
    close(e->fd);
    pthread_mutex_destroy(&e->lock);
    fst_buf_release(&e->line);
    fst_free(e->path);
    fst_free(e);
}

void fst_events_stage(fst_events *e, const char *stage)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    snprintf(e->stage, sizeof e->stage, "%s", stage ? stage : "");
    pthread_mutex_unlock(&e->lock);
}

/* Length of the UTF-8 character at p as RFC 3629 has it; 0 when there is none. */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3 : 0;
    if (p[0] >= 0xF0 && p[0] < 0xF5)
        n = 4;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return 0; /* too long a form, a surrogate, beyond U+10FFFF */
    return n;
}

static fst_status put_string(fst_buf *b, const char *text, fst_error *err)
{
    const unsigned char *p = (const unsigned char *)text;
    fst_status s = fst_buf_append(b, "\"", 1, err);
    while (!s && *p) {
        size_t n = utf8_length(p);
        if (!n)
            s = fst_buf_append(b, "\xEF\xBF\xBD", 3, err);
        else if (*p == '"' || *p == '\\')
            s = fst_buf_printf(b, err, "\\%c", *p);
        else if (*p < 0x20)
            s = fst_buf_printf(b, err, "\\u%04x", *p);
        else
            s = fst_buf_append(b, p, n, err);
        p += n ? n : 1;
    }
    return s ? s : fst_buf_append(b, "\"", 1, err);
}

/* The shortest text that reads back as the same double, with a point, whatever the locale. */
static fst_status put_double(fst_buf *b, double x, fst_error *err)
{
    char text[40];
    if (!isfinite(x))
        return fst_buf_append(b, "null", 4, err);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text - 2, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    bool whole = true;
    for (char *p = text; *p; p++) {
        if (!strchr("+-0123456789e", *p))
            *p = '.';
        if (*p == '.' || *p == 'e')
            whole = false;
    }
    return fst_buf_printf(b, err, "%s%s", text, whole ? ".0" : "");
}

static fst_status put_value(fst_buf *b, const fst_field *f, fst_error *err)
{
    switch (f->type) {
    case FST_FIELD_STRING:
        return f->value.string ? put_string(b, f->value.string, err) : fst_buf_append(b, "null", 4, err);
    case FST_FIELD_INT:
        return fst_buf_printf(b, err, "%lld", (long long)f->value.integer);
    case FST_FIELD_DOUBLE:
        return put_double(b, f->value.number, err);
    case FST_FIELD_BOOL:
        return fst_buf_printf(b, err, "%s", f->value.boolean ? "true" : "false");
    }
    return fst_fail(err, FST_E_ARGUMENT, "event field \"%s\" is of no known type", f->key);
}

static bool is_fixed_key(const char *key)
{
    return !strcmp(key, "time") || !strcmp(key, "run") || !strcmp(key, "stage") || !strcmp(key, "event");
}

static fst_status put_head(fst_events *e, const char *event, fst_error *err)
{
    int64_t now = fst_clock_unix_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm tm;
    char time[32];
    gmtime_r(&seconds, &tm);
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &tm);
    fst_status s =
        fst_buf_printf(&e->line, err, "%s{\"time\": \"%s.%03dZ\", \"run\": %lld, \"stage\": ", e->cut ? "\n" : "", time,
                       (int)(now % 1000), (long long)e->run);
    if (!s)
        s = put_string(&e->line, e->stage, err);
    if (!s)
        s = fst_buf_append(&e->line, ", \"event\": ", 11, err);
    return s ? s : put_string(&e->line, event, err);
}

static fst_status put_line(fst_events *e, const char *event, const fst_field *fields, size_t n, fst_error *err)
{
    fst_status s = put_head(e, event, err);
    for (size_t i = 0; !s && i < n; i++) {
        if (is_fixed_key(fields[i].key))
            return fst_fail(err, FST_E_ARGUMENT, "event \"%s\": \"%s\" is a key of every event, a field needs another",
                            event, fields[i].key);
        s = fst_buf_append(&e->line, ", ", 2, err);
        if (!s)
            s = put_string(&e->line, fields[i].key, err);
        if (!s)
            s = fst_buf_append(&e->line, ": ", 2, err);
        if (!s)
            s = put_value(&e->line, &fields[i], err);
    }
    return s ? s : fst_buf_append(&e->line, "}\n", 2, err);
}

static fst_status append_line(fst_events *e, fst_error *err)
{
    ssize_t w;
    do
        w = write(e->fd, e->line.data, e->line.len);
    while (w < 0 && errno == EINTR);
    if (w < 0)
        return fst_fail_errno(err, "cannot write events to %s", e->path);
    e->cut = (size_t)w < e->line.len;
    if (e->cut)
        return fst_fail(err, FST_E_IO, "cannot write events to %s: only %zd of %zu bytes taken (disk full?)", e->path,
                        w, e->line.len);
    return FST_OK;
}

fst_status fst_events_emit(fst_events *e, const char *event, const fst_field *fields, size_t nfields, fst_error *err)
{
    if (!e)
        return FST_OK;
    pthread_mutex_lock(&e->lock);
    e->line.len = 0;
    fst_status s = put_line(e, event, fields, nfields, err);
    if (!s)
        s = append_line(e, err);
    pthread_mutex_unlock(&e->lock);
    return s;
}

/* ---- reading ------------------------------------------------------------------------------ */

static bool convert(fst_field *f, const char *key, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        *f = FST_STRING(key, json_string_value(value));
        return true;
    case JSON_INTEGER:
        *f = FST_INT(key, json_integer_value(value));
        return true;
    case JSON_REAL:
        *f = FST_DOUBLE(key, json_real_value(value));
        return true;
    case JSON_NULL:
        *f = FST_DOUBLE(key, NAN);
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *f = FST_BOOLEAN(key, json_is_true(value));
        return true;
    default:
        return false;
    }
}

/* *ok tells an event from another line. fields is freed by the caller. */
static fst_status to_event(json_t *line, fst_event *e, fst_field **fields, bool *ok, fst_error *err)
{
    const char *key;
    json_t *value;
    int64_t run = 0;
    *ok = false;
    if (!json_is_object(line) || !json_is_string(json_object_get(line, "time")) ||
        !json_is_string(json_object_get(line, "event")) || !fst_json_is_whole(json_object_get(line, "run"), &run))
        return FST_OK;
    const char *stage = json_string_value(json_object_get(line, "stage"));
    size_t n = json_object_size(line), used = 0;
    *fields = fst_calloc(n, sizeof **fields);
    if (!*fields)
        return fst_fail_memory(err, n * sizeof **fields);
    json_object_foreach(line, key, value)
    {
        if (!is_fixed_key(key) && convert(&(*fields)[used], key, value))
            used++;
    }
    *e = (fst_event){json_string_value(json_object_get(line, "time")),
                     stage ? stage : "",
                     json_string_value(json_object_get(line, "event")),
                     run,
                     *fields,
                     used};
    *ok = true;
    return FST_OK;
}

static fst_status parse_line(const char *text, size_t len, fst_event_fn fn, void *ctx, bool *ok, bool *more,
                             fst_error *err)
{
    fst_event e;
    fst_field *fields = NULL;
    *ok = false;
    if (len > FST_EVENTS_MAX_LINE)
        return FST_OK;
    json_t *line = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    fst_status s = line ? to_event(line, &e, &fields, ok, err) : FST_OK;
    if (!s && *ok)
        *more = fn(ctx, &e);
    fst_free(fields);
    json_decref(line);
    return s;
}

fst_status fst_events_parse(const void *data, size_t len, fst_event_fn fn, void *ctx, size_t *skipped, fst_error *err)
{
    const char *p = data, *end = p + len;
    size_t bad = 0;
    bool more = true;
    while (more && p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        bool ok = true;
        if (!stop)
            stop = end;
        fst_status s = stop == p ? FST_OK : parse_line(p, (size_t)(stop - p), fn, ctx, &ok, &more, err);
        if (s)
            return s;
        bad += !ok;
        p = stop < end ? stop + 1 : end;
    }
    if (skipped)
        *skipped = bad;
    return FST_OK;
}

fst_status fst_events_read(const char *path, fst_event_fn fn, void *ctx, size_t *skipped, fst_error *err)
{
    fst_buf b = {0};
    fst_status s = fst_file_read(path, FST_EVENTS_MAX_BYTES, &b, err);
    if (!s)
        s = fst_events_parse(b.data, b.len, fn, ctx, skipped, err);
    fst_buf_release(&b);
    return s;
}

const fst_field *fst_event_field(const fst_event *e, const char *key)
{
    for (size_t i = 0; i < e->nfields; i++)
        if (!strcmp(e->fields[i].key, key))
            return &e->fields[i];
    return NULL;
}

double fst_event_number(const fst_event *e, const char *key)
{
    const fst_field *f = fst_event_field(e, key);
    if (f && f->type == FST_FIELD_DOUBLE)
        return f->value.number;
    return f && f->type == FST_FIELD_INT ? (double)f->value.integer : NAN;
}
