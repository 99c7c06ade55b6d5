/*
 * fedstill/data.h - labelled samples: where they come from (sources), what is done to them
 * (normalisation, crop, flip), how they are batched, and how they are split among clients.
 */
#ifndef FEDSTILL_DATA_H
#define FEDSTILL_DATA_H

#include "fedstill/base.h"
#include "fedstill/tensor.h"

FST_BEGIN_DECLS

/* ---- sources ------------------------------------------------------------------------------ */

/* Classes are 0 ... classes-1; more are refused. */
#define FST_MAX_CLASSES 65536
/* Bytes a source may keep in memory. */
#define FST_SOURCE_MAX_BYTES ((size_t)16 * 1024 * 1024 * 1024)

/* What a safetensors file of samples says in its metadata `format`. */
#define FST_DATA_FORMAT "fedstill-data-1"

typedef struct fst_source fst_source;

/*
 * What a format implements. `get` may be called from several threads at once on one source; all
 * the others from one thread. Neither may block on anything but local files.
 */
typedef struct fst_source_vtable {
    const char *format; /* "idx", "cifar10", "cifar100", "folder", "array", "sigmf", "radioml", "memory", "composed" */
    /* Copies sample i's raw elements (dtype and shape as the source says) to dst. */
    fst_status (*get)(const fst_source *s, size_t i, void *dst, fst_error *err);
    void (*close)(fst_source *s); /* frees what the format holds and s itself; takes half-built ones */
} fst_source_vtable;

/* Formats embed this as their first member. Everything here is set before a source is handed out. */
struct fst_source {
    const fst_source_vtable *v;
    char *name;            /* path or description, for messages */
    fst_dtype dtype;       /* of the raw elements: FST_U8 or FST_F32 */
    fst_shape shape;       /* of one sample, channels first: (1, 28, 28), (3, 32, 32), (2, 1024) */
    size_t count;          /* samples, > 0 */
    int classes;           /* > 0 */
    char **class_names;    /* classes entries, or NULL */
    const int32_t *labels; /* count entries, each 0 ... classes-1; never NULL */
    /* What is known of the samples beyond their labels: count entries each, or NULL. Neither enters the digest. */
    const float *snr;     /* signal-to-noise ratio in dB; NaN where one sample's is not known */
    const int64_t *group; /* burst or recording: samples of one group belong together and must not be split
                           * between training and test */
    /* SHA-256 over "DTYPE SHAPE COUNT\n" (as in "U8 (1, 28, 28) 60000\n"), the labels (little-endian, 4 bytes
     * each) and all raw samples in order. Equal data have equal digests, whatever files they came from. */
    char digest[FST_DIGEST_HEX];
};

/* FST_E_MISMATCH, naming the class and both sources, where both name their classes and not alike. */
FST_MUST FST_API fst_status fst_source_same_classes(const fst_source *a, const fst_source *b, fst_error *err);

/* How arrays of samples lie in memory: (N, C, H, W) and (N, C, L), or with the channels last. */
typedef enum fst_layout {
    FST_LAYOUT_AUTO, /* channels first; (N, H, W) becomes (N, 1, H, W); what looks like channels last is refused */
    FST_LAYOUT_NCHW, /* channels first, whatever it looks like; (N, C, L) stays (N, C, L) */
    FST_LAYOUT_NHWC  /* (N, H, W, C) or (N, L, C): turned to channels first */
} fst_layout;

