/* Status names, error messages and the log callback. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/base.h"

const char *fst_status_name(fst_status s)
{
    static const char *const names[] = {"ok",        "argument", "configuration", "memory",      "io",
                                        "format",    "limit",    "mismatch",      "unsupported", "numeric",
                                        "cancelled", "busy",     "absent"};
    if ((size_t)s >= sizeof names / sizeof *names)
        return "unknown";
    return names[s];
}

/* ---- messages that fit ------------------------------------------------------------------------ */

enum {
    ROOM = sizeof((fst_error *)0)->message,
    LONG = 4 * ROOM + 2 * 4096, /* while a message is put together: two paths of any length, and words */
    SHORT_WORD = 100            /* bytes that a word keeps at least */
};
static const char gap[] = "...";

/* Takes out text[from] ... text[to - 1], and what they leave of a UTF-8 character; a gap marks the place. */
static void cut(char *text, size_t from, size_t to)
{
    while (from > 0 && ((unsigned char)text[from] & 0xC0) == 0x80)
        from--;
    while (((unsigned char)text[to] & 0xC0) == 0x80)
        to++;
    memcpy(text + from, gap, sizeof gap - 1);
    memmove(text + from + sizeof gap - 1, text + to, strlen(text + to) + 1);
}

/* Shortens in the middle, where a word or the whole text is longest, until `text` fits. What stands at the end is
 * the reason, and stays. */
static void shorten(char *text)
{
    for (size_t len; (len = strlen(text)) >= ROOM;) {
        size_t at = 0, most = 0, over = len - ROOM + 1 + sizeof gap - 1;
        for (size_t i = 0, n; text[i]; i += n + (text[i + n] == ' ')) {
            n = strcspn(text + i, " ");
            if (n > most) {
                at = i;
                most = n;
            }
        }
        if (most < SHORT_WORD + 2 * sizeof gap) { /* many words, none of them long */
            at = 0;
            most = len;
        } else if (over > most - SHORT_WORD) {
            over = most - SHORT_WORD;
        }
        size_t from = at + (most - over) / 2;
        cut(text, from, from + over);
    }
}

/* Appends to a text of LONG bytes; what does not fit there is cut. */
static void __attribute__((format(printf, 2, 0))) put(char *text, const char *fmt, va_list ap)
{
    size_t at = strlen(text);
    vsnprintf(text + at, LONG - at, fmt, ap);
}

static void add(char *text, const char *more)
{
    size_t at = strlen(text);
    snprintf(text + at, LONG - at, "%s", more);
}

static void finish(fst_error *err, fst_status s, char *text)
{
    shorten(text);
    memcpy(err->message, text, strlen(text) + 1);
    err->status = s;
}

fst_status fst_fail(fst_error *err, fst_status s, const char *fmt, ...)
{
    if (err) {
        char text[LONG] = "";
        va_list ap;
        va_start(ap, fmt);
        put(text, fmt, ap);
        va_end(ap);
        finish(err, s, text);
    }
    return s;
}

fst_status fst_fail_in(fst_error *err, fst_status s, const char *fmt, ...)
{
    if (err) {
        char text[LONG] = "";
        va_list ap;
        va_start(ap, fmt);
        put(text, fmt, ap);
        va_end(ap);
        add(text, ": ");
        add(text, err->message);
        finish(err, s, text);
    }
    return s;
}

fst_status fst_fail_errno(fst_error *err, const char *fmt, ...)
{
    int saved = errno;
    if (err) {
        char text[LONG] = "";
        va_list ap;
        va_start(ap, fmt);
        put(text, fmt, ap);
        va_end(ap);
        add(text, ": ");
        add(text, strerror(saved));
        finish(err, FST_E_IO, text);
    }
    return FST_E_IO;
}

fst_status fst_fail_memory(fst_error *err, size_t bytes)
{
    return fst_fail(err, FST_E_MEMORY, "out of memory (%zu bytes wanted)", bytes);
}

static fst_log_fn log_fn;
static void *log_ctx;

void fst_log_set(fst_log_fn fn, void *ctx)
{
    log_fn = fn;
    log_ctx = ctx;
}

void fst_log(fst_log_level level, const char *fmt, ...)
{
    char text[1200];
    va_list ap;
    if (!log_fn)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_fn(log_ctx, level, text);
}
