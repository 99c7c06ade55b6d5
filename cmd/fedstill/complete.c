/*
 * What shells offer when Tab is pressed, printed from the commands' tables as the help is: `fedstill --completion bash`
 * and `fedstill --completion zsh`. Commands of two words ("data info") are completed a word at a time; behind a
 * command come its options, the values of those that have a list of them, and files.
 */
#include <string.h>

#include "opt.h"

/* ---- bash --------------------------------------------------------------------------------------- */

static const char bash_head[] = "# Made by \"fedstill --completion bash\"; change the commands' tables instead.\n"
                                "# shellcheck shell=bash\n"
                                "_fedstill() {\n"
                                "    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} "
                                "command=${COMP_WORDS[1]} words='' values=''\n"
                                "    COMPREPLY=()\n"
                                "    # bash parts --option=value at its equals sign\n"
                                "    [ \"$cur\" != = ] || cur=\n"
                                "    [ \"$option\" != = ] || option=${COMP_WORDS[COMP_CWORD - 2]}\n";

static const char bash_tail[] = "    if [ -n \"$values\" ]; then\n"
                                "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$cur\")\n"
                                "    elif [[ $cur == -* || -z $files ]]; then\n"
                                "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                                "    fi\n"
                                "}\n"
                                "complete -o default -F _fedstill fedstill\n";

static bool is_first_of_group(const struct command *const *table, size_t i)
{
    size_t n = strcspn(table[i]->name, " ");
    for (size_t k = 0; k < i; k++)
        if (!strncmp(table[k]->name, table[i]->name, n + 1))
            return false;
    return table[i]->name[n] == ' ';
}

/* "import export": second words of the commands that begin as table[i] does. */
static void second_words(FILE *to, const struct command *const *table, size_t i)
{
    size_t n = strcspn(table[i]->name, " ") + 1;
    for (size_t k = i; table[k]; k++)
        if (!strncmp(table[k]->name, table[i]->name, n))
            fprintf(to, "%s%s", k == i ? "" : " ", table[k]->name + n);
}

static void first_words(FILE *to, const struct command *const *table)
{
    for (size_t i = 0; table[i]; i++) {
        size_t n = strcspn(table[i]->name, " ");
        if (!table[i]->name[n] || is_first_of_group(table, i))
            fprintf(to, "%.*s ", (int)n, table[i]->name);
    }
    fputs("help", to);
}

static void bash_values(FILE *to, const struct option_spec *s)
{
    for (; s && s->name; s++) {
        if (!s->choices)
            continue;
        fprintf(to, "        --%s) values=\"", s->name);
        for (size_t i = 0; s->choices[i]; i++)
            fprintf(to, "%s%s", i ? " " : "", s->choices[i]);
        fputs("\" ;;\n", to);
    }
}

static bool has_values(const struct option_spec *s)
{
    for (; s && s->name; s++)
        if (s->choices)
            return true;
    return false;
}

static void bash_command(FILE *to, const struct command *c)
{
    fprintf(to, "    '%s')\n        files=yes words=\"", c->name);
    for (const struct option_spec *s = c->options; s && s->name; s++)
        fprintf(to, "--%s ", s->name);
    for (const struct option_spec *s = common_options; s->name; s++)
        fprintf(to, "%s--%s", s == common_options ? "" : " ", s->name);
    fputs("\"\n", to);
    if (has_values(c->options)) {
        fputs("        case $option in\n", to);
        bash_values(to, c->options);
        fputs("        esac\n", to);
    }
    fputs("        ;;\n", to);
}

static void bash(FILE *to, const struct command *const *table)
{
    fputs(bash_head, to);
    fputs("    local files=''\n    case $command in\n    ", to);
    const char *bar = "";
    for (size_t i = 0; table[i]; i++)
        if (is_first_of_group(table, i)) {
            fprintf(to, "%s%.*s", bar, (int)strcspn(table[i]->name, " "), table[i]->name);
            bar = " | ";
        }
    fputs(") [ \"$COMP_CWORD\" -lt 3 ] || command=\"$command ${COMP_WORDS[2]}\" ;;\n    esac\n", to);
    fputs("    [ \"$COMP_CWORD\" -gt 1 ] || command=\n    case $command in\n    '' | help) words=\"", to);
    first_words(to, table);
    fputs(" --help --version\" ;;\n", to);
    for (size_t i = 0; table[i]; i++) {
        if (is_first_of_group(table, i)) {
            fprintf(to, "    %.*s) words=\"", (int)strcspn(table[i]->name, " "), table[i]->name);
            second_words(to, table, i);
            fputs("\" ;;\n", to);
        }
        bash_command(to, table[i]);
    }
    fputs("    esac\n", to);
    fputs(bash_tail, to);
}

