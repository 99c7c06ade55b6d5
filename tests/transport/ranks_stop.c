/*
 * Two ranks of mpirun, of which number 0 is stopped while it receives and while it sends (fedstill/ranks.h). A tool of
 * task/test_ranks.sh, not a test by itself:
 *
 *   mpirun -n 2 ranks_stop FILE     prints what each has seen; FILE must not be there, and tells 1 what 0 has done
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fedstill/ranks.h"

enum { LARGE = 8 << 20 }; /* bytes that do not go before the other one takes them */

static atomic_bool stop_now;

static bool stopped(void *ctx)
{
    (void)ctx;
    return atomic_load(&stop_now);
}

static bool receives(fst_ranks *r, int from, const char *wanted)
{
    fst_buf in = {0};
    fst_error e = {0};
    bool right =
        !fst_ranks_receive(r, from, LARGE, &in, &e) && in.len == strlen(wanted) && !memcmp(in.data, wanted, in.len);
    printf("rank %d received \"%s\": %s\n", fst_ranks_own(r), wanted, right ? "yes" : "no");
    fst_buf_release(&in);
    return right;
}

static bool sends(fst_ranks *r, int to, const char *text)
{
    fst_buf out = {0};
    fst_error e = {0};
    bool right = !fst_buf_append(&out, text, strlen(text), &e) && !fst_ranks_send(r, to, &out, &e);
    fst_buf_release(&out);
    return right;
}

static char byte_at(size_t i)
{
    return (char)(i * 7 + i / 4096);
}

static bool is_stopped_sending(fst_ranks *r, const char *file)
{
    fst_buf out = {0};
    fst_error e = {0};
    if (fst_buf_reserve(&out, LARGE, &e))
        return false;
    for (size_t i = 0; i < LARGE; i++)
        out.data[i] = byte_at(i);
    out.len = LARGE;
    bool right = fst_ranks_send(r, 1, &out, &e) == FST_E_CANCELLED && !out.data && !out.len;
    printf("rank 0 was stopped sending, and has no buffer any more: %s\n", right ? "yes" : "no");
    fst_buf_release(&out);
    return !fst_file_write(file, "", 0, &e) && right;
}

static bool first(fst_ranks *r, const char *file)
{
    fst_buf in = {0};
    fst_error e = {0};
    atomic_store(&stop_now, true);
    bool right = fst_ranks_receive(r, 1, 100, &in, &e) == FST_E_CANCELLED;
    printf("rank 0 was stopped receiving: %s\n", right ? "yes" : "no");
    fst_buf_release(&in);
    atomic_store(&stop_now, false);
    right = right && sends(r, 1, "go on") && receives(r, 1, "here I am");
    atomic_store(&stop_now, true);
    right = right && is_stopped_sending(r, file);
    atomic_store(&stop_now, false);
    return right && receives(r, 1, "it was whole");
}

static bool second(fst_ranks *r, const char *file)
{
    const struct timespec nap = {0, 1000000};
    fst_buf in = {0};
    fst_error e = {0};
    bool right = receives(r, 0, "go on") && sends(r, 0, "here I am");
    while (access(file, F_OK))
        nanosleep(&nap, NULL);
    right = right && !fst_ranks_receive(r, 0, LARGE, &in, &e) && in.len == LARGE;
    for (size_t i = 0; right && i < LARGE; i++)
        right = in.data[i] == byte_at(i);
    printf("rank 1 received what 0 was stopped in: %s\n", right ? "yes" : "no");
    fst_buf_release(&in);
    return right && sends(r, 0, "it was whole");
}

int main(int argc, char **argv)
{
    fst_ranks *r = NULL;
    fst_error e = {0};
    if (argc != 2 || fst_ranks_open(&r, stopped, NULL, &e) || !r) {
        fprintf(stderr, "ranks_stop: %s\n", argc == 2 ? e.message : "see its head");
        return 2;
    }
    bool right = fst_ranks_own(r) ? second(r, argv[1]) : first(r, argv[1]);
    fst_ranks_close(r, right);
    return right ? 0 : 1;
}
