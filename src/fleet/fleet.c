/*
 * A fleet's folder at the hub: init, enroll, renew, list; revoke.c has revoke. Each call that changes something locks
 * the folder, reads the roster, decides, writes the roster, and then makes everything else from it (`refresh`). Killed
 * in between, the roster says what was decided and the next call makes the rest.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bundle.h"
#include "ca_private.h"
#include "hub.h"

enum { DAYS = 365, ALL_HOSTS = FST_FLEET_HOSTS + 32 };

void fst__hub_release(struct hub *h)
{
    fst__roster_release(&h->roster);
    fst__ca_release(&h->ca);
    if (h->lock > 0)
        fst_file_unlock(h->lock);
    fst_free(h->folder);
    fst_free(h->known_as);
    *h = (struct hub){0};
}

static fst_status hub_path(char **out, const struct hub *h, const char *name, fst_error *err)
{
    return fst__file_of(out, h->folder, name, "", err);
}

static fst_status load_ca(struct hub *h, fst_error *err)
{
    char *key = NULL, *certificate = NULL;
    fst_status s = hub_path(&key, h, "ca.key", err);
    if (!s)
        s = hub_path(&certificate, h, "ca.pem", err);
    if (!s)
        s = fst__ca_load(&h->ca, key, certificate, err);
    fst_free(key);
    fst_free(certificate);
    return s;
}

static fst_status load_roster(struct hub *h, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_path(&path, h, "fleet.json", err);
    if (!s && !fst_file_exists(path))
        s = fst_fail(err, FST_E_CONFIG, "%s: is no fleet (fleet.json is missing); `fedstill fleet init` makes one",
                     h->folder);
    if (!s)
        s = fst__roster_read(&h->roster, path, err);
    fst_free(path);
    return s;
}

static fst_status hub_folder(struct hub *h, const char *folder, fst_error *err)
{
    char *real = realpath(folder, NULL);
    if (!real)
        return fst_fail_errno(err, "%s", folder);
    h->folder = fst_strdup(real);
    h->known_as = fst_strdup(real);
    free(real);
    return h->folder && h->known_as ? fst__path_check(h->folder, err) : fst_fail_memory(err, PATH_MAX);
}

fst_status fst__hub_open(struct hub *h, const char *folder, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_folder(h, folder, err);
    if (!s)
        s = load_roster(h, err); /* before a lock is put into a folder that is no fleet's */
    if (!s)
        s = hub_path(&path, h, ".lock", err);
    if (!s)
        s = fst_file_lock(&h->lock, path, err);
    fst__roster_release(&h->roster);
    if (!s)
        s = load_roster(h, err);
    if (!s)
        s = load_ca(h, err);
    fst_free(path);
    if (s)
        fst__hub_release(h);
    return s;
}

fst_status fst__hub_save(const struct hub *h, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_path(&path, h, "fleet.json", err);
    if (!s)
        s = fst__roster_write(&h->roster, path, err);
    fst_free(path);
    return s;
}

/* ---- what is made of the roster ----------------------------------------------------------- */

static fst_status write_text(const struct hub *h, const char *name, const fst_buf *text, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_path(&path, h, name, err);
    if (!s)
        s = fst__write_changed(path, text, err);
    fst_free(path);
    return s;
}

/* Certificates of revoked enrolments, until they expire by themselves. */
static fst_status make_crl(const struct hub *h, fst_buf *pem, fst_error *err)
{
    const struct fst__roster *r = &h->roster;
    int64_t now = fst_clock_unix_ms() / 1000;
    size_t all = 0, n = 0;
    for (size_t i = 0; i < r->n; i++)
        all += r->sites[i].revoked ? r->sites[i].n : 0;
    struct fst__revoked *list = fst_calloc(all + 1, sizeof *list);
    if (!list)
        return fst_fail_memory(err, all * sizeof *list);
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; r->sites[i].revoked && k < r->sites[i].n; k++)
            if (r->sites[i].issued[k].until > now - 2 * FST__DAY)
                list[n++] = (struct fst__revoked){r->sites[i].issued[k].serial, r->sites[i].revoked_at};
    fst_status s = fst__ca_crl(&h->ca, list, n, r->crl, pem, err);
    fst_free(list);
    return s;
}

