/* One npy file. */
#include "fedstill/tensor.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_array a = {0};
    fst_error err;
    if (!fst_npy_parse(&a, "fuzz", data, size, 1 << 20, &err)) {
        int64_t count = fst_shape_count(&a.shape);
        if (count < 0 || (uint64_t)count * fst_dtype_size(a.dtype) > size)
            __builtin_trap();
    }
    fst_array_release(&a);
    return 0;
}
