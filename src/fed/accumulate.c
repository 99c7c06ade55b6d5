/* Exact weighted sums of float arrays in 128-bit fixed point, in two planes of 64-bit limbs.
 *
 * An element becomes three signed digits of radix 2^31; digits times weight are 64-bit
 * products, added with one carry. Every loop is plain C that the compiler turns into vectors, compiled
 * once for each of a few instruction sets; all compute the same integers. It refuses to be a general
 * big-number package: range and precision are fixed, see fed.h. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

#if defined(__x86_64__) && !defined(FST_NO_MULTIVERSION)
#define MULTIVERSION 1
#define TARGET_AVX2 __attribute__((target("avx2")))
#if defined(__clang__)
#define TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))
#else
#define TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")))
#endif
#endif
#define BODY static inline __attribute__((always_inline))

enum { BLOCK = 512 };

/* (hi:lo) += w * x. First x = h + m * 2^-31 + l * 2^-62 with digits of x's sign below 2^31: exact in
 * double, as cutting leading bits off a 24-bit number leaves a number of fewer bits. Only the last
 * digit rounds (adding and subtracting 1.5 * 2^52 leaves the nearest integer), and only when x has
 * bits below 2^-62. Then the middle product takes the upper part of the lowest one; |p1| < 2^62, so
 * that does not overflow. */
BODY void add_body(uint64_t *restrict lo, int64_t *restrict hi, const float *restrict x, size_t n, int32_t w)
{
    const double rounder = 0x1.8p52;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i];
        int32_t h = (int32_t)d;
        double f = (d - h) * 0x1p31;
        int32_t m = (int32_t)f;
        int32_t l = (int32_t)((f - m) * 0x1p31 + rounder - rounder);
        int64_t p0 = (int64_t)l * w, p1 = (int64_t)m * w, p2 = (int64_t)h * w;
        int64_t t = p1 + (p0 >> 31);
        uint64_t add = (uint64_t)t << 33 | ((uint64_t)p0 & 0x7FFFFFFFu) << 2;
        uint64_t sum = lo[i] + add;
        hi[i] += p2 + (t >> 31) + (int64_t)(sum < add);
        lo[i] = sum;
    }
}

/* The largest |x| as bits; infinities and NaN are above every number. */
BODY uint32_t largest_body(const float *x, size_t n)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

struct limbs {
    uint64_t lo, hi;
};

BODY struct limbs absolute(uint64_t lo, int64_t hi)
{
    uint64_t sign = (uint64_t)(hi >> 63);
    return (struct limbs){(lo ^ sign) - sign, ((uint64_t)hi ^ sign) + (sign & (lo == 0))};
}

/* |mean| in double. Limbs of one sign lose at most three times 2^-53 of it, far below MARGIN. */
BODY double rough_mean(struct limbs v, double scale)
{
    return ((double)v.hi * 0x1p64 + (double)v.lo) * scale;
}

#define MARGIN 0x1p-49

/* Means, and which of them would be another float if it were a little less or more; returns whether any would. */
BODY unsigned mean_body(const uint64_t *restrict lo, const int64_t *restrict hi, double scale, size_t n,
                        float *restrict out, uint32_t *restrict doubt)
{
    unsigned doubtful = 0;
    for (size_t i = 0; i < n; i++) {
        double q = rough_mean(absolute(lo[i], hi[i]), scale);
        float a = (float)(q * (1.0 - MARGIN)), b = (float)(q * (1.0 + MARGIN));
        doubt[i] = a != b;
        doubtful |= doubt[i];
        out[i] = hi[i] < 0 ? -b : b;
    }
    return doubtful;
}

typedef void (*add_fn)(uint64_t *lo, int64_t *hi, const float *x, size_t n, int32_t w);
typedef uint32_t (*largest_fn)(const float *x, size_t n);
typedef unsigned (*mean_fn)(const uint64_t *lo, const int64_t *hi, double scale, size_t n, float *out, uint32_t *doubt);
struct kernels {
    add_fn add;
    largest_fn largest;
    mean_fn mean;
};

