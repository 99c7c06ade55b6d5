/*
 * Who has which samples: a run's sources are opened, test samples set apart, and the training samples dealt to cloud
 * and edges, each with a validation part. What stands in one burst stays together. It reads no sample but through the
 * data layer, and knows nothing of stages. What a process opens of a task whose places have files of their own, and how
 * they are known without them, is places.c.
 */
#include <stdio.h>
#include <string.h>

#include "places.h"

/* ---- sources ------------------------------------------------------------------------------------- */

static void own(struct session *s, fst_source *source)
{
    s->data.owned[s->data.nowned++] = source;
}

static fst_status open_split(struct session *s, const char *path, const char *split, fst_source **out, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    bool synth = fst__is_synth(d);
    fst_source_spec spec = {.format = synth       ? "array"
                                      : d->source ? fst__data_sources[d->source]
                                                  : NULL,
                            .path = path,
                            .split = split,
                            .x = d->x,
                            .y = d->y,
                            .layout = (fst_layout)d->layout,
                            .classes = (int)d->classes,
                            .image_channels = (int)d->channels,
                            .image_height = (int)d->height,
                            .image_width = (int)d->width,
                            .window = (size_t)d->window,
                            .limit = (size_t)(strcmp(split, "test") ? d->limit : d->test_limit)};
    if (d->obtain && !fst_file_exists(path))
        return fst_fail(err, FST_E_IO, "%s samples: %s: there is no such file or folder: %s", split, path, d->obtain);
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

/* Of n samples of a source (list NULL: its first) only `limit` are kept, of every class; 0: all. *list becomes theirs.
 */
static fst_status keep_limit(const fst_source *source, uint32_t **list, size_t *n, size_t limit, fst_error *err)
{
    if (!limit || limit >= *n)
        return FST_OK;
    int32_t *labels = fst_calloc(*n, sizeof *labels);
    uint32_t *picks = fst_calloc(limit, sizeof *picks);
    fst_status st = labels && picks ? FST_OK : fst_fail_memory(err, *n * sizeof *labels);
    for (size_t i = 0; !st && i < *n; i++)
        labels[i] = source->labels[*list ? (*list)[i] : i];
    if (!st)
        st = fst_stratified_pick(labels, *n, limit, picks, err);
    fst_free(labels);
    if (st) {
        fst_free(picks);
        return st;
    }
    for (size_t i = 0; *list && i < limit; i++)
        picks[i] = (*list)[picks[i]];
    fst_free(*list);
    *list = picks;
    *n = limit;
    return FST_OK;
}

/* Signals in memory, those of a dry run, are limited as a file of them would be. */
static fst_status limit_made(struct session *s, fst_source **made, fst_error *err)
{
    fst_source_part part = {.source = *made, .count = (*made)->count};
    uint32_t *list = NULL;
    own(s, *made);
    fst_status st = keep_limit(*made, &list, &part.count, (size_t)s->task->file.data.limit, err);
    part.index = list;
    if (!st && list)
        st = fst_source_compose(made, (*made)->name, &part, 1, err);
    if (!st && list)
        own(s, *made);
    fst_free(list);
    return st;
}

static fst_status open_synth(struct session *s, fst_source **out, fst_error *err)
{
    char *path = NULL;
    fst_status st = fst__synth_data(s, &path, out, err);
    if (!st && path)
        st = open_split(s, path, "train", out, err);
    else if (!st)
        st = limit_made(s, out, err);
    fst_free(path);
    return st;
}

static void add_piece(struct pieces *p, const fst_source *source, size_t edge, bool validation)
{
    p->at[p->n++] = (struct piece){source, NULL, source->count, edge, validation};
}

/* A folder of `data split --out` has no file for a part without samples, as validation is of an edge with few. */
static bool has_no_val(const struct session *s, const char *path)
{
    char *full = fst_path_join(s->task->folder, path);
    char *train = full ? fst_path_join(full, "train.safetensors") : NULL;
    char *val = full ? fst_path_join(full, "val.safetensors") : NULL;
    bool none = train && val && fst_file_exists(train) && !fst_file_exists(val);
    fst_free(full);
    fst_free(train);
    fst_free(val);
    return none;
}

/* The samples of one place: its training samples, and its own validation samples where they are asked for. */
static fst_status open_place(struct session *s, struct pieces *p, const char *path, size_t edge, fst_error *err)
{
    fst_source *source = NULL;
    fst_status st = open_path(s, path, "train", &source, err);
    if (st)
        return edge ? fst_fail_in(err, st, "edge %zu", edge) : st;
    add_piece(p, source, edge, false);
    if (!s->task->file.data.own_validation || (edge && has_no_val(s, path)))
        return FST_OK;
    st = open_path(s, path, "val", &source, err);
    if (st) /* a setting that these data cannot follow */
        return fst_fail_in(err, st == FST_E_ABSENT ? FST_E_CONFIG : st, "data.own_validation");
    add_piece(p, source, edge, true);
    return FST_OK;
}

/* ---- dealing -------------------------------------------------------------------------------------- */

/* A seed for one deal, so that no two of them draw alike. */
static uint64_t deal_seed(const struct session *s, const char *purpose, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, (uint64_t)s->task->file.seed, purpose, index);
    return fst_rng_u64(&r);
}

