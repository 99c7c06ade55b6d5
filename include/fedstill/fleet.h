/*
 * fedstill/fleet.h - who belongs to a fleet, and its brokers: keys, certificates, access lists, configurations of
 * mosquitto. Nothing here sends or receives a message of a federation.
 *
 * A fleet has a folder at the hub with an authority of its own (ca.key, ca.pem), the list of its sites (fleet.json, the
 * roster), and what is made of the two: hub.conf, hub.acl, crl.pem, ID.fleet, systemd units, a container file. A site's
 * private key is made at the site and stays there. The site sends a request (ID.csr); of it the authority takes the
 * public key, and for the rest its own word: the site's name in the fleet is gN.ID, N counting the enrolments of that
 * id. What the site gets back, ID.fleet, holds no secret.
 *
 * Files are written whole and synced, private keys with mode 0600. The roster is written before what is made of it, and
 * every call that changes the fleet makes all of that anew, so that one that was killed is finished by the next. Two
 * processes never change one folder at a time (FST_E_IO). Calls on different folders may run in different threads.
 *
 * Sources: RFC 5280 (certificates, revocation lists), RFC 2986 (requests), mosquitto.conf(5).
 */
#ifndef FEDSTILL_FLEET_H
#define FEDSTILL_FLEET_H

#include "fedstill/frame.h"

FST_BEGIN_DECLS

typedef enum fst_role { FST_ROLE_CLOUD, FST_ROLE_EDGE, FST_ROLE_DEVICE } fst_role;
FST_API const char *fst_role_name(fst_role r); /* "cloud", "edge", "device" */
FST_API bool fst_role_parse(const char *name, fst_role *out);

#define FST_SITE_NAME 48    /* "g1.edge-1", and "g1.edge-1-local" */
#define FST_FLEET_HOSTS 512 /* names and addresses, separated by commas */
#define FST_FLEET_URL 288

/* An id is [a-z0-9-]{1,32}, begins and ends with a letter or digit, and is none of hub, ca, crl, broker, *-local and
 * *-seat, which name other things. FST_E_CONFIG. */
FST_MUST FST_API fst_status fst_site_id_check(const char *id, fst_error *err);

/* ---- at the hub --------------------------------------------------------------------------- */

typedef struct fst_fleet_setup {
    const char *hosts; /* "hub.example,10.0.0.1": names and addresses that sites reach the hub by; the first goes into
                          their URL, all into the hub's certificate, and localhost with its addresses too */
    int port;          /* 0: 8883 */
    const char *bind;  /* the only address to listen on; NULL: all */
} fst_fleet_setup;

/* Makes the folder (mode 0700) and everything in it, the cloud's identity included: cloud.key, cloud.fleet and what
 * fst_fleet_install makes of it. FST_E_IO when the folder holds a fleet already; FST_E_CONFIG for wrong hosts. */
FST_MUST FST_API fst_status fst_fleet_init(const char *folder, const fst_fleet_setup *setup, fst_error *err);

/* What a request says. Only the key is proved; who it is from is for a human to know, by the fingerprint. */
typedef struct fst_fleet_csr {
    char id[FST_SITE_ID], edge[FST_SITE_ID]; /* edge: of a device, else "" */
    fst_role role;
    char fingerprint[FST_DIGEST_HEX]; /* SHA-256 of the public key (SubjectPublicKeyInfo) */
    bool asks_more;                   /* it asks for extensions, which nobody gets */
} fst_fleet_csr;
/* FST_E_LIMIT above 8 KiB; FST_E_FORMAT for what is no request of `fst_fleet_request` (other curves, a signature that
 * does not hold, other subjects). */
FST_MUST FST_API fst_status fst_fleet_csr_read(fst_fleet_csr *out, const char *file, fst_error *err);

/* Issues the certificates of the request for 365 days and writes FOLDER/ID.fleet. An id that is enrolled with this key
 * is renewed under the same name; with another key it is refused (revoke it first: FST_E_MISMATCH); after a revocation
 * it gets the next N, and a key that was revoked is refused. hosts (may be NULL) and port (0: 8883) are those of an
 * edge's own broker, which its devices connect to. A device's edge must be enrolled; its edge's bundle changes.
 * expected (may be NULL): what a human has seen and agreed to; FST_E_MISMATCH when the file says something else now. */
FST_MUST FST_API fst_status fst_fleet_enroll(const char *folder, const char *file, const fst_fleet_csr *expected,
                                             const char *hosts, int port, fst_error *err);
/* Certificates of the hub and of the cloud for another 365 days, with the same keys and names. */
FST_MUST FST_API fst_status fst_fleet_renew(const char *folder, fst_error *err);

/* Puts the site's certificates on the revocation list and takes its access lines away; a site that is revoked already
 * is no error, and what is made of the roster is completed. Devices of a revoked edge stay enrolled; they reach nobody.
 * Bundles of edges change (their revocation list). The hub that runs is to be told: fst_fleet_reload. */
FST_MUST FST_API fst_status fst_fleet_revoke(const char *folder, const char *id, fst_error *err);
/* Tells the running hub of new access lines, certificates and revocations: SIGHUP to the mosquitto whose number is in
 * the file (NULL: FOLDER/hub.pid). *told is false, which is no error, when none is running. */
FST_MUST FST_API fst_status fst_fleet_reload(const char *folder, const char *pid_file, bool *told, fst_error *err);

