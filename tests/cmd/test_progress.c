/* Progress on a file (plain lines), on a terminal (redrawn in place) and with --quiet; warnings in between. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>
#include <cmocka.h>

#include "../cmd/fedstill/progress.c"

bool output_is_utf8(void)
{
    return false;
}

static int saved;

static void stderr_to(int fd)
{
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
}

static void stderr_back(void)
{
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
}

static void a_little_work(void)
{
    progress_begin("edge_kd", 1000, "samples");
    progress_update(0, NULL);
    for (int i = 1; i <= 1000; i++)
        progress_update((uint64_t)i, "loss 0.5");
    progress_log(NULL, FST_LOG_DEBUG, "not shown");
    progress_log(NULL, FST_LOG_INFO, "a remark");
    progress_log(NULL, FST_LOG_WARN, "something odd");
    progress_end("accuracy 91 %");
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *q = text; (q = strstr(q, what)); q++)
        n++;
    return n;
}

static void run_on_file(char *text, size_t size)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    stderr_to(fileno(f));
    a_little_work();
    stderr_back();
    rewind(f);
    text[fread(text, 1, size - 1, f)] = 0;
    fclose(f);
}

static void test_plain_lines(void **state)
{
    (void)state;
    char text[4096];
    run_on_file(text, sizeof text);
    assert_null(strchr(text, '\r'));
    assert_null(strchr(text, '\033'));
    assert_null(strstr(text, "not shown"));
    assert_non_null(strstr(text, "fedstill: a remark\n"));
    assert_non_null(strstr(text, "fedstill: warning: something odd\n"));
    /* Quick work is one line at its end. */
    assert_int_equal(count(text, "\n"), 3);
    assert_non_null(strstr(text, "edge_kd  1.0k samples in "));
    assert_non_null(strstr(text, "s  accuracy 91 %  ")); /* before the rate */
}

/* What a stopped run did took none of this run's time. */
static void test_resumed_work(void **state)
{
    char text[4096];
    FILE *f = tmpfile();
    (void)state;
    assert_non_null(f);
    stderr_to(fileno(f));
    progress_begin("edge_kd", 1000, "samples");
    progress_update(600, NULL);
    progress_update(1000, NULL);
    progress_end(NULL);
    stderr_back();
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(text, "edge_kd  1.0k samples (600 before) in "));
}

static void test_quiet(void **state)
{
    (void)state;
    char text[4096];
    progress_set_quiet(true);
    run_on_file(text, sizeof text);
    progress_set_quiet(false);
    assert_string_equal(text, "fedstill: warning: something odd\n");
}

static void test_terminal(void **state)
{
    (void)state;
    char text[8192];
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    struct winsize size = {.ws_row = 24, .ws_col = 40};
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
    setenv("TERM", "xterm", 1);
    stderr_to(terminal);
    double start = fst_clock_seconds();
    a_little_work();
    double seconds = fst_clock_seconds() - start;
    stderr_back();
    /* a terminal hands over its output in pieces */
    struct pollfd ready = {.fd = master, .events = POLLIN};
    size_t n = 0;
    while (n < sizeof text - 1 && poll(&ready, 1, 300) > 0) {
        ssize_t got = read(master, text + n, sizeof text - 1 - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    text[n] = 0;
    close(terminal);
    close(master);
    assert_non_null(strstr(text, "\redge_kd [..........]   0 %"));
    assert_non_null(strstr(text, "\r\033[Kfedstill: warning: something odd"));
    /* At most ten redraws a second, besides the first and those after the two messages. */
    assert_true(count(text, "\033[K") <= 8 + (size_t)(seconds * 10) * 2);
    for (char *line = strtok(text, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        char *end = strstr(line, "\033[K");
        if (end && end != line)
            assert_true(end - line <= 39);
    }
}

static void test_dumb_terminals_get_lines(void **state)
{
    (void)state;
    setenv("TERM", "dumb", 1);
    assert_false(is_terminal());
    char line[LINE] = "Z\xC3\xBCrich";
    fit(line, 2);
    assert_string_equal(line, "Z\xC3\xBC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_lines),
        cmocka_unit_test(test_resumed_work),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_dumb_terminals_get_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
