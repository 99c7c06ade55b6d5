/* partition.h - what making a partition and reading one from a file share. Private to src/data. */
#ifndef FEDSTILL_DATA_PARTITION_H
#define FEDSTILL_DATA_PARTITION_H

#include "fedstill/data.h"

#define FST__PARTITION_MAX_CLIENTS 1000000
#define FST__PARTITION_MAX_CELLS ((size_t)1 << 27) /* clients x classes */

/* Allocates index, begin and counts for the clients, classes and samples that p names. */
FST_MUST fst_status fst__partition_reserve(fst_partition *p, fst_error *err);
/* index and begin from each sample's owner (-1: nobody); begin must be zeroed. */
void fst__partition_fill(fst_partition *p, const int32_t *owner);
/* As fst_partition_read; data must outlive the call. */
FST_MUST fst_status fst__partition_read_memory(fst_partition *out, const char *name, const void *data, size_t len,
                                               fst_error *err);

#endif
