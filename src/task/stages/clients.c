/*
 * The clients of the rounds and their samples: with a topology the edges, each with its share; else as a file
 * says, or as many as the task names, among whom the samples to learn from are dealt. All comes from the shares that
 * session_data.c settled, so samples of validation and test belong to no client. Nothing is trained and nothing is
 * written here.
 */
#include <stdio.h>
#include <string.h>

#include "samples.h"

static int32_t *nobodies(size_t n)
{
    int32_t *owner = fst_alloc(n * sizeof *owner);
    if (owner)
        memset(owner, -1, n * sizeof *owner);
    return owner;
}

/* Samples that are at other places: how many each client has, and positions that are no sample's here. */
static fst_status of_elsewhere(const struct samples *s, fst_partition *out, fst_error *err)
{
    size_t n = 0, cells = s->edges * (size_t)s->train->classes;
    for (size_t k = 0; k < s->edges; k++)
        n += s->edge[k].learn;
    fst_partition p = {.clients = (int)s->edges, .classes = s->train->classes, .samples = n};
    p.index = fst_alloc((n + 1) * sizeof *p.index);
    p.begin = fst_calloc(s->edges + 1, sizeof *p.begin);
    p.counts = fst_calloc(cells, sizeof *p.counts);
    if (!p.index || !p.begin || !p.counts) {
        fst_partition_release(&p);
        return fst_fail_memory(err, n * sizeof *p.index + cells * sizeof *p.counts);
    }
    memset(p.index, 0xff, (n + 1) * sizeof *p.index);
    for (size_t k = 0; k < s->edges; k++)
        p.begin[k + 1] = p.begin[k] + s->edge[k].learn;
    memcpy(p.data_digest, s->train->digest, sizeof p.data_digest);
    *out = p;
    return FST_OK;
}

/* The edges' samples to learn from, or those of validation; the cloud's are nobody's. */
static fst_status of_edges(const struct samples *s, const fst_task *t, bool validation, fst_partition *out,
                           fst_error *err)
{
    const struct task_file *f = &t->file;
    int32_t *owner = nobodies(s->train->count);
    if (!owner)
        return fst_fail_memory(err, s->train->count * sizeof *owner);
    for (size_t k = 0; k < s->edges; k++)
        for (size_t i = 0; i < (validation ? s->edge[k].validate : s->edge[k].learn); i++)
            owner[s->edge[k].index[validation ? s->edge[k].learn + i : i]] = (int32_t)k;
    fst_status st = fst_partition_from_owners(out, s->train, owner, (int)s->edges, err);
    fst_free(owner);
    if (st)
        return st;
    out->seed = (uint64_t)f->seed;
    if (f->data.edge_path_count)
        snprintf(out->method, sizeof out->method, "own");
    else
        snprintf(out->method, sizeof out->method, "dirichlet(%.9g)", f->topology.alpha);
    return FST_OK;
}

static fst_status dealt(const struct samples *s, const fst_task *t, fst_partition *out, fst_error *err)
{
    const struct clients_section *c = &t->file.clients;
    const fst_partition_spec spec = {.subset = s->cloud.index,
                                     .subset_count = s->cloud.learn,
                                     .kind = (fst_partition_kind)c->partition,
                                     .clients = (int)c->count,
                                     .alpha = c->alpha,
                                     .classes_per_client = (int)c->classes_per_client,
                                     .min_samples = (size_t)c->min_samples,
                                     .seed = (uint64_t)t->file.seed};
    return fst_partition_make(out, s->train, &spec, err);
}

/* ---- a partition from a file ------------------------------------------------------------------------------- */

/* The owners of a partition's samples, -1 for nobody's; NULL when out of memory. */
static int32_t *owners_of(const fst_partition *p)
{
    int32_t *owner = nobodies(p->samples);
    for (int k = 0; owner && k < p->clients; k++)
        for (size_t i = p->begin[k]; i < p->begin[k + 1]; i++)
            owner[p->index[i]] = k;
    return owner;
}

