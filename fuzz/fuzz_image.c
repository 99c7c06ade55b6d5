/* PNG or JPEG; the pixels are limited so that the fuzzer looks for errors and not for large images. */
#include "fedstill/data.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const int channels[] = {0, 1, 3};
    for (int i = 0; i < 3; i++) {
        unsigned char *pixels = NULL;
        fst_shape shape = {0};
        fst_error err;
        if (!fst_image_decode(&pixels, &shape, "fuzz", data, size, channels[i], 1 << 16, &err)) {
            /* every pixel must be there */
            fst_hash128 h = fst_hash(pixels, (size_t)fst_shape_count(&shape), 0);
            if (shape.rank != 3 || (channels[i] && shape.dim[0] != channels[i]) || (h.lo == 0 && h.hi == 0))
                __builtin_trap();
        }
        fst_free(pixels);
    }
    return 0;
}
