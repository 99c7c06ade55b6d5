/*
 * Finding SigMF recordings: of a metadata file, of a folder, of an archive. Each is checked as soon as it is found: its
 * metadata are parsed, its data file is there and holds what the annotations name. Nothing is read of the samples.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sigmf.h"

enum { META_MAX_BYTES = 512 << 20, MAX_RECORDINGS = 1 << 16, META_ALWAYS = 16 << 20, META_PER_BYTE = 64 };

static void recording_release(struct fst__recording *r)
{
    fst__sigmf_release(&r->meta);
    fst_free(r->data_path);
    fst_free(r->own);
    *r = (struct fst__recording){0};
}

void fst__sigmf_release_recordings(struct fst__sigmf_job *j)
{
    for (size_t i = 0; i < j->count; i++)
        recording_release(&j->all[i]);
    fst_free(j->all);
    j->all = NULL;
    j->count = j->cap = 0;
}

/* ---- finding recordings --------------------------------------------------------------------- */

static bool is_meta(const char *name)
{
    return fst__ends_with(name, FST__SIGMF_META) && name[0] != '.';
}

static bool is_archive(const char *name)
{
    return fst__ends_with(name, FST__SIGMF_ARCHIVE) && name[0] != '.';
}

/* Of a file that is named, not found in a folder: the standard's ending, or tar's. */
bool fst__sigmf_is_archive(const char *path)
{
    return fst__ends_with(path, FST__SIGMF_ARCHIVE) || fst__ends_with(path, ".tar");
}

static bool holds_recordings(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    bool yes = false;
    while (d && !yes && (e = readdir(d)))
        yes = is_meta(e->d_name) || is_archive(e->d_name);
    if (d)
        closedir(d);
    return yes;
}

bool fst__sigmf_probe(const char *path)
{
    if (!fst__is_folder(path))
        return fst_file_exists(path) && (fst__ends_with(path, FST__SIGMF_META) ||
                                         fst__ends_with(path, FST__SIGMF_DATA) || fst__sigmf_is_archive(path));
    char *train = fst_path_join(path, "train");
    bool yes = holds_recordings(path) || (train && fst__is_folder(train) && holds_recordings(train));
    fst_free(train);
    return yes;
}

/* "a.sigmf-meta" of "a.sigmf-data" and the other way round, and "A.SIGMF-META" of "A.SIGMF-DATA". */
char *fst__sigmf_sibling(const char *path, const char *ending)
{
    size_t n = strlen(ending);
    char *other = fst_strdup(path), *at = other ? other + strlen(other) - n : NULL;
    for (size_t i = 0; at && i < n; i++)
        at[i] = (char)(at[i] >= 'A' && at[i] <= 'Z' ? toupper(ending[i]) : ending[i]);
    return other;
}

/* The data file of the metadata at `path`: core:dataset in the same folder, or the one of the same name. */
static char *data_of(const char *path, const char *dataset)
{
    const char *slash = strrchr(path, '/');
    fst_buf b = {0};
    if (!dataset)
        return fst__sigmf_sibling(path, FST__SIGMF_DATA);
    char *copy = NULL;
    if (!fst_buf_printf(&b, NULL, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, dataset))
        copy = fst_strdup(b.data);
    fst_buf_release(&b);
    return copy;
}

fst_status fst__sigmf_room(struct fst__sigmf_job *j, fst_error *err)
{
    if (j->count >= MAX_RECORDINGS)
        return fst_fail(err, FST_E_LIMIT, "%s: more than %d recordings", j->name, MAX_RECORDINGS);
    if (j->count == j->cap) {
        size_t cap = j->cap ? 2 * j->cap : 16;
        struct fst__recording *all = fst_realloc(j->all, j->count * sizeof *all, cap * sizeof *all);
        if (!all)
            return fst_fail_memory(err, cap * sizeof *all);
        j->all = all;
        j->cap = cap;
    }
    j->all[j->count++] = (struct fst__recording){0};
    return FST_OK;
}

/* Before metadata are parsed, which takes many times their size: they say something of samples that are there, in a
 * hundred bytes for a window or so. */
