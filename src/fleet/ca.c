/*
 * The authority of a fleet: makes keys, certificates and revocation lists with libcrypto. A certificate says only what
 * the caller says; of a request nothing but its public key ever comes here (csr.c). The authority signs sites and
 * brokers and nothing that could sign further (path length 0).
 *
 * It keeps no state: serial numbers are 127 random bits, and what was issued is in the roster.
 */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "ca.h"
#include "ca_private.h"

enum { SERIAL_BYTES = 16, CA_YEARS = 20, CRL_YEARS = 10, MAX_PEM = 65536 };

fst_status fst__ssl_fail(fst_error *err, fst_status s, const char *what)
{
    unsigned long e = ERR_peek_error();
    const char *why = e ? ERR_reason_error_string(e) : NULL;
    ERR_clear_error();
    return fst_fail(err, s, "%s%s%s", what, why ? ": " : "", why ? why : "");
}

/* What a memory BIO holds, appended. */
fst_status fst__bio_text(BIO *bio, fst_buf *out, fst_error *err)
{
    char *p = NULL;
    long n = BIO_get_mem_data(bio, &p);
    return n > 0 ? fst_buf_append(out, p, (size_t)n, err) : fst__ssl_fail(err, FST_E_MEMORY, "cannot write PEM");
}

/* ---- keys --------------------------------------------------------------------------------- */

fst_status fst__key_new(EVP_PKEY **out, fst_error *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return fst__ssl_fail(err, FST_E_UNSUPPORTED, "cannot make a key of P-256");
    *out = key;
    return FST_OK;
}

bool fst__key_is_p256(EVP_PKEY *key)
{
    char group[32] = "";
    size_t n = 0;
    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof group, &n) == 1 &&
           !strcmp(group, "prime256v1");
}

fst_status fst__key_save(EVP_PKEY *key, const char *path, fst_error *err)
{
    char *p = NULL;
    BIO *bio = BIO_new(BIO_s_secmem());
    bool ok = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1;
    long n = ok ? BIO_get_mem_data(bio, &p) : 0;
    fst_status s = n > 0 ? fst_file_write_private(path, p, (size_t)n, err)
                         : fst__ssl_fail(err, FST_E_MEMORY, "cannot write a private key");
    BIO_free(bio);
    return s;
}

/* Never asks a human for a password. */
static int no_password(char *buf, int size, int writing, void *ctx)
{
    (void)buf, (void)size, (void)writing, (void)ctx;
    return -1;
}

fst_status fst__key_load(EVP_PKEY **out, const char *path, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = fst_file_read(path, FST__MAX_KEY, &text, err);
    if (s)
        return s;
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    ERR_clear_error();
    if (!key || !fst__key_is_p256(key)) {
        s = fst_fail(err, FST_E_FORMAT, "%s: is no private key of P-256 without a password", path);
        EVP_PKEY_free(key);
    } else {
        *out = key;
    }
    BIO_free(bio);
    OPENSSL_cleanse(text.data, text.len);
    fst_buf_release(&text);
    return s;
}

fst_status fst__key_fingerprint(EVP_PKEY *key, char hex[FST_DIGEST_HEX], fst_error *err)
{
    unsigned char *der = NULL;
    fst_sha256 h;
    int n = i2d_PUBKEY(key, &der);
    if (n <= 0)
        return fst__ssl_fail(err, FST_E_FORMAT, "cannot write a public key");
    fst_sha256_init(&h);
    fst_sha256_update(&h, der, (size_t)n);
    fst_sha256_final(&h, hex);
    OPENSSL_free(der);
    return FST_OK;
}

/* ---- names and addresses ------------------------------------------------------------------ */

static bool is_address(const char *host)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static bool is_host_name(const char *host)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    size_t n = strlen(host);
    bool digits = strspn(host, "0123456789.") == n; /* 10.0.0.256 */
    return n > 0 && n <= 253 && strspn(host, letters) == n && host[0] != '-' && host[0] != '.' && host[n - 1] != '.' &&
           !strstr(host, "..") && !digits;
}

fst_status fst__host_next(const char **at, char host[FST__HOST], fst_error *err)
{
    size_t n = strcspn(*at, ",");
    if (n >= FST__HOST || n == 0)
        return fst_fail(err, FST_E_CONFIG, "\"%.60s\": names and addresses are needed, with commas between them", *at);
    memcpy(host, *at, n);
    host[n] = 0;
    *at += n + ((*at)[n] == ',' && (*at)[n + 1]);
    if (!is_address(host) && !is_host_name(host))
        return fst_fail(err, FST_E_CONFIG, "\"%.60s\" is neither the name nor the address of a host", host);
    return FST_OK;
}

