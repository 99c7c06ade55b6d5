/*
 * formats.h - what the formats of this layer share: the table that fst_source_open walks, the reader
 * that yields plain and gzip files alike, and the source whose samples lie in one block of memory.
 * Private to src/data, its tests and its fuzz targets.
 */
#ifndef FEDSTILL_DATA_FORMATS_H
#define FEDSTILL_DATA_FORMATS_H

#include <zlib.h>

#include "confined.h"
#include "fedstill/data.h"

/* ---- the table of formats ----------------------------------------------------------------- */

typedef struct fst__format {
    const char *name;
    bool (*probe)(const char *path); /* does what stands at path look like this format? */
    /* spec->split is set, spec->path is not NULL. */
    fst_status (*open)(fst_source **out, const fst_source_spec *spec, fst_error *err);
    bool has_val; /* knows a split "val" too */
} fst__format;

extern const fst__format fst__format_idx, fst__format_cifar10, fst__format_cifar100, fst__format_array,
    fst__format_sigmf, fst__format_radioml, fst__format_folder;

bool fst__is_folder(const char *path);
/* Is there a file or folder `name` in `folder`? */
bool fst__has(const char *folder, const char *name);
bool fst__ends_with(const char *s, const char *suffix); /* ignores case */

/* ---- reader ------------------------------------------------------------------------------- */

/* Yields the bytes of a file or of memory from front to back; gzip is recognised by its first
 * bytes and inflated on the way. Holds one small block, never the whole. */
typedef struct fst__reader {
    const char *name; /* borrowed, for messages */
    int fd;           /* -1: over memory */
    const unsigned char *memory;
    uint64_t size, at; /* stored bytes, and how many of them were consumed */
    bool compressed, started, ended;
    z_stream z;
    unsigned char *block;
} fst__reader;

FST_MUST fst_status fst__reader_open(fst__reader *r, const char *path, fst_error *err);
FST_MUST fst_status fst__reader_open_memory(fst__reader *r, const char *name, const void *data, size_t len,
                                            fst_error *err);
/* No more bytes than this can come out, whatever a header promises. */
uint64_t fst__reader_most(const fst__reader *r);
/* Reads exactly len bytes; fewer are an error that says how many `what` has. */
FST_MUST fst_status fst__reader_exact(fst__reader *r, void *dst, size_t len, const char *what, fst_error *err);
/* Passes over len bytes that nobody wants. */
FST_MUST fst_status fst__reader_skip(fst__reader *r, uint64_t len, const char *what, fst_error *err);
/* Back to the first byte, of what is not compressed. */
void fst__reader_rewind(fst__reader *r);
/* Fails when bytes follow. */
FST_MUST fst_status fst__reader_finish(fst__reader *r, fst_error *err);
void fst__reader_close(fst__reader *r);

/* ---- what a limit leaves ------------------------------------------------------------------- */

/* Which of the samples, in their order, are kept. */
typedef struct fst__picks {
    size_t count;
    uint32_t *index; /* rising; NULL: the first `count`, which is all of them */
} fst__picks;

/* All of n samples, or those that fst_stratified_pick leaves for a limit > 0; warns when these are fewer than the
 * classes. Labels are 0 ... FST_MAX_CLASSES-1. Release with fst_free(out->index). */
FST_MUST fst_status fst__pick(fst__picks *out, const char *name, const int32_t *labels, size_t n, size_t limit,
                              fst_error *err);
/* The place of the i-th pick. */
size_t fst__picked(const fst__picks *p, size_t i);

/* ---- sources in memory -------------------------------------------------------------------- */

typedef struct fst__held {
    fst_source base;
    const unsigned char *data; /* count raw samples: own_data, or the caller's */
    unsigned char *own_data;
    int32_t *own_labels;
    float *own_snr;
    int64_t *own_group;
} fst__held;

fst_status fst__held_get(const fst_source *s, size_t i, void *dst, fst_error *err);
/* Where sample i lies, of a source that is in memory; NULL: it is not, or there is no such sample. */
const unsigned char *fst__held_view(const fst_source *s, size_t i);
void fst__held_close(fst_source *s);
FST_MUST fst_status fst__held_new(fst__held **out, const fst_source_vtable *v, const char *name, fst_error *err);
/* Sets dtype, shape and count after checking them against the limits; *bytes is the size of all samples. */
FST_MUST fst_status fst__held_describe(fst__held *h, fst_dtype dtype, const fst_shape *shape, uint64_t count,
                                       size_t *bytes, fst_error *err);
/* Describes and allocates own_data. */
FST_MUST fst_status fst__held_reserve(fst__held *h, fst_dtype dtype, const fst_shape *shape, uint64_t count,
                                      fst_error *err);
/* What a limit leaves of n samples whose labels (and SNR and groups, if they are known) h holds: checks the labels,
 * sets classes (`wanted`, or as many as the labels show when that is 0), with `warn` tells of classes without samples,
 * and moves what is known of the picked samples to the front. The caller then reads these samples and no others, so
 * that a limit bounds memory too. */
FST_MUST fst_status fst__held_choose(fst__held *h, size_t n, int wanted, bool warn, size_t limit, fst__picks *out,
                                     fst_error *err);
/* Checks `nlabels` labels (at least base.count; those after it only count for the number of classes), sets
 * classes (`wanted`, or as many as the labels show when that is 0), sets the digest, and hands h out. On failure h is
 * still the caller's. */
