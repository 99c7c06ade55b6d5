/* A sweep's sweep.json, any bytes: it marks runs that it names as done, and nothing else. Bytes that do not begin with
 * a brace are what a sweep is asked for: the seeds, then a line for each grid, and before a blank for each point; names
 * of runs must be names of files, and each a run's own. */
#define _GNU_SOURCE /* memmem */
#include <stdlib.h>
#include <string.h>

#include "sweep_private.h"

enum { MOST_LINES = 8, MOST_RUNS = 200 };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void read_journal(const char *text, size_t size)
{
    char settings[] = "a=1\nseed=2\n";
    struct run run[] = {{.name = (char[]){"x=1,seed=2"}}, {.name = (char[]){"x=2,seed=2"}}};
    struct fst_sweep s = {.journal = (char[]){"fuzz"},
                          .folder = (char[]){"folder"},
                          .task_name = (char[]){"t"},
                          .settings = {settings, sizeof settings - 1, 0},
                          .run = run,
                          .runs = 2};
    (void)!fst__journal_parse(&s, text, size, NULL);
    for (size_t i = 0; i < s.runs; i++)
        if (run[i].journal_done && !memmem(text, size, "done", 4) && !memmem(text, size, "\\u", 2))
            abort();
    if (s.settings.len != sizeof settings - 1)
        abort();
}

static void check_names(const fst_sweep *s)
{
    for (size_t i = 0; i < s->runs && i < MOST_RUNS; i++) {
        const char *name = s->run[i].name;
        if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 255)
            abort();
        for (const char *c = name; *c; c++)
            if (*c <= ' ' || *c > '~')
                abort();
        for (size_t k = 0; k < i; k++)
            if (!strcmp(s->run[k].name, name))
                abort();
    }
}

static void ask(char *text)
{
    const char *grid[MOST_LINES], *point[MOST_LINES];
    size_t grids = 0, points = 0;
    char *at = strchr(text, '\n');
    while (at && grids < MOST_LINES && points < MOST_LINES) {
        *at++ = 0;
        if (*at == ' ')
            point[points++] = at;
        else
            grid[grids++] = at;
        at = strchr(at, '\n');
    }
    const fst_sweep_spec spec = {.seeds = text, .grid = grid, .ngrid = grids, .point = point, .npoints = points};
    fst_sweep *s = fst_calloc(1, sizeof *s);
    if (!s)
        return;
    s->spec = &spec;
    s->lock = -1;
    s->runs_folder = fst_strdup("runs");
    s->logs_folder = fst_strdup("logs");
    if (s->runs_folder && s->logs_folder && !fst__sweep_ask(s, 5, NULL))
        check_names(s);
    fst_sweep_free(s);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (size && *text == '{')
        read_journal(text, size);
    else
        ask(text);
    free(text);
    return 0;
}
