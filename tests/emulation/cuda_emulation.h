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
#define EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- vector types, with CUDA's alignment --------------------------------------------------------

#define EMULATED_VECTOR(element, name, align2, align4)                                            \
  struct alignas(align2) name##2 {                                                                \
    element x, y;                                                                                 \
  };                                                                                              \
  struct name##3 {                                                                                \
    element x, y, z;                                                                              \
  };                                                                                              \
  struct alignas(align4) name##4 {                                                                \
    element x, y, z, w;                                                                           \
  };                                                                                              \
  EMULATED_INTRINSIC name##2 make_##name##2(element x, element y) { return {x, y}; }              \
  EMULATED_INTRINSIC name##3 make_##name##3(element x, element y, element z) { return {x, y, z}; }\
  EMULATED_INTRINSIC name##4 make_##name##4(element x, element y, element z, element w) {         \
    return {x, y, z, w};                                                                          \
  }
EMULATED_VECTOR(signed char, char, 2, 4)
EMULATED_VECTOR(unsigned char, uchar, 2, 4)
EMULATED_VECTOR(short, short, 4, 8)
EMULATED_VECTOR(unsigned short, ushort, 4, 8)
EMULATED_VECTOR(int, int, 8, 16)
EMULATED_VECTOR(unsigned, uint, 8, 16)
EMULATED_VECTOR(float, float, 8, 16)
EMULATED_VECTOR(long long, longlong, 16, 16)
EMULATED_VECTOR(unsigned long long, ulonglong, 16, 16)
EMULATED_VECTOR(double, double, 16, 16)
#undef EMULATED_VECTOR

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

// ---- the scheduler's side -----------------------------------------------------------------------

namespace emulation {

enum class WarpOp : int { kSync, kShuffle, kBallot, kReduce };

// Waits for the block; returns how many threads came with a true predicate.
unsigned block_barrier(bool predicate, const char* file, int line);
// Waits for the lanes of the mask; returns the value of `source_lane`, or for kBallot the lanes
// whose value is not 0.
std::uint64_t warp_operation(WarpOp op, unsigned mask, std::uint64_t value, unsigned source_lane,
                             const char* file, int line);
// Of the lane's operation: value of another lane of the mask, after warp_operation returned.
std::uint64_t lane_value(unsigned lane);
unsigned own_lane();
void* dynamic_shared();
void fence();
// Called before an atomic operation; other threads may run in it.
void before_atomic(void* address, std::size_t bytes, void* return_address);

template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T read_modify_write(T* address, Change change) {
  before_atomic(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = change(old);
  return old;
}

template <class T>
EMULATED_INTRINSIC T shuffle(unsigned mask, T value, unsigned source_lane, const char* file,
                             int line) {
  static_assert(std::is_arithmetic_v<T>, "shuffles move numbers of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_operation(WarpOp::kShuffle, mask, bits, source_lane, file, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T, class Combine>
EMULATED_INTRINSIC T reduce(unsigned mask, T value, Combine combine, const char* file, int line) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "reductions take 32-bit integers");
  warp_operation(WarpOp::kReduce, mask, static_cast<std::uint32_t>(value), own_lane(), file, line);
  bool first = true;
  T all{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    const T other = static_cast<T>(static_cast<std::uint32_t>(lane_value(lane)));
    all = first ? other : static_cast<T>(combine(all, other));
    first = false;
  }
  return all;
}

}  // namespace emulation

// ---- barriers, fences, warp intrinsics ----------------------------------------------------------

EMULATED_INTRINSIC void __syncthreads(EMULATED_SITE) { emulation::block_barrier(false, file, line); }
EMULATED_INTRINSIC int __syncthreads_count(int predicate, EMULATED_SITE) {
  return static_cast<int>(emulation::block_barrier(predicate != 0, file, line));
}
EMULATED_INTRINSIC int __syncthreads_or(int predicate, EMULATED_SITE) {
  return emulation::block_barrier(predicate != 0, file, line) != 0;
}
EMULATED_INTRINSIC int __syncthreads_and(int predicate, EMULATED_SITE) {
  return emulation::block_barrier(predicate == 0, file, line) == 0;
}
EMULATED_INTRINSIC void __threadfence_block() {}
EMULATED_INTRINSIC void __threadfence() { emulation::fence(); }
EMULATED_INTRINSIC void __threadfence_system() { emulation::fence(); }

EMULATED_INTRINSIC void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_SITE) {
  emulation::warp_operation(emulation::WarpOp::kSync, mask, 0, emulation::own_lane(), file, line);
}
EMULATED_INTRINSIC unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return static_cast<unsigned>(emulation::warp_operation(
      emulation::WarpOp::kBallot, mask, predicate != 0, emulation::own_lane(), file, line));
}
EMULATED_INTRINSIC int __any_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
EMULATED_INTRINSIC int __all_sync(unsigned mask, int predicate, EMULATED_SITE) {
  return __ballot_sync(mask, predicate == 0, file, line) == 0;
}
template <class T>
EMULATED_INTRINSIC T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                                 EMULATED_SITE) {
  const unsigned segment = emulation::own_lane() & ~static_cast<unsigned>(width - 1);
  return emulation::shuffle(mask, value, segment | (static_cast<unsigned>(source) & (width - 1)),
                            file, line);
}
template <class T>
EMULATED_INTRINSIC T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                    EMULATED_SITE) {
  const unsigned lane = emulation::own_lane(), place = lane & (width - 1);
  return emulation::shuffle(mask, value, place < delta ? lane : lane - delta, file, line);
}
template <class T>
EMULATED_INTRINSIC T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                      EMULATED_SITE) {
  const unsigned lane = emulation::own_lane(), place = lane & (width - 1);
  return emulation::shuffle(mask, value,
                            place + delta < static_cast<unsigned>(width) ? lane + delta : lane, file,
                            line);
}
template <class T>
EMULATED_INTRINSIC T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                                     EMULATED_SITE) {
  const unsigned lane = emulation::own_lane(), source = lane ^ static_cast<unsigned>(lane_mask);
  const unsigned segment_end = (lane | (width - 1)) + 1;
  return emulation::shuffle(mask, value, source < segment_end ? source : lane, file, line);
}
#define EMULATED_REDUCE(name, expression)                                      \
  template <class T>                                                           \
  EMULATED_INTRINSIC T __reduce_##name##_sync(unsigned mask, T value, EMULATED_SITE) { \
    return emulation::reduce(                                                  \
        mask, value, [](T a, T b) { return static_cast<T>(expression); }, file, line); \
  }
