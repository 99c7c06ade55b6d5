/* Between cmd_data.c and cmd_data_tiers.c: the options of everything that opens data. */
#ifndef FEDSTILL_CMD_DATA_H
#define FEDSTILL_CMD_DATA_H

#include "common.h"

extern const char *const data_splits[];

#define SPLIT_OPTION                                                                                              \
    {                                                                                                             \
        .name = "split", .argument = "SPLIT", .type = OPTION_STRING, .fallback = "train", .choices = data_splits, \
        .help = "Which part of the data (val: array, sigmf and radioml only)."                                    \
    }
#define FORMAT_OPTION                                                                                          \
    {                                                                                                          \
        .name = "format", .argument = "FORMAT", .type = OPTION_STRING,                                         \
        .help = "idx, cifar10, cifar100, array, sigmf, radioml or folder (default: what the path looks like)." \
    }
#define WINDOW_OPTION                                                                                    \
    {                                                                                                    \
        .name = "window", .argument = "L", .type = OPTION_INT, .min = 1, .max = 1000000000,              \
        .help = "sigmf: complex samples a window (default: the annotations' length, when all have one)." \
    }

/* Opens operand 0 as the options say. */
FST_MUST fst_status open_data(fst_source **out, const struct options *o, const char *limit, fst_error *err);
bool is_empty_folder(const char *path);
/* data split --out */
FST_MUST fst_status split_tiers(const struct options *o, fst_error *err);

#endif
