/* Prints the commands' tables: --help, the overview, and the manual page in man(7) macros. */
#include <string.h>

#include "opt.h"

enum { WIDTH = 80, INDENT = 6 };

#ifdef FEDSTILL_EDGE_ONLY
static const char tagline[] = "runs models of federated distillation at the edge";
static const char purpose[] =
    "Classifies with model files of fedstill, and answers devices in the cascade of a fleet, on a small box: it is "
    "the part of fedstill(1) that runs models. Nothing in it trains; asked to, it says so.";
#else
static const char tagline[] = "federated knowledge distillation for cloud, edge and device";
static const char purpose[] =
    "Teaches small models at the edge what a large model in the cloud knows, without moving the data. One program "
    "trains "
    "the teacher, keeps its soft labels, distils a student from them and federates it over many clients, which live in "
    "its process.";
#endif

struct entry {
    const char *name, *text;
};

static const struct entry exit_status[] = {
    {"0", "Done."},
    {"1", "Failed: the message on standard error says what, where and what would be right."},
    {"2", "Wrong usage, or a wrong task file or setting."},
};

static const struct entry environment[] = {
    {"FEDSTILL_HOME", "Folder of the run registry."},
    {"XDG_STATE_HOME", "Without FEDSTILL_HOME the registry is in its folder fedstill; default ~/.local/state."},
    {"FEDSTILL_DATA", "Folder of the data sets, for tasks that name it, such as tasks/mnist; nothing else reads it."},
    {"TERM", "A terminal that is \"dumb\" gets plain lines in place of progress bars."},
    {"LC_ALL, LC_CTYPE, LANG", "Where they do not ask for UTF-8, tables and pictures keep to ASCII."},
};

static const struct entry files[] = {
    {"~/.local/state/fedstill/runs.sqlite", "The run registry: a list of what ran, read by nothing that decides a "
                                            "result. It may be deleted."},
    {"TASK/output/", "What a run produces. The program owns this folder."},
    {"TASK/sweep/", "What a sweep produces: runs/NAME is the output of a run, logs/NAME.log what it said."},
    {"TASK/output/events.jsonl", "What happened in the run, one JSON object a line."},
};

