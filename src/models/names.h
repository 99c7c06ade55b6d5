/* Names of parameters elsewhere, and what they are called here. */
#ifndef FST_MODELS_NAMES_H
#define FST_MODELS_NAMES_H

#include "fedstill/tensor.h"

enum { FST__NAME = 512, FST__RULES = 4096 }; /* longer names are not mapped; more lines of a map refused */

struct fst__rule {
    const char *from, *to;
    bool used;
};
struct fst__map { /* what a map's text says */
    char *text;   /* owns the rules' */
    struct fst__rule *rules;
    size_t count;
};
/* text NULL: no rules. */
fst_status fst__map_init(struct fst__map *m, const char *text, const char *name, fst_error *err);
void fst__map_release(struct fst__map *m);

/* Whether `name` is a name of the network. */
typedef bool (*fst__wanted)(const void *ctx, const char *name);

/* Our name of `theirs` into out; where the network has none such, the most that can be said. False: the map leaves
 * the tensor out. */
bool fst__map_name(struct fst__map *m, const char *theirs, fst__wanted wanted, const void *ctx, char out[FST__NAME]);

#endif
