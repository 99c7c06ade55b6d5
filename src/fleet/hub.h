/* hub.h - an open fleet's folder, for what changes it (fleet.c, revoke.c). */
#ifndef FST_FLEET_HUB_H
#define FST_FLEET_HUB_H

#include "roster.h"

/* Files are written into `folder` and call it `known_as`, which differ while init makes it. */
struct hub {
    char *folder, *known_as;
    int lock;
    struct fst__roster roster;
    struct fst__ca ca;
};
/* Locks it, and reads roster and authority. */
FST_MUST fst_status fst__hub_open(struct hub *h, const char *folder, fst_error *err);
void fst__hub_release(struct hub *h);
FST_MUST fst_status fst__hub_save(const struct hub *h, fst_error *err); /* the roster */
/* Makes everything else from the roster: revocation list, access lists, configurations, bundles of edges. */
FST_MUST fst_status fst__hub_refresh(const struct hub *h, fst_error *err);

#endif
