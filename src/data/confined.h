/*
 * confined.h - a reader that may crash, in a child process that may do no harm: for libraries that trust the files they
 * read. The child sends what it reads through a pipe; that it dies, hangs or wants too much memory is an error of the
 * parent. What it sends has a strange file behind it too: the parent checks every number that it takes.
 *
 *     fst__confined c;
 *     s = fst__confined_start(&c, &spec, fn, ctx, err);     // fn runs in the child, and sends
 *     if (!s)
 *         s = fst__confined_take(&c, &head, sizeof head, err); // as often as there is something to take
 *     if (!s)
 *         s = fst__confined_finish(&c, err);
 *     fst__confined_stop(&c);                                // always; ends a child that is still there
 *
 * The child is a fork, without exec, since a library has no program to start. It has one thread, so fn takes no lock
 * that another thread may hold and calls no callback of the user's (fst_log is silent); it may allocate. It has
 * no descriptors but the pipe, and what it writes to standard output and error is lost; it dumps no core; it takes no
 * signals; nothing of it runs at its exit; the kernel kills it when the thread that started it ends.
 */
#ifndef FEDSTILL_DATA_CONFINED_H
#define FEDSTILL_DATA_CONFINED_H

#include <sys/types.h>

#include "fedstill/base.h"

typedef struct fst__confined_spec {
    const char *library; /* in messages: "libhdf5 died of signal 11" */
    const char *path;    /* likewise */
    size_t memory;       /* bytes that the child may take besides what the process has */
    int busy_seconds;    /* of processor time between two pieces that it sends: more is a loop without end */
    int silent_seconds;  /* of the clock, while the parent waits for a piece: a lock that nobody will open */
} fst__confined_spec;

typedef struct fst__confined {
    const fst__confined_spec *spec; /* borrowed */
    pid_t pid;                      /* 0: it was waited for */
    int fd;                         /* the pipe's end of whoever looks at it, the parent or the child */
    size_t left;                    /* bytes of the piece at hand that were not taken yet */
    int status;                     /* as waitpid has it; -1: not known */
} fst__confined;

/* Runs in the child; what it returns is what the parent's take or finish returns, with its message. */
typedef fst_status (*fst__confined_fn)(void *ctx, fst__confined *c, fst_error *err);

FST_MUST fst_status fst__confined_start(fst__confined *c, const fst__confined_spec *spec, fst__confined_fn fn,
                                        void *ctx, fst_error *err);
/* In the child: n bytes for the parent. */
FST_MUST fst_status fst__confined_send(fst__confined *c, const void *data, size_t n, fst_error *err);
/* In the parent: the next n bytes that were sent, in however many pieces. Fails with the child's own error, or with how
 * it died: FST_E_FORMAT for a signal of its own making, FST_E_LIMIT for time, FST_E_IO for what it is not to blame for.
 */
FST_MUST fst_status fst__confined_take(fst__confined *c, void *out, size_t n, fst_error *err);
/* In the parent: the child said that it sent everything, and everything was taken. */
FST_MUST fst_status fst__confined_finish(fst__confined *c, fst_error *err);
/* Kills and waits for a child that is still there, and closes the pipe. */
void fst__confined_stop(fst__confined *c);

#endif
