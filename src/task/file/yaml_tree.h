/*
 * yaml_tree.h - a YAML text (so JSON too) as a tree of nodes that know where they stand.
 *
 * Only the part of YAML that a configuration needs: one document of maps, lists and scalars. Anchors,
 * aliases, tags, keys that are not text, and keys given twice are refused. Types are not guessed here:
 * a scalar is its text and whether it was quoted; the schema decides what it must be.
 *
 *  - Keys that begin with `_` are comments: they and what is under them are dropped.
 *  - `${NAME}` in a scalar becomes the environment variable, `${NAME:-text}` falls back to text when
 *    the variable is unset or empty (text reaches to the next `}`), `$$` is a dollar sign. Within
 *    YAML's own [...] and {...} such a scalar needs quotes, because of its braces; `expanded` tells.
 *  - Strings hold no NUL and are valid UTF-8.
 */
#ifndef FST_TASK_YAML_TREE_H
#define FST_TASK_YAML_TREE_H

#include "fedstill/base.h"

enum {
    FST__YAML_MAX_BYTES = 1 << 20,   /* of the text, and of one override */
    FST__YAML_MAX_DEPTH = 32,        /* maps and lists inside each other */
    FST__YAML_MAX_NODES = 100000,    /* of the whole tree with its overrides */
    FST__YAML_MAX_EXPANDED = 4 << 20 /* bytes of all scalars after the environment is filled in */
};

typedef enum fst__node_kind { FST__SCALAR, FST__LIST, FST__MAP } fst__node_kind;

typedef struct fst__node {
    fst__node_kind kind;
    bool quoted;      /* scalar: written in quotes or as a block; never null then */
    bool expanded;    /* scalar: something came from the environment */
    const char *text; /* scalar */
    const char *key;  /* when the parent is a map */
    int line, column; /* of the value, from 1; line 0: it came from an override */
    int key_line, key_column;
    const char *source; /* file name, or the override as it was written */
    size_t count;       /* children */
    struct fst__node *first, *last, *next;
    /* Map that an override put in a scalar's place (optimizer: adam, then optimizer.learning_rate=1):
     * that scalar, so that the shorthand's meaning is not lost. */
    const struct fst__node *was;
} fst__node;

typedef struct fst__tree fst__tree;

/* `name` stands for the text in messages. */
FST_MUST fst_status fst__tree_parse(fst__tree **out, const char *name, const char *text, size_t len, fst_error *err);
void fst__tree_free(fst__tree *t);
const fst__node *fst__tree_root(const fst__tree *t);

/*
 * Applies "a.b.c=value". The value is read as YAML; nothing behind the `=` is an empty text. Missing
 * maps are made, a number addresses an existing entry of a list. The tree is untouched on failure.
 */
FST_MUST fst_status fst__tree_set(fst__tree *t, const char *assignment, fst_error *err);

/* The child of a map, or NULL. */
const fst__node *fst__node_find(const fst__node *map, const char *key);
/* A scalar written without quotes as null, Null, NULL or ~: "as if the key were not there". */
bool fst__node_is_null(const fst__node *n);
/* "task.yaml:14:7" (the key's place with at_key), or "--set a.b=c" for what an override brought. Returns out. */
const char *fst__node_where(const fst__node *n, bool at_key, char *out, size_t size);

/* Decodes one code point of well-formed UTF-8 and moves *at on; -1 when it is not. */
int32_t fst__yaml_code_point(const char **at);
/* Text from outside made fit for a one-line message: control characters become '?', and what is
 * longer than `most` bytes ends in "...". Returns out, which holds `most` + 4 bytes or more. */
const char *fst__shown(const char *text, size_t most, char *out, size_t size);

#endif
