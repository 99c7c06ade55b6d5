/*
 * Batches from a source, on the caller's thread or one batch ahead on a thread of the loader's own.
 * A batch is a function of (seed, epoch, batch number); the thread only decides when it is made. All
 * memory is cut from one arena when the loader is made.
 */
#include <pthread.h>
#include <string.h>

#include "formats.h"
#include "transform.h"

/* One batch in the caller's hands, one ready, one being made. */
enum { BACKGROUND_SLOTS = 3 };

struct slot {
    float *x, *soft;
    int32_t *labels;
    uint32_t *index;
    size_t rows;
};

struct fst_loader {
    fst_loader_spec spec;
    fst__transformer transform;
    fst_arena arena;
    uint32_t *order;
    unsigned char *raw; /* of one sample: raw_bytes */
    size_t raw_bytes;
    struct slot slots[BACKGROUND_SLOTS];
    size_t nslots;
    size_t count, batches; /* samples, and batches an epoch */
    uint64_t epoch;
    uint64_t kind; /* fst__source_kind */
    bool copies;   /* rows are samples as they are */

    /* Batches [released, taken) are the caller's, [taken, built) wait for the caller. With a thread all of
     * this is under the lock; `order` and `epoch` change only while the thread is not busy. */
    size_t released, taken, built;
    bool running; /* an epoch was started */
    fst_status failed;
    fst_error error; /* why */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, news;
    bool threaded, busy, stop;
};

/* ---- one batch ------------------------------------------------------------------------------ */

/* Of a sample's augmentation in this epoch: by its key, since a position says nothing to somebody with other samples.
 */
static uint64_t stream_of(const fst_loader *l, const void *raw)
{
    struct {
        fst_hash128 key;
        uint64_t epoch;
    } at = {fst_hash(raw, l->raw_bytes, l->kind), l->epoch};
    return fst_hash(&at, sizeof at, 0).lo;
}

/* Samples are drawn from all over memory, and what is waited for is that, not the arithmetic. */
static void fetch_soon(const fst_loader *l, size_t position)
{
    enum { LINE = 64, MOST_BYTES = 4096 }; /* the rest of a larger sample the processor fetches by itself */
    const unsigned char *at = position < l->count ? fst__held_view(l->spec.source, l->order[position]) : NULL;
    size_t bytes = l->raw_bytes < MOST_BYTES ? l->raw_bytes : MOST_BYTES;
    for (size_t i = 0; at && i < bytes; i += LINE)
        __builtin_prefetch(at + i);
}

static fst_status build_row(fst_loader *l, uint32_t sample, float *dst, fst_error *err)
{
    const fst_source *s = l->spec.source;
    const void *raw = s->dtype == FST_U8 ? fst__held_view(s, sample) : NULL; /* floats may not be aligned there */
    fst_rng rng;
    if (!raw) {
        fst_status st = s->v->get(s, sample, l->copies ? (void *)dst : l->raw, err);
        if (st || l->copies)
            return st;
        raw = l->raw;
    }
    if (l->spec.augment)
        fst_rng_init(&rng, l->spec.seed, "batch.augment", stream_of(l, raw));
    fst__transformer_apply(&l->transform, raw, dst, l->spec.augment ? &rng : NULL);
    return FST_OK;
}

static fst_status build(fst_loader *l, size_t batch, struct slot *slot, fst_error *err)
{
    size_t begin = batch * l->spec.batch_size, left = l->count - begin;
    slot->rows = left < l->spec.batch_size ? left : l->spec.batch_size;
    for (size_t i = 0; i < slot->rows; i++) {
        uint32_t sample = l->order[begin + i];
        fetch_soon(l, begin + i + 1);
        fst_status s = build_row(l, sample, slot->x + i * l->transform.elements, err);
        if (s)
            return s;
        slot->index[i] = sample;
        slot->labels[i] = l->spec.source->labels[sample];
    }
    return l->spec.soft ? l->spec.soft(l->spec.soft_ctx, slot->index, slot->rows, slot->soft, err) : FST_OK;
}

/* Counts the batch that was made, or keeps why it was not. */
static void note(fst_loader *l, fst_status s, const fst_error *error)
{
    if (s) {
        l->failed = s;
        l->error = *error;
    } else {
        l->built++;
    }
}