fst_status fst__deal_parts(const fst_source *source, const uint32_t *subset, size_t n, double val, double test,
                           uint64_t seed, fst_tiers *out, fst_error *err)
{
    const fst_tiers_spec spec = {.cloud = 1, .alpha = 1, .val = val, .test = test, .seed = seed};
    fst_source view = *source; /* dealing looks at labels and attributes only */
    int32_t *labels = fst_calloc(n, sizeof *labels);
    int64_t *group = fst_calloc(n, sizeof *group);
    float *snr = fst_calloc(n, sizeof *snr);
    fst_status st = labels && group && snr ? FST_OK : fst_fail_memory(err, n * 16);
    for (size_t i = 0; !st && i < n; i++) {
        size_t k = subset ? subset[i] : i;
        labels[i] = source->labels[k];
        group[i] = source->group ? source->group[k] : 0;
        snr[i] = source->snr ? source->snr[k] : 0;
    }
    view.count = n;
    view.labels = labels;
    view.group = source->group ? group : NULL;
    view.snr = source->snr ? snr : NULL;
    if (!st)
        st = fst_tiers_make(out, &view, &spec, err);
    fst_free(labels);
    fst_free(group);
    fst_free(snr);
    return st;
}

/* The samples that a deal gave to a site for a part: subset[i], or i. NULL when out of memory. */
static uint32_t *dealt_to(const fst_tiers *t, const uint32_t *subset, int32_t site, fst_part part, size_t *count)
{
    uint32_t *list = fst_calloc(t->samples, sizeof *list);
    *count = 0;
    for (size_t i = 0; list && i < t->samples; i++)
        if (t->site[i] == site && t->part[i] == part)
            list[(*count)++] = subset ? subset[i] : (uint32_t)i;
    return list;
}

/* A site's share: those to learn from, then those of validation. */
static fst_status take_share(const fst_tiers *t, const uint32_t *subset, int32_t site, struct share *out,
                             fst_error *err)
{
    size_t learn, validate;
    uint32_t *first = dealt_to(t, subset, site, FST_PART_TRAIN, &learn);
    uint32_t *second = dealt_to(t, subset, site, FST_PART_VAL, &validate);
    uint32_t *both = fst_calloc(t->samples, sizeof *both);
    fst_status st = first && second && both ? FST_OK : fst_fail_memory(err, 3 * t->samples * sizeof *both);
    if (!st) {
        memcpy(both, first, learn * sizeof *both);
        memcpy(both + learn, second, validate * sizeof *both);
        fst_free(out->index);
        *out = (struct share){both, learn, validate};
        both = NULL;
    }
    fst_free(first);
    fst_free(second);
    fst_free(both);
    return st;
}

/* ---- test samples --------------------------------------------------------------------------------- */

