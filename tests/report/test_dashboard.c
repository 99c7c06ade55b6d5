/* The web server of a run as its clients see it, over real sockets: who is answered and who is not, streams that go on
 * where they were, and text that Prometheus can read. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "dashboard.h"

enum { SECONDS = 20 };
static fst_error err;
static char folder[] = "/tmp/fedstill-dashboard-XXXXXX", events[64], token_file[64];
static int told; /* lines that the caller was given */
static const char *_Atomic state_text = "{\"round\":1}";
static const char token[] = "0123456789abcdef-a-token";

#define OK(call)                                                               \
    do {                                                                       \
        err.message[0] = 0;                                                    \
        if ((call) != FST_OK)                                                  \
            fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #call, err.message); \
    } while (0)

static fst_status write_state(void *ctx, fst_buf *out, fst_error *e)
{
    const char *text = state_text;
    (void)ctx;
    return fst_buf_append(out, text, strlen(text), e);
}

static fst_status write_metrics(void *ctx, fst_buf *out, fst_error *e)
{
    (void)ctx;
    fst_status s = fst_metric_head(out, "lines_total", "counter", "Lines.", e);
    if (!s)
        s = fst_metric(out, "lines_total", NULL, NULL, told, e);
    return s ? s : fst_metrics_process(out, e);
}

static void on_event(void *ctx, const char *line, size_t len)
{
    (void)ctx, (void)line, (void)len;
    told++;
}

static fst_dashboard *open_at(const char *address, const char *with_token)
{
    fst_dashboard *d = NULL;
    const fst_dashboard_options o = {.address = address,
                                     .token_file = with_token,
                                     .events = events,
                                     .state = write_state,
                                     .metrics = write_metrics,
                                     .event = on_event};
    told = 0;
    OK(fst_dashboard_open(&d, &o, &err));
    return d;
}

static int port_of(const fst_dashboard *d)
{
    return atoi(strrchr(fst_dashboard_url(d), ':') + 1);
}

static int connect_to(const fst_dashboard *d)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(d)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval most = {.tv_sec = SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL); /* who is refused in the middle of it hangs up */
}

/* Until the server ends the connection. */
static void hear_all(int fd, fst_buf *out)
{
    char piece[4096];
    for (ssize_t n; (n = recv(fd, piece, sizeof piece, 0)) > 0;)
        OK(fst_buf_append(out, piece, (size_t)n, &err));
    OK(fst_buf_append(out, "", 0, &err));
    close(fd);
}

/* The whole answer to a request with these lines of head after the first. */
static char *ask(const fst_dashboard *d, const char *first, const char *head)
{
    fst_buf request = {0}, answer = {0};
    int fd = connect_to(d);
    OK(fst_buf_printf(&request, &err, "%s HTTP/1.1\r\n%s\r\n", first, head));
    say(fd, request.data);
    hear_all(fd, &answer);
    fst_buf_release(&request);
    return answer.data;
}

static int code_of(const char *answer)
{
    int code = 0;
    return answer && sscanf(answer, "HTTP/1.1 %d", &code) == 1 ? code : 0;
}

static void assert_code(const fst_dashboard *d, const char *first, const char *head, int code)
{
    char *answer = ask(d, first, head);
    if (code_of(answer) != code)
        fail_msg("%s: %d, wanted %d", first, code_of(answer), code);
    fst_free(answer);
}

