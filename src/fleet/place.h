/* place.h - what the processes of a fleet have in common: their folder, names, and how they compute. */
#ifndef FST_FLEET_PLACE_H
#define FST_FLEET_PLACE_H

#include "fedstill/fleet_run.h"
#include "site.h"

/* A folder of small files as a store; locked against a second process. */
struct place {
    char *folder;
    int lock;
};
/* output/fleet/NAME, made if it is not there. */
fst_status fst__place_open(struct place *p, const char *output, const char *name, fst_error *err);
void fst__place_close(struct place *p);
/* ctx of its calls is the place, which must stay where it is. */
struct store fst__place_store(struct place *p);

/* Bytes of a blob that are kept in memory, larger ones being files: 0 for the usual limit, or what
 * FEDSTILL_BLOB_IN_MEMORY says, for tests. */
uint64_t fst__in_memory(void);
/* For processes that take and give back many messages of 512 KiB: glibc would return that memory to the system and take
 * it anew for each. Once, early. */
void fst__keep_memory(void);
/* Gives back to the system what was freed, and pages of libraries, which come back from their files when they are read
 * again; after much was done, and before a long time with little. */
void fst__return_memory(void);
/* 16 hexadecimal digits that nobody can guess. */
void fst__draw_name(char out[FST__INSTANCE]);
/* "onednn, AVX2, f32, ..." */
void fst__numerics(const fst_task_options *o, char *out, size_t size);
/* Logs that the link came up or broke, once for each reason; said: room of the caller's, "" at first. */
enum { FST__SAID = 256 };
void fst__tell_link(char said[FST__SAID], const char *url, bool up, const char *why);
/* A transport over the link, with the will fst/up/ID/will (will: false none). */
fst_status fst__link_open(fst_transport **out, const fst_fleet_link *link, const char *id, bool will,
                          const fst_transport_events *on, fst_error *err);

#endif