/* The revocation list of the roster: the one that is there when it has the right number. */
static fst_status refresh_crl(const struct hub *h, fst_buf *pem, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_path(&path, h, "crl.pem", err);
    if (!s && fst_file_exists(path)) {
        s = fst_file_read(path, FST__MAX_ROSTER, pem, err);
        if (!s && fst__crl_is_number(pem->data, pem->len, h->roster.crl)) {
            fst_free(path);
            return FST_OK;
        }
        fst_buf_release(pem);
    }
    if (!s)
        s = make_crl(h, pem, err);
    if (!s)
        s = fst_file_write(path, pem->data, pem->len, err);
    fst_free(path);
    return s;
}

static fst_status list_devices(struct fst__edge_broker *b, const struct fst__roster *r, fst_error *err)
{
    char(*names)[FST_SITE_NAME] = fst_calloc(r->n + 1, sizeof *names);
    size_t n = 0;
    if (!names)
        return fst_fail_memory(err, r->n * sizeof *names);
    for (size_t i = 1; i < r->n; i++)
        if (!r->sites[i].revoked && r->sites[i].role == FST_ROLE_DEVICE && !strcmp(r->sites[i].edge, b->id))
            fst__site_name(&r->sites[i], names[n++]);
    fst_free(b->devices);
    b->devices = names;
    b->n = n;
    return FST_OK;
}

/* An edge's bundle with its devices of now and the revocation list of now. One that was removed is made by enrolling.
 */
static fst_status refresh_edge(const struct hub *h, const struct fst__site *edge, const fst_buf *crl, fst_error *err)
{
    struct fst__bundle b = {0};
    char *path = NULL;
    fst_status s = fst__file_of(&path, h->folder, edge->id, ".fleet", err);
    if (s || !fst_file_exists(path)) {
        fst_free(path);
        return s;
    }
    s = fst__bundle_read(&b, path, err);
    if (!s) {
        fst_free(b.revocation_list);
        b.revocation_list = fst_strdup(crl->data);
        s = b.revocation_list ? list_devices(&b.broker, &h->roster, err) : fst_fail_memory(err, crl->len);
    }
    if (!s)
        s = fst__bundle_write(&b, path, err);
    fst_free(path);
    fst__bundle_release(&b);
    return s;
}

static fst_status refresh_hub(const struct hub *h, fst_error *err)
{
    fst_buf conf = {0}, acl = {0}, unit = {0}, container = {0};
    fst_status s = fst__conf_hub(&conf, &h->roster, h->known_as, err);
    if (!s)
        s = fst__conf_hub_acl(&acl, &h->roster, err);
    if (!s)
        s = fst__unit_broker(&unit, h->known_as, "hub.conf", err);
    if (!s)
        s = fst__container_file(&container, h->known_as, h->roster.port, err);
    if (!s)
        s = write_text(h, "hub.acl", &acl, err);
    if (!s)
        s = write_text(h, "hub.conf", &conf, err);
    if (!s)
        s = write_text(h, "fedstill-hub.service", &unit, err);
    if (!s)
        s = write_text(h, "Containerfile", &container, err);
    fst_buf_release(&conf);
    fst_buf_release(&acl);
    fst_buf_release(&unit);
    fst_buf_release(&container);
    return s;
}

fst_status fst__hub_refresh(const struct hub *h, fst_error *err)
{
    fst_buf crl = {0};
    fst_status s = refresh_crl(h, &crl, err);
    if (!s)
        s = refresh_hub(h, err);
    for (size_t i = 1; !s && i < h->roster.n; i++)
        if (h->roster.sites[i].role == FST_ROLE_EDGE && !h->roster.sites[i].revoked)
            s = refresh_edge(h, &h->roster.sites[i], &crl, err);
    fst_buf_release(&crl);
    return s;
}

/* ---- issuing ------------------------------------------------------------------------------ */

