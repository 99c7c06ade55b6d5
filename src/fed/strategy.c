/* The registry of strategies, and what is the same for all of them: checked arguments, counting, and
 * the envelope of a saved server state. */
#include <string.h>

#include "fed_private.h"

static const fst_strategy_ops *const registry[] = {
    &fst__strategy_fedavg,     &fst__strategy_fedprox, &fst__strategy_fedavgm,
    &fst__strategy_fedadagrad, &fst__strategy_fedadam, &fst__strategy_fedyogi,
};
enum { REGISTERED = sizeof registry / sizeof *registry };

const fst_strategy_ops *fst_strategy_at(size_t i)
{
    return i < REGISTERED ? registry[i] : NULL;
}

const fst_strategy_ops *fst_strategy_find(const char *name)
{
    for (size_t i = 0; i < REGISTERED; i++)
        if (strcmp(registry[i]->name, name) == 0)
            return registry[i];
    return NULL;
}

static fst_status unknown_name(const char *name, fst_error *err)
{
    fst_status s = fst_fail(err, FST_E_CONFIG, "unknown strategy \"%s\"; known are", name);
    for (size_t i = 0; err && i < REGISTERED; i++) {
        size_t at = strlen(err->message), room = sizeof err->message - at;
        const char *next = registry[i]->name;
        if (strlen(next) + 3 > room)
            break;
        err->message[at++] = i ? ',' : ' ';
        if (i)
            err->message[at++] = ' ';
        strcpy(err->message + at, next);
    }
    return s;
}

fst_status fst_strategy_new(fst_strategy **out, const char *name, const fst_strategy_options *options,
                            fst_fed_size size, fst_error *err)
{
    const fst_strategy_ops *ops = fst_strategy_find(name);
    if (!ops)
        return unknown_name(name, err);
    return fst_strategy_new_ops(out, ops, options, size, err);
}

fst_status fst_strategy_new_ops(fst_strategy **out, const fst_strategy_ops *ops, const fst_strategy_options *options,
                                fst_fed_size size, fst_error *err)
{
    static const fst_strategy_options none;
    if (ops->instance_bytes < sizeof(fst_strategy))
        return fst_fail(err, FST_E_ARGUMENT, "strategy %s: an instance must start with fst_strategy", ops->name);
    fst_strategy *s = fst_calloc(1, ops->instance_bytes);
    if (!s)
        return fst_fail_memory(err, ops->instance_bytes);
    s->ops = ops;
    s->size = size;
    fst_status st = ops->init(s, options ? options : &none, err);
    if (st) {
        fst_strategy_free(s);
        return st;
    }
    *out = s;
    return FST_OK;
}

void fst_strategy_free(fst_strategy *s)
{
    if (!s)
        return;
    if (s->ops->release)
        s->ops->release(s);
    fst_free(s);
}

void fst_strategy_sizes(const fst_strategy *s, fst_fed_size *down, fst_fed_size *up)
{
    *down = *up = s->size;
    if (s->ops->sizes)
        s->ops->sizes(s, down, up);
}

fst_train_hints fst_strategy_hints(const fst_strategy *s, uint64_t round, uint32_t client)
{
    fst_train_hints h = {0};
    if (s->ops->hints)
        s->ops->hints(s, round, client, &h);
    return h;
}

void fst_strategy_begin(fst_strategy *s, uint64_t round)
{
    s->round = round;
    s->updates = s->samples = 0;
    s->open = true;
    s->ops->begin(s, round);
}

static fst_status check_update(const fst_strategy *s, const fst_update *u, fst_error *err)
{
    fst_fed_size down, up;
    if (!s->open)
        return fst_fail(err, FST_E_ARGUMENT, "no round is open: begin one first");
    if (u->round != s->round)
        return fst_fail(err, FST_E_MISMATCH, "is of round %llu, round %llu is open", (unsigned long long)u->round + 1,
                        (unsigned long long)s->round + 1);
    fst_strategy_sizes(s, &down, &up);
    if (!fst_fed_size_equal(u->state.size, up))
        return fst_fail(
            err, FST_E_MISMATCH, "has %zu parameters, %zu buffers, %zu counters; %zu, %zu and %zu are needed",
            u->state.size.params, u->state.size.buffers, u->state.size.counters, up.params, up.buffers, up.counters);
    if (u->samples < 1 || u->samples > FST_ACCUMULATOR_MAX_WEIGHT)
        return fst_fail(err, FST_E_ARGUMENT, "has %lld samples; 1 to 2147483647 are allowed", (long long)u->samples);
    return FST_OK;
}

