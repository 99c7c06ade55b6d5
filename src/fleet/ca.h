/* Keys, certificates, requests and revocation lists, all of P-256 and SHA-256 (libcrypto). Texts are PEM. What is in a
 * fleet, and who may ask for what, is not decided here. */
#ifndef FST_FLEET_CA_H
#define FST_FLEET_CA_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "fedstill/fleet.h"

enum {
    FST__MAX_CSR = 8192, /* a request has 500 bytes */
    FST__MAX_KEY = 4096,
    FST__SERIAL = 41 /* hexadecimal digits of 20 bytes and the NUL */
};
#define FST__DAY ((int64_t)86400)

struct fst__ca {
    EVP_PKEY *key;
    X509 *certificate;
};

FST_MUST fst_status fst__key_new(EVP_PKEY **out, fst_error *err);
/* Writes it with mode 0600, or reads such a file. */
FST_MUST fst_status fst__key_save(EVP_PKEY *key, const char *path, fst_error *err);
FST_MUST fst_status fst__key_load(EVP_PKEY **out, const char *path, fst_error *err);
FST_MUST fst_status fst__key_fingerprint(EVP_PKEY *key, char hex[FST_DIGEST_HEX], fst_error *err);

FST_MUST fst_status fst__ca_new(struct fst__ca *ca, fst_error *err);
FST_MUST fst_status fst__ca_load(struct fst__ca *ca, const char *key, const char *certificate, fst_error *err);
FST_MUST fst_status fst__certificate_pem(X509 *x, fst_buf *out, fst_error *err);
void fst__ca_release(struct fst__ca *ca);

struct fst__certificate_spec {
    const char *name;  /* CN */
    EVP_PKEY *key;     /* the public half is used */
    bool server;       /* serverAuth with hosts, else clientAuth */
    const char *hosts; /* checked by fst__hosts_check */
    int64_t from, until;
};
/* Names and addresses with commas between them: FST_E_CONFIG for anything else. */
FST_MUST fst_status fst__hosts_check(const char *hosts, fst_error *err);
FST_MUST fst_status fst__ca_issue(const struct fst__ca *ca, const struct fst__certificate_spec *spec, fst_buf *pem,
                                  char serial[FST__SERIAL], fst_error *err);

struct fst__revoked {
    const char *serial;
    int64_t when;
};
FST_MUST fst_status fst__ca_crl(const struct fst__ca *ca, const struct fst__revoked *list, size_t n, int64_t number,
                                fst_buf *pem, fst_error *err);

FST_MUST fst_status fst__csr_make(EVP_PKEY *key, const fst_fleet_csr *says, fst_buf *pem, fst_error *err);
/* Any bytes. *key is freed by the caller (EVP_PKEY_free). */
FST_MUST fst_status fst__csr_parse(fst_fleet_csr *out, EVP_PKEY **key, const char *name, const void *data, size_t len,
                                   fst_error *err);

/* Whether a certificate is of this authority, key, name and use, and from when to when it holds (not whether now). */
FST_MUST fst_status fst__certificate_check(const char *pem, const char *ca_pem, EVP_PKEY *key, const char *name,
                                           bool server, int64_t *until, fst_error *err);

#endif
