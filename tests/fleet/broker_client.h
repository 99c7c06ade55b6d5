/* A site at a broker, for tests: libmosquitto in the foreground, with every wait bounded, and what it received. */
#ifndef FST_TESTS_FLEET_BROKER_CLIENT_H
#define FST_TESTS_FLEET_BROKER_CLIENT_H

#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/fleet.h"

enum { SITE_SECONDS = 20, SITE_MESSAGES = 64 };

struct site {
    struct mosquitto *m;
    bool up, down; /* down: the connection was lost or never made */
    char topics[SITE_MESSAGES][128];
    int n;
};

static inline void site_on_connect(struct mosquitto *m, void *ctx, int reason)
{
    struct site *s = ctx;
    (void)m;
    s->up = reason == 0;
    s->down = reason != 0;
}
static inline void site_on_disconnect(struct mosquitto *m, void *ctx, int reason)
{
    struct site *s = ctx;
    (void)m, (void)reason;
    s->up = false;
    s->down = true;
}
static inline void site_on_message(struct mosquitto *m, void *ctx, const struct mosquitto_message *msg)
{
    struct site *s = ctx;
    (void)m;
    if (s->n < SITE_MESSAGES)
        snprintf(s->topics[s->n++], sizeof s->topics[0], "%s", msg->topic);
}

static inline void site_turn(struct site *s)
{
    if (!s->down && mosquitto_loop(s->m, 20, 1) != MOSQ_ERR_SUCCESS)
        s->down = true;
}

static int site_protocol = MQTT_PROTOCOL_V5; /* of the next connection */

/* Connects; true when the broker said yes. certificate NULL: without one. will: a topic, or NULL. */
static inline bool site_connect(struct site *s, const char *ca, const char *certificate, const char *key,
                                const char *name, int port, const char *will)
{
    *s = (struct site){.m = mosquitto_new(name, true, NULL)};
    mosquitto_user_data_set(s->m, s);
    mosquitto_int_option(s->m, MOSQ_OPT_PROTOCOL_VERSION, site_protocol);
    mosquitto_connect_callback_set(s->m, site_on_connect);
    mosquitto_disconnect_callback_set(s->m, site_on_disconnect);
    mosquitto_message_callback_set(s->m, site_on_message);
    mosquitto_username_pw_set(s->m, name, NULL);
    if (will)
        mosquitto_will_set(s->m, will, 4, "dead", 0, false);
    if (mosquitto_tls_set(s->m, ca, NULL, certificate, key, NULL) || mosquitto_tls_opts_set(s->m, 1, "tlsv1.3", NULL))
        abort(); /* a mistake of the test: a file is missing */
    s->down = mosquitto_connect(s->m, "127.0.0.1", port, 10) != MOSQ_ERR_SUCCESS;
    for (double began = fst_clock_seconds(); !s->up && !s->down && fst_clock_seconds() < began + SITE_SECONDS;)
        site_turn(s);
    return s->up;
}

static inline bool site_join(struct site *s, const fst_identity *i, int port)
{
    return site_connect(s, i->ca, i->certificate, i->key, i->name, port, NULL);
}

static inline void site_close(struct site *s)
{
    if (s->m)
        mosquitto_destroy(s->m);
    s->m = NULL;
}

static inline bool site_has(const struct site *s, const char *topic)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->topics[i], topic))
            return true;
    return false;
}

/* Waits until `s` has a message of this topic, while the others live on. */
static inline bool site_await(struct site *s, const char *topic, struct site *other)
{
    for (double began = fst_clock_seconds(); !site_has(s, topic) && fst_clock_seconds() < began + SITE_SECONDS;) {
        site_turn(s);
        if (other)
            site_turn(other);
    }
    return site_has(s, topic);
}

/* Subscribes, and does not come back before the broker has answered (whatever it answered). */
static inline void site_on_subscribe(struct mosquitto *m, void *ctx, int id, int n, const int *granted)
{
    struct site *s = ctx;
    (void)m, (void)id, (void)n, (void)granted;
    snprintf(s->topics[SITE_MESSAGES - 1], sizeof s->topics[0], "answered");
}
static inline void site_subscribe(struct site *s, const char *pattern)
{
    s->topics[SITE_MESSAGES - 1][0] = 0;
    mosquitto_subscribe_callback_set(s->m, site_on_subscribe);
    mosquitto_subscribe(s->m, NULL, pattern, 0);
    for (double began = fst_clock_seconds();
         !s->down && !s->topics[SITE_MESSAGES - 1][0] && fst_clock_seconds() < began + SITE_SECONDS;)
        site_turn(s);
}

static inline void site_publish(struct site *s, const char *topic)
{
    mosquitto_publish(s->m, NULL, topic, 5, "hello", 0, false);
    site_turn(s);
}

#endif
