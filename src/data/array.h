/* array.h - where arrays of samples stand and what they are called: between array.c, which reads them, and
 * array_names.c, which finds them. Private to src/data. */
#ifndef FEDSTILL_DATA_ARRAY_H
#define FEDSTILL_DATA_ARRAY_H

#include "formats.h"

enum { FST__ARRAY_NAME = 256 };

/* A place that holds arrays by name. */
struct fst__store {
    enum { FST__SAFETENSORS, FST__NPZ, FST__NPY } kind;
    char *path; /* the file; for FST__NPY the folder */
    fst_safetensors *file;
    char **names; /* FST__NPZ */
    size_t count;
    bool one_split;               /* the file's own name says the split: names in it need not */
    char only_x[FST__ARRAY_NAME]; /* the specification named one .npy file: this one holds the samples */
};

/* Does the path look like arrays? */
bool fst__store_probe(const char *path);
FST_MUST fst_status fst__store_open(struct fst__store *st, const fst_source_spec *spec, fst_error *err);
bool fst__store_has(const struct fst__store *st, const char *name);
/* The names of a split's samples and labels. Arrays of one split never stand in for those of another. */
FST_MUST fst_status fst__store_names(const struct fst__store *st, const fst_source_spec *spec, char x[FST__ARRAY_NAME],
                                     char y[FST__ARRAY_NAME], fst_error *err);
void fst__store_close(struct fst__store *st);

#endif
