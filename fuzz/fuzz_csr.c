/* Requests of sites: any bytes, and DER in a PEM block that is made here (what does not begin with a dash), which
 * changes of single bytes get further into. What is accepted is a request that this program could have made. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ca.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void try(const void *data, size_t size)
{
    fst_fleet_csr c = {0};
    EVP_PKEY *key = NULL;
    fst_error err;
    fst_status s = fst__csr_parse(&c, &key, "fuzz", data, size, &err);
    if (s && (key || c.id[0] || !err.message[0]))
        abort(); /* outputs stay untouched, and there is a reason */
    if (!s) {
        fst_role role;
        if (fst_site_id_check(c.id, NULL) || strlen(c.fingerprint) != 64 || size > FST__MAX_CSR ||
            (c.role == FST_ROLE_DEVICE) != (c.edge[0] != 0) || !fst_role_parse(fst_role_name(c.role), &role))
            abort();
    }
    EVP_PKEY_free(key);
}

/* 64 characters a line, as PEM wants it. */
static size_t wrap(const unsigned char *der, size_t size, char *out)
{
    size_t n = (size_t)sprintf(out, "-----BEGIN CERTIFICATE REQUEST-----\n");
    for (size_t i = 0; i < size; i += 48) {
        n += (size_t)EVP_EncodeBlock((unsigned char *)out + n, der + i, (int)(size - i < 48 ? size - i : 48));
        out[n++] = '\n';
    }
    return n + (size_t)sprintf(out + n, "-----END CERTIFICATE REQUEST-----\n");
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static char text[2 * FST__MAX_CSR];
    try(data, size);
    if (size && data[0] != '-' && size <= FST__MAX_CSR)
        try(text, wrap(data, size, text));
    return 0;
}
