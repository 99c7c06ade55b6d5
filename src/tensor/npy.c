/*
 * NumPy's npy and npz. The header is a Python literal; only the one dictionary that NumPy writes is
 * understood, by a parser of its own that looks at nothing else. Pickles (object arrays) are refused.
 * Data goes from the file straight into the array, of all rows or of those that are wanted; only Fortran order takes a
 * second copy.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "npy_input.h"
#include "npy_private.h"

enum { MAX_HEADER = 65536, MAX_MEMBERS = 1 << 20, MAX_TEXTS = 1 << 20 };

struct header {
    fst_dtype dtype;
    fst_shape shape;
    bool fortran, swap;
    bool complex;    /* an element is two of dtype */
    bool texts;      /* asked for: NumPy's S and U are wanted, as characters in a dimension after the others */
    int64_t letters; /* texts: characters of each */
};

void fst_array_release(fst_array *a)
{
    if (!a)
        return;
    fst_free(a->name);
    fst_free(a->data);
    *a = (fst_array){0};
}

/* ---- the header's dictionary ---------------------------------------------------------------- */

/* A position in the text, which ends with a NUL. */
struct text {
    const char *name, *p;
};

static void blanks(struct text *t)
{
    while (*t->p == ' ' || *t->p == '\t' || *t->p == '\n' || *t->p == '\r')
        t->p++;
}

static bool accept(struct text *t, const char *word)
{
    size_t n = strlen(word);
    blanks(t);
    if (strncmp(t->p, word, n))
        return false;
    t->p += n;
    return true;
}

static fst_status bad(const struct text *t, const char *what, fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT, "%s: the npy header is wrong: %s at \"%.24s\"", t->name, what, t->p);
}

/* 'abc' or "abc", without escapes, at most size - 1 characters. */
static bool quoted(struct text *t, char *out, size_t size)
{
    size_t n = 0;
    blanks(t);
    char quote = *t->p;
    if (quote != '\'' && quote != '"')
        return false;
    t->p++;
    while (*t->p && *t->p != quote && *t->p != '\\' && n + 1 < size)
        out[n++] = *t->p++;
    out[n] = 0;
    if (*t->p != quote)
        return false;
    t->p++;
    return true;
}

static bool number(struct text *t, int64_t *out)
{
    int64_t v = 0;
    blanks(t);
    if (*t->p < '0' || *t->p > '9')
        return false;
    while (*t->p >= '0' && *t->p <= '9')
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *t->p++ - '0', &v))
            return false;
    if (*t->p == 'L') /* Python 2 wrote its long integers so */
        t->p++;
    *out = v;
    return true;
}

/* "|S32": bytes, "<U32": characters of four bytes. */
static fst_status parse_texts(const struct text *t, const char *type, struct header *h, fst_error *err)
{
    struct text digits = {t->name, type + 2};
    if ((type[1] != 'S' && type[1] != 'U') || !number(&digits, &h->letters) || *digits.p)
        return fst_fail(err, FST_E_FORMAT, "%s: elements of type '%s'; texts ('S32', 'U32') are needed", t->name, type);
    h->dtype = type[1] == 'S' ? FST_U8 : FST_U32;
    h->swap = type[1] == 'U' && type[0] == '>';
    return FST_OK;
}

