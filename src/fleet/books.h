/* books.h - what a cloud keeps of its fleet besides the task's own files: output/fleet/cloud/run, JSON. */
#ifndef FST_FLEET_BOOKS_H
#define FST_FLEET_BOOKS_H

#include "place.h"

struct json_t;
struct fleet_books {
    struct store store;
    struct json_t *root;
    uint64_t run, epoch;
    uint32_t clients;
};

/*
 * Opens or begins the books of a run of this task, and raises the epoch, which is on disk when this returns. Another
 * task, or fresh, begins another run. FST_E_FORMAT: damaged, and how to go on.
 */
fst_status fst__books_open_fleet(struct fleet_books *b, struct store store, const char *task, uint32_t clients,
                                 bool fresh, fst_error *err);
void fst__books_close_fleet(struct fleet_books *b);
/* What the sites had when the run began, where their files are their own; false: nobody has noted it. each: [clients]
 */
bool fst__books_places(const struct fleet_books *b, fst_task_identity *each);
fst_status fst__books_note_places(struct fleet_books *b, const fst_task_identity *each, fst_error *err);
/*
 * For a stage of which `first` rounds are done: the last round whose result holds each client's update, -1: none.
 * Rounds of another run have none; FST_E_CONFIG when clients keep something from round to round, which is then missing.
 */
fst_status fst__books_counted(const struct fleet_books *b, const char *stage, uint64_t first, bool keeps,
                              int64_t *counted, fst_error *err);
/* Before round + 1 rounds of the stage are said to be done: who counted in `round`; on disk when this returns. */
fst_status fst__books_round(struct fleet_books *b, const char *stage, uint64_t round, const int64_t *counted,
                            fst_error *err);

#endif
