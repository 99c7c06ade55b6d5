/* Robust rules as strategies: what is published is not the mean of the clients' states but a rule of aggregate.h that
 * tolerates some faulty or malicious clients. All but norm clipping look at all updates of a round beside each other,
 * so the server holds them: memory is the largest number of updates of a round times the model. Samples do not count as
 * weights, as a client that lies may lie about them.
 *
 * Krum and Bulyan need a number of updates (2f+3 and 4f+3) that a round may miss when clients are lost: the coordinate
 * median is published then. Fewer clients in all are refused before any work. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

struct robust {
    fst_strategy base;
    fst_fed_state *held; /* `room` of them, the first `count` of this round */
    fst_fed_view *view;
    size_t count, room;
    fst_fed_state result;
};

static fst_status robust_init(fst_strategy *s, fst_error *err)
{
    return fst_fed_state_init(&((struct robust *)s)->result, s->env.global->size, err);
}

static void robust_release(fst_strategy *s)
{
    struct robust *r = (struct robust *)s;
    for (size_t i = 0; i < r->room; i++)
        fst_fed_state_release(&r->held[i]);
    fst_free(r->held);
    fst_free(r->view);
    fst_fed_state_release(&r->result);
}

static void robust_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    ((struct robust *)s)->count = 0;
}

/* Room for one update more; what is there once stays. */
static fst_status more_room(struct robust *r, fst_error *err)
{
    size_t n = r->room + 1;
    fst_fed_state *held = fst_realloc(r->held, r->room * sizeof *held, n * sizeof *held);
    if (held)
        r->held = held;
    fst_fed_view *view = held ? fst_realloc(r->view, r->room * sizeof *view, n * sizeof *view) : NULL;
    if (!view)
        return fst_fail_memory(err, n * sizeof *held);
    r->view = view;
    fst_status st = fst_fed_state_init(&held[r->room], r->base.env.global->size, err);
    r->room += !st;
    return st;
}

static fst_status robust_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct robust *r = (struct robust *)s;
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (st)
        return st;
    st = fst_accumulator_check(v.params, v.size.params, err);
    if (st)
        return fst_fail_in(err, st, "parameters");
    st = fst_accumulator_check(v.buffers, v.size.buffers, err);
    if (st)
        return fst_fail_in(err, st, "buffers");
    if (r->count == r->room && (st = more_room(r, err)))
        return st;
    fst_fed_state_copy(&r->held[r->count], &v);
    r->view[r->count] = fst_fed_state_view(&r->held[r->count]);
    r->count++;
    return FST_OK;
}

/* r->result becomes the next model. */
static fst_status publish(struct robust *r, fst_status st, fst_aggregate_stats *stats)
{
    fst_fed_state *global = r->base.env.global;
    double lane[FST__LANES] = {0};
    if (st)
        return st;
    fst__add_squares(lane, r->result.params, global->params, global->size.params);
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    fst_fed_view v = fst_fed_state_view(&r->result);
    fst_fed_state_copy(global, &v);
    return FST_OK;
}

/* ---- the rules ---- */

#define FAULTY                                                                                           \
    {                                                                                                    \
        "faulty", FST_OPTION_WHOLE, .fallback = 1, .max = 1e6, .help = "clients of a round that may lie" \
    }
static const fst_option trim_options[] = {{"trim", FST_OPTION_NUMBER, .fallback = 0.1, .max = 0.499,
                                           .help = "share of the updates left out at either end of each coordinate"},
                                          {0}};
static const fst_option krum_options[] = {FAULTY, {0}};
static const fst_option multi_options[] = {
    FAULTY,
    {"chosen", FST_OPTION_WHOLE, .max = 1e6, .help = "updates that the mean is of; 0: all but the faulty ones"},
    {0}};
static const fst_option geometric_options[] = {
    {"median_iterations", FST_OPTION_WHOLE, .fallback = 32, .min = 1, .max = 1e4, .help = "of Weiszfeld's algorithm"},
    {"median_eps", FST_OPTION_NUMBER, .fallback = 1e-6, .above = true, .max = 1, .help = "smallest distance"},
    {0}};

static size_t krum_fewest(const double *option)
{
    return 2 * (size_t)option[0] + 3;
}

static size_t bulyan_fewest(const double *option)
{
    return 4 * (size_t)option[0] + 3;
}

/* The choice and the faulty ones: chosen is otherwise another number than it says. */
static size_t multi_fewest(const double *option)
{
    size_t krum = krum_fewest(option), chosen = (size_t)option[1] + (size_t)option[0];
    return option[1] > 0 && chosen > krum ? chosen : krum;
}

/* As many as leave out one at either end: with fewer it is the mean, which one liar moves anywhere. */
static size_t trimmed_fewest(const double *option)
{
    size_t n = option[0] > 0 ? (size_t)(1 / option[0]) : 1;
    while (option[0] > 0 && option[0] * (double)n < 1)
        n++;
    return n;
}

