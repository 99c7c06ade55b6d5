/* What ca.c, csr.c and the makers of configurations share. */
#ifndef FST_FLEET_CA_PRIVATE_H
#define FST_FLEET_CA_PRIVATE_H

#include "ca.h"

#define FST__HOST 256 /* the longest name of a host is 253 */

/* fst_fail with libcrypto's reason, whose error queue is emptied. */
FST_MUST fst_status fst__ssl_fail(fst_error *err, fst_status s, const char *what);
FST_MUST fst_status fst__bio_text(BIO *bio, fst_buf *out, fst_error *err);
bool fst__key_is_p256(EVP_PKEY *key);
X509 *fst__certificate_parse(const char *pem, size_t len); /* NULL when it is none */
int64_t fst__certificate_from(const X509 *x);
int64_t fst__certificate_until(const X509 *x);
int64_t fst__crl_number(const char *pem, size_t len); /* -1 when it is none */
/* Whether these bytes are a revocation list of this number. */
bool fst__crl_is_number(const char *pem, size_t len, int64_t number);
/* The host at *at, checked; *at moves behind it and its comma. */
FST_MUST fst_status fst__host_next(const char **at, char host[FST__HOST], fst_error *err);

#endif