/* A certificate for `name`, noted in the roster; *pem is new text. */
static fst_status issue(const struct hub *h, struct fst__site *site, EVP_PKEY *key, const char *name, const char *hosts,
                        char **pem, fst_error *err)
{
    int64_t now = fst_clock_unix_ms() / 1000;
    char serial[FST__SERIAL];
    fst_buf text = {0};
    /* A day into the past: clocks differ. */
    const struct fst__certificate_spec spec = {name, key, hosts != NULL, hosts, now - FST__DAY, now + DAYS * FST__DAY};
    fst_status s = fst__ca_issue(&h->ca, &spec, &text, serial, err);
    if (!s)
        s = fst__site_issued(site, name, serial, spec.until, err);
    if (s)
        fst_buf_release(&text);
    else
        *pem = text.data;
    return s;
}

/* Names that are always right on the host itself are added. */
static void all_hosts(const char *hosts, char out[ALL_HOSTS])
{
    snprintf(out, ALL_HOSTS, "%s%slocalhost,127.0.0.1,::1", hosts, *hosts ? "," : "");
}

static fst_status issue_edge(const struct hub *h, struct fst__site *site, EVP_PKEY *key, struct fst__bundle *b,
                             fst_error *err)
{
    char hosts[ALL_HOSTS];
    struct fst__edge_broker *e = &b->broker;
    snprintf(e->id, sizeof e->id, "%s", site->id);
    fst__site_name(site, e->name);
    fst__site_local_name(site, e->local_name);
    snprintf(e->bind, sizeof e->bind, "%s", *site->hosts ? "" : "127.0.0.1");
    e->port = site->port;
    all_hosts(site->hosts, hosts);
    fst_status s = fst__address(h->roster.hosts, h->roster.port, e->hub, err);
    if (!s)
        s = issue(h, site, key, e->local_name, NULL, &b->local_certificate, err);
    if (!s)
        s = issue(h, site, key, e->local_name, hosts, &b->broker_certificate, err);
    return s ? s : list_devices(e, &h->roster, err);
}

/* Where a site connects to: a device to its edge, others to the hub. */
static fst_status url_of(const struct hub *h, const struct fst__site *site, char out[FST_FLEET_URL], fst_error *err)
{
    const struct fst__site *edge = site->edge[0] ? fst__roster_find(&h->roster, site->edge) : NULL;
    return edge ? fst__url(edge->hosts, edge->port, out, err) : fst__url(h->roster.hosts, h->roster.port, out, err);
}

static fst_status issue_all(const struct hub *h, struct fst__site *site, EVP_PKEY *key, struct fst__bundle *b,
                            fst_error *err)
{
    fst_buf ca = {0}, crl = {0};
    const struct fst__site *cloud = fst__roster_find(&h->roster, "cloud");
    snprintf(b->id, sizeof b->id, "%s", site->id);
    snprintf(b->edge, sizeof b->edge, "%s", site->edge);
    b->role = site->role;
    fst__site_name(site, b->name);
    fst_status s = url_of(h, site, b->url, err);
    if (!s)
        s = fst__certificate_pem(h->ca.certificate, &ca, err);
    if (!s)
        s = refresh_crl(h, &crl, err);
    b->authority = ca.data;
    b->revocation_list = crl.data;
    if (!s && site->role == FST_ROLE_EDGE)
        s = issue_edge(h, site, key, b, err);
    if (!s && site->role == FST_ROLE_CLOUD && strcmp(site->id, "cloud") && cloud) {
        fst__site_name(cloud, b->seat_name); /* with its own key: a stand-by takes the cloud's seat at the broker */
        s = issue(h, site, key, b->seat_name, NULL, &b->seat, err);
    }
    return s ? s : issue(h, site, key, b->name, NULL, &b->certificate, err);
}

/* Issues for a site of the roster, saves the roster, then writes its bundle. */
static fst_status issue_bundle(struct hub *h, struct fst__site *site, EVP_PKEY *key, fst_error *err)
{
    struct fst__bundle b = {0};
    char *path = NULL;
    fst_status s = issue_all(h, site, key, &b, err);
    if (!s)
        s = fst__hub_save(h, err);
    if (!s)
        s = fst__file_of(&path, h->folder, site->id, ".fleet", err);
    if (!s)
        s = fst__bundle_write(&b, path, err);
    fst_free(path);
    fst__bundle_release(&b);
    return s;
}

