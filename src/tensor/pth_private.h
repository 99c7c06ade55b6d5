/* pth_private.h - between pth.c (files of torch.save and their elements) and pth_find.c (which tensors they name).
 * Private to src/tensor. */
#ifndef FEDSTILL_TENSOR_PTH_PRIVATE_H
#define FEDSTILL_TENSOR_PTH_PRIVATE_H

#include "pickle_private.h"

/* A tensor on its way. */
struct fst__pth_entry {
    fst_tensor tensor;
    const fst__torch_tensor *source;
    size_t order;
};

struct fst__pth_job {
    const char *name;
    fst_pickle *pickle;
    struct fst__pth_entry *entries;
    size_t count, room, visits;
    size_t bytes, max_bytes; /* of names, entries, storages and copies */
    void **blocks;           /* one for each storage, then one for each tensor that needs one */
    size_t block_count;
    fst_error *err;
};

/* The tensors of the model, or, when prefix is not NULL and none of them begins with it, of the whole file, into
 * j->entries in the order of their names. */
FST_MUST fst_status fst__pth_find(struct fst__pth_job *j, const char *prefix);
/* Takes `bytes` off what the job may have. */
FST_MUST fst_status fst__pth_charge(struct fst__pth_job *j, uint64_t bytes);

#endif
