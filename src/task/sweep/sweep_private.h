/*
 * sweep_private.h - between the files of a sweep (fedstill/sweep.h).
 *
 * Data flow: ask.c cuts the grid and the seeds into settings and runs; plan.c opens each run's data as a dry run does
 * and gives every stage of it an item, which runs whose stage has the same fingerprint share; work.c starts processes
 * (child.c) so that an item is made by one run at a time; halving.c says at each end of a run which go on
 * (halving_rule.c); figures.c reads what runs left; journal.c keeps FOLDER/sweep.json.
 */
#ifndef FST_TASK_SWEEP_PRIVATE_H
#define FST_TASK_SWEEP_PRIVATE_H

#include <sys/types.h>
#include <time.h>

#include "fedstill/sweep.h"
#include "session.h"

#define FST__NOBODY SIZE_MAX
enum { FST__SWEEP_NAME = 200, FST__NOW = 200 };

struct grid_key {
    char *key;    /* "stages.edge_kd.epochs" */
    char *shown;  /* "epochs": as short as it can be told from the others */
    char **value; /* as written, without blanks around; of points: of each of them, NULL where it has none */
    size_t count;
    bool of_points; /* given by points, not by a grid */
};

/* A stage's result: what its fingerprint, of now or of what it would be, leads to. */
struct item {
    char fingerprint[FST_DIGEST_HEX];
    char stage[FST__SWEEP_NAME];
    int64_t total;      /* epochs or rounds; 0: it counts none */
    bool there;         /* finished somewhere where it is found */
    char *from;         /* as fst__keep_find says it; NULL: it is to be made */
    size_t first;       /* the run that has it first */
    size_t owner;       /* the run that makes it now; FST__NOBODY */
    double seconds;     /* that it took; NaN: not known */
    bool wanted;        /* for who asks how long it still takes, */
    double whole;       /* and how much of it, 0 ... 1 */
    double began, part; /* of one that is being made: when it began (0: it has not), and how much is done, 0 ... 1 */
};

struct need { /* one stage of a run */
    size_t item;
    bool here; /* finished in the run's own output */
    ino_t ino; /* of its record when the process began */
    struct timespec time;
};

struct run {
    size_t setting;
    int64_t seed;
    char *name, *folder, *log;
    const char **sets; /* those of the sweep, of the setting, of the seed */
    size_t nsets;
    char *seed_set;
    char settings[FST_DIGEST_HEX]; /* digest of what its results depend on */
    struct need *need;
    size_t needs;
    fst_sweep_state state;
    int64_t until;     /* epochs or rounds of stage `by` that it is brought to, then it is paused; 0: to its end */
    bool journal_done; /* sweep.json said that it was done, when the sweep was opened */
    char *why;
    double validation, test, seconds;
    int64_t stopped_at, rank, of; /* of one that a halving stopped: after how many epochs or rounds, and why */
    double stopped_value;
    /* its process */
    pid_t pid;
    double began, looked, locked; /* when it was started, last looked at, first found locked by somebody (0: never) */
    int kills;
    bool ahead;         /* it only makes what all others wait for, with everybody's threads */
    char now[FST__NOW]; /* what it is at */
};

struct fst_sweep {
    const fst_sweep_spec *spec;
    char *folder, *runs_folder, *logs_folder, *journal;
    char *task_name;
    fst_buf settings; /* of the task without the grid, "key=value" lines */
    struct grid_key *key;
    size_t keys;
    int64_t *seed;
    size_t seeds;
    char **setting; /* texts */
    size_t settings_count;
    struct run *run;
    size_t runs;
    struct item *item;
    size_t items, item_room;
    char by[FST__SWEEP_NAME];
    const char *unit; /* "epoch" or "round", of stage `by` */
    int64_t total;    /* of them; 0: settings differ in that */
    bool keeps_best;
    bool planned;
    int lock;
    bool journal_failed;
    char how[FST__STATE + 64];
    double wait_cost; /* seconds that runs took besides their stages, */
    size_t waited;    /* and of how many */
};

/* ---- ask.c ---- */
/* Fills keys, seeds, settings and runs with their names; the task's own seed is `seed`. */
fst_status fst__sweep_ask(fst_sweep *s, int64_t seed, fst_error *err);
/* A value, key or name as a part of a file's name; *changed when it is not the text itself. */
void fst__sweep_safe(const char *text, char *out, size_t size, bool *changed);

/* ---- journal.c ---- */
/* Reads FOLDER/sweep.json, if it is there: which runs are done, and whether it is of the same task. Says what changed.
 */
fst_status fst__journal_read(fst_sweep *s, fst_error *err);
/* The same of its bytes, for the fuzzer; changes nothing but s. */
fst_status fst__journal_parse(fst_sweep *s, const char *text, size_t len, fst_error *err);
fst_status fst__journal_write(const fst_sweep *s, fst_error *err);
/* A failure is logged once and told at the end. */
void fst__journal_note(fst_sweep *s);

/* ---- child.c ---- */
/* Starts run i up to the end of a stage (NULL: to the run's), or to so many epochs or rounds of it (0: all). */
fst_status fst__child_start(fst_sweep *s, size_t i, const char *stage, int64_t count, int threads, fst_error *err);
/* True when its process has ended; *status as of waitpid. */
bool fst__child_ended(struct run *r, int *status);
/* The last thing that its log says; new memory. */
char *fst__child_said(const struct run *r);

/* ---- work.c ---- */
/* What all runs are at, for who watches. */
void fst__sweep_progress(fst_sweep *s, fst_sweep_progress *out, char now[FST__NOW]);
/* Brings every run that is missing to its `until` or to its end, those that are not far first. ended, if not NULL: runs
 * have ended; it may stop runs that are paused, or send them on. */
fst_status fst__sweep_work(fst_sweep *s, void (*ended)(void *ctx), void *ctx, fst_error *err);
void fst__sweep_tell(fst_sweep *s, size_t i);
bool fst__sweep_stopped(const fst_sweep *s);

/* ---- halving.c ---- */
fst_status fst__halving_check(const fst_sweep *s, fst_error *err);
fst_status fst__halving_run(fst_sweep *s, fst_error *err);

/* ---- figures.c ---- */
/* What stage `by` of a finished run is worth; NaN where that is not known. */
void fst__sweep_figures(const fst_sweep *s, struct run *r);
/* The validation accuracy of stage `by` after `at` epochs or rounds, from the run's events; NaN: not known. */
double fst__sweep_value_at(const fst_sweep *s, const struct run *r, int64_t at);
/* What an active run is at, from the end of its events: fills r->now and the part of its item. */
void fst__sweep_look(fst_sweep *s, struct run *r);
/* Seconds that are left until every run that is missing or active has done; NaN: not known. */
double fst__sweep_left(fst_sweep *s, size_t jobs);

#endif