static fst_status check_meta_size(const char *name, uint64_t meta, uint64_t data, fst_error *err)
{
    if (meta <= META_ALWAYS || meta / META_PER_BYTE <= data)
        return FST_OK;
    return fst_fail(err, FST_E_LIMIT, "%s: %" PRIu64 " bytes of metadata of %" PRIu64 " bytes of samples", name, meta,
                    data);
}

/* Of a file whose data file has the usual name; of others it is known only when they are parsed. */
static fst_status check_size_of(const char *meta_path, fst_error *err)
{
    struct stat meta, data;
    char *path = fst__sigmf_sibling(meta_path, FST__SIGMF_DATA);
    fst_status s = path ? FST_OK : fst_fail_memory(err, strlen(meta_path));
    if (!s && !stat(meta_path, &meta) && !stat(path, &data))
        s = check_meta_size(meta_path, (uint64_t)meta.st_size, (uint64_t)data.st_size, err);
    fst_free(path);
    return s;
}

fst_status fst__sigmf_add_recording(struct fst__sigmf_job *j, const char *meta_path, fst_error *err)
{
    struct stat st;
    fst_buf text = {0};
    fst_status s = fst__sigmf_room(j, err);
    if (s)
        return s;
    struct fst__recording *r = &j->all[j->count - 1];
    s = check_size_of(meta_path, err);
    if (!s)
        s = fst_file_read(meta_path, META_MAX_BYTES, &text, err);
    if (!s)
        s = fst__sigmf_parse(&r->meta, meta_path, text.data ? text.data : "", text.len, err);
    fst_buf_release(&text);
    if (s)
        return s;
    r->data_path = data_of(meta_path, r->meta.dataset);
    if (!r->data_path)
        return fst_fail_memory(err, strlen(meta_path));
    if (stat(r->data_path, &st) && errno == ENOENT && r->meta.metadata_only)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:metadata_only, and no samples at %s", meta_path,
                        r->data_path);
    if (stat(r->data_path, &st))
        return fst_fail_errno(err, "%s", r->data_path);
    if (!S_ISREG(st.st_mode))
        return fst_fail(err, FST_E_IO, "%s: not a file", r->data_path);
    r->bytes = (uint64_t)st.st_size;
    return fst__sigmf_check_data(&r->meta, r->bytes, &r->samples, err);
}

/* ---- archives ------------------------------------------------------------------------------- */

/* The member of that name; its data go over to the caller. */
static bool take_data(fst__archive *a, const char *name, struct fst__recording *r)
{
    static const unsigned char nothing[1];
    for (size_t i = 0; i < a->count; i++)
        if (a->member[i].data && !strcmp(a->member[i].name, name)) {
            r->own = a->member[i].data;
            r->memory = r->own ? r->own : nothing;
            r->bytes = a->member[i].len;
            a->member[i].data = NULL;
            return true;
        }
    return false;
}

/* `place` is the archive's path; messages call a recording "x.sigmf: x/x.sigmf-meta". */
static fst_status add_member(struct fst__sigmf_job *j, fst__archive *a, const struct fst__member *meta,
                             const char *place, fst_error *err)
{
    fst_buf name = {0};
    fst_status s = fst__sigmf_room(j, err);
    if (s)
        return s;
    struct fst__recording *r = &j->all[j->count - 1];
    uint64_t others = 0;
    for (size_t i = 0; i < a->count; i++)
        others += a->member[i].len;
    s = check_meta_size(place, meta->len, others - meta->len, err);
    if (s)
        return s;
    s = meta->len <= META_MAX_BYTES
            ? fst_buf_printf(&name, err, "%s: %s", place, meta->name)
            : fst_fail(err, FST_E_LIMIT, "%s: %s is larger than %d MB", place, meta->name, META_MAX_BYTES >> 20);
    if (!s)
        s = fst__sigmf_parse(&r->meta, name.data, (const char *)meta->data, meta->len, err);
    fst_buf_release(&name);
    if (s)
        return s;
    r->data_path = data_of(meta->name, r->meta.dataset);
    if (!r->data_path)
        return fst_fail_memory(err, strlen(meta->name));
    if (!take_data(a, r->data_path, r))
        return fst_fail(err, FST_E_FORMAT, "%s: there is no %s in the archive", r->meta.name, r->data_path);
    return fst__sigmf_check_data(&r->meta, r->bytes, &r->samples, err);
}

