/*
 * Many sites in one process, for measuring a cloud: they join, fetch, send the model back as it came, and say goodbye.
 * Nothing is trained. A tool of bench/fleet, not a test.
 *
 *   fleet_load [--together] TASK URL OUTPUT-OF-THE-SITES [KEYS]
 *
 * KEYS: folder of the sites' keys, KEYS/ID, for TLS. --together: updates are offered when all are ready. Prints "all
 * joined after X s", and for each round how long it took from the first order to the last receipt; with --together also
 * how many bytes of updates went up in which part of that.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/fed.h"
#include "fedstill/fleet.h"
#include "fedstill/fleet_run.h"
#include "no_store.h"

enum { MOST = 2000 };

struct one {
    char id[FST_SITE_ID];
    fst_task_identity identity;
    fst_identity keys;
    fst_transport *transport;
    struct site *site;
    struct site_job job;
    bool up, ordered;
};

static struct one *sites;
static uint32_t count;
static bool together;
static uint64_t update_bytes; /* of this round, all together */
static double offered_at;     /* when all updates were ready */

static void check(fst_status st, const fst_error *err)
{
    if (!st)
        return;
    fprintf(stderr, "fleet_load: %s\n", err->message);
    exit(1);
}

/* ---- a site ---- */

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    fst_error err = {0};
    check(fst__site_message(((struct one *)ctx)->site, fst_clock_seconds(), topic, data, len, &err), &err);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct one *s = ctx;
    (void)why;
    s->up = up;
    fst__site_link(s->site, fst_clock_seconds(), up);
}

static void start(struct one *s, const char *url, const char *keys, char *settings)
{
    fst_error err = {0};
    const fst_transport_events on = {.ctx = s, .message = on_message, .link = on_link};
    fst_mqtt_options o = {.url = url, .id = s->id};
    if (keys) {
        char *folder = fst_path_join(keys, s->id);
        check(fst_identity_load(&s->keys, folder, s->id, &err), &err);
        fst_free(folder);
        o.id = s->keys.name, o.ca = s->keys.ca, o.cert = s->keys.certificate, o.key = s->keys.key;
    }
    check(fst_mqtt_open(&s->transport, &o, &on, &err), &err);
    struct site_spec spec = {.id = s->id,
                             .hello = {.role = "edge",
                                       .program = "load",
                                       .client = s->identity.client,
                                       .learn = s->identity.learn,
                                       .settings = settings},
                             .transport = s->transport,
                             .store = no_store,
                             .keeps = keeps_nothing,
                             .most = FST_BLOB_MAX,
                             .now = fst_clock_seconds()};
    memcpy(spec.hello.task, s->identity.task, sizeof spec.hello.task);
    memcpy(spec.hello.data, s->identity.data, sizeof spec.hello.data);
    snprintf(spec.instance, sizeof spec.instance, "%016lx", (unsigned long)s->identity.client);
    check(fst__site_new(&s->site, &spec, &err), &err);
}

static void play(struct one *s)
{
    fst_error err = {0};
    fst_message m;
    fst_buf packed = {0};
    s->ordered = false;
    check(fst_message_parse(&m, s->job.down, s->job.down_len, &err), &err);
    m.client = s->identity.client;
    m.samples = (int64_t)s->identity.learn;
    m.loss = m.accuracy = 0;
    check(fst_message_pack(&m, &packed, &err), &err);
    update_bytes += packed.len;
    check(fst__site_trained(s->site, fst_clock_seconds(), packed.data, packed.len, NULL, 0, 0, NULL, &err), &err);
    fst_buf_release(&packed);
}

static bool turn(struct one *s)
{
    fst_error err = {0};
    const char *why;
    if (!s->site)
        return false;
    check(fst_transport_poll(s->transport, 0, &err), &err);
    check(fst__site_tick(s->site, fst_clock_seconds(), &err), &err);
    s->ordered = fst__site_job(s->site, &s->job) || s->ordered;
    if (s->ordered && !together)
        play(s);
    if (!fst__site_ended(s->site, &why))
        return true;
    if (*why)
        fprintf(stderr, "%s: %s\n", s->id, why);
    for (double end = fst_clock_seconds() + 1; fst_transport_unsent(s->transport) && fst_clock_seconds() < end;)
        check(fst_transport_poll(s->transport, end, &err), &err);
    fst__site_free(s->site);
    fst_transport_close(s->transport);
    s->site = NULL;
    return false;
}

