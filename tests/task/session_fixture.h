/* What tests of sessions share: a scratch folder, and a session over a task's settings that writes nothing. */
#ifndef FST_TEST_SESSION_FIXTURE_H
#define FST_TEST_SESSION_FIXTURE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

static char folder[] = "/tmp/fedstill-session-XXXXXX";
static const fst_task_options options = {.threads = 1, .workers = 1, .backend = "reference"};
static fst_error why;

static inline const char *path_in(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline int forget(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline int tear_down(void **state)
{
    (void)state;
    return nftw(folder, forget, 16, FTW_DEPTH | FTW_PHYS);
}

/* Opens the task whose settings are `text`, with this override or none, without writing anything but the task file. */
static inline fst_status open_session_with(struct session *s, fst_task **task, const char *text, const char *set)
{
    if (fst_file_write(path_in("task.yaml"), text, strlen(text), &why))
        fail_msg("%s", why.message);
    fst_status st = fst_task_load(task, folder, set ? &set : NULL, set ? 1 : 0, &why);
    *s = (struct session){.dry = true};
    if (st)
        return st;
    st = fst__session_init(s, *task, &options, &why);
    return st ? st : fst__session_open_data(s, &why);
}

static inline void close_session(struct session *s, fst_task *task)
{
    if (s->task)
        fst__session_close(s);
    fst_task_free(task);
}

#endif
