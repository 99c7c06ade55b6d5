/*
 * Bundles: written at the hub, read there again when an edge's devices or the revocation list change, and installed at
 * the site. A bundle travels by mail or stick, so that installing trusts nothing of it that it can check: every word is
 * of a known form, and every certificate must be of the authority in it and of the key that was made here. That the
 * authority is the right one is for whoever carried it: so says docs/fleet-security.md.
 */
#define _GNU_SOURCE
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bundle.h"
#include "ca_private.h"

#define FORMAT "fedstill-identity-1"
enum { MAX_BUNDLE = 8 * 1024 * 1024, MAX_TEXT = 4 * 1024 * 1024 };

/* ---- reading ------------------------------------------------------------------------------ */

static fst_status short_text(const json_t *j, const char *key, char *out, size_t size, fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    const char *p = json_string_value(v);
    if (!p || json_string_length(v) >= size)
        return fst_fail(err, FST_E_FORMAT, "%s must be a text of less than %zu characters", key, size);
    for (size_t i = 0; i < json_string_length(v); i++)
        if ((unsigned char)p[i] <= 0x20 || (unsigned char)p[i] > 0x7e)
            return fst_fail(err, FST_E_FORMAT, "%s must be of letters, digits and signs", key);
    memcpy(out, p, json_string_length(v) + 1);
    return FST_OK;
}

static fst_status pem_text(const json_t *j, const char *key, char **out, fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    if (!json_is_string(v) || json_string_length(v) > MAX_TEXT || strncmp(json_string_value(v), "-----BEGIN ", 11))
        return fst_fail(err, FST_E_FORMAT, "%s must be a text of PEM", key);
    *out = fst_strdup(json_string_value(v));
    return *out ? FST_OK : fst_fail_memory(err, json_string_length(v));
}

static fst_status site_name(const json_t *j, const char *key, char out[FST_SITE_NAME], const char *id, fst_error *err)
{
    fst_status s = short_text(j, key, out, FST_SITE_NAME, err);
    const char *of = s ? NULL : fst__id_of_name(out);
    return s || (of && !strcmp(of, id)) ? s : fst_fail(err, FST_E_FORMAT, "%s must be gN.%s", key, id);
}

/* "PREFIXhost:port" */
static fst_status address(const json_t *j, const char *key, const char *prefix, char out[FST_FLEET_URL], fst_error *err)
{
    char host[FST_FLEET_URL], port[8] = "";
    fst_status s = short_text(j, key, out, FST_FLEET_URL, err);
    size_t n = strlen(prefix);
    const char *colon = s || strncmp(out, prefix, n) ? NULL : strrchr(out, ':');
    if (!s && colon && colon > out + n) {
        bool brackets = out[n] == '[' && colon[-1] == ']';
        snprintf(host, sizeof host, "%.*s", (int)(colon - out - (ptrdiff_t)n) - 2 * brackets, out + n + brackets);
        snprintf(port, sizeof port, "%.6s", colon + 1);
        if (!strchr(host, ',') && !fst__hosts_check(host, NULL) && *port &&
            strspn(port, "0123456789") == strlen(port) && atoi(port) > 0 && atoi(port) <= 65535)
            return FST_OK;
    }
    return s ? s : fst_fail(err, FST_E_FORMAT, "%s must be %sHOST:PORT", key, prefix);
}

static fst_status read_devices(struct fst__edge_broker *b, const json_t *list, fst_error *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > FST__MAX_SITES)
        return fst_fail(err, FST_E_FORMAT, "devices must be a list of at most %d", FST__MAX_SITES);
    b->devices = fst_calloc(n + 1, sizeof *b->devices);
    if (!b->devices)
        return fst_fail_memory(err, n * sizeof *b->devices);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || strlen(name) >= FST_SITE_NAME || !fst__id_of_name(name))
            return fst_fail(err, FST_E_FORMAT, "devices must be names such as g1.device-1");
        snprintf(b->devices[i], sizeof *b->devices, "%s", name);
    }
    b->n = n;
    return FST_OK;
}

