/* Which processors oneDNN 3 can work on, from cpuid's answers: real ones, and those whose host hides leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu_caches.h"

struct answer {
    uint32_t leaf, subleaf, r[4];
};

/* A table of answers; all others are zero, as AMD's processors answer leaves that they do not have. */
static struct answer answers[16];

static void from_table(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof *out);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i].leaf == leaf && answers[i].subleaf == subleaf) {
            memcpy(out, answers[i].r, sizeof answers[i].r);
            return;
        }
}

static struct answer *answer_to(uint32_t leaf, uint32_t subleaf)
{
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i].leaf == leaf && answers[i].subleaf == subleaf)
            return &answers[i];
    fail_msg("no answer to leaf %x.%u", leaf, subleaf);
    return NULL;
}

static enum fdn_processor check(void)
{
    return fdn_processor_check(from_table);
}

/* EPYC of family 0x1A under KVM, two cores: 48 KiB and 1 MiB a core, 32 MiB for both. */
static void epyc(void)
{
    static const struct answer table[] = {
        {0, 0, {0x1C, 0x68747541, 0x444D4163, 0x69746E65}},
        {0xB, 0, {0, 1, 0x100, 0}},
        {0xB, 1, {5, 2, 0x201, 0}},
        {0x8000001D, 0, {0x121, 0x02C0003F, 0x3F, 0}},
        {0x8000001D, 1, {0x122, 0x01C0003F, 0x3F, 0}},
        {0x8000001D, 2, {0x143, 0x03C0003F, 0x3FF, 2}},
        {0x8000001D, 3, {0x4163, 0x03C0003F, 0x7FFF, 1}},
    };
    memset(answers, 0, sizeof answers);
    memcpy(answers, table, sizeof table);
}

/* Haswell as QEMU shows it, one core: 32 KiB, 4 MiB, 16 MiB. */
static void haswell(void)
{
    static const struct answer table[] = {
        {0, 0, {0xD, 0x756E6547, 0x6C65746E, 0x49656E69}},
        {0xB, 0, {0, 1, 0x100, 0}},
        {0xB, 1, {0, 1, 0x201, 0}},
        {4, 0, {0x121, 0x01C0003F, 0x3F, 1}},
        {4, 1, {0x122, 0x01C0003F, 0x3F, 1}},
        {4, 2, {0x143, 0x03C0003F, 0xFFF, 1}},
        {4, 3, {0x163, 0x03C0003F, 0x3FFF, 6}},
    };
    memset(answers, 0, sizeof answers);
    memcpy(answers, table, sizeof table);
}

static void processors_that_tell_their_caches(void **state)
{
    (void)state;
    epyc();
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
    haswell();
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
}

static void amd_without_caches(void **state)
{
    (void)state;
    epyc();
    for (uint32_t i = 0; i < 4; i++)
        memset(answer_to(0x8000001D, i)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_NO_AVX2);
    epyc(); /* the second level alone */
    memset(answer_to(0x8000001D, 2)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_NO_AVX2);
    epyc(); /* one that is told to be shared by all threads of a package that leaf 0xB does not count */
    answer_to(0x8000001D, 0)->r[0] = 0x121 | 0xFFFU << 14;
    assert_int_equal(check(), FDN_PROCESSOR_GOOD); /* by 2 at most */
    answer_to(0xB, 1)->r[1] = 4096;
    assert_int_equal(check(), FDN_PROCESSOR_NO_AVX2); /* 48 KiB for 4096 cores */
}

static void amd_without_threads_of_a_core(void **state)
{
    (void)state;
    epyc();
    answer_to(0, 0)->r[0] = 0xA;
    assert_int_equal(check(), FDN_PROCESSOR_UNUSABLE);
    epyc(); /* a leaf that is there and says nothing counts as one */
    memset(answer_to(0xB, 0)->r, 0, sizeof(uint32_t[4]));
    memset(answer_to(0xB, 1)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
}

static void intel_levels(void **state)
{
    (void)state;
    haswell(); /* none at all: oneDNN guesses */
    memset(answer_to(4, 0)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
    haswell(); /* a first level and no second, whose size is then 0 */
    memset(answer_to(4, 2)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_UNUSABLE);
    haswell(); /* a second level of one line */
    memset(answer_to(4, 2)->r + 1, 0, sizeof(uint32_t[3]));
    assert_int_equal(check(), FDN_PROCESSOR_NO_AVX2);
    haswell(); /* no leaf 0xB: the threads that share the first data cache are those of a core */
    answer_to(0, 0)->r[0] = 4;
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
    answer_to(4, 0)->r[0] = 0x123; /* and no first data cache either */
    assert_int_equal(check(), FDN_PROCESSOR_UNUSABLE);
}

static void other_makers(void **state)
{
    (void)state;
    epyc();
    answer_to(0, 0)->r[1] ^= 1; /* oneDNN guesses, whatever the leaves say */
    memset(answer_to(0x8000001D, 0)->r, 0, sizeof(uint32_t[4]));
    assert_int_equal(check(), FDN_PROCESSOR_GOOD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_that_tell_their_caches),
        cmocka_unit_test(amd_without_caches),
        cmocka_unit_test(amd_without_threads_of_a_core),
        cmocka_unit_test(intel_levels),
        cmocka_unit_test(other_makers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
