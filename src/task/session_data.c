/*
 * Who has which samples: a run's sources are opened, test samples set apart, and the training samples dealt to cloud
 * and edges, each with a validation part. What stands in one burst stays together. It reads no sample but through the
 * data layer, and knows nothing of stages.
 */
#include <stdio.h>
#include <string.h>

#include "session.h"

/* A piece of the training samples while they are put together. */
struct piece {
    const fst_source *source;
    uint32_t *index; /* NULL: all */
    size_t count;
    size_t edge;     /* 0: the cloud, or the only place there is; else the edge from 1 */
    bool validation; /* the source's own split */
};

struct pieces {
    struct piece at[2 * FST__MAX_EDGES + 4];
    size_t n;
};

/* ---- sources ------------------------------------------------------------------------------------- */

static void own(struct session *s, fst_source *source)
{
    s->owned[s->nowned++] = source;
}

static fst_status open_split(struct session *s, const char *path, const char *split, fst_source **out, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    bool synth = fst__is_synth(d);
    fst_source_spec spec = {.format = synth ? "array" : d->source ? fst__data_sources[d->source] : NULL,
                            .path = path,
                            .split = split,
                            .x = d->x,
                            .y = d->y,
                            .classes = (int)d->classes,
                            .image_channels = (int)d->channels,
                            .image_height = (int)d->height,
                            .image_width = (int)d->width,
                            .limit = (size_t)(strcmp(split, "test") ? d->limit : d->test_limit)};
    fst_status st = fst_source_open(out, &spec, err);
    if (st)
        return fst_fail_in(err, st, "%s samples", split);
    own(s, *out);
    return FST_OK;
}

/* path relative to the task's folder */
static fst_status open_path(struct session *s, const char *path, const char *split, fst_source **out, fst_error *err)
{
    char *full = fst_path_join(s->task->folder, path);
    fst_status st = full ? open_split(s, full, split, out, err) : fst_fail_memory(err, strlen(path));
    fst_free(full);
    return st;
}

static fst_status open_synth(struct session *s, fst_source **out, fst_error *err)
{
    char *path = NULL;
    fst_status st = fst__synth_data(s, &path, out, err);
    if (!st && path)
        st = open_split(s, path, "train", out, err);
    else if (!st)
        own(s, *out);
    fst_free(path);
    return st;
}

static void add_piece(struct pieces *p, const fst_source *source, size_t edge, bool validation)
{
    p->at[p->n++] = (struct piece){source, NULL, source->count, edge, validation};
}

/* The samples of one place: its training samples, and its own validation samples where they are asked for. */
static fst_status open_place(struct session *s, struct pieces *p, const char *path, size_t edge, fst_error *err)
{
    fst_source *source = NULL;
    fst_status st = open_path(s, path, "train", &source, err);
    if (st)
        return edge ? fst_fail_in(err, st, "edge %zu", edge) : st;
    add_piece(p, source, edge, false);
    if (!s->task->file.data.own_validation)
        return FST_OK;
    st = open_path(s, path, "val", &source, err);
    if (st)
        return fst_fail_in(err, st, "data.own_validation");
    add_piece(p, source, edge, true);
    return FST_OK;
}

/* ---- test samples --------------------------------------------------------------------------------- */

/* The places in `part` that hold `which`, as a list of samples: subset[i], or i. */
static uint32_t *select_part(const int32_t *part, const uint32_t *subset, size_t n, int32_t which, size_t *count)
{
    uint32_t *list = fst_calloc(n ? n : 1, sizeof *list);
    *count = 0;
    for (size_t i = 0; list && i < n; i++)
        if (part[i] == which)
            list[(*count)++] = subset ? subset[i] : (uint32_t)i;
    return list;
}