/* Owners of the training samples from those of the file's samples, which are the training samples or, before others
 * were added to it or a share was taken for testing, the first place's own split. *astray: owned samples that went to
 * testing. */
static fst_status translate(const struct samples *s, const fst_partition *file, const int32_t *of_file, int32_t *owner,
                            size_t *astray, fst_error *err)
{
    const fst_source *t = s->train;
    *astray = 0;
    if (!strcmp(file->data_digest, t->digest) && file->samples == t->count) {
        memcpy(owner, of_file, t->count * sizeof *owner);
        return FST_OK;
    }
    if (strcmp(file->data_digest, s->first.source->digest) || file->samples != s->first.source->count)
        return fst_fail(err, FST_E_MISMATCH,
                        "it splits %zu samples with digest %.12s, the training samples are %zu with digest %.12s: make "
                        "it of these data (with the same data.limit)",
                        file->samples, file->data_digest, t->count, t->digest);
    for (size_t i = 0; i < file->samples; i++)
        *astray += of_file[i] >= 0;
    for (size_t i = 0; i < s->first.count; i++) {
        owner[i] = of_file[s->first.index ? s->first.index[i] : i];
        *astray -= owner[i] >= 0;
    }
    return FST_OK;
}

static fst_status check_owners(const struct samples *s, const int32_t *owner, size_t astray, fst_error *err)
{
    size_t validation = 0, public = 0;
    for (size_t i = 0; i < s->public.learn; i++)
    public += owner[s->public.index[i]] >= 0;
    for (size_t i = 0; i < s->cloud.validate; i++)
        validation += owner[s->cloud.index[s->cloud.learn + i]] >= 0;
    if (astray)
        return fst_fail(
            err, FST_E_CONFIG,
            "it gives %zu of the samples that data.test keeps for testing to clients: they must be nobody's (-1)",
            astray);
    if (validation)
        return fst_fail(err, FST_E_CONFIG,
                        "it gives %zu of the %zu validation samples to clients: they must be nobody's (-1), as in the "
                        "partition.safetensors of a run with the same data and seed",
                        validation, s->cloud.validate);
    if (public)
        return fst_fail(err, FST_E_CONFIG,
                        "it gives %zu of the %zu public samples to clients: they must be nobody's (-1)", public,
                        s->public.learn);
    return FST_OK;
}

/* What the file counts must be what the clients have, and every client must have something. */
static fst_status check_counts(const fst_partition *p, const fst_partition *file, size_t astray, fst_error *err)
{
    if (file->classes != p->classes)
        return fst_fail(err, FST_E_MISMATCH, "it counts %d classes, the data have %d", file->classes, p->classes);
    for (int k = 0; k < p->clients; k++) {
        if (p->begin[k + 1] == p->begin[k])
            return fst_fail(err, FST_E_CONFIG, "client %d has no samples", k);
        for (int c = 0; !astray && c < p->classes; c++) {
            size_t at = (size_t)k * (size_t)p->classes + (size_t)c;
            if (p->counts[at] != file->counts[at])
                return fst_fail(err, FST_E_MISMATCH, "it counts %lld samples of class %d at client %d, which has %lld",
                                (long long)file->counts[at], c, k, (long long)p->counts[at]);
        }
    }
    return FST_OK;
}

static fst_status adopt(const struct samples *s, const fst_partition *file, fst_partition *out, fst_error *err)
{
    fst_partition p = {0};
    size_t astray = 0;
    int32_t *of_file = owners_of(file), *owner = nobodies(s->train->count);
    fst_status st = of_file && owner ? translate(s, file, of_file, owner, &astray, err)
                                     : fst_fail_memory(err, s->train->count * sizeof *owner);
    if (!st)
        st = check_owners(s, owner, astray, err);
    if (!st)
        st = fst_partition_from_owners(&p, s->train, owner, file->clients, err);
    if (!st)
        st = check_counts(&p, file, astray, err);
    fst_free(of_file);
    fst_free(owner);
    if (st) {
        fst_partition_release(&p);
        return st;
    }
    memcpy(p.method, file->method, sizeof p.method);
    p.seed = file->seed;
    *out = p;
    return FST_OK;
}