#define DEFINE_KERNELS(name, target)                                                                              \
    target static void add_##name(uint64_t *lo, int64_t *hi, const float *x, size_t n, int32_t w)                 \
    {                                                                                                             \
        add_body(lo, hi, x, n, w);                                                                                \
    }                                                                                                             \
    target static uint32_t largest_##name(const float *x, size_t n)                                               \
    {                                                                                                             \
        return largest_body(x, n);                                                                                \
    }                                                                                                             \
    target static unsigned mean_##name(const uint64_t *lo, const int64_t *hi, double scale, size_t n, float *out, \
                                       uint32_t *doubt)                                                           \
    {                                                                                                             \
        return mean_body(lo, hi, scale, n, out, doubt);                                                           \
    }                                                                                                             \
    static const struct kernels kernels_##name = {add_##name, largest_##name, mean_##name};

DEFINE_KERNELS(plain, )
#ifdef MULTIVERSION
DEFINE_KERNELS(avx2, TARGET_AVX2)
DEFINE_KERNELS(avx512, TARGET_AVX512)
#endif

static const struct kernels *kernels_at(int level)
{
#ifdef MULTIVERSION
    if (level >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &kernels_avx512;
    if (level >= 1 && __builtin_cpu_supports("avx2"))
        return &kernels_avx2;
#endif
    (void)level;
    return &kernels_plain;
}

static const struct kernels *kernels(void)
{
    return kernels_at(2);
}

void fst__accumulator_add_level(fst_accumulator *a, const float *x, int32_t weight, int level)
{
    kernels_at(level)->add(a->lo, a->hi, x, a->count, weight);
    a->weight += (uint64_t)weight;
}

fst_status fst_accumulator_init(fst_accumulator *a, size_t count, fst_error *err)
{
    if (count > SIZE_MAX / 32)
        return fst_fail_memory(err, SIZE_MAX);
    uint64_t *planes = fst_calloc(count, 2 * sizeof *planes);
    if (!planes)
        return fst_fail_memory(err, count * 2 * sizeof *planes);
    *a = (fst_accumulator){count, 0, planes, (int64_t *)planes + count};
    return FST_OK;
}

void fst_accumulator_release(fst_accumulator *a)
{
    if (!a)
        return;
    fst_free(a->lo);
    *a = (fst_accumulator){0};
}

void fst_accumulator_clear(fst_accumulator *a)
{
    if (a->count)
        memset(a->lo, 0, a->count * 2 * sizeof *a->lo);
    a->weight = 0;
}

fst_status fst_accumulator_check(const float *x, size_t count, fst_error *err)
{
    if (kernels()->largest(x, count) < 0x4F000000u) /* 2^31 */
        return FST_OK;
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(x[i]) < 0x1p31f))
            return fst_fail(err, FST_E_NUMERIC, "element %zu of %zu is %g; finite values below 2^31 are needed", i,
                            count, (double)x[i]);
    return fst_fail(err, FST_E_NUMERIC, "an element changed while it was checked");
}

fst_status fst__accumulator_check_weight(const fst_accumulator *a, int64_t weight, fst_error *err)
{
    if (weight < 0 || weight > FST_ACCUMULATOR_MAX_WEIGHT)
        return fst_fail(err, FST_E_ARGUMENT, "weight %lld; 0 to 2147483647 are allowed", (long long)weight);
    if ((uint64_t)weight > FST_ACCUMULATOR_MAX_TOTAL - a->weight)
        return fst_fail(err, FST_E_LIMIT, "the weights would sum to %llu; at most 4294967295 fit",
                        (unsigned long long)(a->weight + (uint64_t)weight));
    return FST_OK;
}

void fst__accumulator_add_checked(fst_accumulator *a, const float *x, int64_t weight)
{
    kernels()->add(a->lo, a->hi, x, a->count, (int32_t)weight);
    a->weight += (uint64_t)weight;
}

fst_status fst_accumulator_add(fst_accumulator *a, const float *x, int64_t weight, fst_error *err)
{
    fst_status s = fst__accumulator_check_weight(a, weight, err);
    if (!s)
        s = fst_accumulator_check(x, a->count, err);
    if (!s)
        fst__accumulator_add_checked(a, x, weight);
    return s;
}

