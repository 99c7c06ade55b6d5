/*
 * fedstill/sweep.h - many runs of one task: every combination of some settings, each with several seeds.
 *
 * A sweep has a folder. FOLDER/runs/NAME is the output of one run, as any run of fst_task_run leaves it;
 * FOLDER/logs/NAME.log is what it said; FOLDER/sweep.json says what was asked for and how far it is (docs/formats.md).
 * Each run is a process of its own, `fedstill run`, so that one that crashes takes nothing with it. Nothing but these
 * files is needed to go on: a sweep that was killed is opened and run again.
 *
 * What runs have in common is made once: a stage whose fingerprint another run of the sweep has, or is making, is taken
 * from there (fst_task_options.beside); a run that needs what another is making waits. The models are those of the runs
 * by themselves, bit for bit: neither the number of jobs nor what was killed shows.
 *
 * A setting is a combination of values; a run is a setting with a seed. Settings count from 0 in the order of points
 * and grid, the last key changing fastest, and the runs of a setting stand together, in the order of the seeds.
 *
 * An object belongs to one thread. fst_sweep_run makes child processes, which are killed when that thread ends.
 */
#ifndef FEDSTILL_SWEEP_H
#define FEDSTILL_SWEEP_H

#include "fedstill/task.h"

FST_BEGIN_DECLS

#define FST_SWEEP_MAX_RUNS 1000
#define FST_SWEEP_MAX_JOBS 256

typedef struct fst_sweep fst_sweep;

typedef enum fst_sweep_state {
    FST_SWEEP_MISSING, /* to be run, or to be gone on with */
    FST_SWEEP_RUNNING,
    FST_SWEEP_PAUSED, /* of a halving: waits at a rung for others that its fate depends on */
    FST_SWEEP_DONE,
    FST_SWEEP_FAILED,
    FST_SWEEP_STOPPED /* by a halving: not worth going on with */
} fst_sweep_state;
/* "missing", "running", "paused", "done", "failed", "stopped": as in sweep.json. */
FST_API const char *fst_sweep_state_name(fst_sweep_state s);

typedef struct fst_sweep_run_view {
    const char *name;    /* "learning_rate=0.1,rounds=5,seed=2" */
    const char *folder;  /* its output */
    const char *log;     /* the file */
    const char *setting; /* "learning_rate=0.1,rounds=5"; "" without a grid */
    size_t setting_index;
    int64_t seed;
    fst_sweep_state state;
    const char *why;         /* of a run that failed or was stopped; else "" */
    double validation, test; /* accuracy of the model of fst_sweep_stage; NaN: not known */
    double seconds;          /* that its processes ran for this object */
} fst_sweep_run_view;

typedef struct fst_sweep_progress {
    size_t runs, done, failed, stopped, active;
    int64_t
        rung; /* of a halving: the runs that are least far are brought to so many epochs or rounds; 0: to their end */
    double left; /* seconds until all are where they are brought to now, as far as the stages that were made show it;
                    NaN: not known yet */
    const char *now; /* what active runs are at: "federated_train 3/10 of learning_rate=0.1,seed=2" */
} fst_sweep_progress;

/* Who wants to watch; members may be NULL. Calls come from the thread that is in the sweep's function. */
typedef struct fst_sweep_observer {
    void *ctx;
    void (*checking)(void *ctx, size_t done, size_t runs);                              /* before any work */
    void (*run)(void *ctx, const fst_sweep_run_view *run, const fst_sweep_progress *p); /* its state has changed */
    void (*note)(void *ctx, const char *line);                                          /* what a halving decided ... */
    void (*tick)(void *ctx, const fst_sweep_progress *p); /* some times a second while runs are active */
} fst_sweep_observer;

