/* Ranks over MPI: the only file that includes mpi.h. It is compiled to a module of its own, which the program loads
 * where a launcher is seen.
 *
 * Every call begins something and then looks from time to time whether it is done, under one lock and with pauses in
 * between: MPI's own waiting would keep a processor busy that another rank may need, and could not be stopped. So
 * FST__RANKS needs MPI_THREAD_SERIALIZED alone. */
#include <mpi.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "ranks_module.h"

enum { TAG = 7, AWAKE = 200, SHORTEST_NS = 20000, LONGEST_NS = 1000000, LAST_LOOKS = 300 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static fst__ranks_end failed(const char *what, int code, char *why)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;
    (void)MPI_Error_string(code, text, &len);
    snprintf(why, FST__RANKS_WHY, "%s: %.150s", what, text);
    return FST__RANKS_FAILED;
}

static fst__ranks_end open_ranks(int *own, int *count, char *why)
{
    int given = MPI_THREAD_SINGLE, code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given);
    if (code)
        return failed("MPI_Init_thread", code, why);
    if (given < MPI_THREAD_SERIALIZED) {
        snprintf(why, FST__RANKS_WHY, "this MPI is built without threads (MPI_THREAD_SERIALIZED)");
        return FST__RANKS_FAILED;
    }
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, own);
    (void)MPI_Comm_size(MPI_COMM_WORLD, count);
    return FST__RANKS_DONE;
}

static void close_ranks(void)
{
    (void)MPI_Finalize();
}

/* Awake for a short time, then with longer and longer pauses. */
static void pause_a_while(unsigned turn)
{
    long ns = turn < AWAKE ? 0 : (long)(turn - AWAKE + 1) * SHORTEST_NS;
    const struct timespec t = {0, ns > LONGEST_NS ? LONGEST_NS : ns};
    if (ns)
        (void)nanosleep(&t, NULL);
}

/* One look whether it is done; it may have been taken back. */
static fst__ranks_end look(MPI_Request *r, const char *what, bool *done, char *why)
{
    MPI_Status is;
    int over = 0, cancelled = 0;
    pthread_mutex_lock(&lock);
    int code = MPI_Test(r, &over, &is);
    if (!code && over)
        code = MPI_Test_cancelled(&is, &cancelled);
    pthread_mutex_unlock(&lock);
    *done = over;
    return code ? failed(what, code, why) : cancelled ? FST__RANKS_STOPPED : FST__RANKS_DONE;
}

/* A receive that nothing has come for is taken back, and then ends at once. What has begun to come or to go ends when
 * the other rank does its part, which is waited for a moment: sending cannot be taken back (MPI 4 advises against it,
 * Open MPI does nothing). After that the memory is MPI's. */
static fst__ranks_end give_up(MPI_Request *r, bool receives, const char *what, char *why)
{
    bool done = false;
    fst__ranks_end end = FST__RANKS_DONE;
    pthread_mutex_lock(&lock);
    if (receives)
        (void)MPI_Cancel(r);
    pthread_mutex_unlock(&lock);
    for (unsigned turn = AWAKE; !done && end == FST__RANKS_DONE && turn < AWAKE + LAST_LOOKS; turn++) {
        end = look(r, what, &done, why);
        if (!done)
            pause_a_while(turn);
    }
    return done || end == FST__RANKS_FAILED ? end : FST__RANKS_LEFT;
}

static fst__ranks_end wait_for(MPI_Request *r, bool receives, const struct fst__ranks_wait *wait, char *why)
{
    const char *what = receives ? "MPI_Irecv" : "MPI_Isend";
    for (unsigned turn = 0;; turn += turn < 1000000) {
        bool done = false;
        fst__ranks_end end = look(r, what, &done, why);
        if (done || end == FST__RANKS_FAILED)
            return end;
        if (wait->stopped(wait->ctx))
            return give_up(r, receives, what, why);
        pause_a_while(turn);
    }
}

static fst__ranks_end send_to(int to, const void *data, size_t len, const struct fst__ranks_wait *wait, char *why)
{
    MPI_Request r;
    pthread_mutex_lock(&lock);
    int code = MPI_Isend(data, (int)len, MPI_BYTE, to, TAG, MPI_COMM_WORLD, &r);
    pthread_mutex_unlock(&lock);
    return code ? failed("MPI_Isend", code, why) : wait_for(&r, false, wait, why);
}

static fst__ranks_end receive_from(int from, void *data, size_t len, const struct fst__ranks_wait *wait, char *why)
{
    MPI_Request r;
    pthread_mutex_lock(&lock);
    int code = MPI_Irecv(data, (int)len, MPI_BYTE, from, TAG, MPI_COMM_WORLD, &r);
    pthread_mutex_unlock(&lock);
    return code ? failed("MPI_Irecv", code, why) : wait_for(&r, true, wait, why);
}

__attribute__((visibility("default"))) extern const struct fst__ranks_module fst__ranks_module;
const struct fst__ranks_module fst__ranks_module = {FST__RANKS_VERSION, open_ranks, close_ranks, send_to, receive_from};
