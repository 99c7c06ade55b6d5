/*
 * fedstill fleet up: a whole fleet on this machine - keys, broker, sites and the cloud - for one task, with nothing to
 * set up and nothing left running.
 *
 * Data flow: a temporary folder gets a fleet with everybody enrolled; mosquitto and one process a site become children;
 * the cloud is this process. A child that is killed is started again, as a service would be.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fedstill/cascade_run.h"
#include "fleet_link.h"
#include "task_run.h"

static const struct option_spec options[] = {
    FLEET_MODE_OPTION,
    HTTP_OPTIONS,
    SET_OPTION,
    THREADS_OPTION("Threads of central training and evaluation (default: the CPUs)."),
    OUTPUT_OPTION("Folder for what the run leaves, instead of the task's own."),
    {.name = "fresh", .type = OPTION_FLAG, .help = "Run all stages anew, whatever is there."},
    NO_REUSE_OPTION(TRAIN_ALL_HERE),
    {.name = "keep",
     .type = OPTION_FLAG,
     .help = "Leave the temporary folder with keys and the sites' files and logs."},
    JSON_RESULT_OPTION("summary.json"),
    {0},
};

static const struct operand_spec operands[] = {
    TASK_OPERAND,
    {0},
};

static const char *const examples[] = {
    "fedstill fleet up tasks/link11-demo",
    "A broker, a cloud and the task's edges as processes of their own, to the same models as fedstill run.",
    "fedstill fleet up tasks/link11-demo --http 8080",
    "The same, with a page at http://127.0.0.1:8080/ that shows it live.",
    "fedstill fleet up tasks/link11-demo --mode full_pipeline",
    "Then devices too, each a process, whose signals edges and cloud classify.",
    NULL,
};

#define PREFIX "fedstill-fleet-"
enum { ID = 33, MOST_SITES = 256, STARTS = 50 };

struct child { /* an edge, or a device behind all edges */
    char id[ID];
    const char *command; /* "edge", "device" */
    pid_t pid;           /* 0: ended, or not started */
    int starts;
    const char *state; /* as it was shown last */
};

struct broker { /* the hub's, then those of edges with devices */
    fst_broker *b;
    char conf[340], log[340];
    int port;
};

struct fleet {
    const struct options *o;
    char folder[256];
    int lock; /* of the folder */
    struct broker *broker;
    uint32_t brokers;
    fst_fleet_http http;
    uint32_t edges, count; /* of sites: edges, and all with the devices */
    struct child *site;
    pthread_t watcher;
    bool watching;
    atomic_bool end;
};

/* ---- who takes part ---- */

static void remove_folder(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(127);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* A folder that may go has a file `lock`, which its process holds. One whose process was killed is removed by the next:
 * only ours, and only where that file is. */
static void remove_stale(const char *where)
{
    char path[320], lock[340];
    struct stat is;
    DIR *d = opendir(where);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        int fd = -1;
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) || strlen(e->d_name) != strlen(PREFIX) + 6)
            continue;
        snprintf(path, sizeof path, "%.220s/%.64s", where, e->d_name);
        snprintf(lock, sizeof lock, "%s/lock", path);
        if (lstat(path, &is) || !S_ISDIR(is.st_mode) || is.st_uid != geteuid() || lstat(lock, &is) ||
            fst_file_lock(&fd, lock, NULL))
            continue;
        remove_folder(path);
        fst_file_unlock(fd);
    }
    if (d)
        closedir(d);
}

/* Locked before it has its name: nobody may take it for one that was left. */
static fst_status lock_folder(struct fleet *f, fst_error *err)
{
    char made[300], lock[300];
    snprintf(made, sizeof made, "%s/lock.new", f->folder);
    snprintf(lock, sizeof lock, "%s/lock", f->folder);
    fst_status s = fst_file_lock(&f->lock, made, err);
    return s || !rename(made, lock) ? s : fst_fail_errno(err, "%s", lock);
}

/* It stays: for --keep, or since it holds what went wrong. */
static void keep_folder(const struct fleet *f)
{
    char lock[300];
    snprintf(lock, sizeof lock, "%s/lock", f->folder);
    unlink(lock);
}