/* After both: ends the connection that the site still has, by connecting once under its name with a certificate of a
 * day, which is put on the list too; and sees by trying that the broker refuses both. The broker must be running
 * on this host. FST_E_IO: it could not be done, and why; the site is shut out all the same, its connection mute.
 * FST_E_UNSUPPORTED: a device, whose connection is to its edge. Takes a fraction of a second. */
FST_MUST FST_API fst_status fst_fleet_kick(const char *folder, const char *id, const char *pid_file, fst_error *err);

typedef struct fst_fleet_site {
    char id[FST_SITE_ID], edge[FST_SITE_ID], name[FST_SITE_NAME];
    fst_role role;
    bool revoked;
    int64_t until, revoked_at; /* seconds since 1970; until: the end of its newest certificate */
    char fingerprint[FST_DIGEST_HEX];
} fst_fleet_site;
/* The hub first, then all that was ever enrolled, in that order. The hub's id is "hub". Free *sites with fst_free. */
FST_MUST FST_API fst_status fst_fleet_list(fst_fleet_site **sites, size_t *count, const char *folder, fst_error *err);

/* ---- at a site ------------------------------------------------------------------------------- */

/* Makes ID.key (0600; one that is there is used again) and ID.csr in the folder, which is made if needed. edge: of a
 * device, else NULL. `out` (may be NULL) is what the request says. */
FST_MUST FST_API fst_status fst_fleet_request(fst_fleet_csr *out, const char *folder, const char *id, fst_role role,
                                              const char *edge, fst_error *err);

/* An installed identity. Paths are absolute. */
typedef struct fst_identity {
    char id[FST_SITE_ID], edge[FST_SITE_ID], name[FST_SITE_NAME]; /* name: user, client id and CN, "g1.edge-1" */
    fst_role role;
    char url[FST_FLEET_URL]; /* mqtts://HOST:PORT of the hub; for a device, of its edge's broker */
    int64_t until;
    char *ca, *certificate, *key;
    char *seat;                            /* a stand-by cloud: the certificate of the seat, gN.cloud */
    char *local_certificate, *broker_conf; /* an edge: for its own broker; NULL for others */
    char local_name[FST_SITE_NAME];        /* "g1.edge-1-local" */
    char local_url[FST_FLEET_URL];         /* mqtts://localhost:PORT */
    char seat_name[FST_SITE_NAME];         /* "g1.cloud" */
} fst_identity;
/* Checks ID.fleet against ID.key in the folder (key, authority, name, dates) and writes the files that libmosquitto and
 * mosquitto want: ca.pem, crl.pem, ID.pem, and for an edge ID-local.pem, broker.pem, broker.conf, broker.acl and units.
 * Nothing is written when something is wrong. An edge's broker that runs is to be told (SIGHUP). A bundle that is older
 * than the one that is installed (an earlier enrolment or certificate, or an earlier revocation list, of the same
 * authority) is FST_E_MISMATCH unless forced: it would bring back what was revoked or renewed. */
FST_MUST FST_API fst_status fst_fleet_install(const char *bundle, const char *folder, bool force, fst_error *err);
/* Reads what was installed. FST_E_CONFIG when there is no ID.fleet, in words that say how to get one; an expired
 * certificate is FST_E_CONFIG too. */
FST_MUST FST_API fst_status fst_identity_load(fst_identity *out, const char *folder, const char *id, fst_error *err);
FST_API void fst_identity_release(fst_identity *i);

/* ---- brokers ------------------------------------------------------------------------------------ */

typedef struct fst_broker fst_broker;
/* Starts mosquitto as a child with this configuration and waits, at most 10 s, until it listens on the port, and on no
 * other: FST_E_IO otherwise, with the last lines of its log. It writes to `log`, which is made anew. It ends when the
 * thread that started it ends. Its allocator keeps large buffers (MALLOC_TRIM_THRESHOLD_ and its like), without which
 * messages of 512 KiB are several times slower. */
FST_MUST FST_API fst_status fst_broker_start(fst_broker **out, const char *conf, const char *log, int port,
                                             fst_error *err);
FST_API bool fst_broker_alive(fst_broker *b);
FST_API int64_t fst_broker_pid(const fst_broker *b);
/* SIGTERM, and after 3 s SIGKILL; frees it. Takes NULL. */
FST_API void fst_broker_stop(fst_broker *b);
/* The ports that a process listens on (TCP), pid 0: that anybody on this machine listens on. Ascending, at most `most`;
 * returns how many. */
FST_API size_t fst_listening_ports(int64_t pid, int *ports, size_t most);
/* A port of 127.0.0.1 that nobody uses at the moment. */
FST_MUST FST_API fst_status fst_free_port(int *port, fst_error *err);

/* ---- a fleet on this machine ------------------------------------------------------------------- */

typedef struct fst_local_fleet {
    int edges;          /* edge-1 ... */
    const int *devices; /* of each edge; device-1 ... counted through. NULL: none */
    const char *noun;   /* instead of "edge" in their ids; NULL: that */
} fst_local_fleet;
/* A whole fleet for one machine in a new or empty folder: FOLDER/hub (the fleet's, where the cloud's identity is
 * installed too), and FOLDER/ID with key and installed identity for every edge and device. Brokers listen on free ports
 * of 127.0.0.1 only, an edge's only when it has devices (otherwise it has no broker.conf). Nobody is asked. */
FST_MUST FST_API fst_status fst_fleet_local(const char *folder, const fst_local_fleet *what, fst_error *err);
/* The port that a configuration listens on: of FOLDER/hub.conf or FOLDER/broker.conf. */
FST_MUST FST_API fst_status fst_broker_port(int *port, const char *conf, fst_error *err);

FST_END_DECLS

#endif