fst_status fst__hosts_check(const char *hosts, fst_error *err)
{
    char host[FST__HOST];
    fst_status s = strlen(hosts) < FST_FLEET_HOSTS - 32
                       ? FST_OK
                       : fst_fail(err, FST_E_LIMIT, "at most %d characters of names and addresses are possible",
                                  FST_FLEET_HOSTS - 33);
    size_t n = strlen(hosts);
    if (!s && (n == 0 || hosts[n - 1] == ','))
        s = fst_fail(err, FST_E_CONFIG, "the name or address of a host is missing");
    for (const char *at = hosts; !s && *at;)
        s = fst__host_next(&at, host, err);
    return s;
}

/* "DNS:hub,IP:10.0.0.1" */
static fst_status alternative_names(const char *hosts, fst_buf *out, fst_error *err)
{
    char host[FST__HOST];
    fst_status s = FST_OK;
    for (const char *at = hosts; !s && *at;) {
        s = fst__host_next(&at, host, err);
        if (!s)
            s = fst_buf_printf(out, err, "%s%s:%s", out->len ? "," : "", is_address(host) ? "IP" : "DNS", host);
    }
    return s;
}

/* ---- certificates ------------------------------------------------------------------------- */

static bool add_extension(X509V3_CTX *ctx, X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
    bool ok = e && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static bool set_serial(X509 *x, char hex[FST__SERIAL])
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); /* positive, of one length */
    BIGNUM *n = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
    BN_free(n);
    for (int i = 0; ok && i < SERIAL_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    return ok;
}

static bool set_name(X509 *x, const char *cn, const X509 *issuer)
{
    X509_NAME *name = X509_get_subject_name(x);
    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0) == 1 &&
           X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : name) == 1;
}

static bool set_times(X509 *x, int64_t from, int64_t until)
{
    return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)from) && ASN1_TIME_set(X509_getm_notAfter(x), (time_t)until);
}

/* The parts that all certificates have; signed by nobody yet. */
static X509 *new_certificate(const char *cn, EVP_PKEY *key, const X509 *issuer, int64_t from, int64_t until,
                             char serial[FST__SERIAL])
{
    X509 *x = X509_new();
    if (x && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x, serial) && set_name(x, cn, issuer) &&
        set_times(x, from, until) && X509_set_pubkey(x, key) == 1)
        return x;
    X509_free(x);
    return NULL;
}

