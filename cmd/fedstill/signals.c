/*
 * SIGINT, SIGTERM and SIGHUP. They come to a thread of their own, and no handler ever runs on a thread that computes:
 * core files showed a handler's frame inside the heap, so generated kernels seem to use the stack pointer for other
 * things.
 *
 * A command that can stop in good order says so (signals_stop_by): the first signal is noted for it, and it saves its
 * progress; a second signal ends the program at once. Other commands are ended at once. The files that were being
 * written are removed in either case, which never harms what they would have replaced.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"

static const double patience = 0.3; /* seconds within which a second signal is an echo of the first */
static sigset_t watched, ignored;
static _Atomic(atomic_int *) stop_flag;

static int next_signal(void)
{
    int number;
    while (sigwait(&watched, &number))
        ;
    return number;
}

static void end_by(int number)
{
    sigset_t one;
    fst_atomic_discard_all();
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
    _exit(128 + number);
}

static void *wait_for_signals(void *arg)
{
    (void)arg;
    for (;;) {
        int number = next_signal();
        atomic_int *stop = atomic_load(&stop_flag);
        if (stop) {
            atomic_store(stop, 1);
            for (double first = fst_clock_seconds(); fst_clock_seconds() - first < patience;)
                number = next_signal();
            fst_atomic_discard_all();
            _exit(128 + number);
        }
        if (!sigismember(&ignored, number))
            end_by(number);
    }
    return NULL;
}

/* A signal that was ignored when the program began stays so (a shell's background command, nohup), except that a run
 * stops in good order for SIGINT and SIGTERM in any case. */
fst_status signals_watch(fst_error *err)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    pthread_t thread;
    sigemptyset(&watched);
    sigemptyset(&ignored);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction now;
        bool off = !sigaction(numbers[i], NULL, &now) && now.sa_handler == SIG_IGN;
        if (off)
            sigaddset(&ignored, numbers[i]);
        if (!off || numbers[i] != SIGHUP)
            sigaddset(&watched, numbers[i]);
    }
    int e = pthread_sigmask(SIG_BLOCK, &watched, NULL);
    if (!e)
        e = pthread_create(&thread, NULL, wait_for_signals, NULL);
    if (e)
        return fst_fail(err, FST_E_IO, "cannot watch for signals: %s", strerror(e));
    pthread_detach(thread);
    return FST_OK;
}

void signals_stop_by(atomic_int *stop)
{
    atomic_store(&stop_flag, stop);
}
