/* The tiles for each width of vectors (tile.h), and which of them this processor has. Compiled with contraction: a
 * product and a sum are one step where the processor has such a step. */
#include "vector.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(FST_NO_MULTIVERSION)
#define CHOOSE 1
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define WIDTH 16
#define ROWS 8
#define NAME(f) v4_##f
#include "tile.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define WIDTH 8
#define ROWS 4
#define NAME(f) v3_##f
#include "tile.h"
#pragma GCC pop_options
#endif

/* Sixteen registers, as of x86-64, do not hold more; arm64 has 32. */
#define WIDTH 4
#ifdef __aarch64__
#define ROWS 4
enum { BASE_ROWS = 4 };
#else
#define ROWS 2
enum { BASE_ROWS = 2 };
#endif
#define NAME(f) base_##f
#include "tile.h"

#ifdef __aarch64__
static const struct fst__tiles base = {"vectors of 4", BASE_ROWS, base_multiply};
#else
static const struct fst__tiles base = {"vectors of 4, products and sums rounded apart", BASE_ROWS, base_multiply};
#endif

#ifdef CHOOSE
static const struct fst__tiles v4 = {"vectors of 16", 8, v4_multiply}, v3 = {"vectors of 8", 4, v3_multiply};

static bool has_v4(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static bool has_v3(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

const struct fst__tiles *fst__tiles_at(int i)
{
    const struct fst__tiles *all[3] = {NULL};
    int n = 0;
    if (has_v4())
        all[n++] = &v4;
    if (has_v3())
        all[n++] = &v3;
    all[n++] = &base;
    return i < n ? all[i] : NULL;
}
#else
const struct fst__tiles *fst__tiles_at(int i)
{
    return i ? NULL : &base;
}
#endif

const struct fst__tiles *fst__tiles(void)
{
    return fst__tiles_at(0);
}
