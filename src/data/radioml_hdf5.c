/*
 * RadioML 2018.01A (GOLD_XYZ_OSC.0001_1024.hdf5) as a source: data sets X (N, L, 2), Y (N, classes) with one 1 a row,
 * and Z (N, 1), the SNR in dB. libhdf5 reads it; a build without it refuses such files by name.
 *
 * Only the rows that are wanted are read, a block at a time, so that 21 GB on disk do not have to fit into memory. What
 * a file may make the library do is bounded first: data sets are in the file itself (no links or storage elsewhere,
 * which could name any file), have no more values than their bytes can stand for, and small chunks; filters are not
 * loaded from outside. That is not enough, libhdf5 dies of damaged files; so it is called in child processes alone
 * (confined.h): a first one sends the size of the sets and all labels; the parent chooses rows; a second one sends
 * these.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef FST_WITH_HDF5
#include <hdf5.h>
#endif

#include "formats.h"

bool fst__is_hdf5(const char *path)
{
    unsigned char b[8] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool yes = fd >= 0 && pread(fd, b, sizeof b, 0) == (ssize_t)sizeof b && !memcmp(b, "\x89HDF\r\n\x1A\n", sizeof b);
    if (fd >= 0)
        close(fd);
    return yes;
}

/* A deflated byte stands for no more than this many. */
enum { DEFLATE_MOST = 1032, BLOCK_BYTES = 4 << 20, MAX_CHUNK = 64 << 20, RADIOML_CLASSES = 24 };

/* What a child may have: the library's own and blocks of rows; room for chunks, which grows with the file. A chunk
 * takes less than a second. */
enum { LIBRARY_BYTES = 48 << 20, CHUNKS_BYTES = 4 * MAX_CHUNK, BUSY_SECONDS = 10, SILENT_SECONDS = 600 };

/* In the order of RadioML 2018's classes-fixed.json, which is that of Y's columns. */
static const char *const modulations[RADIOML_CLASSES] = {
    "OOK",    "4ASK",      "8ASK",      "BPSK",      "QPSK",      "8PSK",  "16PSK", "32PSK",
    "16APSK", "32APSK",    "64APSK",    "128APSK",   "16QAM",     "32QAM", "64QAM", "128QAM",
    "256QAM", "AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM",    "GMSK",  "OQPSK"};

/* What the first child says of the file. */
struct sizes {
    uint64_t rows, length, classes;
};

/* What parent and children know. */
struct reading {
    const char *path;
    uint64_t file_bytes;
    struct sizes sizes;      /* once the parent has them */
    const fst__picks *picks; /* likewise */
};

#ifdef FST_WITH_HDF5

/* ---- the children: opening the sets -------------------------------------------------------------- */

struct set {
    const char *name;
    hid_t id;
    int rank;
    hsize_t dim[3];
    hsize_t row; /* values of a row */
};

static fst_status wrong(const struct reading *r, const char *name, const char *what, fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT,
                    "%s: %s %s; RadioML 2018 has X (N, length, 2), Y (N, classes) with one 1 a row, and Z (N, 1)",
                    r->path, name, what);
}

/* Numbers that fill their bytes, with all parts inside: libhdf5 converts others beyond the ends of its buffers. */
static bool is_whole_number_type(hid_t type, H5T_class_t kind, size_t size)
{
    size_t sign, exponent, exponent_bits, fraction, fraction_bits, bits = 8 * size;
    if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || size < 1 || size > 8 || H5Tget_precision(type) != bits ||
        H5Tget_offset(type) != 0)
        return false;
    if (kind == H5T_INTEGER)
        return true;
    return H5Tget_fields(type, &sign, &exponent, &exponent_bits, &fraction, &fraction_bits) >= 0 && sign < bits &&
           exponent_bits <= bits && exponent <= bits - exponent_bits && fraction_bits <= bits &&
           fraction <= bits - fraction_bits;
}

