/*
 * Who wants a blob. Each part is missing, asked for or here; those asked for stand in `flight` too, with the order in
 * which they were asked. The bytes are hashed from the front as they come, so that the digest is known soon after the
 * last part.
 */
#include <math.h>
#include <string.h>

#include "blob_room.h"
#include "bytes.h"

enum { HASHED_AT_ONCE = 4 /* parts */ };
static const double least_wait = 2, most_wait = 30, try_again = 0.05;

enum part_state { MISSING, ASKED, HERE };

struct flight {
    uint32_t index;
    uint64_t order;
    double at;
};

struct fst_blob_fetch {
    fst_blob_fetch_spec spec;
    struct room room;
    unsigned char *state; /* [parts] */
    struct flight flight[FST_BLOB_WINDOW_MAX];
    uint32_t flights, here, hashed, first_missing;
    uint64_t order;
    double came, progress, usual, backoff,
        asked_at; /* came: the last new part; backoff: 0, or the wait after a stall */
    bool refused, fetched;
    fst_sha256 sha;
    fst_blob_fetch_counters count;
};

static fst_status open_room(fst_blob_fetch *f, fst_error *err)
{
    const fst_blob_manifest *m = &f->spec.manifest;
    uint64_t most = f->spec.in_memory ? f->spec.in_memory : FST_BLOB_IN_MEMORY;
    bool *here = fst_calloc(m->parts, sizeof *here);
    f->state = fst_calloc(m->parts, 1);
    f->room = (struct room){.fd = -1, .listed = -1};
    fst_status st = here && f->state ? fst__room_open(&f->room, m, m->bytes > most ? f->spec.file : NULL, here, err)
                                     : fst_fail_memory(err, m->parts);
    f->spec.file = NULL; /* the caller's */
    for (uint32_t i = 0; !st && i < m->parts; i++)
        if (here[i]) {
            f->state[i] = HERE;
            f->here++;
        }
    fst_free(here);
    return st;
}

fst_status fst_blob_fetch_new(fst_blob_fetch **out, const fst_blob_fetch_spec *spec, fst_error *err)
{
    const fst_blob_manifest *m = &spec->manifest;
    uint64_t most = spec->most && spec->most < FST_BLOB_MAX ? spec->most : FST_BLOB_MAX;
    if (m->bytes < 1 || m->parts != (m->bytes + FST_BLOB_PART - 1) / FST_BLOB_PART)
        return fst_fail(err, FST_E_ARGUMENT, "a manifest whose figures do not belong together");
    if (m->bytes > most || m->raw_bytes > most)
        return fst_fail(err, FST_E_LIMIT, "a blob of %llu bytes, %llu are expected at most",
                        (unsigned long long)(m->bytes > m->raw_bytes ? m->bytes : m->raw_bytes),
                        (unsigned long long)most);
    fst_blob_fetch *f = fst_calloc(1, sizeof *f);
    if (!f)
        return fst_fail_memory(err, sizeof *f);
    f->spec = *spec;
    if (!f->spec.window || f->spec.window > FST_BLOB_WINDOW_MAX)
        f->spec.window = f->spec.window ? FST_BLOB_WINDOW_MAX : FST_BLOB_WINDOW;
    f->came = f->progress = spec->now;
    fst_sha256_init(&f->sha);
    fst_status st = open_room(f, err);
    if (st)
        fst_blob_fetch_free(f);
    else
        *out = f;
    return st;
}

static void end(fst_blob_fetch *f, bool remove)
{
    if (!f)
        return;
    fst__room_close(&f->room, remove);
    fst_free(f->state);
    fst_free(f);
}

void fst_blob_fetch_free(fst_blob_fetch *f)
{
    end(f, false);
}

void fst_blob_fetch_drop(fst_blob_fetch *f)
{
    end(f, true);
}

/* ---- parts -------------------------------------------------------------------------------- */

static size_t length_of(const fst_blob_fetch *f, uint32_t index)
{
    uint64_t rest = f->spec.manifest.bytes - (uint64_t)index * FST_BLOB_PART;
    return rest < FST_BLOB_PART ? (size_t)rest : FST_BLOB_PART;
}

static void miss(fst_blob_fetch *f, uint32_t index)
{
    f->state[index] = MISSING;
    if (index < f->first_missing)
        f->first_missing = index;
}

static void end_flight(fst_blob_fetch *f, uint32_t i)
{
    f->flight[i] = f->flight[--f->flights];
}

static void all_missing(fst_blob_fetch *f)
{
    fst__room_forget(&f->room, f->spec.manifest.parts);
    memset(f->state, MISSING, f->spec.manifest.parts);
    f->flights = f->here = f->hashed = f->first_missing = 0;
    fst_sha256_init(&f->sha);
}

static void hash_on(fst_blob_fetch *f)
{
    char digest[FST_DIGEST_HEX];
    const fst_blob_manifest *m = &f->spec.manifest;
    for (int i = 0; i < HASHED_AT_ONCE && f->hashed < m->parts && f->state[f->hashed] == HERE; i++, f->hashed++) {
        const void *part = fst__room_get(&f->room, f->hashed, length_of(f, f->hashed));
        if (part)
            fst_sha256_update(&f->sha, part, length_of(f, f->hashed)); /* else the digest will be wrong */
    }
    if (f->hashed < m->parts || f->fetched)
        return;
    fst_sha256_final(&f->sha, digest);
    f->fetched = !strcmp(digest, m->digest);
    if (!f->fetched) {
        f->count.spoiled++;
        all_missing(f);
    }
}