fst_status fst__ca_new(struct fst__ca *ca, fst_error *err)
{
    unsigned char random[4];
    char serial[FST__SERIAL], cn[64];
    int64_t now = fst_clock_unix_ms() / 1000;
    struct fst__ca made = {0};
    X509V3_CTX ctx;
    fst_status s = fst__key_new(&made.key, err);
    if (s)
        return s;
    bool ok = RAND_bytes(random, sizeof random) == 1;
    snprintf(cn, sizeof cn, "fedstill fleet %02x%02x%02x%02x", random[0], random[1], random[2], random[3]);
    made.certificate =
        ok ? new_certificate(cn, made.key, NULL, now - FST__DAY, now + CA_YEARS * 365 * FST__DAY, serial) : NULL;
    X509V3_set_ctx(&ctx, made.certificate, made.certificate, NULL, NULL, 0);
    ok = made.certificate &&
         add_extension(&ctx, made.certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
         add_extension(&ctx, made.certificate, NID_key_usage, "critical,keyCertSign,cRLSign") &&
         add_extension(&ctx, made.certificate, NID_subject_key_identifier, "hash") &&
         X509_sign(made.certificate, made.key, EVP_sha256()) > 0;
    if (!ok) {
        fst__ca_release(&made);
        return fst__ssl_fail(err, FST_E_MEMORY, "cannot make the authority's certificate");
    }
    *ca = made;
    return FST_OK;
}

X509 *fst__certificate_parse(const char *pem, size_t len)
{
    BIO *bio = len < MAX_PEM ? BIO_new_mem_buf(pem, (int)len) : NULL;
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return x;
}

fst_status fst__ca_load(struct fst__ca *ca, const char *key, const char *certificate, fst_error *err)
{
    struct fst__ca read = {0};
    fst_buf text = {0};
    fst_status s = fst__key_load(&read.key, key, err);
    if (!s)
        s = fst_file_read(certificate, MAX_PEM, &text, err);
    if (!s && !(read.certificate = fst__certificate_parse(text.data, text.len)))
        s = fst_fail(err, FST_E_FORMAT, "%s: is no certificate", certificate);
    if (!s && X509_check_private_key(read.certificate, read.key) != 1)
        s = fst__ssl_fail(err, FST_E_MISMATCH, "the authority's key and certificate do not belong together");
    fst_buf_release(&text);
    if (s)
        fst__ca_release(&read);
    else
        *ca = read;
    return s;
}

void fst__ca_release(struct fst__ca *ca)
{
    if (!ca)
        return;
    EVP_PKEY_free(ca->key);
    X509_free(ca->certificate);
    *ca = (struct fst__ca){0};
}

fst_status fst__certificate_pem(X509 *x, fst_buf *out, fst_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    fst_status s = bio && PEM_write_bio_X509(bio, x) == 1
                       ? fst__bio_text(bio, out, err)
                       : fst__ssl_fail(err, FST_E_MEMORY, "cannot write a certificate");
    BIO_free(bio);
    return s;
}

static bool add_uses(const struct fst__ca *ca, X509 *x, const struct fst__certificate_spec *spec, const char *names)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, ca->certificate, x, NULL, NULL, 0);
    return add_extension(&ctx, x, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(&ctx, x, NID_key_usage, "critical,digitalSignature") &&
           add_extension(&ctx, x, NID_ext_key_usage, spec->server ? "serverAuth" : "clientAuth") &&
           add_extension(&ctx, x, NID_subject_key_identifier, "hash") &&
           add_extension(&ctx, x, NID_authority_key_identifier, "keyid") &&
           (!spec->server || add_extension(&ctx, x, NID_subject_alt_name, names));
}

fst_status fst__ca_issue(const struct fst__ca *ca, const struct fst__certificate_spec *spec, fst_buf *pem,
                         char serial[FST__SERIAL], fst_error *err)
{
    fst_buf names = {0};
    char number[FST__SERIAL];
    fst_status s = spec->server ? alternative_names(spec->hosts, &names, err) : FST_OK;
    X509 *x = s ? NULL : new_certificate(spec->name, spec->key, ca->certificate, spec->from, spec->until, number);
    if (!s && !(x && add_uses(ca, x, spec, names.data) && X509_sign(x, ca->key, EVP_sha256()) > 0))
        s = fst__ssl_fail(err, FST_E_MEMORY, "cannot make a certificate");
    if (!s)
        s = fst__certificate_pem(x, pem, err);
    if (!s)
        memcpy(serial, number, sizeof number);
    X509_free(x);
    fst_buf_release(&names);
    return s;
}

/* ---- revocation list ------------------------------------------------------------------------ */

static bool revoke(X509_CRL *crl, const struct fst__revoked *r)
{
    BIGNUM *n = NULL;
    ASN1_TIME *when = ASN1_TIME_set(NULL, (time_t)r->when);
    ASN1_INTEGER *serial = BN_hex2bn(&n, r->serial) ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    X509_REVOKED *entry = X509_REVOKED_new();
    bool ok = when && serial && entry && X509_REVOKED_set_serialNumber(entry, serial) == 1 &&
              X509_REVOKED_set_revocationDate(entry, when) == 1 && X509_CRL_add0_revoked(crl, entry) == 1;
    if (!ok)
        X509_REVOKED_free(entry);
    ASN1_INTEGER_free(serial);
    ASN1_TIME_free(when);
    BN_free(n);
    return ok;
}

/* Of two lists OpenSSL believes the one with the later second: so a list is a second later for each one before it, too.
 */
static bool set_crl_times(X509_CRL *crl, int64_t number)
{
    int64_t now = fst_clock_unix_ms() / 1000, later = number < FST__DAY / 2 ? number : FST__DAY / 2;
    ASN1_TIME *last = ASN1_TIME_set(NULL, (time_t)(now - FST__DAY + later));
    ASN1_TIME *next = ASN1_TIME_set(NULL, (time_t)(now + CRL_YEARS * 365 * FST__DAY));
    bool ok = last && next && X509_CRL_set1_lastUpdate(crl, last) == 1 && X509_CRL_set1_nextUpdate(crl, next) == 1;
    ASN1_TIME_free(last);
    ASN1_TIME_free(next);
    return ok;
}