static fst_status read_broker(struct fst__bundle *b, const json_t *j, fst_error *err)
{
    int64_t port = 0;
    struct fst__edge_broker *e = &b->broker;
    fst_status s = json_object_get(j, "broker_port") ? fst_json_whole(j, "broker_port", 1, 65535, &port, err)
                                                     : fst_fail(err, FST_E_FORMAT, "broker_port is missing");
    if (!s)
        s = address(j, "hub", "", e->hub, err);
    if (!s)
        s = short_text(j, "broker_bind", e->bind, sizeof e->bind, err);
    if (!s && e->bind[0])
        s = fst__hosts_check(e->bind, err);
    if (!s)
        s = pem_text(j, "local_certificate", &b->local_certificate, err);
    if (!s)
        s = pem_text(j, "broker_certificate", &b->broker_certificate, err);
    e->port = (int)port;
    snprintf(e->id, sizeof e->id, "%s", b->id);
    snprintf(e->name, sizeof e->name, "%s", b->name);
    snprintf(e->local_name, sizeof e->local_name, "%.41s-local", b->name);
    return s ? s : read_devices(e, json_object_get(j, "devices"), err);
}

static fst_status read_root(struct fst__bundle *b, const json_t *j, fst_error *err)
{
    char word[64];
    fst_status s = short_text(j, "format", word, sizeof word, err);
    if (!s && strcmp(word, FORMAT))
        s = fst_fail(err, FST_E_FORMAT, "format is \"%s\"; this version reads \"" FORMAT "\"", word);
    if (!s)
        s = short_text(j, "id", b->id, sizeof b->id, err);
    if (!s)
        s = fst_site_id_check(b->id, err);
    if (!s)
        s = short_text(j, "role", word, sizeof word, err);
    if (!s && !fst_role_parse(word, &b->role))
        s = fst_fail(err, FST_E_FORMAT, "role must be cloud, edge or device");
    if (!s)
        s = short_text(j, "edge", b->edge, sizeof b->edge, err);
    if (!s && b->edge[0])
        s = fst_site_id_check(b->edge, err);
    if (!s)
        s = site_name(j, "name", b->name, b->id, err);
    if (!s)
        s = address(j, "url", "mqtts://", b->url, err);
    if (!s)
        s = pem_text(j, "authority", &b->authority, err);
    if (!s)
        s = pem_text(j, "revocation_list", &b->revocation_list, err);
    if (!s)
        s = pem_text(j, "certificate", &b->certificate, err);
    if (!s && json_object_get(j, "seat")) {
        s = site_name(j, "seat_name", b->seat_name, "cloud", err);
        if (!s)
            s = pem_text(j, "seat", &b->seat, err);
    }
    return s || b->role != FST_ROLE_EDGE ? s : read_broker(b, j, err);
}

fst_status fst__bundle_parse(struct fst__bundle *out, const char *name, const char *text, size_t len, fst_error *err)
{
    struct fst__bundle b = {0};
    json_error_t why;
    fst_status s = len > MAX_BUNDLE ? fst_fail(err, FST_E_LIMIT, "%s: %zu bytes, at most %d", name, len, MAX_BUNDLE)
                                    : fst_json_fits(name, text, len, len, err);
    if (s)
        return s;
    json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    s = j ? read_root(&b, j, err) : fst_fail(err, FST_E_FORMAT, "line %d: %s", why.line, why.text);
    json_decref(j);
    if (s) {
        fst__bundle_release(&b);
        return fst_fail_in(err, s, "%s", name);
    }
    *out = b;
    return FST_OK;
}

fst_status fst__bundle_read(struct fst__bundle *out, const char *path, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = fst_file_read(path, MAX_BUNDLE, &text, err);
    if (!s)
        s = fst__bundle_parse(out, path, text.data, text.len, err);
    fst_buf_release(&text);
    return s;
}

void fst__bundle_release(struct fst__bundle *b)
{
    if (!b)
        return;
    fst_free(b->authority);
    fst_free(b->revocation_list);
    fst_free(b->certificate);
    fst_free(b->seat);
    fst_free(b->local_certificate);
    fst_free(b->broker_certificate);
    fst_free(b->broker.devices);
    *b = (struct fst__bundle){0};
}

/* ---- writing ------------------------------------------------------------------------------ */

fst_status fst__file_of(char **out, const char *folder, const char *id, const char *suffix, fst_error *err)
{
    char name[FST_SITE_ID + 32];
    snprintf(name, sizeof name, "%s%s", id, suffix);
    char *path = fst_path_join(folder, name);
    if (!path)
        return fst_fail_memory(err, strlen(folder));
    *out = path;
    return FST_OK;
}

