/* A whole fleet for one machine, to be thrown away: the same requests, enrolments and files as of a real one, with
 * nobody asked and brokers on ports of 127.0.0.1. Removes nothing: the caller made up the folder's name. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "bundle.h"

enum { MAX_LOCAL = 256 };

struct local {
    char *hub, *site; /* folders: of the fleet, of the site at hand */
    int ports[MAX_LOCAL + 1];
    int n;
};

/* A free port that is none of those that were given out. */
static fst_status next_port(struct local *l, int *port, fst_error *err)
{
    bool taken = true;
    fst_status s = FST_OK;
    while (!s && taken) {
        s = fst_free_port(port, err);
        taken = false;
        for (int i = 0; i < l->n; i++)
            taken = taken || l->ports[i] == *port;
    }
    if (!s)
        l->ports[l->n++] = *port;
    return s;
}

static fst_status go_to(struct local *l, const char *folder, const char *id, fst_error *err)
{
    fst_free(l->site);
    l->site = fst_path_join(folder, id);
    if (!l->site)
        return fst_fail_memory(err, strlen(folder));
    return mkdir(l->site, 0700) ? fst_fail_errno(err, "cannot make folder %s", l->site) : FST_OK;
}

static fst_status enroll(struct local *l, const char *folder, const char *id, fst_role role, const char *edge,
                         fst_error *err)
{
    char *csr = NULL;
    int port = 0;
    fst_status s = go_to(l, folder, id, err);
    if (!s)
        s = fst_fleet_request(NULL, l->site, id, role, edge, err);
    if (!s)
        s = fst__file_of(&csr, l->site, id, ".csr", err);
    if (!s && role == FST_ROLE_EDGE)
        s = next_port(l, &port, err);
    if (!s)
        s = fst_fleet_enroll(l->hub, csr, NULL, NULL, port, err);
    fst_free(csr);
    return s;
}

static fst_status install(struct local *l, const char *folder, const char *id, fst_error *err)
{
    char *bundle = NULL;
    fst_status s = fst__file_of(&bundle, l->hub, id, ".fleet", err);
    fst_free(l->site);
    l->site = s ? NULL : fst_path_join(folder, id);
    if (!s && !l->site)
        s = fst_fail_memory(err, strlen(folder));
    if (!s)
        s = fst_fleet_install(bundle, l->site, false, err);
    fst_free(bundle);
    return s;
}

static fst_status add_edge(struct local *l, const char *folder, const char *noun, int number, int devices, int *first,
                           fst_error *err)
{
    char edge[FST_SITE_ID], device[FST_SITE_ID];
    snprintf(edge, sizeof edge, "%.20s-%d", noun, number);
    fst_status s = enroll(l, folder, edge, FST_ROLE_EDGE, NULL, err);
    for (int i = 0; !s && i < devices; i++) {
        snprintf(device, sizeof device, "device-%d", *first + i);
        s = enroll(l, folder, device, FST_ROLE_DEVICE, edge, err);
        if (!s)
            s = install(l, folder, device, err);
    }
    *first += devices;
    return s ? s : install(l, folder, edge, err); /* last: its bundle names its devices */
}

fst_status fst_fleet_local(const char *folder, const fst_local_fleet *what, fst_error *err)
{
    struct local l = {0};
    int first = 1;
    fst_fleet_setup setup = {.hosts = "127.0.0.1", .bind = "127.0.0.1"};
    if (what->edges < 0 || what->edges > MAX_LOCAL)
        return fst_fail(err, FST_E_ARGUMENT, "%d edges; a fleet on one machine has up to %d", what->edges, MAX_LOCAL);
    fst_status s = fst_make_folders(folder, err);
    if (!s && !(l.hub = fst_path_join(folder, "hub")))
        s = fst_fail_memory(err, strlen(folder));
    if (!s)
        s = next_port(&l, &setup.port, err);
    if (!s)
        s = fst_fleet_init(l.hub, &setup, err);
    for (int i = 0; !s && i < what->edges; i++)
        s = add_edge(&l, folder, what->noun ? what->noun : "edge", i + 1, what->devices ? what->devices[i] : 0, &first,
                     err);
    fst_free(l.hub);
    fst_free(l.site);
    return s;
}
