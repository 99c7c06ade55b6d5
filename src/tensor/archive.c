/*
 * Zip archives for npz and PyTorch's files, by libzip. It writes nothing and unpacks nothing that is larger than its
 * packed bytes can stand for.
 */
#include <errno.h>

#include "archive.h"

/* A deflated byte cannot stand for more than this many (zlib's technical notes: 1032:1). */
enum { DEFLATE_MOST = 1032 };

static fst_status refused(const char *name, const char *kind, int code, int system, fst_error *err)
{
    zip_error_t e;
    zip_error_init_with_code(&e, code);
    e.sys_err = system;
    fst_status status = code == ZIP_ER_OPEN || code == ZIP_ER_NOENT || code == ZIP_ER_READ ? FST_E_IO : FST_E_FORMAT;
    fst_status s = fst_fail(err, status, "%s: not a readable %s file: %s", name, kind, zip_error_strerror(&e));
    zip_error_fini(&e);
    return s;
}

fst_status fst__archive_open(zip_t **out, const char *path, const char *kind, fst_error *err)
{
    int code = 0;
    zip_t *z = zip_open(path, ZIP_RDONLY, &code);
    if (!z)
        return refused(path, kind, code, errno, err);
    *out = z;
    return FST_OK;
}

fst_status fst__archive_open_memory(zip_t **out, const char *name, const char *kind, const void *data, size_t len,
                                    fst_error *err)
{
    zip_error_t e;
    zip_error_init(&e);
    zip_source_t *source = zip_source_buffer_create(data, len, 0, &e);
    zip_t *z = source ? zip_open_from_source(source, ZIP_RDONLY, &e) : NULL;
    fst_status s = z ? FST_OK : refused(name, kind, zip_error_code_zip(&e), zip_error_code_system(&e), err);
    if (!z && source)
        zip_source_free(source);
    zip_error_fini(&e);
    if (z)
        *out = z;
    return s;
}

/* A directory entry may promise anything; deflate cannot keep more than 1032:1. */
static bool plausible(const zip_stat_t *st)
{
    const zip_uint64_t need = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if ((st->valid & need) != need)
        return false;
    if (st->comp_method == ZIP_CM_STORE)
        return st->size == st->comp_size;
    return st->comp_size > UINT64_MAX / DEFLATE_MOST || st->size <= st->comp_size * DEFLATE_MOST;
}

fst_status fst__archive_member(zip_file_t **out, zip_t *z, zip_uint64_t i, const char *label, uint64_t *size,
                               fst_error *err)
{
    zip_stat_t st;
    if (zip_stat_index(z, i, 0, &st) || !plausible(&st))
        return fst_fail(err, FST_E_FORMAT, "%s: the archive's directory promises what it cannot hold", label);
    if (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: compression method %d, only stored and deflated are read", label,
                        (int)st.comp_method);
    zip_file_t *f = zip_fopen_index(z, i, 0);
    if (!f)
        return fst_fail(err, FST_E_FORMAT, "%s: %s", label, zip_strerror(z));
    *size = st.size;
    *out = f;
    return FST_OK;
}

fst_status fst__archive_end(zip_file_t *f, const char *label, fst_error *err)
{
    char extra;
    zip_int64_t n = zip_fread(f, &extra, 1);
    if (n == 0)
        return FST_OK;
    if (n < 0)
        return fst_fail(err, FST_E_FORMAT, "%s: damaged: %s", label, zip_file_strerror(f));
    return fst_fail(err, FST_E_FORMAT, "%s: longer than the archive's directory says", label);
}