fst_status fst_accumulator_merge(fst_accumulator *a, const fst_accumulator *b, fst_error *err)
{
    if (a->count != b->count)
        return fst_fail(err, FST_E_MISMATCH, "sums of %zu and of %zu elements cannot be merged", a->count, b->count);
    if (b->weight > FST_ACCUMULATOR_MAX_TOTAL - a->weight)
        return fst_fail(err, FST_E_LIMIT, "the weights would sum to %llu; at most 4294967295 fit",
                        (unsigned long long)(a->weight + b->weight));
    for (size_t i = 0; i < a->count; i++) {
        uint64_t add = b->lo[i], sum = a->lo[i] + add;
        a->hi[i] += b->hi[i] + (sum < add);
        a->lo[i] = sum;
    }
    a->weight += b->weight;
    return FST_OK;
}

/* The nearer of two neighbouring floats a < b to v / weight: their midpoint is k * 2^e with a k of 25
 * bits, so that midpoint times weight is compared with v in integers. Ties go to the even one. */
static float nearer(struct limbs v, uint64_t weight, float a, float b)
{
    double mid = ((double)a + (double)b) / 2;
    uint64_t bits;
    memcpy(&bits, &mid, sizeof bits);
    int shift = (int)(bits >> 52) - 1023 - 24 + 64;
    unsigned __int128 tie = ((bits & 0xFFFFFFFFFFFFFu) | 0x10000000000000u) >> 28;
    unsigned __int128 sum = (unsigned __int128)v.hi << 64 | v.lo;
    tie *= weight;
    if (shift >= 0)
        tie <<= shift;
    else
        sum <<= -shift;
    if (sum != tie)
        return sum < tie ? a : b;
    uint32_t a_bits;
    memcpy(&a_bits, &a, sizeof a_bits);
    return a_bits & 1 ? b : a;
}

/* Not rare: of ten clients with as many samples each, a tenth of the means lie just between two floats. */
static void settle_doubts(const uint64_t *lo, const int64_t *hi, uint64_t weight, double scale, size_t n,
                          const uint32_t *doubt, float *out)
{
    for (size_t i = 0; i < n; i++) {
        if (!doubt[i])
            continue;
        struct limbs v = absolute(lo[i], hi[i]);
        double q = rough_mean(v, scale);
        float a = (float)(q * (1.0 - MARGIN)), b = (float)(q * (1.0 + MARGIN));
        float f = nearer(v, weight, a, b);
        out[i] = hi[i] < 0 ? -f : f;
    }
}

fst_status fst_accumulator_mean_range(const fst_accumulator *a, size_t first, size_t count, float *out, fst_error *err)
{
    if (first > a->count || count > a->count - first)
        return fst_fail(err, FST_E_ARGUMENT, "elements %zu ... %zu of a sum of %zu", first, first + count, a->count);
    if (a->weight == 0)
        return fst_fail(err, FST_E_ARGUMENT, "the mean of nothing: no update with a weight was added");
    const struct kernels *k = kernels();
    double scale = 0x1p-64 / (double)a->weight;
    uint32_t doubt[BLOCK];
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        const uint64_t *lo = a->lo + first + at;
        const int64_t *hi = a->hi + first + at;
        if (k->mean(lo, hi, scale, n, out + at, doubt))
            settle_doubts(lo, hi, a->weight, scale, n, doubt, out + at);
    }
    return FST_OK;
}

fst_status fst_accumulator_mean(const fst_accumulator *a, float *out, fst_error *err)
{
    return fst_accumulator_mean_range(a, 0, a->count, out, err);
}

void fst__accumulator_sum_range(const fst_accumulator *a, size_t first, size_t count, double *out)
{
    for (size_t i = 0; i < count; i++) {
        __int128 v = (__int128)((unsigned __int128)(uint64_t)a->hi[first + i] << 64 | a->lo[first + i]);
        out[i] = (double)v * 0x1p-64; /* the conversion rounds to nearest, the product is exact */
    }
}
