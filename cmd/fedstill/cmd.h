/*
 * What the commands of the program share. A command is one `const struct command` in its own
 * cmd_NAME.c, declared below and listed in main.c's table; parsing, --help, `fedstill help` and the man
 * page all come from that one object, so there is nothing else to write down.
 *
 *     static const struct option_spec options[] = {
 *         {.name = "limit", .letter = 'n', .argument = "N", .type = OPTION_INT, .min = 1, .max = 1000000,
 *          .fallback = "20", .help = "Show the newest N runs."},
 *         {.name = "json", .type = OPTION_FLAG, .help = "Write JSON."},
 *         {0},
 *     };
 *     static const struct operand_spec operands[] = {{"RUN", 0, 1, "A run's number or name."}, {0}};
 *     static fst_status run(const struct options *o, fst_error *err) { ... option_int(o, "limit") ... }
 *     const struct command cmd_runs = {.name = "runs", .summary = "List runs", ...};
 *
 * Results go to stdout; progress, warnings and errors to stderr. A command returns its first error and
 * prints none itself: main writes `fedstill: MESSAGE` and makes the exit status of it.
 */
#ifndef FEDSTILL_CMD_H
#define FEDSTILL_CMD_H

#include <stdatomic.h>
#include <stdio.h>

#include "fedstill/base.h"

/* The program's name: fedstill-edge has some of the commands and no training (main.c, CMakeLists.txt). */
#ifdef FEDSTILL_EDGE_ONLY
#define PROGRAM "fedstill-edge"
#define PROGRAM_TITLE "FEDSTILL-EDGE"
#else
#define PROGRAM "fedstill"
#define PROGRAM_TITLE "FEDSTILL"
#endif

/* Exit status of the program. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* ---- options (opt.c) ---------------------------------------------------------------------- */

enum option_type {
    OPTION_FLAG,   /* takes no argument */
    OPTION_STRING, /* the last one given counts */
    OPTION_INT,    /* 64 bits, decimal, no trailing junk, min ... max */
    OPTION_DOUBLE, /* finite, low ... high */
    OPTION_LIST    /* strings; may be given several times */
};

struct option_spec {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* 0: none */
    const char *argument;
    enum option_type type;
    const char *help;           /* sentences; wrapped when printed */
    const char *fallback;       /* what counts when it is not given, as text; shown in the help. NULL: none */
    int64_t min, max;           /* OPTION_INT; both 0: any */
    double low, high;           /* OPTION_DOUBLE; both 0: any */
    const char *const *choices; /* OPTION_STRING: NULL-terminated list of accepted values; NULL: any */
};
/* Options that several commands have, with what they mean there. */
#define THREADS_OPTION(text)                                                                                       \
    {                                                                                                              \
        .name = "threads", .letter = 't', .argument = "N", .type = OPTION_INT, .min = 1, .max = 1024, .help = text \
    }
#define SEED_OPTION(text)                                                                               \
    {                                                                                                   \
        .name = "seed", .letter = 's', .argument = "S", .type = OPTION_INT, .min = 0, .max = INT64_MAX, \
        .fallback = "42", .help = text                                                                  \
    }

struct operand_spec {
    const char *name; /* "TASK"; NULL ends a table */
    int min, max;     /* how many; max -1: any number. Only the last may have min != max */
    const char *help;
};

struct options; /* what the command line said */

/* Asking for a name that the command's table does not hold, or for another type, is a mistake in the
 * program and stops it. */
bool option_flag(const struct options *o, const char *name);
bool option_given(const struct options *o, const char *name);         /* on the command line, not by fallback */
const char *option_string(const struct options *o, const char *name); /* fallback, or NULL */
int64_t option_int(const struct options *o, const char *name);        /* fallback, or 0 */
double option_double(const struct options *o, const char *name);      /* fallback, or 0 */
const char *const *option_list(const struct options *o, const char *name, size_t *count);
/* The operands in order, whichever operand_spec they belong to. NULL behind the last. */
const char *operand(const struct options *o, size_t i);
size_t operand_count(const struct options *o);

