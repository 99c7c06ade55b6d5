/* partition.h - what making a partition and reading one from a file share. Private to src/data. */
#ifndef FEDSTILL_DATA_PARTITION_H
#define FEDSTILL_DATA_PARTITION_H

#include "fedstill/data.h"

#define FST__PARTITION_MAX_CLIENTS 1000000
#define FST__PARTITION_MAX_CELLS ((size_t)1 << 27) /* clients x classes */

/* Samples that stay together, in order of their first one: bursts where the source has them, else single samples. */
struct fst__groups {
    size_t count;
    uint32_t *of;    /* by place in the subset: the number of its group */
    int32_t *labels; /* by group: that of its first sample */
    uint32_t *sizes; /* by group: samples */
};
struct fst__member {
    int64_t group;
    uint32_t at;
};
FST_MUST fst_status fst__groups_find(struct fst__groups *out, const fst_source *s, const uint32_t *subset, size_t n,
                                     fst_error *err);
void fst__groups_release(struct fst__groups *g);

/* Allocates index, begin and counts for the clients, classes and samples that p names. */
FST_MUST fst_status fst__partition_reserve(fst_partition *p, fst_error *err);
/* index and begin from each sample's owner (-1: nobody); begin must be zeroed. */
void fst__partition_fill(fst_partition *p, const int32_t *owner);
/* As fst_partition_read; data must outlive the call. */
FST_MUST fst_status fst__partition_read_memory(fst_partition *out, const char *name, const void *data, size_t len,
                                               fst_error *err);

#endif