static int members_by_name(const void *a, const void *b)
{
    return strcmp(((const struct fst__member *)a)->name, ((const struct fst__member *)b)->name);
}

fst_status fst__sigmf_add_members(struct fst__sigmf_job *j, fst__archive *a, const char *place, fst_error *err)
{
    size_t before = j->count;
    fst_status s = FST_OK;
    if (a->count)
        qsort(a->member, a->count, sizeof *a->member, members_by_name);
    for (size_t i = 0; !s && i < a->count; i++) {
        const char *slash = strrchr(a->member[i].name, '/');
        if (is_meta(slash ? slash + 1 : a->member[i].name) && a->member[i].data)
            s = add_member(j, a, &a->member[i], place, err);
    }
    if (!s && j->count == before)
        s = fst_fail(err, FST_E_FORMAT,
                     "%s: no %s file in this archive; of tar files only those of SigMF recordings are read: unpack "
                     "it with tar -xf and name the folder",
                     place, FST__SIGMF_META);
    return s;
}

fst_status fst__sigmf_add_archive(struct fst__sigmf_job *j, const char *path, fst_error *err)
{
    fst__archive a = {0};
    fst_status s = fst__not_foreign(path, err);
    if (!s)
        s = fst__archive_read(&a, path, err);
    if (!s)
        s = fst__sigmf_add_members(j, &a, path, err);
    fst__archive_release(&a);
    return s;
}

/* ---- folders -------------------------------------------------------------------------------- */

static int recordings_by_name(const void *a, const void *b)
{
    return strcmp(((const struct fst__recording *)a)->meta.name, ((const struct fst__recording *)b)->meta.name);
}

/* All recordings of a folder, in the order of their names. */
fst_status fst__sigmf_add_folder(struct fst__sigmf_job *j, const char *folder, fst_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    fst_status s = FST_OK;
    if (!d)
        return fst_fail_errno(err, "%s", folder);
    errno = 0;
    while (!s && (e = readdir(d))) {
        if (is_meta(e->d_name) || is_archive(e->d_name)) {
            char *path = fst_path_join(folder, e->d_name);
            s = path ? FST_OK : fst_fail_memory(err, strlen(folder));
            if (!s)
                s = is_meta(e->d_name) ? fst__sigmf_add_recording(j, path, err) : fst__sigmf_add_archive(j, path, err);
            fst_free(path);
        }
        errno = 0;
    }
    if (!s && errno)
        s = fst_fail_errno(err, "%s", folder);
    closedir(d);
    if (!s && j->count == 0)
        s = fst_fail(err, FST_E_FORMAT, "%s: no %s file in this folder", folder, FST__SIGMF_META);
    if (!s)
        qsort(j->all, j->count, sizeof *j->all, recordings_by_name);
    return s;
}

/* Leaves out recordings that say of no sample what it is, and says what was left out. */
fst_status fst__sigmf_keep_labelled(struct fst__sigmf_job *j, fst_error *err)
{
    size_t kept = 0, unlabelled = 0, notes = 0, all = j->count;
    const char *first = all ? j->all[0].meta.name : j->name;
    char name[256];
    snprintf(name, sizeof name, "%s", all == 1 ? first : j->name);
    for (size_t r = 0; r < j->count; r++) {
        unlabelled += j->all[r].meta.unlabelled;
        notes += j->all[r].meta.count;
        if (j->all[r].meta.count)
            j->all[kept++] = j->all[r];
        else
            recording_release(&j->all[r]);
    }
    j->count = kept;
    if (!notes && unlabelled)
        return fst_fail(err, FST_E_FORMAT, "%s: none of %zu annotations has a core:label; every window needs one", name,
                        unlabelled);
    if (!notes)
        return fst_fail(err, FST_E_FORMAT, "%s: no annotations; they say which samples are of which class", name);
    if (unlabelled)
        fst__warn_once("%s: %zu of %zu annotations have no core:label and are left out", name, unlabelled,
                       unlabelled + notes);
    if (kept < all)
        fst__warn_once("%s: %zu of %zu recordings have no annotation with a core:label and are left out", name,
                       all - kept, all);
    return FST_OK;
}