static void write_text(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void append(const char *text)
{
    int fd = open(events, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(events, sizeof events, "%s/events.jsonl", folder);
    snprintf(token_file, sizeof token_file, "%s/token", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(events);
    unlink(token_file);
    return rmdir(folder);
}

/* ---- a stream ---- */

struct reader {
    int fd;
    fst_buf text;
    size_t at; /* what was heard is before it */
};

static struct reader listen_to(const fst_dashboard *d, const char *head)
{
    struct reader r = {.fd = connect_to(d)};
    fst_buf request = {0};
    OK(fst_buf_printf(&request, &err, "GET /events HTTP/1.1\r\nHost: localhost\r\n%s\r\n", head));
    say(r.fd, request.data);
    fst_buf_release(&request);
    return r;
}

/* Waits until the stream has said it. */
static void await(struct reader *r, const char *what)
{
    char piece[4096];
    for (;;) {
        char *found = r->text.data ? strstr(r->text.data + r->at, what) : NULL;
        if (found) {
            r->at = (size_t)(found - r->text.data) + strlen(what);
            return;
        }
        ssize_t n = recv(r->fd, piece, sizeof piece, 0);
        if (n <= 0)
            fail_msg("the stream does not say \"%s\" but: %s", what, r->text.data ? r->text.data : "");
        OK(fst_buf_append(&r->text, piece, (size_t)n, &err));
    }
}

static void leave(struct reader *r)
{
    close(r->fd);
    fst_buf_release(&r->text);
}

/* ---- tests ---- */

static void the_page_asks_nobody_else(void **state)
{
    fst_dashboard *d = open_at("0", NULL);
    char *page = ask(d, "GET /", "Host: localhost\r\n");
    (void)state;
    assert_int_equal(code_of(page), 200);
    assert_non_null(strstr(page, "Content-Security-Policy: default-src 'none'; style-src 'sha256-"));
    assert_null(strstr(page, "unsafe-inline"));
    assert_non_null(strstr(page, "X-Content-Type-Options: nosniff"));
    assert_non_null(strstr(page, "</html>"));
    for (const char *p = strstr(page, "://"); p; p = strstr(p + 1, "://"))
        assert_int_equal(strncmp(p, "://www.w3.org/2000/svg'", 23), 0); /* a name, nothing that is fetched */
    assert_null(strstr(page, "innerHTML"));                             /* what sites say is text, never markup */
    fst_free(page);
    fst_dashboard_close(d);
}

static void only_what_there_is(void **state)
{
    fst_dashboard *d = open_at("127.0.0.1:0", NULL);
    char host[64], lengthy[40000];
    (void)state;
    snprintf(host, sizeof host, "Host: 127.0.0.1:%d\r\n", port_of(d));
    assert_code(d, "GET /", host, 200);
    assert_code(d, "HEAD /", host, 200);
    assert_code(d, "GET /state", host, 200);
    assert_code(d, "HEAD /events", host, 200);
    assert_code(d, "GET /../etc/passwd", host, 404);
    assert_code(d, "GET /state/", host, 404);
    assert_code(d, "DELETE /state", host, 405);
    char *answer = ask(d, "POST /state", "Host: localhost\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(code_of(answer), 405);
    fst_free(answer);
    memset(lengthy, 'a', sizeof lengthy);
    memcpy(lengthy, "X: ", 3);
    memcpy(lengthy + sizeof lengthy - 3, "\r\n", 3);
    answer = ask(d, "GET /", lengthy);
    assert_int_not_equal(code_of(answer), 200);
    fst_free(answer);
    answer = ask(d, "\x01\xff nonsense", "");
    assert_int_not_equal(code_of(answer), 200);
    fst_free(answer);
    assert_code(d, "GET /", host, 200); /* and it lives */
    fst_dashboard_close(d);
}

static void names_that_point_here_are_refused(void **state)
{
    static const char *const foreign[] = {"Host: evil.example\r\n",   "Host: evil.example:80\r\n",
                                          "Host: localhost.evil\r\n", "Host: 127.0.0.1.evil\r\n",
                                          "Host: [::1].evil\r\n",     "Host: localhost:80x\r\n"};
    static const char *const own[] = {"Host: localhost\r\n", "Host: LOCALHOST:1\r\n", "Host: [::1]:80\r\n"};
    fst_dashboard *d = open_at("0", NULL);
    (void)state;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        assert_code(d, "GET /state", foreign[i], 403);
        assert_code(d, "GET /", foreign[i], 403);
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_code(d, "GET /state", own[i], 200);
    fst_dashboard_close(d);
}

static void a_token_is_needed_elsewhere(void **state)
{
    fst_dashboard *d = NULL;
    const fst_dashboard_options bare = {.address = "0.0.0.0:0", .state = write_state, .metrics = write_metrics};
    fst_dashboard_options o = bare;
    char right[96], wrong[96];
    (void)state;
    assert_int_equal(fst_dashboard_open(&d, &bare, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "needs a token"));
    o.token_file = token_file;
    assert_int_equal(fst_dashboard_open(&d, &o, &err), FST_E_IO); /* it is not there */
    write_text(token_file, "short\n", 0600);
    assert_int_equal(fst_dashboard_open(&d, &o, &err), FST_E_CONFIG);
    write_text(token_file, "two lines\nof a token, long enough\n", 0600);
    assert_int_equal(fst_dashboard_open(&d, &o, &err), FST_E_CONFIG);
    write_text(token_file, token, 0644);
    assert_int_equal(fst_dashboard_open(&d, &o, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "chmod 600"));
    write_text(token_file, token, 0600);
    d = open_at("0.0.0.0:0", token_file);
    snprintf(right, sizeof right, "Host: cloud.example\r\nAuthorization: Bearer %s\r\n", token);
    snprintf(wrong, sizeof wrong, "Host: cloud.example\r\nAuthorization: Bearer %.22s\r\n", token);
    static const char *const data[] = {"GET /state", "GET /metrics", "HEAD /events"};
    for (size_t i = 0; i < 3; i++) {
        assert_code(d, data[i], "Host: localhost\r\n", 401);
        assert_code(d, data[i], wrong, 401);
        assert_code(d, data[i], right, 200);
    }
    assert_code(d, "GET /", "Host: cloud.example\r\n", 200); /* it holds nothing, and asks for the token */
    fst_dashboard_close(d);
}

static void wrong_addresses(void **state)
{
    static const char *const wrong[] = {"",           "http",   "70000", "-1",           "127.0.0.1",
                                        "127.0.0.1:", "::1:80", "[::1]", "a.example:80", "127.0.0.1:80x"};
    fst_dashboard *d = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const fst_dashboard_options o = {.address = wrong[i], .state = write_state, .metrics = write_metrics};
        assert_int_equal(fst_dashboard_open(&d, &o, &err), FST_E_CONFIG);
        assert_null(d);
    }
    d = open_at("0", NULL);
    char same[32];
    snprintf(same, sizeof same, "%d", port_of(d));
    fst_dashboard *second = NULL;
    const fst_dashboard_options o = {.address = same, .state = write_state, .metrics = write_metrics};
    assert_int_equal(fst_dashboard_open(&second, &o, &err), FST_E_IO);
    fst_dashboard_close(d);
}

static void streams_go_on_where_they_were(void **state)
{
    fst_dashboard *d = open_at("0", NULL);
    (void)state;
    unlink(events);
    struct reader early = listen_to(d, ""); /* before there is a file */
    await(&early, "event: state\ndata: {\"round\":1}\n\n");
    append("{\"n\": 1}\n{\"n\": 2}\n");
    await(&early, "id: 9\ndata: {\"n\": 1}\n\nid: 18\ndata: {\"n\": 2}\n\n");
    append("{\"n\": 3"); /* a line is said when it is whole */
    struct reader late = listen_to(d, "Last-Event-ID: 9\r\n");
    await(&late, "id: 18\ndata: {\"n\": 2}\n\n");
    assert_null(strstr(late.text.data, "{\"n\": 1}"));
    append("}\n");
    await(&late, "id: 27\ndata: {\"n\": 3}\n\n");
    await(&early, "id: 27\ndata: {\"n\": 3}\n\n");
    state_text = "{\"round\":2}";
    await(&early, "event: state\ndata: {\"round\":2}\n\n");
    state_text = "{\"round\":1}";
    /* an id that is none of ours begins anew */
    static const char *const odd[] = {"Last-Event-ID: 5\r\n", "Last-Event-ID: 99999999\r\n", "Last-Event-ID: -9\r\n",
                                      "Last-Event-ID: 9x\r\n", "Last-Event-ID: 99999999999999999999999\r\n"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct reader r = listen_to(d, odd[i]);
        await(&r, "id: 9\ndata: {\"n\": 1}\n\nid: 18\ndata: {\"n\": 2}\n\nid: 27\ndata: {\"n\": 3}\n\n");
        leave(&r);
    }
    /* a file that was cut is another one */
    write_text(events, "{\"n\": 4}\n", 0600);
    await(&early, "id: 9\ndata: {\"n\": 4}\n\n");
    leave(&early);
    leave(&late);
    fst_dashboard_close(d);
}

/* Stopping libmicrohttpd while a connection is suspended aborts the process: streams are ended first, with what was
 * said last. */
static void streams_end_well(void **state)
{
    fst_dashboard *d = open_at("0", NULL);
    struct reader r[3];
    char byte;
    (void)state;
    write_text(events, "{\"n\": 1}\n", 0600);
    for (int i = 0; i < 3; i++) {
        r[i] = listen_to(d, "");
        await(&r[i], "event: state\n");
    }
    append("{\"the\": \"last\"}\n");
    fst_dashboard_close(d);
    for (int i = 0; i < 3; i++) {
        await(&r[i], "data: {\"the\": \"last\"}\n\n");
        assert_int_equal(recv(r[i].fd, &byte, 1, 0), 0); /* an end, not a broken connection */
        leave(&r[i]);
    }
}

static void long_lines_are_left_out(void **state)
{
    fst_dashboard *d = open_at("0", NULL);
    char *lengthy = fst_alloc(3 * FST__EVENT_LINE);
    (void)state;
    memset(lengthy, 'x', 3 * FST__EVENT_LINE);
    memcpy(lengthy + 3 * FST__EVENT_LINE - 2, "\n", 2);
    write_text(events, "{\"n\": 1}\n", 0600);
    append(lengthy);
    append("{\"n\": 2}\r\n");
    struct reader r = listen_to(d, "");
    await(&r, "data: {\"n\": 1}\n\n");
    await(&r, "data: {\"n\": 2} \n\n");
    assert_null(strstr(r.text.data, "xxx"));
    leave(&r);
    char *metrics = ask(d, "GET /metrics", "Host: localhost\r\n");
    assert_non_null(strstr(metrics, "\nlines_total 2\n"));
    fst_free(metrics);
    fst_free(lengthy);
    fst_dashboard_close(d);
}

/* What is older than that is history: nobody waits for it. */
static void a_stream_begins_near_the_end(void **state)
{
    fst_dashboard *d = open_at("0", NULL);
    fst_buf text = {0};
    (void)state;
    for (int i = 0; text.len < FST__EVENTS_BACK + 1000; i++)
        OK(fst_buf_printf(&text, &err, "{\"number\": %d}\n", i));
    OK(fst_buf_append(&text, "{\"number\": -1}\n", 15, &err));
    write_text(events, text.data, 0600);
    struct reader r = listen_to(d, "");
    await(&r, "{\"number\": -1}");
    assert_null(strstr(r.text.data, "{\"number\": 0}"));
    const char *first = strstr(r.text.data, "data: ");
    assert_int_equal(strncmp(first, "data: {\"number\": ", 17), 0); /* a whole line */
    leave(&r);
    fst_buf_release(&text);
    fst_dashboard_close(d);
}

/* Many who say nothing do not keep others out for long: those of one address are limited, and leave room when they go.
 */
static void silent_ones_are_limited(void **state)
{
    enum { MANY = 40 };
    fst_dashboard *d = open_at("0", NULL);
    int fd[MANY], closed = 0;
    char byte;
    (void)state;
    for (int i = 0; i < MANY; i++)
        fd[i] = connect_to(d);
    for (int i = MANY - 1; i >= 30; i--) /* those above the limit are closed, not left to wait */
        closed += recv(fd[i], &byte, 1, 0) == 0;
    assert_int_equal(closed, 10);
    for (int i = 0; i < MANY; i++)
        close(fd[i]);
    bool again = false;
    for (double began = fst_clock_seconds(); !again && fst_clock_seconds() < began + SECONDS;) {
        char *answer = ask(d, "GET /state", "Host: localhost\r\n");
        again = code_of(answer) == 200;
        fst_free(answer);
    }
    assert_true(again);
    fst_dashboard_close(d);
}

static void numbers_as_prometheus_reads_them(void **state)
{
    fst_buf out = {0};
    (void)state;
    OK(fst_metric_head(&out, "a_total", "counter", "All of it.", &err));
    OK(fst_metric(&out, "a_total", NULL, NULL, 9007199254740991.0, &err));
    OK(fst_metric(&out, "a", "why", "say \"no\"\\\nnow", 0.1, &err));
    OK(fst_metric2(&out, "a", "x", "1", "y", "2", -1.0 / 0.0, &err));
    OK(fst_metric(&out, "a", NULL, NULL, 0.0 / 0.0, &err));
    assert_string_equal(out.data,
                        "# HELP a_total All of it.\n# TYPE a_total counter\na_total 9007199254740991\n"
                        "a{why=\"say \\\"no\\\"\\\\\\nnow\"} 0.10000000000000001\na{x=\"1\",y=\"2\"} -Inf\na NaN\n");
    out.len = 0;
    OK(fst_metrics_process(&out, &err));
    double cpu = -1, resident = 0, files = 0;
    assert_int_equal(sscanf(strstr(out.data, "\nprocess_cpu_seconds_total "), " process_cpu_seconds_total %lf", &cpu),
                     1);
    assert_int_equal(
        sscanf(strstr(out.data, "\nprocess_resident_memory_bytes "), " process_resident_memory_bytes %lf", &resident),
        1);
    assert_int_equal(sscanf(strstr(out.data, "\nprocess_open_fds "), " process_open_fds %lf", &files), 1);
    assert_true(cpu >= 0 && resident > 100000 && files >= 3);
    fst_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_asks_nobody_else),
        cmocka_unit_test(only_what_there_is),
        cmocka_unit_test(names_that_point_here_are_refused),
        cmocka_unit_test(a_token_is_needed_elsewhere),
        cmocka_unit_test(wrong_addresses),
        cmocka_unit_test(streams_go_on_where_they_were),
        cmocka_unit_test(streams_end_well),
        cmocka_unit_test(long_lines_are_left_out),
        cmocka_unit_test(a_stream_begins_near_the_end),
        cmocka_unit_test(silent_ones_are_limited),
        cmocka_unit_test(numbers_as_prometheus_reads_them),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