/* How the values lie in the file must be harmless before anything is read. */
static fst_status check_storage(const struct reading *r, const struct set *s, fst_error *err)
{
    hid_t plan = H5Dget_create_plist(s->id), type = H5Dget_type(s->id);
    H5D_layout_t layout = plan < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(plan);
    H5T_class_t kind = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    hsize_t chunk[3] = {1, 1, 1}, stored = H5Dget_storage_size(s->id), size = type < 0 ? 0 : H5Tget_size(type);
    uint64_t wanted = size, chunk_bytes = size;
    bool bad = false;
    for (int i = 0; i < s->rank; i++)
        bad = __builtin_mul_overflow(wanted, s->dim[i], &wanted) || bad;
    if (layout == H5D_CHUNKED && H5Pget_chunk(plan, 3, chunk) != s->rank)
        layout = H5D_LAYOUT_ERROR;
    for (int i = 0; layout == H5D_CHUNKED && i < s->rank; i++)
        bad = __builtin_mul_overflow(chunk_bytes, chunk[i], &chunk_bytes) || bad;
    int outside = plan < 0 ? -1 : H5Pget_external_count(plan);
    bool numbers = type >= 0 && is_whole_number_type(type, kind, size);
    H5Pclose(plan);
    H5Tclose(type);
    if (!numbers)
        return wrong(r, s->name, "holds no numbers", err);
    if (outside || (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: the values of %s are not in the file itself", r->path, s->name);
    if (layout == H5D_CHUNKED && (bad || chunk_bytes > MAX_CHUNK))
        return fst_fail(err, FST_E_LIMIT, "%s: %s has chunks of more than %d MB", r->path, s->name, MAX_CHUNK >> 20);
    uint64_t most = layout == H5D_CHUNKED ? stored * DEFLATE_MOST : stored;
    if (bad || stored > r->file_bytes || wanted > most)
        return fst_fail(err, FST_E_FORMAT, "%s: %s claims more values than are in the file: cut off or damaged",
                        r->path, s->name);
    return FST_OK;
}

/* Opens a data set of the file's root. */
static fst_status open_set(const struct reading *r, hid_t file, struct set *s, fst_error *err)
{
    H5L_info_t link;
    htri_t there = H5Lexists(file, s->name, H5P_DEFAULT);
    if (there <= 0)
        return wrong(r, s->name, there ? "cannot be found: the file is damaged" : "is not there", err);
    if (H5Lget_info(file, s->name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: %s is a link to another place", r->path, s->name);
    s->id = H5Dopen2(file, s->name, H5P_DEFAULT);
    if (s->id < 0)
        return wrong(r, s->name, "is damaged, or no data set", err);
    hid_t space = H5Dget_space(s->id);
    s->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool good = s->rank >= 1 && s->rank <= 3 && H5Sget_simple_extent_dims(space, s->dim, NULL) == s->rank;
    H5Sclose(space);
    if (!good)
        return wrong(r, s->name, "has no list of rows", err);
    s->row = 1;
    for (int i = 1; i < s->rank; i++)
        if (__builtin_mul_overflow(s->row, s->dim[i], &s->row))
            return wrong(r, s->name, "is larger than any memory", err);
    return check_storage(r, s, err);
}

/* Rows first ... first + n - 1, converted to `type`. */
static fst_status read_rows(const struct reading *r, const struct set *s, hsize_t first, hsize_t n, hid_t type,
                            void *out, fst_error *err)
{
    hsize_t start[3] = {first, 0, 0}, count[3] = {n, s->dim[1], s->dim[2]}, all = n * s->row;
    hid_t from = H5Dget_space(s->id), to = H5Screate_simple(1, &all, NULL);
    bool good = from >= 0 && to >= 0 && H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dread(s->id, type, to, from, H5P_DEFAULT, out) >= 0;
    H5Sclose(from);
    H5Sclose(to);
    if (good)
        return FST_OK;
    return fst_fail(err, FST_E_FORMAT, "%s: rows %" PRIu64 " to %" PRIu64 " of %s cannot be read: cut off or damaged",
                    r->path, (uint64_t)first, (uint64_t)(first + n - 1), s->name);
}

static fst_status check_shapes(const struct reading *r, const struct set *set, fst_error *err)
{
    const struct set *x = &set[0], *y = &set[1], *z = &set[2];
    if (x->rank != 3 || x->dim[2] != 2 || x->dim[1] == 0)
        return wrong(r, "X", "has another shape", err);
    if (y->rank != 2 || y->dim[1] == 0 || y->dim[1] > FST_MAX_CLASSES)
        return wrong(r, "Y", "has another shape", err);
    if (z->row != 1)
        return wrong(r, "Z", "has another shape", err);
    if (y->dim[0] != x->dim[0] || z->dim[0] != x->dim[0])
        return fst_fail(err, FST_E_MISMATCH, "%s: X has %" PRIu64 " rows, Y %" PRIu64 " and Z %" PRIu64, r->path,
                        (uint64_t)x->dim[0], (uint64_t)y->dim[0], (uint64_t)z->dim[0]);
    return FST_OK;
}

static hid_t open_file(const char *path)
{
    unsigned flags = 0;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* the library would print */
    (void)H5PLset_loading_state(flags);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return -1;
    H5Pset_file_locking(access, false, true);       /* folders that cannot be written */
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG); /* what of a damaged file cannot be closed goes with it */
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    return file;
}

/* The sets and the file stay open until the child ends: closing what is damaged is one more danger. */
static fst_status open_sets(const struct reading *r, struct set set[3], fst_error *err)
{
    static const char *const names[3] = {"X", "Y", "Z"};
    hid_t file = open_file(r->path);
    if (file < 0)
        return fst_fail(err, FST_E_FORMAT, "%s: an HDF5 file that is cut off or damaged", r->path);
    fst_status s = FST_OK;
    for (int i = 0; !s && i < 3; i++) {
        set[i] = (struct set){.name = names[i], .id = -1};
        s = open_set(r, file, &set[i], err);
    }
    return s ? s : check_shapes(r, set, err);
}

static struct sizes sizes_of(const struct set *set)
{
    return (struct sizes){set[0].dim[0], set[0].dim[1], set[1].dim[1]};
}

/* ---- the first child: sizes and labels ------------------------------------------------------------ */

static hsize_t rows_of_block(size_t row_bytes)
{
    return row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
}

/* The column of the 1 in a row of n; -1 when there is not one 1 and zeros. */
static int32_t column_of(const double *row, size_t n)
{
    int32_t found = -1;
    for (size_t i = 0; i < n; i++) {
        if (row[i] != 0 && (row[i] != 1 || found >= 0))
            return -1;
        if (row[i] == 1)
            found = (int32_t)i;
    }
    return found;
}

/* The labels of n rows from `at` on. */
static fst_status read_labels(const struct reading *r, const struct set *y, hsize_t at, hsize_t n, double *block,
                              int32_t *labels, fst_error *err)
{
    size_t columns = (size_t)y->row;
    fst_status s = read_rows(r, y, at, n, H5T_NATIVE_DOUBLE, block, err);
    for (size_t k = 0; !s && k < n; k++) {
        labels[k] = column_of(block + k * columns, columns);
        if (labels[k] < 0)
            s = fst_fail(err, FST_E_FORMAT, "%s: row %zu of Y is not one 1 and zeros", r->path, (size_t)at + k);
    }
    return s;
}

static fst_status send_labels(void *ctx, fst__confined *c, fst_error *err)
{
    const struct reading *r = ctx;
    struct set set[3], *y = &set[1];
    fst_status s = open_sets(r, set, err);
    if (s)
        return s;
    struct sizes sizes = sizes_of(set);
    size_t row = (size_t)y->row * sizeof(double);
    hsize_t most = rows_of_block(row), n = 0;
    double *block = fst_alloc((size_t)most * row);
    int32_t *labels = fst_alloc((size_t)most * sizeof *labels);
    s = block && labels ? FST_OK : fst_fail_memory(err, (size_t)most * row);
    if (!s)
        s = fst__confined_send(c, &sizes, sizeof sizes, err);
    for (hsize_t at = 0; !s && at < sizes.rows; at += n) {
        n = sizes.rows - at < most ? sizes.rows - at : most;
        s = read_labels(r, y, at, n, block, labels, err);
        if (!s)
            s = fst__confined_send(c, labels, (size_t)n * sizeof *labels, err);
    }
    return s;
}

/* ---- the second child: the picked rows of Z, then of X -------------------------------------------- */

/* From the at-th of the picked rows on, how many, at most `most`, stand side by side; *first is the first of them. */
static hsize_t run_of(const fst__picks *p, size_t at, hsize_t most, hsize_t *first)
{
    hsize_t n = 1;
    *first = fst__picked(p, at);
    if (!p->index)
        return p->count - at < most ? p->count - at : most;
    while (n < most && at + n < p->count && p->index[at + n] == *first + n)
        n++;
    return n;
}

/* (L, 2) becomes (2, L). */
static void split_channels(const float *row, size_t length, float *out)
{
    for (size_t i = 0; i < length; i++) {
        out[i] = row[2 * i];
        out[length + i] = row[2 * i + 1];
    }
}

/* Sends rows as floats, those of two channels (`length` not 0) with one channel after the other. */
static fst_status send_floats(const struct reading *r, fst__confined *c, const struct set *set, size_t length,
                              fst_error *err)
{
    const fst__picks *p = r->picks;
    size_t row = (size_t)set->row, bytes = row * sizeof(float);
    hsize_t most = rows_of_block(bytes), n = 0, first = 0;
    float *block = fst_alloc((size_t)most * bytes), *sent = fst_alloc((size_t)most * bytes);
    fst_status s = block && sent ? FST_OK : fst_fail_memory(err, 2 * (size_t)most * bytes);
    for (size_t at = 0; !s && at < p->count; at += (size_t)n) {
        n = run_of(p, at, most, &first);
        s = read_rows(r, set, first, n, H5T_NATIVE_FLOAT, block, err);
        for (size_t k = 0; !s && length && k < n; k++)
            split_channels(block + k * row, length, sent + k * row);
        if (!s)
            s = fst__confined_send(c, length ? sent : block, (size_t)n * bytes, err);
    }
    return s;
}

static fst_status send_rows(void *ctx, fst__confined *c, fst_error *err)
{
    const struct reading *r = ctx;
    struct set set[3];
    fst_status s = open_sets(r, set, err);
    struct sizes now = {0};
    if (!s)
        now = sizes_of(set);
    if (!s && (now.rows != r->sizes.rows || now.length != r->sizes.length || now.classes != r->sizes.classes))
        s = fst_fail(err, FST_E_MISMATCH, "%s: was changed while it was read", r->path);
    if (!s)
        s = send_floats(r, c, &set[2], 0, err);
    return s ? s : send_floats(r, c, &set[0], (size_t)now.length, err);
}

#endif

/* ---- the parent ---------------------------------------------------------------------------------- */

static size_t child_memory(const struct reading *r)
{
    size_t budget = fst_budget(r->file_bytes);
    return LIBRARY_BYTES + (budget < CHUNKS_BYTES ? budget : CHUNKS_BYTES);
}

/* A child may say anything; these are the bounds of check_storage and check_shapes. */
static fst_status check_sizes(const struct reading *r, fst_error *err)
{
    const struct sizes *z = &r->sizes;
    uint64_t values = 0, most = 0;
    if (__builtin_mul_overflow(r->file_bytes, DEFLATE_MOST, &most))
        most = UINT64_MAX;
    bool sound = z->length > 0 && z->length <= most && z->classes > 0 && z->classes <= FST_MAX_CLASSES &&
                 !__builtin_mul_overflow(z->rows, z->length, &values) && values <= most / 2;
    if (!sound)
        return fst_fail(err, FST_E_FORMAT, "%s: libhdf5 went astray while reading it; the file is damaged", r->path);
    if (z->rows > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: %" PRIu64 " rows are more than can be counted", r->path, z->rows);
    return FST_OK;
}

static fst_status take_sizes(struct reading *r, fst__confined *c, int classes, fst_error *err)
{
    fst_status s = fst__confined_take(c, &r->sizes, sizeof r->sizes, err);
    if (!s)
        s = check_sizes(r, err);
    if (!s && classes && (uint64_t)classes != r->sizes.classes)
        s = fst_fail(err, FST_E_CONFIG, "%s: Y has %" PRIu64 " columns, but %d classes were asked for", r->path,
                     r->sizes.classes, classes);
    return s;
}

static fst_status take_labels(struct reading *r, fst__held *h, fst__confined_fn labels, int classes, fst_error *err)
{
    const fst__confined_spec spec = {"libhdf5", r->path, child_memory(r), BUSY_SECONDS, SILENT_SECONDS};
    fst__confined c;
    fst_status s = fst__confined_start(&c, &spec, labels, r, err);
    if (!s)
        s = take_sizes(r, &c, classes, err);
    size_t bytes = s ? 0 : (size_t)r->sizes.rows * sizeof *h->own_labels;
    if (!s && !(h->own_labels = fst_alloc(bytes)))
        s = fst_fail_memory(err, bytes);
    if (!s)
        s = fst__confined_take(&c, h->own_labels, bytes, err);
    if (!s)
        s = fst__confined_finish(&c, err);
    fst__confined_stop(&c);
    return s;
}

static fst_status check_snr(const fst__held *h, fst_error *err)
{
    for (size_t i = 0; i < h->base.count; i++)
        if (!(fabsf(h->own_snr[i]) <= 1000))
            return fst_fail(err, FST_E_FORMAT, "%s: row %zu of Z is %g, which is no SNR in dB", h->base.name, i,
                            (double)h->own_snr[i]);
    return FST_OK;
}

static fst_status take_rows(struct reading *r, fst__held *h, fst__confined_fn rows, fst_error *err)
{
    const fst__confined_spec spec = {"libhdf5", r->path, child_memory(r), BUSY_SECONDS, SILENT_SECONDS};
    size_t count = r->picks->count, length = (size_t)r->sizes.length;
    fst__confined c;
    fst_status s = fst__held_reserve(h, FST_F32, &FST_SHAPE(2, (int64_t)length), count, err);
    if (!s && !(h->own_snr = fst_alloc(count * sizeof *h->own_snr)))
        s = fst_fail_memory(err, count * sizeof *h->own_snr);
    if (s)
        return s;
    s = fst__confined_start(&c, &spec, rows, r, err);
    if (!s)
        s = fst__confined_take(&c, h->own_snr, count * sizeof *h->own_snr, err);
    if (!s)
        s = check_snr(h, err);
    if (!s)
        s = fst__confined_take(&c, h->own_data, count * 2 * length * sizeof(float), err);
    if (!s)
        s = fst__confined_finish(&c, err);
    fst__confined_stop(&c);
    return s ? s : fst__held_check_finite(h, r->picks, err);
}

fst_status fst__radioml_hdf5_from(fst__held *h, const fst_source_spec *spec, fst__confined_fn labels,
                                  fst__confined_fn rows, fst_source **out, fst_error *err)
{
    struct stat st;
    fst__picks picks = {0};
    if (strcmp(spec->split, "train"))
        return fst_fail(err, FST_E_ABSENT, "%s: has no %s split; see fedstill data split", h->base.name, spec->split);
    if (stat(spec->path, &st))
        return fst_fail_errno(err, "%s", spec->path);
    struct reading r = {.path = spec->path, .file_bytes = (uint64_t)st.st_size, .picks = &picks};
    fst_status s = take_labels(&r, h, labels, spec->classes, err);
    int classes = s ? 0 : (int)r.sizes.classes;
    if (!s)
        s = fst__held_choose(h, (size_t)r.sizes.rows, classes, true, spec->limit, &picks, err);
    if (!s)
        s = take_rows(&r, h, rows, err);
    fst_free(picks.index);
    if (!s && classes == RADIOML_CLASSES)
        s = fst__names_copy(&h->base.class_names, (char *const *)(uintptr_t)modulations, RADIOML_CLASSES, err);
    return s ? s : fst__held_finish(h, h->own_labels, h->base.count, classes, out, err);
}

fst_status fst__radioml_hdf5(fst__held *h, const fst_source_spec *spec, fst_source **out, fst_error *err)
{
#ifdef FST_WITH_HDF5
    return fst__radioml_hdf5_from(h, spec, send_labels, send_rows, out, err);
#else
    (void)spec, (void)out;
    return fst_fail(
        err, FST_E_UNSUPPORTED,
        "%s: an HDF5 file, and this build is without libhdf5: install libhdf5-dev and build again, or save X as "
        "(N, 2, L) and y in an npz",
        h->base.name);
#endif
}
