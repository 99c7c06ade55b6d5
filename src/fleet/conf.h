/* Texts that other programs read: mosquitto's configurations and access lists, systemd units, a container file. Pure
 * functions of what they are given; every word that comes from outside was checked before. */
#ifndef FST_FLEET_CONF_H
#define FST_FLEET_CONF_H

#include "roster.h"

/* Paths go into configurations a line each: no control characters. FST_E_CONFIG. */
FST_MUST fst_status fst__path_check(const char *path, fst_error *err);

/* "mqtts://hub:8883" and "hub:8883" of the first of the hosts ("" stands for 127.0.0.1). */
FST_MUST fst_status fst__url(const char *hosts, int port, char out[FST_FLEET_URL], fst_error *err);
FST_MUST fst_status fst__address(const char *hosts, int port, char out[FST_FLEET_URL], fst_error *err);

FST_MUST fst_status fst__conf_hub(fst_buf *out, const struct fst__roster *r, const char *folder, fst_error *err);
FST_MUST fst_status fst__conf_hub_acl(fst_buf *out, const struct fst__roster *r, fst_error *err);

/* An edge's own broker: its devices and the edge itself, and no way to the hub. */
struct fst__edge_broker {
    char id[FST_SITE_ID], name[FST_SITE_NAME], local_name[FST_SITE_NAME];
    char hub[FST_FLEET_URL]; /* HOST:PORT */
    char bind[64];
    int port;
    char (*devices)[FST_SITE_NAME]; /* "g1.device-1" */
    size_t n;
};
FST_MUST fst_status fst__conf_edge(fst_buf *out, const struct fst__edge_broker *b, const char *folder, fst_error *err);
FST_MUST fst_status fst__conf_edge_acl(fst_buf *out, const struct fst__edge_broker *b, fst_error *err);

/* Units. `conf` names the broker's configuration in the folder. */
FST_MUST fst_status fst__unit_broker(fst_buf *out, const char *folder, const char *conf, fst_error *err);
FST_MUST fst_status fst__unit_site(fst_buf *out, const char *folder, fst_role role, const char *id, const char *url,
                                   fst_error *err);
FST_MUST fst_status fst__container_file(fst_buf *out, const char *folder, int port, fst_error *err);

/* The part of "gN.ID" behind the point; NULL when it is no such name. */
const char *fst__id_of_name(const char *name);

#endif