static const struct entry program_options[] = {
    {"--help", "Show the commands and exit."},
    {"--version", "Show the version and exit."},
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Words of text, wrapped; the first line is taken to be at `column` already. Ends the line. */
static void wrap(FILE *to, const char *text, size_t indent, size_t column)
{
    while (*text) {
        size_t len = strcspn(text, " \n");
        if (column + len > WIDTH && column > indent) {
            fprintf(to, "\n%*s", (int)indent, "");
            column = indent;
        }
        fprintf(to, "%.*s", (int)len, text);
        column += len;
        text += len;
        size_t blanks = strspn(text, " \n");
        if (blanks >= 2 && text[0] == '\n' && text[1] == '\n' && text[blanks]) {
            fprintf(to, "\n\n%*s", (int)indent, "");
            column = indent;
        } else if (text[blanks] && column + 1 + strcspn(text + blanks, " \n") <= WIDTH) {
            fputc(' ', to);
            column++;
        } else if (text[blanks]) {
            column = WIDTH + 1;
        }
        text += blanks;
    }
    fputc('\n', to);
}

static void option_head(char *out, size_t size, const struct option_spec *s)
{
    char letter[8] = "";
    if (s->letter)
        snprintf(letter, sizeof letter, "-%c, ", s->letter);
    if (s->type == OPTION_FLAG)
        snprintf(out, size, "%s--%s", letter, s->name);
    else
        snprintf(out, size, "%s--%s=%s", letter, s->name, s->argument ? s->argument : "VALUE");
}

/* The help text with what the table says besides: accepted values, range, fallback, repetition. */
static void option_text(char *out, size_t size, const struct option_spec *s)
{
    size_t at = (size_t)snprintf(out, size, "%s", s->help);
    for (size_t i = 0; s->choices && s->choices[i] && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s%s", i ? ", " : " One of: ", s->choices[i],
                               s->choices[i + 1] ? "" : ".");
    if (s->type == OPTION_LIST && at < size)
        at += (size_t)snprintf(out + at, size - at, " May be given several times.");
    if (s->type == OPTION_INT && (s->min || s->max) && s->max < INT64_MAX && at < size)
        at += (size_t)snprintf(out + at, size - at, " %lld to %lld.", (long long)s->min, (long long)s->max);
    if (s->type == OPTION_DOUBLE && (s->low != 0 || s->high != 0) && at < size)
        at += (size_t)snprintf(out + at, size - at, " %g to %g.", s->low, s->high);
    if (s->fallback && at < size)
        snprintf(out + at, size - at, " Default: %s.", strcmp(s->fallback, ".") ? s->fallback : "this folder");
}

static void help_item(FILE *to, const char *head, const char *text)
{
    fprintf(to, "  %s\n%*s", head, INDENT, "");
    wrap(to, text, INDENT, INDENT);
}

/* A command line as one types it: what does not fit goes on in the next line. */
static void help_example(FILE *to, const char *line, const char *text)
{
    size_t column = 2;
    fputs("  ", to);
    while (*line) {
        size_t len = strcspn(line, " ");
        bool last = !line[len];
        if (column > 2 && column + 1 + len + (last ? 0 : 2) > WIDTH) {
            fprintf(to, " \\\n%*s", INDENT + 2, "");
            column = INDENT + 2;
        } else if (column > 2) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", (int)len, line);
        column += len;
        line += len + !last;
    }
    fprintf(to, "\n%*s", INDENT, "");
    wrap(to, text, INDENT, INDENT);
}

static void help_options(FILE *to, const struct option_spec *s)
{
    char head[128], text[1024];
    for (; s && s->name; s++) {
        option_head(head, sizeof head, s);
        option_text(text, sizeof text, s);
        help_item(to, head, text);
    }
}

static void operand_text(char *out, size_t size, const struct operand_spec *s)
{
    bool many = s->max < 0 || s->max > 1;
    snprintf(out, size, " %s%s%s%s", s->min ? "" : "[", s->name, many ? " ..." : "", s->min ? "" : "]");
}

void help_command(FILE *to, const struct command *c)
{
    char text[128];
    fprintf(to, "Usage: " PROGRAM " %s [OPTION ...]", c->name);
    for (const struct operand_spec *s = c->operands; s && s->name; s++) {
        operand_text(text, sizeof text, s);
        fputs(text, to);
    }
    fprintf(to, "\n%s.\n", c->summary);
    if (c->description) {
        fputc('\n', to);
        wrap(to, c->description, 0, 0);
    }
    if (c->operands && c->operands->name)
        fputs("\nArguments:\n", to);
    for (const struct operand_spec *s = c->operands; s && s->name; s++)
        help_item(to, s->name, s->help);
    fputs("\nOptions:\n", to);
    help_options(to, c->options);
    help_options(to, common_options);
    if (c->examples)
        fputs("\nExamples:\n", to);
    for (const char *const *e = c->examples; e && e[0]; e += 2)
        help_example(to, e[0], e[1]);
}

void help_overview(FILE *to, const struct command *const *table)
{
    size_t width = 0;
    fprintf(to,
            PROGRAM " " FST_VERSION " - %s\n\nUsage: " PROGRAM " COMMAND [OPTION ...] [ARGUMENT ...]\n\nCommands:\n",
            tagline);
    for (size_t i = 0; table[i]; i++)
        width = strlen(table[i]->name) > width ? strlen(table[i]->name) : width;
    for (size_t i = 0; table[i]; i++)
        fprintf(to, "  %-*s  %s\n", (int)width, table[i]->name, table[i]->summary);
    fputs("\n\"" PROGRAM " COMMAND --help\" or \"" PROGRAM " help COMMAND\" says more about one;\n"
          "\"" PROGRAM " --version\" shows the version.\n",
          to);
}

/* ---- manual page -------------------------------------------------------------------------- */

/* Text that troff takes literally. Blank lines become paragraphs. */
static void troff(FILE *to, const char *text)
{
    bool line_start = true;
    for (const char *p = text; *p; p++) {
        if (line_start && (*p == '.' || *p == '\''))
            fputs("\\&", to);
        line_start = *p == '\n';
        if (p[0] == '\n' && p[1] == '\n') {
            fputs("\n.PP\n", to);
            p += strspn(p, "\n") - 1;
        } else if (*p == '\\')
            fputs("\\e", to);
        else if (*p == '-')
            fputs("\\-", to);
        else if (*p == '"')
            fputs("\\(dq", to);
        else if (*p == '~')
            fputs("\\(ti", to);
        else
            fputc(*p, to);
    }
}

static void man_item(FILE *to, const char *head, const char *text)
{
    fputs(".TP\n\\fB", to);
    troff(to, head);
    fputs("\\fR\n", to);
    troff(to, text);
    fputc('\n', to);
}

static void man_entries(FILE *to, const char *title, const struct entry *e, size_t n)
{
    fprintf(to, ".SH %s\n", title);
    for (size_t i = 0; i < n; i++)
        man_item(to, e[i].name, e[i].text);
}

static void man_options(FILE *to, const struct option_spec *s)
{
    char head[128], text[1024];
    for (; s && s->name; s++) {
        option_head(head, sizeof head, s);
        option_text(text, sizeof text, s);
        man_item(to, head, text);
    }
}

static void man_command(FILE *to, const struct command *c)
{
    char text[128];
    fputs(".SS \"" PROGRAM " ", to);
    troff(to, c->name);
    fputs(" [OPTION ...]", to);
    for (const struct operand_spec *s = c->operands; s && s->name; s++) {
        operand_text(text, sizeof text, s);
        troff(to, text);
    }
    fputs("\"\n", to);
    troff(to, c->summary);
    fputs(".\n", to);
    if (c->description) {
        fputs(".PP\n", to);
        troff(to, c->description);
        fputc('\n', to);
    }
    for (const struct operand_spec *s = c->operands; s && s->name; s++)
        man_item(to, s->name, s->help);
    man_options(to, c->options);
}

void man_page(FILE *to, const struct command *const *table)
{
    fprintf(to,
            ".\\\" Made by \"" PROGRAM " --man-page\"; change the commands' tables instead.\n"
            ".TH " PROGRAM_TITLE " 1 \"\" \"" PROGRAM " " FST_VERSION "\" \"User Commands\"\n"
            ".SH NAME\n" PROGRAM " \\- %s\n"
            ".SH SYNOPSIS\n\\fB" PROGRAM "\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR ...] [\\fIARGUMENT\\fR ...]\n"
            ".SH DESCRIPTION\n",
            tagline);
    troff(to, purpose);
    troff(to, "\n\nAn option's argument may follow as "
              "--name=value or as the next word; \"--\" ends the options. Results go to standard output, progress, "
              "warnings and errors to standard error.\n");
    man_entries(to, "OPTIONS", program_options, COUNT(program_options));
    fputs(".PP\nEvery command takes:\n", to);
    man_options(to, common_options);
    fputs(".SH COMMANDS\n", to);
    for (size_t i = 0; table[i]; i++)
        man_command(to, table[i]);
    man_entries(to, "EXIT STATUS", exit_status, COUNT(exit_status));
    man_entries(to, "ENVIRONMENT", environment, COUNT(environment));
    man_entries(to, "FILES", files, COUNT(files));
    fputs(".SH EXAMPLES\n", to);
    for (size_t i = 0; table[i]; i++)
        for (const char *const *e = table[i]->examples; e && e[0]; e += 2)
            man_item(to, e[0], e[1]);
}
