/* Between main.c, opt.c and help.c: command lines parsed by the commands' tables, and the tables printed.
 * Commands themselves need only cmd.h. */
#ifndef FEDSTILL_OPT_H
#define FEDSTILL_OPT_H

#include <stdio.h>

#include "cmd.h"

/* --help and --quiet, understood by every command. */
extern const struct option_spec common_options[];

/* Parses the words behind the command's name. FST_E_ARGUMENT for wrong usage. */
FST_MUST fst_status options_parse(struct options **out, const struct command *c, int argc, char *const *argv,
                                  fst_error *err);
void options_free(struct options *o);

/* The candidate that `word` was probably meant to be, NULL when none is near. */
const char *nearest(const char *word, const char *const *candidates, size_t n);

/* help.c. A table ends with NULL. */
void help_command(FILE *to, const struct command *c);
void help_overview(FILE *to, const struct command *const *table);
void man_page(FILE *to, const struct command *const *table);

/* complete.c. Prints a shell's completions; false: not for this shell. */
bool completion(FILE *to, const char *shell, const struct command *const *table);

#endif