static double wait_of(const fst_blob_fetch *f)
{
    return f->backoff > 0 ? f->backoff : fmax(least_wait, 4 * f->usual);
}

static void look_for_stall(fst_blob_fetch *f, double now)
{
    if (!f->flights || now - f->progress < wait_of(f))
        return;
    f->count.stalls++;
    f->backoff = fmin(2 * wait_of(f), most_wait);
    f->progress = now;
    f->count.again += f->flights;
    for (uint32_t i = 0; i < f->flights; i++)
        miss(f, f->flight[i].index);
    f->flights = 0;
}

/* ---- asking ------------------------------------------------------------------------------- */

bool fst_blob_fetch_ask(fst_blob_fetch *f, double now, uint32_t room, fst_blob_get *get)
{
    const fst_blob_manifest *m = &f->spec.manifest;
    hash_on(f);
    if (f->fetched)
        return false;
    look_for_stall(f, now);
    uint32_t window = f->backoff > 0 ? 1 : f->spec.window;
    f->asked_at = now;
    f->refused = false;
    while (f->first_missing < m->parts && f->state[f->first_missing] != MISSING)
        f->first_missing++;
    uint32_t from = f->first_missing, n = 0;
    uint32_t most = f->flights < window ? window - f->flights : 0;
    if (most > room)
        most = room;
    for (; n < most && from + n < m->parts && f->state[from + n] == MISSING; n++) {
        f->state[from + n] = ASKED;
        f->flight[f->flights++] = (struct flight){from + n, ++f->order, now};
    }
    if (!n)
        return false;
    memcpy(get->digest, m->digest, sizeof get->digest);
    get->from = from;
    get->count = n;
    if (f->flights == n) /* nothing was on its way: the silence begins now */
        f->progress = now;
    return true;
}

void fst_blob_fetch_unasked(fst_blob_fetch *f, const fst_blob_get *get)
{
    for (uint32_t i = f->flights; i-- > 0;)
        if (f->flight[i].index >= get->from && f->flight[i].index - get->from < get->count) {
            miss(f, f->flight[i].index);
            end_flight(f, i);
        }
    f->refused = true;
}

/* Parts that were asked for long before this one will not come. */
static void drop_overtaken(fst_blob_fetch *f, uint64_t order)
{
    for (uint32_t i = f->flights; i-- > 0;)
        if (f->flight[i].order + 2 * f->spec.window < order) {
            f->count.again++;
            miss(f, f->flight[i].index);
            end_flight(f, i);
        }
}

bool fst_blob_fetch_part(fst_blob_fetch *f, double now, const void *body, size_t len)
{
    const fst_blob_manifest *m = &f->spec.manifest;
    fst_blob_part p;
    if (!fst_blob_part_read(&p, body, len) || strcmp(p.digest, m->digest) || p.total != m->bytes) {
        f->count.foreign++;
        return false;
    }
    if (f->state[p.index] == HERE) {
        f->count.twice++;
        return false;
    }
    for (uint32_t i = 0; i < f->flights; i++)
        if (f->flight[i].index == p.index) {
            double took = now - f->flight[i].at;
            uint64_t order = f->flight[i].order;
            f->usual = f->usual > 0 ? 0.75 * f->usual + 0.25 * took : took;
            end_flight(f, i);
            drop_overtaken(f, order);
            break;
        }
    if (!fst__room_put(&f->room, p.index, p.data, p.len)) { /* asked for again, as if it had been lost */
        miss(f, p.index);
        return false;
    }
    f->state[p.index] = HERE;
    f->here++;
    f->count.taken++;
    f->backoff = 0;
    f->came = f->progress = now;
    return true;
}

double fst_blob_fetch_due(const fst_blob_fetch *f)
{
    const fst_blob_manifest *m = &f->spec.manifest;
    if (f->fetched)
        return INFINITY;
    if (f->refused)
        return f->asked_at + try_again;
    if (f->hashed < m->parts && f->state[f->hashed] == HERE)
        return 0;
    if (f->flights)
        return f->progress + wait_of(f);
    return 0;
}

fst_blob_fetch_state fst_blob_fetch_where(const fst_blob_fetch *f)
{
    return f->fetched ? FST_FETCH_FETCHED : FST_FETCH_GOING;
}

uint32_t fst_blob_fetch_in_flight(const fst_blob_fetch *f)
{
    return f->flights;
}

uint32_t fst_blob_fetch_here(const fst_blob_fetch *f)
{
    return f->here;
}

double fst_blob_fetch_idle(const fst_blob_fetch *f, double now)
{
    return now - f->came;
}

const fst_blob_manifest *fst_blob_fetch_manifest(const fst_blob_fetch *f)
{
    return &f->spec.manifest;
}

const fst_blob_fetch_counters *fst_blob_fetch_count(const fst_blob_fetch *f)
{
    return &f->count;
}

fst_status fst_blob_fetch_finish(fst_blob_fetch *f, const void **coded, fst_error *err)
{
    if (!f->fetched)
        return fst_fail(err, FST_E_ARGUMENT, "the blob is not here");
    return fst__room_view(&f->room, coded, err);
}
