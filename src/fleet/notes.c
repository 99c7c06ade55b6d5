/* A ring of lines, see notes.h. */
#include "notes.h"

#include <stdio.h>

void fst__note_keep(struct notes *n, double now, const char *text)
{
    struct note *to = &n->note[n->ever++ % FST__NOTES];
    to->at = now;
    snprintf(to->text, sizeof to->text, "%.230s", text);
}

size_t fst__notes_copy(const struct notes *n, struct note out[FST__NOTES])
{
    size_t count = n->ever < FST__NOTES ? n->ever : FST__NOTES;
    for (size_t i = 0; i < count; i++)
        out[i] = n->note[(n->ever - count + i) % FST__NOTES];
    return count;
}
