/* Process identity from /proc. A process number alone does not do: numbers are used again. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "process.h"

/* Fields 3 (state) and 22 (start) of /proc/PID/stat; the name in field 2 may hold blanks and brackets. */
static bool read_stat(int64_t pid, char *state, int64_t *start)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *p = strrchr(text, ')');
    long long ticks = 0;
    if (!p || sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld", state,
                     &ticks) != 2)
        return false;
    *start = ticks;
    return true;
}

void fst__process_self(struct fst__process *p)
{
    char state;
    memset(p, 0, sizeof *p);
    if (gethostname(p->host, sizeof p->host - 1))
        p->host[0] = 0;
    p->pid = getpid();
    if (!read_stat(p->pid, &state, &p->start))
        p->start = 0;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f)
        return;
    if (!fgets(p->boot, sizeof p->boot, f))
        p->boot[0] = 0;
    p->boot[strcspn(p->boot, "\n")] = 0;
    fclose(f);
}

bool fst__process_gone(const struct fst__process *self, const char *host, const char *boot, int64_t pid, int64_t start)
{
    char state = '?';
    int64_t now = 0;
    if (strcmp(self->host, host) != 0)
        return false;
    if (*boot && self->boot[0] && strcmp(self->boot, boot) != 0)
        return true;
    if (pid < 1 || (kill((pid_t)pid, 0) && errno == ESRCH))
        return true;
    if (!read_stat(pid, &state, &now))
        return false;
    return state == 'Z' || state == 'X' || (start && now != start);
}
