/*
 * Named arrays of a file from elsewhere, whichever its format: a new one is a struct fst__weights_format and a line in
 * weights.c's table. Which format a file has is said by its first bytes, never by its name.
 */
#ifndef FST_MODELS_WEIGHTS_H
#define FST_MODELS_WEIGHTS_H

#include "fedstill/models.h"

enum { FST__WEIGHTS_HEAD = 512, FST__WEIGHTS_MAX = 1 << 16 /* tensors */ };

struct fst__weights_format {
    const char *name;
    /* head: the first `len` bytes, at most FST__WEIGHTS_HEAD. */
    bool (*probe)(const unsigned char *head, size_t len);
    /* data NULL: the file at `name`; otherwise these bytes, which outlive it. Checks all that it says of itself. A file
     * of more than a model shows what begins with `prefix` (may be NULL), if the model has nothing that does. */
    fst_status (*open)(void **file, const char *name, const void *data, size_t len, const char *prefix, fst_error *err);
    void (*free)(void *file);
    size_t (*count)(const void *file);
    fst_tensor (*at)(const void *file, size_t i); /* data NULL; the name lives as long as the file */
    /* As it is: `bytes` is its exact size. Converted: `count` is its element count. */
    fst_status (*read)(const void *file, size_t i, void *dst, size_t bytes, fst_error *err);
    fst_status (*read_f32)(const void *file, size_t i, float *dst, size_t count, fst_error *err);
    /* The value of a key that the file says of itself; NULL: it does not, or (the function) its format cannot. */
    const char *(*meta)(const void *file, const char *key);
    /* Whether tensor i is made of others, so that inference is the same; NULL: none is. */
    bool (*made)(const void *file, size_t i);
    /* Of files that say what is computed: which network it is (*arch NULL: any may be) and its options, in and out; the
     * tensors then have the network's names, and there are none before. NULL: files that only have tensors. */
    fst_status (*resolve)(void *file, const fst_import_options *o, const char **arch, fst_model_config *c,
                          fst_error *err);
};
extern const struct fst__weights_format fst__weights_onnx; /* in builds with ONNX */

struct fst__weights {
    const struct fst__weights_format *format;
    void *file;
};

/* What a file that begins so is ("an HTML page, not weights ..."), NULL when that is not known (foreign.c). */
const char *fst__foreign_kind(const unsigned char *head, size_t len);
/* The first bytes of a file, at most FST__WEIGHTS_HEAD. */
fst_status fst__weights_head(const char *path, unsigned char *head, size_t *len, fst_error *err);
/* data NULL: the file at `name`. FST_E_LIMIT above FST__WEIGHTS_MAX tensors. */
fst_status fst__weights_open(struct fst__weights *w, const char *name, const void *data, size_t len, const char *prefix,
                             fst_error *err);
void fst__weights_release(struct fst__weights *w);

#endif
