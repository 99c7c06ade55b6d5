/* Frames as they come from a broker, as they are and with the right hash: what is accepted is encoded to the same
 * bytes. */
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "fedstill/frame.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void try_frame(const unsigned char *data, size_t size)
{
    fst_frame f;
    fst_buf again = {0};
    fst_error err;
    if (fst_frame_decode(&f, data, size) != FST_TAKEN)
        return;
    if (fst_frame_encode(&f, &again, &err) || again.len != size || memcmp(again.data, data, size) != 0)
        __builtin_trap();
    fst_buf_release(&again);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_buf copy = {0};
    fst_error err;
    try_frame(data, size);
    if (size < FST_FRAME_OVERHEAD || fst_buf_append(&copy, data, size, &err))
        return 0;
    fst__put32((unsigned char *)copy.data + 32, (uint32_t)(size - FST_FRAME_OVERHEAD));
    fst__put64((unsigned char *)copy.data + size - 8, XXH3_64bits(copy.data, size - 8));
    try_frame((unsigned char *)copy.data, size);
    fst_buf_release(&copy);
    return 0;
}