FST_MUST fst_status fst__held_finish(fst__held *h, const int32_t *labels, size_t nlabels, int wanted, fst_source **out,
                                     fst_error *err);
/* A copy of n names in one block, as class_names is. */
FST_MUST fst_status fst__names_copy(char ***out, char *const *names, size_t n, fst_error *err);
/* Names of all classes in one block, their numbers where the source has none. */
FST_MUST fst_status fst__class_names(const fst_source *s, char ***out, fst_error *err);
/* Why a text cannot be the name of a class ("is longer than 255 bytes"), NULL when it can: UTF-8, one byte or more,
 * nothing in it that a terminal obeys or that hides. */
enum { FST__MAX_NAME = 255 };
const char *fst__name_fault(const char *text, size_t n);
/* FST_E_FORMAT for the first of n names that cannot be one. */
FST_MUST fst_status fst__check_names(const char *where, char *const *names, size_t n, fst_error *err);
/* Fails for the first sample with an element that is no number, naming its place among all of which p were picked. */
FST_MUST fst_status fst__held_check_finite(const fst__held *h, const fst__picks *p, fst_error *err);
/* The digest of data.h, computed through get. */
FST_MUST fst_status fst__source_digest(const fst_source *s, char hex[FST_DIGEST_HEX], fst_error *err);
/* Logs a warning, the first time that this text is given in the process. */
void fst__warn_once(const char *fmt, ...) FST_PRINTF(1, 2);
/* Warns when classes of s have no sample among n labels, or when labels begin at 1. */
void fst__warn_empty_classes(const fst_source *s, const int32_t *labels, size_t n);
/* What bytes are that are no data, and what to do about them: an empty file, a pointer of Git LFS, an HTML page; NULL
 * when they are none of these. */
const char *fst__foreign(const void *data, size_t len);
/* Fails when the file at path is one of those. */
FST_MUST fst_status fst__not_foreign(const char *path, fst_error *err);
/* min(count, limit), limit 0 meaning none. */
uint64_t fst__limited(uint64_t count, size_t limit);

/* ---- numbers by class --------------------------------------------------------------------- */

/* Divides `total` among classes of n[c] samples as they share the samples: each gets its quota to the nearest whole
 * number, so that the sum is right, but at most most[c]; the sum is less than total only where these do not allow more.
 * each: every class that is there gets one at least, if total is enough for that. Where quotas are alike the class
 * `first` and those after it have precedence. */
FST_MUST fst_status fst__apportion(const size_t *n, const size_t *most, size_t classes, size_t total, bool each,
                                   size_t first, size_t *out, fst_error *err);

/* ---- parsers that the tests and fuzz targets call over memory ------------------------------ */

typedef struct fst__idx_how {
    int classes; /* 0: as many as the labels show */
    size_t limit;
    int first_label; /* the label of class 0 */
    bool transposed; /* images of rank 3 are stored columns first */
    bool warn;       /* of classes without samples */
} fst__idx_how;
FST_MUST fst_status fst__idx_read(fst_source **out, const char *name, fst__reader *images, fst__reader *labels,
                                  const fst__idx_how *how, fst_error *err);
/* Reads n readers of CIFAR-10 records one after the other. */
FST_MUST fst_status fst__cifar10_read(fst_source **out, const char *name, fst__reader *files, size_t n, size_t limit,
                                      fst_error *err);
/* Adds the labels of a batch of CIFAR's Python version, under `key`, to the *count that h holds. */
FST_MUST fst_status fst__cifar_python_labels(fst__held *h, const char *name, const fst_pickle *p, const char *key,
                                             int classes, size_t *count, fst_error *err);
/* Copies the picked images of the batch that begins with sample *first, which becomes that of the next one; *done
 * counts what was copied. */
FST_MUST fst_status fst__cifar_python_images(fst__held *h, const char *name, const fst_pickle *p, const char *key,
                                             const fst__picks *picks, size_t *first, size_t *done, fst_error *err);
bool fst__cifar10_python_probe(const char *path);
FST_MUST fst_status fst__cifar10_python_open(fst_source **out, const fst_source_spec *spec, fst_error *err);
/* A pickle that was read already. */
FST_MUST fst_status fst__radioml_take(fst_source **out, const char *name, const fst_pickle *p,
                                      const fst_source_spec *spec, fst_error *err);
/* fst_image_decode for an image of want's channels, height and width, each 0 for any; another size is refused before
 * anything is allocated for it. */
FST_MUST fst_status fst__image_decode_as(unsigned char **out, fst_shape *shape, const char *name, const void *data,
                                         size_t len, const fst_shape *want, size_t max_pixels, fst_error *err);
/* Does the file begin as HDF5 does? */
bool fst__is_hdf5(const char *path);
/* RadioML 2018's HDF5 file into h, which is the caller's until *out is set. */
FST_MUST fst_status fst__radioml_hdf5(fst__held *h, const fst_source_spec *spec, fst_source **out, fst_error *err);
/* The same from children of one's own, whatever they send: for fuzzing. */
FST_MUST fst_status fst__radioml_hdf5_from(fst__held *h, const fst_source_spec *spec, fst__confined_fn labels,
                                           fst__confined_fn rows, fst_source **out, fst_error *err);
/* Ten names, one a line, into one block after the pointers. */
FST_MUST fst_status fst__cifar10_names(char ***out, const char *name, const char *text, size_t len, fst_error *err);

#endif
