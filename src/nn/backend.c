/* The list of backends that this build has; the first is the default. */
#include <string.h>

#include "backend.h"

static const struct fst_backend *const backends[] = {
#ifdef FST_WITH_ONEDNN
    &fst__backend_onednn,
#endif
    &fst__backend_vector,
    &fst__backend_reference,
};

#ifdef FST_WITH_ONEDNN
#define LIST "onednn, vector, reference"
#else
#define LIST "vector, reference"
#endif

static const char *const names[] = {
#ifdef FST_WITH_ONEDNN
    "onednn",
#endif
    "vector",
    "reference",
    NULL,
};

const char *const *fst_backend_names(void)
{
    return names;
}

fst_status fst__backend_find(const char *name, const struct fst_backend **out, fst_error *err)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (!name || !strcmp(name, backends[i]->name)) {
            *out = backends[i];
            return FST_OK;
        }
    return fst_fail(err, FST_E_UNSUPPORTED, "no backend \"%s\" in this build; it has: " LIST, name);
}

const char *fst_backend_describe(const char *name)
{
    const struct fst_backend *b = NULL;
    return fst__backend_find(name, &b, NULL) ? "unknown" : b->describe();
}

bool fst_backend_supports(const char *name, fst_precision p)
{
    const struct fst_backend *b = NULL;
    return !fst__backend_find(name, &b, NULL) && b->supports(p);
}

void fst_backends_forget(void)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (backends[i]->forget)
            backends[i]->forget();
}

const char *fst_precision_name(fst_precision p)
{
    return p == FST_PRECISION_BF16 ? "bf16" : "f32";
}

bool fst_precision_parse(const char *name, fst_precision *out)
{
    for (int p = FST_PRECISION_F32; p <= FST_PRECISION_BF16; p++)
        if (!strcmp(name, fst_precision_name((fst_precision)p))) {
            *out = (fst_precision)p;
            return true;
        }
    return false;
}
