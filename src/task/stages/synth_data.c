/*
 * The made signals of a task (data.source: synth): output/data/signals.safetensors, made once and made again when what
 * they follow from has changed. output/data/signals.json says what that was and the file's digest. The signals
 * themselves are fedstill/synth.h's affair.
 */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/synth.h"
#include "session.h"

/* The number goes up when the same settings would give other signals. */
#define FORMAT "fedstill-signals-1"
enum { MAX_NOTE = 1 << 16 };

static fst_status make_spec(const struct session *s, fst_synth_spec *spec, fst_error *err)
{
    const struct synth_section *d = &s->task->file.data.synth;
    *spec = (fst_synth_spec){.kind = (fst_synth_kind)d->generator,
                             .seed = (uint64_t)(d->has_seed ? d->seed : s->task->file.seed),
                             .windows_per_burst = (int)d->windows_per_burst,
                             .snr_min = d->snr[0],
                             .snr_max = d->snr[1]};
    fst_synth_params_default(&spec->params, spec->kind);
    if (!d->params)
        return FST_OK;
    char *path = fst_path_join(s->task->folder, d->params);
    fst_status st =
        path ? fst_synth_params_read(&spec->params, spec->kind, path, err) : fst_fail_memory(err, strlen(d->params));
    fst_free(path);
    return st ? fst_fail_in(err, st, "params") : FST_OK;
}

/* A digest of everything that the file's bytes follow from. */
static fst_status settings_digest(const fst_synth_spec *spec, uint64_t windows, char out[FST_DIGEST_HEX],
                                  fst_error *err)
{
    fst_buf text = {0};
    fst_sha256 sha;
    fst_status st = fst_buf_printf(&text, err, "%s %s\nseed=%llu\nwindows=%llu\nper_burst=%d\nsnr=%.17g %.17g\n",
                                   FORMAT, fst_synth_kind_name(spec->kind), (unsigned long long)spec->seed,
                                   (unsigned long long)windows, spec->windows_per_burst, spec->snr_min, spec->snr_max);
    if (!st)
        st = fst_synth_params_json(&spec->params, spec->kind, &text, err);
    if (!st) {
        fst_sha256_init(&sha);
        fst_sha256_update(&sha, text.data, text.len);
        fst_sha256_final(&sha, out);
    }
    fst_buf_release(&text);
    return st;
}

/* ---- what is there ------------------------------------------------------------------------------- */

static bool current(const char *path, const char *note, const char *settings)
{
    char now[FST_DIGEST_HEX] = "";
    fst_buf text = {0};
    json_t *j = fst_file_exists(note) && !fst_file_read(note, MAX_NOTE, &text, NULL)
                    ? json_loadb(text.data, text.len, 0, NULL)
                    : NULL;
    const char *made = json_string_value(json_object_get(j, "settings"));
    const char *digest = json_string_value(json_object_get(j, "digest"));
    bool same = made && digest && !strcmp(made, settings) && !fst_sha256_file(path, now, NULL) && !strcmp(now, digest);
    json_decref(j);
    fst_buf_release(&text);
    return same;
}

static fst_status write_note(const char *note, const char *settings, const char *digest, fst_error *err)
{
    json_t *j = json_pack("{s:s, s:s, s:s}", "format", FORMAT, "settings", settings, "digest", digest);
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    fst_status st = text ? fst_file_write(note, text, strlen(text), err) : fst_fail_memory(err, 256);
    free(text);
    json_decref(j);
    return st;
}

/* ---- making ---------------------------------------------------------------------------------------- */

static bool progress(void *ctx, uint64_t done, uint64_t total)
{
    struct session *s = ctx;
    (void)total;
    fst__watch_update(s, done, NULL);
    return !fst__session_stopped(s);
}

static fst_status make_file(struct session *s, const fst_synth *g, uint64_t windows, const char *path, const char *note,
                            const char *settings, fst_error *err)
{
    char digest[FST_DIGEST_HEX];
    fst_pool *pool = NULL;
    char *folder = fst_path_join(s->task->output, "data");
    fst_status st = folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st) {
        fst_atomic_sweep(folder);
        st = fst_pool_new(&pool, s->machine.threads, err);
    }
    fst__watch_begin(s, "signals", windows, "windows");
    fst__watch_update(s, 0, NULL);
    if (!st)
        st = fst_synth_write(g, pool, 0, windows, path, FST_SYNTH_SAFETENSORS, progress, s, err);
    fst__watch_end(s, st ? "stopped" : NULL);
    if (!st)
        st = fst_sha256_file(path, digest, err);
    if (!st)
        st = write_note(note, settings, digest, err);
    fst_pool_free(pool);
    fst_free(folder);
    return st;
}

