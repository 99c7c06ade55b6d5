/*
 * A client of an MQTT broker, over libmosquitto: the only file that names it.
 *
 * Data flow: poll -> one turn of libmosquitto's loop (connect, read, write, keepalive) -> its callbacks, which note
 * what happened -> once it has returned, our handlers. libmosquitto holds a lock during callbacks, and takes it in
 * publish; handlers take locks of their own and publish with them held: called from callbacks, both orders would occur.
 * Everything happens on the thread that polls; names are resolved on one of their own, since that may block.
 *
 * libmosquitto queues without bound while a link is silent, so bytes are counted from publish to its on_publish, which
 * for QoS 0 comes in the order of publishing. A port that refuses gives no error but a loop that spins: while the link
 * is not up, POLLERR and POLLHUP mean wait and try again. It also believes any name a certificate has, so the context
 * is ours.
 */
#include <errno.h>
#include <math.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fedstill/transport.h"

enum {
    ID = 64,
    HOST = 256,
    ADDRESS = 64,
    WHY = 320,
    KEEPALIVE = 5,
    QUEUE = 8192,
    A_POLL = 64,
    SILENT = 100 /* milliseconds */
};
static const double up_within = 5, first_wait = 0.1, most_wait = 2, refused_wait = 30;

/* A lookup that goes on by itself; whoever of both is last frees it. */
struct lookup {
    atomic_int users;
    atomic_bool done;
    int wake;
    char host[HOST], address[ADDRESS], why[WHY];
};

struct mqtt {
    fst_transport base;
    struct mosquitto *m;
    SSL_CTX *tls;
    char host[HOST], id[ID], address[ADDRESS], why[WHY];
    int port, wake;
    unsigned keepalive;
    char (*filter)[FST_TRANSPORT_TOPIC];
    size_t filters;
    struct lookup *lookup;
    enum { RESTING, LOOKING_UP, CONNECTING, UP } state;
    bool pending; /* TLS has more to read than was read, and the socket will not say so */
    bool started, up, refused, wants_room, called, woken; /* started: libmosquitto knows the address */
    double retry_at, wait, deadline;                      /* of RESTING; the next rest; of CONNECTING */
    size_t length[QUEUE];                                 /* of what was published and is not on its way: a ring */
    size_t head, queued, unsent;
    fst_buf heard, spare; /* for handlers: what happened and they were not told yet; the memory of the one before */
    fst_rng rng;
};

/* What happened, with its text behind it: the topic or the reason with its NUL, then the message's bytes. */
struct happened {
    enum { LINK_UP, LINK_DOWN, ROOM, MESSAGE } what;
    size_t text, len;
};

static pthread_once_t library = PTHREAD_ONCE_INIT;

static void start_library(void)
{
    mosquitto_lib_init();
}

/* ---- callbacks ---- */

/* False: there is no memory for it. */
static bool note(struct mqtt *t, struct happened h, const char *text, const void *data)
{
    size_t before = t->heard.len;
    if (!fst_buf_append(&t->heard, &h, sizeof h, NULL) && (!h.text || !fst_buf_append(&t->heard, text, h.text, NULL)) &&
        (!h.len || !fst_buf_append(&t->heard, data, h.len, NULL)))
        return true;
    t->heard.len = before;
    return false;
}

static void tell_link(struct mqtt *t, bool up, const char *why)
{
    (void)note(t, (struct happened){.what = up ? LINK_UP : LINK_DOWN, .text = strlen(why) + 1}, why, NULL);
}

static void tell_room(struct mqtt *t)
{
    t->wants_room = !note(t, (struct happened){.what = ROOM}, NULL, NULL);
}

static void call_handler(struct mqtt *t, const struct happened *h, const char *text)
{
    const fst_transport_events *on = &t->base.on;
    if (h->what == MESSAGE && on->message)
        on->message(on->ctx, text, text + h->text, h->len);
    else if (h->what == ROOM && on->room)
        on->room(on->ctx);
    else if ((h->what == LINK_UP || h->what == LINK_DOWN) && on->link)
        on->link(on->ctx, h->what == LINK_UP, text);
}