/* ---- init and renew ------------------------------------------------------------------------ */

static fst_status issue_hub(struct hub *h, EVP_PKEY *key, fst_error *err)
{
    char hosts[ALL_HOSTS];
    fst_buf pem = {0};
    all_hosts(h->roster.hosts, hosts);
    fst_status s = issue(h, h->roster.hub, key, "hub", hosts, &pem.data, err);
    if (!s) {
        pem.len = strlen(pem.data);
        s = write_text(h, "hub.pem", &pem, err);
    }
    fst_buf_release(&pem);
    return s;
}

/* A key in the fleet's folder: made when it is not there. */
static fst_status own_key(const struct hub *h, const char *name, bool make, EVP_PKEY **key, fst_error *err)
{
    char *path = NULL;
    fst_status s = hub_path(&path, h, name, err);
    if (!s)
        s = make ? fst__key_new(key, err) : fst__key_load(key, path, err);
    if (!s && make)
        s = fst__key_save(*key, path, err);
    fst_free(path);
    return s;
}

static fst_status make_ca(struct hub *h, fst_error *err)
{
    char *path = NULL;
    fst_buf pem = {0};
    fst_status s = fst__ca_new(&h->ca, err);
    if (!s)
        s = hub_path(&path, h, "ca.key", err);
    if (!s)
        s = fst__key_save(h->ca.key, path, err);
    if (!s)
        s = fst__certificate_pem(h->ca.certificate, &pem, err);
    if (!s)
        s = write_text(h, "ca.pem", &pem, err);
    fst_buf_release(&pem);
    fst_free(path);
    return s;
}

/* The hub's and the cloud's own certificates, with keys that are made or found. */
static fst_status issue_own(struct hub *h, bool make, fst_error *err)
{
    EVP_PKEY *hub_key = NULL, *cloud_key = NULL;
    char *path = NULL;
    struct fst__site *cloud = fst__roster_find(&h->roster, "cloud");
    fst_status s = own_key(h, "hub.key", make, &hub_key, err);
    if (!s)
        s = fst__key_fingerprint(hub_key, h->roster.hub->fingerprint, err);
    if (!s)
        s = issue_hub(h, hub_key, err);
    if (!s)
        s = fst__hub_save(h, err);
    if (!s && cloud)
        s = own_key(h, "cloud.key", make, &cloud_key, err);
    if (!s && cloud)
        s = fst__key_fingerprint(cloud_key, cloud->fingerprint, err);
    if (!s && cloud)
        s = issue_bundle(h, cloud, cloud_key, err);
    if (!s)
        s = fst__hub_refresh(h, err);
    if (!s && cloud)
        s = fst__file_of(&path, h->folder, "cloud", ".fleet", err);
    if (!s && cloud)
        s = fst__install(path, h->folder, h->known_as, true, err);
    fst_free(path);
    EVP_PKEY_free(hub_key);
    EVP_PKEY_free(cloud_key);
    return s;
}

static fst_status first_roster(struct fst__roster *r, const fst_fleet_setup *setup, fst_error *err)
{
    static const struct fst__site hub = {.id = "hub", .role = FST_ROLE_CLOUD, .generation = 1},
                                  cloud = {.id = "cloud", .role = FST_ROLE_CLOUD, .generation = 1};
    snprintf(r->hosts, sizeof r->hosts, "%s", setup->hosts);
    snprintf(r->bind, sizeof r->bind, "%s", setup->bind ? setup->bind : "");
    r->port = setup->port ? setup->port : FST__PORT;
    r->crl = 1;
    fst_status s = fst__roster_add(r, &hub, err);
    return s ? s : fst__roster_add(r, &cloud, err);
}

static bool is_empty(const char *folder)
{
    DIR *d = opendir(folder);
    bool empty = d != NULL;
    for (struct dirent *e = d ? readdir(d) : NULL; e && empty; e = readdir(d))
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    if (d)
        closedir(d);
    return empty;
}