/* The first piece loses a share to the test samples. */
static fst_status carve_test(struct session *s, struct pieces *p, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    struct piece *all = &p->at[0];
    fst_source_part test = {.source = all->source};
    fst_tiers t = {0};
    fst_status st = fst__deal_parts(all->source, NULL, all->count, 0, d->test, deal_seed(s, "data.test", 0), &t, err);
    if (st)
        return st;
    uint32_t *list = dealt_to(&t, NULL, 0, FST_PART_TEST, &test.count);
    all->index = dealt_to(&t, NULL, 0, FST_PART_TRAIN, &all->count);
    if (!list || !all->index)
        st = fst_fail_memory(err, 2 * t.samples * sizeof *list);
    else if (!test.count)
        st = fst_fail(err, FST_E_CONFIG, "data.test: %g of %zu samples in %zu %s leaves none to test on", d->test,
                      t.samples, t.groups, t.by_group ? "bursts" : "pieces");
    if (!st)
        st = keep_limit(all->source, &list, &test.count, (size_t)d->test_limit, err);
    test.index = list;
    if (!st)
        st = fst_source_compose(&s->data.test, all->source->name, &test, 1, err);
    if (!st)
        own(s, s->data.test);
    fst_free(list);
    fst_tiers_release(&t);
    return st;
}

/* ---- shares ---------------------------------------------------------------------------------------- */

/* Sets validation samples apart in a share that has none yet. place: 0 the cloud, else an edge. */
static fst_status share_validation(const struct session *s, struct share *h, uint64_t place, fst_error *err)
{
    double validation = s->task->file.data.validation;
    fst_tiers t = {0};
    fst_status st = FST_OK;
    if (validation > 0 && h->learn) {
        uint32_t *subset = h->index;
        st = fst__deal_parts(s->data.train, subset, h->learn, validation, 0, deal_seed(s, "data.validation", place), &t,
                             err);
        if (!st)
            st = take_share(&t, subset, 0, h, err);
        fst_tiers_release(&t);
    }
    if (!st && !h->learn)
        st = fst_fail(err, FST_E_CONFIG, "data: no samples to learn from are left %s", place ? "at an edge" : "");
    return st;
}

/* What each place brought is its own, and its split val is its validation part. */
static fst_status shares_of_pieces(struct session *s, const struct pieces *p, struct share *cloud, fst_error *err)
{
    for (int validation = 0; validation < 2; validation++) {
        size_t at = 0;
        for (size_t i = 0; i < p->n; i++) {
            struct share *h = p->at[i].edge ? &s->data.edge[p->at[i].edge - 1] : cloud;
            if (!h->index && !(h->index = fst_calloc(s->data.train->count, sizeof *h->index)))
                return fst_fail_memory(err, s->data.train->count * sizeof *h->index);
            if (p->at[i].validation == (validation == 1)) {
                for (size_t k = 0; k < p->at[i].count; k++)
                    h->index[h->learn + h->validate + k] = (uint32_t)(at + k);
                *(validation ? &h->validate : &h->learn) += p->at[i].count;
            }
            at += p->at[i].count;
        }
    }
    fst_status st = FST_OK;
    for (size_t k = 0; !st && !s->task->file.data.own_validation && k <= s->data.edges; k++)
        if (fst__place_is_here(s, k))
            st = share_validation(s, k ? &s->data.edge[k - 1] : cloud, k, err);
    return st;
}

