/*
 * fedstill/fleet_run.h - a task's federation over a network: a cloud that runs the task, and sites that train.
 *
 * The cloud is fst_task_run with the clients of its federated stages in other processes, and leaves what that leaves,
 * to the same bits when every client takes part. Sites open the same task with their own samples. All meet at an MQTT
 * broker (fedstill/transport.h). Any of them, and the broker, may be killed at any moment and started again;
 * docs/fleet.md says what happens then, docs/protocol.md what they say to each other.
 */
#ifndef FEDSTILL_FLEET_RUN_H
#define FEDSTILL_FLEET_RUN_H

#include "fedstill/task.h"
#include "fedstill/transport.h"

FST_BEGIN_DECLS

/* Where the broker is and who we are there. */
typedef struct fst_fleet_link {
    const char *url;             /* as fst_mqtt_options has it */
    const char *name;            /* client id, the certificate's name ("g1.edge-1"); NULL: the site's id */
    const char *ca, *cert, *key; /* PEM files; NULL with plain text */
} fst_fleet_link;

/* What the cloud's waiting is limited by. 0: the default. */
typedef struct fst_fleet_limits {
    double join_deadline; /* seconds until all clients of a stage must have joined, or the run fails (600) */
    double deadline;      /* seconds of a round (600); at its end the round is extended, see extensions */
    uint32_t extensions;  /* deadlines more before a round that is too small fails the run (3) */
} fst_fleet_limits;

/* A site as others see it, for the terminal. */
typedef struct fst_fleet_view {
    const char *id;
    const char *state; /* "train" */
    bool present;
    double heard; /* seconds ago; infinity: never */
} fst_fleet_view;

/* A web page about the cloud or the edge, see fedstill/dashboard.h; address NULL: none. */
typedef struct fst_fleet_http {
    const char *address, *token_file;
    const char *roster; /* folder of a fleet (fedstill/fleet.h), for how long certificates last, at the cloud; NULL: not
                         * known */
} fst_fleet_http;

typedef struct fst_fleet_options {
    fst_task_options task; /* `rounds` is set by the cloud; `stop` ends cloud and sites in good order */
    fst_fleet_link link;
    fst_fleet_link local; /* an edge's: where its devices are; url NULL: it has none */
    bool no_devices;      /* a cloud's: the cascade's stages run in its process, whatever devices there are */
    fst_fleet_limits limits;
    fst_fleet_http http; /* the cloud's, or the edge's */
    /* The cloud's sites, when one of them changed, about once a second at most; may be NULL. Called from another
     * thread. */
    void (*sites)(void *ctx, const fst_fleet_view *site, size_t count);
    void *ctx;
} fst_fleet_options;

/* Runs the task, with the sites of its federated stages elsewhere. Their ids are NOUN-1, NOUN-2 ... as fst_task_clients
 * has them. At the end the sites are let go. */
FST_MUST FST_API fst_status fst_fleet_cloud(fst_task *t, const fst_fleet_options *o, fst_error *err);
/* A site of that name, "edge-2": takes part until the cloud lets it go. Its files are in the task's output, fleet/ID. A
 * refusal by the cloud is FST_E_CONFIG with the reason. */
FST_MUST FST_API fst_status fst_fleet_site_run(fst_task *t, const char *id, const fst_fleet_options *o, fst_error *err);
/* A device of that name, "device-3": its windows are classified by its edge and the cloud, in the task's stage
 * cloud_infer; until its edge lets it go. It keeps no file. A refusal by the edge is FST_E_CONFIG with the reason. */
FST_MUST FST_API fst_status fst_fleet_device(fst_task *t, const char *id, const fst_fleet_options *o, fst_error *err);

FST_END_DECLS

#endif
