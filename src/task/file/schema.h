/*
 * schema.h - tables that say how a task file's maps become C structs, and everything that follows
 * from such a table: reading with exact errors, releasing, writing back, fingerprints, documentation.
 *
 * A table is static data:
 *
 *     struct optimizer { int name; double learning_rate; };
 *     static const char *const optimizer_names[] = {"sgd", "adam", NULL};
 *     static const fst__field optimizer_fields[] = {
 *         FST__F_ENUM(struct optimizer, name, optimizer_names, "adam", "update rule"),
 *         FST__F_ABOVE(struct optimizer, learning_rate, 0, 10, "0.001", "step size"),
 *     };
 *     static const fst__schema optimizer_schema =
 *         FST__SCHEMA(struct optimizer, optimizer_fields, .shorthand = "name");
 *
 * The macros check member types at compile time. The key is the member's name. Every field macro
 * takes further designated initialisers at its end, for instance `.required = true`,
 * `.aside = true` or `FST__PRESENT(struct task, has_seed)`.
 *
 * What a field's effect depends on stands in its `when`: `alpha` of a table may say
 *
 *     .when = {FST__WITH("partition", "dirichlet", "quantity")}
 *
 * A key that is given although its conditions do not hold is refused, since whoever wrote it expects
 * something of it; 0, false and an empty map ask for nothing and are accepted. The reference prints the
 * conditions; what is written back leaves such fields out.
 *
 * How defaults work: `fallback` is YAML text and goes through the same reader as a file. A number,
 * bool or enum has a fallback, is required, or has a `present` flag, so that no made-up zero looks like
 * a choice. Without any of these a string is NULL, a list empty, and a map is read as an empty map, so
 * that its own defaults hold; with a `present` flag a map that is not given stays zero. `key: null` is
 * as good as no key.
 */
#ifndef FST_TASK_SCHEMA_H
#define FST_TASK_SCHEMA_H

#include <math.h>

#include "yaml_tree.h"

typedef enum fst__type {
    FST__TYPE_STRING, /* char *, an fst_alloc'd copy */
    FST__TYPE_INT,    /* int64_t */
    FST__TYPE_DOUBLE, /* double, always finite */
    FST__TYPE_BOOL,   /* bool */
    FST__TYPE_ENUM,   /* int (or an enum of that size): the index in `names` */
    FST__TYPE_MAP,    /* the struct of `table` */
    FST__TYPE_NAMED   /* fst__named *: a map with free keys, each value being of one of several tables */
} fst__type;

typedef struct fst__schema fst__schema;

/* What an entry of a map with free keys may be. Which one it is says the entry's key "kind", or its name when that is
 * missing. */
typedef struct fst__choice {
    const char *name, *help;
    const fst__schema *table;
} fst__choice;

/* Such an entry. */
typedef struct fst__named {
    char *name;
    size_t choice;
    void *object; /* the struct of the choice's table */
} fst__named;

enum { FST__CONDITION_VALUES = 40 };
/* What another field must be. It is looked for in the same map, then in the maps around it; "a.b" goes down from there.
 * Below a map with free keys, b is the kind of which there is an entry. */
typedef struct fst__condition {
    const char *key;    /* NULL: no condition */
    const char *or_key; /* without values: that this one is set is as good; NULL: none */
    bool without;       /* the field must not be so */
    /* Of an enum: one of these, NULL after the last; none: it is set, that is true, not 0, not empty, there. */
    const char *values[FST__CONDITION_VALUES];
} fst__condition;
#define FST__WITH(name, ...)                     \
    {                                            \
        .key = (name), .values = { __VA_ARGS__ } \
    }
#define FST__WITHOUT(name, ...)                                   \
    {                                                             \
        .key = (name), .without = true, .values = { __VA_ARGS__ } \
    }
#define FST__WITH_ANY(name) \
    {                       \
        .key = (name)       \
    }
#define FST__WITH_EITHER(name, other)    \
    {                                    \
        .key = (name), .or_key = (other) \
    }
#define FST__WITHOUT_ANY(name)         \
    {                                  \
        .key = (name), .without = true \
    }
enum { FST__CONDITIONS = 3 };

