#include "preprocess/source_rows.h"

#include "compiler.h"

namespace visionrt::preprocess {
namespace {

template <int kBlue>
inline void luma_of(const std::uint8_t* __restrict pixels, int count,
                    std::uint8_t* __restrict out) {
  for (int x = 0; x < count; ++x, pixels += 3) {
    out[3 * static_cast<std::ptrdiff_t>(x)] =
        static_cast<std::uint8_t>(luma(pixels[kBlue], pixels[1], pixels[2 - kBlue]));
  }
}

}  // namespace

VISIONRT_VECTOR_CLONES void luma_row(const std::uint8_t* pixels, bool blue_first, int count,
                                     std::uint8_t* out) {
  if (blue_first) {
    luma_of<0>(pixels, count, out);
  } else {
    luma_of<2>(pixels, count, out);
  }
}

}  // namespace visionrt::preprocess