fst_status fst__write_changed(const char *path, const fst_buf *text, fst_error *err)
{
    fst_buf had = {0};
    bool same = fst_file_exists(path) && !fst_file_read(path, MAX_BUNDLE, &had, NULL) && had.len == text->len &&
                !memcmp(had.data, text->data, text->len);
    fst_buf_release(&had);
    return same ? FST_OK : fst_file_write(path, text->data, text->len, err);
}

static json_t *broker_json(const struct fst__bundle *b)
{
    const struct fst__edge_broker *e = &b->broker;
    json_t *devices = json_array();
    for (size_t i = 0; i < e->n; i++)
        json_array_append_new(devices, json_string(e->devices[i]));
    if (json_array_size(devices) != e->n) {
        json_decref(devices);
        return NULL;
    }
    return json_pack("{s:s, s:i, s:s, s:s, s:s, s:o}", "hub", e->hub, "broker_port", e->port, "broker_bind", e->bind,
                     "local_certificate", b->local_certificate, "broker_certificate", b->broker_certificate, "devices",
                     devices);
}

fst_status fst__bundle_write(const struct fst__bundle *b, const char *path, fst_error *err)
{
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "format", FORMAT, "id", b->id, "role",
                          fst_role_name(b->role), "edge", b->edge, "name", b->name, "url", b->url, "authority",
                          b->authority, "revocation_list", b->revocation_list, "certificate", b->certificate);
    bool ok = j != NULL;
    if (ok && b->seat)
        ok = !json_object_set_new(j, "seat_name", json_string(b->seat_name)) &&
             !json_object_set_new(j, "seat", json_string(b->seat));
    if (ok && b->role == FST_ROLE_EDGE) {
        json_t *more = broker_json(b);
        ok = more && !json_object_update(j, more);
        json_decref(more);
    }
    char *text = ok ? json_dumps(j, JSON_INDENT(1)) : NULL;
    fst_buf out = {.data = text, .len = text ? strlen(text) : 0};
    fst_status s = text ? fst__write_changed(path, &out, err) : fst_fail_memory(err, MAX_TEXT);
    free(text);
    json_decref(j);
    return s;
}

/* ---- installing --------------------------------------------------------------------------- */

/* Every certificate against the authority and the key; *until is that of the identity. */
static fst_status check_all(const struct fst__bundle *b, EVP_PKEY *key, int64_t *until, fst_error *err)
{
    int64_t other = 0;
    fst_status s = fst__certificate_check(b->certificate, b->authority, key, b->name, false, until, err);
    if (!s && b->seat)
        s = fst__certificate_check(b->seat, b->authority, key, b->seat_name, false, &other, err);
    if (!s && b->local_certificate)
        s = fst__certificate_check(b->local_certificate, b->authority, key, b->broker.local_name, false, &other, err);
    if (!s && b->broker_certificate)
        s = fst__certificate_check(b->broker_certificate, b->authority, key, b->broker.local_name, true, &other, err);
    if (!s && *until < fst_clock_unix_ms() / 1000)
        s = fst_fail(err, FST_E_CONFIG, "the certificate of %s has expired; enroll %s.csr at the hub again", b->name,
                     b->id);
    return s;
}

static fst_status put(const char *folder, const char *id, const char *suffix, const char *text, fst_error *err)
{
    char *path = NULL;
    fst_buf out = {.data = (char *)(uintptr_t)text, .len = text ? strlen(text) : 0};
    fst_status s = text ? fst__file_of(&path, folder, id, suffix, err) : FST_OK;
    if (!s && text)
        s = fst__write_changed(path, &out, err);
    fst_free(path);
    return s;
}

static fst_status put_broker(const struct fst__bundle *b, const char *folder, const char *known_as, fst_error *err)
{
    fst_buf conf = {0}, acl = {0}, unit = {0};
    fst_status s = fst__conf_edge(&conf, &b->broker, known_as, err);
    if (!s)
        s = fst__conf_edge_acl(&acl, &b->broker, err);
    if (!s)
        s = fst__unit_broker(&unit, known_as, "broker.conf", err);
    if (!s)
        s = put(folder, "broker", ".acl", acl.data, err);
    if (!s)
        s = put(folder, "fedstill-broker", ".service", unit.data, err);
    if (!s)
        s = put(folder, "broker", ".conf", conf.data, err);
    fst_buf_release(&conf);
    fst_buf_release(&acl);
    fst_buf_release(&unit);
    return s;
}

