/* sigmf.h - a SigMF recording's metadata, parsed and checked, its types of samples, and archives of recordings. Private
 * to src/data, its tests and its fuzz targets. */
#ifndef FEDSTILL_DATA_SIGMF_H
#define FEDSTILL_DATA_SIGMF_H

#include "formats.h"

#define FST__SIGMF_META ".sigmf-meta"
#define FST__SIGMF_DATA ".sigmf-data"
#define FST__SIGMF_ARCHIVE ".sigmf"

struct json_t;

/* ---- types of samples: sigmf_types.c ------------------------------------------------------------ */

/* What I and Q of a complex sample are: "ci16_le" is signed, 2 bytes, little-endian. */
typedef struct fst__sigmf_type {
    enum { FST__FLOATING, FST__SIGNED, FST__UNSIGNED } kind;
    unsigned bytes; /* of I alone: 1, 2, 4, 8 */
    bool big_endian;
} fst__sigmf_type;

/* FST_E_UNSUPPORTED, with what would be right, for real samples and what is no type of the standard. */
FST_MUST fst_status fst__sigmf_type_parse(fst__sigmf_type *out, const char *name, fst_error *err);
/* Bytes of one complex sample. */
size_t fst__sigmf_width(fst__sigmf_type t);
/* `count` complex samples to `count` values of I, then `count` of Q. Integers become -1 ... 1: signed ones are divided
 * by 2^(bits - 1); of unsigned ones 0 is -1 and the largest is 1. */
void fst__sigmf_convert(fst__sigmf_type t, const unsigned char *raw, size_t count, float *dst);

/* ---- metadata: sigmf_meta.c and sigmf_notes.c ---------------------------------------------------- */

/* An annotation with a label. */
typedef struct fst__sigmf_note {
    uint64_t start, count; /* samples, from the first one of the data file */
    const char *label;     /* lives as long as the recording */
    size_t index;          /* which of the file's annotations, for messages */
    float snr;             /* dB, NaN when not known */
    bool has_count;        /* false: to the end of its capture; fst__sigmf_check_data sets count */
    bool has_burst;
    int64_t burst; /* >= 0 */
} fst__sigmf_note;

typedef struct fst__sigmf_capture {
    uint64_t start;   /* samples, from the first one of the data file */
    uint64_t headers; /* bytes that are no samples, of this capture and those before it */
} fst__sigmf_capture;

typedef struct fst__sigmf {
    char *name;          /* of the metadata file */
    struct json_t *json; /* the rest points into it */
    fst__sigmf_type type;
    const char *dataset;    /* core:dataset, a file's name without a folder; NULL: the usual one */
    const char *sha512;     /* of the data file; NULL: not given */
    struct json_t *classes; /* fedstill:classes: texts, each once, in the order of labels; NULL: not given */
    bool metadata_only;
    uint64_t offset;   /* core:offset */
    uint64_t trailing; /* bytes after the last sample */
    fst__sigmf_capture *captures;
    size_t capture_count;
    fst__sigmf_note *notes;
    size_t count;
    size_t unlabelled; /* annotations that were left out */
} fst__sigmf;

/* Parses `text`, the content of a .sigmf-meta file. */
FST_MUST fst_status fst__sigmf_parse(fst__sigmf *out, const char *name, const char *text, size_t len, fst_error *err);
void fst__sigmf_release(fst__sigmf *m);
/* The annotations' part of it. */
FST_MUST fst_status fst__sigmf_parse_notes(fst__sigmf *m, const struct json_t *root, fst_error *err);
/* Every annotation must lie inside a data file of `bytes`, which has *samples; those that do not say how many samples
 * they have get their count. */
FST_MUST fst_status fst__sigmf_check_data(fst__sigmf *m, uint64_t bytes, uint64_t *samples, fst_error *err);
/* Where a sample's bytes begin in the data file, and how many samples follow it without a header between (at least 1).
 */
uint64_t fst__sigmf_place(const fst__sigmf *m, uint64_t sample, uint64_t *run);

/* ---- archives: sigmf_archive.c ------------------------------------------------------------------- */

/* The files of a tar archive, in memory: no more bytes than the archive has. */
typedef struct fst__archive {
    struct fst__member {
        char *name;
        unsigned char *data;
        size_t len;
    } * member;
    size_t count, room;
} fst__archive;

FST_MUST fst_status fst__archive_read(fst__archive *out, const char *path, fst_error *err);
FST_MUST fst_status fst__archive_read_memory(fst__archive *out, const char *name, const void *data, size_t len,
                                             fst_error *err);
void fst__archive_release(fst__archive *a);

/* ---- recordings on their way into a source: sigmf_find.c and sigmf.c ------------------------------ */

/* One recording: its metadata, and its samples in a file or in memory. */
struct fst__recording {
    fst__sigmf meta;
    char *data_path;
    unsigned char *own;          /* memory that goes with the recording; NULL: somebody else's */
    const unsigned char *memory; /* NULL: in the file */
    uint64_t bytes, samples;
};

struct fst__sigmf_named {
    const char *name; /* in the source's class_names */
    int32_t class;
};

struct fst__sigmf_job {
    const char *name;
    size_t window, limit;
    struct fst__recording *all;
    size_t count, cap;
    struct fst__sigmf_named *index; /* the classes, sorted by name */
    size_t classes;
    fst__picks picks; /* which windows are read */
    fst__held *held;
};

/* Each adds what stands at path to the job: the recording of a metadata file, all of an archive, all of a folder in the
 * order of their names. */
FST_MUST fst_status fst__sigmf_add_recording(struct fst__sigmf_job *j, const char *meta_path, fst_error *err);
FST_MUST fst_status fst__sigmf_add_archive(struct fst__sigmf_job *j, const char *path, fst_error *err);
FST_MUST fst_status fst__sigmf_add_folder(struct fst__sigmf_job *j, const char *folder, fst_error *err);
FST_MUST fst_status fst__sigmf_add_members(struct fst__sigmf_job *j, fst__archive *a, const char *place,
                                           fst_error *err);
/* Makes room for one more recording, which is the last of j->all. */
FST_MUST fst_status fst__sigmf_room(struct fst__sigmf_job *j, fst_error *err);
/* Leaves out recordings that say of no sample what it is, and says what was left out. */
FST_MUST fst_status fst__sigmf_keep_labelled(struct fst__sigmf_job *j, fst_error *err);
void fst__sigmf_release_recordings(struct fst__sigmf_job *j);
bool fst__sigmf_probe(const char *path);
/* Of a file that is named, not found in a folder: the standard's ending, or tar's. */
bool fst__sigmf_is_archive(const char *path);
/* "a.sigmf-meta" of "a.sigmf-data" and the other way round; new memory. */
char *fst__sigmf_sibling(const char *path, const char *ending);

/* ---- sources over memory, for tests and fuzz targets --------------------------------------------- */

FST_MUST fst_status fst__sigmf_read_memory(fst_source **out, const char *name, const char *meta, size_t meta_len,
                                           const void *data, size_t data_len, size_t window, fst_error *err);
FST_MUST fst_status fst__sigmf_read_archive(fst_source **out, const char *name, const void *data, size_t len,
                                            size_t window, fst_error *err);

#endif
