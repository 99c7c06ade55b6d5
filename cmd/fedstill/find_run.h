/* Which run somebody means by a name on the command line. Reads, and changes nothing. */
#ifndef FEDSTILL_FIND_RUN_H
#define FEDSTILL_FIND_RUN_H

#include "fedstill/store.h"
#include "fedstill/task.h"

enum { FOUND_TEXTS = 7 };

struct found_run {
    char *output;   /* the run's folder */
    char *folder;   /* what the task's relative paths start from; NULL: not known */
    fst_task *task; /* where a task was named; NULL: not loaded */
    char why[1200]; /* why its file cannot be read; "" */
    bool known;     /* the registry has the run: */
    fst_run run;    /* its strings are in text */
    char *text[FOUND_TEXTS];
};

/* name: a task's folder or file, an output folder, a run's number, or a task's name as the registry has it. Zeroed
 * before; released whatever comes of it. */
FST_MUST fst_status find_run(struct found_run *f, const char *name, fst_error *err);
void found_run_release(struct found_run *f);
/* The file of a task, or its folder: one with task.yaml, or with the per-stage files of `input`. */
bool is_task(const char *path);
/* Does the folder hold what a run leaves? */
bool is_output(const char *folder);
bool holds_file(const char *folder, const char *name);
/* New memory: the folder of a file's path, "." where it has none. */
FST_MUST fst_status folder_of(char **out, const char *path, fst_error *err);

#endif