/*
 * What to open. Paths by format:
 *  - idx: a folder with the four usual files, plain or .gz (train-images-idx3-ubyte or
 *    train-images.idx3-ubyte, train-labels-..., t10k-...), or one with raw/, MNIST/raw/ or the like in it, as
 * torchvision has it. Of EMNIST's sets (emnist-letters-train-images-idx3-ubyte) the only one there is, or the one that
 * the path names (FOLDER/emnist-letters); its images, stored transposed, are turned, and the labels of letters, 1 to
 * 26, become 0 to 25;
 *  - cifar10: a folder with data_batch_1.bin ... data_batch_5.bin and test_batch.bin, or the same pickled for Python
 *    without .bin, or the folder that holds cifar-10-batches-bin or -py; names of classes from batches.meta.txt or
 *    batches.meta where it is there;
 *  - cifar100: a folder with train, test and meta, pickled for Python, or the one that holds cifar-100-python; classes
 *    are the 100 fine ones;
 *  - folder: one folder a class with PNG, JPEG, WebP or BMP files, also in folders of the class's own, or train/ and
 *    test/ (or val/, tested on without test/; training, testing, valid, validation; letters of either case) with such
 *    folders; the classes are those of train/ for all splits, each with an image. Hidden files and what operating
 *    systems leave are ignored, other files skipped with a warning;
 *  - array: a .safetensors or .npz file, a folder with SPLIT.safetensors, SPLIT.npz or npy files, or an .npy
 *    file of samples beside one of labels. Arrays are looked for as x_SPLIT and y_SPLIT (or SPLIT_x), for training
 *    then as x and y; without names given X and Y, images and labels are tried too. A name of one split stands for all
 *    (train_images is test_images for the test split); one without a split is training's, and never stands in for test
 *    or validation samples, unless the file is the split's own. Samples of rank 2 with more than 4 rows are images
 *    (1, H, W); `layout` says more.
 *    Samples are U8 or floats of any width (kept as F32), labels whole numbers or one-hot rows. Beside x: snr (floats
 *    or integers, in dB) and burst (integers), named as x is (snr_train beside x_train); class names are a
 *    JSON list of texts in a safetensors file's metadata `classes`, or a list of texts `classes` in an npz;
 *  - sigmf: a .sigmf-meta (or .sigmf-data) file, an archive (.sigmf), or a folder of such, or one with folders train,
 *    test and val of such, the classes then being those of train. Complex samples of one channel of every type of the
 *    standard; integers become -1 ... 1 (signed: divided by 2^(bits - 1)). Each annotation that has a label
 * (core:label, or core:description in files without any) is cut into whole windows of F32 (2, window), I then Q, what
 * is left over being dropped; without core:sample_count it goes to the end of its capture. Classes are the labels in
 * the order of their bytes, or as fedstill:classes of all recordings orders them. snr is the annotation's
 * fedstill:snr_db; a group is an annotation, or those with the same fedstill:burst in one recording. Recordings are
 * taken in the order of their names and bursts numbered on. core:sha512 is checked where it is given;
 *  - radioml: a pickle (.pkl, .pickle, .dat) of a dictionary {(label, snr in dB): floats (N, 2, length)}, without
 * splits, or
 *    {'train': (X, y), 'val': (X, y), 'test': (X, y)} with labels that are numbers. Samples of the first form are
 *    sorted by label, then SNR, then as in the file; classes are the labels in the order of their bytes, those of
 *    Python 2 being taken for Latin-1. Nothing in the pickle is run (fedstill/tensor.h). Or RadioML 2018's HDF5 file
 * with X (N, length, 2), Y (N, classes) of one 1 a row and Z (N, 1), of which only `limit` rows are read.
 */
typedef struct fst_source_spec {
    const char *format; /* NULL: guessed from what stands at path */
    const char *path;
    const char *split;             /* "train", "test" or (folder, array, sigmf, radioml) "val"; NULL means "train" */
    const char *x, *y;             /* array: names of samples and labels, NULL: the usual ones */
    fst_layout layout;             /* array */
    int classes;                   /* 0: as many as the labels show (idx, array), or the class folders */
    int image_channels;            /* folder: 1 or 3 (0: 3) */
    int image_height, image_width; /* folder: 0: as the first image; other sizes are an error that says so */
    size_t window; /* sigmf: complex samples a window; 0: as long as the annotations, all of one length */
    size_t limit;  /* > 0: only so many samples, as fst_stratified_pick chooses them; classes are those of all.
                    * Labels are read first and then no other samples, so that it bounds memory too (a pickle is
                    * read whole, one file at a time) */
} fst_source_spec;

/* FST_E_ABSENT: the data are as they should be, but have no such split ("test", "val"). What is there of a split and
 * cannot be read is another error. */
FST_MUST FST_API fst_status fst_source_open(fst_source **out, const fst_source_spec *spec, fst_error *err);
FST_API void fst_source_close(fst_source *s);
/* The formats that fst_source_open knows, NULL-terminated. */
FST_API const char *const *fst_source_formats(void);
/* Bytes of one raw sample. */
FST_API size_t fst_source_sample_bytes(const fst_source *s);
/* Wraps arrays that the caller keeps alive (tests, generators). x: count raw samples. classes 0: as many as
 * the labels show. The caller may then set snr and group to arrays that it keeps alive too. */
FST_MUST FST_API fst_status fst_source_from_memory(fst_source **out, const char *name, fst_dtype dtype,
                                                   const fst_shape *shape, size_t count, const void *x,
                                                   const int32_t *labels, int classes, fst_error *err);