static fst_status from_file(const struct samples *s, const fst_task *t, fst_partition *out, fst_error *err)
{
    fst_partition file = {0};
    char *path = fst_path_join(t->folder, t->file.clients.partition_file);
    fst_status st = path ? fst_partition_read(&file, path, err) : fst_fail_memory(err, 256);
    if (!st) {
        st = adopt(s, &file, out, err);
        if (st)
            st = fst_fail_in(err, st, "%s", path);
    }
    fst_partition_release(&file);
    fst_free(path);
    return st ? fst_fail_in(err, st, "partition_file") : FST_OK;
}

/* ---- all together ------------------------------------------------------------------------------------------ */

/* One client's samples of one part, among `owner`. */
static fst_status part_of(const struct samples *s, const fst_task *t, const fst_partition *all, int client,
                          fst_part part, int32_t *owner, fst_error *err)
{
    const uint32_t *index = all->index + all->begin[client];
    size_t n = all->begin[client + 1] - all->begin[client];
    fst_tiers parts = {0};
    fst_rng r;
    fst_rng_init(&r, (uint64_t)t->file.seed, "clients.validation", (uint64_t)client);
    fst_status st =
        n ? fst__deal_parts(s->train, index, n, t->file.clients.validation, 0, fst_rng_u64(&r), &parts, err) : FST_OK;
    for (size_t i = 0; !st && i < n; i++)
        if (parts.part[i] == part)
            owner[index[i]] = client;
    fst_tiers_release(&parts);
    return st;
}

/* *all becomes one part of itself, client by client. */
static fst_status keep_part(const struct samples *s, const fst_task *t, fst_part part, fst_partition *all,
                            fst_error *err)
{
    fst_partition only = {0};
    int32_t *owner = nobodies(s->train->count);
    fst_status st = owner ? FST_OK : fst_fail_memory(err, s->train->count * sizeof *owner);
    for (int k = 0; !st && k < all->clients; k++)
        st = part_of(s, t, all, k, part, owner, err);
    if (!st)
        st = fst_partition_from_owners(&only, s->train, owner, all->clients, err);
    fst_free(owner);
    if (st)
        return st;
    memcpy(only.method, all->method, sizeof only.method);
    only.seed = all->seed;
    fst_partition_release(all);
    *all = only;
    return FST_OK;
}

static fst_status of_clients(const struct samples *s, const fst_task *t, bool validation, fst_partition *out,
                             fst_error *err)
{
    fst_partition all = {0};
    fst_status st = t->file.clients.partition_file ? from_file(s, t, &all, err) : dealt(s, t, &all, err);
    bool whole = !validation && (t->file.clients.partition_file || t->file.clients.validation == 0);
    if (!st && !whole)
        st = keep_part(s, t, validation ? FST_PART_VAL : FST_PART_TRAIN, &all, err);
    if (st)
        fst_partition_release(&all);
    else
        *out = all;
    return st;
}

static fst_status clients(const struct samples *s, const fst_task *t, bool validation, fst_partition *out,
                          fst_error *err)
{
    fst_status st = s->elsewhere ? of_elsewhere(s, out, err)
                    : s->edges   ? of_edges(s, t, validation, out, err)
                                 : of_clients(s, t, validation, out, err);
    return st ? fst_fail_in(err, st, "clients") : FST_OK;
}

fst_status fst__clients(const struct samples *s, const fst_task *t, fst_partition *out, fst_error *err)
{
    return clients(s, t, false, out, err);
}

fst_status fst__client_validation(const struct samples *s, const fst_task *t, fst_partition *out, fst_error *err)
{
    return clients(s, t, true, out, err);
}

void fst__clients_digest(const fst_partition *p, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    for (int k = 0; k < p->clients; k++) {
        uint64_t end = p->begin[k + 1];
        fst_sha256_update(&sha, &end, sizeof end);
    }
    fst_sha256_update(&sha, p->index, p->begin[p->clients] * sizeof *p->index);
    fst_sha256_final(&sha, out);
}
