/* fleet_link.h - the options with which the processes of a fleet find their broker and say who they are. */
#ifndef FEDSTILL_FLEET_LINK_H
#define FEDSTILL_FLEET_LINK_H

#include "cmd.h"
#include "fedstill/fleet.h"
#include "fedstill/fleet_run.h"

#define LINK_OPTIONS                                                                                          \
    {.name = "credentials",                                                                                   \
     .letter = 'k',                                                                                           \
     .argument = "DIR",                                                                                       \
     .type = OPTION_STRING,                                                                                   \
     .fallback = ".",                                                                                         \
     .help = "Folder with this one's key and what fedstill fleet install made of ID.fleet."},                 \
        {.name = "connect",                                                                                   \
         .letter = 'c',                                                                                       \
         .argument = "URL",                                                                                   \
         .type = OPTION_STRING,                                                                               \
         .help = "The broker, mqtts://HOST[:PORT], where it is not what ID.fleet says."},                     \
    {                                                                                                         \
        .name = "plain-text", .type = OPTION_FLAG,                                                            \
        .help = "Allow mqtt://, without encryption and without knowing who is who: for tests on one machine." \
    }

struct fleet_link {
    fst_fleet_link link;
    fst_identity identity;
    bool loaded;
};

/* FST_E_CONFIG says what is missing. To be released in any case. */
fst_status fleet_link_of(struct fleet_link *out, const struct options *o, const char *id, fst_error *err);
/* The same of an installed identity. */
fst_status fleet_link_load(struct fleet_link *out, const char *folder, const char *id, fst_error *err);
void fleet_link_release(struct fleet_link *l);

#endif
