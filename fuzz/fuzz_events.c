/* The reader of event files: any bytes, and every callback's strings are read to their ends. */
#include <stdlib.h>
#include <string.h>

#include "fedstill/store.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static bool touch(void *ctx, const fst_event *e)
{
    size_t *sum = ctx;
    *sum += strlen(e->time) + strlen(e->stage) + strlen(e->event);
    for (size_t i = 0; i < e->nfields; i++) {
        *sum += strlen(e->fields[i].key);
        if (e->fields[i].type == FST_FIELD_STRING)
            *sum += strlen(e->fields[i].value.string);
        if (fst_event_field(e, e->fields[i].key) != &e->fields[i])
            abort(); /* keys are unique */
    }
    return true;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    size_t sum = 0, skipped = 0;
    if (fst_events_parse(data, size, touch, &sum, &skipped, NULL) != FST_OK)
        abort();
    return 0;
}
