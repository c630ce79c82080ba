// The few vector operations of the row kernels, for whichever instruction set this file is compiled
// for. A vector is kLanes lanes of 128 bits, and every operation stays within its lane, so a kernel
// reads the same for every width. Included by one source per level only; names are local to it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#else
#error "no vector instructions: compile rows_scalar.cpp instead"
#endif

namespace visionrt::preprocess {
namespace {

// How two neighbouring pixels (or a pair of taps) become pairs of 16 bits, channel by channel: byte
// c and byte c + 3 side by side; 0x80 gives zero. The second line: the pair after it.
alignas(16) constexpr std::uint8_t kPairs[2][16] = {
    {0, 0x80, 3, 0x80, 1, 0x80, 4, 0x80, 2, 0x80, 5, 0x80, 0x80, 0x80, 0x80, 0x80},
    {6, 0x80, 9, 0x80, 7, 0x80, 10, 0x80, 8, 0x80, 11, 0x80, 0x80, 0x80, 0x80, 0x80}};

#if defined(__AVX512BW__)

constexpr int kLanes = 4;
using Vector = __m512i;

inline Vector load(const void* at) { return _mm512_loadu_si512(at); }
inline void store(void* at, Vector v) { _mm512_storeu_si512(at, v); }
inline Vector zero() { return _mm512_setzero_si512(); }
inline Vector splat_16(int v) { return _mm512_set1_epi16(static_cast<short>(v)); }
inline Vector splat_32(int v) { return _mm512_set1_epi32(v); }
inline Vector every_lane(const std::uint8_t* at) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
inline Vector load_lanes(const std::uint8_t* base, const std::int32_t* byte) {
  const auto lane = [=](int l) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + byte[l]));
  };
  const __m256i low = _mm256_set_m128i(lane(1), lane(0));
  const __m256i high = _mm256_set_m128i(lane(3), lane(2));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
