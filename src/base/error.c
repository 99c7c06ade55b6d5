/* Status names, error messages and the log callback. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/base.h"

const char *fst_status_name(fst_status s)
{
    static const char *const names[] = {"ok",     "argument", "configuration", "memory",  "io",       "format",
                                        "limit",  "mismatch", "unsupported",   "numeric", "cancelled"};
    if ((size_t)s >= sizeof names / sizeof *names)
        return "unknown";
    return names[s];
}

fst_status fst_fail(fst_error *err, fst_status s, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->status = s;
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
    }
    return s;
}

fst_status fst_fail_in(fst_error *err, fst_status s, const char *fmt, ...)
{
    if (err) {
        char inner[sizeof err->message];
        va_list ap;
        memcpy(inner, err->message, sizeof inner);
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        size_t at = strlen(err->message);
        snprintf(err->message + at, sizeof err->message - at, ": %s", inner);
        err->status = s;
    }
    return s;
}

fst_status fst_fail_errno(fst_error *err, const char *fmt, ...)
{
    int saved = errno;
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->status = FST_E_IO;
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        size_t at = strlen(err->message);
        snprintf(err->message + at, sizeof err->message - at, ": %s", strerror(saved));
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
