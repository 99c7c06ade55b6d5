/*
 * Shutting a site out. The lists are made first, then the running broker is told (SIGHUP): from then on it refuses the
 * site's certificates, and nothing that the site says has an effect. Its connection stays, though: nothing makes
 * mosquitto end it but somebody else who connects under the same name. That is the kick:
 *
 *   1. a witness, a certificate of that name that is on the list, is tried until the broker refuses it: it has read the
 *      list, and the site will not come back;
 *   2. a second one, of a day, that is not on the list connects: the broker ends the site's connection;
 *   3. it is put on the list too, the broker told again, and tried until it is refused.
 *
 * The keys of both never leave this process: files of theirs have no name (memfd).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bundle.h"
#include "fedstill/transport.h"
#include "hub.h"

enum { MAX_PID_FILE = 64 };
static const double answer_seconds = 6, obey_seconds = 15;

fst_status fst_fleet_revoke(const char *folder, const char *id, fst_error *err)
{
    struct hub h = {0};
    fst_status s = fst_site_id_check(id, err);
    if (!s)
        s = fst__hub_open(&h, folder, err);
    struct fst__site *site = s ? NULL : fst__roster_find(&h.roster, id);
    if (!s && !site && !fst__roster_generation(&h.roster, id))
        s = fst_fail(err, FST_E_CONFIG, "%s was never enrolled; `fedstill fleet status` lists all", id);
    if (!s && site) {
        site->revoked = true;
        site->revoked_at = fst_clock_unix_ms() / 1000;
        h.roster.crl++;
        s = fst__hub_save(&h, err);
    }
    if (!s)
        s = fst__hub_refresh(&h, err);
    fst__hub_release(&h);
    return s;
}

/* The process that a file names, when it is a mosquitto; 0 otherwise. */
static pid_t mosquitto_of(const char *pid_file)
{
    char path[64], name[32] = "";
    fst_buf text = {0};
    long pid = 0;
    if (!fst_file_exists(pid_file) || fst_file_read(pid_file, MAX_PID_FILE, &text, NULL))
        return 0;
    pid = strtol(text.data, NULL, 10);
    fst_buf_release(&text);
    snprintf(path, sizeof path, "/proc/%ld/comm", pid);
    FILE *f = pid > 1 ? fopen(path, "re") : NULL;
    if (!f)
        return 0;
    if (!fgets(name, sizeof name, f))
        name[0] = 0;
    fclose(f);
    return !strcmp(name, "mosquitto\n") ? (pid_t)pid : 0;
}

fst_status fst_fleet_reload(const char *folder, const char *pid_file, bool *told, fst_error *err)
{
    char *path = pid_file ? fst_strdup(pid_file) : fst_path_join(folder, "hub.pid");
    if (!path)
        return fst_fail_memory(err, PATH_MAX);
    pid_t pid = mosquitto_of(path);
    fst_status s = FST_OK;
    bool gone = pid == 0;
    if (pid && kill(pid, SIGHUP)) {
        gone = errno == ESRCH;
        if (!gone)
            s = fst_fail_errno(err, "cannot tell the running broker (process %d, %s)", (int)pid, path);
    }
    if (!s)
        *told = !gone;
    fst_free(path);
    return s;
}

/* ---- kick ------------------------------------------------------------------------------------ */

/* An identity for one moment. */
struct throwaway {
    char name[FST_SITE_NAME], serial[FST__SERIAL], key[40], certificate[40]; /* paths of files without names */
    int key_file, certificate_file;
    int64_t until;
};

static fst_status nameless_file(int *fd, char path[40], const void *data, size_t len, fst_error *err)
{
    *fd = memfd_create("fedstill", MFD_CLOEXEC);
    if (*fd < 0 || write(*fd, data, len) != (ssize_t)len)
        return fst_fail_errno(err, "no memory for a certificate");
    snprintf(path, 40, "/proc/self/fd/%d", *fd);
    return FST_OK;
}

static fst_status key_text(EVP_PKEY *key, fst_buf *out, fst_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long n =
        bio && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 ? BIO_get_mem_data(bio, &text) : 0;
    fst_status s = n > 0 ? fst_buf_append(out, text, (size_t)n, err) : fst_fail_memory(err, FST__MAX_KEY);
    BIO_free(bio);
    return s;
}

static fst_status make_throwaway(struct throwaway *t, const struct hub *h, const char *name, fst_error *err)
{
    int64_t now = fst_clock_unix_ms() / 1000;
    EVP_PKEY *key = NULL;
    fst_buf pem = {0}, secret = {0};
    *t = (struct throwaway){.key_file = -1, .certificate_file = -1, .until = now + FST__DAY};
    snprintf(t->name, sizeof t->name, "%s", name);
    fst_status s = fst__key_new(&key, err);
    const struct fst__certificate_spec spec = {name, key, false, NULL, now - FST__DAY, t->until};
    if (!s)
        s = fst__ca_issue(&h->ca, &spec, &pem, t->serial, err);
    if (!s)
        s = key_text(key, &secret, err);
    if (!s)
        s = nameless_file(&t->key_file, t->key, secret.data, secret.len, err);
    if (!s)
        s = nameless_file(&t->certificate_file, t->certificate, pem.data, pem.len, err);
    if (secret.data)
        OPENSSL_cleanse(secret.data, secret.len);
    fst_buf_release(&secret);
    fst_buf_release(&pem);
    EVP_PKEY_free(key);
    return s;
}

