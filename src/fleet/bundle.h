/* ID.fleet: what a site gets back, and is at the hub the only place of its certificates. No secret is in it. */
#ifndef FST_FLEET_BUNDLE_H
#define FST_FLEET_BUNDLE_H

#include "conf.h"

struct fst__bundle {
    char id[FST_SITE_ID], edge[FST_SITE_ID], name[FST_SITE_NAME];
    fst_role role;
    char url[FST_FLEET_URL];
    char *authority, *revocation_list, *certificate; /* PEM */
    char seat_name[FST_SITE_NAME];                   /* a stand-by cloud, else "" */
    char *seat;
    struct fst__edge_broker broker; /* an edge */
    char *local_certificate, *broker_certificate;
};
FST_MUST fst_status fst__bundle_parse(struct fst__bundle *out, const char *name, const char *text, size_t len,
                                      fst_error *err);
FST_MUST fst_status fst__bundle_read(struct fst__bundle *out, const char *path, fst_error *err);
FST_MUST fst_status fst__bundle_write(const struct fst__bundle *b, const char *path, fst_error *err);
void fst__bundle_release(struct fst__bundle *b);
/* Writes a file unless it holds these bytes already. */
FST_MUST fst_status fst__write_changed(const char *path, const fst_buf *text, fst_error *err);
/* "FOLDER/ID.SUFFIX"; new memory. */
FST_MUST fst_status fst__file_of(char **out, const char *folder, const char *id, const char *suffix, fst_error *err);
/* fst_fleet_install into a folder whose files call it `known_as`: one that is renamed afterwards. */
FST_MUST fst_status fst__install(const char *bundle, const char *folder, const char *known_as, bool force,
                                 fst_error *err);

#endif