/* The training samples are dealt: a share to the cloud, the rest to the edges by Dirichlet. */
static fst_status shares_dealt(struct session *s, struct share *cloud, fst_error *err)
{
    const struct topology_section *t = &s->task->file.topology;
    bool all = t->cloud_share >= 1;
    const fst_tiers_spec spec = {.cloud = t->cloud_share,
                                 .edges = all ? 0 : (int)t->edges,
                                 .alpha = t->alpha,
                                 .val = s->task->file.data.validation,
                                 .seed = (uint64_t)s->task->file.seed};
    fst_tiers tiers = {0};
    fst_status st = fst_tiers_make(&tiers, s->data.train, &spec, err);
    if (st)
        return fst_fail_in(err, st, "topology");
    st = take_share(&tiers, NULL, 0, cloud, err);
    for (size_t k = 0; !st && !all && k < s->data.edges; k++)
        st = take_share(&tiers, NULL, (int32_t)k + 1, &s->data.edge[k], err);
    fst_tiers_release(&tiers);
    if (!st && !all && !fst__has_kind(&s->task->file, "federated_train"))
        fst_log(FST_LOG_WARN,
                "%zu of %zu training samples belong to the edges, where no stage trains: topology.cloud_share: 1 gives "
                "them to the cloud",
                s->data.train->count - cloud->learn - cloud->validate, s->data.train->count);
    if (!st && !cloud->learn)
        st = fst_fail(err, FST_E_CONFIG, "topology.cloud_share: %g of %zu training samples leaves none to the cloud",
                      t->cloud_share, s->data.train->count);
    return st;
}

/* A share of validation that rounds to nothing everywhere would be none at all, without a word. An edge by itself does
 * not know what the others have. */
static fst_status check_validation(const struct session *s, fst_error *err)
{
    double share = s->task->file.data.validation;
    size_t learn = s->data.cloud.learn, validate = s->data.cloud.validate;
    for (size_t k = 0; k < s->data.edges; k++) {
        learn += s->data.edge[k].learn;
        validate += s->data.edge[k].validate;
    }
    if (share == 0 || validate || s->place > 0)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "data.validation: %g of %zu samples%s leaves none to validate on", share, learn,
                    s->data.train->group ? " in whole bursts" : "");
}

/* Public samples are taken out of those that the cloud, or the only place, would learn from. */
static fst_status share_public(struct session *s, struct share *h, fst_error *err)
{
    double share = s->task->file.data.public;
    struct share *public = &s->data.public;
    fst_tiers t = {0};
    size_t learn = 0;
    if (share == 0 || !fst__place_is_here(s, 0))
        return FST_OK;
    fst_status st =
        fst__deal_parts(s->data.train, h->index, h->learn, share, 0, deal_seed(s, "data.public", 0), &t, err);
    if (st)
        return st;
    public->index = dealt_to(&t, h->index, 0, FST_PART_VAL, &public->learn);
    uint32_t *rest = dealt_to(&t, h->index, 0, FST_PART_TRAIN, &learn);
    if (!public->index || !rest) {
        st = fst_fail_memory(err, 2 * t.samples * sizeof *rest);
    } else if (!public->learn || !learn) {
        st = fst_fail(err, FST_E_CONFIG, "data.public: %g of %zu samples%s leaves none %s", share, h->learn,
                      s->data.train->group ? " in whole bursts" : "", learn ? "that are public" : "to learn from");
    } else {
        memmove(h->index + learn, h->index + h->learn, h->validate * sizeof *h->index);
        memcpy(h->index, rest, learn * sizeof *rest);
        h->learn = learn;
    }
    fst_free(rest);
    fst_tiers_release(&t);
    return st;
}

/* Is there a stage that learns from the cloud's samples, or takes scales from them? Public ones are of them. */
static bool trains_at_cloud(const struct task_file *f)
{
    static const char *const kinds[] = {"cloud_pretrain", "cloud_kd", "edge_kd", "fusion_train", "quantise"};
    bool found = f->data.public > 0;
    for (size_t i = 0; !found && i < sizeof kinds / sizeof *kinds; i++)
        found = fst__has_kind(f, kinds[i]);
    return found;
}

/* Says so of samples that a topology gives to the cloud for nothing. */
static void warn_cloud(const struct session *s, const struct share *cloud)
{
    bool dealt = !s->task->file.data.edge_path_count;
    if (s->data.edges && fst__place_is_here(s, 0) && !trains_at_cloud(&s->task->file))
        fst_log(FST_LOG_WARN, "%zu of %zu training samples belong to the cloud, where no stage trains%s",
                cloud->learn + cloud->validate, s->data.train->count,
                dealt ? ": a smaller topology.cloud_share gives more of them to the edges" : "");
}