/* Calls the handlers. What they make happen is for the next time. */
static void deliver(struct mqtt *t)
{
    fst_buf now = t->heard;
    struct happened h;
    if (!now.len)
        return;
    t->called = true;
    t->heard = t->spare;
    t->spare = (fst_buf){0};
    for (size_t at = 0; at < now.len; at += h.text + h.len) {
        memcpy(&h, now.data + at, sizeof h);
        at += sizeof h;
        call_handler(t, &h, now.data + at);
    }
    now.len = 0;
    t->spare = t->heard.len ? now : t->heard; /* the larger one is used again, and the other stays small */
    t->heard = t->heard.len ? t->heard : now;
}

/* The link was silent for a while: large messages are not soon to come. */
static void give_back(struct mqtt *t)
{
    if (!t->heard.len && t->heard.cap > FST_TRANSPORT_SMALL)
        fst_buf_release(&t->heard);
}

/* Why an attempt came to nothing. In TLS 1.3 a broker that refuses a certificate ends the connection after we think
 * that it is up, and which call sees that first differs from time to time: one text for all. */
static void note_attempt(struct mqtt *t, int error)
{
    unsigned long e = ERR_peek_last_error();
    const char *tls = e && ERR_GET_REASON(e) != SSL_R_UNEXPECTED_EOF_WHILE_READING ? ERR_reason_error_string(e) : NULL;
    if (tls)
        snprintf(t->why, sizeof t->why, "%s", tls);
    else if (error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == ETIMEDOUT)
        snprintf(t->why, sizeof t->why, "%s", strerror(error));
    else
        snprintf(t->why, sizeof t->why, "nobody answers there, or the broker ended the connection at once%s",
                 t->tls ? ", as it does when a certificate was revoked or has expired" : "");
    ERR_clear_error();
}

/* What OpenSSL has to say, or else libmosquitto. */
static void note_why(struct mqtt *t, int rc)
{
    unsigned long e = ERR_peek_last_error();
    const char *tls = e ? ERR_reason_error_string(e) : NULL;
    snprintf(t->why, sizeof t->why, "%s%s%s", rc > 0 && rc < 128 ? mosquitto_strerror(rc) : mosquitto_reason_string(rc),
             tls ? ": " : "", tls ? tls : "");
    ERR_clear_error();
}

static void on_connect(struct mosquitto *m, void *ctx, int rc, int flags, const mosquitto_property *p)
{
    struct mqtt *t = ctx;
    (void)flags;
    (void)p;
    if (rc) {
        snprintf(t->why, sizeof t->why, "the broker refused: %s", mosquitto_reason_string(rc));
        t->refused = true;
        return;
    }
    for (size_t i = 0; i < t->filters; i++)
        (void)mosquitto_subscribe_v5(m, NULL, t->filter[i], 0, 0, NULL);
    t->up = true;
    t->refused = false;
    t->wait = first_wait;
    t->base.count.links++;
    tell_link(t, true, "");
    if (t->wants_room)
        tell_room(t);
}

static void go_down(struct mqtt *t)
{
    bool was = t->up;
    t->up = false;
    t->head = t->queued = t->unsent = 0;
    if (was)
        tell_link(t, false, t->why);
}

static void on_disconnect(struct mosquitto *m, void *ctx, int rc, const mosquitto_property *p)
{
    struct mqtt *t = ctx;
    (void)m;
    (void)p;
    bool attempt = t->state == CONNECTING && !t->up;
    if (!t->refused && !attempt)
        note_why(t, rc);
    else if (!t->refused && rc != MOSQ_ERR_KEEPALIVE) /* silence: connect_now has said it */
        note_attempt(t, errno);
    go_down(t);
}

static void on_message(struct mosquitto *m, void *ctx, const struct mosquitto_message *g, const mosquitto_property *p)
{
    struct mqtt *t = ctx;
    (void)m;
    (void)p;
    if (g->retain) {
        t->base.count.refused_retained++;
    } else if ((size_t)g->payloadlen > FST_TRANSPORT_MESSAGE) {
        t->base.count.refused_long++;
    } else if (!fst_topic_valid(g->topic)) {
        t->base.count.refused_topic++;
    } else {
        const struct happened h = {MESSAGE, strlen(g->topic) + 1, (size_t)g->payloadlen};
        bool noted = note(t, h, g->topic, g->payload); /* without memory it is lost, as any message may be */
        t->base.count.messages_in += noted;
        t->base.count.bytes_in += noted ? h.len : 0;
    }
}

