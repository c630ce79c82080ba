// The horizontal passes over three interleaved channels with AVX2. Compilers do not find these
// forms: left to plain loops, both passes are bound by single-byte loads and take several times as
// long.
#pragma once

#include <cstdint>

namespace visionrt::preprocess {

// False on other processors, where the functions below must not be called.
bool has_avx2();

// Source bytes blend_pixels_avx2 reads from a tap's first pixel on.
constexpr int kBlendReadBytes = 16;

// cv2 mode. For x in [0, count), with p = pixels + 3 * first[x]:
//   planes[c][x] = cv2_blend_x(p[c], p[c + 3], w0, w1)
// `weights` holds w0, w1 four times over for each x. `count` is a multiple of 8.
void blend_pixels_avx2(const std::uint8_t* pixels, const std::int32_t* first,
                       const std::int16_t* weights, int count, std::int16_t* const planes[3]);

// Source bytes filter_pixels_avx2 reads per pair of taps: two pixels, and two bytes that get weight
// 0.
constexpr int kPairBytes = 8;

// pil mode. For x in [0, count), with p = pixels + start[x], and the next pairs[x] groups of
// kPairBytes weights:
//   planes[c][x] = pil_to_byte(kPilRound + sum over pairs k of
//                              p[6 k + c] * w[8 k + c] + p[6 k + c + 3] * w[8 k + c + 3])
void filter_pixels_avx2(const std::uint8_t* pixels, const std::int64_t* start,
                        const std::int32_t* pairs, const std::int32_t* weights, int count,
                        std::uint8_t* const planes[3]);

}  // namespace visionrt::preprocess
