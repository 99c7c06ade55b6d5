/* Progress and warnings on stderr. One bar at a time; it decides nothing and its speed is bounded, so it
 * can be called for every batch. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd.h"
#include "fedstill/report.h"

#define REDRAW_SECONDS 0.1 /* on a terminal */
#define LINE_SECONDS 5.0   /* elsewhere */
#define BASE_SECONDS 0.05  /* a first update this early tells what was done before (a resumed stage) */
enum { BAR = 10, LINE = 512 };

static struct {
    pthread_mutex_t lock; /* guards all of it: warnings come from any thread */
    bool quiet, active, terminal, updated, drawn;
    char label[96], unit[32], note[160], own[LINE]; /* own: of progress_show */
    uint64_t total, done, base;
    double started, shown;
} p = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static size_t terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20 ? size.ws_col : 80;
}

/* Takes whole characters off the end until the line fits. */
static void fit(char *line, size_t width)
{
    size_t n = strlen(line);
    while (n && fst_text_width(line) > width) {
        do
            n--;
        while (n && ((unsigned char)line[n] & 0xC0) == 0x80);
        line[n] = 0;
    }
}

static void add(char *line, const char *text)
{
    size_t n = strlen(line);
    snprintf(line + n, LINE - n, "%s", text);
}

static double rate(double now)
{
    return now > p.started ? (double)(p.done - p.base) / (now - p.started) : 0;
}

static void add_bar(char *line)
{
    char text[64];
    double share = p.done >= p.total ? 1 : (double)p.done / (double)p.total;
    bool utf8 = output_is_utf8();
    add(line, utf8 ? " " : " [");
    for (int i = 0; i < BAR; i++)
        add(line, i < (int)(share * BAR) ? (utf8 ? "█" : "#") : utf8 ? "░" : ".");
    snprintf(text, sizeof text, "%s %3d %%", utf8 ? "" : "]", (int)(share * 100));
    add(line, text);
}

static void add_counts(char *line)
{
    char text[160], a[FST_HUMAN], b[FST_HUMAN];
    if (p.total)
        snprintf(text, sizeof text, "  %s/%s %s", fst_human_count((double)p.done, a),
                 fst_human_count((double)p.total, b), p.unit);
    else
        snprintf(text, sizeof text, "  %s %s", fst_human_count((double)p.done, a), p.unit);
    add(line, text);
}

static void add_rate(char *line, double now)
{
    char text[160], a[FST_HUMAN];
    double r = rate(now);
    if (r > 0) {
        snprintf(text, sizeof text, "  %s %s/s", fst_human_count(r, a), p.unit);
        add(line, text);
    }
}

static void add_left(char *line, double now)
{
    char text[160], a[FST_HUMAN];
    double r = rate(now);
    if (r > 0 && p.total > p.done) {
        snprintf(text, sizeof text, "  %s left", fst_human_seconds((double)(p.total - p.done) / r, a));
        add(line, text);
    }
}

static void add_note(char *line)
{
    if (p.note[0]) {
        add(line, "  ");
        add(line, p.note);
    }
}

/* In the order of what people look for: a narrow terminal cuts off the end. */
static void compose(char *line, bool bar, double now)
{
    line[0] = 0;
    add(line, p.label);
    if (bar && p.total)
        add_bar(line);
    add_left(line, now);
    add_note(line);
    add_counts(line);
    add_rate(line, now);
}