static fst_status parse_type(struct text *t, struct header *h, fst_error *err)
{
    static const struct {
        char name[3];
        fst_dtype dtype;
    } kinds[] = {{"f4", FST_F32}, {"f8", FST_F64}, {"f2", FST_F16}, {"u1", FST_U8},  {"i1", FST_I8},  {"u2", FST_U16},
                 {"i2", FST_I16}, {"u4", FST_U32}, {"i4", FST_I32}, {"u8", FST_U64}, {"i8", FST_I64}, {"b1", FST_BOOL}};
    char type[16];
    blanks(t);
    if (*t->p == '[')
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: a structured array; save each field as an array", t->name);
    if (!quoted(t, type, sizeof type) || !strchr("<>|=", type[0]) || !type[0])
        return bad(t, "descr must be a type such as '<f4'", err);
    if (type[1] == 'O')
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: an object array (a pickle); save it with a number type", t->name);
    if (h->texts)
        return parse_texts(t, type, h, err);
    h->complex = !strcmp(type + 1, "c8") || !strcmp(type + 1, "c16");
    const char *part = !h->complex ? type + 1 : type[2] == '8' ? "f4" : "f8";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(part, kinds[i].name)) {
            h->dtype = kinds[i].dtype;
            bool wide = fst_dtype_size(h->dtype) > 1;
            if (wide && type[0] == '|')
                return bad(t, "a type of several bytes needs a byte order", err);
            h->swap = wide && type[0] == '>';
            return FST_OK;
        }
    if (type[1] == 'S' || type[1] == 'U')
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s: texts ('%s'), and numbers are needed; of labels NumPy makes both: classes, y = "
                        "numpy.unique(labels, return_inverse=True), to be saved as \"classes\" and as labels",
                        t->name, type);
    return fst_fail(err, FST_E_UNSUPPORTED,
                    "%s: elements of type '%s' are not read; use bool, int, uint or float of 1 to 8 bytes, or complex "
                    "of 8 or 16",
                    t->name, type);
}

static fst_status parse_order(struct text *t, struct header *h, fst_error *err)
{
    if (accept(t, "True"))
        h->fortran = true;
    else if (accept(t, "False"))
        h->fortran = false;
    else
        return bad(t, "fortran_order must be True or False", err);
    return FST_OK;
}

static fst_status parse_shape(struct text *t, struct header *h, fst_error *err)
{
    if (!accept(t, "("))
        return bad(t, "shape must be a tuple", err);
    h->shape.rank = 0;
    bool comma = true;
    while (!accept(t, ")")) {
        if (!comma || h->shape.rank == FST_MAX_RANK)
            return bad(t, comma ? "shape has too many dimensions" : "a comma or ) is missing", err);
        if (!number(t, &h->shape.dim[h->shape.rank]))
            return bad(t, "a dimension is not a whole number", err);
        h->shape.rank++;
        comma = accept(t, ",");
    }
    if (h->shape.rank == 1 && !comma)
        return bad(t, "a tuple of one needs its comma", err);
    return FST_OK;
}

static fst_status parse_dictionary(struct text *t, struct header *h, fst_error *err)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    static fst_status (*const parsers[])(struct text *, struct header *, fst_error *) = {parse_type, parse_order,
                                                                                         parse_shape};
    char key[16];
    unsigned seen = 0;
    bool comma = true;
    if (!accept(t, "{"))
        return bad(t, "a dictionary is expected", err);
    while (!accept(t, "}")) {
        if (!comma || !quoted(t, key, sizeof key) || !accept(t, ":"))
            return bad(t, "a key is expected", err);
        unsigned k = 0;
        while (k < 3 && strcmp(key, keys[k]))
            k++;
        if (k == 3 || seen & 1u << k)
            return fst_fail(err, FST_E_FORMAT, "%s: the npy header is wrong: key '%s' is %s", t->name, key,
                            k == 3 ? "unknown" : "there twice");
        seen |= 1u << k;
        fst_status s = parsers[k](t, h, err);
        if (s)
            return s;
        comma = accept(t, ",");
    }
    blanks(t);
    if (*t->p)
        return bad(t, "something follows the dictionary", err);
    if (seen != 7)
        return fst_fail(err, FST_E_FORMAT, "%s: the npy header is wrong: descr, fortran_order and shape are needed",
                        t->name);
    return FST_OK;
}