inline Vector shuffle(Vector v, Vector index) { return _mm512_shuffle_epi8(v, index); }
inline Vector multiply_pairs(Vector a, Vector b) { return _mm512_madd_epi16(a, b); }
inline Vector multiply_high(Vector a, Vector b) { return _mm512_mulhi_epi16(a, b); }
inline Vector add_16(Vector a, Vector b) { return _mm512_add_epi16(a, b); }
inline Vector add_32(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
template <int kBits>
inline Vector shift_right_16(Vector v) {
  return _mm512_srai_epi16(v, kBits);
}
template <int kBits>
inline Vector shift_right_32(Vector v) {
  return _mm512_srai_epi32(v, kBits);
}
template <int kBits>
inline Vector shift_left_32(Vector v) {
  return _mm512_slli_epi32(v, kBits);
}
inline Vector pack_32(Vector a, Vector b) { return _mm512_packs_epi32(a, b); }
inline Vector pack_bytes(Vector a, Vector b) { return _mm512_packus_epi16(a, b); }
inline Vector interleave_low(Vector a, Vector b) { return _mm512_unpacklo_epi8(a, b); }
inline Vector interleave_high(Vector a, Vector b) { return _mm512_unpackhi_epi8(a, b); }

#elif defined(__AVX2__)

constexpr int kLanes = 2;
using Vector = __m256i;

inline Vector load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
inline void store(void* at, Vector v) { _mm256_storeu_si256(static_cast<__m256i*>(at), v); }
inline Vector zero() { return _mm256_setzero_si256(); }
inline Vector splat_16(int v) { return _mm256_set1_epi16(static_cast<short>(v)); }
inline Vector splat_32(int v) { return _mm256_set1_epi32(v); }
inline Vector every_lane(const std::uint8_t* at) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
inline Vector load_lanes(const std::uint8_t* base, const std::int32_t* byte) {
  const auto lane = [=](int l) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + byte[l]));
  };
  return _mm256_set_m128i(lane(1), lane(0));
}
inline Vector shuffle(Vector v, Vector index) { return _mm256_shuffle_epi8(v, index); }
inline Vector multiply_pairs(Vector a, Vector b) { return _mm256_madd_epi16(a, b); }
inline Vector multiply_high(Vector a, Vector b) { return _mm256_mulhi_epi16(a, b); }
inline Vector add_16(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
inline Vector add_32(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
template <int kBits>
inline Vector shift_right_16(Vector v) {
  return _mm256_srai_epi16(v, kBits);
}
template <int kBits>
inline Vector shift_right_32(Vector v) {
  return _mm256_srai_epi32(v, kBits);
}
template <int kBits>
inline Vector shift_left_32(Vector v) {
  return _mm256_slli_epi32(v, kBits);
}
inline Vector pack_32(Vector a, Vector b) { return _mm256_packs_epi32(a, b); }
inline Vector pack_bytes(Vector a, Vector b) { return _mm256_packus_epi16(a, b); }
inline Vector interleave_low(Vector a, Vector b) { return _mm256_unpacklo_epi8(a, b); }
inline Vector interleave_high(Vector a, Vector b) { return _mm256_unpackhi_epi8(a, b); }

#else  // NEON

constexpr int kLanes = 1;
using Vector = uint8x16_t;

inline int16x8_t as_16(Vector v) { return vreinterpretq_s16_u8(v); }
inline int32x4_t as_32(Vector v) { return vreinterpretq_s32_u8(v); }
inline Vector bytes_of(int16x8_t v) { return vreinterpretq_u8_s16(v); }
inline Vector bytes_of(int32x4_t v) { return vreinterpretq_u8_s32(v); }

inline Vector load(const void* at) { return vld1q_u8(static_cast<const std::uint8_t*>(at)); }
inline void store(void* at, Vector v) { vst1q_u8(static_cast<std::uint8_t*>(at), v); }
inline Vector zero() { return vdupq_n_u8(0); }
inline Vector splat_16(int v) { return bytes_of(vdupq_n_s16(static_cast<std::int16_t>(v))); }
inline Vector splat_32(int v) { return bytes_of(vdupq_n_s32(v)); }
inline Vector every_lane(const std::uint8_t* at) { return vld1q_u8(at); }
inline Vector load_lanes(const std::uint8_t* base, const std::int32_t* byte) {
  return vld1q_u8(base + byte[0]);
}
inline Vector shuffle(Vector v, Vector index) { return vqtbl1q_u8(v, index); }
inline Vector multiply_pairs(Vector a, Vector b) {
  const int32x4_t low = vmull_s16(vget_low_s16(as_16(a)), vget_low_s16(as_16(b)));
  return bytes_of(vpaddq_s32(low, vmull_high_s16(as_16(a), as_16(b))));
}
inline Vector multiply_high(Vector a, Vector b) {
  const int16x8_t low =
      vreinterpretq_s16_s32(vmull_s16(vget_low_s16(as_16(a)), vget_low_s16(as_16(b))));
  const int16x8_t high = vreinterpretq_s16_s32(vmull_high_s16(as_16(a), as_16(b)));
  return bytes_of(vuzp2q_s16(low, high));
}
inline Vector add_16(Vector a, Vector b) { return bytes_of(vaddq_s16(as_16(a), as_16(b))); }
inline Vector add_32(Vector a, Vector b) { return bytes_of(vaddq_s32(as_32(a), as_32(b))); }
template <int kBits>
inline Vector shift_right_16(Vector v) {
  return bytes_of(vshrq_n_s16(as_16(v), kBits));
}
template <int kBits>
inline Vector shift_right_32(Vector v) {
  return bytes_of(vshrq_n_s32(as_32(v), kBits));
}
template <int kBits>
inline Vector shift_left_32(Vector v) {
  return bytes_of(vshlq_n_s32(as_32(v), kBits));
}
inline Vector pack_32(Vector a, Vector b) {
  return bytes_of(vcombine_s16(vqmovn_s32(as_32(a)), vqmovn_s32(as_32(b))));
}
inline Vector pack_bytes(Vector a, Vector b) {
  return vcombine_u8(vqmovun_s16(as_16(a)), vqmovun_s16(as_16(b)));
}
inline Vector interleave_low(Vector a, Vector b) { return vzip1q_u8(a, b); }
inline Vector interleave_high(Vector a, Vector b) { return vzip2q_u8(a, b); }

#endif

// float32 to float16, rounded to nearest even. `count` is a multiple of 8.
inline void to_halves(const float* values, int count, std::uint16_t* out) {
  for (int x = 0; x < count; x += 8) {
#if defined(__AVX2__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x),
                     _mm256_cvtps_ph(_mm256_loadu_ps(values + x), _MM_FROUND_TO_NEAREST_INT));
#else
    const float16x4_t low = vcvt_f16_f32(vld1q_f32(values + x));
    vst1q_u16(out + x, vreinterpretq_u16_f16(vcvt_high_f16_f32(low, vld1q_f32(values + x + 4))));
#endif
  }
}

}  // namespace
}  // namespace visionrt::preprocess