/* Samples of other sources as one source: a part of one, or several one after the other. They must be alike in dtype
 * and shape, and in the names of classes where they have them; they must outlive it. SNR is known where all have it,
 * groups likewise (groups of different parts stay different). */
typedef struct fst_source_part {
    const fst_source *source;
    const uint32_t *index; /* `count` of its samples, in this order; NULL: all */
    size_t count;
} fst_source_part;
FST_MUST FST_API fst_status fst_source_compose(fst_source **out, const char *name, const fst_source_part *parts,
                                               size_t n, fst_error *err);
/* Picks `limit` of n samples (all, if there are no more) for a trial with less data: of every class as large a share as
 * of all, but at least one sample of each class if the limit allows; within a class evenly from the first on, so that
 * data in some order keep their variety. index: room for them; it gets positions 0 ... n-1, rising. The same labels
 * and limit give the same samples. */
FST_MUST FST_API fst_status fst_stratified_pick(const int32_t *labels, size_t n, size_t limit, uint32_t *index,
                                                fst_error *err);
/* Writes samples as the array format reads them: x, y (I32), and snr and burst where they are known, to a
 * .safetensors file (format FST_DATA_FORMAT) or an .npz. index: `count` positions; NULL: all samples. Names of
 * classes are written always, the numbers where there are no names, so that a part without some class has as many
 * classes as the whole. Atomic; the bytes depend only on samples and index. digest (may be NULL): SHA-256 of the file.
 */
FST_MUST FST_API fst_status fst_source_write(const fst_source *s, const uint32_t *index, size_t count, const char *path,
                                             char digest[FST_DIGEST_HEX], fst_error *err);
/* The key of a sample: a hash of its raw bytes, dtype and shape. It does not depend on position,
 * label or augmentation; equal samples have equal keys. */
FST_MUST FST_API fst_status fst_source_key(const fst_source *s, size_t i, fst_hash128 *out, fst_error *err);

/* Decodes one PNG, JPEG, WebP (where built with it) or BMP held in memory to (channels, height, width) u8; *out via
 * fst_alloc. Grey <-> colour conversion as wanted by channels (1 or 3; 0: as the file has it), grey being ITU-R 601
 * luma; an alpha channel is dropped, CMYK becomes RGB, 16 bits become 8, and EXIF turns nothing. Images of more than
 * max_pixels (0: 2^28), or than a file of len bytes can hold, are refused before anything is allocated for them, cut
 * off or damaged ones always. */
FST_MUST FST_API fst_status fst_image_decode(unsigned char **out, fst_shape *shape, const char *name, const void *data,
                                             size_t len, int channels, size_t max_pixels, fst_error *err);

/* ---- transforms and batches ---------------------------------------------------------------- */

#define FST_MAX_CHANNELS 64
/* The fingerprint of L complex samples y, scaled to mean power 1, in 8 blocks of L/4 floats: levels of the spectra of
 * y, y|y|^2, y|y|^4, y^2 | y^2|y|^2, |y|^2 - 1, a zoom, amplitudes. "|" parts the two channels.
 *  - Level: log10(P + 1e-6) / 2 + 1/4, P the power |V(f)|^2 of a Hann window (mean square 1) and a DFT over sqrt(L),
 *    mean of four neighbouring frequencies, from the lowest (negative) to the highest.
 *  - Zoom: the L/32 frequencies around 0 in rows, each row twice: level of Y(f), level of Y2(f) (of y^2), and the real
 * and the imaginary part of B^(1/3) 50/sqrt(L), its phase that of B = Y(f)^2 conj(Y2(2f)): the phase between carrier
 * leak and image, in which the carrier's own cancels.
 *  - Amplitudes: |y| sorted, mean of four neighbours, minus what Rayleigh's distribution would give, times 10. */
typedef struct fst_transform {
    /* u8 samples are scaled to 0 ... 1 first; then (x - mean) / std by channel (the first dimension). */
    int channels; /* entries used of mean, std: 0 (none), 1 (for all), or the sample's channels */
    float mean[FST_MAX_CHANNELS], std[FST_MAX_CHANNELS];
    int crop_padding; /* > 0: zero-pad (before normalisation) by so much, then crop at random; 3-D samples,
                       * less than height and width */
    bool flip;        /* mirror left-right with probability 1/2; 3-D samples */
    bool fingerprint; /* before normalisation, complex samples (2, L), I then Q, L a power of two from 64 to
                       * 4096, become their fingerprint, see below */
} fst_transform;

