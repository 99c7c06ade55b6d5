/* Who a process is, so that another one can tell later whether it is still there. */
#ifndef FST_STORE_PROCESS_H
#define FST_STORE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

struct fst__process {
    char host[256];
    char boot[64]; /* the kernel's boot id; "" when it is unknown */
    int64_t pid;
    int64_t start; /* ticks after boot, tells a process from a later one with its number; 0: unknown */
};

void fst__process_self(struct fst__process *p);
/* Whether that process has surely ended. One on another host cannot be judged and counts as alive. */
bool fst__process_gone(const struct fst__process *self, const char *host, const char *boot, int64_t pid, int64_t start);

#endif