static fst_status read_header(struct fst__input *in, struct header *h, fst_error *err)
{
    unsigned char head[12];
    fst_status s = fst__input_read(in, head, 8, "the npy header", err);
    if (s)
        return s;
    if (memcmp(head, "\x93NUMPY", 6))
        return fst_fail(err, FST_E_FORMAT, "%s: not an npy file: it does not begin with \\x93NUMPY", in->name);
    if (head[6] < 1 || head[6] > 3 || head[7] != 0)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: npy version %d.%d, versions 1.0 to 3.0 are read", in->name,
                        head[6], head[7]);
    size_t width = head[6] == 1 ? 2 : 4;
    s = fst__input_read(in, head + 8, width, "the npy header", err);
    if (s)
        return s;
    uint32_t len = (uint32_t)head[8] | (uint32_t)head[9] << 8;
    if (width == 4)
        len |= (uint32_t)head[10] << 16 | (uint32_t)head[11] << 24;
    if (len > MAX_HEADER)
        return fst_fail(err, FST_E_LIMIT, "%s: an npy header of %lu bytes, at most %d are read", in->name,
                        (unsigned long)len, MAX_HEADER);
    char *text = fst_alloc(len + 1u);
    if (!text)
        return fst_fail_memory(err, len);
    s = fst__input_read(in, text, len, "the npy header", err);
    text[s ? 0 : len] = 0;
    if (!s && memchr(text, 0, len))
        s = fst_fail(err, FST_E_FORMAT, "%s: the npy header holds a NUL", in->name);
    if (!s)
        s = parse_dictionary(&(struct text){in->name, text}, h, err);
    fst_free(text);
    return s;
}

/* ---- the data ------------------------------------------------------------------------------- */

void fst__swap_bytes(unsigned char *p, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++, p += size)
        for (size_t k = 0; k < size / 2; k++) {
            unsigned char t = p[k];
            p[k] = p[size - 1 - k];
            p[size - 1 - k] = t;
        }
}

/* Copies the array in C order; the index counts up, last dimension first, and the source follows it. */
void fst__from_fortran(unsigned char *dst, const unsigned char *src, const fst_shape *s, size_t count, size_t size)
{
    int64_t at[FST_MAX_RANK] = {0}, stride[FST_MAX_RANK];
    int64_t from = 0, step = 1;
    for (int d = 0; d < s->rank; d++) {
        stride[d] = step;
        step *= s->dim[d];
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(dst + i * size, src + (size_t)from * size, size);
        for (int d = s->rank - 1; d >= 0; d--) {
            from += stride[d];
            if (++at[d] < s->dim[d])
                break;
            from -= stride[d] * s->dim[d];
            at[d] = 0;
        }
    }
}

static size_t element_size(const struct header *h)
{
    return fst_dtype_size(h->dtype) * (h->complex ? 2 : 1);
}

static fst_status to_c_order(unsigned char **data, const struct header *h, size_t count, fst_error *err)
{
    size_t size = element_size(h);
    if (!h->fortran || h->shape.rank < 2)
        return FST_OK;
    unsigned char *sorted = fst_alloc(count * size);
    if (!sorted)
        return fst_fail_memory(err, count * size);
    fst__from_fortran(sorted, *data, &h->shape, count, size);
    fst_free(*data);
    *data = sorted;
    return FST_OK;
}

/* The size of the data that will be kept: of all rows, or of those wanted, to which the shape then shrinks. */
static fst_status data_size(const struct fst__input *in, struct header *h, const fst_rows *rows, size_t max_bytes,
                            size_t *bytes, fst_error *err)
{
    char text[256];
    int64_t count = fst_shape_count(&h->shape), want;
    fst_shape_text(&h->shape, text, sizeof text);
    if (count < 0 || __builtin_mul_overflow(count, (int64_t)element_size(h), &want))
        return fst_fail(err, FST_E_FORMAT, "%s: shape %s is larger than any memory", in->name, text);
    if ((uint64_t)want != in->left)
        return fst_fail(err, FST_E_FORMAT, "%s: %s of shape %s needs %lld bytes of data, %llu are there", in->name,
                        fst_dtype_name(h->dtype), text, (long long)want, (unsigned long long)in->left);
    if (rows && (h->shape.rank < 1 || (uint64_t)h->shape.dim[0] != rows->of))
        return fst_fail(err, FST_E_MISMATCH, "%s: an array of shape %s, where %zu rows are needed", in->name, text,
                        rows->of);
    if (rows) {
        want = want / (int64_t)rows->of * (int64_t)rows->count;
        h->shape.dim[0] = (int64_t)rows->count;
    }
    if ((uint64_t)want > max_bytes)
        return fst_fail(err, FST_E_LIMIT, "%s: an array of %lld bytes, at most %zu are read here", in->name,
                        (long long)want, max_bytes);
    *bytes = (size_t)want;
    return FST_OK;
}