/* A transform made ready for the samples of a source, one sample at a time and without crop and flip: what a device
 * does that has no loader. Threads may share it. */
typedef struct fst_transformer fst_transformer;
FST_MUST FST_API fst_status fst_transformer_new(fst_transformer **out, const fst_transform *t, const fst_source *s,
                                                fst_error *err);
FST_API void fst_transformer_free(fst_transformer *t);
/* raw: a sample as fst_source's get gives it; x: as many floats as the sample has elements. */
FST_API void fst_transformer_apply(const fst_transformer *t, const void *raw, float *x);

/* A batch as the engine eats it. Rows after `rows` are not defined. */
typedef struct fst_batch {
    size_t rows;
    const float *x;        /* rows x sample elements, row-major, 64-byte aligned */
    const int32_t *labels; /* rows */
    const uint32_t *index; /* rows: position of each sample in the source */
    const float *soft;     /* rows x classes: soft targets, NULL when there are none */
} fst_batch;

/* Called on the loader's thread for each finished batch to fill in soft targets; NULL: none. */
typedef fst_status (*fst_soft_fn)(void *ctx, const uint32_t *index, size_t rows, float *soft, fst_error *err);

typedef struct fst_loader_spec {
    const fst_source *source;
    const uint32_t *subset; /* samples to use, NULL: all. Must outlive the loader. */
    size_t subset_count;
    size_t batch_size;
    fst_transform transform;
    bool augment;   /* apply crop and flip (training) or not; stream (seed, "batch.augment", hash of the sample's key
                     * and the epoch): the same image whatever batch it comes in, and wherever in whichever source
                     * the sample lies */
    bool shuffle;   /* order from stream (seed, "batch.order", epoch) */
    bool drop_last; /* leave out a last batch that is not full; a loader of few samples then has no batches */
    uint64_t seed;
    bool background; /* assemble the next batches on a thread of its own while the caller computes */
    fst_soft_fn soft;
    void *soft_ctx;
    int soft_width; /* floats a row of soft targets, with `soft` */
} fst_loader_spec;

typedef struct fst_loader fst_loader;
/* Allocates everything it will ever need. */
FST_MUST FST_API fst_status fst_loader_new(fst_loader **out, const fst_loader_spec *spec, fst_error *err);
FST_API size_t fst_loader_batches(const fst_loader *l); /* batches an epoch */
/* Starts epoch `epoch` at batch `first` (0 from the start; a resumed run continues in the middle).
 * What a batch holds depends on (seed, epoch, batch number) alone. Also ends an unfinished epoch. */
FST_MUST FST_API fst_status fst_loader_start(fst_loader *l, uint64_t epoch, size_t first, fst_error *err);
/* The next batch, valid until the next call; out->rows == 0 at the end of the epoch. A batch that could not be made
 * gives its error here, in its place among the batches, until an epoch is started again. Does not allocate. */
FST_MUST FST_API fst_status fst_loader_next(fst_loader *l, fst_batch *out, fst_error *err);
FST_API void fst_loader_free(fst_loader *l);

/* Computes mean and std over a source: per channel (the first dimension, when that is at most
 * FST_MAX_CHANNELS; else one for all), u8 scaled to 0 ... 1. A channel that never changes gets std 1. */
FST_MUST FST_API fst_status fst_source_statistics(const fst_source *s, fst_transform *out, fst_error *err);

/* ---- partitions ---------------------------------------------------------------------------- */

typedef enum fst_partition_kind {
    FST_PARTITION_IID,       /* shuffled, equal shares (sizes differ by at most one) */
    FST_PARTITION_DIRICHLET, /* per class a Dirichlet(alpha) share for each client */
    FST_PARTITION_SHARDS,    /* sorted by label, cut into clients * classes_per_client shards, dealt at random */
    FST_PARTITION_QUANTITY   /* IID labels, sizes from Dirichlet(alpha) */
} fst_partition_kind;

/* Where the source has groups (bursts, recordings), these are dealt as samples are otherwise and never cut. */
typedef struct fst_partition_spec {
    const uint32_t *subset; /* `subset_count` > 0 samples, each once, to deal: the others belong to nobody; NULL: all */
    size_t subset_count;
    fst_partition_kind kind;
    int clients;
    double alpha;           /* dirichlet, quantity */
    int classes_per_client; /* shards; at most as many as the source has classes */
    size_t min_samples;     /* every client gets at least so many samples (default 1), in whole groups where there are
                             * groups; an error when impossible. Shares are drawn again a few times, then samples are moved
                             * from the largest clients */
    uint64_t seed;          /* streams "partition..." */
    const char *whose;      /* what messages call the clients, in the plural; NULL: "clients" */
} fst_partition_spec;

