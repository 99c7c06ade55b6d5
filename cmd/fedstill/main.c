/* The program: a table of commands, and what is the same for all of them - finding one, errors, exit
 * status. What a command does is in its own cmd_*.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fedstill/task.h"
#include "opt.h"

#ifdef FEDSTILL_EDGE_ONLY
/* fedstill-edge: what runs a model, and nothing that makes one. */
static const struct command *const commands[] = {
    &cmd_eval, &cmd_predict, &cmd_edge, &cmd_device, NULL,
};
#else
/* In the order of the help. A new command is declared in cmd.h and gets a line here. */
static const struct command *const commands[] = {
    /* clang-format off: one a line */
    &cmd_init,
    &cmd_run,
    &cmd_sweep,
    &cmd_runs,
    &cmd_report,
    &cmd_compare,
    &cmd_export,
    &cmd_eval,
    &cmd_predict,
    &cmd_model_list,
    &cmd_model_info,
    &cmd_model_import,
    &cmd_model_export,
    &cmd_model_quantise,
    &cmd_model_prune,
    &cmd_data_info,
    &cmd_data_show,
    &cmd_data_split,
    &cmd_data_synth,
    &cmd_data_import,
    &cmd_cloud,
    &cmd_edge,
    &cmd_device,
    &cmd_fleet_up,
    &cmd_fleet_init,
    &cmd_fleet_request,
    &cmd_fleet_enroll,
    &cmd_fleet_install,
    &cmd_fleet_revoke,
    &cmd_fleet_renew,
    &cmd_fleet_status,
    &cmd_bench,
    NULL,
    /* clang-format on */
};
#endif

bool output_is_utf8(void)
{
    return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

size_t output_width(void)
{
    enum { NARROWEST = 20, USUAL = 80, WIDEST = 10000 };
    const char *set = getenv("COLUMNS");
    char *end = NULL;
    long n = set ? strtol(set, &end, 10) : 0;
    struct winsize size;
    if (set && end != set && !*end && n >= NARROWEST && n <= WIDEST)
        return (size_t)n;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= NARROWEST ? size.ws_col : USUAL;
}

/* Finds the command that argv[0] (and argv[1], where its name has two words) names; *words is what it took. */
static const struct command *find_command(int argc, char *const *argv, int *words)
{
    char two[128] = "";
    if (argc > 1)
        snprintf(two, sizeof two, "%s %s", argv[0], argv[1]);
    for (size_t i = 0; commands[i]; i++) {
        *words = strchr(commands[i]->name, ' ') ? 2 : 1;
        if (!strcmp(commands[i]->name, *words == 2 ? two : argv[0]))
            return commands[i];
    }
    return NULL;
}

/* Whether name is "word something". */
static bool in_group(const char *name, const char *word)
{
    size_t n = strlen(word);
    return !strncmp(name, word, n) && name[n] == ' ';
}

static bool is_group(const char *word)
{
    for (size_t i = 0; commands[i]; i++)
        if (in_group(commands[i]->name, word))
            return true;
    return false;
}

static void list_group(FILE *to, const char *word)
{
    fprintf(to, "Usage: " PROGRAM " %s COMMAND [OPTION ...] [ARGUMENT ...]\n\nCommands:\n", word);
    for (size_t i = 0; commands[i]; i++)
        if (in_group(commands[i]->name, word))
            fprintf(to, "  %-20s  %s\n", commands[i]->name, commands[i]->summary);
}

static int unknown_command(int argc, char *const *argv)
{
    char word[128];
    const char *names[64];
    size_t n = 0;
    bool group = is_group(argv[0]);
    if (group && argc < 2) {
        list_group(stderr, argv[0]);
        return EXIT_USAGE;
    }
    snprintf(word, sizeof word, group ? "%s %s" : "%s", argv[0], group ? argv[1] : "");
    for (size_t i = 0; commands[i] && n < sizeof names / sizeof *names; i++)
        if (!group || in_group(commands[i]->name, argv[0]))
            names[n++] = commands[i]->name;
    const char *meant = nearest(word, names, n);
    fprintf(stderr, PROGRAM ": unknown command \"%s\"", word);
    if (meant)
        fprintf(stderr, " (did you mean %s?)", meant);
    fprintf(stderr, "\ntry \"" PROGRAM " %s%s--help\"\n", group ? argv[0] : "", group ? " " : "");
    return EXIT_USAGE;
}

/* What was printed must have arrived: a full disk is a failure. */
static int end_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, PROGRAM ": cannot write to standard output\n");
    return status ? status : EXIT_FAILED;
}

static void complain(const struct command *c, const char *message)
{
    fprintf(stderr, PROGRAM " %s: ", c->name);
    put_plain(stderr, message);
    fputc('\n', stderr);
}

static char *const *program_argv;

#ifndef FEDSTILL_EDGE_ONLY /* which has no OpenMP */
/*
 * The threads of oneDNN's kernels are OpenMP's, and wait for each other by spinning for milliseconds unless the
 * environment says otherwise when the program starts. Where others want the CPUs too, a thread that spins keeps away
 * the one that it waits for: beside one busy process, inference of single samples on two threads fell to a thirtieth of
 * what one thread does. So commands with threads start the program once more with settings under which a thread spins
 * for a few microseconds and then sleeps. Whoever has settings of their own keeps them. Where /proc/self/exe is the
 * dynamic linker ("ld.so fedstill ...": the kernel then gave it no linker, AT_BASE is 0), there is no second start.
 */
