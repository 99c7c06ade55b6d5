/* Partitions as safetensors files, format fedstill-partition-1. What is read is checked against itself:
 * owners exist, counts add up to what the owners say, and the metadata is complete. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition.h"

#define FORMAT "fedstill-partition-1"

fst_status fst_partition_write(const fst_partition *p, const char *path, char digest[FST_DIGEST_HEX], fst_error *err)
{
    char seed[32];
    int32_t *owner = fst_alloc(p->samples * sizeof *owner);
    if (!owner)
        return fst_fail_memory(err, p->samples * sizeof *owner);
    for (size_t i = 0; i < p->samples; i++)
        owner[i] = -1;
    for (int k = 0; k < p->clients; k++)
        for (size_t i = p->begin[k]; i < p->begin[k + 1]; i++)
            owner[p->index[i]] = k;
    snprintf(seed, sizeof seed, "%" PRIu64, p->seed);
    fst_pair meta[] = {{"format", FORMAT}, {"method", p->method}, {"seed", seed}, {"data_digest", p->data_digest}};
    fst_tensor tensors[] = {{"client", FST_I32, FST_SHAPE((int64_t)p->samples), owner},
                            {"counts", FST_I64, FST_SHAPE(p->clients, p->classes), p->counts}};
    fst_status s = fst_safetensors_write(path, meta, sizeof meta / sizeof *meta, tensors,
                                         sizeof tensors / sizeof *tensors, digest, err);
    fst_free(owner);
    return s;
}

static bool parse_seed(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && !*end && !errno;
}

static bool is_digest(const char *text)
{
    return strlen(text) == FST_DIGEST_HEX - 1 && strspn(text, "0123456789abcdef") == FST_DIGEST_HEX - 1;
}

static fst_status read_meta(fst_partition *p, const fst_safetensors *f, const char *name, fst_error *err)
{
    const char *format = fst_safetensors_meta(f, "format"), *method = fst_safetensors_meta(f, "method");
    const char *seed = fst_safetensors_meta(f, "seed"), *digest = fst_safetensors_meta(f, "data_digest");
    if (!format || strcmp(format, FORMAT))
        return fst_fail(err, FST_E_FORMAT, "%s: not a partition: its format is \"%.64s\", not \"" FORMAT "\"", name,
                        format ? format : "");
    if (!method || strlen(method) >= sizeof p->method)
        return fst_fail(err, FST_E_FORMAT, "%s: metadata \"method\" is missing or too long", name);
    if (!seed || !parse_seed(seed, &p->seed))
        return fst_fail(err, FST_E_FORMAT, "%s: metadata \"seed\" is missing or not a number", name);
    if (!digest || !is_digest(digest))
        return fst_fail(err, FST_E_FORMAT, "%s: metadata \"data_digest\" is missing or not a SHA-256", name);
    memcpy(p->method, method, strlen(method) + 1);
    memcpy(p->data_digest, digest, FST_DIGEST_HEX);
    return FST_OK;
}

static fst_status read_shapes(fst_partition *p, const fst_safetensors *f, const char *name, size_t at[2],
                              fst_error *err)
{
    if (!fst_safetensors_find(f, "client", &at[0]) || !fst_safetensors_find(f, "counts", &at[1]))
        return fst_fail(err, FST_E_FORMAT, "%s: a partition needs tensors \"client\" and \"counts\"", name);
    fst_tensor client = fst_safetensors_at(f, at[0]), counts = fst_safetensors_at(f, at[1]);
    const int64_t *d = counts.shape.dim;
    if (client.dtype != FST_I32 || client.shape.rank != 1 || client.shape.dim[0] < 1)
        return fst_fail(err, FST_E_FORMAT, "%s: \"client\" must be I32 of shape (samples,)", name);
    if (counts.dtype != FST_I64 || counts.shape.rank != 2 || d[0] < 1 || d[1] < 1)
        return fst_fail(err, FST_E_FORMAT, "%s: \"counts\" must be I64 of shape (clients, classes)", name);
    if (client.shape.dim[0] > UINT32_MAX || d[0] > FST__PARTITION_MAX_CLIENTS || d[1] > FST_MAX_CLASSES ||
        (uint64_t)d[0] * (uint64_t)d[1] > FST__PARTITION_MAX_CELLS)
        return fst_fail(err, FST_E_LIMIT, "%s: %lld samples, %lld clients, %lld classes are more than are read", name,
                        (long long)client.shape.dim[0], (long long)d[0], (long long)d[1]);
    p->samples = (size_t)client.shape.dim[0];
    p->clients = (int)d[0];
    p->classes = (int)d[1];
    return FST_OK;
}

static fst_status check_owners(const fst_partition *p, const int32_t *owner, const char *name, fst_error *err)
{
    for (size_t i = 0; i < p->samples; i++)
        if (owner[i] < -1 || owner[i] >= p->clients)
            return fst_fail(err, FST_E_FORMAT, "%s: sample %zu belongs to client %d, there are 0 ... %d (or -1)", name,
                            i, (int)owner[i], p->clients - 1);
    return FST_OK;
}

static fst_status check_counts(const fst_partition *p, const char *name, fst_error *err)
{
    for (int k = 0; k < p->clients; k++) {
        uint64_t own = p->begin[k + 1] - p->begin[k], sum = 0;
        for (int c = 0; c < p->classes; c++) {
            int64_t n = p->counts[(size_t)k * (size_t)p->classes + (size_t)c];
            if (n < 0 || (uint64_t)n > own - sum)
                return fst_fail(err, FST_E_FORMAT, "%s: counts of client %d do not fit its %llu samples", name, k,
                                (unsigned long long)own);
            sum += (uint64_t)n;
        }
        if (sum != own)
            return fst_fail(err, FST_E_FORMAT, "%s: counts of client %d add up to %llu, it has %llu samples", name, k,
                            (unsigned long long)sum, (unsigned long long)own);
    }
    return FST_OK;
}

static fst_status read_tensors(fst_partition *p, const fst_safetensors *f, const char *name, const size_t at[2],
                               fst_error *err)
{
    size_t cells = (size_t)p->clients * (size_t)p->classes;
    int32_t *owner = fst_alloc(p->samples * sizeof *owner);
    fst_status s = owner ? fst__partition_reserve(p, err) : fst_fail_memory(err, p->samples * sizeof *owner);
    if (!s)
        s = fst_safetensors_read(f, at[0], owner, p->samples * sizeof *owner, err);
    if (!s)
        s = fst_safetensors_read(f, at[1], p->counts, cells * sizeof *p->counts, err);
    if (!s)
        s = check_owners(p, owner, name, err);
    if (!s) {
        fst__partition_fill(p, owner);
        s = check_counts(p, name, err);
    }
    fst_free(owner);
    return s;
}

static fst_status read_all(fst_partition *out, const fst_safetensors *f, const char *name, fst_error *err)
{
    fst_partition p = {0};
    size_t at[2] = {0};
    fst_status s = read_meta(&p, f, name, err);
    if (!s)
        s = read_shapes(&p, f, name, at, err);
    if (!s)
        s = read_tensors(&p, f, name, at, err);
    if (s)
        fst_partition_release(&p);
    else
        *out = p;
    return s;
}

fst_status fst_partition_read(fst_partition *out, const char *path, fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = fst_safetensors_open(&f, path, err);
    if (!s)
        s = read_all(out, f, path, err);
    fst_safetensors_free(f);
    return s;
}

fst_status fst__partition_read_memory(fst_partition *out, const char *name, const void *data, size_t len,
                                      fst_error *err)
{
    fst_safetensors *f = NULL;
    fst_status s = fst_safetensors_open_memory(&f, name, data, len, err);
    if (!s)
        s = read_all(out, f, name, err);
    fst_safetensors_free(f);
    return s;
}
