/* fleet.json: who belongs to a fleet and which certificates were issued. Issues none itself. */
#ifndef FST_FLEET_ROSTER_H
#define FST_FLEET_ROSTER_H

#include "ca.h"

enum { FST__MAX_SITES = 20000, FST__MAX_ROSTER = 64 * 1024 * 1024, FST__MAX_CERTIFICATES = 1000, FST__PORT = 8883 };

/* Every certificate that was issued and has not expired is listed, so that it can be revoked. */
struct fst__issued {
    char name[FST_SITE_NAME], serial[FST__SERIAL];
    int64_t until;
};
struct fst__site { /* one enrolment of one id */
    char id[FST_SITE_ID], edge[FST_SITE_ID], fingerprint[FST_DIGEST_HEX];
    fst_role role;
    int generation;
    bool revoked;
    int64_t revoked_at;
    char hosts[FST_FLEET_HOSTS]; /* of an edge's broker; "" for others */
    int port;                    /* the same; 0 */
    struct fst__issued *issued;  /* the newest last */
    size_t n;
};
struct fst__roster {
    char hosts[FST_FLEET_HOSTS], bind[64];
    int port;
    int64_t crl;           /* number of the last revocation list */
    struct fst__site *hub; /* sites[0]: id "hub"; its certificates are of the broker */
    struct fst__site *sites;
    size_t n;
};

FST_MUST fst_status fst__roster_read(struct fst__roster *out, const char *path, fst_error *err);
FST_MUST fst_status fst__roster_write(const struct fst__roster *r, const char *path, fst_error *err);
void fst__roster_release(struct fst__roster *r);

/* The enrolment of this id that holds, NULL when there is none. */
struct fst__site *fst__roster_find(const struct fst__roster *r, const char *id);
/* How often this id was enrolled. */
int fst__roster_generation(const struct fst__roster *r, const char *id);
/* Appends a copy (its list is taken over). Pointers into the list are no longer good. */
FST_MUST fst_status fst__roster_add(struct fst__roster *r, const struct fst__site *site, fst_error *err);
/* Notes a certificate, and forgets those that have expired. */
FST_MUST fst_status fst__site_issued(struct fst__site *site, const char *name, const char *serial, int64_t until,
                                     fst_error *err);
/* "g1.edge-1" and, with "-local" behind it, the name of an edge at its own broker. */
void fst__site_name(const struct fst__site *site, char out[FST_SITE_NAME]);
void fst__site_local_name(const struct fst__site *site, char out[FST_SITE_NAME]);
int64_t fst__site_until(const struct fst__site *site); /* 0: nothing was issued */

#endif
