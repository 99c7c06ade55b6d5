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

/* A web page about the cloud or the edge. */
#define HTTP_OPTIONS                                                                                             \
    {.name = "http",                                                                                             \
     .argument = "[ADDRESS:]PORT",                                                                               \
     .type = OPTION_STRING,                                                                                      \
     .help = "Show the run on a web page, and /metrics for Prometheus; read-only. Without ADDRESS on 127.0.0.1 " \
             "alone; elsewhere it needs --http-token, and a reverse proxy for TLS. Port 0: any; the log says."}, \
    {                                                                                                            \
        .name = "http-token", .argument = "FILE", .type = OPTION_STRING,                                         \
        .help = "A file (mode 600) with one line: the token that whoever asks for data must send, as "           \
                "Authorization: Bearer TOKEN. The page asks for it."                                             \
    }
/* The modes that a cloud may run. */
extern const char *const fleet_modes[];
#define FLEET_MODE_OPTION                                                                                           \
    {                                                                                                               \
        .name = "mode", .letter = 'm', .argument = "MODE", .type = OPTION_STRING, .fallback = "full_train",         \
        .choices = fleet_modes,                                                                                     \
        .help = "Which of the task's stages to run; full_pipeline and device_to_...: also those that devices take " \
                "part in."                                                                                          \
    }

struct fleet_link {
    fst_fleet_link link;
    fst_identity identity;
    bool loaded;
};

/* FST_E_CONFIG says what is missing. To be released in any case. */
fst_status fleet_link_of(struct fleet_link *out, const struct options *o, const char *id, fst_error *err);
/* An edge's link to its devices: --local, or what its ID.fleet says, or in plain text the same broker. url NULL: none.
 */
fst_status fleet_link_local(const struct fleet_link *l, const struct options *o, fst_fleet_link *out, fst_error *err);
/* The same of an installed identity. */
fst_status fleet_link_load(struct fleet_link *out, const char *folder, const char *id, fst_error *err);
void fleet_link_release(struct fleet_link *l);
/* --http and --http-token; roster: the fleet's folder, or NULL. FST_E_CONFIG: a token without a page. */
fst_status fleet_http_of(fst_fleet_http *out, const struct options *o, const char *roster, fst_error *err);

#endif
