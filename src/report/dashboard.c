/*
 * The web server of fedstill/dashboard.h, over libmicrohttpd.
 *
 * Data flow: one thread of ours polls the server's epoll descriptor and, while anybody is connected, looks four times a
 * second whether the file of events has grown or the state has changed. A stream with nothing to say is suspended;
 * whatever may give it something resumes it, and its reader is called again. Each request has a connection of its own,
 * which is cut when its time is over. libmicrohttpd aborts the process when it is stopped while a connection is
 * suspended: so at the end all streams are resumed and told to finish first.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dashboard.h"

enum {
    CONNECTIONS = 64,
    OF_ONE_ADDRESS = 24,
    STREAMS = 32,
    HEAD = 16 * 1024, /* bytes of a request's head, and what a connection may buffer */
    OUT = 128 * 1024, /* bytes that a stream is ahead */
    TOKEN_LEAST = 16,
    TOKEN_MOST = 256,
    IDLE = 30 /* seconds in which a peer takes nothing */
};
static const double request_seconds = 20, look_every = 0.25, state_every = 1, ping_every = 15, denied_every = 30,
                    goodbye = 2;

/* A connection. */
struct peer {
    int fd;
    bool stream, cut;
    double since;
    struct peer *next;
};

struct stream {
    struct fst_dashboard *d;
    struct MHD_Connection *connection;
    struct fst__lines_at at;
    uint64_t state; /* the one that it has */
    fst_buf out;
    size_t sent;
    bool asleep;
    double said;
    struct stream *next;
};

struct fst_dashboard {
    fst_dashboard_options o;
    char url[96], token[FST_DIGEST_HEX]; /* the token's digest; "": none is needed */
    struct MHD_Daemon *mhd;
    int listener, wake, epoll;
    pthread_t thread;
    bool started, ending;
    atomic_bool end;
    struct fst__lines lines;
    struct fst__lines_at seen; /* by the caller's `event` */
    struct peer *peers;
    struct stream *streams;
    fst_buf state;
    uint64_t state_number;
    double looked, stated, denied_at;
    unsigned denied;
    char line[FST__EVENT_LINE];
};

/* ---- answers ---------------------------------------------------------------------------------- */

/* What the page may do, everywhere: run its own script and style, known by their digests, and ask this server. Made
 * once.
 */
static char policy[512];
static pthread_once_t policy_made = PTHREAD_ONCE_INIT;

/* 'sha256-...' of what stands between two marks of the page. */
static void digest_between(const char *from, const char *to, char out[64])
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    char text[sodium_base64_ENCODED_LEN(sizeof digest, sodium_base64_VARIANT_ORIGINAL)];
    const char *page = (const char *)fst__dashboard_page, *end = page + fst__dashboard_page_size;
    const char *begin = memmem(page, fst__dashboard_page_size, from, strlen(from));
    begin = begin ? begin + strlen(from) : end;
    const char *stop = memmem(begin, (size_t)(end - begin), to, strlen(to));
    crypto_hash_sha256(digest, (const unsigned char *)begin, stop ? (size_t)(stop - begin) : 0);
    sodium_bin2base64(text, sizeof text, digest, sizeof digest, sodium_base64_VARIANT_ORIGINAL);
    snprintf(out, 64, "'sha256-%.48s'", text);
}

static void make_policy(void)
{
    char style[64], script[64];
    digest_between("<style>", "</style>", style);
    digest_between("<script>", "</script>", script);
    snprintf(policy, sizeof policy,
             "default-src 'none'; style-src %s; script-src %s; connect-src 'self'; img-src data:; base-uri 'none'; "
             "form-action 'none'; frame-ancestors 'none'",
             style, script);
}

