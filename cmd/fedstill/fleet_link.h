/* fleet_link.h - the options with which the processes of a fleet find their broker and say who they are. */
#ifndef FEDSTILL_FLEET_LINK_H
#define FEDSTILL_FLEET_LINK_H

#include "cmd.h"
#include "fedstill/fleet_run.h"

#define LINK_OPTIONS                                                                                                \
    {.name = "connect",                                                                                             \
     .letter = 'c',                                                                                                 \
     .argument = "URL",                                                                                             \
     .type = OPTION_STRING,                                                                                         \
     .help = "The broker: mqtts://HOST[:PORT], port 8883."},                                                        \
        {.name = "credentials",                                                                                     \
         .argument = "DIR",                                                                                         \
         .type = OPTION_STRING,                                                                                     \
         .help =                                                                                                    \
             "Folder with ca.pem, ID.pem and ID.key: the authority of the fleet, this one's certificate and key."}, \
    {                                                                                                               \
        .name = "plain-text", .type = OPTION_FLAG,                                                                  \
        .help = "Allow mqtt://, without encryption and without knowing who is who: for tests on one machine."       \
    }

/* Paths are new memory, until fleet_link_release. FST_E_CONFIG says what is missing. */
fst_status fleet_link_of(fst_fleet_link *out, const struct options *o, const char *id, fst_error *err);
void fleet_link_release(fst_fleet_link *l);

#endif