/* In Fortran order a row's elements stand apart: every column is a list of all rows. */
static fst_status read_data(struct fst__input *in, const struct header *h, const fst_rows *rows, unsigned char *data,
                            size_t bytes, fst_error *err)
{
    if (!rows || !bytes)
        return fst__input_read(in, data, bytes, "the data", err);
    size_t row = bytes / rows->count, columns = h->fortran ? row / element_size(h) : 1;
    return fst__input_rows(in, columns, row / columns, rows, data, err);
}

/* A list of texts becomes an array with a row of characters for each. */
static fst_status texts_shape(const struct fst__input *in, struct header *h, fst_error *err)
{
    if (h->shape.rank != 1)
        return fst_fail(err, FST_E_FORMAT, "%s: texts in %d dimensions; a list is needed", in->name, h->shape.rank);
    /* texts of no bytes would be as many as the header likes, whatever the size of the file */
    if (!h->letters || h->shape.dim[0] > MAX_TEXTS)
        return fst_fail(err, FST_E_LIMIT, "%s: %lld texts of %lld characters; up to %d of one or more are read",
                        in->name, (long long)h->shape.dim[0], (long long)h->letters, MAX_TEXTS);
    h->shape.dim[h->shape.rank++] = h->letters;
    h->fortran = false;
    return FST_OK;
}

/* Reads the array, or only `rows` of it; `name` becomes its name. */
static fst_status read_array(fst_array *out, struct fst__input *in, const char *name, bool texts, const fst_rows *rows,
                             size_t max_bytes, fst_error *err)
{
    struct header h = {.texts = texts};
    size_t bytes = 0;
    fst_status s = read_header(in, &h, err);
    if (!s && texts)
        s = texts_shape(in, &h, err);
    if (!s)
        s = data_size(in, &h, rows, max_bytes, &bytes, err);
    if (s)
        return s;
    size_t count = bytes / element_size(&h), inner = 0;
    fst_shape shape = h.shape;
    if (h.complex && !fst__complex_shape(&shape, &inner))
        return fst_fail(err, FST_E_LIMIT, "%s: a complex array of %d dimensions, at most %d are read", in->name,
                        shape.rank, FST_MAX_RANK - 1);
    char *own_name = fst_strdup(name);
    unsigned char *data = fst_alloc(bytes);
    if (!own_name || !data)
        s = fst_fail_memory(err, bytes);
    if (!s)
        s = read_data(in, &h, rows, data, bytes, err);
    if (!s && h.swap)
        fst__swap_bytes(data, bytes / fst_dtype_size(h.dtype), fst_dtype_size(h.dtype));
    if (!s)
        s = to_c_order(&data, &h, count, err);
    if (!s && h.complex)
        s = fst__split_complex(data, count, inner, fst_dtype_size(h.dtype), err);
    if (s) {
        fst_free(own_name);
        fst_free(data);
        return s;
    }
    *out = (fst_array){own_name, h.dtype, shape, data};
    return FST_OK;
}

fst_status fst_npy_parse(fst_array *out, const char *name, const void *data, size_t len, size_t max_bytes,
                         fst_error *err)
{
    static const unsigned char nothing[1];
    struct fst__input in = {.name = name, .left = len, .memory = len ? data : nothing, .fd = -1};
    return read_array(out, &in, "", false, NULL, max_bytes, err);
}

