/* The text that Prometheus reads: one family after another, each with its head, then its samples. Numbers have 17
 * digits, so that counters keep every bit; NaN and infinities have names of their own there. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/dashboard.h"

fst_status fst_metric_head(fst_buf *out, const char *name, const char *type, const char *help, fst_error *err)
{
    return fst_buf_printf(out, err, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static fst_status add_label(fst_buf *out, const char *label, const char *value, char before, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err, "%c%s=\"", before, label);
    for (const char *p = value; !s && *p; p++) {
        const char *escaped = *p == '\n' ? "\\n" : *p == '"' ? "\\\"" : *p == '\\' ? "\\\\" : NULL;
        s = escaped ? fst_buf_append(out, escaped, 2, err) : fst_buf_append(out, p, 1, err);
    }
    return s ? s : fst_buf_append(out, "\"", 1, err);
}

fst_status fst_metric2(fst_buf *out, const char *name, const char *label, const char *value, const char *label2,
                       const char *value2, double number, fst_error *err)
{
    fst_status s = fst_buf_append(out, name, strlen(name), err);
    if (!s && label)
        s = add_label(out, label, value, '{', err);
    if (!s && label2)
        s = add_label(out, label2, value2, ',', err);
    if (!s && label)
        s = fst_buf_append(out, "}", 1, err);
    if (s)
        return s;
    if (isnan(number))
        return fst_buf_printf(out, err, " NaN\n");
    if (isinf(number))
        return fst_buf_printf(out, err, number > 0 ? " +Inf\n" : " -Inf\n");
    return fst_buf_printf(out, err, " %.17g\n", number);
}

fst_status fst_metric(fst_buf *out, const char *name, const char *label, const char *value, double number,
                      fst_error *err)
{
    return fst_metric2(out, name, label, value, NULL, NULL, number, err);
}

/* ---- the process ----------------------------------------------------------------------------------- */

struct process {
    double cpu, began, virtual_bytes, resident, threads, open_files;
};

static double open_files(void)
{
    double n = -1; /* the descriptor that looks */
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return d ? n : NAN;
}

static double boot_time(void)
{
    char line[256];
    double at = NAN;
    FILE *f = fopen("/proc/stat", "re");
    while (f && isnan(at) && fgets(line, sizeof line, f))
        if (sscanf(line, "btime %lf", &at) != 1)
            at = NAN;
    if (f)
        fclose(f);
    return at;
}

static bool look_at_process(struct process *p)
{
    char text[1024];
    unsigned long long user, system, start, size;
    long threads, pages;
    double tick = (double)sysconf(_SC_CLK_TCK);
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    const char *rest = strrchr(text, ')'); /* the program's name may hold anything */
    if (!rest ||
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld %*d %llu %llu %ld",
               &user, &system, &threads, &start, &size, &pages) != 6)
        return false;
    *p = (struct process){.cpu = (double)(user + system) / tick,
                          .began = boot_time() + (double)start / tick,
                          .virtual_bytes = (double)size,
                          .resident = (double)pages * (double)sysconf(_SC_PAGESIZE),
                          .threads = (double)threads,
                          .open_files = open_files()};
    return true;
}

fst_status fst_metrics_process(fst_buf *out, fst_error *err)
{
    struct process p;
    if (!look_at_process(&p))
        return FST_OK; /* no Linux */
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {{"process_cpu_seconds_total", "counter", "CPU seconds of this process.", p.cpu},
               {"process_start_time_seconds", "gauge", "When it began, in seconds since 1970.", p.began},
               {"process_virtual_memory_bytes", "gauge", "Its virtual memory.", p.virtual_bytes},
               {"process_resident_memory_bytes", "gauge", "Its resident memory.", p.resident},
               {"process_threads", "gauge", "Its threads.", p.threads},
               {"process_open_fds", "gauge", "Its open files and sockets.", p.open_files}};
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < sizeof all / sizeof *all; i++) {
        s = fst_metric_head(out, all[i].name, all[i].type, all[i].help, err);
        if (!s)
            s = fst_metric(out, all[i].name, NULL, NULL, all[i].value, err);
    }
    return s;
}
