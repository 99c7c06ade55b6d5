/* The section on what the run used: CPU and memory over the time worked, and by stage. From events "resources". */
#include <math.h>
#include <stdio.h>

#include "html.h"

/* Cores that were busy between a sample and the one before; NaN for a process's first. */
static double cores(const struct fst__history *h, size_t i)
{
    const struct fst__resource_point *r = &h->resource[i];
    double passed = i ? r->seconds - r[-1].seconds : 0;
    return r->first || !(passed > 1e-3) ? NAN : (r->cpu - r[-1].cpu) / passed;
}

static void charts(const struct fst__history *h, fst__page *p)
{
    double *v = fst_alloc(3 * h->resources * sizeof *v);
    if (!v) {
        p->status = p->status ? p->status : fst_fail_memory(p->err, 3 * h->resources * sizeof *v);
        return;
    }
    double *x = v, *cpu = v + h->resources, *rss = cpu + h->resources;
    for (size_t i = 0; i < h->resources; i++) {
        x[i] = h->resource[i].seconds;
        cpu[i] = cores(h, i);
        rss[i] = h->resource[i].rss / 1e6;
    }
    const fst__series busy = {"cores busy", x, cpu, h->resources, NULL, NULL},
                      memory = {"resident memory", x, rss, h->resources, NULL, NULL};
    fst__chart c = {.title = "CPU: cores busy since the sample before",
                    .x_title = "seconds worked",
                    .series = &busy,
                    .count = 1,
                    .mark_x = NAN,
                    .mark_y = NAN};
    fst__put(p, "<div class=\"charts\">\n");
    fst__line_chart(p, &c);
    c.title = "Memory: resident megabytes";
    c.series = &memory;
    fst__line_chart(p, &c);
    fst__put(p, "</div>\n");
    fst_free(v);
}

/* What was used up to a sample since the one before belongs to its stage. */
static void by_stage(const struct fst__html *all, fst__page *p)
{
    const struct fst__history *h = &all->history;
    char title[FST__MODEL_TITLE];
    static const char *const columns[] = {"stage", "#time", "#CPU time", "#cores busy", "#most memory", NULL};
    fst__table_begin(p, "resources-by-stage", "Used by each stage, over all processes of the run", columns);
    for (size_t k = 0; k < h->stages; k++) {
        double seconds = 0, cpu = 0, most = NAN;
        for (size_t i = 0; i < h->resources; i++) {
            const struct fst__resource_point *r = &h->resource[i];
            if (r->stage != k)
                continue;
            most = r->rss > most || isnan(most) ? r->rss : most;
            if (r->first)
                continue;
            seconds += r->seconds - r[-1].seconds;
            cpu += r->cpu - r[-1].cpu;
        }
        if (isnan(most) && !(seconds > 0))
            continue;
        fst__row_begin(p);
        fst__cell_head(p, fst__step_title(all, h->stage[k].name, title));
        fst__cell_seconds(p, seconds);
        fst__cell_seconds(p, cpu);
        fst__cell_plain(p, seconds > 0 ? cpu / seconds : NAN);
        fst__cell_bytes(p, most);
        fst__row_end(p);
    }
    fst__table_end(p);
}

static void samples(const struct fst__html *all, fst__page *p)
{
    const struct fst__history *h = &all->history;
    char title[FST__MODEL_TITLE];
    static const char *const columns[] = {"stage", "#worked", "#CPU time of the process", "#memory", NULL};
    fst__put(p, "<details><summary>All samples as a table</summary>\n");
    fst__table_begin(p, "resources", "Samples of CPU time and memory", columns);
    for (size_t i = 0; i < h->resources; i++) {
        const struct fst__resource_point *r = &h->resource[i];
        p->only_csv = i >= 500;
        fst__row_begin(p);
        fst__cell_head(p, r->stage < h->stages ? fst__step_title(all, h->stage[r->stage].name, title) : "");
        fst__cell_seconds(p, r->seconds);
        fst__cell_seconds(p, r->cpu);
        fst__cell_bytes(p, r->rss);
        fst__row_end(p);
    }
    p->only_csv = false;
    fst__table_end(p);
    if (h->resources > 500)
        fst__missing(p, "Not shown:", "samples after the first 500; the CSV file has them.");
    fst__put(p, "</details>\n");
}

void fst__html_resources(const struct fst__html *h, fst__page *p)
{
    if (!h->history.resources)
        return;
    fst__section(p, "resources", "CPU and memory");
    if (h->history.resources > 1)
        charts(&h->history, p);
    by_stage(h, p);
    samples(h, p);
}