/* Which client has which sample. */
typedef struct fst_partition {
    int clients, classes;
    size_t samples;  /* of the source; some may belong to nobody */
    uint32_t *index; /* samples by client, each client's in rising order */
    size_t *begin;   /* clients+1: client k owns index[begin[k]] ... index[begin[k+1]-1] */
    int64_t *counts; /* clients x classes */
    char data_digest[FST_DIGEST_HEX];
    char method[64]; /* "dirichlet(0.3)" */
    uint64_t seed;
} fst_partition;

FST_API const char *fst_partition_kind_name(fst_partition_kind k);
FST_API bool fst_partition_kind_parse(const char *name, fst_partition_kind *out);
FST_MUST FST_API fst_status fst_partition_make(fst_partition *out, const fst_source *s, const fst_partition_spec *spec,
                                               fst_error *err);
/* A partition of one's own: owner[i] is the client of sample i, 0 ... clients-1, or -1 for nobody. Method is "", seed
 * 0. */
FST_MUST FST_API fst_status fst_partition_from_owners(fst_partition *out, const fst_source *s, const int32_t *owner,
                                                      int clients, fst_error *err);
/* The split is a safetensors file (format fedstill-partition-1): `client` I32 (samples), -1 for nobody, and
 * `counts` I64 (clients, classes); metadata method, seed, data_digest. digest may be NULL. */
FST_MUST FST_API fst_status fst_partition_write(const fst_partition *p, const char *path, char digest[FST_DIGEST_HEX],
                                                fst_error *err);
FST_MUST FST_API fst_status fst_partition_read(fst_partition *out, const char *path, fst_error *err);
FST_API void fst_partition_release(fst_partition *p);

/* ---- cloud and edges ------------------------------------------------------------------------ */

/* The three uses of a site's samples. */
typedef enum fst_part { FST_PART_TRAIN, FST_PART_VAL, FST_PART_TEST, FST_PARTS } fst_part;
FST_API const char *fst_part_name(fst_part p); /* "train", "val", "test" */

#define FST_MAX_EDGES 1000

typedef struct fst_tiers_spec {
    double cloud;     /* the cloud's share of every class, 0 ... 1; 0: no cloud */
    int edges;        /* 1 ... FST_MAX_EDGES, 0 only when the cloud has everything */
    double alpha;     /* of the Dirichlet draw that shares each class out among the edges */
    double val, test; /* shares of every class at every site; what is left is for training, more than 0 */
    uint64_t seed;    /* streams "tiers..." */
} fst_tiers_spec;

/*
 * Which site has which sample, for what. Sites are the cloud (0) and the edges (1 ...). Samples of one group stay
 * together; without groups each sample is its own. Class by class, in the order of their SNR where it is known, groups
 * go to where most is missing of the share, so that shares hold to within about a group for every class and, nearly,
 * for every SNR. Single samples are dealt so that the sums over all classes are the shares too, to the nearest sample.
 * Where a site has a class at all, some of it is for training.
 */
typedef struct fst_tiers {
    fst_tiers_spec spec;
    int sites, classes;
    size_t samples, groups; /* groups: as many as samples where the source has none */
    bool by_group;
    int32_t *site;   /* samples */
    uint8_t *part;   /* samples: fst_part */
    int64_t *counts; /* sites x FST_PARTS x classes */
    char data_digest[FST_DIGEST_HEX];
} fst_tiers;

FST_MUST FST_API fst_status fst_tiers_make(fst_tiers *out, const fst_source *s, const fst_tiers_spec *spec,
                                           fst_error *err);
/* Writes folder/cloud/train.safetensors, val, test, folder/edge_1/..., and folder/split.json (docs/formats.md), all
 * or nothing; parts without samples have no file. A folder that is there and not empty is an error, or, with
 * replace, exchanged for the new one if it holds nothing but such a split. The bytes depend only on t and s. */
FST_MUST FST_API fst_status fst_tiers_write(const fst_tiers *t, const fst_source *s, const char *folder, bool replace,
                                            fst_error *err);
FST_API void fst_tiers_release(fst_tiers *t);

FST_END_DECLS

#endif
