/* One pickle of RadioML; its first byte chooses the split. */
#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const splits[] = {"train", "val", "test", "train"};
    fst_pickle *p = NULL;
    fst_source *s = NULL;
    fst_error err;
    if (size < 1)
        return 0;
    fst_source_spec spec = {.path = "fuzz", .split = splits[data[0] & 3]};
    if (!fst_pickle_parse(&p, "fuzz", data + 1, size - 1, 1 << 24, &err) &&
        !fst__radioml_take(&s, "fuzz", p, &spec, &err)) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err))
            __builtin_trap();
    }
    fst_source_close(s);
    fst_pickle_free(p);
    return 0;
}
