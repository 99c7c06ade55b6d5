/* A store that keeps nothing, for sites whose process is never killed. */
#ifndef FST_TESTS_FLEET_NO_STORE_H
#define FST_TESTS_FLEET_NO_STORE_H

#include "site.h"

static fst_status put_nowhere(void *ctx, const char *name, const fst_buf *head, const void *data, size_t len,
                              fst_error *err)
{
    (void)ctx, (void)name, (void)head, (void)data, (void)len, (void)err;
    return FST_OK;
}

static fst_status get_nothing(void *ctx, const char *name, fst_buf *out, bool *found, fst_error *err)
{
    (void)ctx, (void)name, (void)out, (void)err;
    *found = false;
    return FST_OK;
}

static void drop_nothing(void *ctx, const char *name)
{
    (void)ctx, (void)name;
}

static const struct store no_store = {.put = put_nowhere, .get = get_nothing, .drop = drop_nothing};

static bool keeps_nothing(void *ctx, const char *stage)
{
    (void)ctx, (void)stage;
    return false;
}

#endif