static enum MHD_Result give(struct MHD_Connection *c, unsigned code, struct MHD_Response *r, const char *type)
{
    static const char *const head[][2] = {
        {"Cache-Control", "no-store"},         {"Connection", "close"},
        {"X-Content-Type-Options", "nosniff"}, {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},    {"Cross-Origin-Resource-Policy", "same-origin"}};
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_add_response_header(r, "Content-Type", type);
    for (size_t i = 0; ok == MHD_YES && i < sizeof head / sizeof *head; i++)
        ok = MHD_add_response_header(r, head[i][0], head[i][1]);
    if (ok == MHD_YES)
        ok = MHD_add_response_header(r, "Content-Security-Policy", policy);
    if (ok == MHD_YES && code == MHD_HTTP_UNAUTHORIZED)
        ok = MHD_add_response_header(r, "WWW-Authenticate", "Bearer realm=\"fedstill\"");
    if (ok == MHD_YES && code == MHD_HTTP_METHOD_NOT_ALLOWED)
        ok = MHD_add_response_header(r, "Allow", "GET, HEAD");
    if (ok == MHD_YES)
        ok = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result give_bytes(struct MHD_Connection *c, unsigned code, const void *data, size_t len,
                                  const char *type)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)(len ? data : ""), MHD_RESPMEM_MUST_COPY);
    return give(c, code, r, type);
}

static enum MHD_Result give_text(struct MHD_Connection *c, unsigned code, const char *text)
{
    return give_bytes(c, code, text, strlen(text), "text/plain; charset=utf-8");
}

static bool one_event(void *ctx, uint64_t end, const char *line, size_t len)
{
    struct fst_dashboard *d = ctx;
    (void)end;
    d->o.event(d->o.ctx, line, len);
    return true;
}

/* The caller knows all events before it is asked. */
static void catch_up(struct fst_dashboard *d)
{
    (void)fst__lines_look(&d->lines);
    while (d->o.event && fst__lines_read(&d->lines, &d->seen, d->line, one_event, d))
        ;
}

static enum MHD_Result give_written(struct fst_dashboard *d, struct MHD_Connection *c,
                                    fst_status (*write)(void *, fst_buf *, fst_error *), const char *type)
{
    fst_buf text = {0};
    fst_error why = {0};
    catch_up(d);
    fst_status s = write(d->o.ctx, &text, &why);
    enum MHD_Result ok = s ? give_text(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "it cannot be said at the moment\n")
                           : give_bytes(c, MHD_HTTP_OK, text.data, text.len, type);
    fst_buf_release(&text);
    return ok;
}

/* ---- streams ---------------------------------------------------------------------------------- */

static bool add_line(void *ctx, uint64_t end, const char *line, size_t len)
{
    struct stream *s = ctx;
    return !fst__stream_event(&s->out, NULL, end, line, len) && s->out.len < OUT;
}

/* What there is to say now. */
static void fill(struct stream *s, double now)
{
    struct fst_dashboard *d = s->d;
    s->out.len = s->sent = 0;
    while (s->out.len < OUT / 2 && fst__lines_read(&d->lines, &s->at, d->line, add_line, s))
        ;
    if (s->state != d->state_number && d->state.len &&
        !fst__stream_event(&s->out, "state", 0, d->state.data, d->state.len))
        s->state = d->state_number;
    if (!s->out.len && !d->ending && now - s->said >= ping_every)
        (void)!fst_buf_append(&s->out, ": still here\n\n", 14, NULL);
    if (s->out.len)
        s->said = now;
}

static ssize_t read_stream(void *ctx, uint64_t pos, char *buf, size_t most)
{
    struct stream *s = ctx;
    (void)pos;
    if (s->sent == s->out.len)
        fill(s, fst_clock_seconds());
    size_t n = s->out.len - s->sent;
    if (!n && s->d->ending)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!n) {
        s->asleep = true;
        MHD_suspend_connection(s->connection);
        return 0;
    }
    n = n < most ? n : most;
    memcpy(buf, s->out.data + s->sent, n);
    s->sent += n;
    return (ssize_t)n;
}

static void end_stream(void *ctx)
{
    struct stream *s = ctx, **at = &s->d->streams;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    fst_buf_release(&s->out);
    fst_free(s);
}