typedef struct fst_sweep_spec {
    const char *task;        /* a folder or file, as fst_task_load takes it */
    const char *const *sets; /* "key=value", for all runs; then, each instead of the task's own value: */
    size_t nsets;
    const char *const *grid; /* "key=a,b,c": each value as in `sets`, in quotes or brackets where it has commas */
    size_t ngrid;
    const char *const
        *point; /* "key=a,other=b": settings that belong together; each is combined with all of the grid */
    size_t npoints;
    const char *seeds;   /* "3": the task's seed and the two after it; "1,5,9": these; NULL: the task's own alone */
    const char *output;  /* the sweep's folder; NULL: `sweep` in the task's folder */
    const char *mode;    /* as fst_task_options */
    const char *backend; /* as fst_task_options */
    const char *by;      /* the stage whose validation accuracy counts; NULL: the last that trains a model */
    int jobs;            /* runs at the same time, 1 ... FST_SWEEP_MAX_JOBS; 0: 1 */
    int threads;         /* of all jobs together; 0: CPUs */
    bool no_reuse;       /* take nothing from outputs beside this sweep's own */
    bool fail_fast;      /* the first run that fails ends the sweep */
    bool halving;        /* stop the worse half of the settings at rungs of stage `by`, see below */
    const char *program; /* the program to start; NULL: this one, which then must be fedstill */
    const fst_atomic_int *stop; /* as fst_task_options: the runs save their progress and end */
    fst_sweep_observer observer;
} fst_sweep_spec;

/*
 * Reads and checks what is asked for, task file and every combination, without opening any data or writing anything.
 * FST_E_CONFIG for a key that is given twice, unknown, or without effect; values that are empty, given twice, cannot
 * work, or come to the same; too many runs. spec and its texts must outlive *out.
 */
FST_MUST FST_API fst_status fst_sweep_open(fst_sweep **out, const fst_sweep_spec *spec, fst_error *err);
FST_API void fst_sweep_free(fst_sweep *s);
/*
 * Opens the data of every run, finds what does not fit it (as a dry run does), what stages runs have in common, and
 * what is there already. Writes nothing. FST_E_CONFIG also where settings make no difference to any stage.
 */
FST_MUST FST_API fst_status fst_sweep_plan(fst_sweep *s, fst_error *err);
/*
 * After fst_sweep_plan: runs what is missing. The folder is locked. A run that fails does not end it (without
 * fail_fast): it returns FST_OK, and the state of the run says so. FST_E_CANCELLED when it was asked to stop.
 *
 * With `halving`, K times (K: how often the number of settings can be halved): the settings whose runs have done so
 * much of stage `by` are ordered by the mean over their seeds of the accuracy on the validation samples, and the worse
 * half is stopped. The rungs are T / 2^K, ..., T / 2 of the T epochs or rounds, rounded up. What counts is the best
 * epoch so far in stages that keep it, else the last one up to there. (Successive halving: Jamieson and Talwalkar
 * 2016.) It depends on the numbers alone, never on who was faster or on how many jobs there are: a setting goes on, or
 * is stopped, before all have come to its rung where none of those that are still to come could change that, and
 * otherwise waits.
 */
FST_MUST FST_API fst_status fst_sweep_run(fst_sweep *s, fst_error *err);

FST_API const char *fst_sweep_folder(const fst_sweep *s);
FST_API const char *fst_sweep_stage(const fst_sweep *s); /* whose accuracy counts */
FST_API size_t fst_sweep_runs(const fst_sweep *s);
FST_API fst_sweep_run_view fst_sweep_run_at(const fst_sweep *s, size_t i); /* valid until the next call of a function */
FST_API size_t fst_sweep_settings(const fst_sweep *s);
FST_API size_t fst_sweep_seeds(const fst_sweep *s); /* each setting's runs */
/* What run i is still to do, after fst_sweep_plan: its stages, each with how it comes about ("make", "there", "taken
 * from runs/NAME", "shared with runs/NAME"). Valid until the next call; false after the last. */
FST_API bool fst_sweep_stage_at(fst_sweep *s, size_t i, size_t k, const char **stage, const char **how);
/* A command line that does run i by itself, for people and shells. */
FST_MUST FST_API fst_status fst_sweep_command(const fst_sweep *s, size_t i, fst_buf *out, fst_error *err);

FST_END_DECLS

#endif
