/* blob_room.h - where a fetch keeps what has come of its blob: in memory, or in a file where a later process finds it.
 */
#ifndef FST_TRANSPORT_BLOB_ROOM_H
#define FST_TRANSPORT_BLOB_ROOM_H

#include "fedstill/blob.h"

struct room {
    uint64_t bytes;
    unsigned char *memory; /* NULL: it is a file */
    char *path, *list;     /* list: which parts are in it */
    int fd, listed;        /* open files; -1: none */
    unsigned char *part;   /* room for one, to be hashed */
    void *map;
    size_t length;
};

/* file: NULL for memory. here: [parts], set for parts that an earlier fetch of the same blob left there. */
fst_status fst__room_open(struct room *r, const fst_blob_manifest *m, const char *file, bool *here, fst_error *err);
/* remove: the file too. */
void fst__room_close(struct room *r, bool remove);
/* Keeps a part; false when it could not be written (said in the log). */
bool fst__room_put(struct room *r, uint32_t index, const void *data, size_t len);
/* A part that is there, until the next call; NULL when it cannot be read. */
const void *fst__room_get(struct room *r, uint32_t index, size_t len);
/* No part of it is there. */
void fst__room_forget(struct room *r, uint32_t parts);
/* All of it, until it is closed. */
fst_status fst__room_view(struct room *r, const void **out, fst_error *err);

#endif