static void on_publish(struct mosquitto *m, void *ctx, int mid, int rc, const mosquitto_property *p)
{
    struct mqtt *t = ctx;
    (void)m;
    (void)mid;
    (void)rc;
    (void)p;
    if (!t->queued)
        return;
    t->unsent -= t->length[t->head];
    t->head = (t->head + 1) % QUEUE;
    t->queued--;
    if (t->wants_room && t->unsent < FST_TRANSPORT_UNSENT / 2)
        tell_room(t);
}

/* ---- names ---- */

static void drop_lookup(struct lookup *l)
{
    if (l && atomic_fetch_sub(&l->users, 1) == 1) {
        close(l->wake);
        fst_free(l);
    }
}

static void *look_up(void *ctx)
{
    struct lookup *l = ctx;
    struct addrinfo *found = NULL, hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int rc = getaddrinfo(l->host, NULL, &hints, &found);
    if (rc || getnameinfo(found->ai_addr, found->ai_addrlen, l->address, sizeof l->address, NULL, 0, NI_NUMERICHOST))
        snprintf(l->why, sizeof l->why, "%.180s cannot be resolved: %.60s", l->host,
                 rc ? gai_strerror(rc) : "no address");
    if (found)
        freeaddrinfo(found);
    atomic_store(&l->done, true);
    (void)!write(l->wake, &(uint64_t){1}, 8);
    drop_lookup(l);
    return NULL;
}

static bool is_address(const char *host)
{
    struct addrinfo *found = NULL, hints = {.ai_family = AF_UNSPEC, .ai_flags = AI_NUMERICHOST};
    bool yes = getaddrinfo(host, NULL, &hints, &found) == 0;
    if (found)
        freeaddrinfo(found);
    return yes;
}

static void begin_lookup(struct mqtt *t)
{
    pthread_t thread;
    struct lookup *l = fst_calloc(1, sizeof *l);
    if (!l)
        return;
    atomic_init(&l->users, 2);
    atomic_init(&l->done, false);
    l->wake = dup(t->wake);
    memcpy(l->host, t->host, sizeof l->host);
    if (l->wake < 0 || pthread_create(&thread, NULL, look_up, l)) {
        atomic_store(&l->users, 1);
        drop_lookup(l);
        return;
    }
    pthread_detach(thread);
    t->lookup = l;
}

/* ---- connecting ---- */

/* Not up: again later, sooner after a link that worked. */
static void rest(struct mqtt *t, bool told)
{
    double most = t->refused ? refused_wait : most_wait;
    t->state = RESTING;
    t->retry_at = fst_clock_seconds() + t->wait * (0.5 + 0.5 * fst_rng_uniform(&t->rng));
    t->wait = fmin(2 * t->wait, most);
    if (!told)
        tell_link(t, false, t->why);
}

static void connect_now(struct mqtt *t)
{
    ERR_clear_error();
    errno = 0;
    int rc = t->started ? mosquitto_reconnect_async(t->m)
                        : mosquitto_connect_async(t->m, t->address, t->port, (int)t->keepalive);
    t->started = true;
    t->state = CONNECTING;
    t->deadline = fst_clock_seconds() + up_within;
    snprintf(t->why, sizeof t->why, "no answer within %.0f s", up_within);
    if (!rc)
        return;
    if (rc == MOSQ_ERR_ERRNO && errno)
        snprintf(t->why, sizeof t->why, "%s", strerror(errno));
    else if (errno == ECONNREFUSED)
        note_attempt(t, errno);
    else
        note_why(t, rc);
    rest(t, false);
}

/* A name is looked up for each attempt: hosts move. */
static void begin_attempt(struct mqtt *t)
{
    if (is_address(t->host)) {
        connect_now(t);
        return;
    }
    t->state = LOOKING_UP;
    begin_lookup(t);
    if (!t->lookup) {
        snprintf(t->why, sizeof t->why, "no thread to look up %.180s", t->host);
        rest(t, false);
    }
}

static void take_lookup(struct mqtt *t)
{
    struct lookup *l = t->lookup;
    if (!atomic_load(&l->done))
        return;
    bool found = l->address[0] != 0;
    if (found) {
        t->started = t->started && !strcmp(t->address, l->address);
        memcpy(t->address, l->address, sizeof t->address);
        connect_now(t);
    } else {
        memcpy(t->why, l->why, sizeof t->why);
        rest(t, false);
    }
    drop_lookup(l);
    t->lookup = NULL;
}

/* ---- one turn ---- */

static int socket_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) ? errno : error;
}

