/*
 * oneDNN 3.0 to 3.7 believe three leaves of cpuid: 0xB (threads of a core), on Intel's processors 4 and on AMD's
 * 0x8000001D (caches). On AMD's they take a level that is not there, all zero, for a cache of one byte; and threads of
 * a core are 0 where the processor has no leaf 0xB. Processors of other makers get sizes that oneDNN guesses, which is
 * fine.
 */
#include "cpu_caches.h"

#include <stdbool.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

enum { EAX, EBX, ECX, EDX };
enum { TOPOLOGY = 0xB, INTEL_CACHES = 4, INTEL_LEVELS = 10 };
static const uint32_t amd_caches = 0x8000001D;
enum { DATA_CACHE = 1, UNIFIED_CACHE = 3 };

/* Per core. No processor with SSE4.1 has less; what is reported as less was not meant. */
enum { LEAST_L1 = 4 << 10, LEAST_L2 = 16 << 10 };

void fdn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
#ifdef __x86_64__
    __cpuid_count(leaf, subleaf, out[EAX], out[EBX], out[ECX], out[EDX]);
#else
    (void)leaf;
    (void)subleaf;
    out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
#endif
}

static uint32_t bits(uint32_t v, int from, int count)
{
    return (v >> from) & ((1U << count) - 1);
}

/* Bytes: ways, partitions, bytes of a line and sets, each less 1. In 32 bits, as oneDNN multiplies. */
static uint32_t cache_size(const uint32_t r[4])
{
    return (bits(r[EBX], 22, 10) + 1) * (bits(r[EBX], 12, 10) + 1) * (bits(r[EBX], 0, 12) + 1) * (r[ECX] + 1);
}

struct threads { /* what leaf 0xB says; 0: there is no such leaf */
    uint32_t of_core, of_package;
};

static struct threads read_threads(fdn_cpuid_fn *cpuid, uint32_t leaves)
{
    struct threads t = {0};
    if (leaves < TOPOLOGY)
        return t;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t r[4];
        cpuid(TOPOLOGY, i, r);
        uint32_t level = bits(r[ECX], 8, 8);
        if (level == 1)
            t.of_core = bits(r[EBX], 0, 16);
        else if (level == 2)
            t.of_package = bits(r[EBX], 0, 16);
    }
    t.of_core = t.of_core ? t.of_core : 1;
    t.of_package = t.of_package > t.of_core ? t.of_package : t.of_core;
    return t;
}

/* A cache's bytes for each of the cores that share it. */
static uint32_t for_core(const uint32_t r[4], const struct threads *t)
{
    uint32_t sharing = bits(r[EAX], 14, 12) + 1;
    if (t->of_package && sharing > t->of_package)
        sharing = t->of_package;
    uint32_t cores = sharing / t->of_core;
    return cache_size(r) / (cores ? cores : 1);
}

static enum fdn_processor judge(uint32_t l1, uint32_t l2)
{
    if (!l2)
        return FDN_PROCESSOR_UNUSABLE;
    return l1 < LEAST_L1 || l2 < LEAST_L2 ? FDN_PROCESSOR_NO_AVX2 : FDN_PROCESSOR_GOOD;
}

static enum fdn_processor check_amd(fdn_cpuid_fn *cpuid, const struct threads *t)
{
    uint32_t l1[4], l2[4];
    if (!t->of_core)
        return FDN_PROCESSOR_UNUSABLE;
    cpuid(amd_caches, 0, l1);
    cpuid(amd_caches, 2, l2);
    return judge(for_core(l1, t), for_core(l2, t));
}

static enum fdn_processor check_intel(fdn_cpuid_fn *cpuid, struct threads t)
{
    uint32_t size[2] = {0}, levels = 0;
    for (uint32_t i = 0; levels < 2 && i < INTEL_LEVELS; i++) {
        uint32_t r[4];
        cpuid(INTEL_CACHES, i, r);
        uint32_t type = bits(r[EAX], 0, 5);
        if (!type)
            break;
        if (type != DATA_CACHE && type != UNIFIED_CACHE)
            continue;
        if (!t.of_core && type == DATA_CACHE) /* the threads that share the first data cache are those of a core */
            t.of_core = bits(r[EAX], 14, 12) + 1;
        if (!t.of_core)
            return FDN_PROCESSOR_UNUSABLE;
        size[levels++] = for_core(r, &t);
    }
    return levels ? judge(size[0], size[1]) : FDN_PROCESSOR_GOOD; /* of none at all the sizes are guessed */
}

enum fdn_processor fdn_processor_check(fdn_cpuid_fn *cpuid)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    bool amd = r[EBX] == 0x68747541 && r[EDX] == 0x69746E65 && r[ECX] == 0x444D4163;   /* AuthenticAMD */
    bool intel = r[EBX] == 0x756E6547 && r[EDX] == 0x49656E69 && r[ECX] == 0x6C65746E; /* GenuineIntel */
    struct threads t = read_threads(cpuid, r[EAX]);
    if (amd)
        return check_amd(cpuid, &t);
    return intel ? check_intel(cpuid, t) : FDN_PROCESSOR_GOOD;
}