static void look_at_state(struct fst_dashboard *d, double now)
{
    fst_buf text = {0};
    if (now - d->stated < state_every)
        return;
    d->stated = now;
    catch_up(d);
    if (!d->o.state(d->o.ctx, &text, NULL) &&
        (text.len != d->state.len || memcmp(text.data, d->state.data, text.len))) {
        fst_buf_release(&d->state);
        d->state = text;
        d->state_number++;
        return;
    }
    fst_buf_release(&text);
}

static size_t count_streams(const struct fst_dashboard *d)
{
    size_t n = 0;
    for (const struct stream *s = d->streams; s; s = s->next)
        n++;
    return n;
}

static enum MHD_Result give_stream(struct fst_dashboard *d, struct MHD_Connection *c, struct peer *peer, bool head)
{
    if (head)
        return give_bytes(c, MHD_HTTP_OK, "", 0, "text/event-stream");
    if (count_streams(d) >= STREAMS)
        return give_text(c, MHD_HTTP_SERVICE_UNAVAILABLE, "too many streams are open\n");
    struct stream *s = fst_calloc(1, sizeof *s);
    if (!s)
        return MHD_NO;
    look_at_state(d, fst_clock_seconds());
    (void)fst__lines_look(&d->lines);
    *s = (struct stream){.d = d, .connection = c, .said = fst_clock_seconds(), .next = d->streams};
    s->at = fst__lines_from(&d->lines, MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Last-Event-ID"));
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HEAD, read_stream, s, end_stream);
    if (!r) {
        fst_free(s);
        return MHD_NO;
    }
    d->streams = s;
    peer->stream = true;
    return give(c, MHD_HTTP_OK, r, "text/event-stream");
}

/* ---- who may ask -------------------------------------------------------------------------------- */

bool fst__is_loopback_host(const char *host)
{
    char name[64];
    size_t n = host && *host == '[' ? strcspn(host, "]") + 1 : host ? strcspn(host, ":") : 0;
    if (!host || n >= sizeof name ||
        (host[n] && (host[n] != ':' || strspn(host + n + 1, "0123456789") != strlen(host + n + 1))))
        return false;
    snprintf(name, sizeof name, "%.*s", (int)n, host);
    return !strcasecmp(name, "localhost") || !strcmp(name, "127.0.0.1") || !strcmp(name, "[::1]");
}

static void digest_of(const char *token, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, token, strlen(token));
    fst_sha256_final(&sha, out);
}

/* Digests are compared, so that nothing shows how much of a token is right. */
static bool has_token(const struct fst_dashboard *d, struct MHD_Connection *c)
{
    char digest[FST_DIGEST_HEX];
    const char *said = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    if (!said || strncasecmp(said, "Bearer ", 7))
        return false;
    digest_of(said + 7, digest);
    return !sodium_memcmp(digest, d->token, FST_DIGEST_HEX);
}