typedef struct fst__field {
    const char *key, *help;
    fst__type type;
    bool required;
    bool list;      /* a list of that type */
    bool exclusive; /* double: `min` itself is not accepted */
    bool aside;     /* does not change results: left out of fst__schema_json */
    bool unused;    /* is accepted and never read: a warning says so */
    size_t offset;
    const char *fallback;
    int64_t int_min, int_max;                   /* INT64_MIN, INT64_MAX: no limit */
    double min, max;                            /* -INFINITY, INFINITY: no limit */
    const char *const *names;                   /* of an enum, NULL-terminated */
    const fst__schema *table;                   /* of a map */
    bool (*choice)(size_t i, fst__choice *out); /* of a map with free keys: the i-th choice; false: no more */
    size_t present;  /* offset of a bool that says whether the key was given, plus 1; 0: none */
    size_t count_at; /* list: offset of its size_t count */
    size_t count_min, count_max;
    fst__condition when[FST__CONDITIONS]; /* all must hold for the field to have an effect */
    size_t room;      /* bytes of the array or struct in the struct; 0: a list that is an fst_alloc'd array */
    const char *word; /* of a list: what may stand in its place; the bool at word_at is then true, the list empty */
    size_t word_at;
} fst__field;

/* What a table's `check` says about a struct that is right field by field, but not as a whole. */
typedef struct fst__complaint {
    const char *key; /* the field to point at, "a.b" below a map; NULL: the map itself */
    char text[300];  /* "must be smaller than rounds (10)" */
    char room[160];  /* for a key that is put together */
} fst__complaint;

struct fst__schema {
    const fst__field *fields;
    size_t count;
    size_t size;           /* of the struct */
    const char *shorthand; /* key that a bare scalar stands for: `optimizer: adam`; NULL: none */
    /* Optional: false, with *c filled, when fields do not fit together; with no text in it when memory was short. */
    bool (*check)(const void *object, fst__complaint *c);
};

/* ---- macros for tables -------------------------------------------------------------------- */

#define FST__SCHEMA(T, table_fields, ...)                                                                    \
    {                                                                                                        \
        .fields = (table_fields), .count = sizeof(table_fields) / sizeof *(table_fields), .size = sizeof(T), \
        __VA_ARGS__                                                                                          \
    }

/* offsetof that compiles only if the member has that type */
#define FST__AT(T, member, ctype) _Generic(((T *)0)->member, ctype : offsetof(T, member))
#define FST__PRESENT(T, member) .present = FST__AT(T, member, bool) + 1

#define FST__F_STRING(T, member, dflt, text, ...)                                                         \
    {                                                                                                     \
        .key = #member, .type = FST__TYPE_STRING, .offset = FST__AT(T, member, char *), .fallback = dflt, \
        .help = text, __VA_ARGS__                                                                         \
    }
#define FST__F_INT(T, member, lo, hi, dflt, text, ...)                                                              \
    {                                                                                                               \
        .key = #member, .type = FST__TYPE_INT, .offset = FST__AT(T, member, int64_t), .int_min = lo, .int_max = hi, \
        .fallback = dflt, .help = text, __VA_ARGS__                                                                 \
    }
#define FST__F_DOUBLE(T, member, lo, hi, dflt, text, ...)                                                     \
    {                                                                                                         \
        .key = #member, .type = FST__TYPE_DOUBLE, .offset = FST__AT(T, member, double), .min = lo, .max = hi, \
        .fallback = dflt, .help = text, __VA_ARGS__                                                           \
    }
/* a double > lo */
#define FST__F_ABOVE(T, member, lo, hi, dflt, text, ...) \
    FST__F_DOUBLE(T, member, lo, hi, dflt, text, .exclusive = true, __VA_ARGS__)
#define FST__F_BOOL(T, member, dflt, text, ...)                                                                     \
    {                                                                                                               \
        .key = #member, .type = FST__TYPE_BOOL, .offset = FST__AT(T, member, bool), .fallback = dflt, .help = text, \
        __VA_ARGS__                                                                                                 \
    }
#define FST__F_ENUM(T, member, name_list, dflt, text, ...)                                          \
    {                                                                                               \
        .key = #member, .type = FST__TYPE_ENUM, .names = name_list, .fallback = dflt, .help = text, \
        .offset = _Generic(((T *)0)->member, int                                                    \
                           : offsetof(T, member), unsigned                                          \
                           : offsetof(T, member)),                                                  \
        __VA_ARGS__                                                                                 \
    }
