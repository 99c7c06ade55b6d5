/*
 * Requests of sites. They come from outside, so that the order is: length, one PEM block of the right kind, DER, curve,
 * subject, signature (the sender has the private key). The subject says in the fleet's own words who asks: CN an id, OU
 * a role, O a device's edge. It is a proposal that a human confirms; extensions that a request asks for are never
 * looked at.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#include "ca_private.h"

static const char begin[] = "-----BEGIN CERTIFICATE REQUEST-----\n", end[] = "-----END CERTIFICATE REQUEST-----\n";

/* ---- names of sites ----------------------------------------------------------------------- */

static const char *const roles[] = {"cloud", "edge", "device"};

const char *fst_role_name(fst_role r)
{
    return roles[r];
}

bool fst_role_parse(const char *name, fst_role *out)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(roles[i], name)) {
            *out = (fst_role)i;
            return true;
        }
    return false;
}

fst_status fst_site_id_check(const char *id, fst_error *err)
{
    /* Names of files beside a site's own (ca.key, broker.pem, ID-seat.pem), and of an edge at its broker. */
    static const char *const words[] = {"hub", "ca", "crl", "broker"}, *const ends[] = {"-local", "-seat"};
    size_t n = strlen(id);
    bool reserved = false;
    if (n == 0 || n >= FST_SITE_ID || strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != n || id[0] == '-' ||
        id[n - 1] == '-')
        return fst_fail(err, FST_E_CONFIG,
                        "\"%.40s\" is no id of a site: 1 to 32 small letters, digits and dashes inside are needed", id);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        reserved = reserved || !strcmp(id, words[i]);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        reserved = reserved || (n >= strlen(ends[i]) && !strcmp(id + n - strlen(ends[i]), ends[i]));
    return reserved ? fst_fail(err, FST_E_CONFIG, "\"%s\" is a name that the fleet uses itself: take another id", id)
                    : FST_OK;
}

/* The role, and the edge that devices have and nobody else. */
static fst_status check_site(const fst_fleet_csr *c, fst_error *err)
{
    fst_status s = fst_site_id_check(c->id, err);
    if (!s && c->role == FST_ROLE_DEVICE && !c->edge[0])
        return fst_fail(err, FST_E_CONFIG, "device %s: its edge is missing", c->id);
    if (!s && c->role != FST_ROLE_DEVICE && c->edge[0])
        return fst_fail(err, FST_E_CONFIG, "%s is no device, so it has no edge", c->id);
    if (!s && c->edge[0])
        s = fst_site_id_check(c->edge, err);
    /* whoever is the cloud may order everybody: a name must show it */
    bool named = !strcmp(c->id, "cloud") || !strncmp(c->id, "cloud-", 6);
    if (!s && named != (c->role == FST_ROLE_CLOUD))
        s = fst_fail(err, FST_E_CONFIG,
                     "%s as %s: the ids cloud and cloud-... are for the role cloud, and for it alone", c->id,
                     fst_role_name(c->role));
    return s;
}

/* ---- making ------------------------------------------------------------------------------- */

static bool add_word(X509_NAME *subject, const char *field, const char *word)
{
    return X509_NAME_add_entry_by_txt(subject, field, MBSTRING_ASC, (const unsigned char *)word, -1, -1, 0) == 1;
}

