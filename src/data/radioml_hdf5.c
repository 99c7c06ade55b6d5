/*
 * RadioML 2018.01A (GOLD_XYZ_OSC.0001_1024.hdf5) as a source: data sets X (N, L, 2), Y (N, classes) with one 1 a row,
 * and Z (N, 1), the SNR in dB. libhdf5 reads it; a build without it refuses such files by name.
 *
 * Only the rows that are wanted are read, a block at a time, so that 21 GB on disk do not have to fit into memory. What
 * a file may make the library do is bounded first: data sets are in the file itself (no links or storage elsewhere,
 * which could name any file), have no more values than their bytes can stand for, and small chunks; filters are not
 * loaded from outside.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
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

#ifndef FST_WITH_HDF5

fst_status fst__radioml_hdf5(fst__held *h, const fst_source_spec *spec, fst_source **out, fst_error *err)
{
    (void)spec, (void)out;
    return fst_fail(
        err, FST_E_UNSUPPORTED,
        "%s: an HDF5 file, and this build is without libhdf5: install libhdf5-dev and build again, or save X as "
        "(N, 2, L) and y in an npz",
        h->base.name);
}

#else

/* A deflated byte stands for no more than this many. */
enum { DEFLATE_MOST = 1032, BLOCK_BYTES = 4 << 20, MAX_CHUNK = 64 << 20, RADIOML_CLASSES = 24 };

/* In the order of RadioML 2018's classes-fixed.json, which is that of Y's columns. */
static const char *const modulations[RADIOML_CLASSES] = {
    "OOK",    "4ASK",      "8ASK",      "BPSK",      "QPSK",      "8PSK",  "16PSK", "32PSK",
    "16APSK", "32APSK",    "64APSK",    "128APSK",   "16QAM",     "32QAM", "64QAM", "128QAM",
    "256QAM", "AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM",    "GMSK",  "OQPSK"};

/* The library is one for the process, and need not have been built for threads. */
static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

struct set {
    const char *name;
    hid_t id;
    int rank;
    hsize_t dim[3];
    hsize_t row; /* values of a row */
};

static fst_status wrong(const fst__held *h, const char *name, const char *what, fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT,
                    "%s: %s %s; RadioML 2018 has X (N, length, 2), Y (N, classes) with one 1 a row, and Z (N, 1)",
                    h->base.name, name, what);
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
static fst_status check_storage(const fst__held *h, const struct set *s, uint64_t file_bytes, fst_error *err)
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
        return wrong(h, s->name, "holds no numbers", err);
    if (outside || (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: the values of %s are not in the file itself", h->base.name,
                        s->name);
    if (layout == H5D_CHUNKED && (bad || chunk_bytes > MAX_CHUNK))
        return fst_fail(err, FST_E_LIMIT, "%s: %s has chunks of more than %d MB", h->base.name, s->name,
                        MAX_CHUNK >> 20);
    uint64_t most = layout == H5D_CHUNKED ? stored * DEFLATE_MOST : stored;
    if (bad || stored > file_bytes || wanted > most)
        return fst_fail(err, FST_E_FORMAT, "%s: %s claims more values than are in the file: cut off or damaged",
                        h->base.name, s->name);
    return FST_OK;
}

/* Opens a data set of the file's root. */
static fst_status open_set(const fst__held *h, hid_t file, struct set *s, uint64_t file_bytes, fst_error *err)
{
    H5L_info_t link;
    if (H5Lexists(file, s->name, H5P_DEFAULT) <= 0)
        return wrong(h, s->name, "is not there", err);
    if (H5Lget_info(file, s->name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: %s is a link to another place", h->base.name, s->name);
    s->id = H5Dopen2(file, s->name, H5P_DEFAULT);
    if (s->id < 0)
        return wrong(h, s->name, "is damaged, or no data set", err);
    hid_t space = H5Dget_space(s->id);
    s->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool good = s->rank >= 1 && s->rank <= 3 && H5Sget_simple_extent_dims(space, s->dim, NULL) == s->rank;
    H5Sclose(space);
    if (!good)
        return wrong(h, s->name, "has no list of rows", err);
    s->row = 1;
    for (int i = 1; i < s->rank; i++)
        if (__builtin_mul_overflow(s->row, s->dim[i], &s->row))
            return wrong(h, s->name, "is larger than any memory", err);
    return check_storage(h, s, file_bytes, err);
}

/* Rows first ... first + n - 1, converted to `type`. */
static fst_status read_rows(const fst__held *h, const struct set *s, hsize_t first, hsize_t n, hid_t type, void *out,
                            fst_error *err)
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
                    h->base.name, (uint64_t)first, (uint64_t)(first + n - 1), s->name);
}