EMULATED_REDUCE(add, static_cast<unsigned>(a) + static_cast<unsigned>(b))
EMULATED_REDUCE(min, a < b ? a : b)
EMULATED_REDUCE(max, a < b ? b : a)
EMULATED_REDUCE(and, a& b)
EMULATED_REDUCE(or, a | b)
EMULATED_REDUCE(xor, a ^ b)
#undef EMULATED_REDUCE

// ---- atomics ------------------------------------------------------------------------------------

template <class T>
using Itself = std::common_type_t<T>;  // deduced from the address alone

#define EMULATED_ATOMIC(name, expression)                                   \
  template <class T>                                                        \
  EMULATED_INTRINSIC T atomic##name(T* address, Itself<T> value) {          \
    return emulation::read_modify_write(                                    \
        address, [=](T old) { return static_cast<T>(expression); });        \
  }                                                                         \
  template <class T>                                                        \
  EMULATED_INTRINSIC T atomic##name##_block(T* address, Itself<T> value) {  \
    return atomic##name(address, value);                                    \
  }
EMULATED_ATOMIC(Add, old + value)
EMULATED_ATOMIC(Sub, old - value)
EMULATED_ATOMIC(Min, old < value ? old : value)
EMULATED_ATOMIC(Max, old < value ? value : old)
EMULATED_ATOMIC(And, old& value)
EMULATED_ATOMIC(Or, old | value)
EMULATED_ATOMIC(Xor, old ^ value)
EMULATED_ATOMIC(Exch, (static_cast<void>(old), value))
EMULATED_ATOMIC(Inc, old >= value ? 0 : old + 1)
#undef EMULATED_ATOMIC
template <class T>
EMULATED_INTRINSIC T atomicCAS(T* address, Itself<T> expected, Itself<T> value) {
  return emulation::read_modify_write(address,
                                      [=](T old) { return old == expected ? value : old; });
}

// ---- arithmetic ---------------------------------------------------------------------------------

template <class A, class B>
EMULATED_INTRINSIC std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
EMULATED_INTRINSIC std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin(static_cast<T>(a), static_cast<T>(b));
  return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class To, class From>
