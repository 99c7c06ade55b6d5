/* lines.h - the head of a site's files: one line of JSON that says of what run and round the bytes after it are. */
#ifndef FST_FLEET_LINES_H
#define FST_FLEET_LINES_H

#include "wire.h"

struct line_of_file {
    uint64_t run, epoch;
    int64_t round; /* from 0; -1: there is no file */
    char stage[FST__STAGE_NAME];
    double seconds;
    bool has_manifest;
    fst_blob_manifest manifest; /* of the bytes */
};
#define FST__NO_LINE ((struct line_of_file){.round = -1})

/* Appends the line with its end. */
fst_status fst__line_write(const struct line_of_file *l, fst_buf *out, fst_error *err);
/* *at: where the bytes begin. FST_E_FORMAT for all that was not written by it. */
fst_status fst__line_read(struct line_of_file *out, const void *data, size_t len, size_t *at, fst_error *err);

#endif