/* There was a device once: its rights must go from the access list, also when it was the last one. */
static bool has_broker(const char *folder)
{
    char *path = fst_path_join(folder, "broker.conf");
    bool there = path && fst_file_exists(path);
    fst_free(path);
    return there;
}

static fst_status put_all(const struct fst__bundle *b, const char *folder, const char *known_as, fst_error *err)
{
    char unit_name[FST_SITE_ID + 16];
    fst_buf unit = {0};
    snprintf(unit_name, sizeof unit_name, "fedstill-%s", b->id);
    fst_status s = fst__unit_site(&unit, known_as, b->role, b->id, b->url, err);
    if (!s)
        s = put(folder, "ca", ".pem", b->authority, err);
    if (!s)
        s = put(folder, "crl", ".pem", b->revocation_list, err);
    if (!s)
        s = put(folder, b->id, ".pem", b->certificate, err);
    if (!s)
        s = put(folder, b->id, "-seat.pem", b->seat, err);
    if (!s)
        s = put(folder, b->id, "-local.pem", b->local_certificate, err);
    if (!s)
        s = put(folder, "broker", ".pem", b->broker_certificate, err);
    if (!s)
        s = put(folder, unit_name, ".service", unit.data, err);
    if (!s && (b->broker.n || has_broker(folder)))
        s = put_broker(b, folder, known_as, err);
    fst_buf_release(&unit);
    return s;
}

/* The bundle is copied last: what is beside it is then complete. */
static fst_status put_bundle(const struct fst__bundle *b, const char *folder, fst_error *err)
{
    char *path = NULL;
    fst_status s = fst__file_of(&path, folder, b->id, ".fleet", err);
    if (!s)
        s = fst__bundle_write(b, path, err);
    fst_free(path);
    return s;
}

static int64_t begin_of(const char *certificate)
{
    X509 *x = fst__certificate_parse(certificate, strlen(certificate));
    int64_t from = x ? fst__certificate_from(x) : 0;
    X509_free(x);
    return from;
}

/* "g12.edge-1" -> 12 */
static long generation_of(const char *name)
{
    return strtol(name + 1, NULL, 10);
}

static const char *older(const struct fst__bundle *b, const struct fst__bundle *now)
{
    long is = generation_of(b->name), was = generation_of(now->name);
    if (is < was)
        return "enrolment";
    if (is == was && begin_of(b->certificate) < begin_of(now->certificate))
        return "certificate";
    return fst__crl_number(b->revocation_list, strlen(b->revocation_list)) <
                   fst__crl_number(now->revocation_list, strlen(now->revocation_list))
               ? "revocation list"
               : NULL;
}

/* An old bundle, by mistake or by somebody who kept it, would bring back what was revoked or renewed. What is there and
 * cannot be read is replaced. */
static fst_status check_newer(const struct fst__bundle *b, const char *bundle, const char *folder, fst_error *err)
{
    struct fst__bundle now = {0};
    char *path = NULL;
    const char *what = NULL;
    fst_status s = fst__file_of(&path, folder, b->id, ".fleet", err);
    if (!s && fst_file_exists(path) && !fst__bundle_read(&now, path, NULL) && !strcmp(now.authority, b->authority))
        what = older(b, &now);
    if (what)
        s = fst_fail(err, FST_E_MISMATCH,
                     "%s is older than what is installed (its %s): bring the newest %s.fleet from the hub, or install "
                     "it with --force",
                     bundle, what, b->id);
    fst__bundle_release(&now);
    fst_free(path);
    return s;
}

fst_status fst__install(const char *bundle, const char *folder, const char *known_as, bool force, fst_error *err)
{
    struct fst__bundle b = {0};
    EVP_PKEY *key = NULL;
    char *path = NULL;
    int64_t until = 0;
    fst_status s = fst__bundle_read(&b, bundle, err);
    if (!s)
        s = fst__file_of(&path, folder, b.id, ".key", err);
    if (!s && !fst_file_exists(path))
        s = fst_fail(err, FST_E_CONFIG, "%s is missing: %s.fleet is of use only where its request was made", path,
                     b.id);
    if (!s)
        s = fst__key_load(&key, path, err);
    if (!s && (s = check_all(&b, key, &until, err)))
        s = fst_fail_in(err, s, "%s", bundle);
    if (!s && !force)
        s = check_newer(&b, bundle, folder, err);
    if (!s)
        s = put_all(&b, folder, known_as, err);
    if (!s)
        s = put_bundle(&b, folder, err);
    EVP_PKEY_free(key);
    fst_free(path);
    fst__bundle_release(&b);
    return s;
}

