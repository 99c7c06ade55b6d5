/* SigMF recordings: the window (0: by the annotations) in a byte, the metadata's length in two (little-endian), then
 * metadata and data; or, where that length is 65535, an archive of recordings. */
#include "sigmf.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_source *s = NULL;
    fst_error err;
    if (size < 3)
        return 0;
    size_t window = data[0], cut = data[1] | (size_t)data[2] << 8;
    data += 3;
    size -= 3;
    bool archive = cut == 0xFFFF;
    cut = cut < size ? cut : size;
    if (!(archive
              ? fst__sigmf_read_archive(&s, "fuzz", data, size, window, &err)
              : fst__sigmf_read_memory(&s, "fuzz", (const char *)data, cut, data + cut, size - cut, window, &err))) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err) || !s->group || !s->class_names)
            __builtin_trap();
    }
    fst_source_close(s);
    return 0;
}
