/*
 * What oneDNN 3 makes of the cache sizes that a processor (or the virtual machine in front of it) reports by cpuid. Its
 * blocking divides by them, and some answers make it divide by zero while it makes a convolution. This is asked before
 * oneDNN is used for the first time. docs/rationale.md says what was found and how.
 */
#ifndef FST_NN_ONEDNN_CPU_CACHES_H
#define FST_NN_ONEDNN_CPU_CACHES_H

#include <stdint.h>

enum fdn_processor {
    FDN_PROCESSOR_GOOD,
    FDN_PROCESSOR_NO_AVX2,  /* sizes near 0, by which the kernels for AVX2 and above divide; those for AVX do not */
    FDN_PROCESSOR_UNUSABLE, /* threads of a core or a size are 0: oneDNN divides by them itself */
};

/* out: EAX, EBX, ECX, EDX of a leaf and subleaf. */
typedef void fdn_cpuid_fn(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

enum fdn_processor fdn_processor_check(fdn_cpuid_fn *cpuid);

/* That of this processor; all zero, which is nobody's processor, elsewhere than on x86-64. */
fdn_cpuid_fn fdn_cpuid;

#endif