static void read_all(struct mqtt *t)
{
    t->pending = false;
    int rc = MOSQ_ERR_SUCCESS;
    for (int i = 0; i < A_POLL && rc == MOSQ_ERR_SUCCESS && mosquitto_socket(t->m) >= 0; i++) {
        rc = mosquitto_loop_read(t->m, 1);
        deliver(t);
        SSL *ssl = mosquitto_socket(t->m) >= 0 ? mosquitto_ssl_get(t->m) : NULL;
        t->pending = ssl && SSL_pending(ssl) > 0;
        if (!t->pending)
            break;
    }
}

static void run_loop(struct mqtt *t, short events)
{
    if (events & (POLLIN | POLLHUP | POLLERR))
        read_all(t);
    if (mosquitto_socket(t->m) >= 0 && (events & POLLOUT || mosquitto_want_write(t->m)))
        (void)mosquitto_loop_write(t->m, 1);
    if (mosquitto_socket(t->m) >= 0)
        (void)mosquitto_loop_misc(t->m);
}

static void turn(struct mqtt *t, short events)
{
    double now = fst_clock_seconds();
    switch (t->state) {
    case RESTING:
        if (now >= t->retry_at)
            begin_attempt(t);
        break;
    case LOOKING_UP:
        take_lookup(t);
        break;
    case CONNECTING:
        /* a refused port is an error without anything to read, which libmosquitto does not see */
        if (events & POLLERR || (events & POLLHUP && !(events & POLLIN))) {
            note_attempt(t, socket_error(mosquitto_socket(t->m)));
            rest(t, false);
            break;
        }
        run_loop(t, events);
        if (t->up)
            t->state = UP;
        else if (mosquitto_socket(t->m) < 0 || t->refused || now > t->deadline)
            rest(t, false);
        break;
    case UP:
        run_loop(t, events);
        if (mosquitto_socket(t->m) < 0)
            go_down(t);
        if (!t->up)
            rest(t, true);
        break;
    }
}

/* How long a poll may sleep, in milliseconds. */
static int patience(const struct mqtt *t, double deadline)
{
    double now = fst_clock_seconds(), until = fmin(deadline, now + 0.5); /* keepalive is looked at twice a second */
    if (t->state == RESTING)
        until = fmin(until, t->retry_at);
    if (t->state == CONNECTING)
        until = fmin(until, t->deadline + 0.001);
    return t->pending || t->heard.len || until <= now ? 0 : (int)ceil((until - now) * 1000);
}