static fst_status absolute(char **out, const char *folder, fst_error *err)
{
    char *real = realpath(folder, NULL);
    if (!real)
        return fst_fail_errno(err, "%s", folder);
    char *copy = fst_strdup(real);
    free(real);
    if (!copy)
        return fst_fail_memory(err, PATH_MAX);
    fst_status s = fst__path_check(copy, err);
    if (s)
        fst_free(copy);
    else
        *out = copy;
    return s;
}

fst_status fst_fleet_install(const char *bundle, const char *folder, bool force, fst_error *err)
{
    char *real = NULL;
    fst_status s = absolute(&real, folder, err);
    if (!s)
        s = fst__install(bundle, real, real, force, err);
    fst_free(real);
    return s;
}

/* ---- loading ------------------------------------------------------------------------------ */

static fst_status fill(fst_identity *i, const struct fst__bundle *b, const char *folder, fst_error *err)
{
    snprintf(i->id, sizeof i->id, "%s", b->id);
    snprintf(i->edge, sizeof i->edge, "%s", b->edge);
    snprintf(i->name, sizeof i->name, "%s", b->name);
    snprintf(i->url, sizeof i->url, "%s", b->url);
    snprintf(i->seat_name, sizeof i->seat_name, "%s", b->seat_name);
    i->role = b->role;
    fst_status s = fst__file_of(&i->ca, folder, "ca", ".pem", err);
    if (!s)
        s = fst__file_of(&i->certificate, folder, b->id, ".pem", err);
    if (!s)
        s = fst__file_of(&i->key, folder, b->id, ".key", err);
    if (!s && b->seat)
        s = fst__file_of(&i->seat, folder, b->id, "-seat.pem", err);
    if (!s && b->broker.n) {
        snprintf(i->local_name, sizeof i->local_name, "%s", b->broker.local_name);
        s = fst__url("", b->broker.port, i->local_url, err);
        if (!s)
            s = fst__file_of(&i->local_certificate, folder, b->id, "-local.pem", err);
        if (!s)
            s = fst__file_of(&i->broker_conf, folder, "broker", ".conf", err);
    }
    return s;
}

fst_status fst_identity_load(fst_identity *out, const char *folder, const char *id, fst_error *err)
{
    struct fst__bundle b = {0};
    fst_identity i = {0};
    char *real = NULL, *path = NULL;
    fst_status s = fst_site_id_check(id, err);
    if (!s)
        s = absolute(&real, folder, err);
    if (!s)
        s = fst__file_of(&path, real, id, ".fleet", err);
    if (!s && !fst_file_exists(path) && !strcmp(id, "cloud"))
        s = fst_fail(err, FST_E_CONFIG, "%s is missing: it is in the folder that fedstill fleet init made", path);
    else if (!s && !fst_file_exists(path))
        s = fst_fail(err, FST_E_CONFIG,
                     "%s is missing: make a request (fedstill fleet request %s), have it enrolled at the hub, and copy "
                     "the %s.fleet that is made there to this place",
                     path, id, id);
    if (!s)
        s = fst__install(path, real, real, true, err); /* what is there */
    if (!s)
        s = fst__bundle_read(&b, path, err);
    if (!s && strcmp(b.id, id))
        s = fst_fail(err, FST_E_MISMATCH, "%s is the identity of %s", path, b.id);
    if (!s)
        s = fill(&i, &b, real, err);
    if (!s) {
        X509 *x = fst__certificate_parse(b.certificate, strlen(b.certificate));
        i.until = x ? fst__certificate_until(x) : 0;
        X509_free(x);
    }
    fst__bundle_release(&b);
    fst_free(real);
    fst_free(path);
    if (s)
        fst_identity_release(&i);
    else
        *out = i;
    return s;
}

void fst_identity_release(fst_identity *i)
{
    if (!i)
        return;
    fst_free(i->ca);
    fst_free(i->certificate);
    fst_free(i->key);
    fst_free(i->seat);
    fst_free(i->local_certificate);
    fst_free(i->broker_conf);
    *i = (fst_identity){0};
}