/* A struct inside the struct, with its own table. */
#define FST__F_MAP(T, member, its_table, text, ...)                                                             \
    {                                                                                                           \
        .key = #member, .type = FST__TYPE_MAP, .offset = offsetof(T, member), .room = sizeof(((T *)0)->member), \
        .table = its_table, .help = text, __VA_ARGS__                                                           \
    }
/* The same, but it may be missing: the bool `flag` says whether it is there. */
#define FST__F_OPTIONAL(T, member, flag, its_table, text, ...) \
    FST__F_MAP(T, member, its_table, text, FST__PRESENT(T, flag), __VA_ARGS__)

/* A map of at most `most` entries with free keys. The member is a fst__named *. */
#define FST__F_NAMED(T, member, counter, most, its_choice, text, ...)                                               \
    {                                                                                                               \
        .key = #member, .type = FST__TYPE_NAMED, .offset = FST__AT(T, member, fst__named *),                        \
        .count_at = FST__AT(T, counter, size_t), .count_max = most, .choice = its_choice, .help = text, __VA_ARGS__ \
    }

/* Lists of at most `most` entries. The member is an array in the struct or a pointer; `counter` is a
 * size_t member. */
#define FST__LIST_OF(T, member, ctype, counter, most) \
    .key = #member, .list = true, .offset = FST__AT(T, member, ctype *), .count_at = FST__AT(T, counter, size_t),    \
    .count_max = most,                                                                                               \
    .room = _Generic(&((T *)0)->member, ctype **: (size_t)0, default: sizeof(((T *)0)->member))
#define FST__F_STRINGS(T, member, counter, most, dflt, text, ...)                                                 \
    {                                                                                                             \
        .type = FST__TYPE_STRING, FST__LIST_OF(T, member, char *, counter, most), .fallback = dflt, .help = text, \
        __VA_ARGS__                                                                                               \
    }
#define FST__F_INTS(T, member, counter, most, lo, hi, dflt, text, ...)                                        \
    {                                                                                                         \
        .type = FST__TYPE_INT, FST__LIST_OF(T, member, int64_t, counter, most), .int_min = lo, .int_max = hi, \
        .fallback = dflt, .help = text, __VA_ARGS__                                                           \
    }
#define FST__F_DOUBLES(T, member, counter, most, lo, hi, dflt, text, ...)                               \
    {                                                                                                   \
        .type = FST__TYPE_DOUBLE, FST__LIST_OF(T, member, double, counter, most), .min = lo, .max = hi, \
        .fallback = dflt, .help = text, __VA_ARGS__                                                     \
    }
#define FST__F_MAPS(T, member, ctype, counter, most, its_table, dflt, text, ...)                                    \
    {                                                                                                               \
        .type = FST__TYPE_MAP, FST__LIST_OF(T, member, ctype, counter, most), .table = its_table, .fallback = dflt, \
        .help = text, __VA_ARGS__                                                                                   \
    }

/* Behind a list: a word that may stand in its place. */
#define FST__OR_WORD(T, text, member) .word = text, .word_at = FST__AT(T, member, bool)

/* ---- what a table can do ------------------------------------------------------------------ */

/*
 * Fills the whole struct from a tree. Up to five errors are reported at once, a line each:
 *   task.yaml:14:7: stages.edge_kd.temprature: unknown key; did you mean "temperature"? accepted: ...
 *   task.yaml:15:14: stages.edge_kd.epochs: "fast" is not a whole number from 1 to 100000
 * On success the caller releases *out with fst__schema_release.
 */
FST_MUST fst_status fst__schema_read(const fst__schema *s, const fst__tree *tree, void *out, fst_error *err);

/* Parses the text, applies the overrides ("a.b=c") in order, reads. */
FST_MUST fst_status fst__schema_load(const fst__schema *s, const char *name, const char *text, size_t len,
                                     const char *const *sets, size_t nsets, void *out, fst_error *err);

/* What happens to keys of a text that have no effect. Those of overrides are always refused. */
typedef enum fst__unused { FST__UNUSED_REFUSED, FST__UNUSED_WARNED, FST__UNUSED_IGNORED } fst__unused;
FST_MUST fst_status fst__schema_load_as(const fst__schema *s, const char *name, const char *text, size_t len,
                                        const char *const *sets, size_t nsets, fst__unused unused, void *out,
                                        fst_error *err);

