/*
 * Fingerprints: the digest of everything that a step's result depends on. The text that it is made of has a line
 * "key=value" for each: kind, seed, backend, the digests of the samples and of who has them, the data section, and what
 * the kind adds (its settings as canonical JSON, and the digests of the stages and files that it reads). Names of
 * stages are not in it, so a stage that is renamed keeps its fingerprint. Settings that no result can depend on are
 * marked in their tables and left out. The text is kept in the record, and causes.c compares it with a later one.
 */
#include <stdio.h>
#include <string.h>

#include "session.h"

/* ---- what kinds add -------------------------------------------------------------------------------- */

fst_status fst__add_settings(const struct step *own, fst_buf *text, fst_error *err)
{
    const struct stage_kind *k = own->stage->kind;
    fst_status st = fst_buf_printf(text, err, "stages.%s=", k->name);
    if (!st)
        st = fst__schema_json(k->schema, own->stage->settings, text, err);
    return st ? st : fst_buf_append(text, "\n", 1, err);
}

fst_status fst__add_reads(const struct session *s, const struct step *own, const char *key, fst_buf *text,
                          fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < fst__stage_reads(own->stage, key); i++) {
        const struct step *other = fst__step_read(s, own, key, i);
        char digest[FST_DIGEST_HEX];
        if (!other)
            st = fst__file_digest(s, fst__stage_file(own->stage, key, i), digest, err);
        if (!st)
            st = fst_buf_printf(text, err, "%s=%s\n", other ? other->stage->kind->name : key,
                                other ? other->record.digest : digest);
    }
    return st;
}

/* ---- what all have --------------------------------------------------------------------------------- */

/* Which samples the cloud learns from and which are those of validation; for the rounds of a topology, those of every
 * edge. Nothing is added where one place learns from all samples, which the digest of the data says already. */
static fst_status add_shares(const struct samples *d, const struct step *step, fst_buf *text, fst_error *err)
{
    bool rounds = fst__at_clients(step->stage);
    char digest[FST_DIGEST_HEX];
    fst_status st = FST_OK;
    if (d->edges ? !rounds : d->cloud.validate > 0) {
        fst__share_digest(&d->cloud, digest);
        st = fst_buf_printf(text, err, "cloud=%s\n", digest);
    }
    if (!st && d->public.learn) {
        fst__share_digest(&d->public, digest);
        st = fst_buf_printf(text, err, "public=%s\n", digest);
    }
    for (size_t k = 0; !st && rounds && k < d->edges; k++) {
        if (!d->places)
            fst__share_digest(&d->edge[k], digest);
        st = fst_buf_printf(text, err, "edge_%zu=%s\n", k + 1, d->places ? d->place[k] : digest);
    }
    return st;
}

/* What a source knows of its samples besides values and labels, which its digest has: bursts decide who gets which
 * samples, SNR and names stand in tables and models. */
bool fst__facts_digest(const fst_source *source, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    if (!source->group && !source->snr && !source->class_names)
        return false;
    fst_sha256_init(&sha);
    if (source->group)
        fst_sha256_update(&sha, source->group, source->count * sizeof *source->group);
    fst_sha256_update(&sha, "\nsnr", 4);
    if (source->snr)
        fst_sha256_update(&sha, source->snr, source->count * sizeof *source->snr);
    for (int c = 0; source->class_names && c < source->classes; c++) {
        fst_sha256_update(&sha, "\n", 1);
        fst_sha256_update(&sha, source->class_names[c], strlen(source->class_names[c]));
    }
    fst_sha256_final(&sha, out);
    return true;
}

static fst_status add_facts(const char *name, const fst_source *source, fst_buf *text, fst_error *err)
{
    char digest[FST_DIGEST_HEX];
    return fst__facts_digest(source, digest) ? fst_buf_printf(text, err, "%s facts=%s\n", name, digest) : FST_OK;
}

static fst_status add_data(const struct session *s, fst_buf *text, fst_error *err)
{
    const fst__schema *table;
    const void *data;
    /* where places have files of their own, the digest has the facts of each */
    fst_status st = s->data.places ? FST_OK : add_facts("train", s->data.train, text, err);
    if (!st)
        st = add_facts("test", s->data.test, text, err);
    if (!st)
        st = fst__schema_find(&fst__task_schema, &s->task->file, "data", &table, &data, err);
    if (!st)
        st = fst_buf_printf(text, err, "data=");
    if (!st)
        st = fst__schema_json(table, data, text, err);
    return st ? st : fst_buf_append(text, "\n", 1, err);
}

bool fst__extendable(const struct step *step)
{
    const struct stage *own = step->stage;
    return own->kind->counts && own->kind->extendable(own);
}

void fst__digest_text(const char *text, size_t len, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, text, len);
    fst_sha256_final(&sha, out);
}

/* The text without how many epochs or rounds there are. In canonical JSON the key cannot stand in a string: its quotes
 * would be escaped. */
static void mask_total(const struct step *step, fst_buf *text)
{
    char key[32];
    snprintf(key, sizeof key, "\"%ss\":", step->stage->kind->counts);
    char *at = strstr(text->data, key);
    if (!at)
        return;
    at += strlen(key);
    size_t digits = strspn(at, "0123456789");
    memmove(at, at + digits, strlen(at + digits) + 1);
    text->len -= digits;
}

fst_status fst__fingerprint(struct session *s, struct step *step, fst_error *err)
{
    const struct stage_kind *k = step->stage->kind;
    fst_buf text = {0};
    fst_status st =
        fst_buf_printf(&text, err, "%s\n%s\nseed=%lld\nbackend=%s\ntrain=%s\ntest=%s\n", FST__RECORD_FORMAT, k->name,
                       (long long)s->task->file.seed, s->machine.backend, s->data.train->digest, s->data.test->digest);
    if (!st)
        st = add_data(s, &text, err);
    /* nothing is added for f32, which is what there was before there was a choice */
    if (!st && s->machine.precision != FST_PRECISION_F32)
        st = fst_buf_printf(&text, err, "precision=%s\n", fst_precision_name(s->machine.precision));
    if (!st)
        st = add_shares(&s->data, step, &text, err);
    if (!st)
        st = k->inputs(s, step, &text, err);
    if (!st) {
        fst__digest_text(text.data, text.len, step->fingerprint);
        fst_free(step->inputs);
        step->inputs = fst_strdup(text.data);
        if (fst__extendable(step))
            mask_total(step, &text);
        fst__digest_text(text.data, text.len, step->resumes);
    }
    fst_buf_release(&text);
    return st;
}
