/*
 * Soft labels at the clients of a fleet: the teachers go to the sites, each site labels its own samples and keeps the
 * file, and neither samples nor labels leave it. The rows are those that one process makes, since a teacher's answer to
 * a sample does not depend on which others it is asked for.
 *
 * Data flow: the teachers' model files -> one run of bytes -> fst_task_options.ask -> fst__label_own at each site ->
 * output/STAGE/soft_labels.safetensors there -> fst__recall_labels when a student's rounds begin. At the cloud
 * labels.json says who has how many, with the digest of each file.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervised.h"

enum { ALIGN = 8 };
static const char zeroes[ALIGN] = {0};
#define LIST "labels.json"

/* ---- at the cloud ---------------------------------------------------------------------------------------- */

static fst_status read_teacher(const struct session *s, const struct step *own, size_t i, fst_buf *out, fst_error *err)
{
    const struct step *teacher = fst__step_read(s, own, "teacher", i);
    if (teacher)
        return fst__read_artifact(s, teacher, teacher->record.artifact, out, err);
    char *path = fst_path_join(s->task->folder, fst__stage_file(own->stage, "teacher", i));
    fst_status st = path ? fst__read_whole(path, NULL, out, NULL, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

static size_t padding(size_t len)
{
    return (ALIGN - len % ALIGN) % ALIGN;
}

fst_status fst__teachers_add(const void *file, size_t len, fst_buf *out, fst_error *err)
{
    unsigned char head[ALIGN];
    for (int i = 0; i < ALIGN; i++)
        head[i] = (unsigned char)((uint64_t)len >> 8 * i);
    fst_status st = fst_buf_append(out, head, sizeof head, err);
    if (!st)
        st = fst_buf_append(out, file, len, err);
    return st ? st : fst_buf_append(out, zeroes, padding(len), err);
}

static fst_status pack_teachers(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < fst__stage_reads(own->stage, "teacher"); i++) {
        fst_buf file = {0};
        st = read_teacher(s, own, i, &file, err);
        if (!st)
            st = fst__teachers_add(file.data, file.len, out, err);
        fst_buf_release(&file);
    }
    return st;
}

fst_status fst__teach_clients(struct session *s, struct step *own, fst_client_figures *each, uint64_t *bytes,
                              fst_error *err)
{
    const fst_task_options *o = s->options;
    const char *noun;
    uint32_t n = 0;
    fst_buf given = {0};
    const fst_soft_spec spec = fst__soft_spec(s, own);
    *bytes = 0;
    if (!each && *own->taught)
        return FST_OK;
    fst_status st = fst_task_clients(s->task, &n, &noun, err);
    fst_client_figures *room = st || each ? NULL : fst_calloc(n, sizeof *room);
    if (!st && !each && !room)
        st = fst_fail_memory(err, n * sizeof *room);
    if (!st)
        st = pack_teachers(s, own, &given, err);
    if (!st)
        st = o->ask(o->rounds_ctx, own->stage->name, 0, &given, 1, each ? each : room, err);
    if (!st)
        memcpy(own->taught, spec.teacher_digest, sizeof own->taught);
    *bytes = given.len * (uint64_t)n;
    fst_free(room);
    fst_buf_release(&given);
    return st;
}

static fst_status write_list(const struct session *s, const struct step *own, const json_t *list, struct record *r,
                             fst_error *err)
{
    char *path = fst__step_path(s, own, LIST), *text = json_dumps(list, JSON_INDENT(2));
    fst_status st = path && text ? fst_file_write(path, text, strlen(text), err) : fst_fail_memory(err, 4096);
    snprintf(r->artifact, sizeof r->artifact, LIST);
    if (!st)
        st = fst_sha256_file(path, r->digest, err);
    fst_free(path);
    free(text);
    return st;
}

fst_status fst__label_elsewhere(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const char *noun;
    uint32_t n = 0;
    double start = fst_clock_seconds();
    fst_status st = fst_task_clients(s->task, &n, &noun, err);
    fst_client_figures *each = st ? NULL : fst_calloc(n, sizeof *each);
    json_t *list = json_array();
    if (!st && (!each || !list))
        st = fst_fail_memory(err, n * sizeof *each);
    if (!st)
        st = fst__teach_clients(s, own, each, &r->bytes_down, err);
    for (uint32_t k = 0; !st && k < n; k++) {
        r->samples += (int64_t)each[k].samples;
        json_array_append_new(list, json_pack("{s:I, s:I, s:s}", noun, (json_int_t)k + 1, "samples",
                                              (json_int_t)each[k].samples, "digest", each[k].digest));
    }
    if (!st)
        st = write_list(s, own, list, r, err);
    r->accuracy = r->loss = NAN;
    r->seconds = fst_clock_seconds() - start;
    json_decref(list);
    fst_free(each);
    return st;
}

/* ---- at a site ------------------------------------------------------------------------------------------- */

static uint64_t number_at(const unsigned char *p)
{
    uint64_t n = 0;
    for (int i = ALIGN; i-- > 0;)
        n = n << 8 | p[i];
    return n;
}

fst_status fst__teachers_split(const void *given, size_t len, size_t wanted, struct teacher_file *out, fst_error *err)
{
    const unsigned char *p = given;
    size_t i = 0;
    for (size_t left = len; i < wanted && left >= ALIGN; i++) {
        uint64_t n = number_at(p);
        left -= ALIGN;
        if (n > left || padding((size_t)n) > left - n || memcmp(p + ALIGN + n, zeroes, padding((size_t)n)) != 0)
            break;
        out[i] = (struct teacher_file){p + ALIGN, (size_t)n};
        p += ALIGN + n + padding((size_t)n);
        left -= n + padding((size_t)n);
    }
    if (i < wanted || p != (const unsigned char *)given + len)
        return fst_fail(err, FST_E_FORMAT, "these %zu bytes are not %zu teachers", len, wanted);
    return FST_OK;
}

/* *count counts those that are to be released. */
static fst_status take_teachers(const struct session *s, struct step *own, const void *given, size_t len,
                                fst_model *model, size_t *count, fst_error *err)
{
    size_t wanted = fst__stage_reads(own->stage, "teacher");
    struct teacher_file file[FST_MAX_TEACHERS];
    char digest[FST_MAX_TEACHERS][FST_DIGEST_HEX];
    fst_status st = fst__teachers_split(given, len, wanted, file, err);
    for (*count = 0; !st && *count < wanted; *count += !st) {
        fst_sha256 sha;
        fst_sha256_init(&sha);
        fst_sha256_update(&sha, file[*count].data, file[*count].len);
        fst_sha256_final(&sha, digest[*count]);
        st = fst_model_load_memory(&model[*count], "the teacher that was sent", file[*count].data, file[*count].len,
                                   err);
        if (!st && model[*count].classes != s->data.train->classes) {
            st = fst_fail(err, FST_E_MISMATCH, "the teacher that was sent has %d classes, the data have %d",
                          model[*count].classes, s->data.train->classes);
            fst_model_release(&model[*count]);
        }
    }
    if (st)
        return fst_fail_in(err, st, "%s", own->stage->name);
    fst__teachers_digest(own->stage, (const char(*)[FST_DIGEST_HEX])digest, wanted, own->taught);
    return FST_OK;
}

/* The labels that are there, if they are of this teacher and of all of these samples. */
static fst_status look(const struct session *s, struct step *own, const uint32_t *index, size_t count,
                       fst_soft_labels *labels, fst_error *err)
{
    const fst_soft_spec want = fst__soft_spec(s, own);
    fst_buf file = {0};
    uint32_t *rows = fst_calloc(s->data.train->count, sizeof *rows);
    char *path = fst__step_path(s, own, FST__SOFT_LABELS);
    fst_status st =
        rows && path ? fst__read_whole(path, NULL, &file, own->record.digest, err) : fst_fail_memory(err, 4096);
    if (!st)
        st = fst_soft_labels_parse(labels, path, file.data, file.len, err);
    if (!st)
        st = fst_soft_labels_bind(labels, &want, s->data.train, index, count, rows, err);
    snprintf(own->record.artifact, sizeof own->record.artifact, FST__SOFT_LABELS);
    fst_free(path);
    fst_free(rows);
    fst_buf_release(&file);
    return st;
}

static fst_status make(struct session *s, struct step *own, const fst_model *model, size_t teachers,
                       const uint32_t *index, size_t count, fst_soft_labels *labels, fst_error *err)
{
    char *path = fst__step_path(s, own, FST__SOFT_LABELS), *folder = fst__step_path(s, own, "");
    fst_status st = path && folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst__soften(s, own, model, teachers, index, count, labels, err);
    if (!st)
        st = fst_soft_labels_write(labels, path, own->record.digest, err);
    fst_free(path);
    fst_free(folder);
    return st;
}

fst_status fst__label_own(struct session *s, struct step *own, uint32_t client, const void *given, size_t len,
                          fst_client_figures *out, fst_error *err)
{
    fst_model model[FST_MAX_TEACHERS];
    fst_partition p = {0};
    fst_soft_labels labels = {0};
    size_t teachers = 0;
    fst_status st = fst__clients(&s->data, s->task, &p, err);
    if (!st)
        st = take_teachers(s, own, given, len, model, &teachers, err);
    const uint32_t *index = st ? NULL : p.index + p.begin[client];
    size_t count = st ? 0 : p.begin[client + 1] - p.begin[client];
    if (!st && look(s, own, index, count, &labels, NULL)) {
        fst_soft_labels_release(&labels);
        labels = (fst_soft_labels){0};
        st = make(s, own, model, teachers, index, count, &labels, err);
    }
    if (!st) {
        out->has = true;
        out->samples = labels.samples;
        memcpy(out->digest, own->record.digest, sizeof out->digest);
    } else {
        own->taught[0] = 0;
    }
    fst_soft_labels_release(&labels);
    while (teachers > 0)
        fst_model_release(&model[--teachers]);
    fst_partition_release(&p);
    return st;
}

fst_status fst__recall_labels(struct session *s, struct step *own, fst_error *err)
{
    fst_soft_labels labels = {0};
    fst_buf file = {0};
    if (*own->taught)
        return FST_OK;
    char *path = fst__step_path(s, own, FST__SOFT_LABELS);
    fst_status st = path ? fst__read_whole(path, NULL, &file, own->record.digest, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_soft_labels_parse(&labels, path, file.data, file.len, err);
    if (st)
        st = fst_fail_in(err, FST_E_CONFIG,
                         "the soft labels of %s, which this site made, are gone: start the cloud again",
                         own->stage->name);
    else
        memcpy(own->taught, labels.spec.teacher_digest, sizeof own->taught);
    snprintf(own->record.artifact, sizeof own->record.artifact, FST__SOFT_LABELS);
    fst_soft_labels_release(&labels);
    fst_buf_release(&file);
    fst_free(path);
    return st;
}
