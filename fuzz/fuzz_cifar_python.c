/* One batch of CIFAR's Python version; the first byte chooses the edition and the limit. */
#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const fst_source_vtable vtable = {"cifar10", fst__held_get, fst__held_close};
    fst_pickle *p = NULL;
    fst__held *h = NULL;
    fst_error err;
    if (size < 1)
        return 0;
    int classes = data[0] & 1 ? 100 : 10;
    if (fst__held_new(&h, &vtable, "fuzz", &err))
        return 0;
    if (!fst_pickle_parse(&p, "fuzz", data + 1, size - 1, 1 << 24, &err))
        for (int twice = 0; twice < 2; twice++)
            if (!fst__cifar_python_add(h, "fuzz", p, data[0] & 1 ? "fine_labels" : "labels", classes, data[0] >> 1,
                                       &err))
                for (size_t i = 0; i < h->base.count; i++)
                    if (h->own_labels[i] < 0 || h->own_labels[i] >= classes)
                        __builtin_trap();
    fst_pickle_free(p);
    fst__held_close(&h->base);
    return 0;
}