static bool can_build(const fst_loader *l)
{
    return l->running && !l->failed && l->built < l->batches && l->built - l->released < l->nslots;
}

static void *work(void *arg)
{
    fst_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && !can_build(l))
            pthread_cond_wait(&l->wake, &l->lock);
        if (l->stop)
            break;
        size_t batch = l->built;
        fst_error error = {0};
        l->busy = true;
        pthread_mutex_unlock(&l->lock);
        fst_status s = build(l, batch, &l->slots[batch % l->nslots], &error);
        pthread_mutex_lock(&l->lock);
        l->busy = false;
        note(l, s, &error);
        pthread_cond_signal(&l->news);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- making a loader ------------------------------------------------------------------------ */

static fst_status check(const fst_loader_spec *spec, fst_error *err)
{
    const fst_source *s = spec->source;
    if (!s || spec->batch_size == 0)
        return fst_fail(err, FST_E_ARGUMENT, "a loader needs a source and a batch size above 0");
    if (spec->subset && spec->subset_count == 0)
        return fst_fail(err, FST_E_ARGUMENT, "%s: an empty subset has no batches", s->name);
    for (size_t i = 0; spec->subset && i < spec->subset_count; i++)
        if (spec->subset[i] >= s->count)
            return fst_fail(err, FST_E_ARGUMENT, "%s: entry %zu of the subset is sample %lu, the last is %zu", s->name,
                            i, (unsigned long)spec->subset[i], s->count - 1);
    if (spec->soft && spec->soft_width <= 0)
        return fst_fail(err, FST_E_ARGUMENT, "%s: soft targets need a width above 0, not %d", s->name,
                        spec->soft_width);
    return FST_OK;
}

/* Adds count * size, rounded up as the arena does; false when it does not fit. */
static bool add(size_t *total, size_t count, size_t size)
{
    size_t bytes;
    return !__builtin_mul_overflow(count, size, &bytes) && !__builtin_add_overflow(bytes, 63, &bytes) &&
           !__builtin_add_overflow(*total, bytes / 64 * 64, total);
}

static fst_status reserve(fst_loader *l, size_t rows, fst_error *err)
{
    size_t total = 0, raw = fst_source_sample_bytes(l->spec.source);
    size_t soft = l->spec.soft ? (size_t)l->spec.soft_width : 0, table = fst__transformer_table(&l->transform);
    size_t elements = l->transform.elements, row, soft_row;
    bool fits = !__builtin_mul_overflow(elements, sizeof(float), &row) &&
                !__builtin_mul_overflow(soft, sizeof(float), &soft_row) && add(&total, l->count, sizeof *l->order) &&
                add(&total, raw, 1) && add(&total, table, sizeof(float));
    for (size_t i = 0; fits && i < l->nslots; i++)
        fits = add(&total, rows, row) && add(&total, rows, soft_row) && add(&total, rows, sizeof(int32_t)) &&
               add(&total, rows, sizeof(uint32_t));
    if (!fits)
        return fst_fail(err, FST_E_LIMIT, "%s: batches of %zu samples do not fit any memory", l->spec.source->name,
                        rows);
    fst_status s = fst_arena_init(&l->arena, total, err);
    if (s)
        return s;
    l->order = fst_arena_take(&l->arena, l->count * sizeof *l->order);
    l->raw = fst_arena_take(&l->arena, raw);
    l->raw_bytes = raw;
    fst__transformer_fill(&l->transform, fst_arena_take(&l->arena, table * sizeof(float)));
    for (size_t i = 0; i < l->nslots; i++) {
        l->slots[i].x = fst_arena_take(&l->arena, rows * row);
        l->slots[i].soft = fst_arena_take(&l->arena, rows * soft_row);
        l->slots[i].labels = fst_arena_take(&l->arena, rows * sizeof(int32_t));
        l->slots[i].index = fst_arena_take(&l->arena, rows * sizeof(uint32_t));
    }
    return FST_OK;
}

static fst_status start_thread(fst_loader *l, fst_error *err)
{
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    pthread_cond_init(&l->news, NULL);
    int e = fst_thread_start(&l->thread, work, l);
    if (e) {
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->wake);
        pthread_cond_destroy(&l->news);
        return fst_fail(err, FST_E_MEMORY, "cannot start the loader's thread: %s", strerror(e));
    }
    l->threaded = true;
    return FST_OK;
}

