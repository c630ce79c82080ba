// __half for the emulated kernels: storage and conversions, in integers.
#pragma once

#include "cuda_emulation.h"

struct alignas(2) __half {
  std::uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

// Round to nearest, ties to even, by adding half a unit of the result's last place in float32.
inline __half __float2half_rn(float value) {
  const std::uint32_t all = __float_as_uint(value), size = all & 0x7fffffffu;
  const auto sign = static_cast<std::uint16_t>(all >> 16 & 0x8000u);
  std::uint32_t out;
  if (size > 0x7f800000u) {
    out = 0x7fffu;  // what the hardware gives for NaN
    return {static_cast<std::uint16_t>(out)};
  }
  if (size >= 0x477ff000u) {  // 65520 and above round to infinity
    out = 0x7c00u;
  } else if (size < 0x38800000u) {  // subnormal: 0.5f has a last place of 2^-24
    out = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
  } else {
    out = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | out)};
}
inline __half __float2half(float value) { return __float2half_rn(value); }
inline float __half2float(__half value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16, size = value.bits & 0x7fffu;
  if (size >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (size & 0x3ffu) << 13);
  // An exact scaling also normalises the subnormals.
  const float magnitude = __uint_as_float(size << 13) * 5.192296858534828e33f;  // 2^112
  return sign != 0 ? -magnitude : magnitude;
}
inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 __floats2half2_rn(float low, float high) {
  return {__float2half_rn(low), __float2half_rn(high)};
}
inline __half __low2half(__half2 pair) { return pair.x; }
inline __half __high2half(__half2 pair) { return pair.y; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
