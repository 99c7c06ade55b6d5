/* CIFAR-10's list of class names, up to the first zero byte, and a file of records behind it. */
#include <string.h>

#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst__reader file = {.fd = -1};
    fst_source *s = NULL;
    fst_error err;
    char **names = NULL;
    const unsigned char *zero = size ? memchr(data, 0, size) : NULL;
    size_t len = zero ? (size_t)(zero - data) : size;
    if (!fst__cifar10_names(&names, "names", (const char *)data, len, &err))
        for (int i = 0; i < 10; i++)
            if (strlen(names[i]) == 0 || strlen(names[i]) > len)
                __builtin_trap();
    fst_free(names);
    if (!zero)
        return 0;
    data += len + 1;
    size -= len + 1;
    if (!fst__reader_open_memory(&file, "records", data, size, &err) &&
        !fst__cifar10_read(&s, "fuzz", &file, 1, size % 7, &err))
        for (size_t i = 0; i < s->count; i++)
            if (s->labels[i] < 0 || s->labels[i] > 9)
                __builtin_trap();
    fst_source_close(s);
    fst__reader_close(&file);
    return 0;
}
