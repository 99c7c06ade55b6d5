/*
 * mosquitto as a child process, and what of it can be seen from outside: which ports it listens on. It is never asked
 * to daemonise, and ends with the thread that started it, so that nothing is left when a program is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fedstill/fleet.h"

extern char **environ;

enum { START_SECONDS = 10, STOP_SECONDS = 3, MAX_SOCKETS = 256, MAX_CONF = 1 << 20, LOG_TAIL = 2048 };

struct fst_broker {
    pid_t pid;
    bool gone;
    int status;
};

static void pause_ms(int ms)
{
    const struct timespec t = {.tv_nsec = ms * 1000000L};
    nanosleep(&t, NULL);
}

/* ---- ports -------------------------------------------------------------------------------- */

/* The numbers of a process's sockets. */
static size_t sockets_of(int64_t pid, unsigned long *inodes, size_t most)
{
    char path[64], link[512], target[64];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/%lld/fd", (long long)pid);
    DIR *d = opendir(path);
    for (struct dirent *e = d ? readdir(d) : NULL; e && n < most; e = readdir(d)) {
        snprintf(link, sizeof link, "%s/%s", path, e->d_name);
        ssize_t len = readlink(link, target, sizeof target - 1);
        target[len > 0 ? len : 0] = 0;
        if (sscanf(target, "socket:[%lu]", &inodes[n]) == 1)
            n++;
    }
    if (d)
        closedir(d);
    return n;
}

static size_t add_port(int *ports, size_t n, size_t most, int port)
{
    size_t at = 0;
    while (at < n && ports[at] < port)
        at++;
    if (n >= most || (at < n && ports[at] == port))
        return n;
    memmove(ports + at + 1, ports + at, (n - at) * sizeof *ports);
    ports[at] = port;
    return n + 1;
}

/* Listening sockets of /proc/net/tcp and tcp6 that are among the inodes; all when there are none given (NULL). */
static size_t listening(const char *table, const unsigned long *inodes, size_t n, int *ports, size_t had, size_t most)
{
    char line[512];
    FILE *f = fopen(table, "re");
    while (f && fgets(line, sizeof line, f)) {
        unsigned port = 0, state = 0;
        unsigned long inode = 0;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu", &port, &state,
                   &inode) != 3 ||
            state != 0x0A)
            continue;
        bool is = inodes == NULL;
        for (size_t i = 0; i < n; i++)
            is = is || inodes[i] == inode;
        if (is)
            had = add_port(ports, had, most, (int)port);
    }
    if (f)
        fclose(f);
    return had;
}

size_t fst_listening_ports(int64_t pid, int *ports, size_t most)
{
    unsigned long inodes[MAX_SOCKETS];
    const unsigned long *of = pid ? inodes : NULL;
    size_t n = pid ? sockets_of(pid, inodes, MAX_SOCKETS) : 0;
    size_t had = listening("/proc/net/tcp", of, n, ports, 0, most);
    return listening("/proc/net/tcp6", of, n, ports, had, most);
}

fst_status fst_free_port(int *port, fst_error *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fst_status s = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || getsockname(fd, (struct sockaddr *)&a, &len)
                       ? fst_fail_errno(err, "no port of 127.0.0.1 is free")
                       : FST_OK;
    if (!s)
        *port = ntohs(a.sin_port);
    if (fd >= 0)
        close(fd);
    return s;
}

fst_status fst_broker_port(int *port, const char *conf, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = fst_file_read(conf, MAX_CONF, &text, err);
    const char *at = s ? NULL : strstr(text.data, "\nlistener ");
    int n = at ? atoi(at + strlen("\nlistener ")) : 0;
    if (!s && (n < 1 || n > 65535))
        s = fst_fail(err, FST_E_FORMAT, "%s: has no line \"listener PORT\"", conf);
    if (!s)
        *port = n;
    fst_buf_release(&text);
    return s;
}

/* ---- the child ---------------------------------------------------------------------------- */

/* A folder of PATH, or one where systems keep programs like this. */
static fst_status find_mosquitto(char out[4096], fst_error *err)
{
    const char *path = getenv("PATH");
    char all[8192];
    snprintf(all, sizeof all, "%s:/usr/sbin:/usr/local/sbin:/usr/bin", path ? path : "");
    for (const char *p = all; *p; p += strcspn(p, ":"), p += *p == ':') {
        int n = (int)strcspn(p, ":");
        snprintf(out, 4096, "%.*s/mosquitto", n < 4000 ? n : 4000, p);
        if (n && access(out, X_OK) == 0)
            return FST_OK;
    }
    return fst_fail(err, FST_E_UNSUPPORTED, "the broker mosquitto is not installed (apt-get install mosquitto)");
}

