/* One safetensors file: every tensor is read, as it is and as floats, and so is a partition. */
#include "partition.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void read_all(const fst_safetensors *f)
{
    fst_error err;
    fst_pair pair;
    for (size_t i = 0; i < fst_safetensors_count(f); i++) {
        fst_tensor t = fst_safetensors_at(f, i);
        size_t count = (size_t)fst_shape_count(&t.shape), bytes = count * fst_dtype_size(t.dtype);
        void *raw = fst_alloc(bytes);
        float *x = fst_alloc(count * sizeof *x);
        if (raw && x &&
            (fst_safetensors_read(f, i, raw, bytes, &err) || fst_safetensors_read_f32(f, i, x, count, &err)))
            __builtin_trap();
        fst_free(raw);
        fst_free(x);
    }
    for (size_t i = 0; fst_safetensors_meta_at(f, i, &pair) && i < 100; i++)
        if (fst_safetensors_meta(f, pair.key) != pair.value)
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_safetensors *f = NULL;
    fst_partition p = {0};
    fst_error err;
    if (!fst_safetensors_open_memory(&f, "fuzz", data, size, &err))
        read_all(f);
    fst_safetensors_free(f);
    if (!fst__partition_read_memory(&p, "fuzz", data, size, &err) && p.begin[p.clients] > p.samples)
        __builtin_trap();
    fst_partition_release(&p);
    return 0;
}