static fst_status make_folder(struct fleet *f, fst_error *err)
{
    const char *where = getenv("TMPDIR");
    if (!where || where[0] != '/' || strlen(where) > sizeof f->folder - 40)
        where = "/tmp";
    remove_stale(where);
    snprintf(f->folder, sizeof f->folder, "%s/" PREFIX "XXXXXX", where);
    if (!mkdtemp(f->folder))
        return fst_fail_errno(err, "%s", f->folder);
    return option_flag(f->o, "keep") ? FST_OK : lock_folder(f, err);
}

/* How many devices each edge has; nobody's when the mode does not ask them. */
static fst_status count_devices(const struct fleet *f, const fst_task *task, int *of_edge, uint32_t *all,
                                fst_error *err)
{
    const char *mode = option_string(f->o, "mode");
    uint32_t *edge_of = NULL;
    *all = 0;
    if (strcmp(mode, "full_pipeline") && strncmp(mode, "device_to_", 10))
        return FST_OK;
    fst_status s = fst_task_devices(task, all, &edge_of, err);
    for (uint32_t d = 0; !s && d < *all; d++)
        of_edge[edge_of[d]]++;
    fst_free(edge_of);
    return s;
}

static fst_status add_broker(struct fleet *f, const char *conf, const char *log, fst_error *err)
{
    struct broker *b = &f->broker[f->brokers++];
    snprintf(b->conf, sizeof b->conf, "%s/%s", f->folder, conf);
    snprintf(b->log, sizeof b->log, "%s/%s", f->folder, log);
    return fst_broker_port(&b->port, b->conf, err);
}

static fst_status list_brokers(struct fleet *f, const int *devices, fst_error *err)
{
    char conf[64], log[64];
    f->broker = fst_calloc(f->edges + 1, sizeof *f->broker);
    fst_status s = f->broker ? add_broker(f, "hub/hub.conf", "broker.log", err) : fst_fail_memory(err, 256);
    for (uint32_t k = 0; !s && k < f->edges; k++) {
        snprintf(conf, sizeof conf, "%.32s/broker.conf", f->site[k].id);
        snprintf(log, sizeof log, "%.32s/broker.log", f->site[k].id);
        if (devices[k])
            s = add_broker(f, conf, log, err);
    }
    return s;
}

static fst_status name_sites(struct fleet *f, const char *noun, uint32_t devices, fst_error *err)
{
    f->count = f->edges + devices;
    f->site = fst_calloc(f->count, sizeof *f->site);
    if (!f->site)
        return fst_fail_memory(err, f->count * sizeof *f->site);
    for (uint32_t k = 0; k < f->count; k++) {
        bool edge = k < f->edges;
        f->site[k].command = edge ? "edge" : "device";
        snprintf(f->site[k].id, sizeof f->site[k].id, "%.16s-%lu", edge ? noun : "device",
                 (unsigned long)(edge ? k : k - f->edges) + 1);
    }
    return FST_OK;
}

static fst_status set_up(struct fleet *f, const fst_task *task, fst_error *err)
{
    const char *noun;
    uint32_t devices = 0;
    int of_edge[MOST_SITES] = {0};
    fst_status s = fst_task_clients(task, &f->edges, &noun, err);
    if (!s && f->edges <= MOST_SITES)
        s = count_devices(f, task, of_edge, &devices, err);
    if (!s && f->edges + devices > MOST_SITES)
        s = fst_fail(
            err, FST_E_CONFIG,
            "a process for each of %lu clients and %lu devices is too much for one machine; up to %d are started",
            (unsigned long)f->edges, (unsigned long)devices, (int)MOST_SITES);
    if (!s)
        s = make_folder(f, err);
    if (!s)
        s = name_sites(f, noun, devices, err);
    const fst_local_fleet what = {.edges = (int)f->edges, .devices = of_edge, .noun = noun};
    if (!s)
        s = fst_fleet_local(f->folder, &what, err);
    return s ? s : list_brokers(f, of_edge, err);
}

/* ---- processes ---- */

