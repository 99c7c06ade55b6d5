/*
 * How many CPUs this process may use: those of its affinity mask, and no more than the CPU quota of its control group
 * (cgroup v2) grants. A container with a quota of one CPU sees all CPUs of its host; threads beyond the quota would
 * only be stopped in turn.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/base.h"

enum { PATH_SIZE = 4096 };

/* CPUs that one group's cpu.max ("max 100000" or "150000 100000") grants, rounded up; 0: no limit is known. */
static int quota_of(const char *folder)
{
    char path[PATH_SIZE + 64];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int n = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    if (n != 2 || !(quota > 0) || !(period > 0) || quota / period > 1 << 20)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* "/system.slice/x.service", the group of this process; "" for the root or where there is no cgroup v2. */
static void own_group(char out[PATH_SIZE])
{
    char line[PATH_SIZE];
    FILE *f = fopen("/proc/self/cgroup", "re");
    *out = 0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "0::/", 4)) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, PATH_SIZE, "%s", line + 3);
        }
    if (f)
        fclose(f);
}

/* The smallest quota of the process's group and the groups that it is in; 0: none. */
static int smallest_quota(void)
{
    char group[PATH_SIZE];
    int least = 0;
    own_group(group);
    for (;;) {
        int n = quota_of(group);
        if (n && (!least || n < least))
            least = n;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

int fst_cpu_count(void)
{
    static _Atomic int granted = -1; /* a quota is read once; racing threads read the same */
    cpu_set_t set;
    if (granted < 0)
        granted = smallest_quota();
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set), most = granted;
    if (most && most < n)
        n = most;
    return n > 0 ? n : 1;
}
