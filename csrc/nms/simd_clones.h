// Compiles a function for several instruction sets; the loader picks the best one for the machine.
#pragma once

// Needs the loader's indirect functions (glibc). FMA is in none of the clones' results: contraction
// is off for the whole extension.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define VISIONRT_SIMD_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define VISIONRT_SIMD_CLONES
#endif