static void note_denied(struct fst_dashboard *d)
{
    double now = fst_clock_seconds();
    d->denied++;
    if (now < d->denied_at)
        return;
    fst_log(FST_LOG_WARN, "%s: %u requests with no token or a wrong one", d->url, d->denied);
    d->denied_at = now + denied_every;
    d->denied = 0;
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *upload, size_t *len, void **request)
{
    struct fst_dashboard *d = ctx;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct peer *peer = info ? info->socket_context : NULL;
    (void)version, (void)upload, (void)len, (void)request;
    bool head = !strcmp(method, "HEAD"), page = !strcmp(url, "/");
    if (!peer)
        return MHD_NO;
    if (!head && strcmp(method, "GET"))
        return give_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET: nothing is changed through this server\n");
    if (!*d->token && !fst__is_loopback_host(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host")))
        return give_text(c, MHD_HTTP_FORBIDDEN, "Host must be localhost, 127.0.0.1 or [::1]\n");
    if (*d->token && !page && !has_token(d, c)) {
        note_denied(d);
        return give_text(c, MHD_HTTP_UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN\n");
    }
    if (page)
        return give_bytes(c, MHD_HTTP_OK, fst__dashboard_page, fst__dashboard_page_size, "text/html; charset=utf-8");
    if (!strcmp(url, "/state"))
        return give_written(d, c, d->o.state, "application/json");
    if (!strcmp(url, "/metrics"))
        return give_written(d, c, d->o.metrics, "text/plain; version=0.0.4; charset=utf-8");
    if (!strcmp(url, "/events"))
        return give_stream(d, c, peer, head);
    return give_text(c, MHD_HTTP_NOT_FOUND, "there are /, /state, /events and /metrics\n");
}

/* ---- connections --------------------------------------------------------------------------------- */

static void on_connection(void *ctx, struct MHD_Connection *c, void **peer_of, enum MHD_ConnectionNotificationCode what)
{
    struct fst_dashboard *d = ctx;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct peer *p = fst_calloc(1, sizeof *p); /* NULL: its request is not answered */
        if (!p)
            return;
        *p = (struct peer){.fd = fd ? fd->connect_fd : -1, .since = fst_clock_seconds(), .next = d->peers};
        d->peers = p;
        *peer_of = p;
        return;
    }
    struct peer *p = *peer_of, **at = &d->peers;
    while (p && *at && *at != p)
        at = &(*at)->next;
    if (p && *at)
        *at = p->next;
    fst_free(p);
    *peer_of = NULL;
}

/* Slow ones too: each byte that they send would be a sign of life to libmicrohttpd. */
static void cut_late(struct fst_dashboard *d, double now)
{
    for (struct peer *p = d->peers; p; p = p->next)
        if (!p->stream && !p->cut && now - p->since > request_seconds && p->fd >= 0) {
            p->cut = true;
            shutdown(p->fd, SHUT_RDWR);
        }
}

/* ---- the thread ----------------------------------------------------------------------------------- */

static void wake_streams(struct fst_dashboard *d, double now, bool all)
{
    for (struct stream *s = d->streams; s; s = s->next)
        if (s->asleep && (all || s->state != d->state_number || now - s->said >= ping_every)) {
            s->asleep = false;
            MHD_resume_connection(s->connection);
        }
}

static void look(struct fst_dashboard *d)
{
    double now = fst_clock_seconds();
    if (now - d->looked < look_every)
        return;
    d->looked = now;
    cut_late(d, now);
    if (!d->streams)
        return;
    bool grown = fst__lines_look(&d->lines);
    look_at_state(d, now);
    for (const struct stream *s = d->streams; s && !grown; s = s->next)
        grown = s->at.at < d->lines.size || s->at.generation != d->lines.generation;
    wake_streams(d, now, grown);
}

static int patience(struct fst_dashboard *d)
{
    MHD_UNSIGNED_LONG_LONG ms;
    int most = d->peers ? (int)(look_every * 1000) : -1;
    if (MHD_get_timeout(d->mhd, &ms) == MHD_YES && (most < 0 || ms < (unsigned)most))
        return ms > 60000 ? 60000 : (int)ms;
    return most;
}

static void turn(struct fst_dashboard *d, int ms)
{
    uint64_t n;
    struct pollfd p[2] = {{.fd = d->wake, .events = POLLIN}, {.fd = d->epoll, .events = POLLIN}};
    (void)!poll(p, 2, ms);
    if (p[0].revents & POLLIN)
        (void)!read(d->wake, &n, sizeof n);
    (void)MHD_run(d->mhd);
}

static void *serve(void *ctx)
{
    struct fst_dashboard *d = ctx;
    while (!atomic_load(&d->end)) {
        turn(d, patience(d));
        look(d);
    }
    d->ending = true;
    d->stated = -INFINITY;
    look_at_state(d, fst_clock_seconds());
    (void)fst__lines_look(&d->lines); /* streams end with what was said last */
    for (double until = fst_clock_seconds() + goodbye; d->streams; turn(d, 20)) {
        wake_streams(d, 0, true);
        if (fst_clock_seconds() > until) /* somebody who takes nothing */
            for (struct peer *p = d->peers; p; p = p->next)
                shutdown(p->fd, SHUT_RDWR);
    }
    return NULL;
}

/* ---- beginning and end ------------------------------------------------------------------------------ */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static fst_status read_address(union address *a, bool *loopback, const char *text, fst_error *err)
{
    char host[64] = "127.0.0.1", *end = NULL;
    const char *colon = text ? strrchr(text, ':') : NULL, *port = colon ? colon + 1 : text;
    size_t n = colon ? (size_t)(colon - text) : 0;
    bool brackets = n > 2 && text[0] == '[' && text[n - 1] == ']';
    long number = port && *port >= '0' && *port <= '9' ? strtol(port, &end, 10) : -1;
    if (colon && n < sizeof host)
        snprintf(host, sizeof host, "%.*s", (int)n - 2 * brackets, text + brackets);
    if (!strcmp(host, "localhost"))
        snprintf(host, sizeof host, "127.0.0.1");
    *a = (union address){.any = {.sa_family = brackets ? AF_INET6 : AF_INET}};
    if (number < 0 || number > 65535 || *end || n >= sizeof host ||
        inet_pton(a->any.sa_family, host, brackets ? (void *)&a->v6.sin6_addr : (void *)&a->v4.sin_addr) != 1)
        return fst_fail(err, FST_E_CONFIG, "\"%.80s\" is no address for a web page: PORT, ADDRESS:PORT or [IPV6]:PORT",
                        text ? text : "");
    if (brackets)
        a->v6.sin6_port = htons((uint16_t)number);
    else
        a->v4.sin_port = htons((uint16_t)number);
    *loopback = brackets ? IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr) : ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
    return FST_OK;
}

static fst_status listen_at(struct fst_dashboard *d, const char *text, bool *loopback, fst_error *err)
{
    union address a;
    char host[64] = "";
    fst_status s = read_address(&a, loopback, text, err);
    if (s)
        return s;
    bool v6 = a.any.sa_family == AF_INET6;
    socklen_t len = v6 ? sizeof a.v6 : sizeof a.v4;
    d->listener = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (d->listener < 0 || setsockopt(d->listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) ||
        (v6 && setsockopt(d->listener, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int))) ||
        bind(d->listener, &a.any, len) || listen(d->listener, CONNECTIONS) || getsockname(d->listener, &a.any, &len))
        return fst_fail_errno(err, "no web page at %s", text);
    inet_ntop(a.any.sa_family, v6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr, host, sizeof host);
    snprintf(d->url, sizeof d->url, v6 ? "http://[%s]:%d/" : "http://%s:%d/", host,
             ntohs(v6 ? a.v6.sin6_port : a.v4.sin_port));
    return FST_OK;
}

