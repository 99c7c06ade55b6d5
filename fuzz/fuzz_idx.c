/* A pair of IDX files: two bytes (little-endian) tell how long the images' file is, then both follow. */
#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst__reader x = {.fd = -1}, y = {.fd = -1};
    fst_source *s = NULL;
    fst_error err;
    if (size < 2)
        return 0;
    const fst__idx_how how = {.transposed = size & 1, .limit = size & 2};
    size_t cut = data[0] | (size_t)data[1] << 8;
    data += 2;
    size -= 2;
    cut = cut < size ? cut : size;
    if (!fst__reader_open_memory(&x, "images", data, cut, &err) &&
        !fst__reader_open_memory(&y, "labels", data + cut, size - cut, &err) &&
        !fst__idx_read(&s, "fuzz", &x, &y, &how, &err)) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err))
            __builtin_trap();
    }
    fst_source_close(s);
    fst__reader_close(&x);
    fst__reader_close(&y);
    return 0;
}
