// CUDA C++ for a host compiler: what a kernel file uses, on top of the emulator's scheduler.
//
// Included before a kernel file by the compiler's command line. Every thread of a block is a fiber;
// a barrier or a warp intrinsic hands control to the scheduler (scheduler.cpp). What is not here is
// a compile error, which is meant: an intrinsic is added with its rules, or not used.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __CUDACC__ 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// A variable of at most 48 KiB every 64 KiB: an overrun lands in no variable. build.py rewrites
// `extern __shared__` declarations.
#define __shared__ static __attribute__((aligned(65536)))

#define EMULATED_INTRINSIC inline __attribute__((always_inline))
#define EMULATED_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- vector types, with CUDA's alignment --------------------------------------------------------

#define EMULATED_VECTOR(T, name, align2, align4)                                 \
  struct alignas(align2) name##2 { T x, y; };                                    \
  struct name##3 { T x, y, z; };                                                 \
  struct alignas(align4) name##4 { T x, y, z, w; };                              \
  EMULATED_INTRINSIC name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  EMULATED_INTRINSIC name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  EMULATED_INTRINSIC name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTOR(signed char, char, 2, 4)
EMULATED_VECTOR(unsigned char, uchar, 2, 4)
EMULATED_VECTOR(short, short, 4, 8)
EMULATED_VECTOR(unsigned short, ushort, 4, 8)
EMULATED_VECTOR(int, int, 8, 16)
EMULATED_VECTOR(unsigned, uint, 8, 16)
EMULATED_VECTOR(float, float, 8, 16)
EMULATED_VECTOR(unsigned long long, ulonglong, 16, 16)
EMULATED_VECTOR(double, double, 16, 16)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// The scheduler sets these before it resumes a fiber; a fiber sees them constant.
#ifndef EMULATION_RUNTIME
#define EMULATION_RUNTIME const
#endif
extern EMULATION_RUNTIME uint3 threadIdx, blockIdx;
extern EMULATION_RUNTIME dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- barriers, fences, warp intrinsics ----------------------------------------------------------

namespace emulation {

enum class WarpOp : int { kSync, kShuffle, kVote };

// Waits for the block; returns how many threads came with a true predicate.
unsigned block_barrier(bool predicate, const char* file, int line);
// Waits for the lanes of the mask; returns the value of `source`, or for kVote the lanes whose
// value is not 0.
std::uint64_t warp_operation(WarpOp op, unsigned mask, std::uint64_t value, unsigned source,
                             const char* file, int line);
unsigned own_lane();
void* dynamic_shared();
void fence();
// Called before an atomic operation; other threads may run in it.
void before_atomic(void* address, std::size_t bytes, void* return_address);

template <class To, class From>
EMULATED_INTRINSIC To same_bits(From from) {
  To to{};
  std::memcpy(&to, &from, sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To));
  return to;
}
template <class T>
EMULATED_INTRINSIC T shuffle(unsigned mask, T value, unsigned source, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T>, "shuffles move numbers of up to 8 bytes");
  return same_bits<T>(
      warp_operation(WarpOp::kShuffle, mask, same_bits<std::uint64_t>(value), source, file, line));
}

}  // namespace emulation