static fst_status share_out(struct session *s, const struct pieces *p, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    struct share all = {0};
    s->data.edges = f->has_topology ? (size_t)f->topology.edges : 0;
    bool dealt = s->data.edges && !f->data.edge_path_count && !f->data.own_validation;
    fst_status st = dealt ? shares_dealt(s, &all, err) : shares_of_pieces(s, p, &all, err);
    if (!st)
        warn_cloud(s, &all);
    if (!st)
        st = share_public(s, &all, err);
    s->data.cloud.index = all.index;
    s->data.cloud.learn = all.learn;
    s->data.cloud.validate = all.validate;
    s->data.places = f->data.edge_path_count > 0;
    if (!st && s->data.places)
        st = fst__places(s, p, err);
    return st ? st : check_validation(s, err);
}

int fst__missing_of(const fst_source *t, const uint32_t *index, size_t n, char *out, size_t size)
{
    uint8_t seen[FST_MAX_CLASSES / 8] = {0}; /* a bit each */
    size_t at = 0;
    int missing = 0;
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t c = t->labels[index ? index[i] : i];
        seen[c / 8] |= (uint8_t)(1 << c % 8);
    }
    for (int c = 0; c < t->classes; c++) {
        char number[16];
        snprintf(number, sizeof number, "%d", c);
        if (seen[c / 8] >> c % 8 & 1)
            continue;
        int len =
            snprintf(out + at, size - at, "%s%s", missing++ ? ", " : "", t->class_names ? t->class_names[c] : number);
        at += len > 0 && (size_t)len < size - at ? (size_t)len : size - at - 1;
    }
    return missing;
}

int fst__missing_classes(const struct samples *d, const struct share *h, char *out, size_t size)
{
    for (size_t k = 0; d->elsewhere && k < d->edges; k++)
        if (h == &d->edge[k]) {
            snprintf(out, size, "%s", d->elsewhere[k].missing);
            return *out != 0;
        }
    return fst__missing_of(d->train, h->index, h->learn, out, size);
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
    fst_transform t = {.crop_padding = (int)d->crop_padding, .flip = d->flip, .fingerprint = d->fingerprint};
    if (d->has_normalise) {
        t.channels = (int)d->normalise.mean_count;
        if (t.channels != 1 && t.channels != s->data.train->shape.dim[0])
            return fst_fail(err, FST_E_CONFIG, "data.normalise has %d values, the samples have %lld channels",
                            t.channels, (long long)s->data.train->shape.dim[0]);
        for (int i = 0; i < t.channels; i++) {
            t.mean[i] = (float)d->normalise.mean[i];
            t.std[i] = (float)d->normalise.std[i];
        }
    }
    s->data.transform = t;
    return FST_OK;
}

/* "the validation samples of edge 2" */
static const char *use_of(const struct piece *p, char *out, size_t size)
{
    int n = snprintf(out, size, "the %s samples", p->validation ? "validation" : "training");
    if (p->edge)
        snprintf(out + n, size - (size_t)n, " of edge %zu", p->edge);
    return out;
}

static fst_status same_samples(const char *a, const char *b, const fst_source *x, const fst_source *y, fst_error *err)
{
    return fst_fail(
        err, FST_E_CONFIG,
        "data: %s are %s over again (%s and %s hold the same %zu samples, digest %.12s): each needs samples "
        "of its own",
        b, a, x->name, y->name, x->count, x->digest);
}

/* Two splits with the same content are one by mistake: a model would be measured on what it has learnt, or two edges be
 * one. Only validation samples may be shared by places, and the cloud may know what an edge has. */
static fst_status check_splits(const struct session *s, const struct pieces *p, fst_error *err)
{
    char a[64], b[64];
    for (size_t i = 0; i < p->n; i++) {
        const struct piece *x = &p->at[i];
        if (s->data.test && !strcmp(x->source->digest, s->data.test->digest))
            return same_samples(use_of(x, a, sizeof a), "the test samples", x->source, s->data.test, err);
        for (size_t k = 0; k < i; k++) {
            const struct piece *y = &p->at[k];
            bool apart = x->validation != y->validation || (!x->validation && x->edge && y->edge);
            if (apart && !strcmp(x->source->digest, y->source->digest))
                return same_samples(use_of(y, a, sizeof a), use_of(x, b, sizeof b), y->source, x->source, err);
        }
    }
    return FST_OK;
}

