/* archive.h - zip archives as npz and PyTorch use them, read with limits. Private to src/tensor. */
#ifndef FEDSTILL_TENSOR_ARCHIVE_H
#define FEDSTILL_TENSOR_ARCHIVE_H

#include <zip.h>

#include "fedstill/base.h"

/* kind: "npz (zip)" and the like, for messages. Close with zip_discard. */
FST_MUST fst_status fst__archive_open(zip_t **out, const char *path, const char *kind, fst_error *err);
/* Over bytes that outlive it. */
FST_MUST fst_status fst__archive_open_memory(zip_t **out, const char *name, const char *kind, const void *data,
                                             size_t len, fst_error *err);
/* Opens entry i, of which *size bytes will come; what its directory entry cannot keep is refused. label: for messages.
 */
FST_MUST fst_status fst__archive_member(zip_file_t **out, zip_t *z, zip_uint64_t i, const char *label, uint64_t *size,
                                        fst_error *err);
/* All bytes of a member were read: there are no more, and the checksum is right. */
FST_MUST fst_status fst__archive_end(zip_file_t *f, const char *label, fst_error *err);

#endif