/* ---- commands ----------------------------------------------------------------------------- */

struct command {
    const char *name;                    /* "runs", or two words: "data synth" */
    const char *summary;                 /* a few words, no full stop */
    const char *description;             /* paragraphs separated by blank lines */
    const struct option_spec *options;   /* may be NULL; --help and --quiet are added to every command */
    const struct operand_spec *operands; /* may be NULL */
    const char *const *examples;         /* pairs: command line, what it does; NULL-terminated; may be NULL */
    /* FST_E_CONFIG makes exit status 2 (wrong usage or configuration), other errors 1. */
    fst_status (*run)(const struct options *o, fst_error *err);
};

extern const struct command cmd_bench;
extern const struct command cmd_init;
extern const struct command cmd_run;
extern const struct command cmd_sweep;
extern const struct command cmd_runs;
extern const struct command cmd_report;
extern const struct command cmd_compare;
extern const struct command cmd_export;
extern const struct command cmd_model_list;
extern const struct command cmd_model_info;
extern const struct command cmd_model_import;
extern const struct command cmd_model_export;
extern const struct command cmd_model_quantise;
extern const struct command cmd_model_prune;
extern const struct command cmd_eval;
extern const struct command cmd_predict;
extern const struct command cmd_data_info;
extern const struct command cmd_data_show;
extern const struct command cmd_data_split;
extern const struct command cmd_data_synth;
extern const struct command cmd_data_import;
extern const struct command cmd_cloud;
extern const struct command cmd_edge;
extern const struct command cmd_device;
extern const struct command cmd_fleet_up;
extern const struct command cmd_fleet_init;
extern const struct command cmd_fleet_request;
extern const struct command cmd_fleet_enroll;
extern const struct command cmd_fleet_install;
extern const struct command cmd_fleet_revoke;
extern const struct command cmd_fleet_renew;
extern const struct command cmd_fleet_status;

/* ---- progress and warnings (progress.c) --------------------------------------------------- */

/* One bar at a time, on stderr: redrawn in place on a terminal, a line every few seconds elsewhere,
 * nothing with --quiet. Cheap enough to call for every batch. total 0: unknown. unit: "samples". */
/* The first update, at once, tells what was done before: 0, or where a resumed stage goes on. */
void progress_begin(const char *label, uint64_t total, const char *unit);
void progress_update(uint64_t done, const char *note); /* note may be NULL */
void progress_end(const char *note);                   /* leaves one final line */
void progress_set_quiet(bool quiet);
/* A line of the caller's own in a bar's place: redrawn on a terminal, nothing elsewhere. NULL: it goes. */
void progress_show(const char *line);
/* A line that stays, on a terminal above the bar. Not with --quiet. Goes through fst_text_clean. */
void progress_say(const char *line);
/* A fst_log_fn: warnings and errors go to stderr (also with --quiet) without tearing the bar, FST_LOG_INFO
 * only without --quiet, FST_LOG_DEBUG never. main installs it. Safe from any thread. */
void progress_log(void *ctx, fst_log_level level, const char *message);
/* Writes text that may hold what foreign files say, through fst_text_clean: line ends and tabs stay. */
void put_plain(FILE *to, const char *text);

/* ---- signals (signals.c) ------------------------------------------------------------------ */

/* Called once by main, before other threads start, which inherit the mask of signals. */
FST_MUST fst_status signals_watch(fst_error *err);
/* From now on the first signal to end sets *stop, and only a second one ends the program. */
void signals_stop_by(atomic_int *stop);

/* ---- the terminal ------------------------------------------------------------------------- */

/* Whether stdout takes UTF-8 (by locale): if not, use the ASCII variants of tables and pictures. */
bool output_is_utf8(void);
/* Columns that lines on stdout may take: COLUMNS where it is a number, else the terminal's width, else 80. */
size_t output_width(void);

#endif
