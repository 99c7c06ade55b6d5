/*
 * fedstill/blob.h - large bytes over small messages: named by their SHA-256, fetched part by part by who needs them.
 *
 * The receiver pulls. Who has a blob publishes a manifest of a few hundred bytes; who wants it sends GETs for a bounded
 * window of parts and gets PARTs. So slow receivers are not flooded, and after a cut a fetch goes on where it was.
 * Parts may come twice, in any order, or not at all.
 *
 * Everything here is pure protocol: no network, no clock, no thread; time is an argument, GETs are handed out to be
 * sent, bodies of GET and PART are handed in. Blobs are held in memory, but for large ones that are fetched: these are
 * a file, where a process that was killed goes on when it is started again.
 */
#ifndef FEDSTILL_BLOB_H
#define FEDSTILL_BLOB_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

enum {
    FST_BLOB_PART = 512 * 1024, /* bytes of every part but the last */
    FST_BLOB_WINDOW = 8,        /* parts asked for and not here, of one fetch */
    FST_BLOB_WINDOW_MAX = 64,
    FST_BLOB_GET = 40,      /* bytes of a GET's body */
    FST_BLOB_PART_HEAD = 48 /* bytes before the data in a PART's body */
};
#define FST_BLOB_MAX ((uint64_t)4 << 30)        /* bytes of a blob, coded or not */
#define FST_BLOB_IN_MEMORY ((uint64_t)64 << 20) /* coded bytes that are fetched into memory; more go into a file */

/* ---- manifests ---------------------------------------------------------------------------- */

typedef enum fst_blob_codec { FST_BLOB_PLAIN, FST_BLOB_ZSTD } fst_blob_codec;

typedef struct fst_blob_manifest {
    char digest[FST_DIGEST_HEX]; /* SHA-256 of the coded bytes */
    uint64_t bytes;              /* coded, what is transferred; at least 1 */
    uint64_t raw_bytes;          /* decoded */
    fst_blob_codec codec;
    uint32_t parts;
} fst_blob_manifest;

FST_API bool fst_blob_manifest_equal(const fst_blob_manifest *a, const fst_blob_manifest *b);
/* As a JSON object: {"blob": HEX, "bytes": N, "raw_bytes": N, "codec": "plain" | "zstd", "parts": N}. Appends. */
FST_MUST FST_API fst_status fst_blob_manifest_write(const fst_blob_manifest *m, fst_buf *out, fst_error *err);
/* Reads such an object; keys that it does not know are ignored. FST_E_FORMAT: not a manifest, or figures that do not
 * belong together; FST_E_LIMIT: bytes or raw_bytes above `most` (0: FST_BLOB_MAX), which the reader knows from the
 * model that it expects. *out is untouched on failure. */
FST_MUST FST_API fst_status fst_blob_manifest_read(fst_blob_manifest *out, const struct json_t *object, uint64_t most,
                                                   fst_error *err);

/* Codes raw (at least one byte) and says what it has become: zstd level 1 when a sample of 1 MiB from its middle
 * shrinks by a tenth, otherwise as it is, and then nothing is appended and the coded bytes are raw itself. Appends to
 * coded. The outcome depends on the bytes and on libzstd alone. */
FST_MUST FST_API fst_status fst_blob_encode(const void *raw, size_t len, fst_buf *coded, fst_blob_manifest *m,
                                            fst_error *err);
/* The manifest of raw as it is, for who reads no other codec. */
FST_MUST FST_API fst_status fst_blob_plain(const void *raw, size_t len, fst_blob_manifest *m, fst_error *err);
/* Decodes coded bytes whose digest was checked (fst_blob_fetch does). raw_bytes above `most` is FST_E_LIMIT before
 * anything is allocated; another size inside is FST_E_FORMAT. Appends to an empty raw, which starts at 64 bytes. */
FST_MUST FST_API fst_status fst_blob_decode(const fst_blob_manifest *m, const void *coded, uint64_t most, fst_buf *raw,
                                            fst_error *err);
/* ---- GET and PART ------------------------------------------------------------------------- */

/* GET: digest 32 bytes, first part u32, number of parts u32 (1 ... FST_BLOB_WINDOW_MAX). */
typedef struct fst_blob_get {
    char digest[FST_DIGEST_HEX];
    uint32_t from, count;
} fst_blob_get;
FST_API void fst_blob_get_write(const fst_blob_get *g, unsigned char body[FST_BLOB_GET]);
FST_MUST FST_API bool fst_blob_get_read(fst_blob_get *out, const void *body, size_t len);

/* PART: digest 32 bytes, index u32, number of parts u32, bytes of the blob u64, then the data. */
typedef struct fst_blob_part {
    char digest[FST_DIGEST_HEX];
    uint32_t index, parts;
    uint64_t total;
    const void *data; /* a view into the body */
    size_t len;
} fst_blob_part;
/* False unless all figures belong together. */
FST_MUST FST_API bool fst_blob_part_read(fst_blob_part *out, const void *body, size_t len);

/* ---- who has blobs ------------------------------------------------------------------------ */

/* Answers GETs for the blobs that it was given. */
typedef struct fst_blob_server fst_blob_server;

/* queue: answers that wait, over all who ask (0: 1024); each may have FST_BLOB_WINDOW_MAX waiting. */
FST_MUST FST_API fst_status fst_blob_server_new(fst_blob_server **out, size_t queue, fst_error *err);
FST_API void fst_blob_server_free(fst_blob_server *s);
/* Offers coded bytes that stay the caller's and in place until removed or freed. The same digest again replaces. */
FST_MUST FST_API fst_status fst_blob_server_add(fst_blob_server *s, const fst_blob_manifest *m, const void *coded,
                                                fst_error *err);