static fst_status read_token(struct fst_dashboard *d, const char *path, fst_error *err)
{
    struct stat is;
    fst_buf text = {0};
    if (stat(path, &is))
        return fst_fail_errno(err, "%s", path);
    if (S_ISREG(is.st_mode) && is.st_mode & 077)
        return fst_fail(err, FST_E_CONFIG, "%s: others may read the token: chmod 600", path);
    fst_status s = fst_file_read(path, TOKEN_MOST + 2, &text, err);
    while (!s && text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == '\r'))
        text.data[--text.len] = 0;
    bool good = !s && text.len >= TOKEN_LEAST && text.len <= TOKEN_MOST;
    for (size_t i = 0; good && i < text.len; i++)
        good = text.data[i] > ' ' && text.data[i] <= '~';
    if (good)
        digest_of(text.data, d->token);
    else if (!s || s == FST_E_LIMIT)
        s = fst_fail(err, FST_E_CONFIG, "%s: a token is one line of %d to %d letters, digits and signs", path,
                     (int)TOKEN_LEAST, (int)TOKEN_MOST);
    if (text.data)
        sodium_memzero(text.data, text.len);
    fst_buf_release(&text);
    return s;
}

static void say(void *ctx, const char *format, va_list arguments)
{
    char text[256];
    (void)ctx;
    vsnprintf(text, sizeof text, format, arguments);
    text[strcspn(text, "\n")] = 0;
    fst_log(FST_LOG_DEBUG, "web page: %s", text);
}