/* One source stays what it is; a part of one, or several, become one. */
static fst_status join(struct session *s, const struct pieces *p, fst_error *err)
{
    fst_source_part parts[sizeof p->at / sizeof *p->at];
    if (p->n == 1 && !p->at[0].index) {
        s->data.train = (fst_source *)p->at[0].source;
        return FST_OK;
    }
    for (size_t i = 0; i < p->n; i++)
        parts[i] = (fst_source_part){p->at[i].source, p->at[i].index, p->at[i].count};
    fst_status st = fst_source_compose(&s->data.train, p->at[0].source->name, parts, p->n, err);
    if (!st)
        own(s, s->data.train);
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
    } else if (fst__place_is_here(s, 0)) {
        st = open_place(s, p, d->path, 0, err);
    }
    if (!st && fst__place_is_here(s, 0))
        st = d->test > 0 ? carve_test(s, p, err) : open_path(s, d->path, "test", &s->data.test, err);
    for (size_t k = 0; !st && k < d->edge_path_count; k++)
        if (fst__place_is_here(s, k + 1))
            st = open_place(s, p, d->edge_paths[k], k + 1, err);
    if (!st)
        st = check_splits(s, p, err);
    return st ? st : join(s, p, err);
}

void fst__samples_release(struct samples *d)
{
    while (d->nowned > 0)
        fst_source_close(d->owned[--d->nowned]);
    fst_free(d->cloud.index);
    fst_free(d->public.index);
    fst_free(d->first.index);
    for (size_t k = 0; k < d->edges; k++)
        fst_free(d->edge[k].index);
    fst_free(d->made.x);
    fst_free(d->made.labels);
    fst_free(d->made.snr);
    fst_free(d->made.burst);
    fst_free(d->elsewhere);
}

/* Are the test samples of the kind of the training samples? */
static fst_status check_test(const struct session *s, fst_error *err)
{
    char a[64], b[64];
    fst_status st = FST_OK;
    bool alone = s->place > 0; /* what the others have is not known */
    if (!s->data.test)
        return FST_OK;
    if (!fst_shape_equal(&s->data.train->shape, &s->data.test->shape) ||
        (!alone && s->data.test->classes > s->data.train->classes))
        st = fst_fail(err, FST_E_MISMATCH, "training samples are %s with %d classes, test samples %s with %d",
                      fst_shape_text(&s->data.train->shape, a, sizeof a), s->data.train->classes,
                      fst_shape_text(&s->data.test->shape, b, sizeof b), s->data.test->classes);
    if (!st && s->data.train->dtype != s->data.test->dtype) /* bytes are scaled, floats are not */
        st =
            fst_fail(err, FST_E_MISMATCH,
                     "training samples are %s, test samples %s: U8 is scaled to 0 ... 1, floats are taken as they are; "
                     "save both in one type",
                     fst_dtype_name(s->data.train->dtype), fst_dtype_name(s->data.test->dtype));
    return st ? st : fst_source_same_classes(s->data.train, s->data.test, err);
}

fst_status fst__session_open_data(struct session *s, fst_error *err)
{
    struct pieces p = {.n = 0};
    bool late = s->place == FST__ONLY_CLOUD; /* the others have to say first how many classes they have */
    fst_status st = open_pieces(s, &p, err);
    if (!st && !late)
        st = check_test(s, err);
    if (!st)
        st = make_transform(s, err);
    if (!st)
        st = share_out(s, &p, err);
    if (!st && late)
        st = check_test(s, err);
    if (p.n) { /* only the first is ever a part */
        s->data.first.source = p.at[0].source;
        s->data.first.index = p.at[0].index;
        s->data.first.count = p.at[0].count;
    }
    return st;
}
