/* Bodies of GET and PART, and manifests: nothing that is accepted reaches beyond its blob. The first byte says which.
 */
#include <jansson.h>
#include <string.h>

#include "fedstill/blob.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void try_part(const unsigned char *data, size_t size)
{
    fst_blob_manifest m = {.codec = FST_BLOB_PLAIN};
    fst_blob_part p;
    fst_blob_fetch *f;
    fst_blob_get g;
    fst_error err;
    if (!fst_blob_part_read(&p, data, size))
        return;
    if ((uint64_t)p.index * FST_BLOB_PART + p.len > p.total)
        __builtin_trap();
    memcpy(m.digest, p.digest, sizeof m.digest);
    m.bytes = m.raw_bytes = p.total;
    m.parts = p.parts;
    if (fst_blob_fetch_new(&f, &(fst_blob_fetch_spec){.manifest = m, .most = 1 << 22}, &err))
        return;
    (void)!fst_blob_fetch_ask(f, 0, 1, &g);
    (void)fst_blob_fetch_part(f, 0, data, size);
    (void)!fst_blob_fetch_ask(f, 0, 1, &g);
    fst_blob_fetch_free(f);
}

static void try_get(const unsigned char *data, size_t size)
{
    static const unsigned char bytes[3 * FST_BLOB_PART];
    fst_blob_manifest m = {.bytes = sizeof bytes, .raw_bytes = sizeof bytes, .parts = 3};
    fst_blob_server *s;
    fst_blob_get g;
    fst_buf body = {0};
    uint32_t who;
    fst_error err;
    if (!fst_blob_get_read(&g, data, size) || fst_blob_server_new(&s, 0, &err))
        return;
    memcpy(m.digest, g.digest, sizeof m.digest);
    if (!fst_blob_server_add(s, &m, bytes, &err) && fst_blob_server_ask(s, 1, &g) > 3)
        __builtin_trap();
    while (fst_blob_server_next(s, &who, &body))
        ;
    fst_blob_server_free(s);
    fst_buf_release(&body);
}

static void try_manifest(const unsigned char *data, size_t size)
{
    json_t *j = json_loadb((const char *)data, size, 0, NULL);
    fst_blob_manifest m, again;
    fst_buf text = {0};
    fst_error err;
    if (!fst_blob_manifest_read(&m, j, 0, &err)) {
        json_t *k = fst_blob_manifest_write(&m, &text, &err) ? NULL : json_loadb(text.data, text.len, 0, NULL);
        if (fst_blob_manifest_read(&again, k, 0, &err) || !fst_blob_manifest_equal(&m, &again))
            __builtin_trap();
        json_decref(k);
        fst_buf_release(&text);
    }
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size < 1)
        return 0;
    switch (data[0] % 3) {
    case 0:
        try_part(data + 1, size - 1);
        break;
    case 1:
        try_get(data + 1, size - 1);
        break;
    default:
        try_manifest(data + 1, size - 1);
        break;
    }
    return 0;
}
