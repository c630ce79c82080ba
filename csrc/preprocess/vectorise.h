// Marks a plain loop to be compiled for AVX2 as well as for the baseline, chosen when the extension
// is loaded. Same arithmetic in both: no contraction, integers or single operations only.
#pragma once

#include <cstddef>  // defines __GLIBC__

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define VISIONRT_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define VISIONRT_VECTOR_CLONES
#endif