fst_status fst_strategy_fold(fst_strategy *s, const fst_update *u, fst_error *err)
{
    fst_status st = check_update(s, u, err);
    if (!st)
        st = s->ops->fold(s, u, err);
    if (st)
        return fst_fail_in(err, st, "the update");
    s->updates++;
    s->samples += (uint64_t)u->samples;
    return FST_OK;
}

fst_status fst_strategy_publish(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats, fst_error *err)
{
    fst_publish_stats done = {s->updates, s->samples, 0};
    if (!s->open || s->updates == 0)
        return fst_fail(err, FST_E_ARGUMENT, "nothing was folded in this round: there is nothing to publish");
    if (!fst_fed_size_equal(global->size, s->size))
        return fst_fail(err, FST_E_MISMATCH, "the global state has another size than the strategy %s was made for",
                        s->ops->name);
    fst_status st = s->ops->publish(s, global, &done, err);
    if (st)
        return fst_fail_in(err, st, "strategy %s", s->ops->name);
    s->open = false;
    if (stats)
        *stats = done;
    return FST_OK;
}

/* The envelope: "FSTSTRAT", the name padded to 24, three sizes, the body's length and its hash. Integers
 * are little-endian as everywhere on the machines that this runs on. */
struct envelope {
    char magic[8], name[24];
    uint64_t params, buffers, counters, length, hash;
};

static struct envelope envelope_of(const fst_strategy *s, const void *body, size_t len)
{
    struct envelope e = {.magic = {'F', 'S', 'T', 'S', 'T', 'R', 'A', 'T'}};
    for (size_t i = 0; i + 1 < sizeof e.name && s->ops->name[i]; i++)
        e.name[i] = s->ops->name[i];
    e.params = s->size.params;
    e.buffers = s->size.buffers;
    e.counters = s->size.counters;
    e.length = len;
    e.hash = fst_hash(body, len, 0).lo;
    return e;
}

fst_status fst_strategy_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    fst_buf body = {0};
    fst_status st = s->ops->save ? s->ops->save(s, &body, err) : FST_OK;
    if (!st) {
        struct envelope e = envelope_of(s, body.len ? body.data : "", body.len);
        size_t before = out->len;
        st = fst_buf_append(out, &e, sizeof e, err);
        if (!st)
            st = fst_buf_append(out, body.len ? body.data : "", body.len, err);
        if (st)
            out->len = before;
    }
    fst_buf_release(&body);
    return st;
}

fst_status fst_strategy_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct envelope got;
    if (len < sizeof got)
        return fst_fail(err, FST_E_FORMAT, "a saved strategy has at least %zu bytes, not %zu", sizeof got, len);
    memcpy(&got, data, sizeof got);
    const unsigned char *body = (const unsigned char *)data + sizeof got;
    size_t body_len = len - sizeof got;
    struct envelope want = envelope_of(s, body, body_len);
    if (memcmp(got.magic, want.magic, sizeof got.magic) != 0)
        return fst_fail(err, FST_E_FORMAT, "these bytes are no saved strategy");
    if (got.length != want.length || got.hash != want.hash)
        return fst_fail(err, FST_E_FORMAT, "the saved strategy is cut short or was changed");
    if (memcmp(got.name, want.name, sizeof got.name) != 0)
        return fst_fail(err, FST_E_MISMATCH, "saved by the strategy \"%.*s\", not by \"%s\"",
                        (int)strnlen(got.name, sizeof got.name), got.name, s->ops->name);
    if (got.params != want.params || got.buffers != want.buffers || got.counters != want.counters)
        return fst_fail(err, FST_E_MISMATCH, "saved for a model of another size");
    if (s->ops->load)
        return s->ops->load(s, body, body_len, err);
    if (body_len)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes too many: %s keeps no state", body_len, s->ops->name);
    return FST_OK;
}