/* ---- zsh ---------------------------------------------------------------------------------------- */

/* Text within single quotes, in which _arguments gives brackets and colons a meaning. At most one sentence. */
static void zsh_text(FILE *to, const char *text)
{
    for (; *text && strncmp(text, ". ", 2) && strncmp(text, ".\n", 2); text++) {
        if (*text == '\'')
            fputs("'\\''", to);
        else if (strchr("[]:\\", *text))
            fprintf(to, "\\%c", *text);
        else
            fputc(*text == '\n' ? ' ' : *text, to);
    }
}

static void zsh_option(FILE *to, const struct option_spec *s)
{
    fprintf(to, "        '%s--%s%s[", s->type == OPTION_LIST ? "*" : "", s->name, s->type == OPTION_FLAG ? "" : "=");
    zsh_text(to, s->help);
    fputc(']', to);
    if (s->choices) {
        fprintf(to, ":%s:(", s->argument ? s->argument : "VALUE");
        for (size_t i = 0; s->choices[i]; i++)
            fprintf(to, "%s%s", i ? " " : "", s->choices[i]);
        fputc(')', to);
    } else if (s->type != OPTION_FLAG) {
        fprintf(to, ":%s:%s", s->argument ? s->argument : "VALUE",
                s->type == OPTION_STRING || s->type == OPTION_LIST ? "_files" : " ");
    }
    fputs("' \\\n", to);
}

static void zsh_command(FILE *to, const struct command *c)
{
    fprintf(to, "    '%s') _arguments \\\n", c->name);
    for (const struct option_spec *s = c->options; s && s->name; s++)
        zsh_option(to, s);
    for (const struct option_spec *s = common_options; s->name; s++)
        zsh_option(to, s);
    fputs("        '*:file:_files' ;;\n", to);
}

/* "'run:Run a task' ...": the commands, or the second words of those that begin as table[from] does. */
static void zsh_names(FILE *to, const struct command *const *table, size_t from, bool second)
{
    size_t n = second ? strcspn(table[from]->name, " ") + 1 : 0;
    for (size_t i = from; table[i]; i++) {
        size_t first = strcspn(table[i]->name, " ");
        bool group = !second && table[i]->name[first];
        if (second ? strncmp(table[i]->name, table[from]->name, n) != 0 : group && !is_first_of_group(table, i))
            continue;
        fprintf(to, " '%.*s:", group ? (int)first : (int)strlen(table[i]->name + n), table[i]->name + n);
        zsh_text(to, group ? "several commands" : table[i]->summary);
        fputc('\'', to);
    }
}

static void zsh(FILE *to, const struct command *const *table)
{
    fputs("#compdef fedstill\n# Made by \"fedstill --completion zsh\"; change the commands' tables instead.\n"
          "_fedstill() {\n    local command=$words[2]\n    local -a names\n"
          "    if (( CURRENT == 2 )); then\n        names=(",
          to);
    zsh_names(to, table, 0, false);
    fputs(" 'help:Show help')\n        _describe command names\n        return\n    fi\n    case $command in\n", to);
    for (size_t i = 0; table[i]; i++) {
        if (!is_first_of_group(table, i))
            continue;
        fprintf(to, "    %.*s)\n        if (( CURRENT == 3 )); then\n            names=(",
                (int)strcspn(table[i]->name, " "), table[i]->name);
        zsh_names(to, table, i, true);
        fputs(")\n            _describe command names\n            return\n        fi\n"
              "        command=\"$command $words[3]\"\n        shift words\n        (( CURRENT-- )) ;;\n",
              to);
    }
    fputs("    esac\n    shift words\n    (( CURRENT-- ))\n    case $command in\n", to);
    for (size_t i = 0; table[i]; i++)
        zsh_command(to, table[i]);
    fputs("    esac\n}\n_fedstill \"$@\"\n", to);
}

bool completion(FILE *to, const char *shell, const struct command *const *table)
{
    if (!strcmp(shell, "bash"))
        bash(to, table);
    else if (!strcmp(shell, "zsh"))
        zsh(to, table);
    else
        return false;
    return true;
}
