/* One npz archive: every array that it lists is read, also as texts. */
#include "npy_private.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char **names = NULL;
    size_t count = 0;
    fst_error err;
    if (fst__npz_list_memory("fuzz", data, size, &names, &count, &err))
        return 0;
    for (size_t i = 0; i < count && i < 16; i++) {
        fst_array a = {0};
        if (!fst__npz_read_memory(&a, "fuzz", data, size, names[i], 1 << 20, &err) && !a.name)
            __builtin_trap();
        fst_array_release(&a);
        char **texts = NULL;
        size_t n = 0;
        if (!fst__npz_texts_memory(&texts, &n, "fuzz", data, size, names[i], 1 << 20, &err) && n && !texts[n - 1])
            __builtin_trap();
        fst_free(texts);
    }
    fst_free(names);
    return 0;
}