static void show(double now)
{
    char line[LINE];
    compose(line, p.terminal, now);
    if (p.terminal) {
        fit(line, terminal_width() - 1);
        fprintf(stderr, "\r%s\033[K", line);
        p.drawn = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
    p.shown = now;
}

static void erase(void)
{
    if (p.drawn)
        fputs("\r\033[K", stderr);
    p.drawn = false;
}

static void show_own(void)
{
    char line[LINE];
    snprintf(line, sizeof line, "%s", p.own);
    fit(line, terminal_width() - 1);
    fprintf(stderr, "\r%s\033[K", line);
    p.drawn = true;
}

static void set_note(const char *note)
{
    snprintf(p.note, sizeof p.note, "%s", note ? note : "");
}

void progress_set_quiet(bool quiet)
{
    pthread_mutex_lock(&p.lock);
    p.quiet = quiet;
    pthread_mutex_unlock(&p.lock);
}

void progress_begin(const char *label, uint64_t total, const char *unit)
{
    pthread_mutex_lock(&p.lock);
    erase();
    snprintf(p.label, sizeof p.label, "%s", label);
    snprintf(p.unit, sizeof p.unit, "%s", unit ? unit : "");
    set_note(NULL);
    p.active = !p.quiet;
    p.terminal = is_terminal();
    p.updated = false;
    p.total = total;
    p.done = p.base = 0;
    p.started = p.shown = fst_clock_seconds();
    if (p.active && p.terminal)
        show(p.started);
    pthread_mutex_unlock(&p.lock);
}

void progress_update(uint64_t done, const char *note)
{
    double now = fst_clock_seconds();
    pthread_mutex_lock(&p.lock);
    if (p.active) {
        if (!p.updated && now - p.started < BASE_SECONDS)
            p.base = done;
        p.updated = true;
        p.done = done > p.base ? done : p.base;
        if (now - p.shown >= (p.terminal ? REDRAW_SECONDS : LINE_SECONDS)) {
            set_note(note);
            show(now);
        }
    }
    pthread_mutex_unlock(&p.lock);
}

void progress_end(const char *note)
{
    double now = fst_clock_seconds();
    char line[LINE], text[128], a[FST_HUMAN];
    pthread_mutex_lock(&p.lock);
    if (p.active) {
        erase();
        p.total = 0; /* counts alone */
        set_note(NULL);
        line[0] = 0;
        add(line, p.label);
        add_counts(line);
        if (p.base) { /* the time is not of these */
            snprintf(text, sizeof text, " (%s before)", fst_human_count((double)p.base, a));
            add(line, text);
        }
        snprintf(text, sizeof text, " in %s", fst_human_seconds(now - p.started, a));
        add(line, text);
        set_note(note);
        add_note(line);
        add_rate(line, now);
        fprintf(stderr, "%s\n", line);
        fflush(stderr);
    }
    p.active = false;
    pthread_mutex_unlock(&p.lock);
}

void progress_show(const char *text)
{
    pthread_mutex_lock(&p.lock);
    snprintf(p.own, sizeof p.own, "%s", text ? text : "");
    fst_text_clean(p.own, false);
    p.terminal = is_terminal();
    erase();
    if (text && !p.quiet && p.terminal)
        show_own();
    fflush(stderr);
    pthread_mutex_unlock(&p.lock);
}

void progress_say(const char *line)
{
    pthread_mutex_lock(&p.lock);
    if (!p.quiet) {
        bool redraw = p.drawn && p.own[0];
        erase();
        put_plain(stderr, line);
        fputc('\n', stderr);
        if (redraw)
            show_own();
        fflush(stderr);
    }
    pthread_mutex_unlock(&p.lock);
}

void put_plain(FILE *to, const char *text)
{
    while (*text) { /* character by character, so that it needs no memory */
        char one[5] = {text[0]};
        size_t n = 1;
        while (n < 4 && ((unsigned char)text[n] & 0xC0) == 0x80) {
            one[n] = text[n];
            n++;
        }
        fst_text_clean(one, true);
        fputs(one, to);
        text += n;
    }
}

void progress_log(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    if (level == FST_LOG_DEBUG)
        return;
    pthread_mutex_lock(&p.lock);
    if (level != FST_LOG_INFO || !p.quiet) {
        bool redraw = p.drawn;
        erase();
        fputs(level == FST_LOG_WARN    ? "fedstill: warning: "
              : level == FST_LOG_ERROR ? "fedstill: error: "
                                       : "fedstill: ",
              stderr);
        put_plain(stderr, message);
        fputc('\n', stderr);
        if (redraw && p.active)
            show(fst_clock_seconds());
        else if (redraw && p.own[0])
            show_own();
    }
    pthread_mutex_unlock(&p.lock);
}