/* The first piece loses a share to the test samples. */
static fst_status carve_test(struct session *s, struct pieces *p, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    struct piece *all = &p->at[0];
    const double share[] = {1 - d->test, d->test};
    const fst_shares how = {share, 2, (uint64_t)s->task->file.seed, "data.test"};
    fst_source_part test = {.source = all->source};
    int32_t *part = fst_calloc(all->count, sizeof *part);
    fst_status st = part ? fst_shares_deal(all->source, NULL, all->count, &how, part, err)
                         : fst_fail_memory(err, all->count * sizeof *part);
    uint32_t *list = st ? NULL : select_part(part, NULL, all->count, 1, &test.count);
    if (!st && !list)
        st = fst_fail_memory(err, all->count * sizeof *list);
    test.index = list;
    size_t whole = all->count;
    if (!st)
        all->index = select_part(part, NULL, whole, 0, &all->count);
    if (!st && !all->index)
        st = fst_fail_memory(err, whole * sizeof *list);
    if (!st && (!test.count || !all->count))
        st = fst_fail(err, FST_E_CONFIG, "data.test: %g of %zu samples leaves %s: a part has at least one %s", d->test,
                      whole, test.count ? "none to train on" : "none to test on",
                      all->source->group ? "burst" : "sample");
    if (!st && d->test_limit && (size_t)d->test_limit < test.count)
        test.count = (size_t)d->test_limit;
    if (!st)
        st = fst_source_compose(&s->test, all->source->name, &test, 1, err);
    if (!st)
        own(s, s->test);
    fst_free(list);
    fst_free(part);
    return st;
}

/* ---- shares ---------------------------------------------------------------------------------------- */

/* Rearranges a share (learn samples, validate 0) into those to learn from and those of validation. */
static fst_status part_validation(const struct session *s, struct share *h, uint64_t place, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    const double share[] = {1 - d->validation, d->validation};
    char purpose[48];
    size_t n = h->learn, a = 0, b = 0;
    snprintf(purpose, sizeof purpose, "data.validation.%llu", (unsigned long long)place);
    const fst_shares how = {share, 2, (uint64_t)s->task->file.seed, purpose};
    int32_t *part = fst_calloc(n, sizeof *part);
    fst_status st =
        part ? fst_shares_deal(s->train, h->index, n, &how, part, err) : fst_fail_memory(err, n * sizeof *part);
    uint32_t *first = st ? NULL : select_part(part, h->index, n, 0, &a);
    uint32_t *second = st ? NULL : select_part(part, h->index, n, 1, &b);
    if (!st && (!first || !second))
        st = fst_fail_memory(err, n * sizeof *first);
    if (!st) {
        memcpy(h->index, first, a * sizeof *first);
        memcpy(h->index + a, second, b * sizeof *second);
        h->learn = a;
        h->validate = b;
    }
    fst_free(first);
    fst_free(second);
    fst_free(part);
    return st;
}

/* One place and single samples: the last of a shuffled list are those of validation. */
static void shuffle_validation(const struct session *s, struct share *h)
{
    fst_rng r;
    size_t n = h->learn;
    h->validate = (size_t)((double)n * s->task->file.data.validation);
    h->learn = n - h->validate;
    if (h->validate) {
        fst_rng_init(&r, (uint64_t)s->task->file.seed, "data.validation", 0);
        fst_rng_shuffle_u32(&r, h->index, n);
    }
}

static fst_status share_validation(const struct session *s, struct share *h, uint64_t place, fst_error *err)
{
    char name[32] = "the training samples";
    if (s->edges)
        snprintf(name, sizeof name, place ? "edge %d" : "the cloud", (int)place);
    fst_status st = FST_OK;
    if (s->task->file.data.validation > 0 && !h->validate && h->learn) {
        if (s->edges || s->train->group)
            st = part_validation(s, h, place, err);
        else
            shuffle_validation(s, h);
    }
    if (!st && !h->learn)
        st = fst_fail(err, FST_E_CONFIG, "data: %s: no samples to learn from are left", name);
    return st;
}

/* Own pieces: what each place brought is its own, and its split val is its validation part. */
static fst_status shares_of_pieces(struct session *s, const struct pieces *p, struct share *cloud, fst_error *err)
{
    for (int validation = 0; validation < 2; validation++) {
        size_t at = 0;
        for (size_t i = 0; i < p->n; i++) {
            struct share *h = p->at[i].edge ? &s->edge[p->at[i].edge - 1] : cloud;
            if (!h->index && !(h->index = fst_calloc(s->train->count, sizeof *h->index)))
                return fst_fail_memory(err, s->train->count * sizeof *h->index);
            if (p->at[i].validation == (validation == 1)) {
                for (size_t k = 0; k < p->at[i].count; k++)
                    h->index[h->learn + h->validate + k] = (uint32_t)(at + k);
                *(validation ? &h->validate : &h->learn) += p->at[i].count;
            }
            at += p->at[i].count;
        }
    }
    return FST_OK;
}

