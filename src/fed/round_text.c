/* Reasons, phases and actions in words. Rounds and clients are counted from 1 in them. */
#include <stdio.h>

#include "fed_private.h"

const char *fst_fed_why_text(fst_fed_why why)
{
    static const char *const text[] = {
        [FST_WHY_NONE] = "",
        [FST_WHY_SELECTED] = "drawn for the round",
        [FST_WHY_REJOINED] = "joined again before it reported",
        [FST_WHY_EXTENDED] = "drawn to fill the cohort",
        [FST_WHY_DUPLICATE] = "has already reported in this round",
        [FST_WHY_STALE] = "of an earlier round",
        [FST_WHY_FUTURE] = "of a round that has not begun",
        [FST_WHY_LATE] = "arrived after the round closed",
        [FST_WHY_NOT_SELECTED] = "was not asked in this round",
        [FST_WHY_BAD_SAMPLES] = "number of samples outside 1 ... 2147483647",
        [FST_WHY_REFUSED_BEFORE] = "an earlier update was refused in this round",
        [FST_WHY_UNKNOWN_CLIENT] = "unknown client",
        [FST_WHY_ENDED] = "the run is over",
        [FST_WHY_ALL_REPORTED] = "everybody asked reported",
        [FST_WHY_ENOUGH] = "enough clients reported",
        [FST_WHY_ALL_ANSWERED] = "nobody is left to wait for",
        [FST_WHY_DEADLINE] = "deadline passed with a quorum",
        [FST_WHY_NO_QUORUM] = "fewer updates than the quorum",
        [FST_WHY_NO_CLIENTS] = "too few clients joined in time",
        [FST_WHY_JOINED] = "joined",
        [FST_WHY_OPENED] = "opened, clients asked",
        [FST_WHY_WAITING] = "waiting for more clients, here so far",
        [FST_WHY_LOST_PENDING] = "lost before it reported",
        [FST_WHY_LOST_COUNTED] = "lost after it reported; its update counts",
        [FST_WHY_LOST_IDLE] = "lost",
        [FST_WHY_REFUSED] = "yields no update in this round",
        [FST_WHY_EXTENSION] = "deadline extended, more clients asked",
        [FST_WHY_IGNORED] = "an event that means nothing now was ignored",
    };
    return (unsigned)why < FST_WHY_COUNT ? text[why] : "unknown reason";
}

const char *fst_round_phase_name(fst_round_phase phase)
{
    static const char *const name[] = {"announce", "collect", "aggregate", "publish", "finished", "failed"};
    return (size_t)phase < sizeof name / sizeof *name ? name[phase] : "unknown";
}

static bool about_client(const fst_fed_action *a)
{
    switch (a->kind) {
    case FST_ACTION_ANNOUNCE:
    case FST_ACTION_FOLD:
    case FST_ACTION_DISCARD:
        return true;
    case FST_ACTION_LOG:
        return a->why == FST_WHY_JOINED || a->why == FST_WHY_LOST_PENDING || a->why == FST_WHY_LOST_COUNTED ||
               a->why == FST_WHY_LOST_IDLE || a->why == FST_WHY_REFUSED;
    default:
        return false;
    }
}

const char *fst_fed_action_text(const fst_fed_action *a, char *out, size_t size)
{
    static const char *const verb[] = {"announced",       "folded in", "discarded", "closed", "to aggregate",
                                       "to be published", "timer",     "finished",  "failed", ""};
    char who[32] = "", tail[48] = "";
    const char *did = (size_t)a->kind < sizeof verb / sizeof *verb ? verb[a->kind] : "unknown action";
    const char *why = fst_fed_why_text(a->why);
    if (about_client(a))
        snprintf(who, sizeof who, "client %llu: ", (unsigned long long)a->client + 1);
    if (a->kind == FST_ACTION_SET_TIMER)
        snprintf(tail, sizeof tail, " at %.3f s", a->at);
    else if (a->kind == FST_ACTION_CLOSE || a->kind == FST_ACTION_FAILED)
        snprintf(tail, sizeof tail, " (%llu updates)", (unsigned long long)a->count);
    else if (a->why == FST_WHY_OPENED || a->why == FST_WHY_WAITING || a->why == FST_WHY_EXTENSION)
        snprintf(tail, sizeof tail, ": %llu", (unsigned long long)a->count);
    snprintf(out, size, "round %llu: %s%s%s%s%s", (unsigned long long)a->round + 1, who, did, *did && *why ? ": " : "",
             why, tail);
    return out;
}
