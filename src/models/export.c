/* A model written for others to read, in one of three floating-point types. What is lost is lost by rounding alone: a
 * value that the type cannot hold at all is an error. */
#include <math.h>
#include <string.h>

#include "zoo.h"

/* Round to nearest even; NaN stays NaN. */
static uint16_t bf16_from_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (isnan(x))
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

/* Half of a float's bytes each, into `out`; false when one became infinite. */
static bool narrow(const float *x, size_t n, fst_dtype dtype, uint16_t *out)
{
    const uint16_t infinity = dtype == FST_F16 ? 0x7C00 : 0x7F80;
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        out[i] = dtype == FST_F16 ? fst_f16_from_f32(x[i]) : bf16_from_f32(x[i]);
        ok = ok && ((out[i] & 0x7FFF) != infinity || !isfinite(x[i]));
    }
    return ok;
}

/* Gives the floating-point tensors of the list their values in dtype, in one block that the caller frees. */
static fst_status convert(fst_tensor *list, size_t n, fst_dtype dtype, uint16_t **block, fst_error *err)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        total += list[i].dtype == FST_F32 ? (size_t)fst_shape_count(&list[i].shape) : 0;
    uint16_t *out = fst_alloc((total + 1) * sizeof *out);
    if (!out)
        return fst_fail_memory(err, total * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        size_t count = (size_t)fst_shape_count(&list[i].shape);
        if (list[i].dtype != FST_F32)
            continue;
        if (!narrow(list[i].data, count, dtype, out + at)) {
            fst_free(out);
            return fst_fail(err, FST_E_NUMERIC, "%s has a value too large for %s%s", list[i].name,
                            fst_dtype_name(dtype), dtype == FST_F16 ? "; BF16 has the range of F32" : "");
        }
        list[i].data = out + at;
        list[i].dtype = dtype;
        at += count;
    }
    *block = out;
    return FST_OK;
}

fst_status fst_model_export(const fst_model *m, const char *path, fst_names names, fst_dtype dtype,
                            const fst_pair *more, size_t nmore, char digest[FST_DIGEST_HEX], fst_error *err)
{
    uint16_t *block = NULL;
    size_t n = 0;
    if (dtype != FST_F32 && dtype != FST_F16 && dtype != FST_BF16)
        return fst_fail(err, FST_E_ARGUMENT, "models are exported as F32, F16 or BF16, not as %s",
                        fst_dtype_name(dtype));
    fst_status f32 = fst_model_need_f32(m, "this", "cannot be exported", err);
    if (f32)
        return f32;
    fst_tensor *list = fst__model_tensors(m->graph, &m->state, &n);
    fst_status s = list ? FST_OK : fst_fail_memory(err, sizeof *list);
    if (!s && dtype != FST_F32)
        s = convert(list, n, dtype, &block, err);
    bool ours = names == FST_NAMES_OURS;
    if (!s)
        s = fst__model_write(m, path, ours ? FST_MODEL_FORMAT : "pt", list, n, more, ours ? nmore : 0, digest, err);
    fst_free(block);
    fst_free(list);
    return s;
}
