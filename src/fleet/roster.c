/*
 * The roster: what was decided about a fleet, and nothing that can be made of it. One JSON file in the order in which
 * things happened; an id that was revoked and enrolled again has two entries, and at most the last of them holds.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "roster.h"

#define FORMAT "fedstill-fleet-1"

/* ---- reading ------------------------------------------------------------------------------ */

/* A text that must be there and fit. */
static fst_status text(const json_t *j, const char *key, char *out, size_t size, fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    if (!json_is_string(v) || json_string_length(v) >= size || strlen(json_string_value(v)) != json_string_length(v))
        return fst_fail(err, FST_E_FORMAT, "%s must be a text of less than %zu characters", key, size);
    memcpy(out, json_string_value(v), json_string_length(v) + 1);
    return FST_OK;
}

static fst_status whole(const json_t *j, const char *key, int64_t low, int64_t high, int64_t *out, fst_error *err)
{
    return json_object_get(j, key) ? fst_json_whole(j, key, low, high, out, err)
                                   : fst_fail(err, FST_E_FORMAT, "%s is missing", key);
}

static fst_status read_issued(struct fst__site *site, const json_t *list, fst_error *err)
{
    fst_status s = FST_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > FST__MAX_CERTIFICATES)
        return fst_fail(err, FST_E_FORMAT, "certificates must be a list of at most %d", FST__MAX_CERTIFICATES);
    site->issued = fst_calloc(n + 1, sizeof *site->issued);
    if (!site->issued)
        return fst_fail_memory(err, n * sizeof *site->issued);
    for (size_t i = 0; !s && i < n; i++) {
        const json_t *j = json_array_get(list, i);
        struct fst__issued *c = &site->issued[i];
        s = text(j, "name", c->name, sizeof c->name, err);
        if (!s)
            s = text(j, "serial", c->serial, sizeof c->serial, err);
        if (!s && (!*c->serial || strspn(c->serial, "0123456789abcdef") != strlen(c->serial)))
            s = fst_fail(err, FST_E_FORMAT, "serial must be of hexadecimal digits");
        if (!s)
            s = whole(j, "until", 0, INT64_MAX, &c->until, err);
        site->n += !s;
    }
    return s;
}

static fst_status read_site(struct fst__site *site, const json_t *j, fst_error *err)
{
    char role[16];
    int64_t generation = 0, port = 0, revoked = 0;
    fst_status s = text(j, "id", site->id, sizeof site->id, err);
    if (!s && strcmp(site->id, "hub"))
        s = fst_site_id_check(site->id, err);
    if (!s)
        s = text(j, "role", role, sizeof role, err);
    if (!s && !fst_role_parse(role, &site->role))
        s = fst_fail(err, FST_E_FORMAT, "role must be cloud, edge or device, not \"%s\"", role);
    if (!s)
        s = text(j, "edge", site->edge, sizeof site->edge, err);
    if (!s && site->edge[0])
        s = fst_site_id_check(site->edge, err);
    if (!s)
        s = text(j, "key", site->fingerprint, sizeof site->fingerprint, err);
    if (!s)
        s = text(j, "hosts", site->hosts, sizeof site->hosts, err);
    if (!s && site->hosts[0])
        s = fst__hosts_check(site->hosts, err);
    if (!s)
        s = whole(j, "port", 0, 65535, &port, err);
    if (!s)
        s = whole(j, "generation", 1, FST__MAX_SITES, &generation, err);
    if (!s)
        s = whole(j, "revoked", 0, INT64_MAX, &revoked, err);
    site->port = (int)port;
    site->generation = (int)generation;
    site->revoked = revoked > 0;
    site->revoked_at = revoked;
    return s ? s : read_issued(site, json_object_get(j, "certificates"), err);
}

static fst_status read_sites(struct fst__roster *r, const json_t *list, fst_error *err)
{
    fst_status s = FST_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > FST__MAX_SITES)
        return fst_fail(err, FST_E_FORMAT, "sites must be a list of 1 to %d", FST__MAX_SITES);
    r->sites = fst_calloc(n, sizeof *r->sites);
    if (!r->sites)
        return fst_fail_memory(err, n * sizeof *r->sites);
    for (size_t i = 0; !s && i < n; i++) {
        r->n++;
        s = read_site(&r->sites[i], json_array_get(list, i), err);
        if (s)
            s = fst_fail_in(err, s, "site %zu", i + 1);
    }
    r->hub = r->sites;
    return s || !strcmp(r->hub->id, "hub") ? s : fst_fail(err, FST_E_FORMAT, "the first site must be the hub");
}

static fst_status read_root(struct fst__roster *r, const json_t *j, fst_error *err)
{
    char format[32];
    int64_t port = 0;
    fst_status s = text(j, "format", format, sizeof format, err);
    if (!s && strcmp(format, FORMAT))
        s = fst_fail(err, FST_E_FORMAT, "format is \"%s\"; this version reads \"" FORMAT "\"", format);
    if (!s)
        s = text(j, "hosts", r->hosts, sizeof r->hosts, err);
    if (!s)
        s = fst__hosts_check(r->hosts, err);
    if (!s)
        s = text(j, "bind", r->bind, sizeof r->bind, err);
    if (!s && r->bind[0])
        s = fst__hosts_check(r->bind, err);
    if (!s)
        s = whole(j, "port", 1, 65535, &port, err);
    if (!s)
        s = whole(j, "revocation_list", 0, INT64_MAX - 1, &r->crl, err);
    r->port = (int)port;
    return s ? s : read_sites(r, json_object_get(j, "sites"), err);
}