/* Removes a folder of files that was made here. */
static void remove_folder(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(folder);
}

/* The absolute name of a folder that is not there yet, in one that is. */
static fst_status future_name(char **out, const char *folder, fst_error *err)
{
    char parent[PATH_MAX];
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t cut = n;
    while (cut > 0 && folder[cut - 1] != '/')
        cut--;
    snprintf(parent, sizeof parent, "%.*s", cut ? (int)cut : 1, cut ? folder : ".");
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)(n - cut), folder + cut);
    if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || n >= PATH_MAX)
        return fst_fail(err, FST_E_CONFIG, "%s: a fleet wants a new folder of its own", folder);
    fst_status s = fst_make_folders(parent, err);
    char *real = s ? NULL : realpath(parent, NULL);
    if (!s && !real)
        s = fst_fail_errno(err, "%s", parent);
    if (!s && !(*out = fst_path_join(real, name)))
        s = fst_fail_memory(err, n);
    free(real);
    return s;
}

static fst_status check_setup(const char *folder, const fst_fleet_setup *setup, fst_error *err)
{
    fst_status s = fst__path_check(folder, err);
    if (!s)
        s = fst__hosts_check(setup->hosts, err);
    if (!s && setup->bind && (strchr(setup->bind, ',') || strlen(setup->bind) >= 64))
        s = fst_fail(err, FST_E_CONFIG, "\"%s\" is not one address to listen on", setup->bind);
    if (!s && setup->bind)
        s = fst__hosts_check(setup->bind, err);
    if (!s && (setup->port < 0 || setup->port > 65535))
        s = fst_fail(err, FST_E_CONFIG, "%d is no port", setup->port);
    if (!s && (setup->port == 1883))
        s = fst_fail(err, FST_E_CONFIG, "1883 is the port of MQTT in plain text; a fleet uses TLS (8883)");
    if (!s && fst_file_exists(folder) && !is_empty(folder))
        s = fst_fail(err, FST_E_IO, "%s: is there already, and stays as it is; a fleet wants a new folder", folder);
    return s;
}

fst_status fst_fleet_init(const char *folder, const fst_fleet_setup *setup, fst_error *err)
{
    struct hub h = {0};
    fst_status s = check_setup(folder, setup, err);
    if (!s)
        s = future_name(&h.known_as, folder, err);
    if (!s)
        s = fst_temporary_name(&h.folder, h.known_as, err);
    if (!s && mkdir(h.folder, 0700))
        s = fst_fail_errno(err, "cannot make folder %s", h.folder);
    if (s) {
        fst__hub_release(&h);
        return s;
    }
    s = make_ca(&h, err);
    if (!s)
        s = first_roster(&h.roster, setup, err);
    if (!s)
        s = issue_own(&h, true, err);
    if (!s && rename(h.folder, h.known_as)) /* onto nothing, or an empty folder */
        s = fst_fail_errno(err, "cannot make folder %s", folder);
    if (s)
        remove_folder(h.folder);
    else
        s = fst_sync_folder_of(h.known_as, err);
    fst__hub_release(&h);
    return s;
}

fst_status fst_fleet_renew(const char *folder, fst_error *err)
{
    struct hub h = {0};
    fst_status s = fst__hub_open(&h, folder, err);
    if (!s)
        s = issue_own(&h, false, err);
    fst__hub_release(&h);
    return s;
}

/* ---- enroll -------------------------------------------------------------------------------- */

static fst_status check_expected(const fst_fleet_csr *c, const fst_fleet_csr *expected, const char *file,
                                 fst_error *err)
{
    bool same = !expected || (!strcmp(c->id, expected->id) && !strcmp(c->edge, expected->edge) &&
                              c->role == expected->role && !strcmp(c->fingerprint, expected->fingerprint));
    return same ? FST_OK : fst_fail(err, FST_E_MISMATCH, "%s: has changed since it was shown", file);
}