EMULATED_INTRINSIC To emulated_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
EMULATED_INTRINSIC int __float_as_int(float v) { return emulated_bits<int>(v); }
EMULATED_INTRINSIC unsigned __float_as_uint(float v) { return emulated_bits<unsigned>(v); }
EMULATED_INTRINSIC float __int_as_float(int v) { return emulated_bits<float>(v); }
EMULATED_INTRINSIC float __uint_as_float(unsigned v) { return emulated_bits<float>(v); }
EMULATED_INTRINSIC float __fadd_rn(float a, float b) { return a + b; }
EMULATED_INTRINSIC float __fsub_rn(float a, float b) { return a - b; }
EMULATED_INTRINSIC float __fmul_rn(float a, float b) { return a * b; }
EMULATED_INTRINSIC float __fdiv_rn(float a, float b) { return a / b; }
EMULATED_INTRINSIC float __frcp_rn(float a) { return 1.0f / a; }
EMULATED_INTRINSIC float __fsqrt_rn(float a) { return std::sqrt(a); }
EMULATED_INTRINSIC float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
EMULATED_INTRINSIC double __dadd_rn(double a, double b) { return a + b; }
EMULATED_INTRINSIC double __dmul_rn(double a, double b) { return a * b; }
EMULATED_INTRINSIC double __ddiv_rn(double a, double b) { return a / b; }
EMULATED_INTRINSIC float __int2float_rn(int v) { return static_cast<float>(v); }
EMULATED_INTRINSIC float __uint2float_rn(unsigned v) { return static_cast<float>(v); }
// Conversions saturate, and NaN gives 0.
EMULATED_INTRINSIC int emulated_int(float v) {
  if (v != v) return 0;
  if (v >= 2147483648.0f) return 2147483647;
  return v < -2147483648.0f ? -2147483647 - 1 : static_cast<int>(v);
}
EMULATED_INTRINSIC int __float2int_rn(float v) { return emulated_int(std::nearbyint(v)); }
EMULATED_INTRINSIC int __float2int_rd(float v) { return emulated_int(std::floor(v)); }
EMULATED_INTRINSIC int __float2int_ru(float v) { return emulated_int(std::ceil(v)); }
EMULATED_INTRINSIC int __float2int_rz(float v) { return emulated_int(v); }
EMULATED_INTRINSIC float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
EMULATED_INTRINSIC int __ffs(int v) { return __builtin_ffs(v); }
EMULATED_INTRINSIC int __ffsll(long long v) { return __builtin_ffsll(v); }
EMULATED_INTRINSIC int __popc(unsigned v) { return __builtin_popcount(v); }
EMULATED_INTRINSIC int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
EMULATED_INTRINSIC int __clz(int v) {
  return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}
EMULATED_INTRINSIC int __clzll(long long v) {
  return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v));
}
EMULATED_INTRINSIC unsigned __brev(unsigned v) {
  unsigned out = 0;
  for (int bit = 0; bit < 32; ++bit) out |= (v >> bit & 1u) << (31 - bit);
  return out;
}
EMULATED_INTRINSIC int __mulhi(int a, int b) {
  return static_cast<int>(static_cast<std::int64_t>(a) * b >> 32);
}
EMULATED_INTRINSIC unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
EMULATED_INTRINSIC unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> (4 * i) & 0xfu;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (choice & 7u))) & 0xffu;
    if ((choice & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xffu : 0u;
    out |= byte << (8 * i);
  }
  return out;
}
EMULATED_INTRINSIC unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
EMULATED_INTRINSIC unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (shift & 31));
}
EMULATED_INTRINSIC int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<signed char>(a >> (8 * i)) * static_cast<signed char>(b >> (8 * i));
  }
  return sum;
}
template <class T>
EMULATED_INTRINSIC T __ldg(const T* address) {
  return *address;
}
template <class T>
EMULATED_INTRINSIC T __ldcg(const T* address) {
  return *address;
}
template <class T>
EMULATED_INTRINSIC T __ldcs(const T* address) {
  return *address;
}
template <class T>
EMULATED_INTRINSIC void __stcs(T* address, Itself<T> value) {
  *address = value;
}
template <class T>
EMULATED_INTRINSIC void __stcg(T* address, Itself<T> value) {
  *address = value;
}
