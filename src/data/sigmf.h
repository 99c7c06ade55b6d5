/* sigmf.h - a SigMF recording's metadata, parsed and checked; samples are not touched here. Private to src/data, its
 * tests and its fuzz target. */
#ifndef FEDSTILL_DATA_SIGMF_H
#define FEDSTILL_DATA_SIGMF_H

#include "formats.h"

typedef enum fst__sigmf_type { FST__CF32_LE, FST__CI16_LE, FST__CU8 } fst__sigmf_type;

typedef struct fst__sigmf_note {
    uint64_t start, count; /* samples, from the beginning of the data file */
    const char *label;     /* lives as long as the recording */
    float snr;             /* dB, NaN when not known */
    bool has_burst;
    int64_t burst; /* >= 0 */
} fst__sigmf_note;

typedef struct fst__sigmf {
    char *name; /* of the metadata file */
    void *json; /* json_t */
    fst__sigmf_type type;
    const char *sha512; /* of the data file; NULL: not given */
    void *classes;      /* json_t, fedstill:classes: texts, each once, in the order of labels; NULL: not given */
    fst__sigmf_note *notes;
    size_t count;
} fst__sigmf;

/* Parses `text`, the content of a .sigmf-meta file. */
FST_MUST fst_status fst__sigmf_parse(fst__sigmf *out, const char *name, const char *text, size_t len, fst_error *err);
void fst__sigmf_release(fst__sigmf *m);
/* Bytes of one complex sample. */
size_t fst__sigmf_width(fst__sigmf_type t);
/* Every annotation must lie inside a data file of `bytes`. */
FST_MUST fst_status fst__sigmf_check_data(const fst__sigmf *m, uint64_t bytes, fst_error *err);
/* `count` complex samples to `count` values of I, then `count` of Q. */
void fst__sigmf_convert(fst__sigmf_type t, const unsigned char *raw, size_t count, float *dst);
/* One recording whose data lie in memory, as a source. */
FST_MUST fst_status fst__sigmf_read_memory(fst_source **out, const char *name, const char *meta, size_t meta_len,
                                           const void *data, size_t data_len, size_t window, fst_error *err);

#endif