/* One block, as sources have it; the source frees it. */
static fst_status name_classes(fst_source *out, const fst_synth *g, fst_error *err)
{
    size_t n = (size_t)out->classes, bytes = n * sizeof(char *);
    for (size_t c = 0; c < n; c++)
        bytes += strlen(fst_synth_class_name(g, (int)c)) + 1;
    char **names = fst_alloc(bytes), *at = (char *)(names + n);
    if (!names)
        return fst_fail_memory(err, bytes);
    for (size_t c = 0; c < n; c++) {
        names[c] = at;
        at = stpcpy(at, fst_synth_class_name(g, (int)c)) + 1;
    }
    out->class_names = names;
    return FST_OK;
}

static fst_status make_in_memory(struct session *s, const fst_synth *g, size_t n, fst_source **out, fst_error *err)
{
    const fst_synth_spec *spec = fst_synth_spec_of(g);
    fst_shape shape = FST_SHAPE(2, spec->params.burst.window);
    struct made_signals *m = &s->data.made;
    fst_source *made = NULL;
    fst_pool *pool = NULL;
    m->x = n <= FST_SOURCE_MAX_BYTES / 8 / (size_t)spec->params.burst.window
               ? fst_alloc(n * 2 * (size_t)spec->params.burst.window * sizeof(float))
               : NULL;
    m->labels = fst_alloc(n * sizeof *m->labels);
    m->snr = fst_alloc(n * sizeof *m->snr);
    m->burst = fst_alloc(n * sizeof *m->burst);
    fst_status st = m->x && m->labels && m->snr && m->burst
                        ? fst_pool_new(&pool, s->machine.threads, err)
                        : fst_fail_memory(err, n * 8 * (size_t)spec->params.burst.window);
    if (!st)
        st = fst_synth_fill(g, pool, 0, n, m->x, m->labels, m->snr, m->burst, err);
    if (!st)
        st = fst_source_from_memory(&made, "signals", FST_F32, &shape, n, m->x, m->labels, fst_synth_classes(g), err);
    if (!st) {
        made->snr = m->snr;
        made->group = m->burst;
        st = name_classes(made, g, err);
    }
    if (!st)
        *out = made;
    else
        fst_source_close(made);
    fst_pool_free(pool);
    return st;
}

/* The same signals in an output beside this one (fst_task_options.beside) get a second name here; only a file whose
 * digest is right. What is there of other settings goes. */
static fst_status take_from(struct session *s, const char *other, const char *file, const char *note,
                            const char *settings, bool *taken, fst_error *err)
{
    fst_status st = FST_OK;
    char *from = fst_path_join(other, "data/signals.safetensors"), *says = fst_path_join(other, "data/signals.json"),
         *folder = fst_path_join(s->task->output, "data");
    if (!from || !says || !folder)
        st = fst_fail_memory(err, 256);
    if (!st && current(from, says, settings)) {
        st = fst_make_folders(folder, err);
        if (!st && ((unlink(note) && errno != ENOENT) || (unlink(file) && errno != ENOENT)))
            st = fst_fail_errno(err, "%s", file);
        if (!st)
            st = fst__link_or_copy(from, file, err);
        if (!st)
            st = fst__link_or_copy(says, note, err);
        *taken = !st;
    }
    fst_free(from);
    fst_free(says);
    fst_free(folder);
    return st;
}

static fst_status take_beside(struct session *s, const char *file, const char *note, const char *settings, bool *taken,
                              fst_error *err)
{
    const char *beside = s->options->beside;
    DIR *d = beside ? opendir(beside) : NULL;
    fst_status st = FST_OK;
    for (struct dirent *e = d ? readdir(d) : NULL; !st && !*taken && e; e = readdir(d)) {
        char *other = e->d_name[0] != '.' ? fst_path_join(beside, e->d_name) : NULL;
        if (other)
            st = take_from(s, other, file, note, settings, taken, err);
        fst_free(other);
    }
    if (d)
        closedir(d);
    return st;
}

fst_status fst__synth_data(struct session *s, char **path, fst_source **source, fst_error *err)
{
    uint64_t windows = (uint64_t)s->task->file.data.synth.windows;
    char settings[FST_DIGEST_HEX] = "";
    fst_synth_spec spec;
    fst_synth *g = NULL;
    char *file = fst_path_join(s->task->output, "data/signals.safetensors");
    char *note = fst_path_join(s->task->output, "data/signals.json");
    fst_status st = file && note ? make_spec(s, &spec, err) : fst_fail_memory(err, 256);
    if (!st)
        st = settings_digest(&spec, windows, settings, err);
    bool there = !st && current(file, note, settings);
    if (!st && !there && !s->dry)
        st = take_beside(s, file, note, settings, &there, err);
    if (!st && !there)
        st = fst_synth_new(&g, &spec, err);
    if (!st && !there && s->dry)
        st = make_in_memory(s, g, (size_t)windows, source, err);
    else if (!st && !there)
        st = make_file(s, g, windows, file, note, settings, err);
    if (!st && (there || !s->dry)) {
        *path = file;
        file = NULL;
    }
    fst_synth_free(g);
    fst_free(file);
    fst_free(note);
    return st ? fst_fail_in(err, st, "data.synth") : FST_OK;
}