fst_status fst__roster_read(struct fst__roster *out, const char *path, fst_error *err)
{
    fst_buf bytes = {0};
    json_error_t why;
    struct fst__roster r = {0};
    fst_status s = fst_file_read(path, FST__MAX_ROSTER, &bytes, err);
    if (!s)
        s = fst_json_fits(path, bytes.data, bytes.len, bytes.len, err);
    if (s) {
        fst_buf_release(&bytes);
        return s;
    }
    json_t *j = json_loadb(bytes.data, bytes.len, JSON_REJECT_DUPLICATES, &why);
    s = j ? read_root(&r, j, err) : fst_fail(err, FST_E_FORMAT, "line %d: %s", why.line, why.text);
    if (s) {
        s = fst_fail_in(err, s, "%s", path);
        fst__roster_release(&r);
    } else {
        *out = r;
    }
    json_decref(j);
    fst_buf_release(&bytes);
    return s;
}

/* ---- writing ------------------------------------------------------------------------------ */

static json_t *issued_json(const struct fst__site *site)
{
    json_t *list = json_array();
    for (size_t i = 0; i < site->n; i++) {
        const struct fst__issued *c = &site->issued[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I}", "name", c->name, "serial", c->serial, "until", (json_int_t)c->until));
    }
    return list;
}

static json_t *site_json(const struct fst__site *t)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:i, s:I, s:o}", "id", t->id, "role", fst_role_name(t->role),
                     "edge", t->edge, "generation", t->generation, "key", t->fingerprint, "hosts", t->hosts, "port",
                     t->port, "revoked", (json_int_t)(t->revoked ? t->revoked_at : 0), "certificates", issued_json(t));
}

fst_status fst__roster_write(const struct fst__roster *r, const char *path, fst_error *err)
{
    json_t *sites = json_array();
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(sites, site_json(&r->sites[i]));
    bool whole_list = json_array_size(sites) == r->n; /* what there was no memory for is not in it */
    json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:I, s:o}", "format", FORMAT, "hosts", r->hosts, "bind", r->bind,
                          "port", r->port, "revocation_list", (json_int_t)r->crl, "sites", sites);
    char *out = j && whole_list ? json_dumps(j, JSON_INDENT(1)) : NULL;
    fst_status s = out ? fst_file_write(path, out, strlen(out), err) : fst_fail_memory(err, r->n * sizeof *r->sites);
    free(out);
    json_decref(j);
    return s;
}

void fst__roster_release(struct fst__roster *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        fst_free(r->sites[i].issued);
    fst_free(r->sites);
    *r = (struct fst__roster){0};
}

/* ---- sites -------------------------------------------------------------------------------- */

struct fst__site *fst__roster_find(const struct fst__roster *r, const char *id)
{
    for (size_t i = 0; i < r->n; i++)
        if (!r->sites[i].revoked && !strcmp(r->sites[i].id, id))
            return &r->sites[i];
    return NULL;
}

int fst__roster_generation(const struct fst__roster *r, const char *id)
{
    int n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->sites[i].id, id) && r->sites[i].generation > n)
            n = r->sites[i].generation;
    return n;
}

fst_status fst__roster_add(struct fst__roster *r, const struct fst__site *site, fst_error *err)
{
    if (r->n >= FST__MAX_SITES)
        return fst_fail(err, FST_E_LIMIT, "a fleet has at most %d enrolments", FST__MAX_SITES);
    struct fst__site *sites = fst_realloc(r->sites, r->n * sizeof *sites, (r->n + 1) * sizeof *sites);
    if (!sites)
        return fst_fail_memory(err, (r->n + 1) * sizeof *sites);
    sites[r->n++] = *site;
    r->sites = r->hub = sites;
    return FST_OK;
}

fst_status fst__site_issued(struct fst__site *site, const char *name, const char *serial, int64_t until, fst_error *err)
{
    int64_t now = fst_clock_unix_ms() / 1000;
    size_t kept = 0;
    for (size_t i = 0; i < site->n; i++)
        if (site->issued[i].until > now - 2 * FST__DAY) /* clocks differ */
            site->issued[kept++] = site->issued[i];
    site->n = kept;
    if (kept >= FST__MAX_CERTIFICATES)
        return fst_fail(err, FST_E_LIMIT, "%s has %d certificates that have not expired: revoke it and enroll it again",
                        site->id, FST__MAX_CERTIFICATES);
    struct fst__issued *list = fst_realloc(site->issued, kept * sizeof *list, (kept + 1) * sizeof *list);
    if (!list)
        return fst_fail_memory(err, (kept + 1) * sizeof *list);
    site->issued = list;
    list[kept] = (struct fst__issued){.until = until};
    snprintf(list[kept].name, sizeof list[kept].name, "%s", name);
    snprintf(list[kept].serial, sizeof list[kept].serial, "%s", serial);
    site->n++;
    return FST_OK;
}

void fst__site_name(const struct fst__site *site, char out[FST_SITE_NAME])
{
    snprintf(out, FST_SITE_NAME, "g%d.%s", site->generation, site->id);
}

void fst__site_local_name(const struct fst__site *site, char out[FST_SITE_NAME])
{
    snprintf(out, FST_SITE_NAME, "g%d.%s-local", site->generation, site->id);
}

int64_t fst__site_until(const struct fst__site *site)
{
    return site->n ? site->issued[site->n - 1].until : 0;
}