static bool set_crl_number(X509_CRL *crl, int64_t number)
{
    ASN1_INTEGER *n = ASN1_INTEGER_new();
    bool ok = n && ASN1_INTEGER_set_int64(n, number) == 1 && X509_CRL_add1_ext_i2d(crl, NID_crl_number, n, 0, 0) == 1;
    ASN1_INTEGER_free(n);
    return ok;
}

fst_status fst__ca_crl(const struct fst__ca *ca, const struct fst__revoked *list, size_t n, int64_t number,
                       fst_buf *pem, fst_error *err)
{
    X509_CRL *crl = X509_CRL_new();
    BIO *bio = BIO_new(BIO_s_mem());
    bool ok = crl && bio && X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1 &&
              X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->certificate)) == 1 &&
              set_crl_times(crl, number) && set_crl_number(crl, number);
    for (size_t i = 0; ok && i < n; i++)
        ok = revoke(crl, &list[i]);
    ok = ok && X509_CRL_sort(crl) == 1 && X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0 &&
         PEM_write_bio_X509_CRL(bio, crl) == 1;
    fst_status s =
        ok ? fst__bio_text(bio, pem, err) : fst__ssl_fail(err, FST_E_MEMORY, "cannot make a revocation list");
    BIO_free(bio);
    X509_CRL_free(crl);
    return s;
}

/* ---- checking ------------------------------------------------------------------------------- */

/* Seconds since 1970. */
static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm = {0};
    int days = 0, seconds = 0;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    bool ok = epoch && ASN1_TIME_to_tm(t, &tm) == 1 && ASN1_TIME_diff(&days, &seconds, epoch, t) == 1;
    ASN1_TIME_free(epoch);
    return ok ? days * FST__DAY + seconds : 0;
}

int64_t fst__certificate_from(const X509 *x)
{
    return seconds_of(X509_get0_notBefore(x));
}

int64_t fst__certificate_until(const X509 *x)
{
    return seconds_of(X509_get0_notAfter(x));
}

int64_t fst__crl_number(const char *pem, size_t len)
{
    BIO *bio = len < INT32_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    X509_CRL *crl = bio ? PEM_read_bio_X509_CRL(bio, NULL, no_password, NULL) : NULL;
    ASN1_INTEGER *n = crl ? X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL) : NULL;
    int64_t got = -1;
    if (n && ASN1_INTEGER_get_int64(&got, n) != 1)
        got = -1;
    ASN1_INTEGER_free(n);
    X509_CRL_free(crl);
    BIO_free(bio);
    ERR_clear_error();
    return got;
}

bool fst__crl_is_number(const char *pem, size_t len, int64_t number)
{
    return fst__crl_number(pem, len) == number;
}

/* What is wrong with it, NULL when nothing is. */
static const char *wrong_with(X509 *x, X509 *ca, EVP_PKEY *key, const char *name, bool server)
{
    char cn[128] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof cn);
    EVP_PKEY *authority = X509_get0_pubkey(ca);
    if (!authority || X509_verify(x, authority) != 1)
        return "is not signed by the authority beside it";
    if (strcmp(cn, name))
        return "has another name";
    if (X509_check_private_key(x, key) != 1)
        return "is for another key than the one that is here";
    uint32_t use = X509_get_extended_key_usage(x);
    if (use == UINT32_MAX || !(use & (server ? XKU_SSL_SERVER : XKU_SSL_CLIENT)))
        return "is for another use";
    return NULL;
}

fst_status fst__certificate_check(const char *pem, const char *ca_pem, EVP_PKEY *key, const char *name, bool server,
                                  int64_t *until, fst_error *err)
{
    X509 *x = fst__certificate_parse(pem, strlen(pem)), *ca = fst__certificate_parse(ca_pem, strlen(ca_pem));
    const char *wrong = x && ca ? wrong_with(x, ca, key, name, server) : "cannot be read";
    fst_status s = wrong ? fst_fail(err, FST_E_MISMATCH, "the certificate of %s %s", name, wrong) : FST_OK;
    if (!s)
        *until = seconds_of(X509_get0_notAfter(x));
    ERR_clear_error();
    X509_free(x);
    X509_free(ca);
    return s;
}