/* Frees what reading allocated and zeroes the struct. Takes NULL and zeroed structs. */
void fst__schema_release(const fst__schema *s, void *object);

/* Appends the struct as YAML that fst__schema_load reads back to the same meaning: every default
 * spelled out, in the order of the tables; fields without effect are left out. */
FST_MUST fst_status fst__schema_dump(const fst__schema *s, const void *object, fst_buf *out, fst_error *err);

/* Appends canonical JSON: no blanks, keys sorted, defaults spelled out, numbers in their shortest form
 * that reads back exactly, fields marked `aside` left out. Same meaning, same bytes: for digests. */
FST_MUST fst_status fst__schema_json(const fst__schema *s, const void *object, fst_buf *out, fst_error *err);

/* Finds the map "stages.edge_kd" in a struct: its table and its place. FST_E_ARGUMENT when there is
 * no such map or it is not present. An empty path is the struct itself. */
FST_MUST fst_status fst__schema_find(const fst__schema *s, const void *object, const char *path,
                                     const fst__schema **sub, const void **sub_object, fst_error *err);

/* Appends a reference in Markdown: a heading and a table of keys (type and range, default, help) for
 * every map, `heading` (2: "##") being the level of the first. */
FST_MUST fst_status fst__schema_reference(const fst__schema *s, const char *title, int heading, fst_buf *out,
                                          fst_error *err);

/* Checks the table itself, for tests: keys, limits, rooms and that every default is accepted. */
FST_MUST fst_status fst__schema_verify(const fst__schema *s, fst_error *err);

/* "a number > 0", "one of sgd, adam": what the field accepts. Always terminated. Returns out. */
const char *fst__field_accepts(const fst__field *f, char *out, size_t size);
/* The same of one entry of a list. */
const char *fst__value_accepts(const fst__field *f, char *out, size_t size);

/* ---- conditions (schema_effect.c) ----------------------------------------------------------- */

/* A map and those around it. */
typedef struct fst__scope {
    const struct fst__scope *up;
    const fst__schema *s;
    const void *object; /* NULL: tables alone */
} fst__scope;
/* The first condition of a field that does not hold in its map; NULL: the field has an effect. */
const fst__condition *fst__unmet(const fst__field *f, const fst__scope *in);
/* Why a key has no effect, and what it would need. Always terminated. Returns out. */
const char *fst__unmet_text(const fst__condition *c, const fst__scope *in, char *out, size_t size);
/* "with partition dirichlet or quantity", "without topology". Always terminated. Returns out. */
const char *fst__condition_text(const fst__condition *c, char *out, size_t size);
/* Does the field hold something else than 0, false, nothing? */
bool fst__is_set(const fst__field *f, const void *object);
/* NULL, or what is wrong with the conditions of a field of the innermost table. */
const char *fst__wrong_condition(const fst__field *f, const fst__scope *in);

/* ---- words and names (schema_words.c) --------------------------------------------------------- */

/* The entries of a map with free keys. */
const fst__named *fst__named_entries(const fst__field *f, const void *object, size_t *count);
/* The choice of that name of such a map; false: there is none. *i (may be NULL): its number. */
bool fst__choice_named(const fst__field *f, const char *name, size_t *i, fst__choice *out);
/* The key of an entry that says which choice it is. */
#define FST__KIND "kind"
enum { FST__MAX_WORD = 40 };
/* Is it a name of an entry: a-z, 0-9 and _, a letter first, not too long? */
bool fst__is_name(const char *t);
/* The field with this key; NULL: there is none. */
const fst__field *fst__find_field(const fst__schema *s, const char *key);
/* How many entries a list may have: an array in the struct may be smaller than count_max. */
size_t fst__most_entries(const fst__field *f);
/* Keeps the closer of *best and candidate, if it is close enough to be a slip of the fingers; *least: FST__MAX_WORD at
 * first. */
void fst__closer(const char *given, const char *candidate, int *least, const char **best);
/* Bytes of one value of the field. */
size_t fst__field_size(const fst__field *f);
/* The shortest decimal that reads back as x, in the C locale's form whatever the locale is; x finite. */
const char *fst__number_text(double x, char *out, size_t size);

#endif