/* Whether the request may be granted; *site is the enrolment that it renews, else NULL. */
static fst_status check_request(const struct fst__roster *r, const fst_fleet_csr *c, struct fst__site **site,
                                fst_error *err)
{
    struct fst__site *now = fst__roster_find(r, c->id);
    const struct fst__site *edge = c->edge[0] ? fst__roster_find(r, c->edge) : NULL;
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->sites[i].fingerprint, c->fingerprint) && &r->sites[i] != now)
            return fst_fail(err, FST_E_MISMATCH, "this key %s of %s: remove %s.key at the site and make a new request",
                            r->sites[i].revoked ? "was revoked, as that" : "is that", r->sites[i].id, c->id);
    if (c->edge[0] && (!edge || edge->role != FST_ROLE_EDGE))
        return fst_fail(err, FST_E_CONFIG, "edge %s of device %s is not enrolled: enroll it first", c->edge, c->id);
    if (!strcmp(c->id, "cloud") && c->role != FST_ROLE_CLOUD)
        return fst_fail(err, FST_E_CONFIG, "the id cloud is that of the fleet's cloud: take another one");
    if (now && strcmp(now->fingerprint, c->fingerprint))
        return fst_fail(err, FST_E_MISMATCH,
                        "%s is enrolled with another key; if this is the new one of the same site, revoke the old one "
                        "first: fedstill fleet revoke FOLDER %s",
                        c->id, c->id);
    if (now && (now->role != c->role || strcmp(now->edge, c->edge)))
        return fst_fail(err, FST_E_MISMATCH, "%s is enrolled as %s%s%s; revoke it first", c->id,
                        fst_role_name(now->role), *now->edge ? " of " : "", now->edge);
    *site = now;
    return FST_OK;
}

static fst_status grant(struct hub *h, const fst_fleet_csr *c, EVP_PKEY *key, const char *hosts, int port,
                        fst_error *err)
{
    struct fst__site *site = NULL, fresh = {.role = c->role};
    fst_status s = check_request(&h->roster, c, &site, err);
    if (!s && !site) {
        snprintf(fresh.id, sizeof fresh.id, "%s", c->id);
        snprintf(fresh.edge, sizeof fresh.edge, "%s", c->edge);
        snprintf(fresh.fingerprint, sizeof fresh.fingerprint, "%s", c->fingerprint);
        fresh.generation = fst__roster_generation(&h->roster, c->id) + 1;
        fresh.port = c->role == FST_ROLE_EDGE ? FST__PORT : 0;
        s = fst__roster_add(&h->roster, &fresh, err);
        site = s ? NULL : &h->roster.sites[h->roster.n - 1];
    }
    if (!s && hosts)
        snprintf(site->hosts, sizeof site->hosts, "%s", hosts);
    if (!s && port)
        site->port = port;
    if (!s)
        s = issue_bundle(h, site, key, err);
    return s ? s : fst__hub_refresh(h, err);
}

/* With a name of the hub in its certificate, an edge's broker could pass for the hub's. */
static fst_status check_not_hub(const struct fst__roster *r, const char *hosts, fst_error *err)
{
    char one[FST__HOST], other[FST__HOST];
    fst_status s = FST_OK;
    for (const char *at = hosts; !s && *at;) {
        s = fst__host_next(&at, one, err);
        bool local = !strcmp(one, "localhost") || !strncmp(one, "127.", 4) || !strcmp(one, "::1");
        for (const char *hub = r->hosts; !s && !local && *hub;) {
            s = fst__host_next(&hub, other, err);
            if (!s && !strcasecmp(one, other))
                s = fst_fail(err, FST_E_CONFIG, "%s is the hub: an edge's broker has names and addresses of its own",
                             one);
        }
    }
    return s;
}