fst_status fst_loader_new(fst_loader **out, const fst_loader_spec *spec, fst_error *err)
{
    fst_status s = check(spec, err);
    if (s)
        return s;
    fst_loader *l = fst_calloc(1, sizeof *l);
    if (!l)
        return fst_fail_memory(err, sizeof *l);
    l->spec = *spec;
    l->count = spec->subset ? spec->subset_count : spec->source->count;
    l->batches = l->count / spec->batch_size;
    if (!spec->drop_last && l->count % spec->batch_size)
        l->batches++;
    l->kind = fst__source_kind(spec->source);
    l->nslots = spec->background ? BACKGROUND_SLOTS : 1;
    s = fst__transformer_init(&l->transform, &spec->transform, spec->source, err);
    l->copies = !s && !spec->augment && fst__transformer_copies(&l->transform);
    if (!s)
        s = reserve(l, spec->batch_size < l->count ? spec->batch_size : l->count, err);
    if (!s && spec->background)
        s = start_thread(l, err);
    if (s)
        fst_loader_free(l);
    else
        *out = l;
    return s;
}

size_t fst_loader_batches(const fst_loader *l)
{
    return l->batches;
}

/* ---- an epoch ------------------------------------------------------------------------------- */

static void set_order(fst_loader *l)
{
    fst_rng rng;
    for (size_t i = 0; i < l->count; i++)
        l->order[i] = l->spec.subset ? l->spec.subset[i] : (uint32_t)i;
    if (!l->spec.shuffle)
        return;
    fst_rng_init(&rng, l->spec.seed, "batch.order", l->epoch);
    fst_rng_shuffle_u32(&rng, l->order, l->count);
}

fst_status fst_loader_start(fst_loader *l, uint64_t epoch, size_t first, fst_error *err)
{
    if (first > l->batches)
        return fst_fail(err, FST_E_ARGUMENT, "an epoch of %zu batches cannot start at batch %zu", l->batches, first);
    if (l->threaded)
        pthread_mutex_lock(&l->lock);
    l->running = false;
    while (l->busy)
        pthread_cond_wait(&l->news, &l->lock);
    l->epoch = epoch;
    set_order(l);
    l->released = l->taken = l->built = first;
    l->failed = FST_OK;
    l->running = true;
    if (l->threaded) {
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->lock);
    }
    return FST_OK;
}

/* Batch l->taken is built, or an error is noted, or the epoch is over, when this returns. */
static void await(fst_loader *l)
{
    fst_error error = {0};
    l->released = l->taken;
    if (l->threaded) {
        pthread_cond_signal(&l->wake);
        while (l->taken == l->built && !l->failed && l->taken < l->batches)
            pthread_cond_wait(&l->news, &l->lock);
    } else if (can_build(l)) {
        note(l, build(l, l->built, &l->slots[0], &error), &error);
    }
}

static fst_status hand_out(fst_loader *l, fst_batch *out, fst_error *err)
{
    if (l->taken == l->built) {
        if (l->failed && err)
            *err = l->error;
        if (!l->failed)
            *out = (fst_batch){0};
        return l->failed;
    }
    const struct slot *slot = &l->slots[l->taken % l->nslots];
    *out = (fst_batch){slot->rows, slot->x, slot->labels, slot->index, l->spec.soft ? slot->soft : NULL};
    l->taken++;
    return FST_OK;
}

fst_status fst_loader_next(fst_loader *l, fst_batch *out, fst_error *err)
{
    if (!l->running)
        return fst_fail(err, FST_E_ARGUMENT, "start an epoch before asking for its batches");
    if (l->threaded)
        pthread_mutex_lock(&l->lock);
    await(l);
    fst_status s = hand_out(l, out, err);
    if (l->threaded)
        pthread_mutex_unlock(&l->lock);
    return s;
}

void fst_loader_free(fst_loader *l)
{
    if (!l)
        return;
    if (l->threaded) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->wake);
        pthread_cond_destroy(&l->news);
    }
    fst_arena_release(&l->arena);
    fst_free(l);
}