static fst_status poll_mqtt(fst_transport *base, double deadline, fst_error *err)
{
    struct mqtt *t = (struct mqtt *)base;
    t->called = t->woken = false;
    do {
        uint64_t n;
        int fd = t->state == CONNECTING || t->state == UP ? mosquitto_socket(t->m) : -1;
        struct pollfd p[2] = {{.fd = t->wake, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        if (fd >= 0 && mosquitto_want_write(t->m))
            p[1].events |= POLLOUT;
        int wait = patience(t, deadline), ready = poll(p, fd >= 0 ? 2 : 1, wait);
        if (ready < 0 && errno != EINTR)
            return fst_fail_errno(err, "poll");
        if (ready == 0 && wait >= SILENT)
            give_back(t);
        if (p[0].revents & POLLIN) {
            (void)!read(t->wake, &n, sizeof n);
            t->woken = true;
        }
        turn(t, fd < 0 ? 0 : t->pending ? (short)(p[1].revents | POLLIN) : p[1].revents);
        deliver(t);
    } while (!t->called && !t->woken && fst_clock_seconds() < deadline);
    return FST_OK;
}

/* ---- other calls ---- */

static fst_status subscribe(fst_transport *base, const char *filter, fst_error *err)
{
    struct mqtt *t = (struct mqtt *)base;
    for (size_t i = 0; i < t->filters; i++)
        if (!strcmp(t->filter[i], filter))
            return FST_OK;
    if (t->filters == FST_TRANSPORT_FILTERS)
        return fst_fail(err, FST_E_LIMIT, "more than %d subscriptions", (int)FST_TRANSPORT_FILTERS);
    void *p = fst_realloc(t->filter, t->filters * sizeof *t->filter, (t->filters + 1) * sizeof *t->filter);
    if (!p)
        return fst_fail_memory(err, sizeof *t->filter);
    t->filter = p;
    snprintf(t->filter[t->filters++], sizeof *t->filter, "%s", filter);
    if (t->up)
        (void)mosquitto_subscribe_v5(t->m, NULL, filter, 0, 0, NULL);
    return FST_OK;
}

static fst_status unsubscribe(fst_transport *base, const char *filter, fst_error *err)
{
    struct mqtt *t = (struct mqtt *)base;
    (void)err;
    for (size_t i = 0; i < t->filters; i++)
        if (!strcmp(t->filter[i], filter)) {
            memmove(t->filter[i], t->filter[--t->filters], sizeof *t->filter);
            if (t->up)
                (void)mosquitto_unsubscribe_v5(t->m, NULL, filter, NULL);
            break;
        }
    return FST_OK;
}

static fst_status publish(fst_transport *base, const char *topic, const void *data, size_t len, fst_error *err)
{
    struct mqtt *t = (struct mqtt *)base;
    size_t most = FST_TRANSPORT_UNSENT + (len <= FST_TRANSPORT_SMALL ? FST_TRANSPORT_RESERVE : 0);
    if (!t->up || t->unsent + len > most || t->queued == QUEUE) {
        t->wants_room = true;
        return fst_fail(err, FST_E_BUSY, t->up ? "too much is unsent" : "the link is down");
    }
    t->length[(t->head + t->queued++) % QUEUE] = len; /* on_publish may come before the call is over */
    t->unsent += len;
    int rc = mosquitto_publish_v5(t->m, NULL, topic, (int)len, data, 0, false, NULL);
    if (!rc)
        return FST_OK;
    if (t->queued) {
        t->queued--;
        t->unsent -= len;
    }
    t->wants_room = true;
    return fst_fail(err, rc == MOSQ_ERR_NOMEM ? FST_E_MEMORY : FST_E_BUSY, "%s", mosquitto_strerror(rc));
}

static void wake(fst_transport *base)
{
    (void)!write(((struct mqtt *)base)->wake, &(uint64_t){1}, 8);
}

static size_t unsent(const fst_transport *base)
{
    return ((const struct mqtt *)base)->unsent;
}

static void close_mqtt(fst_transport *base)
{
    struct mqtt *t = (struct mqtt *)base;
    t->base.on = (fst_transport_events){.ctx = NULL};
    if (t->m && t->up) {
        (void)mosquitto_disconnect_v5(t->m, 0, NULL);
        (void)mosquitto_loop_write(t->m, 1);
    }
    if (t->m)
        mosquitto_destroy(t->m);
    drop_lookup(t->lookup);
    SSL_CTX_free(t->tls);
    if (t->wake >= 0)
        close(t->wake);
    fst_free(t->filter);
    fst_buf_release(&t->heard);
    fst_buf_release(&t->spare);
    fst_free(t);
}

static const fst_transport_ops mqtt_ops = {.name = "mqtt",
                                           .subscribe = subscribe,
                                           .unsubscribe = unsubscribe,
                                           .publish = publish,
                                           .poll = poll_mqtt,
                                           .wake = wake,
                                           .unsent = unsent,
                                           .close = close_mqtt};

/* ---- opening ---- */

static fst_status read_url(struct mqtt *t, const char *url, bool *tls, fst_error *err)
{
    *tls = !strncmp(url, "mqtts://", 8);
    const char *host = *tls ? url + 8 : url + 7;
    if (!*tls && strncmp(url, "mqtt://", 7))
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is not mqtts://HOST[:PORT] (or mqtt:// for plain text)", url);
    bool bracket = *host == '[';
    size_t n = bracket ? strcspn(host + 1, "]") : strcspn(host, ":/");
    const char *rest = host + (bracket ? n + 2 : n);
    char *end = NULL;
    long port = *rest == ':' ? strtol(rest + 1, &end, 10) : *tls ? 8883 : 1883;
    if (end)
        rest = end;
    if (n == 0 || n >= sizeof t->host || port < 1 || port > 65535 || (*rest && strcmp(rest, "/")))
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is not mqtts://HOST[:PORT]", url);
    memcpy(t->host, host + bracket, n);
    t->port = (int)port;
    if (is_address(t->host) && n < sizeof t->address)
        memcpy(t->address, t->host, n + 1);
    return FST_OK;
}

static fst_status tls_failure(fst_error *err, const char *what, const char *path)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    fst_status st = fst_fail(err, FST_E_CONFIG, "%s %s: %s", what, path, why ? why : "it cannot be used");
    ERR_clear_error();
    return st;
}

/* TLS 1.3, our certificate, and only a broker that the authority has signed for the host of the URL. */
static fst_status make_tls(struct mqtt *t, const fst_mqtt_options *o, fst_error *err)
{
    t->tls = SSL_CTX_new(TLS_client_method());
    if (!t->tls)
        return fst_fail_memory(err, 4096);
    X509_VERIFY_PARAM *verify = SSL_CTX_get0_param(t->tls);
    SSL_CTX_set_min_proto_version(t->tls, TLS1_3_VERSION);
    SSL_CTX_set_verify(t->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(t->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    bool named = is_address(t->host) ? X509_VERIFY_PARAM_set1_ip_asc(verify, t->host)
                                     : X509_VERIFY_PARAM_set1_host(verify, t->host, 0);
    if (!named)
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is no name of a host", t->host);
    if (SSL_CTX_load_verify_locations(t->tls, o->ca, NULL) != 1)
        return tls_failure(err, "certificate authority", o->ca);
    if (SSL_CTX_use_certificate_chain_file(t->tls, o->cert) != 1)
        return tls_failure(err, "certificate", o->cert);
    if (SSL_CTX_use_PrivateKey_file(t->tls, o->key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(t->tls) != 1)
        return tls_failure(err, "key", o->key);
    return FST_OK;
}

static fst_status make_client(struct mqtt *t, const fst_mqtt_options *o, fst_error *err)
{
    pthread_once(&library, start_library);
    t->m = mosquitto_new(t->id, true, t);
    if (!t->m)
        return fst_fail_memory(err, 4096);
    mosquitto_int_option(t->m, MOSQ_OPT_PROTOCOL_VERSION, o->mqtt311 ? MQTT_PROTOCOL_V311 : MQTT_PROTOCOL_V5);
    mosquitto_int_option(t->m, MOSQ_OPT_TCP_NODELAY, 1);
    if (t->tls) {
        mosquitto_int_option(t->m, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0);
        mosquitto_void_option(t->m, MOSQ_OPT_SSL_CTX, t->tls);
        mosquitto_tls_insecure_set(t->m, true); /* names are checked by the context, which knows the URL's */
    }
    mosquitto_connect_v5_callback_set(t->m, on_connect);
    mosquitto_disconnect_v5_callback_set(t->m, on_disconnect);
    mosquitto_message_v5_callback_set(t->m, on_message);
    mosquitto_publish_v5_callback_set(t->m, on_publish);
    const fst_transport_will *w = &o->will;
    if (w->topic && mosquitto_will_set_v5(t->m, w->topic, (int)w->len, w->data, 0, false, NULL))
        return fst_fail(err, FST_E_ARGUMENT, "the will cannot be set");
    return FST_OK;
}

fst_status fst_mqtt_open(fst_transport **out, const fst_mqtt_options *o, const fst_transport_events *on, fst_error *err)
{
    bool tls;
    size_t n = o->id ? strlen(o->id) : 0;
    struct mqtt *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    t->base.ops = &mqtt_ops;
    t->keepalive = o->keepalive ? o->keepalive : KEEPALIVE;
    t->wait = first_wait;
    t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fst_rng_init(&t->rng, (uint64_t)fst_clock_unix_ms() ^ (uint64_t)getpid() << 32, "mqtt.wait", 0);
    if (on)
        t->base.on = *on;
    fst_status st = t->wake >= 0 ? FST_OK : fst_fail_errno(err, "eventfd");
    if (!st && (n == 0 || n >= sizeof t->id))
        st = fst_fail(err, FST_E_ARGUMENT, "an id has 1 to %d bytes", ID - 1);
    if (!st) {
        memcpy(t->id, o->id, n);
        st = read_url(t, o->url, &tls, err);
    }
    if (!st && tls && (!o->ca || !o->cert || !o->key))
        st = fst_fail(err, FST_E_CONFIG, "%s needs a certificate authority, a certificate and a key", o->url);
    if (!st && !tls && (o->ca || o->cert || o->key))
        st = fst_fail(err, FST_E_CONFIG, "%s is plain text, and there is a certificate: mqtts:// was meant?", o->url);
    if (!st && tls)
        st = make_tls(t, o, err);
    if (!st)
        st = make_client(t, o, err);
    if (st)
        close_mqtt(&t->base);
    else
        *out = &t->base;
    return st;
}