EMULATED_INTRINSIC void __syncthreads(EMULATED_PLACE) {
  emulation::block_barrier(false, file, line);
}
EMULATED_INTRINSIC int __syncthreads_count(int predicate, EMULATED_PLACE) {
  return static_cast<int>(emulation::block_barrier(predicate != 0, file, line));
}
EMULATED_INTRINSIC int __syncthreads_or(int predicate, EMULATED_PLACE) {
  return emulation::block_barrier(predicate != 0, file, line) != 0;
}
EMULATED_INTRINSIC int __syncthreads_and(int predicate, EMULATED_PLACE) {
  return emulation::block_barrier(predicate == 0, file, line) == 0;
}
EMULATED_INTRINSIC void __threadfence() { emulation::fence(); }
EMULATED_INTRINSIC void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_PLACE) {
  emulation::warp_operation(emulation::WarpOp::kSync, mask, 0, emulation::own_lane(), file, line);
}
EMULATED_INTRINSIC unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_PLACE) {
  return static_cast<unsigned>(emulation::warp_operation(
      emulation::WarpOp::kVote, mask, predicate != 0, emulation::own_lane(), file, line));
}
EMULATED_INTRINSIC int __any_sync(unsigned mask, int predicate, EMULATED_PLACE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
EMULATED_INTRINSIC int __all_sync(unsigned mask, int predicate, EMULATED_PLACE) {
  return __ballot_sync(mask, predicate == 0, file, line) == 0;
}
// Which lane each shuffle reads: `lane` is the caller's, `first` and `end` bound its segment.
#define EMULATED_SHUFFLE(name, source)                                                     \
  template <class T>                                                                       \
  EMULATED_INTRINSIC T name(unsigned mask, T value, unsigned operand, unsigned width = 32, \
                            EMULATED_PLACE) {                                              \
    const unsigned lane = emulation::own_lane();                                           \
    const unsigned first = lane / width * width, end = first + width;                      \
    static_cast<void>(end);                                                                \
    return emulation::shuffle(mask, value, source, file, line);                            \
  }
EMULATED_SHUFFLE(__shfl_sync, first + operand % width)
EMULATED_SHUFFLE(__shfl_up_sync, lane - first >= operand ? lane - operand : lane)
EMULATED_SHUFFLE(__shfl_down_sync, lane + operand < end ? lane + operand : lane)
EMULATED_SHUFFLE(__shfl_xor_sync, (lane ^ operand) < end ? lane ^ operand : lane)

// ---- atomics ------------------------------------------------------------------------------------

namespace emulation {

template <class T>
using Itself = std::common_type_t<T>;  // deduced from the address alone

template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T read_modify_write(T* address, Change change) {
  before_atomic(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace emulation

#define EMULATED_ATOMIC(name, expression)                                                   \
  template <class T>                                                                        \
  EMULATED_INTRINSIC T name(T* address, emulation::Itself<T> value) {                       \
    return emulation::read_modify_write(address,                                            \
                                        [=](T old) { return static_cast<T>(expression); }); \
  }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicMin, old < value ? old : value)
EMULATED_ATOMIC(atomicMax, old < value ? value : old)
EMULATED_ATOMIC(atomicAnd, old& value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicXor, old ^ value)
EMULATED_ATOMIC(atomicExch, (static_cast<void>(old), value))
EMULATED_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
template <class T>
EMULATED_INTRINSIC T atomicCAS(T* address, emulation::Itself<T> expected,
                               emulation::Itself<T> value) {
  return emulation::read_modify_write(address,
                                      [=](T old) { return old == expected ? value : old; });
}

// ---- arithmetic, and loads and stores with cache hints ------------------------------------------

template <class A, class B, class T = std::common_type_t<A, B>>
EMULATED_INTRINSIC T max(A a, B b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B, class T = std::common_type_t<A, B>>
EMULATED_INTRINSIC T min(A a, B b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
EMULATED_INTRINSIC int __float_as_int(float v) { return emulation::same_bits<int>(v); }
EMULATED_INTRINSIC unsigned __float_as_uint(float v) { return emulation::same_bits<unsigned>(v); }
EMULATED_INTRINSIC float __int_as_float(int v) { return emulation::same_bits<float>(v); }
EMULATED_INTRINSIC float __uint_as_float(unsigned v) { return emulation::same_bits<float>(v); }
EMULATED_INTRINSIC float __fadd_rn(float a, float b) { return a + b; }
EMULATED_INTRINSIC float __fsub_rn(float a, float b) { return a - b; }
EMULATED_INTRINSIC float __fmul_rn(float a, float b) { return a * b; }
EMULATED_INTRINSIC float __fdiv_rn(float a, float b) { return a / b; }
EMULATED_INTRINSIC float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
EMULATED_INTRINSIC int __ffs(int v) { return __builtin_ffs(v); }
EMULATED_INTRINSIC int __popc(unsigned v) { return __builtin_popcount(v); }
EMULATED_INTRINSIC int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
EMULATED_INTRINSIC int __clz(int v) {
  return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}
EMULATED_INTRINSIC unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
template <class T>
EMULATED_INTRINSIC T __ldg(const T* address) {
  return *address;
}
template <class T>
EMULATED_INTRINSIC T __ldcs(const T* address) {
  return *address;
}
template <class T>
EMULATED_INTRINSIC void __stcs(T* address, emulation::Itself<T> value) {
  *address = value;
}
