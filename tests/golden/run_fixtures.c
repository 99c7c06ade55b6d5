/*
 * Runs a folder of golden cases: run_fixtures FOLDER [KIND ...], of some kinds (op, model, loss ...) or all, on all
 * CPUs. Whatever needs a backend runs on each that this build has. Closes with "N passed, N failed, N skipped"; what is
 * skipped is named. Fails when a case failed, or when there is none, of one of the kinds or at all.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"

static bool open_case(struct golden *g, const char *path)
{
    fst_error err = {0};
    json_error_t je;
    *g = (struct golden){.path = path};
    if (fst_safetensors_open(&g->file, path, &err)) {
        golden_fail(g, "%s", err.message);
        return false;
    }
    const char *format = fst_safetensors_meta(g->file, "format"), *kind = fst_safetensors_meta(g->file, "kind");
    const char *name = fst_safetensors_meta(g->file, "name"), *attrs = fst_safetensors_meta(g->file, "attrs");
    g->salt = fst_safetensors_meta(g->file, "salt");
    if (!format || strcmp(format, "fedstill-fixture-1") || !kind || !name || !g->salt || !attrs) {
        golden_fail(g, "not a fedstill-fixture-1 file");
        return false;
    }
    snprintf(g->kind, sizeof g->kind, "%s", kind);
    snprintf(g->name, sizeof g->name, "%s", name);
    g->attrs = json_loads(attrs, 0, &je);
    if (!g->attrs) {
        golden_fail(g, "attrs: %s", je.text);
        return false;
    }
    return true;
}

static void over_backends(struct golden *g, void (*run)(struct golden *))
{
    char reason[sizeof g->reason];
    for (const char *const *b = fst_backend_names(); *b && g->outcome == PASSED; b++) {
        g->backend = *b;
        run(g);
        if (g->outcome == FAILED) {
            memcpy(reason, g->reason, sizeof reason);
            snprintf(g->reason, sizeof g->reason, "[%s] %.200s", *b, reason);
        }
    }
}

static void run_case(struct golden *g)
{
    if (!strcmp(g->kind, "op"))
        over_backends(g, golden_op);
    else if (!strcmp(g->kind, "model"))
        over_backends(g, golden_model);
    else if (!strcmp(g->kind, "loss"))
        golden_loss(g);
    else if (!strcmp(g->kind, "optim"))
        golden_optim(g);
    else if (!strcmp(g->kind, "schedule"))
        golden_schedule(g);
    else if (!strcmp(g->kind, "aggregate"))
        golden_aggregate(g);
    else
        golden_skip(g, g->kind);
}

/* ---- the folder ----------------------------------------------------------------------------------- */

enum { KINDS = 16 };

struct line { /* what is told of a case, in the folder's order whichever was done first */
    char *file;
    enum outcome outcome;
    char reason[sizeof((struct golden *)0)->reason];
};

struct folder {
    const char *path;
    struct line *lines;
};

/* A file KIND-NAME.safetensors of one of the kinds, or of any when there are none; -1: not one of them. */
static int kind_of(const char *file, char **kinds, int count)
{
    size_t n = strlen(file), m = strlen(".safetensors");
    if (n <= m || strcmp(file + n - m, ".safetensors"))
        return -1;
    for (int i = 0; i < count; i++)
        if (!strncmp(file, kinds[i], strlen(kinds[i])) && file[strlen(kinds[i])] == '-')
            return i;
    return count ? -1 : 0;
}

static void run_file(void *ctx, int worker, size_t i)
{
    const struct folder *f = ctx;
    struct line *l = &f->lines[i];
    char path[4096];
    struct golden g;
    (void)worker;
    snprintf(path, sizeof path, "%s/%s", f->path, l->file);
    if (open_case(&g, path))
        run_case(&g);
    l->outcome = g.outcome;
    memcpy(l->reason, g.reason, sizeof l->reason);
    json_decref(g.attrs);
    fst_safetensors_free(g.file);
}

/* The files of these kinds; 0 when one of the kinds has none. */
static size_t list_files(struct folder *f, char **kinds, int count)
{
    struct dirent **list;
    int found[KINDS] = {0}, n = scandir(f->path, &list, NULL, alphasort);
    size_t files = 0;
    f->lines = n > 0 ? calloc((size_t)n, sizeof *f->lines) : NULL;
    for (int i = 0; i < n; i++) {
        int kind = kind_of(list[i]->d_name, kinds, count);
        if (kind >= 0 && f->lines) {
            f->lines[files++].file = strdup(list[i]->d_name);
            found[kind] = 1;
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    for (int i = 0; i < count; i++)
        if (!found[i])
            files = 0;
    return files;
}

int main(int argc, char **argv)
{
    static const char *const words[] = {"ok", "FAILED", "skipped"};
    struct folder f = {.path = argv[1]};
    int count[3] = {0};
    fst_pool *pool = NULL;
    if (argc < 2 || argc - 2 > KINDS) {
        fprintf(stderr, "usage: run_fixtures FOLDER [KIND ...]\n");
        return 2;
    }
    size_t n = list_files(&f, argv + 2, argc - 2);
    if (!n) {
        fprintf(stderr, "%s: no fixtures there, or none of these kinds\n", argv[1]);
        return 1;
    }
    json_object_seed(1); /* the first use of a table of jansson's seeds it: not from several threads at once */
    if (fst_pool_new(&pool, fst_cpu_count(), NULL))
        return 1;
    fst_pool_run(pool, run_file, &f, n);
    fst_pool_free(pool);
    for (size_t i = 0; i < n; i++) {
        struct line *l = &f.lines[i];
        count[l->outcome]++;
        printf("%-8s %s%s%s\n", words[l->outcome], l->file, l->reason[0] ? ": " : "", l->reason);
        free(l->file);
    }
    free(f.lines);
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] ? 1 : 0;
}
