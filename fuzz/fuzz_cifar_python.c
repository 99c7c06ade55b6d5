/* One batch of CIFAR's Python version; the first byte chooses the edition and the limit. */
#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* The batch as if there were two of it. */
static void read_twice(fst__held *h, const fst_pickle *p, const char *key, int classes, size_t limit)
{
    fst__picks picks = {0};
    fst_error err;
    size_t count = 0, first = 0, done = 0;
    fst_status s = FST_OK;
    for (int twice = 0; !s && twice < 2; twice++)
        s = fst__cifar_python_labels(h, "fuzz", p, key, classes, &count, &err);
    if (!s)
        s = fst__held_choose(h, count, classes, false, limit, &picks, &err);
    if (!s)
        s = fst__held_reserve(h, FST_U8, &FST_SHAPE(3, 32, 32), picks.count, &err);
    for (int twice = 0; !s && twice < 2; twice++)
        s = fst__cifar_python_images(h, "fuzz", p, key, &picks, &first, &done, &err);
    if (!s && (first != count || done != picks.count))
        __builtin_trap();
    fst_free(picks.index);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const fst_source_vtable vtable = {"cifar10", fst__held_get, fst__held_close};
    fst_pickle *p = NULL;
    fst__held *h = NULL;
    fst_error err;
    if (size < 1)
        return 0;
    int classes = data[0] & 1 ? 100 : 10;
    const char *key = data[0] & 1 ? "fine_labels" : "labels";
    if (fst__held_new(&h, &vtable, "fuzz", &err))
        return 0;
    if (!fst_pickle_parse(&p, "fuzz", data + 1, size - 1, 1 << 24, &err))
        read_twice(h, p, key, classes, data[0] >> 1);
    fst_pickle_free(p);
    fst__held_close(&h->base);
    return 0;
}