/* fedstill edge TASK --id ID ... or fedstill device in the child; does not come back. */
static void become_site(const struct fleet *f, const struct child *c, pid_t parent)
{
    size_t sets = 0, n = 0;
    const char *const *set = option_list(f->o, "set", &sets);
    char log[320], keys[320], output[330];
    const char **argv = calloc(2 * sets + 16, sizeof *argv);
    sigset_t none;
    snprintf(log, sizeof log, "%s/%s/log", f->folder, c->id);
    snprintf(keys, sizeof keys, "%s/%s", f->folder, c->id);
    snprintf(output, sizeof output, "%s/%s/output", f->folder, c->id);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!argv || getppid() != parent || !freopen(log, "a", stderr) || !freopen("/dev/null", "w", stdout) ||
        !freopen("/dev/null", "r", stdin))
        _exit(126);
    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    argv[n++] = "fedstill";
    argv[n++] = c->command;
    argv[n++] = operand(f->o, 0);
    argv[n++] = "--id";
    argv[n++] = c->id;
    argv[n++] = "--credentials";
    argv[n++] = keys;
    argv[n++] = "--output";
    argv[n++] = output;
    for (size_t i = 0; i < sets; i++) {
        argv[n++] = "--set";
        argv[n++] = set[i];
    }
    execv("/proc/self/exe", (char *const *)argv);
    _exit(127);
}

static fst_status start_site(struct fleet *f, struct child *c, fst_error *err)
{
    pid_t parent = getpid();
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0)
        become_site(f, c, parent);
    if (c->pid < 0) {
        c->pid = 0;
        return fst_fail_errno(err, "no process for %s", c->id);
    }
    c->starts++;
    return FST_OK;
}

static void keep_broker(struct broker *b)
{
    fst_error err;
    if (b->b && fst_broker_alive(b->b))
        return;
    fprintf(stderr, "broker: killed; started again\n");
    fst_broker_stop(b->b);
    b->b = NULL;
    if (fst_broker_start(&b->b, b->conf, b->log, b->port, &err))
        fprintf(stderr, "broker: %s\n", err.message);
}

/* On a thread: who is killed starts again. */
static void *watch(void *ctx)
{
    struct fleet *f = ctx;
    fst_error err;
    while (!atomic_load(&f->end)) {
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        for (uint32_t k = 0; k < f->brokers; k++)
            keep_broker(&f->broker[k]);
        for (uint32_t k = 0; k < f->count; k++) {
            struct child *c = &f->site[k];
            int status;
            if (!c->pid || waitpid(c->pid, &status, WNOHANG) != c->pid)
                continue;
            c->pid = 0;
            if (WIFSIGNALED(status) && c->starts < STARTS && !atomic_load(&f->end)) {
                fprintf(stderr, "%s: killed; started again\n", c->id);
                if (start_site(f, c, &err))
                    fprintf(stderr, "%s: %s\n", c->id, err.message);
            } else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
                fprintf(stderr, "%s: ended; %s/%s/log says why\n", c->id, f->folder, c->id);
            }
        }
    }
    return NULL;
}

static fst_status start_all(struct fleet *f, fst_error *err)
{
    fst_status s = FST_OK;
    for (uint32_t k = 0; !s && k < f->brokers; k++)
        s = fst_broker_start(&f->broker[k].b, f->broker[k].conf, f->broker[k].log, f->broker[k].port, err);
    for (uint32_t k = 0; !s && k < f->count; k++)
        s = start_site(f, &f->site[k], err);
    if (!s && pthread_create(&f->watcher, NULL, watch, f))
        s = fst_fail(err, FST_E_MEMORY, "no thread to watch the processes");
    f->watching = !s;
    if (!s)
        fprintf(stderr, "fleet: a broker on 127.0.0.1:%d, %s to %s, %lu devices, and the cloud; files and logs in %s\n",
                f->broker[0].port, f->site[0].id, f->site[f->edges - 1].id, (unsigned long)(f->count - f->edges),
                f->folder);
    return s;
}