/* The edges' part of the training samples as fst_partition_make sees it. */
struct pool {
    uint32_t *index;
    int32_t *labels;
    int64_t *group;
    fst_source view;
};

static fst_status make_pool(const struct session *s, struct pool *p, size_t n, fst_error *err)
{
    p->labels = fst_calloc(n, sizeof *p->labels);
    p->group = fst_calloc(n, sizeof *p->group);
    if (!p->labels || !p->group)
        return fst_fail_memory(err, n * sizeof *p->group);
    for (size_t i = 0; i < n; i++) {
        p->labels[i] = s->train->labels[p->index[i]];
        p->group[i] = s->train->group ? s->train->group[p->index[i]] : 0;
    }
    p->view = *s->train;
    p->view.count = n;
    p->view.labels = p->labels;
    p->view.group = s->train->group ? p->group : NULL;
    return FST_OK;
}

static fst_status deal_to_edges(struct session *s, struct pool *p, size_t n, fst_error *err)
{
    const struct topology_section *t = &s->task->file.topology;
    fst_partition_spec spec = {.kind = FST_PARTITION_DIRICHLET,
                               .clients = (int)t->edges,
                               .alpha = t->alpha,
                               .seed = (uint64_t)s->task->file.seed};
    fst_partition q = {0};
    fst_status st = make_pool(s, p, n, err);
    if (!st)
        st = fst_partition_make(&q, &p->view, &spec, err);
    for (int k = 0; !st && k < q.clients; k++) {
        struct share *h = &s->edge[k];
        h->learn = q.begin[k + 1] - q.begin[k];
        h->index = fst_calloc(h->learn, sizeof *h->index);
        if (!h->index)
            st = fst_fail_memory(err, h->learn * sizeof *h->index);
        for (size_t i = 0; !st && i < h->learn; i++)
            h->index[i] = p->index[q.index[q.begin[k] + i]];
    }
    fst_partition_release(&q);
    return st ? fst_fail_in(err, st, "topology") : FST_OK;
}

/* The training samples are dealt: a share to the cloud, the rest to the edges by Dirichlet. */
static fst_status shares_dealt(struct session *s, struct share *cloud, fst_error *err)
{
    const struct topology_section *t = &s->task->file.topology;
    const double share[] = {t->cloud_share, 1 - t->cloud_share};
    const fst_shares how = {share, 2, (uint64_t)s->task->file.seed, "topology.cloud"};
    struct pool pool = {0};
    size_t n = s->train->count, rest = 0;
    int32_t *part = fst_calloc(n, sizeof *part);
    fst_status st = part ? fst_shares_deal(s->train, NULL, n, &how, part, err) : fst_fail_memory(err, n * sizeof *part);
    if (!st) {
        cloud->index = select_part(part, NULL, n, 0, &cloud->learn);
        pool.index = select_part(part, NULL, n, 1, &rest);
        if (!cloud->index || !pool.index)
            st = fst_fail_memory(err, n * sizeof *pool.index);
    }
    if (!st && (!cloud->learn || !rest))
        st = fst_fail(err, FST_E_CONFIG, "topology.cloud_share: %g of %zu training samples leaves %s", t->cloud_share,
                      n, rest ? "none to the cloud" : "none to the edges");
    if (!st)
        st = deal_to_edges(s, &pool, rest, err);
    fst_free(pool.index);
    fst_free(pool.labels);
    fst_free(pool.group);
    fst_free(part);
    return st;
}

static fst_status share_out(struct session *s, const struct pieces *p, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    struct share all = {0};
    s->edges = f->has_topology ? (size_t)f->topology.edges : 0;
    bool dealt = s->edges && !f->data.edge_path_count;
    fst_status st = dealt ? shares_dealt(s, &all, err) : shares_of_pieces(s, p, &all, err);
    if (!st)
        st = share_validation(s, &all, 0, err);
    for (size_t k = 0; !st && k < s->edges; k++)
        st = share_validation(s, &s->edge[k], k + 1, err);
    s->order = all.index;
    s->learn = all.learn;
    s->validate = all.validate;
    return st;
}