fst_status fst_npy_read(fst_array *out, const char *path, size_t max_bytes, fst_error *err)
{
    return fst_npy_read_rows(out, path, NULL, max_bytes, err);
}

fst_status fst_npy_read_rows(fst_array *out, const char *path, const fst_rows *rows, size_t max_bytes, fst_error *err)
{
    struct fst__input in = {.name = path, .fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    struct stat st;
    fst_status s;
    if (in.fd < 0)
        return fst_fail_errno(err, "%s", path);
    if (fstat(in.fd, &st)) {
        s = fst_fail_errno(err, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        s = fst_fail(err, FST_E_IO, "%s: not a file", path);
    } else {
        in.left = (uint64_t)st.st_size;
        s = read_array(out, &in, "", false, rows, max_bytes, err);
    }
    close(in.fd);
    return s;
}

/* ---- writing -------------------------------------------------------------------------------- */

const char *fst__npy_type(fst_dtype t)
{
    static const char *const names[FST_DTYPE_COUNT] = {
        [FST_F32] = "<f4", [FST_F64] = "<f8", [FST_F16] = "<f2", [FST_U8] = "|u1",
        [FST_I8] = "|i1",  [FST_U16] = "<u2", [FST_I16] = "<i2", [FST_U32] = "<u4",
        [FST_I32] = "<i4", [FST_U64] = "<u8", [FST_I64] = "<i8", [FST_BOOL] = "|b1"};
    return (size_t)t < FST_DTYPE_COUNT ? names[t] : NULL;
}

/* Magic, version and dictionary, padded so that the data begins at a multiple of 64. */
static fst_status header_of(fst_buf *b, const char *type, const fst_shape *shape, fst_error *err)
{
    static const unsigned char magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0, 0};
    fst_status s = fst_buf_append(b, magic, sizeof magic, err);
    if (!s)
        s = fst_buf_printf(b, err, "{'descr': '%s', 'fortran_order': False, 'shape': (", type);
    for (int i = 0; !s && i < shape->rank; i++)
        s = fst_buf_printf(b, err, "%lld%s", (long long)shape->dim[i],
                           shape->rank == 1      ? ","
                           : i + 1 < shape->rank ? ", "
                                                 : "");
    if (!s)
        s = fst_buf_printf(b, err, "), }");
    size_t total = (b->len + 1 + 63) / 64 * 64;
    if (!s)
        s = fst_buf_printf(b, err, "%*s\n", (int)(total - b->len - 1), "");
    if (!s) {
        size_t len = b->len - sizeof magic; /* at most 8 dimensions: far below 65536 */
        b->data[8] = (char)(len & 255);
        b->data[9] = (char)(len >> 8);
    }
    return s;
}

fst_status fst__npy_header(fst_buf *b, const fst_tensor *t, fst_error *err)
{
    return header_of(b, fst__npy_type(t->dtype), &t->shape, err);
}

fst_status fst__npy_texts_header(fst_buf *b, size_t count, size_t width, fst_error *err)
{
    char type[32];
    snprintf(type, sizeof type, "|S%zu", width);
    return header_of(b, type, &FST_SHAPE((int64_t)count), err);
}

fst_status fst_npy_write(const char *path, const fst_tensor *t, fst_error *err)
{
    int64_t count = fst_shape_count(&t->shape);
    fst_buf head = {0};
    fst_atomic_file f = {0};
    if (!fst__npy_type(t->dtype))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: npy has no type for %s", path, fst_dtype_name(t->dtype));
    if (count < 0)
        return fst_fail(err, FST_E_ARGUMENT, "%s: the array's shape is not one", path);
    fst_status s = fst__npy_header(&head, t, err);
    if (!s)
        s = fst_atomic_open(&f, path, err);
    if (!s)
        s = fst_atomic_write(&f, head.data, head.len, err);
    if (!s)
        s = fst_atomic_write(&f, t->data, (size_t)count * fst_dtype_size(t->dtype), err);
    if (!s)
        s = fst_atomic_commit(&f, err);
    fst_atomic_abort(&f);
    fst_buf_release(&head);
    return s;
}

/* ---- npz ------------------------------------------------------------------------------------ */

static fst_status read_member(fst_array *out, zip_t *z, zip_uint64_t index, const char *label, const char *member,
                              bool texts, const fst_rows *rows, size_t max_bytes, fst_error *err)
{
    fst_array a = {0};
    struct fst__input in = {.name = label, .fd = -1};
    fst_status s = fst__archive_member(&in.member, z, index, label, &in.left, err);
    if (s)
        return s;
    s = read_array(&a, &in, member, texts, rows, max_bytes, err);
    if (!s)
        s = fst__archive_end(in.member, label, err);
    zip_fclose(in.member);
    if (s)
        fst_array_release(&a);
    else
        *out = a;
    return s;
}

static fst_status archive_read(fst_array *out, zip_t *z, const char *name, const char *member, bool texts,
                               const fst_rows *rows, size_t max_bytes, fst_error *err)
{
    fst_buf file = {0}, label = {0};
    fst_status s = fst_buf_printf(&file, err, "%s.npy", member);
    if (!s)
        s = fst_buf_printf(&label, err, "%s[%s]", name, member);
    if (!s) {
        zip_int64_t index = zip_name_locate(z, file.data, 0);
        s = index < 0 ? fst_fail(err, FST_E_FORMAT, "%s: there is no array \"%s\" in it", name, member)
                      : read_member(out, z, (zip_uint64_t)index, label.data, member, texts, rows, max_bytes, err);
    }
    fst_buf_release(&file);
    fst_buf_release(&label);
    return s;
}

fst_status fst_npz_read(fst_array *out, const char *path, const char *member, size_t max_bytes, fst_error *err)
{
    return fst_npz_read_rows(out, path, member, NULL, max_bytes, err);
}

fst_status fst_npz_read_rows(fst_array *out, const char *path, const char *member, const fst_rows *rows,
                             size_t max_bytes, fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open(&z, path, "npz (zip)", err);
    if (s)
        return s;
    s = archive_read(out, z, path, member, false, rows, max_bytes, err);
    zip_discard(z);
    return s;
}

fst_status fst__npz_read_memory(fst_array *out, const char *name, const void *data, size_t len, const char *member,
                                const fst_rows *rows, size_t max_bytes, fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open_memory(&z, name, "npz (zip)", data, len, err);
    if (s)
        return s;
    s = archive_read(out, z, name, member, false, rows, max_bytes, err);
    zip_discard(z);
    return s;
}

/* The length of the array's name when entry i is an array, else 0. */
static size_t array_name(zip_t *z, zip_uint64_t i, const char **name)
{
    const char *n = zip_get_name(z, i, 0);
    size_t len = n ? strlen(n) : 0;
    if (len < 5 || strcmp(n + len - 4, ".npy"))
        return 0;
    *name = n;
    return len - 4;
}

static fst_status archive_list(zip_t *z, const char *label, char ***names, size_t *count, fst_error *err)
{
    zip_int64_t entries = zip_get_num_entries(z, 0);
    size_t bytes = 0, n = 0, len;
    const char *name = NULL;
    if (entries < 0 || entries > MAX_MEMBERS)
        return fst_fail(err, FST_E_LIMIT, "%s: %lld members, at most %d are read", label, (long long)entries,
                        MAX_MEMBERS);
    for (zip_int64_t i = 0; i < entries; i++)
        if ((len = array_name(z, (zip_uint64_t)i, &name))) {
            bytes += sizeof(char *) + len + 1;
            n++;
        }
    char **list = fst_alloc(bytes);
    if (!list)
        return fst_fail_memory(err, bytes);
    char *text = (char *)(list + n);
    size_t k = 0;
    for (zip_int64_t i = 0; i < entries; i++)
        if ((len = array_name(z, (zip_uint64_t)i, &name))) {
            list[k++] = memcpy(text, name, len);
            text[len] = 0;
            text += len + 1;
        }
    *names = list;
    *count = n;
    return FST_OK;
}

fst_status fst_npz_list(const char *path, char ***names, size_t *count, fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open(&z, path, "npz (zip)", err);
    if (s)
        return s;
    s = archive_list(z, path, names, count, err);
    zip_discard(z);
    return s;
}

fst_status fst__npz_list_memory(const char *name, const void *data, size_t len, char ***names, size_t *count,
                                fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open_memory(&z, name, "npz (zip)", data, len, err);
    if (s)
        return s;
    s = archive_list(z, name, names, count, err);
    zip_discard(z);
    return s;
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* One character in UTF-8 to out (if not NULL); its length, 0 for what is no character. */
static size_t utf8(uint32_t c, char *out)
{
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        return 0;
    for (size_t i = n; out && i-- > 0; c >>= 6)
        out[i] = (char)(i ? 0x80 | (c & 0x3F) : lead[n] | c);
    return n;
}

/* Text i as UTF-8 to out (if not NULL); *len is its length. What is padded with NULs ends at the first. */
static bool text_at(const fst_array *a, size_t i, char *out, size_t *len)
{
    size_t width = (size_t)a->shape.dim[1], n = 0;
    for (size_t k = 0; k < width; k++) {
        uint32_t c =
            a->dtype == FST_U8 ? ((const uint8_t *)a->data)[i * width + k] : ((const uint32_t *)a->data)[i * width + k];
        size_t more = 1;
        if (c == 0)
            break;
        if (a->dtype == FST_U32)
            more = utf8(c, out ? out + n : NULL);
        else if (out)
            out[n] = (char)c;
        if (!more)
            return false;
        n += more;
    }
    *len = n;
    return true;
}

static fst_status texts_of(const fst_array *a, const char *name, char ***texts, size_t *count, fst_error *err)
{
    size_t n = (size_t)a->shape.dim[0], bytes = n * sizeof(char *), len = 0;
    for (size_t i = 0; i < n; i++) {
        if (!text_at(a, i, NULL, &len))
            return fst_fail(err, FST_E_FORMAT, "%s: text %zu of \"%s\" holds what is no character", name, i, a->name);
        bytes += len + 1;
    }
    char **list = fst_alloc(bytes);
    if (!list)
        return fst_fail_memory(err, bytes);
    char *at = (char *)(list + n);
    for (size_t i = 0; i < n; i++) {
        list[i] = at;
        (void)text_at(a, i, at, &len);
        at[len] = 0;
        at += len + 1;
    }
    *texts = list;
    *count = n;
    return FST_OK;
}

static fst_status archive_texts(zip_t *z, const char *name, const char *member, char ***texts, size_t *count,
                                size_t max_bytes, fst_error *err)
{
    fst_array a = {0};
    fst_status s = archive_read(&a, z, name, member, true, NULL, max_bytes, err);
    if (!s)
        s = texts_of(&a, name, texts, count, err);
    fst_array_release(&a);
    return s;
}

fst_status fst_npz_read_texts(char ***texts, size_t *count, const char *path, const char *member, size_t max_bytes,
                              fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open(&z, path, "npz (zip)", err);
    if (s)
        return s;
    s = archive_texts(z, path, member, texts, count, max_bytes, err);
    zip_discard(z);
    return s;
}

fst_status fst__npz_texts_memory(char ***texts, size_t *count, const char *name, const void *data, size_t len,
                                 const char *member, size_t max_bytes, fst_error *err)
{
    zip_t *z = NULL;
    fst_status s = fst__archive_open_memory(&z, name, "npz (zip)", data, len, err);
    if (s)
        return s;
    s = archive_texts(z, name, member, texts, count, max_bytes, err);
    zip_discard(z);
    return s;
}
