/* Reads bytes as a task file against a table that uses every kind of field. What is accepted must
 * survive being written and read again, with the same meaning; then it is overridden by its own text. */
#include <stdlib.h>
#include <string.h>

#include "schema.h"

struct step {
    int kind;
    int64_t size;
    char *note;
    double weights[3];
    size_t nweights;
};

struct task {
    char *name;
    int64_t seed;
    bool verbose, has_first, has_limit;
    double rate, limit;
    int64_t *widths;
    size_t nwidths;
    char **paths;
    size_t npaths;
    struct step *steps;
    size_t nsteps;
    struct step first, last;
};

static const char *const kinds[] = {"crop", "flip", "scale", NULL};
static const fst__field step_fields[] = {
    FST__F_ENUM(struct step, kind, kinds, "crop", "what to do"),
    FST__F_INT(struct step, size, -8, INT64_MAX, "3", "how much"),
    FST__F_STRING(struct step, note, NULL, "anything"),
    FST__F_DOUBLES(struct step, weights, nweights, 3, -INFINITY, INFINITY, "[1, .5]", "a weight a channel"),
};
static const fst__schema step_schema = FST__SCHEMA(struct step, step_fields, .shorthand = "kind");
static const fst__field task_fields[] = {
    FST__F_STRING(struct task, name, "none", "shown in reports"),
    FST__F_INT(struct task, seed, 0, INT64_MAX, "42", "of all random draws"),
    FST__F_BOOL(struct task, verbose, "false", "say more", .aside = true),
    FST__F_ABOVE(struct task, rate, 0, 1, "0.1", "step size"),
    FST__F_DOUBLE(struct task, limit, -INFINITY, INFINITY, NULL, "stop there", FST__PRESENT(struct task, has_limit)),
    FST__F_INTS(struct task, widths, nwidths, 16, INT64_MIN, INT64_MAX, "[8]", "layers"),
    FST__F_STRINGS(struct task, paths, npaths, 16, NULL, "files"),
    FST__F_MAPS(struct task, steps, struct step, nsteps, 16, &step_schema, "[flip]", "in order"),
    FST__F_OPTIONAL(struct task, first, has_first, &step_schema, "before all"),
    FST__F_MAP(struct task, last, &step_schema, "behind all"),
};
static const fst__schema schema = FST__SCHEMA(struct task, task_fields);

static void must(bool fine)
{
    if (!fine)
        abort();
}

/* Dumps the task, reads the dump, and compares the canonical forms. */
static void there_and_back(const struct task *t)
{
    struct task again;
    fst_buf text = {0}, a = {0}, b = {0};
    must(!fst__schema_dump(&schema, t, &text, NULL));
    fst_status s = fst__schema_load(&schema, "dump", text.data, text.len, NULL, 0, &again, NULL);
    if (s == FST_E_LIMIT) { /* escapes may make the text longer than what is read */
        fst_buf_release(&text);
        return;
    }
    must(!s);
    must(!fst__schema_json(&schema, t, &a, NULL) && !fst__schema_json(&schema, &again, &b, NULL));
    must(a.len == b.len && !memcmp(a.data, b.data, a.len));
    fst__schema_release(&schema, &again);
    fst_buf_release(&text);
    fst_buf_release(&a);
    fst_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct task t;
    fst_error err;
    fst__tree *tree;
    const char *text = (const char *)data;
    if (!fst__schema_load(&schema, "fuzz", text, size, NULL, 0, &t, &err)) {
        there_and_back(&t);
        fst__schema_release(&schema, &t);
    }
    if (fst__tree_parse(&tree, "fuzz", text, size, &err))
        return 0;
    char *assignment = malloc(size + 1);
    must(assignment != NULL);
    memcpy(assignment, data, size);
    assignment[size] = 0;
    /* refused or not: the tree must still be whole */
    if (!fst__tree_set(tree, assignment, &err) || !fst__tree_set(tree, "first.note=x", &err) ||
        !fst__tree_set(tree, "steps.0.size=5", &err)) {
        if (!fst__schema_read(&schema, tree, &t, &err)) {
            there_and_back(&t);
            fst__schema_release(&schema, &t);
        }
    }
    free(assignment);
    fst__tree_free(tree);
    return 0;
}
