/*
 * Runs a folder of golden cases: run_fixtures FOLDER. Whatever needs a backend runs on each that this
 * build has. Closes with "N passed, N failed, N skipped"; what is skipped is named. Fails when a case
 * failed or when the folder holds none.
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

static int is_case(const struct dirent *e)
{
    size_t n = strlen(e->d_name), m = strlen(".safetensors");
    return n > m && !strcmp(e->d_name + n - m, ".safetensors");
}

int main(int argc, char **argv)
{
    static const char *const words[] = {"ok", "FAILED", "skipped"};
    struct dirent **list;
    int count[3] = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: run_fixtures FOLDER\n");
        return 2;
    }
    int n = scandir(argv[1], &list, is_case, alphasort);
    if (n <= 0) {
        fprintf(stderr, "%s: no fixtures there\n", argv[1]);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct golden g;
        snprintf(path, sizeof path, "%s/%s", argv[1], list[i]->d_name);
        if (open_case(&g, path))
            run_case(&g);
        count[g.outcome]++;
        printf("%-8s %s%s%s\n", words[g.outcome], list[i]->d_name, g.reason[0] ? ": " : "", g.reason);
        json_decref(g.attrs);
        fst_safetensors_free(g.file);
        free(list[i]);
    }
    free(list);
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] ? 1 : 0;
}
