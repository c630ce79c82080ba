// Rows of the source image as the resizers read them: three interleaved bytes a pixel. For a gray
// tensor the first of the three is the luma, and the others are not used.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocess/preprocess.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {

// Writes the luma of `count` pixels to every third byte.
void luma_row(const std::uint8_t* pixels, bool blue_first, int count, std::uint8_t* out);

class SourceRows {
 public:
  // Luma is computed for source columns [first_column, last_column) only.
  SourceRows(const Spec& spec, const ImageView& image, int first_column, int last_column)
      : image_(image),
        gray_(spec.color == Color::kGray),
        first_column_(first_column),
        last_column_(last_column) {
    if (gray_) luma_.resize(3 * static_cast<std::size_t>(image.width));
  }

  // Valid until the next call.
  const std::uint8_t* row(int y) {
    const std::uint8_t* pixels = image_.data + y * image_.row_bytes;
    if (!gray_) return pixels;
    const std::ptrdiff_t first = 3 * static_cast<std::ptrdiff_t>(first_column_);
    luma_row(pixels + first, image_.color == Color::kBgr, last_column_ - first_column_,
             luma_.data() + first);
    return luma_.data();
  }

 private:
  ImageView image_;
  bool gray_;
  int first_column_, last_column_;
  std::vector<std::uint8_t> luma_;
};

}  // namespace visionrt::preprocess