/* Has this round lost so many clients that the rule cannot be used? */
static bool too_few(const fst_strategy *s, size_t (*fewest)(const double *option))
{
    const struct robust *r = (const struct robust *)s;
    size_t need = fewest(s->option);
    if (r->count >= need)
        return false;
    fst_log(FST_LOG_WARN, "round %llu: %zu updates are fewer than the %zu that %s needs: their median is published",
            (unsigned long long)s->round + 1, r->count, need, s->ops->name);
    return true;
}

#define RULE(rule) \
    static fst_status rule##_aggregate(fst_strategy *s, const fst_work *w, fst_aggregate_stats *stats, fst_error *err)

RULE(median)
{
    struct robust *r = (struct robust *)s;
    (void)w;
    return publish(r, fst_robust_median(r->view, r->count, &r->result, err), stats);
}

RULE(trimmed)
{
    struct robust *r = (struct robust *)s;
    (void)w;
    return publish(r, fst_robust_trimmed_mean(r->view, r->count, s->option[0], &r->result, err), stats);
}

RULE(krum)
{
    struct robust *r = (struct robust *)s;
    size_t f = (size_t)s->option[0];
    if (too_few(s, krum_fewest))
        return median_aggregate(s, w, stats, err);
    return publish(r, fst_robust_krum(r->view, r->count, f, 1, &r->result, NULL, NULL, err), stats);
}

RULE(multi_krum)
{
    struct robust *r = (struct robust *)s;
    size_t f = (size_t)s->option[0], m = (size_t)s->option[1];
    if (too_few(s, krum_fewest))
        return median_aggregate(s, w, stats, err);
    if (m == 0 || m > r->count - f)
        m = r->count - f;
    return publish(r, fst_robust_krum(r->view, r->count, f, m, &r->result, NULL, NULL, err), stats);
}

RULE(bulyan)
{
    struct robust *r = (struct robust *)s;
    size_t f = (size_t)s->option[0];
    if (too_few(s, bulyan_fewest))
        return median_aggregate(s, w, stats, err);
    return publish(r, fst_robust_bulyan(r->view, r->count, f, &r->result, err), stats);
}

RULE(geometric)
{
    struct robust *r = (struct robust *)s;
    int iterations = (int)s->option[0];
    (void)w;
    return publish(r, fst_robust_geometric_median(r->view, NULL, r->count, iterations, s->option[1], &r->result, err),
                   stats);
}

#define SERVER(least, rule)                                                                                    \
    {                                                                                                          \
        .bytes = sizeof(struct robust), .init = robust_init, .release = robust_release, .begin = robust_begin, \
        .fewest = least, .down = fst__averaging_down, .fold = robust_fold, .aggregate = rule                   \
    }
static const fst_server_ops median_server = SERVER(NULL, median_aggregate),
                            trimmed_server = SERVER(trimmed_fewest, trimmed_aggregate),
                            krum_server = SERVER(krum_fewest, krum_aggregate),
                            multi_server = SERVER(multi_fewest, multi_krum_aggregate),
                            bulyan_server = SERVER(bulyan_fewest, bulyan_aggregate),
                            geometric_server = SERVER(NULL, geometric_aggregate);

#define LEAKS "The server sees every client's weights, and must keep all of a round side by side."
#define ROBUST(its_name, text, table, its_server)                                               \
    {                                                                                           \
        .name = its_name, .summary = text, .leaks = LEAKS, .options = table,                    \
        .flags = FST_SAME_MODEL | FST_ALL_UPDATES | FST_SENDS_STATE, .codes = fst__codes_model, \
        .server = FST__HALF(its_server), .client = FST__HALF(&fst__averaging_client)            \
    }
const fst_strategy_ops fst__median = ROBUST("median", "median of each coordinate (robust)", NULL, &median_server);
const fst_strategy_ops fst__trimmed_mean =
    ROBUST("trimmed_mean", "mean of each coordinate without its extremes (robust)", trim_options, &trimmed_server);
const fst_strategy_ops fst__krum =
    ROBUST("krum", "the update nearest to its neighbours (robust)", krum_options, &krum_server);
const fst_strategy_ops fst__multi_krum =
    ROBUST("multi_krum", "mean of the updates nearest to their neighbours (robust)", multi_options, &multi_server);
const fst_strategy_ops fst__bulyan =
    ROBUST("bulyan", "Krum's choice, then a trimmed mean of each coordinate (robust)", krum_options, &bulyan_server);
const fst_strategy_ops fst__geometric_median =
    ROBUST("geometric_median", "point of the least sum of distances to all updates (robust)", geometric_options,
           &geometric_server);
