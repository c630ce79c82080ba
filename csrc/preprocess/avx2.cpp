#include "preprocess/avx2.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "preprocess/sampling.h"

namespace visionrt::preprocess {
namespace {

// Pixels x and x + 1, blended: 32-bit lanes (c0, c1, c2, -) of x, then of x + 1.
__attribute__((target("avx2"))) inline __m256i blend_two(const std::uint8_t* pixels,
                                                         const std::int32_t* first,
                                                         const std::int16_t* weights) {
  // Left and right byte of each channel side by side, widened to 16 bits; -1 gives zero.
  const __m256i pair_channels =
      _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                       0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const auto load = [pixels](std::int32_t position) __attribute__((target("avx2"))) {
    return _mm_loadu_si128(
        reinterpret_cast<const __m128i*>(pixels + 3 * static_cast<std::int64_t>(position)));
  };
  const __m256i two = _mm256_set_m128i(load(first[1]), load(first[0]));
  const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
  return _mm256_srli_epi32(_mm256_madd_epi16(_mm256_shuffle_epi8(two, pair_channels), w), 4);
}

__attribute__((target("avx2"))) inline void store(std::int16_t* target, __m128i values) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), values);
}

}  // namespace

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }

__attribute__((target("avx2"))) void blend_pixels_avx2(const std::uint8_t* pixels,
                                                       const std::int32_t* first,
                                                       const std::int16_t* weights, int count,
                                                       std::int16_t* const planes[3]) {
  for (int x = 0; x < count; x += 8) {
    const std::int32_t* f = first + x;
    const std::int16_t* w = weights + 8 * static_cast<std::int64_t>(x);
    // Digits are pixels; each vector's two halves hold even and odd pixels.
    const __m256i p0213 =
        _mm256_packs_epi32(blend_two(pixels, f, w), blend_two(pixels, f + 2, w + 16));
    const __m256i p4657 =
        _mm256_packs_epi32(blend_two(pixels, f + 4, w + 32), blend_two(pixels, f + 6, w + 48));
    const __m256i p0415 = _mm256_unpacklo_epi16(p0213, p4657);
    const __m256i p2637 = _mm256_unpackhi_epi16(p0213, p4657);
    const __m256i channels01 = _mm256_unpacklo_epi16(p0415, p2637);
    const __m256i channel2 = _mm256_unpackhi_epi16(p0415, p2637);
    const __m128i even01 = _mm256_castsi256_si128(channels01);
    const __m128i odd01 = _mm256_extracti128_si256(channels01, 1);
    store(planes[0] + x, _mm_unpacklo_epi16(even01, odd01));
    store(planes[1] + x, _mm_unpackhi_epi16(even01, odd01));
    store(planes[2] + x, _mm_unpacklo_epi16(_mm256_castsi256_si128(channel2),
                                            _mm256_extracti128_si256(channel2, 1)));
  }
}

__attribute__((target("avx2"))) void filter_pixels_avx2(const std::uint8_t* pixels,
                                                        const std::int64_t* start,
                                                        const std::int32_t* pairs,
                                                        const std::int32_t* weights, int count,
                                                        std::uint8_t* const planes[3]) {
  for (int x = 0; x < count; ++x) {
    const std::uint8_t* p = pixels + start[x];
    __m256i sums = _mm256_setzero_si256();
    for (int k = 0; k < pairs[x]; ++k, p += 6, weights += kPairBytes) {
      const __m256i bytes =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
      sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(bytes, w));
    }
    const __m128i low = _mm256_castsi256_si128(sums);  // c0 c1 c2, then the second pixel's c0
    const __m128i second = _mm_alignr_epi8(_mm256_extracti128_si256(sums, 1), low, 12);
    const __m128i total = _mm_add_epi32(_mm_add_epi32(low, second), _mm_set1_epi32(kPilRound));
    // The two saturating packs clamp to 0...255, as pil_to_byte does.
    const __m128i words = _mm_packs_epi32(_mm_srai_epi32(total, kPilBits), _mm_setzero_si128());
    const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    planes[0][x] = static_cast<std::uint8_t>(bytes);
    planes[1][x] = static_cast<std::uint8_t>(bytes >> 8);
    planes[2][x] = static_cast<std::uint8_t>(bytes >> 16);
  }
}

}  // namespace visionrt::preprocess

#else

#include <stdexcept>

namespace visionrt::preprocess {

bool has_avx2() { return false; }

void blend_pixels_avx2(const std::uint8_t*, const std::int32_t*, const std::int16_t*, int,
                       std::int16_t* const[3]) {
  throw std::logic_error("this processor has no AVX2");
}

void filter_pixels_avx2(const std::uint8_t*, const std::int64_t*, const std::int32_t*,
                        const std::int32_t*, int, std::uint8_t* const[3]) {
  throw std::logic_error("this processor has no AVX2");
}

}  // namespace visionrt::preprocess

#endif