fst_status fst__csr_make(EVP_PKEY *key, const fst_fleet_csr *says, fst_buf *pem, fst_error *err)
{
    fst_status s = check_site(says, err);
    if (s)
        return s;
    X509_REQ *r = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    X509_NAME *subject = r ? X509_REQ_get_subject_name(r) : NULL;
    bool ok = subject && bio && X509_REQ_set_version(r, X509_REQ_VERSION_1) == 1 && add_word(subject, "CN", says->id) &&
              add_word(subject, "OU", fst_role_name(says->role)) &&
              (!says->edge[0] || add_word(subject, "O", says->edge)) && X509_REQ_set_pubkey(r, key) == 1 &&
              X509_REQ_sign(r, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(bio, r) == 1;
    s = ok ? fst__bio_text(bio, pem, err) : fst__ssl_fail(err, FST_E_MEMORY, "cannot make a request");
    BIO_free(bio);
    X509_REQ_free(r);
    return s;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* The only entry of this kind in the subject, as plain ASCII; false when there are several or it does not fit. */
static bool word_of(const X509_NAME *subject, int nid, char *out, size_t size)
{
    int at = X509_NAME_get_index_by_NID(subject, nid, -1);
    out[0] = 0;
    if (at < 0)
        return true;
    if (X509_NAME_get_index_by_NID(subject, nid, at) >= 0)
        return false;
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    int n = ASN1_STRING_length(value);
    const unsigned char *p = ASN1_STRING_get0_data(value);
    if (n < 0 || (size_t)n >= size)
        return false;
    for (int i = 0; i < n; i++)
        if (p[i] < 0x20 || p[i] > 0x7e)
            return false;
    memcpy(out, p, (size_t)n);
    out[n] = 0;
    return true;
}

static fst_status read_subject(fst_fleet_csr *c, X509_REQ *r, const char *name, fst_error *err)
{
    char role[16];
    const X509_NAME *subject = X509_REQ_get_subject_name(r);
    fst_error why = {0};
    bool ok = word_of(subject, NID_commonName, c->id, sizeof c->id) &&
              word_of(subject, NID_organizationalUnitName, role, sizeof role) &&
              word_of(subject, NID_organizationName, c->edge, sizeof c->edge) && fst_role_parse(role, &c->role);
    if (!ok)
        return fst_fail(err, FST_E_FORMAT, "%s: its subject is not that of a request by `fedstill fleet request`",
                        name);
    if (check_site(c, &why))
        return fst_fail(err, FST_E_FORMAT, "%s: %s", name, why.message);
    return FST_OK;
}

/* One block, nothing before and nothing after it. */
static bool one_block(const char *text, size_t len)
{
    size_t b = sizeof begin - 1, e = sizeof end - 1;
    return len > b + e && !memcmp(text, begin, b) && !memcmp(text + len - e, end, e) &&
           !memchr(text + b, '-', len - b - e);
}

static fst_status check_signature(X509_REQ *r, const char *name, fst_error *err)
{
    if (X509_REQ_verify(r, X509_REQ_get0_pubkey(r)) != 1)
        return fst_fail(err, FST_E_FORMAT, "%s: its signature does not fit its key: it was changed, or cut", name);
    return FST_OK;
}

static fst_status check_curve(X509_REQ *r, const char *name, fst_error *err)
{
    EVP_PKEY *key = r ? X509_REQ_get0_pubkey(r) : NULL;
    if (!r)
        return fst_fail(err, FST_E_FORMAT, "%s: its PEM or DER is broken", name);
    if (!key || !fst__key_is_p256(key))
        return fst_fail(err, FST_E_FORMAT, "%s: its key is not of the curve P-256", name);
    return FST_OK;
}

fst_status fst__csr_parse(fst_fleet_csr *out, EVP_PKEY **key, const char *name, const void *data, size_t len,
                          fst_error *err)
{
    fst_fleet_csr c = {0};
    if (len > FST__MAX_CSR)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu bytes; a request has at most %d", name, len, FST__MAX_CSR);
    if (!one_block(data, len))
        return fst_fail(err, FST_E_FORMAT, "%s: is no request by `fedstill fleet request` (one PEM block)", name);
    BIO *bio = BIO_new_mem_buf(data, (int)len);
    X509_REQ *r = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, (void *)(uintptr_t) "") : NULL;
    fst_status s = check_curve(r, name, err);
    if (!s)
        s = read_subject(&c, r, name, err);
    if (!s)
        s = check_signature(r, name, err);
    if (!s)
        s = fst__key_fingerprint(X509_REQ_get0_pubkey(r), c.fingerprint, err);
    if (!s) {
        c.asks_more = X509_REQ_get_attr_count(r) > 0;
        *key = X509_REQ_get_pubkey(r);
        *out = c;
    }
    ERR_clear_error();
    X509_REQ_free(r);
    BIO_free(bio);
    return s;
}

fst_status fst_fleet_csr_read(fst_fleet_csr *out, const char *file, fst_error *err)
{
    EVP_PKEY *key = NULL;
    fst_buf text = {0};
    fst_status s = fst_file_read(file, FST__MAX_CSR, &text, err);
    if (!s)
        s = fst__csr_parse(out, &key, file, text.data, text.len, err);
    EVP_PKEY_free(key);
    fst_buf_release(&text);
    return s;
}
