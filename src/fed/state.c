/* A model's state as three spans: allocation, copies, sizes. */
#include <string.h>

#include "fed_private.h"

fst_fed_view fst_fed_state_view(const fst_fed_state *s)
{
    return (fst_fed_view){s->params, s->buffers, s->counters, s->size};
}

uint64_t fst_fed_size_bytes(fst_fed_size size)
{
    return 4 * ((uint64_t)size.params + size.buffers) + 8 * (uint64_t)size.counters;
}

bool fst_fed_size_equal(fst_fed_size a, fst_fed_size b)
{
    return a.params == b.params && a.buffers == b.buffers && a.counters == b.counters;
}

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

fst_status fst_fed_state_init(fst_fed_state *s, fst_fed_size size, fst_error *err)
{
    const size_t limit = SIZE_MAX / 64;
    if (size.params > limit || size.buffers > limit || size.counters > limit)
        return fst_fail_memory(err, SIZE_MAX);
    size_t params = padded(4 * size.params), buffers = padded(4 * size.buffers);
    size_t total = params + buffers + padded(8 * size.counters);
    unsigned char *p = fst_calloc(total ? total : 1, 1);
    if (!p)
        return fst_fail_memory(err, total);
    *s = (fst_fed_state){(float *)p, (float *)(p + params), (int64_t *)(p + params + buffers), size};
    return FST_OK;
}

void fst_fed_state_release(fst_fed_state *s)
{
    if (!s)
        return;
    fst_free(s->params); /* the block's start, whatever the sizes */
    *s = (fst_fed_state){0};
}

void fst_fed_state_copy(fst_fed_state *dst, const fst_fed_view *src)
{
    if (src->size.params)
        memcpy(dst->params, src->params, 4 * src->size.params);
    if (src->size.buffers)
        memcpy(dst->buffers, src->buffers, 4 * src->size.buffers);
    if (src->size.counters)
        memcpy(dst->counters, src->counters, 8 * src->size.counters);
}

fst_state fst__nn_state(const fst_fed_state *s)
{
    return (fst_state){s->params, s->buffers, s->counters, s->size.params, s->size.buffers, s->size.counters};
}

fst_fed_size fst_graph_fed_size(const fst_graph *g)
{
    return (fst_fed_size){fst_graph_param_count(g), fst_graph_buffer_count(g), fst_graph_counters(g)};
}
