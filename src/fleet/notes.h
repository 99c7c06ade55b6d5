/* notes.h - the newest lines that people want to know of a cloud or an edge, for its page. The caller's lock. */
#ifndef FST_FLEET_NOTES_H
#define FST_FLEET_NOTES_H

#include "fedstill/base.h"

enum { FST__NOTES = 40 };
struct note {
    double at;
    char text[240];
};
struct notes {
    struct note note[FST__NOTES]; /* a ring */
    size_t ever;
};
void fst__note_keep(struct notes *n, double now, const char *text); /* cut where it is longer */
/* Oldest first, as copies; returns how many. */
size_t fst__notes_copy(const struct notes *n, struct note out[FST__NOTES]);

#endif
