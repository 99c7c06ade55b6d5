/* A fleet's folder without a broker: who gets which certificate, what a request cannot ask for, modes of files, and
 * what is left when something goes wrong. Certificates are judged by libcrypto's own chain check. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* */
#include <cmocka.h>

#include "bundle.h"

static fst_error err;
static char root[64], hub[96], site[96];

#define OK(call)                                                               \
    do {                                                                       \
        err.message[0] = 0;                                                    \
        if ((call) != FST_OK)                                                  \
            fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #call, err.message); \
    } while (0)

static int set_up(void **state)
{
    const fst_fleet_setup setup = {.hosts = "hub.example,10.0.0.1,fe80::1"};
    (void)state;
    snprintf(root, sizeof root, "/tmp/fedstill-fleet-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(hub, sizeof hub, "%s/hub", root);
    snprintf(site, sizeof site, "%s/site", root);
    OK(fst_fleet_init(hub, &setup, &err));
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static const char *in(const char *folder, const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

static void read_text(fst_buf *out, const char *folder, const char *name)
{
    *out = (fst_buf){0};
    OK(fst_file_read(in(folder, name), 1 << 20, out, &err));
}

static X509 *certificate(const char *folder, const char *name)
{
    FILE *f = fopen(in(folder, name), "r");
    assert_non_null(f);
    X509 *x = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    assert_non_null(x);
    return x;
}

/* X509_verify_cert's answer, with the fleet's revocation list. */
static int chain(X509 *x, int purpose)
{
    X509 *ca = certificate(hub, "ca.pem");
    FILE *f = fopen(in(hub, "crl.pem"), "r");
    assert_non_null(f);
    X509_CRL *crl = PEM_read_X509_CRL(f, NULL, NULL, NULL);
    fclose(f);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    assert_true(crl && store && ctx);
    X509_STORE_add_cert(store, ca);
    X509_STORE_add_crl(store, crl);
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, x, NULL), 1);
    X509_STORE_CTX_set_purpose(ctx, purpose);
    int why = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_CRL_free(crl);
    X509_free(ca);
    return why;
}

static void enroll(const char *id, fst_role role, const char *edge, const char *hosts)
{
    char csr[64], bundle[64];
    snprintf(csr, sizeof csr, "%s.csr", id);
    snprintf(bundle, sizeof bundle, "%s.fleet", id);
    OK(fst_fleet_request(NULL, site, id, role, edge, &err));
    OK(fst_fleet_enroll(hub, in(site, csr), NULL, hosts, 0, &err));
    OK(fst_fleet_install(in(hub, bundle), site, false, &err));
}

static void assert_mode(const char *folder, const char *name, mode_t mode)
{
    struct stat st;
    assert_int_equal(lstat(in(folder, name), &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
}

static void keys_are_private(void **state)
{
    (void)state;
    umask(0); /* whatever the user's is */
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    umask(022);
    assert_mode(root, "hub", 0700);
    assert_mode(hub, "ca.key", 0600);
    assert_mode(hub, "hub.key", 0600);
    assert_mode(hub, "cloud.key", 0600);
    assert_mode(site, "edge-1.key", 0600);
    assert_int_equal(access(in(hub, "edge-1.key"), F_OK), -1); /* it never came to the hub */
    fst_buf bundle, key;
    read_text(&bundle, hub, "edge-1.fleet");
    read_text(&key, site, "edge-1.key");
    assert_null(strstr(bundle.data, "PRIVATE"));
    fst_buf_release(&bundle);
    fst_buf_release(&key);
}

static void certificates_are_of_their_use(void **state)
{
    (void)state;
    enroll("edge-1", FST_ROLE_EDGE, NULL, "edge.example,10.0.1.1");
    X509 *h = certificate(hub, "hub.pem"), *c = certificate(hub, "cloud.pem"), *e = certificate(site, "edge-1.pem"),
         *b = certificate(site, "broker.pem"), *ca = certificate(hub, "ca.pem");
    assert_int_equal(chain(h, X509_PURPOSE_SSL_SERVER), X509_V_OK);
    assert_int_equal(chain(h, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_INVALID_PURPOSE);
    assert_int_equal(chain(c, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    assert_int_equal(chain(e, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    assert_int_equal(chain(e, X509_PURPOSE_SSL_SERVER), X509_V_ERR_INVALID_PURPOSE);
    assert_int_equal(chain(b, X509_PURPOSE_SSL_SERVER), X509_V_OK);
    assert_int_equal(chain(b, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_INVALID_PURPOSE);
    /* names and addresses */
    assert_int_equal(X509_check_host(h, "hub.example", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(h, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(h, "edge.example", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(h, "10.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(h, "fe80::1", 0), 1);
    assert_int_equal(X509_check_ip_asc(h, "10.0.0.2", 0), 0);
    assert_int_equal(X509_check_ip_asc(b, "10.0.1.1", 0), 1);
    assert_int_equal(X509_check_ca(ca), 1);
    assert_int_equal(X509_check_ca(e), 0);
    assert_int_equal(X509_get_pathlen(ca), 0); /* no authority below this one */
    /* 365 days from now, give or take a minute */
    int days = 0, seconds = 0;
    assert_int_equal(ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(e)), 1);
    assert_true((days == 365 && seconds == 0) || (days == 364 && seconds > 86340));
    X509_free(h);
    X509_free(c);
    X509_free(e);
    X509_free(b);
    X509_free(ca);
}

/* ---- requests ----------------------------------------------------------------------------- */

struct wish { /* of a request that was not made by this program */
    const char *cn, *ou, *curve;
    bool ca, rsa;
};

static void forge(const struct wish *w, const char *name)
{
    X509_REQ *r = X509_REQ_new();
    EVP_PKEY *key = w->rsa ? EVP_RSA_gen(2048) : EVP_EC_gen(w->curve ? w->curve : "P-256");
    X509_NAME *subject = X509_REQ_get_subject_name(r);
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    assert_true(r && key && list);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)w->cn, -1, -1, 0);
    X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_ASC, (const unsigned char *)w->ou, -1, -1, 0);
    if (w->ca) {
        sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE"));
        sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, "keyCertSign"));
        sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_ext_key_usage, "serverAuth"));
        sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:hub.example"));
        X509_REQ_add_extensions(r, list);
    }
    X509_REQ_set_pubkey(r, key);
    X509_REQ_sign(r, key, EVP_sha256());
    FILE *f = fopen(in(root, name), "w");
    assert_non_null(f);
    PEM_write_X509_REQ(f, r);
    fclose(f);
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    EVP_PKEY_free(key);
    X509_REQ_free(r);
}

static void a_request_gives_its_key_and_nothing_else(void **state)
{
    const struct wish greedy = {.cn = "edge-9", .ou = "edge", .ca = true};
    fst_fleet_csr c;
    struct fst__bundle b = {0};
    (void)state;
    forge(&greedy, "greedy.csr");
    OK(fst_fleet_csr_read(&c, in(root, "greedy.csr"), &err));
    assert_true(c.asks_more);
    OK(fst_fleet_enroll(hub, in(root, "greedy.csr"), &c, NULL, 0, &err));
    OK(fst__bundle_read(&b, in(hub, "edge-9.fleet"), &err));
    BIO *bio = BIO_new_mem_buf(b.certificate, -1);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    char cn[64] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof cn);
    assert_string_equal(cn, "g1.edge-9");
    assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(x)), 1); /* its OU is not there */
    assert_int_equal(X509_check_ca(x), 0);
    assert_int_equal(X509_get_key_usage(x), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(x), XKU_SSL_CLIENT);
    assert_int_equal(X509_check_host(x, "hub.example", 0, 0, NULL), 0);
    X509_free(x);
    BIO_free(bio);
    fst__bundle_release(&b);
}

static void requests_of_others_are_refused(void **state)
{
    static const struct {
        struct wish w;
        const char *why;
    } cases[] = {
        {{.cn = "g1.cloud", .ou = "cloud"}, "is no id of a site"},
        {{.cn = "edge-1/../../x", .ou = "edge"}, "is no id of a site"},
        {{.cn = "hub", .ou = "edge"}, "uses itself"},
        {{.cn = "edge-1-local", .ou = "edge"}, "uses itself"},
        {{.cn = "edge-1", .ou = "admin"}, "its subject is not that"},
        {{.cn = "camera", .ou = "device"}, "its edge is missing"},
        {{.cn = "edge-9", .ou = "cloud"},
         "for the role cloud, and for it alone"}, /* who orders has a name that shows it */
        {{.cn = "cloud-b", .ou = "edge"}, "for the role cloud, and for it alone"},
        {{.cn = "edge-1", .ou = "edge", .curve = "P-384"}, "not of the curve P-256"},
        {{.cn = "edge-1", .ou = "edge", .rsa = true}, "not of the curve P-256"},
    };
    fst_fleet_csr c;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        forge(&cases[i].w, "odd.csr");
        assert_int_equal(fst_fleet_csr_read(&c, in(root, "odd.csr"), &err), FST_E_FORMAT);
        if (!strstr(err.message, cases[i].why))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.message, cases[i].why);
        assert_int_equal(fst_fleet_enroll(hub, in(root, "odd.csr"), NULL, NULL, 0, &err), FST_E_FORMAT);
    }
    char *large = calloc(1, FST__MAX_CSR + 2);
    memset(large, 'A', FST__MAX_CSR + 1);
    OK(fst_file_write(in(root, "large.csr"), large, FST__MAX_CSR + 1, &err));
    assert_int_equal(fst_fleet_csr_read(&c, in(root, "large.csr"), &err), FST_E_LIMIT);
    free(large);
}

/* The same key in a request whose subject was changed afterwards. */
static void a_changed_request_is_refused(void **state)
{
    fst_buf text;
    fst_fleet_csr c;
    unsigned char der[1024];
    (void)state;
    OK(fst_fleet_request(NULL, site, "edge-1", FST_ROLE_EDGE, NULL, &err));
    read_text(&text, site, "edge-1.csr");
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    X509_REQ *r = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    unsigned char *p = der;
    int n = i2d_X509_REQ(r, &p);
    unsigned char *at = memmem(der, (size_t)n, "edge-1", 6);
    assert_non_null(at);
    at[5] = '2';
    FILE *f = fopen(in(root, "changed.csr"), "w");
    PEM_write(f, "CERTIFICATE REQUEST", "", der, n);
    fclose(f);
    assert_int_equal(fst_fleet_csr_read(&c, in(root, "changed.csr"), &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "signature"));
    X509_REQ_free(r);
    BIO_free(bio);
    fst_buf_release(&text);
}

static void what_was_shown_is_what_is_enrolled(void **state)
{
    fst_fleet_csr c;
    (void)state;
    OK(fst_fleet_request(&c, site, "edge-1", FST_ROLE_EDGE, NULL, &err));
    c.fingerprint[0] = c.fingerprint[0] == '0' ? '1' : '0';
    assert_int_equal(fst_fleet_enroll(hub, in(site, "edge-1.csr"), &c, NULL, 0, &err), FST_E_MISMATCH);
    assert_int_equal(access(in(hub, "edge-1.fleet"), F_OK), -1);
}

/* ---- enrolments --------------------------------------------------------------------------- */

static void renewal_keeps_name_and_key(void **state)
{
    fst_fleet_site *sites = NULL;
    size_t n = 0;
    fst_buf before, after;
    (void)state;
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    read_text(&before, site, "edge-1.pem");
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    read_text(&after, site, "edge-1.pem");
    assert_string_not_equal(before.data, after.data);
    OK(fst_fleet_list(&sites, &n, hub, &err));
    assert_int_equal(n, 3);
    assert_string_equal(sites[2].name, "g1.edge-1");
    fst_free(sites);
    /* both certificates end with a revocation */
    X509 *x = certificate(site, "edge-1.pem");
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    OK(fst_fleet_revoke(hub, "edge-1", &err));
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    X509_free(x);
    OK(fst_file_write(in(root, "old.pem"), before.data, before.len, &err));
    x = certificate(root, "old.pem");
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    X509_free(x);
    x = certificate(hub, "cloud.pem");
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    X509_free(x);
    fst_buf_release(&before);
    fst_buf_release(&after);
}

static void one_id_has_one_key(void **state)
{
    char other[96];
    (void)state;
    snprintf(other, sizeof other, "%s/other", root);
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    OK(fst_fleet_request(NULL, other, "edge-1", FST_ROLE_EDGE, NULL, &err));
    assert_int_equal(fst_fleet_enroll(hub, in(other, "edge-1.csr"), NULL, NULL, 0, &err), FST_E_MISMATCH);
    OK(fst_fleet_request(NULL, other, "cloud", FST_ROLE_CLOUD, NULL, &err)); /* nor can the cloud be had so */
    assert_int_equal(fst_fleet_enroll(hub, in(other, "cloud.csr"), NULL, NULL, 0, &err), FST_E_MISMATCH);
    /* a bundle is of use only to its key */
    assert_int_equal(fst_fleet_install(in(hub, "edge-1.fleet"), other, false, &err), FST_E_MISMATCH);
    assert_int_equal(access(in(other, "edge-1.pem"), F_OK), -1);
}

static void devices_are_of_an_edge(void **state)
{
    fst_identity i = {0};
    fst_buf acl;
    (void)state;
    OK(fst_fleet_request(NULL, site, "camera", FST_ROLE_DEVICE, "edge-1", &err));
    assert_int_equal(fst_fleet_enroll(hub, in(site, "camera.csr"), NULL, NULL, 0, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "is not enrolled"));
    enroll("edge-1", FST_ROLE_EDGE, NULL, "edge.example");
    OK(fst_identity_load(&i, site, "edge-1", &err));
    assert_null(i.broker_conf); /* no devices, no broker */
    fst_identity_release(&i);
    enroll("camera", FST_ROLE_DEVICE, "edge-1", NULL);
    OK(fst_identity_load(&i, site, "camera", &err));
    assert_string_equal(i.url, "mqtts://edge.example:8883");
    fst_identity_release(&i);
    OK(fst_fleet_install(in(hub, "edge-1.fleet"), site, false, &err));
    OK(fst_identity_load(&i, site, "edge-1", &err));
    assert_non_null(i.broker_conf);
    assert_string_equal(i.url, "mqtts://hub.example:8883");
    fst_identity_release(&i);
    read_text(&acl, site, "broker.acl");
    assert_non_null(strstr(acl.data, "user g1.camera\ntopic write fst/q/edge-1/camera/#\ntopic read fst/a/camera/#\n"));
    fst_buf_release(&acl);
    read_text(&acl, hub, "hub.acl");
    assert_null(strstr(acl.data, "camera"));
    fst_buf_release(&acl);
    OK(fst_fleet_revoke(hub, "camera", &err));
    OK(fst_fleet_install(in(hub, "edge-1.fleet"), site, false, &err));
    read_text(&acl, site, "broker.acl");
    assert_null(strstr(acl.data, "camera")); /* although it was the last one */
    fst_buf_release(&acl);
    /* nor may an edge have the hub's name in its certificate */
    OK(fst_fleet_request(NULL, site, "edge-7", FST_ROLE_EDGE, NULL, &err));
    assert_int_equal(fst_fleet_enroll(hub, in(site, "edge-7.csr"), NULL, "other.example,HUB.example", 0, &err),
                     FST_E_CONFIG);
    assert_non_null(strstr(err.message, "is the hub"));
    X509 *x = certificate(site, "camera.pem");
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    X509_free(x);
    fst_buf a, b;
    read_text(&a, hub, "crl.pem");
    read_text(&b, site, "crl.pem");
    assert_string_equal(a.data, b.data);
    fst_buf_release(&a);
    fst_buf_release(&b);
}

/* A stand-by has the seat's name over its own key, and loses it with its own. */
static void stand_by(void **state)
{
    fst_identity i = {0};
    (void)state;
    enroll("cloud-b", FST_ROLE_CLOUD, NULL, NULL);
    OK(fst_identity_load(&i, site, "cloud-b", &err));
    assert_string_equal(i.seat_name, "g1.cloud");
    X509 *seat = certificate("", i.seat), *own = certificate(hub, "cloud.pem");
    char cn[64];
    X509_NAME_get_text_by_NID(X509_get_subject_name(seat), NID_commonName, cn, sizeof cn);
    assert_string_equal(cn, "g1.cloud");
    OK(fst_fleet_revoke(hub, "cloud-b", &err));
    assert_int_equal(chain(seat, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    assert_int_equal(chain(own, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    X509_free(seat);
    X509_free(own);
    fst_identity_release(&i);
}

/* ---- what goes wrong ---------------------------------------------------------------------- */

static void a_fleet_is_never_overwritten(void **state)
{
    const fst_fleet_setup setup = {.hosts = "hub.example"};
    fst_buf before, after;
    (void)state;
    read_text(&before, hub, "ca.key");
    assert_int_equal(fst_fleet_init(hub, &setup, &err), FST_E_IO);
    read_text(&after, hub, "ca.key");
    assert_string_equal(before.data, after.data);
    fst_buf_release(&before);
    fst_buf_release(&after);
    static const char *const wrong[] = {"", ",", "a,,b", "a b", "10.0.0.256", "a\nb", "-a", "a,", "DNS:x", "*.example"};
    char fresh[96];
    snprintf(fresh, sizeof fresh, "%s/fresh", root);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const fst_fleet_setup bad = {.hosts = wrong[i]};
        assert_int_equal(fst_fleet_init(fresh, &bad, &err), FST_E_CONFIG);
        assert_int_equal(access(fresh, F_OK), -1);
    }
    const fst_fleet_setup plain = {.hosts = "hub", .port = 1883};
    assert_int_equal(fst_fleet_init(fresh, &plain, &err), FST_E_CONFIG);
}

static void one_process_at_a_time(void **state)
{
    int fd = -1;
    (void)state;
    OK(fst_fleet_request(NULL, site, "edge-1", FST_ROLE_EDGE, NULL, &err));
    OK(fst_file_lock(&fd, in(hub, ".lock"), &err));
    assert_int_equal(fst_fleet_enroll(hub, in(site, "edge-1.csr"), NULL, NULL, 0, &err), FST_E_IO);
    fst_file_unlock(fd);
    OK(fst_fleet_enroll(hub, in(site, "edge-1.csr"), NULL, NULL, 0, &err));
}

/* Killed after the roster was written: a revoked site in the roster, and the lists of before. */
static void the_next_call_makes_what_is_missing(void **state)
{
    fst_buf crl, acl, now;
    (void)state;
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    read_text(&crl, hub, "crl.pem");
    read_text(&acl, hub, "hub.acl");
    OK(fst_fleet_revoke(hub, "edge-1", &err));
    OK(fst_file_write(in(hub, "crl.pem"), crl.data, crl.len, &err));
    OK(fst_file_write(in(hub, "hub.acl"), acl.data, acl.len, &err));
    OK(fst_fleet_revoke(hub, "edge-1", &err));
    X509 *x = certificate(site, "edge-1.pem");
    assert_int_equal(chain(x, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    X509_free(x);
    read_text(&now, hub, "hub.acl");
    assert_null(strstr(now.data, "edge-1"));
    assert_int_equal(fst_fleet_revoke(hub, "edge-7", &err), FST_E_CONFIG);
    fst_buf_release(&crl);
    fst_buf_release(&acl);
    fst_buf_release(&now);
}

static void memory_may_end_anywhere(void **state)
{
    fst_status s = FST_E_MEMORY;
    (void)state;
    OK(fst_fleet_request(NULL, site, "edge-1", FST_ROLE_EDGE, NULL, &err));
    uint64_t n = 1;
    for (; s; n++) {
        fst_alloc_fail_at(n);
        s = fst_fleet_enroll(hub, in(site, "edge-1.csr"), NULL, NULL, 0, &err);
        fst_alloc_fail_at(0);
        if (s && s != FST_E_MEMORY)
            fail_msg("allocation %d: %s", (int)n, err.message);
        fst_fleet_site *sites = NULL;
        size_t count = 0;
        OK(fst_fleet_list(&sites, &count, hub, &err)); /* whatever happened, it is a fleet */
        assert_true(count == 2 || count == 3);
        fst_free(sites);
    }
    assert_true(n > 20);
    OK(fst_fleet_install(in(hub, "edge-1.fleet"), site, false, &err));
}

static void copy(const char *from, const char *to)
{
    fst_buf text = {0};
    OK(fst_file_read(from, 1 << 20, &text, &err));
    OK(fst_file_write(to, text.data, text.len, &err));
    fst_buf_release(&text);
}

/* An old bundle would bring back what was revoked or renewed: not unless that is meant. */
static void an_older_bundle_is_not_installed(void **state)
{
    char first[128], renewed[128];
    fst_identity i = {0};
    (void)state;
    enroll("edge-1", FST_ROLE_EDGE, NULL, NULL);
    snprintf(first, sizeof first, "%s", in(root, "first.fleet"));
    copy(in(hub, "edge-1.fleet"), first);
    OK(fst_fleet_install(first, site, false, &err)); /* the same again */
    /* of before a revocation */
    enroll("edge-2", FST_ROLE_EDGE, NULL, NULL);
    OK(fst_fleet_revoke(hub, "edge-2", &err));
    OK(fst_fleet_install(in(hub, "edge-1.fleet"), site, false, &err));
    assert_int_equal(fst_fleet_install(first, site, false, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "revocation list"));
    OK(fst_fleet_install(first, site, true, &err));
    /* of an earlier certificate */
    snprintf(renewed, sizeof renewed, "%s", in(root, "renewed.fleet"));
    sleep(1); /* certificates count seconds */
    OK(fst_fleet_enroll(hub, in(site, "edge-1.csr"), NULL, NULL, 0, &err));
    copy(in(hub, "edge-1.fleet"), renewed);
    OK(fst_fleet_install(renewed, site, false, &err));
    assert_int_equal(fst_fleet_install(first, site, false, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "its certificate"));
    OK(fst_identity_load(&i, site, "edge-1", &err)); /* what is there stays of use */
    fst_identity_release(&i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keys_are_private, set_up, tear_down),
        cmocka_unit_test_setup_teardown(certificates_are_of_their_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_request_gives_its_key_and_nothing_else, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_of_others_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_request_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_shown_is_what_is_enrolled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(renewal_keeps_name_and_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_id_has_one_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(devices_are_of_an_edge, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_older_bundle_is_not_installed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stand_by, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fleet_is_never_overwritten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_process_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_next_call_makes_what_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_may_end_anywhere, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