int fst__missing_classes(const struct session *s, const struct share *h, char *out, size_t size)
{
    const fst_source *t = s->train;
    bool *seen = fst_calloc((size_t)t->classes, sizeof *seen);
    size_t at = 0;
    int missing = 0;
    *out = 0;
    for (size_t i = 0; seen && i < h->learn; i++)
        seen[t->labels[h->index[i]]] = true;
    for (int c = 0; seen && c < t->classes; c++) {
        char number[16];
        snprintf(number, sizeof number, "%d", c);
        if (seen[c])
            continue;
        int n = snprintf(out + at, size - at, "%s%s", missing++ ? ", " : "",
                         t->class_names ? t->class_names[c] : number);
        at += n > 0 && (size_t)n < size - at ? (size_t)n : size - at - 1;
    }
    fst_free(seen);
    return missing;
}

void fst__share_digest(const struct share *h, char out[FST_DIGEST_HEX])
{
    const uint64_t sizes[] = {h->learn, h->validate};
    fst_sha256 sha;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, sizes, sizeof sizes);
    fst_sha256_update(&sha, h->index, (h->learn + h->validate) * sizeof *h->index);
    fst_sha256_final(&sha, out);
}

/* ---- all together ------------------------------------------------------------------------------------ */

static fst_status make_transform(struct session *s, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    fst_transform t = {.crop_padding = (int)d->crop_padding, .flip = d->flip};
    if (d->has_normalise) {
        t.channels = (int)d->normalise.mean_count;
        if (t.channels != 1 && t.channels != s->train->shape.dim[0])
            return fst_fail(err, FST_E_CONFIG, "data.normalise has %d values, the samples have %lld channels",
                            t.channels, (long long)s->train->shape.dim[0]);
        for (int i = 0; i < t.channels; i++) {
            t.mean[i] = (float)d->normalise.mean[i];
            t.std[i] = (float)d->normalise.std[i];
        }
    }
    s->transform = t;
    return FST_OK;
}

/* One source stays what it is; a part of one, or several, become one. */
static fst_status join(struct session *s, const struct pieces *p, fst_error *err)
{
    fst_source_part parts[sizeof p->at / sizeof *p->at];
    if (p->n == 1 && !p->at[0].index) {
        s->train = (fst_source *)p->at[0].source;
        return FST_OK;
    }
    for (size_t i = 0; i < p->n; i++)
        parts[i] = (fst_source_part){p->at[i].source, p->at[i].index, p->at[i].count};
    fst_status st = fst_source_compose(&s->train, p->at[0].source->name, parts, p->n, err);
    if (!st)
        own(s, s->train);
    return st;
}

static fst_status open_pieces(struct session *s, struct pieces *p, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    fst_source *made = NULL;
    fst_status st = FST_OK;
    if (fst__is_synth(d)) {
        st = open_synth(s, &made, err);
        if (!st)
            add_piece(p, made, 0, false);
    } else {
        st = open_place(s, p, d->path, 0, err);
    }
    if (!st)
        st = d->test > 0 ? carve_test(s, p, err) : open_path(s, d->path, "test", &s->test, err);
    for (size_t k = 0; !st && k < d->edge_path_count; k++)
        st = open_place(s, p, d->edge_paths[k], k + 1, err);
    return st ? st : join(s, p, err);
}

fst_status fst__session_open_data(struct session *s, fst_error *err)
{
    char a[64], b[64];
    struct pieces p = {.n = 0};
    fst_status st = open_pieces(s, &p, err);
    if (!st && (!fst_shape_equal(&s->train->shape, &s->test->shape) || s->test->classes > s->train->classes))
        st = fst_fail(err, FST_E_MISMATCH, "training samples are %s with %d classes, test samples %s with %d",
                      fst_shape_text(&s->train->shape, a, sizeof a), s->train->classes,
                      fst_shape_text(&s->test->shape, b, sizeof b), s->test->classes);
    if (!st)
        st = make_transform(s, err);
    if (!st)
        st = share_out(s, &p, err);
    for (size_t i = 0; i < p.n; i++)
        fst_free(p.at[i].index);
    return st;
}