static void stop_all(struct fleet *f)
{
    atomic_store(&f->end, true);
    if (f->watching)
        pthread_join(f->watcher, NULL);
    for (uint32_t k = 0; k < f->count && f->site; k++)
        if (f->site[k].pid)
            kill(f->site[k].pid, SIGTERM);
    for (uint32_t k = 0; k < f->count && f->site; k++) {
        for (double end = fst_clock_seconds() + 5; f->site[k].pid && fst_clock_seconds() < end;) {
            if (waitpid(f->site[k].pid, NULL, WNOHANG) != 0)
                f->site[k].pid = 0;
            else
                nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
        if (f->site[k].pid) {
            kill(f->site[k].pid, SIGKILL);
            waitpid(f->site[k].pid, NULL, 0);
        }
    }
    for (uint32_t k = 0; k < f->brokers && f->broker; k++)
        fst_broker_stop(f->broker[k].b);
}

/* ---- what is shown ---- */

/* On a terminal the states of all in one line, when one changed. */
static void show(void *ctx, const fst_fleet_view *site, size_t count)
{
    struct fleet *f = ctx;
    bool changed = false;
    for (size_t k = 0; k < count && k < f->count; k++) {
        changed = changed || f->site[k].state != site[k].state;
        f->site[k].state = site[k].state;
    }
    if (!changed || !isatty(STDERR_FILENO) || option_flag(f->o, "quiet"))
        return;
    fputs("\r\033[K", stderr);
    for (size_t k = 0; k < count && k < 12; k++)
        fprintf(stderr, "%s%s %s", k ? "  " : "", site[k].id, site[k].state);
    fputs(count > 12 ? " ...\n" : "\n", stderr);
}

/* ---- the command ---- */

static fst_status run_cloud(struct fleet *f, fst_task *task, fst_error *err)
{
    bool quiet = option_flag(f->o, "quiet");
    char keys[300];
    struct fleet_link link = {.loaded = false};
    snprintf(keys, sizeof keys, "%s/hub", f->folder);
    fst_status s = fleet_link_load(&link, keys, "cloud", err);
    if (s)
        return s;
    f->http.roster = keys;
    const fst_fleet_options fo = {.task = {.mode = option_string(f->o, "mode"),
                                           .threads = (int)option_int(f->o, "threads"),
                                           .fresh = option_flag(f->o, "fresh"),
                                           .no_reuse = option_flag(f->o, "no-reuse"),
                                           .observer = task_observer(&quiet),
                                           .stop = &task_stop},
                                  .link = link.link,
                                  .http = f->http,
                                  .sites = show,
                                  .ctx = f};
    signals_stop_by(&task_stop);
    s = fst_fleet_cloud(task, &fo, err);
    fleet_link_release(&link);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct fleet f = {.o = o, .lock = -1};
    fst_task *task = NULL;
    atomic_init(&f.end, false);
    fst_status s = fleet_http_of(&f.http, o, NULL, err);
    if (!s)
        s = task_load(&task, o, err);
    if (!s)
        s = set_up(&f, task, err);
    if (!s)
        s = start_all(&f, err);
    if (!s)
        s = run_cloud(&f, task, err);
    stop_all(&f);
    if (!s)
        s = task_print_result(task, option_flag(o, "json"), err);
    else if (s == FST_E_CANCELLED)
        s = task_say_how_to_go_on(err);
    if (f.folder[0] && !option_flag(o, "keep") && (!s || s == FST_E_CANCELLED))
        remove_folder(f.folder);
    else if (f.folder[0]) {
        keep_folder(&f);
        fprintf(stderr, "fleet: files and logs are in %s\n", f.folder);
    }
    fst_file_unlock(f.lock);
    fst_free(f.site);
    fst_free(f.broker);
    fst_task_free(task);
    return s;
}

const struct command cmd_fleet_up = {
    .name = "fleet up",
    .summary = "A whole fleet on this machine, with nothing to set up",
    .description =
        "Starts a broker, and a process for each site of the task, with keys and certificates of their own, in a "
        "temporary "
        "folder and on local ports alone, and is their cloud. The models are those of fedstill run. Kill any process "
        "to see that it makes no difference: it is started again.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