static void wait_asleep(const struct command *c)
{
    bool threads = false;
    for (const struct option_spec *o = c->options; o && o->name; o++)
        threads = threads || !strcmp(o->name, "threads");
    if (!threads || getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || !getauxval(AT_BASE))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 0) == 0 && setenv("GOMP_SPINCOUNT", "200", 0) == 0)
        execv("/proc/self/exe", program_argv); /* when it fails, nothing is lost but speed on a busy machine */
}
#endif

static int run_command(const struct command *c, int argc, char *const *argv)
{
    fst_error err = {0};
    struct options *o = NULL;
    fst_status s = options_parse(&o, c, argc, argv, &err);
    if (s) {
        complain(c, err.message);
        if (s == FST_E_ARGUMENT)
            fprintf(stderr, "try \"" PROGRAM " %s --help\"\n", c->name);
        return s == FST_E_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
    }
    if (option_flag(o, "help")) {
        help_command(stdout, c);
    } else {
#ifndef FEDSTILL_EDGE_ONLY
        wait_asleep(c);
#endif
        progress_set_quiet(option_flag(o, "quiet"));
        s = signals_watch(&err);
        if (!s)
            s = c->run(o, &err);
        if (s)
            complain(c, err.message[0] ? err.message : fst_status_name(s));
    }
    options_free(o);
    return s == FST_E_CONFIG ? EXIT_USAGE : s ? EXIT_FAILED : EXIT_DONE;
}

static int help(int argc, char *const *argv)
{
    int words;
    if (argc < 1) {
        help_overview(stdout, commands);
        return EXIT_DONE;
    }
    const struct command *c = find_command(argc, argv, &words);
    if (c)
        help_command(stdout, c);
    else if (argc == 1 && is_group(argv[0]))
        list_group(stdout, argv[0]);
    else
        return unknown_command(argc, argv);
    return EXIT_DONE;
}

static int task_reference(void)
{
    fst_buf out = {0};
    fst_error err = {0};
    fst_status st = fst_task_reference(&out, &err);
    if (st)
        fprintf(stderr, PROGRAM ": %s\n", err.message);
    else
        fwrite(out.data, 1, out.len, stdout);
    fst_buf_release(&out);
    return st ? EXIT_FAILED : EXIT_DONE;
}

/* argv without the program's name. */
static int dispatch(int argc, char *const *argv)
{
    int words;
    if (argc < 1) {
        help_overview(stderr, commands);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[0], "--version") || !strcmp(argv[0], "-V")) {
        printf(PROGRAM " %s\n", fst_version());
        return EXIT_DONE;
    }
    if (!strcmp(argv[0], "--man-page")) {
        man_page(stdout, commands);
        return EXIT_DONE;
    }
    if (!strcmp(argv[0], "--completion")) {
        if (argc == 2 && completion(stdout, argv[1], commands))
            return EXIT_DONE;
        fputs(PROGRAM ": --completion takes bash or zsh\n", stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[0], "--task-reference")) /* for docs/task-file.md */
        return task_reference();
    if (!strcmp(argv[0], "help") || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
        return help(argc - 1, argv + 1);
    if (argv[0][0] == '-') {
        fprintf(stderr, PROGRAM ": unknown option %s\ntry \"" PROGRAM " --help\"\n", argv[0]);
        return EXIT_USAGE;
    }
    const struct command *c = find_command(argc, argv, &words);
    if (c)
        return run_command(c, argc - words, argv + words);
    if (argc == 2 && is_group(argv[0]) && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return help(1, argv);
    return unknown_command(argc, argv);
}

/* After a second start ps, top and pidof would know the process as "exe". */
static void keep_name(const char *path)
{
    char now[16] = "";
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (path && !prctl(PR_GET_NAME, now) && !strcmp(now, "exe"))
        (void)prctl(PR_SET_NAME, slash ? slash + 1 : path);
}

/* A program that is started with a standard descriptor closed would open some file of its own under that number, and
 * write its messages into it. A descriptor of the wrong direction keeps the number taken; using it fails as on a closed
 * one. */
static void take_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0 && open("/", O_RDONLY) < 0)
                _exit(EXIT_FAILED);
}

/* A heap for each thread maps 128 MB at once, which under a limit (ulimit -v) takes them from whoever needs some. */
static void keep_to_one_heap(void)
{
    struct rlimit space;
    if (!getrlimit(RLIMIT_AS, &space) && space.rlim_cur != RLIM_INFINITY)
        mallopt(M_ARENA_MAX, 1);
}

int main(int argc, char **argv)
{
    keep_to_one_heap();
    take_standard_descriptors();
    keep_name(argv[0]);
    /* Characters only: numbers are read and written with a point everywhere. */
    setlocale(LC_CTYPE, "");
    /* A file that reached its limit is an error like a full disk, not the end. */
    signal(SIGXFSZ, SIG_IGN);
    fst_log_set(progress_log, NULL);
    program_argv = argv;
    return end_output(dispatch(argc - 1, argv + 1));
}