/* The environment with the allocator's settings: fewer calls between fork and exec than setenv there. */
static char **broker_environment(void)
{
    static const char *const more[] = {"MALLOC_TRIM_THRESHOLD_=67108864", "MALLOC_MMAP_THRESHOLD_=67108864",
                                       "MALLOC_TOP_PAD_=4194304"};
    size_t n = 0;
    while (environ && environ[n])
        n++;
    char **all = fst_calloc(n + 4, sizeof *all);
    if (!all)
        return NULL;
    for (size_t i = 0; i < 3; i++)
        all[i] = (char *)(uintptr_t)more[i];
    size_t at = 3;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "MALLOC_", 7))
            all[at++] = environ[i];
    return all;
}

/* In the child; calls only what is safe after fork. */
static void become(const char *program, const char *conf, int log, char **environment, pid_t parent)
{
    char *const argv[] = {(char *)(uintptr_t) "mosquitto", (char *)(uintptr_t) "-c", (char *)(uintptr_t)conf, NULL};
    sigset_t none;
    int null = open("/dev/null", O_RDONLY);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == parent && null >= 0 && dup2(null, 0) >= 0 && dup2(log, 1) >= 0 && dup2(log, 2) >= 0)
        execve(program, argv, environment);
    _exit(127);
}

static fst_status launch(fst_broker *b, const char *conf, const char *log, fst_error *err)
{
    char program[4096];
    fst_status s = find_mosquitto(program, err);
    if (s)
        return s;
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    char **environment = broker_environment();
    if (fd < 0 || !environment) {
        s = fd < 0 ? fst_fail_errno(err, "cannot write %s", log) : fst_fail_memory(err, 1);
    } else {
        pid_t parent = getpid();
        b->pid = fork();
        if (b->pid == 0)
            become(program, conf, fd, environment, parent);
        if (b->pid < 0)
            s = fst_fail_errno(err, "cannot start mosquitto");
    }
    fst_free(environment);
    if (fd >= 0)
        close(fd);
    return s;
}

/* The last two lines of a log: mosquitto says what is wrong, and then where. */
static void last_lines(const char *log, char out[256])
{
    char tail[LOG_TAIL + 1];
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = fd < 0 ? 0 : pread(fd, tail, LOG_TAIL, size > LOG_TAIL ? size - LOG_TAIL : 0);
    if (fd >= 0)
        close(fd);
    tail[n > 0 ? n : 0] = 0;
    size_t len = strlen(tail);
    while (len && tail[len - 1] == '\n')
        tail[--len] = 0;
    for (int lines = 0; len > 0 && lines < 2; len--)
        lines += tail[len - 1] == '\n';
    snprintf(out, 256, "%.250s", tail + len + (tail[len] == '\n'));
    for (char *p = strchr(out, '\n'); p; p = strchr(p, '\n'))
        *p = ' ';
}

static fst_status await_port(fst_broker *b, const char *conf, const char *log, int port, fst_error *err)
{
    char lines[256];
    int ports[8];
    size_t n = 0;
    for (double began = fst_clock_seconds(); fst_clock_seconds() < began + START_SECONDS; pause_ms(10)) {
        if (!fst_broker_alive(b)) {
            last_lines(log, lines);
            return fst_fail(err, FST_E_IO, "mosquitto -c %s ended at once (%s): %s", conf, log, lines);
        }
        n = fst_listening_ports(b->pid, ports, 8);
        if (n)
            break;
    }
    if (n == 0)
        return fst_fail(err, FST_E_IO, "mosquitto -c %s does not listen after %d s; its log is %s", conf, START_SECONDS,
                        log);
    for (size_t i = 0; i < n; i++)
        if (ports[i] != port)
            return fst_fail(err, FST_E_CONFIG,
                            "mosquitto -c %s listens on port %d too, and only %d was wanted: nothing of it is used",
                            conf, ports[i], port);
    return FST_OK;
}

fst_status fst_broker_start(fst_broker **out, const char *conf, const char *log, int port, fst_error *err)
{
    fst_broker *b = fst_calloc(1, sizeof *b);
    if (!b)
        return fst_fail_memory(err, sizeof *b);
    fst_status s = launch(b, conf, log, err);
    if (s) {
        fst_free(b);
        return s;
    }
    s = await_port(b, conf, log, port, err);
    if (s)
        fst_broker_stop(b);
    else
        *out = b;
    return s;
}

bool fst_broker_alive(fst_broker *b)
{
    if (!b->gone && waitpid(b->pid, &b->status, WNOHANG) == b->pid)
        b->gone = true;
    return !b->gone;
}

int64_t fst_broker_pid(const fst_broker *b)
{
    return b->pid;
}

void fst_broker_stop(fst_broker *b)
{
    if (!b)
        return;
    if (fst_broker_alive(b))
        kill(b->pid, SIGTERM);
    for (double began = fst_clock_seconds(); fst_broker_alive(b) && fst_clock_seconds() < began + STOP_SECONDS;)
        pause_ms(10);
    if (fst_broker_alive(b)) {
        kill(b->pid, SIGKILL);
        while (waitpid(b->pid, &b->status, 0) < 0 && errno == EINTR)
            ;
    }
    fst_free(b);
}
