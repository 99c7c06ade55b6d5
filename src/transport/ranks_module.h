/* ranks_module.h - what the module of an MPI gives the program (ranks.c). It calls nothing of the program, so that one
 * build of it serves any. */
#ifndef FST_TRANSPORT_RANKS_MODULE_H
#define FST_TRANSPORT_RANKS_MODULE_H

#include <stdbool.h>
#include <stddef.h>

enum { FST__RANKS_VERSION = 2, FST__RANKS_WHY = 200, FST__RANKS_PIECE = 1 << 26 };

/* How a call ended. */
typedef enum fst__ranks_end {
    FST__RANKS_DONE,
    FST__RANKS_STOPPED, /* nothing of it is under way any more */
    FST__RANKS_LEFT,    /* stopped, and MPI still has the memory: it must stay as long as the process */
    FST__RANKS_FAILED
} fst__ranks_end;

struct fst__ranks_wait {
    bool (*stopped)(void *ctx);
    void *ctx;
};

struct fst__ranks_module {
    int version;
    /* why: FST__RANKS_WHY bytes. */
    fst__ranks_end (*open)(int *own, int *count, char *why);
    void (*close)(void);
    /* Exactly len bytes, FST__RANKS_PIECE at most; whoever receives knows how many. From any thread. */
    fst__ranks_end (*send)(int to, const void *data, size_t len, const struct fst__ranks_wait *wait, char *why);
    fst__ranks_end (*receive)(int from, void *data, size_t len, const struct fst__ranks_wait *wait, char *why);
};

#define FST__RANKS_SYMBOL "fst__ranks_module"

#endif