/* ---- X, Y and Z ------------------------------------------------------------------------------- */

static hsize_t rows_of_block(size_t row_bytes)
{
    return row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
}

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
static fst_status take_x(fst__held *h, const struct set *x, const fst__picks *p, fst_error *err)
{
    size_t length = (size_t)x->dim[1], row = 2 * length;
    hsize_t most = rows_of_block(row * sizeof(float)), n = 0, first = 0;
    float *block = fst_alloc((size_t)most * row * sizeof *block), *to = (float *)(void *)h->own_data;
    fst_status s = block ? FST_OK : fst_fail_memory(err, (size_t)most * row * sizeof *block);
    for (size_t at = 0; !s && at < p->count; at += (size_t)n) {
        n = run_of(p, at, most, &first);
        s = read_rows(h, x, first, n, H5T_NATIVE_FLOAT, block, err);
        for (size_t k = 0; !s && k < n; k++, to += row)
            for (size_t i = 0; i < length; i++) {
                to[i] = block[k * row + 2 * i];
                to[length + i] = block[k * row + 2 * i + 1];
            }
    }
    fst_free(block);
    return s;
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

static fst_status take_y(const fst__held *h, const struct set *y, int32_t *labels, size_t count, fst_error *err)
{
    size_t columns = (size_t)y->row;
    hsize_t most = rows_of_block(columns * sizeof(double)), n = 0;
    double *block = fst_alloc((size_t)most * columns * sizeof *block);
    fst_status s = block ? FST_OK : fst_fail_memory(err, (size_t)most * columns * sizeof *block);
    for (size_t at = 0; !s && at < count; at += (size_t)n) {
        n = count - at < most ? count - at : most;
        s = read_rows(h, y, at, n, H5T_NATIVE_DOUBLE, block, err);
        for (size_t k = 0; !s && k < n; k++) {
            int32_t class = labels[at + k] = column_of(block + k * columns, columns);
            if (class < 0)
                s = fst_fail(err, FST_E_FORMAT, "%s: row %zu of Y is not one 1 and zeros", h->base.name, at + k);
        }
    }
    fst_free(block);
    return s;
}

static fst_status take_z(fst__held *h, const struct set *z, const fst__picks *p, fst_error *err)
{
    fst_status s = FST_OK;
    hsize_t n = 0, first = 0;
    for (size_t at = 0; !s && at < p->count; at += (size_t)n) {
        n = run_of(p, at, p->count, &first);
        s = read_rows(h, z, first, n, H5T_NATIVE_FLOAT, h->own_snr + at, err);
    }
    for (size_t i = 0; !s && i < h->base.count; i++)
        if (!(fabsf(h->own_snr[i]) <= 1000))
            s = fst_fail(err, FST_E_FORMAT, "%s: row %zu of Z is %g, which is no SNR in dB", h->base.name, i,
                         (double)h->own_snr[i]);
    return s;
}

static fst_status check_shapes(const fst__held *h, const struct set *set, fst_error *err)
{
    const struct set *x = &set[0], *y = &set[1], *z = &set[2];
    if (x->rank != 3 || x->dim[2] != 2 || x->dim[1] == 0)
        return wrong(h, "X", "has another shape", err);
    if (y->rank != 2 || y->dim[1] == 0 || y->dim[1] > FST_MAX_CLASSES)
        return wrong(h, "Y", "has another shape", err);
    if (z->row != 1)
        return wrong(h, "Z", "has another shape", err);
    if (y->dim[0] != x->dim[0] || z->dim[0] != x->dim[0])
        return fst_fail(err, FST_E_MISMATCH, "%s: X has %" PRIu64 " rows, Y %" PRIu64 " and Z %" PRIu64, h->base.name,
                        (uint64_t)x->dim[0], (uint64_t)y->dim[0], (uint64_t)z->dim[0]);
    return FST_OK;
}

/* The labels of all rows are read first: with a limit only the rows that it leaves are. */
static fst_status choose_rows(fst__held *h, const struct set *y, size_t limit, fst__picks *out, fst_error *err)
{
    size_t all = (size_t)y->dim[0];
    if (all > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu rows are more than can be counted", h->base.name, all);
    h->own_labels = fst_alloc(all * sizeof *h->own_labels);
    fst_status s =
        h->own_labels ? take_y(h, y, h->own_labels, all, err) : fst_fail_memory(err, all * sizeof *h->own_labels);
    return s ? s : fst__held_choose(h, all, (int)y->dim[1], true, limit, out, err);
}

static fst_status take_rows(fst__held *h, const struct set *set, const fst__picks *p, fst_error *err)
{
    fst_status s = fst__held_reserve(h, FST_F32, &FST_SHAPE(2, (int64_t)set[0].dim[1]), p->count, err);
    if (!s && !(h->own_snr = fst_alloc(p->count * sizeof *h->own_snr)))
        s = fst_fail_memory(err, p->count * sizeof *h->own_snr);
    if (!s)
        s = take_z(h, &set[2], p, err);
    if (!s)
        s = take_x(h, &set[0], p, err);
    return s ? s : fst__held_check_finite(h, p, err);
}

static fst_status take_sets(fst__held *h, const struct set *set, const fst_source_spec *spec, fst_source **out,
                            fst_error *err)
{
    fst_status s = check_shapes(h, set, err);
    if (s)
        return s;
    int classes = (int)set[1].dim[1];
    if (spec->classes && spec->classes != classes)
        return fst_fail(err, FST_E_CONFIG, "%s: Y has %d columns, but %d classes were asked for", h->base.name, classes,
                        spec->classes);
    fst__picks p = {0};
    s = choose_rows(h, &set[1], spec->limit, &p, err);
    if (!s)
        s = take_rows(h, set, &p, err);
    fst_free(p.index);
    if (!s && classes == RADIOML_CLASSES)
        s = fst__names_copy(&h->base.class_names, (char *const *)(uintptr_t)modulations, RADIOML_CLASSES, err);
    return s ? s : fst__held_finish(h, h->own_labels, h->base.count, classes, out, err);
}

/* ---- the file ----------------------------------------------------------------------------------- */

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

static fst_status read_file(fst__held *h, const fst_source_spec *spec, fst_source **out, fst_error *err)
{
    struct set set[3] = {{.name = "X", .id = -1}, {.name = "Y", .id = -1}, {.name = "Z", .id = -1}};
    struct stat st;
    if (stat(spec->path, &st))
        return fst_fail_errno(err, "%s", spec->path);
    hid_t file = open_file(spec->path);
    if (file < 0)
        return fst_fail(err, FST_E_FORMAT, "%s: an HDF5 file that is cut off or damaged", h->base.name);
    fst_status s = FST_OK;
    for (int i = 0; !s && i < 3; i++)
        s = open_set(h, file, &set[i], (uint64_t)st.st_size, err);
    if (!s)
        s = take_sets(h, set, spec, out, err);
    for (int i = 0; i < 3; i++)
        if (set[i].id >= 0)
            H5Dclose(set[i].id);
    H5Fclose(file);
    return s;
}

fst_status fst__radioml_hdf5(fst__held *h, const fst_source_spec *spec, fst_source **out, fst_error *err)
{
    if (strcmp(spec->split, "train"))
        return fst_fail(err, FST_E_FORMAT, "%s: has no %s split; see fedstill data split", h->base.name, spec->split);
    pthread_mutex_lock(&library);
    fst_status s = read_file(h, spec, out, err);
    pthread_mutex_unlock(&library);
    return s;
}

#endif