static void panic(void *ctx, const char *file, unsigned line, const char *reason)
{
    (void)ctx;
    fst_log(FST_LOG_ERROR, "libmicrohttpd: %s:%u: %s", file, line, reason ? reason : "");
    abort(); /* it may not come back */
}

static fst_status start(struct fst_dashboard *d, fst_error *err)
{
    bool v6 = strchr(d->url, '[') != NULL;
    MHD_set_panic_func(panic, NULL);
    pthread_once(&policy_made, make_policy);
    d->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (v6 ? MHD_USE_IPv6 : 0), 0,
                              NULL, NULL, answer, d, MHD_OPTION_EXTERNAL_LOGGER, say, NULL, MHD_OPTION_LISTEN_SOCKET,
                              d->listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                              MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)OF_ONE_ADDRESS,
                              MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                              (size_t)HEAD * 2, MHD_OPTION_NOTIFY_CONNECTION, on_connection, d, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = d->mhd ? MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return fst_fail(err, FST_E_IO, "no web page at %s: libmicrohttpd does not start", d->url);
    d->listener = -1; /* it closes it */
    d->epoll = info->epoll_fd;
    if (fst_thread_start(&d->thread, serve, d))
        return fst_fail(err, FST_E_MEMORY, "no thread for a web page");
    d->started = true;
    return FST_OK;
}

fst_status fst_dashboard_open(fst_dashboard **out, const fst_dashboard_options *o, fst_error *err)
{
    bool loopback = false;
    fst_dashboard *d = fst_calloc(1, sizeof *d);
    if (!d)
        return fst_fail_memory(err, sizeof *d);
    d->o = *o;
    d->listener = -1;
    d->looked = d->stated = -INFINITY;
    atomic_init(&d->end, false);
    fst__lines_open(&d->lines, o->events ? fst_strdup(o->events) : NULL);
    d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fst_status s = d->wake < 0 ? fst_fail_errno(err, "eventfd") : sodium_init() < 0 ? fst_fail_memory(err, 1) : FST_OK;
    if (!s && o->token_file)
        s = read_token(d, o->token_file, err);
    if (!s)
        s = listen_at(d, o->address, &loopback, err);
    if (!s && !loopback && !*d->token)
        s = fst_fail(err, FST_E_CONFIG,
                     "a web page at %s would tell everybody about the run: it needs a token there; and since it has no "
                     "TLS of its own, better a reverse proxy in front of a page on 127.0.0.1",
                     o->address);
    if (!s && !loopback)
        fst_log(FST_LOG_WARN, "%s is not encrypted: the token can be read on the way unless a reverse proxy brings TLS",
                d->url);
    if (!s)
        s = start(d, err);
    if (s)
        fst_dashboard_close(d);
    else
        *out = d;
    return s;
}

const char *fst_dashboard_url(const fst_dashboard *d)
{
    return d->url;
}

void fst_dashboard_close(fst_dashboard *d)
{
    if (!d)
        return;
    atomic_store(&d->end, true);
    if (d->started) {
        (void)!write(d->wake, &(uint64_t){1}, 8);
        pthread_join(d->thread, NULL);
    }
    if (d->mhd)
        MHD_stop_daemon(d->mhd);
    if (d->listener >= 0)
        close(d->listener);
    if (d->wake >= 0)
        close(d->wake);
    while (d->peers) {
        struct peer *next = d->peers->next;
        fst_free(d->peers);
        d->peers = next;
    }
    fst__lines_close(&d->lines);
    fst_buf_release(&d->state);
    fst_free(d);
}
