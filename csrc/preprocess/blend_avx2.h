// cv2 mode's horizontal blend of three interleaved channels with AVX2. A gather in all but name:
// the plain loop is bound by single-byte loads, and takes several times as long.
#pragma once

#include <cstdint>

namespace visionrt::preprocess {

// Source bytes read from a tap's first pixel on.
constexpr int kAvx2ReadBytes = 16;

// False on other processors, where blend_pixels_avx2 must not be called.
bool has_avx2();

// For x in [0, count), with p = pixels + 3 * first[x]:
//   planes[c][x] = cv2_blend_x(p[c], p[c + 3], w0, w1)
// `weights` holds w0, w1 four times over for each x. `count` is a multiple of 8.
void blend_pixels_avx2(const std::uint8_t* pixels, const std::int32_t* first,
                       const std::int16_t* weights, int count, std::int16_t* const planes[3]);

}  // namespace visionrt::preprocess