static void drop_throwaway(struct throwaway *t)
{
    if (t->key_file > 0)
        close(t->key_file);
    if (t->certificate_file > 0)
        close(t->certificate_file);
}

struct attempt {
    bool over, up;
    char why[256];
};

static void on_link(void *ctx, bool up, const char *why)
{
    struct attempt *a = ctx;
    a->up = a->up || up;
    if (!a->over)
        snprintf(a->why, sizeof a->why, "%s", why);
    a->over = true;
}

/* One attempt to connect to the hub's broker from its own host. */
static fst_status try_to_connect(struct attempt *a, const struct hub *h, const struct throwaway *t, fst_error *err)
{
    const char *bind = h->roster.bind;
    bool any = !*bind || !strcmp(bind, "0.0.0.0") || !strcmp(bind, "::");
    char url[FST_FLEET_URL];
    char *ca = fst_path_join(h->folder, "ca.pem");
    fst_transport *link = NULL;
    const fst_transport_events on = {.ctx = a, .link = on_link};
    *a = (struct attempt){.why = "no answer"};
    fst_status s = ca ? fst__url(any ? "127.0.0.1" : bind, h->roster.port, url, err) : fst_fail_memory(err, PATH_MAX);
    const fst_mqtt_options o = {.url = url, .id = t->name, .ca = ca, .cert = t->certificate, .key = t->key};
    if (!s)
        s = fst_mqtt_open(&link, &o, &on, err);
    for (double end = fst_clock_seconds() + answer_seconds; !s && !a->over && fst_clock_seconds() < end;)
        s = fst_transport_poll(link, end, err);
    fst_transport_close(link);
    fst_free(ca);
    return s;
}

/* Puts it on the list, as a certificate of the site, and tells the broker. */
static fst_status put_on_list(struct hub *h, struct fst__site *site, const struct throwaway *t, const char *pid_file,
                              fst_error *err)
{
    bool told = false;
    fst_status s = fst__site_issued(site, t->name, t->serial, t->until, err);
    h->roster.crl++;
    if (!s)
        s = fst__hub_save(h, err);
    if (!s)
        s = fst__hub_refresh(h, err);
    if (!s)
        s = fst_fleet_reload(h->folder, pid_file, &told, err);
    return s || told ? s : fst_fail(err, FST_E_IO, "the broker is gone");
}

static fst_status await_refusal(const struct hub *h, const struct throwaway *t, fst_error *err)
{
    struct attempt a = {.up = true};
    fst_status s = FST_OK;
    for (double end = fst_clock_seconds() + obey_seconds; !s && a.up && fst_clock_seconds() < end;) {
        s = try_to_connect(&a, h, t, err);
        if (!s && a.up)
            nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return s || !a.up ? s
                      : fst_fail(err, FST_E_IO,
                                 "the broker was told and still lets in a certificate that is on its "
                                 "revocation list: restart it");
}

static fst_status kick(struct hub *h, struct fst__site *site, const char *pid_file, fst_error *err)
{
    char name[FST_SITE_NAME];
    struct throwaway witness = {.key_file = -1, .certificate_file = -1}, other = witness;
    struct attempt a = {.over = false};
    fst__site_name(site, name);
    fst_status s = make_throwaway(&witness, h, name, err);
    if (!s)
        s = put_on_list(h, site, &witness, pid_file, err);
    if (!s)
        s = await_refusal(h, &witness, err);
    if (!s)
        s = make_throwaway(&other, h, name, err);
    if (!s)
        s = try_to_connect(&a, h, &other, err);
    if (!s && !a.up)
        s = fst_fail(err, FST_E_IO, "nobody can connect in its name to end its connection: %s", a.why);
    fst_error second = {0};
    fst_status listed = other.until ? put_on_list(h, site, &other, pid_file, &second) : FST_OK;
    if (!listed && !s)
        listed = await_refusal(h, &other, &second);
    if (!s && listed) {
        *err = second;
        s = listed;
    }
    drop_throwaway(&witness);
    drop_throwaway(&other);
    return s;
}

fst_status fst_fleet_kick(const char *folder, const char *id, const char *pid_file, fst_error *err)
{
    struct hub h = {0};
    fst_status s = fst__hub_open(&h, folder, err);
    struct fst__site *site = NULL;
    for (size_t i = s ? 0 : h.roster.n; i > 1 && !site; i--)
        if (!strcmp(h.roster.sites[i - 1].id, id))
            site = &h.roster.sites[i - 1];
    if (!s && (!site || !site->revoked))
        s = fst_fail(err, FST_E_CONFIG, "%s was not revoked", id);
    if (!s && site->role == FST_ROLE_DEVICE)
        s = fst_fail(err, FST_E_UNSUPPORTED, "%s is connected to %s, not to the hub", id, site->edge);
    if (!s)
        s = kick(&h, site, pid_file, err);
    fst__hub_release(&h);
    return s;
}
