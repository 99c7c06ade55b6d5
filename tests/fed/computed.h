/* computed.h - what a script computed for a test: tests/fed/NAME/NAME.py wrote tests/fed/NAME/NAME.safetensors, with
 * samples "x" and labels "y", whose each is ("owner"), and what comes out. */
#ifndef FST_TESTS_FED_COMPUTED_H
#define FST_TESTS_FED_COMPUTED_H

#include <stdio.h>
#include <stdlib.h>

#include "fedstill/fed.h"

enum { MOST_OWNERS = 6, MOST_SAMPLES = 128 };

struct computed {
    const char *name;
    fst_buf bytes;
    fst_safetensors *file;
    fst_source *source;
    uint32_t index[MOST_OWNERS][MOST_SAMPLES]; /* by owner: positions in the source */
    size_t count[MOST_OWNERS];
};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static size_t place_of(const struct computed *c, const char *tensor)
{
    size_t i = 0;
    if (!fst_safetensors_find(c->file, tensor, &i))
        fail_msg("%s.safetensors has no %s: run tests/fed/%s/%s.py", c->name, tensor, c->name, c->name);
    return i;
}

static const void *computed(const struct computed *c, const char *tensor)
{
    return fst_safetensors_data(c->file, place_of(c, tensor));
}

static void open_computed(struct computed *c, const char *name, int features, int classes)
{
    char path[4096];
    fst_error err;
    const char *root = getenv("FEDSTILL_SOURCE");
    snprintf(path, sizeof path, "%s/tests/fed/%s/%s.safetensors", root ? root : "../..", name, name);
    *c = (struct computed){.name = name};
    ok(fst_file_read(path, 1 << 20, &c->bytes, &err), &err);
    ok(fst_safetensors_open_memory(&c->file, path, c->bytes.data, c->bytes.len, &err), &err);
    const int32_t *owner = computed(c, "owner");
    fst_tensor t = fst_safetensors_at(c->file, place_of(c, "owner"));
    size_t n = (size_t)fst_shape_count(&t.shape);
    ok(fst_source_from_memory(&c->source, name, FST_F32, &FST_SHAPE(features), n, computed(c, "x"), computed(c, "y"),
                              classes, &err),
       &err);
    assert_true(n <= MOST_SAMPLES);
    for (uint32_t i = 0; i < n; i++) {
        assert_in_range(owner[i], 0, MOST_OWNERS - 1);
        c->index[owner[i]][c->count[owner[i]]++] = i;
    }
}

static void close_computed(struct computed *c)
{
    fst_source_close(c->source);
    fst_safetensors_free(c->file);
    fst_buf_release(&c->bytes);
}

/* How many settings there are before the one without a name. */
static inline size_t settings_in(const fst_setting *s, size_t room)
{
    size_t n = 0;
    while (n < room && s[n].name)
        n++;
    return n;
}

#endif
