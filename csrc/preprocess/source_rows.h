// Rows of the source image as the resizers read them: three interleaved channels, or one of luma.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocess/preprocess.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {

// The luma of `count` pixels.
void luma_row(const std::uint8_t* pixels, bool blue_first, int count, std::uint8_t* out);

class SourceRows {
 public:
  // Luma is computed for source columns [first_column, last_column) only.
  SourceRows(const Spec& spec, const ImageView& image, int first_column, int last_column)
      : image_(image),
        gray_(spec.color == Color::kGray),
        reversed_(!gray_ && spec.color != image.color),
        first_column_(first_column),
        last_column_(last_column) {
    if (gray_) luma_.resize(static_cast<std::size_t>(image.width));
  }

  // The byte of a pixel that holds channel `c` of the tensor.
  int byte_of_channel(int c) const { return reversed_ ? 2 - c : c; }

  // Valid until the next call.
  const std::uint8_t* row(int y) {
    const std::uint8_t* pixels = image_.data + y * image_.row_bytes;
    if (!gray_) return pixels;
    luma_row(pixels + 3 * static_cast<std::int64_t>(first_column_), image_.color == Color::kBgr,
             last_column_ - first_column_, luma_.data() + first_column_);
    return luma_.data();
  }

 private:
  ImageView image_;
  bool gray_, reversed_;
  int first_column_, last_column_;
  std::vector<std::uint8_t> luma_;
};

}  // namespace visionrt::preprocess
