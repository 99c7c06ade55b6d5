/* One file of torch.save, new or old: every element of every tensor is read. */
#include "fedstill/tensor.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static volatile float seen;

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_pth *p = NULL;
    fst_error err;
    if (fst_pth_parse(&p, "fuzz", data, size, NULL, 1 << 22, &err))
        return 0;
    for (size_t i = 0; i < fst_pth_count(p); i++) {
        fst_tensor t = fst_pth_at(p, i);
        size_t n = (size_t)fst_shape_count(&t.shape), each = fst_dtype_size(t.dtype);
        for (size_t k = 0; k < n; k++) {
            float x;
            fst_f32_from(&x, t.dtype, (const unsigned char *)t.data + k * each, 1);
            seen = x;
        }
    }
    fst_pth_free(p);
    return 0;
}