fst_status fst_fleet_enroll(const char *folder, const char *file, const fst_fleet_csr *expected, const char *hosts,
                            int port, fst_error *err)
{
    struct hub h = {0};
    fst_fleet_csr c = {0};
    EVP_PKEY *key = NULL;
    fst_buf text = {0};
    fst_status s = fst_file_read(file, FST__MAX_CSR, &text, err);
    if (!s)
        s = fst__csr_parse(&c, &key, file, text.data, text.len, err);
    if (!s)
        s = check_expected(&c, expected, file, err);
    if (!s && (hosts || port) && c.role != FST_ROLE_EDGE)
        s = fst_fail(err, FST_E_CONFIG, "%s is no edge: it has no broker, so no host and no port", c.id);
    if (!s && hosts)
        s = fst__hosts_check(hosts, err);
    if (!s && (port < 0 || port > 65535 || port == 1883))
        s = fst_fail(err, FST_E_CONFIG, "%d is no port for a broker with TLS", port);
    if (!s)
        s = fst__hub_open(&h, folder, err);
    if (!s && hosts)
        s = check_not_hub(&h.roster, hosts, err);
    if (!s)
        s = grant(&h, &c, key, hosts, port, err);
    EVP_PKEY_free(key);
    fst_buf_release(&text);
    fst__hub_release(&h);
    return s;
}

/* ---- list ---------------------------------------------------------------------------------- */

fst_status fst_fleet_list(fst_fleet_site **sites, size_t *count, const char *folder, fst_error *err)
{
    struct hub h = {0};
    fst_status s = hub_folder(&h, folder, err);
    if (!s)
        s = load_roster(&h, err);
    fst_fleet_site *list = s ? NULL : fst_calloc(h.roster.n, sizeof *list);
    if (!s && !list)
        s = fst_fail_memory(err, h.roster.n * sizeof *list);
    for (size_t i = 0; !s && i < h.roster.n; i++) {
        const struct fst__site *t = &h.roster.sites[i];
        fst_fleet_site *o = &list[i];
        memcpy(o->id, t->id, sizeof o->id);
        memcpy(o->edge, t->edge, sizeof o->edge);
        memcpy(o->fingerprint, t->fingerprint, sizeof o->fingerprint);
        if (i)
            fst__site_name(t, o->name);
        else
            snprintf(o->name, sizeof o->name, "hub");
        o->role = t->role;
        o->revoked = t->revoked;
        o->revoked_at = t->revoked_at;
        o->until = fst__site_until(t);
    }
    if (!s) {
        *sites = list;
        *count = h.roster.n;
    }
    fst__hub_release(&h);
    return s;
}

/* ---- at a site ------------------------------------------------------------------------------ */

static fst_status site_key(EVP_PKEY **key, const char *folder, const char *id, fst_error *err)
{
    char *path = NULL;
    fst_status s = fst__file_of(&path, folder, id, ".key", err);
    if (!s && fst_file_exists(path)) {
        s = fst__key_load(key, path, err);
    } else if (!s) {
        s = fst__key_new(key, err);
        if (!s)
            s = fst__key_save(*key, path, err);
    }
    fst_free(path);
    return s;
}

fst_status fst_fleet_request(fst_fleet_csr *out, const char *folder, const char *id, fst_role role, const char *edge,
                             fst_error *err)
{
    fst_fleet_csr c = {.role = role};
    EVP_PKEY *key = NULL;
    fst_buf pem = {0};
    char *path = NULL;
    fst_status s = fst_site_id_check(id, err);
    if (!s && edge)
        s = fst_site_id_check(edge, err);
    if (!s && (role == FST_ROLE_DEVICE) != (edge != NULL))
        s = fst_fail(err, FST_E_CONFIG, edge ? "%s is no device, so it has no edge" : "device %s: its edge is missing",
                     id);
    if (!s)
        s = fst_make_folders(folder, err);
    if (!s)
        s = site_key(&key, folder, id, err);
    snprintf(c.id, sizeof c.id, "%s", id);
    snprintf(c.edge, sizeof c.edge, "%s", edge ? edge : "");
    if (!s)
        s = fst__key_fingerprint(key, c.fingerprint, err);
    if (!s)
        s = fst__csr_make(key, &c, &pem, err);
    if (!s)
        s = fst__file_of(&path, folder, id, ".csr", err);
    if (!s)
        s = fst__write_changed(path, &pem, err);
    if (!s && out)
        *out = c;
    EVP_PKEY_free(key);
    fst_buf_release(&pem);
    fst_free(path);
    return s;
}
