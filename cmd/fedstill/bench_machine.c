/*
 * What the machine was doing while a workload was measured, from /proc: figures from a busy machine, or from a virtual
 * one whose host gave its processors to others, can be told from good ones. Where /proc is missing, values are unknown
 * (below 0, or an empty name) and measuring goes on.
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"

static double load_average(void)
{
    double load = -1;
    FILE *f = fopen("/proc/loadavg", "r");
    if (!f)
        return load;
    if (fscanf(f, "%lf", &load) != 1)
        load = -1;
    fclose(f);
    return load;
}

/* Of all CPUs since the machine started, in ticks. */
struct ticks {
    double all, idle, steal;
};

/* "cpu  user nice system idle iowait irq softirq steal ..." */
static bool read_ticks(struct ticks *t)
{
    double v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    if (!f)
        return false;
    int n = fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]);
    fclose(f);
    *t = (struct ticks){.idle = v[3] + v[4], .steal = v[7]};
    for (int i = 0; i < n; i++)
        t->all += v[i];
    return n >= 4;
}

void bench_machine_start(struct bench_machine *m)
{
    struct ticks t = {0};
    *m = (struct bench_machine){.load_before = load_average(), .idle = -1, .steal = -1};
    if (read_ticks(&t)) {
        m->ticks[0] = t.all;
        m->ticks[1] = t.idle;
        m->ticks[2] = t.steal;
    }
}

/* From "model name : AMD EPYC 9R14"; characters that JSON would have to escape are left out. */
static void read_cpu(char *out, size_t size)
{
    char line[256];
    size_t n = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = 0;
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        for (const char *c = colon + 1 + (colon[1] == ' '); *c && n + 1 < size; c++)
            if (*c >= ' ' && *c < 127 && *c != '"' && *c != '\\')
                out[n++] = *c;
        out[n] = 0;
        break;
    }
    if (f)
        fclose(f);
}

void bench_machine_end(struct bench_machine *m)
{
    struct ticks t;
    m->load_after = load_average();
    if (m->ticks[0] > 0 && read_ticks(&t) && t.all > m->ticks[0]) {
        m->idle = (t.idle - m->ticks[1]) / (t.all - m->ticks[0]);
        m->steal = (t.steal - m->ticks[2]) / (t.all - m->ticks[0]);
    }
    read_cpu(m->cpu, sizeof m->cpu);
}
