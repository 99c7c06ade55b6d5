/*
 * Places with files of their own (data.edge_paths). In one process all are opened; in a fleet the cloud opens its own
 * and each edge its own, and of the others is known what they say: how many samples, and a digest.
 *
 * Data flow: an edge's files -> its digest (values, labels, bursts, SNR, names, and which sample is for what) -> HELLO
 * -> fst_task_options.places -> the cloud's `elsewhere` -> the digest of all training samples, the same that one
 * process makes of all files. Nothing here reads a sample.
 */
#include "places.h"

#include <stdio.h>
#include <string.h>

bool fst_task_has_places(const fst_task *t)
{
    return t->file.data.edge_path_count > 0;
}

/* Strategies with public samples, and those whose clients' own models are measured on the test samples, need what
 * data.path has at the edges too. */
static bool wants_common(const fst_task *t)
{
    for (size_t i = 0; i < t->stages.count; i++) {
        const struct stage *g = &t->stages.stage[i];
        if (strcmp(g->kind->name, "federated_train"))
            continue;
        const struct federated_section *f = g->settings;
        unsigned flags = fst_strategy_at((size_t)f->strategy)->flags;
        if (flags & FST_PUBLIC_DATA || !(flags & FST_SAME_MODEL))
            return true;
    }
    return false;
}

bool fst__place_is_here(const struct session *s, size_t place)
{
    if (s->place == FST__ALL_PLACES)
        return true;
    if (place == 0)
        return s->place == FST__ONLY_CLOUD || wants_common(s->task);
    return s->place == (int)place;
}

/* ---- what a place is known by -------------------------------------------------------------------------- */

static void samples_text(const fst_source *s, char out[80])
{
    char shape[48];
    snprintf(out, 80, "%s %s%s%s", fst_dtype_name(s->dtype), fst_shape_text(&s->shape, shape, sizeof shape),
             s->snr ? ", SNR" : "", s->group ? ", bursts" : "");
}

static void names_digest(const fst_source *s, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    *out = 0;
    if (!s->class_names)
        return;
    fst_sha256_init(&sha);
    for (int c = 0; c < s->classes; c++)
        fst_sha256_update(&sha, s->class_names[c], strlen(s->class_names[c]) + 1);
    fst_sha256_final(&sha, out);
}

static void add_piece(fst_sha256 *sha, const struct piece *p)
{
    char facts[FST_DIGEST_HEX] = "";
    (void)fst__facts_digest(p->source, facts);
    fst_sha256_update(sha, p->source->digest, FST_DIGEST_HEX);
    fst_sha256_update(sha, facts, FST_DIGEST_HEX);
    if (p->index) /* a share of it went to the test samples */
        fst_sha256_update(sha, p->index, p->count * sizeof *p->index);
}

/* Positions count from the place's own first sample, which stands elsewhere where other places are opened too. */
static void digest_place(const struct pieces *p, size_t place, const struct share *h, char out[FST_DIGEST_HEX])
{
    const uint64_t sizes[] = {h->learn, h->validate};
    size_t at = 0, first = SIZE_MAX;
    fst_sha256 sha;
    fst_sha256_init(&sha);
    for (size_t i = 0; i < p->n; at += p->at[i++].count)
        if (p->at[i].edge == place) {
            first = first == SIZE_MAX ? at : first;
            add_piece(&sha, &p->at[i]);
        }
    fst_sha256_update(&sha, sizes, sizeof sizes);
    for (size_t i = 0; i < h->learn + h->validate; i++) {
        uint32_t own = h->index[i] - (uint32_t)first;
        fst_sha256_update(&sha, &own, sizeof own);
    }
    fst_sha256_final(&sha, out);
}

/* Of the cloud's files: the same wherever they are opened. */
static void digest_common(const struct session *s, const struct pieces *p, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    for (size_t i = 0; i < p->n; i++)
        if (!p->at[i].edge)
            add_piece(&sha, &p->at[i]);
    fst_sha256_update(&sha, s->data.test->digest, FST_DIGEST_HEX);
    fst_sha256_final(&sha, out);
}

static void describe(const struct session *s, const struct pieces *p, fst_task_identity *out)
{
    const fst_source *own = s->data.train;
    samples_text(own, out->samples);
    out->classes = own->classes;
    names_digest(own, out->names);
    out->common[0] = 0;
    if (s->data.test)
        digest_common(s, p, out->common);
}

/* ---- the others ------------------------------------------------------------------------------------------ */

static fst_status hear_others(struct session *s, const struct pieces *p, fst_error *err)
{
    fst_task_identity want = {.client = 0};
    size_t n = s->data.edges;
    describe(s, p, &want);
    s->data.elsewhere = fst_calloc(n, sizeof *s->data.elsewhere);
    if (!s->data.elsewhere)
        return fst_fail_memory(err, n * sizeof *s->data.elsewhere);
    if (!s->options->places) { /* nobody is there to be asked: who only looks does without */
        fst_log(FST_LOG_INFO, "the edges' own samples are not here: only the cloud's are looked at");
        return FST_OK;
    }
    fst_status st = s->options->places(s->options->rounds_ctx, &want, s->data.elsewhere, n, err);
    for (size_t k = 0; !st && k < n; k++) {
        const fst_task_identity *e = &s->data.elsewhere[k];
        s->data.edge[k] = (struct share){NULL, (size_t)e->learn, (size_t)e->validate};
        memcpy(s->data.place[k], e->data, sizeof s->data.place[k]);
        if (e->classes > s->data.train->classes)
            s->data.train->classes = e->classes;
        if (!e->learn)
            st = fst_fail(err, FST_E_CONFIG, "data: no samples to learn from are left at edge %zu", k + 1);
    }
    return st;
}

fst_status fst__places(struct session *s, const struct pieces *p, fst_error *err)
{
    fst_sha256 sha;
    fst_status st = s->place == FST__ONLY_CLOUD ? hear_others(s, p, err) : FST_OK;
    if (st)
        return st;
    fst_sha256_init(&sha);
    for (size_t i = 0; i < p->n; i++)
        if (!p->at[i].edge)
            add_piece(&sha, &p->at[i]);
    for (size_t k = 0; k < s->data.edges; k++) {
        if (s->data.edge[k].index)
            digest_place(p, k + 1, &s->data.edge[k], s->data.place[k]);
        fst_sha256_update(&sha, s->data.place[k], FST_DIGEST_HEX);
    }
    if (s->place > 0)
        describe(s, p, &s->data.own);
    fst_sha256_final(&sha, s->data.train->digest);
    if (s->place == FST__ONLY_CLOUD && s->options->whole)
        s->options->whole(s->options->rounds_ctx, s->data.train->classes, s->data.train->digest);
    return FST_OK;
}