/* No longer offers it, and forgets who waits for it. Not there: ignored. */
FST_API void fst_blob_server_remove(fst_blob_server *s, const char *digest);
/* Queues what GET asks for; `who` is any number that the caller gives the one who asks. Parts that wait for the same
 * one already, that are not there, or that find no room are left out. Returns how many were queued. */
FST_API size_t fst_blob_server_ask(fst_blob_server *s, uint32_t who, const fst_blob_get *get);
/* The next answer: true, *who, and in `body` (cleared first) a PART's body; false when nobody waits. Those who ask are
 * served in the order in which they asked. */
FST_MUST FST_API bool fst_blob_server_next(fst_blob_server *s, uint32_t *who, fst_buf *body);
/* Puts back the answer that `next` gave last, because there was no room to send it. */
FST_API void fst_blob_server_put_back(fst_blob_server *s);
/* Nobody sends to `who` any longer. */
FST_API void fst_blob_server_forget(fst_blob_server *s, uint32_t who);
FST_API size_t fst_blob_server_waiting(const fst_blob_server *s);

/* ---- who wants a blob --------------------------------------------------------------------- */

/*
 * Fetches one blob. Drive it like this:
 *
 *   while (room in the link && fst_blob_fetch_ask(f, now, room, &get)) publish GET, or fst_blob_fetch_unasked(f, &get)
 *   on a PART message: fst_blob_fetch_part(f, now, body, len)
 *   at fst_blob_fetch_due(f) at the latest: ask again
 *   when fst_blob_fetch_where(f) says FETCHED: fst_blob_fetch_finish. Look after asking and before waiting: `ask`
 * hashes the last parts, and nothing is due any longer then
 *
 * When nothing came for max(2 s, 4 x the usual time of a part), everything that was asked for counts as lost and one
 * part alone is asked for until something comes, after twice the wait each time up to 30 s. A part that parts asked for
 * much later have overtaken counts as lost too. There is no limit on the whole: fst_blob_fetch_idle says for how long
 * nothing came, and whoever fetches decides.
 */
typedef struct fst_blob_fetch fst_blob_fetch;

typedef struct fst_blob_fetch_spec {
    fst_blob_manifest manifest;
    uint64_t most;   /* coded and raw bytes that are acceptable: FST_E_LIMIT before anything is allocated */
    uint32_t window; /* 0: FST_BLOB_WINDOW */
    double now;
    /* Of a blob above in_memory (0: FST_BLOB_IN_MEMORY): the file that it becomes, and FILE.have beside it says which
     * parts are there. What both hold of the same blob is not fetched again; of another one it is overwritten. Nobody
     * else may have them open. NULL: in memory, whatever its size. */
    const char *file;
    uint64_t in_memory;
} fst_blob_fetch_spec;

typedef enum fst_blob_fetch_state {
    FST_FETCH_GOING,  /* parts are missing, or not yet hashed: call `ask` */
    FST_FETCH_FETCHED /* all parts are here and the digest is right: call `finish` */
} fst_blob_fetch_state;

typedef struct fst_blob_fetch_counters {
    uint64_t taken;   /* parts */
    uint64_t twice;   /* parts that were here already */
    uint64_t foreign; /* of another blob, size, index or length */
    uint64_t again;   /* parts asked for again */
    uint64_t stalls;  /* nothing came in time */
    uint64_t spoiled; /* all parts were here and the digest was wrong: everything was fetched again */
} fst_blob_fetch_counters;

/* FST_E_IO: the file cannot be made, or there is no space for the whole of it. */
FST_MUST FST_API fst_status fst_blob_fetch_new(fst_blob_fetch **out, const fst_blob_fetch_spec *spec, fst_error *err);
/* Its file stays, for another fetch of the same blob to go on. */
FST_API void fst_blob_fetch_free(fst_blob_fetch *f);
/* With its file: nobody wants the blob any longer. */
FST_API void fst_blob_fetch_drop(fst_blob_fetch *f);
/* The next GET to send, of at most `room` parts; false: none now. Also hashes up to 2 MiB of what has come. */
FST_MUST FST_API bool fst_blob_fetch_ask(fst_blob_fetch *f, double now, uint32_t room, fst_blob_get *get);
/* The GET was not sent. */
FST_API void fst_blob_fetch_unasked(fst_blob_fetch *f, const fst_blob_get *get);
/* A PART's body. True when it was one of this blob, new and right; all else is counted and dropped. */
FST_API bool fst_blob_fetch_part(fst_blob_fetch *f, double now, const void *body, size_t len);
/* When `ask` wants to be called again, if no part comes before; infinity: only when one comes. */
FST_API double fst_blob_fetch_due(const fst_blob_fetch *f);
FST_API fst_blob_fetch_state fst_blob_fetch_where(const fst_blob_fetch *f);
FST_API uint32_t fst_blob_fetch_in_flight(const fst_blob_fetch *f);      /* parts asked for and not here */
FST_API uint32_t fst_blob_fetch_here(const fst_blob_fetch *f);           /* parts that are here */
FST_API double fst_blob_fetch_idle(const fst_blob_fetch *f, double now); /* seconds since a new part came */
FST_API const fst_blob_manifest *fst_blob_fetch_manifest(const fst_blob_fetch *f);
FST_API const fst_blob_fetch_counters *fst_blob_fetch_count(const fst_blob_fetch *f);
/* When FETCHED: *coded becomes a view of the coded bytes, aligned to 64, which lives as long as f. Before:
 * FST_E_ARGUMENT. */
FST_MUST FST_API fst_status fst_blob_fetch_finish(fst_blob_fetch *f, const void **coded, fst_error *err);

FST_END_DECLS

#endif