/* ---- all of them ---- */

static void identify(const char *task, const char *output)
{
    fst_error err = {0};
    fst_task *t;
    const char *noun;
    const fst_task_options o = {.threads = 1};
    check(fst_task_load(&t, task, NULL, 0, &err), &err);
    check(fst_task_set_output(t, output, &err), &err);
    check(fst_task_clients(t, &count, &noun, &err), &err);
    sites = calloc(count, sizeof *sites);
    for (uint32_t k = 0; sites && k < count && count <= MOST; k++) {
        fst_task_site *s;
        check(fst_task_site_open(&s, t, &o, k, &err), &err);
        sites[k].identity = *fst_task_site_identity(s);
        fst_task_site_close(s);
        snprintf(sites[k].id, sizeof sites[k].id, "%.16s-%lu", noun, (unsigned long)k + 1);
    }
    fst_task_free(t);
}

static char *settings_of(const char *task)
{
    fst_error err = {0};
    fst_task *t;
    fst_buf lines = {0};
    check(fst_task_load(&t, task, NULL, 0, &err), &err);
    check(fst_task_site_settings(t, &lines, &err), &err);
    check(fst_buf_append(&lines, "", 1, &err), &err);
    fst_task_free(t);
    return lines.data;
}

/* Whatever packing takes is over when the first part is asked for. */
static void play_together(void)
{
    uint32_t ready = 0;
    for (uint32_t k = 0; k < count; k++)
        ready += sites[k].site && sites[k].ordered;
    if (!together || ready < count)
        return;
    update_bytes = 0;
    for (uint32_t k = 0; k < count; k++)
        play(&sites[k]);
    offered_at = fst_clock_seconds();
}

/* How many have joined, and how many have a round's update folded. */
static void look(uint32_t *joined, uint32_t *kept, uint64_t *round)
{
    *joined = *kept = 0;
    for (uint32_t k = 0; k < count; k++) {
        char stage[FST__STAGE_NAME];
        uint64_t r;
        if (!sites[k].site)
            continue;
        fst__site_state st = fst__site_state_of(sites[k].site, stage, &r);
        *joined += st != SITE_JOIN;
        *kept += st == SITE_KEEP;
        *round = r > *round ? r : *round;
    }
}

int main(int argc, char **argv)
{
    together = argc > 1 && !strcmp(argv[1], "--together");
    argc -= together, argv += together;
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: fleet_load [--together] TASK URL OUTPUT [KEYS]\n");
        return 2;
    }
    identify(argv[1], argv[3]);
    char *settings = settings_of(argv[1]);
    double began = fst_clock_seconds(), round_began = 0;
    bool told = false, any = true;
    uint64_t round = 0, over = UINT64_MAX;
    for (uint32_t k = 0; k < count; k++)
        start(&sites[k], argv[2], argv[4], settings);
    while (any) {
        uint32_t joined, kept;
        any = false;
        for (uint32_t k = 0; k < count; k++)
            any = turn(&sites[k]) || any;
        play_together();
        look(&joined, &kept, &round);
        if (!told && joined == count) {
            told = true;
            round_began = fst_clock_seconds();
            printf("all %lu joined after %.2f s\n", (unsigned long)count, round_began - began);
        }
        if (kept == count && round != over) {
            double now = fst_clock_seconds();
            printf("round %llu: %.2f s\n", (unsigned long long)round + 1, now - round_began);
            if (together)
                printf("updates: %.1f MB in %.3f s\n", (double)update_bytes / 1e6, now - offered_at);
            fflush(stdout);
            round_began = fst_clock_seconds();
            over = round;
        }
    }
    return 0;
}
