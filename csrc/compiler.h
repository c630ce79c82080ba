// Attributes that more than one operation asks of the compiler.
#pragma once

#include <cstddef>  // defines __GLIBC__

// A function that nvcc and the host compiler both read, so that both back ends give the same bits.
#ifdef __CUDACC__
#define VISIONRT_HD __host__ __device__ __forceinline__
#else
// Always inlined: a copy left to the linker could be one that was compiled for a newer processor.
#define VISIONRT_HD [[gnu::always_inline]] inline
#endif

// Compiles a plain loop for several instruction sets; the loader (glibc's indirect functions) picks
// the best one for the machine. The arithmetic is the same in all: contraction is off everywhere.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define VISIONRT_VECTOR_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define VISIONRT_VECTOR_CLONES
#endif
