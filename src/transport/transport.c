/* What all transports have in common: the calls, and topics. */
#include "fedstill/transport.h"

#include <string.h>

static bool levels_valid(const char *t, bool filter)
{
    size_t n = t ? strnlen(t, FST_TRANSPORT_TOPIC) : 0;
    if (n == 0 || n >= FST_TRANSPORT_TOPIC || t[0] == '$')
        return false;
    for (size_t i = 0; i < n; i++) {
        bool alone = (i == 0 || t[i - 1] == '/') && (i + 1 == n || t[i + 1] == '/');
        if (t[i] <= ' ' || t[i] > '~')
            return false;
        if ((t[i] == '+' || t[i] == '#') && (!filter || !alone || (t[i] == '#' && i + 1 != n)))
            return false;
    }
    return true;
}

bool fst_topic_valid(const char *topic)
{
    return levels_valid(topic, false);
}

bool fst_filter_valid(const char *filter)
{
    return levels_valid(filter, true);
}

bool fst_topic_matches(const char *filter, const char *topic)
{
    for (;;) {
        size_t a = strcspn(filter, "/"), b = strcspn(topic, "/");
        if (filter[0] == '#')
            return true;
        if (filter[0] != '+' && (a != b || memcmp(filter, topic, a) != 0))
            return false;
        filter += a;
        topic += b;
        if (!*filter && !*topic)
            return true;
        if (!*topic)
            return !strcmp(filter, "/#"); /* "a/#" matches "a" too */
        if (!*filter)
            return false;
        filter++;
        topic++;
    }
}

fst_status fst_transport_subscribe(fst_transport *t, const char *filter, fst_error *err)
{
    if (!fst_filter_valid(filter))
        return fst_fail(err, FST_E_ARGUMENT, "not a filter of topics");
    return t->ops->subscribe(t, filter, err);
}

fst_status fst_transport_unsubscribe(fst_transport *t, const char *filter, fst_error *err)
{
    if (!fst_filter_valid(filter))
        return fst_fail(err, FST_E_ARGUMENT, "not a filter of topics");
    return t->ops->unsubscribe(t, filter, err);
}

fst_status fst_transport_publish(fst_transport *t, const char *topic, const void *data, size_t len, fst_error *err)
{
    if (!fst_topic_valid(topic))
        return fst_fail(err, FST_E_ARGUMENT, "not a topic");
    if (len > FST_TRANSPORT_MESSAGE)
        return fst_fail(err, FST_E_LIMIT, "a message of %zu bytes; up to %d are carried", len,
                        (int)FST_TRANSPORT_MESSAGE);
    fst_status st = t->ops->publish(t, topic, data, len, err);
    t->count.busy += st == FST_E_BUSY;
    if (!st) {
        t->count.messages_out++;
        t->count.bytes_out += len;
    }
    return st;
}

fst_status fst_transport_poll(fst_transport *t, double deadline, fst_error *err)
{
    return t->ops->poll(t, deadline, err);
}

void fst_transport_wake(fst_transport *t)
{
    t->ops->wake(t);
}

size_t fst_transport_unsent(const fst_transport *t)
{
    return t->ops->unsent(t);
}

const fst_transport_counters *fst_transport_count(const fst_transport *t)
{
    return &t->count;
}

void fst_transport_close(fst_transport *t)
{
    if (t)
        t->ops->close(t);
}
