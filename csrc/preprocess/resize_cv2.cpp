// OpenCV's INTER_LINEAR on 8-bit images, row by row: two source rows are blended horizontally,
// kept, and blended vertically. Enlarging reuses them for several output rows; a row without weight
// is never made.
//
// OpenCV takes the mean of 2x2 blocks when both sides halve exactly. That needs no path of its own:
// with all weights 1/2 no bit is lost before the last rounding, which is the mean's.
#include <algorithm>
#include <array>
#include <vector>

#include "preprocess/resize.h"
#include "preprocess/row_kernels.h"
#include "preprocess/sampling.h"
#include "preprocess/source_rows.h"

namespace visionrt::preprocess {
namespace {

// A source row blended horizontally: four 15-bit values per pixel.
struct BlendedRow {
  int source_y = -1;
  std::vector<std::int16_t> values;
};

// The taps of the visible columns, as RowKernels::blend_x takes them. Whole blocks near the row's
// end, where reading kLaneBytes would leave it, count from a copy of that end.
struct TapsX {
  std::vector<std::int32_t> first;  // bytes
  std::vector<std::int16_t> weights;
  int safe = 0;                 // leading pixels, of whole blocks, that read inside the row
  std::int32_t tail_first = 0;  // byte of the row at which the copy starts
};

TapsX taps_x(int image_w, int resized_w, Columns columns, int lanes) {
  const double scale = cv2_scale(image_w, resized_w);
  const int padded = static_cast<int>(padded_pixels(columns.count()));
  const int block = 4 * lanes;
  TapsX out;
  out.first.resize(static_cast<std::size_t>(padded));
  out.weights.resize(8 * static_cast<std::size_t>(padded));
  for (int x = 0; x < padded; ++x) {
    // Past the last column, that one is repeated.
    const Cv2Tap tap = cv2_tap(std::min(columns.begin + x, columns.end - 1), scale, image_w, true);
    const auto place = static_cast<std::size_t>(place_in_block(x, lanes));
    out.first[place] = 3 * tap.first;
    for (std::size_t i = 0; i < 8; i += 2) {
      out.weights[8 * place + i] = static_cast<std::int16_t>(tap.w0);
      out.weights[8 * place + i + 1] = static_cast<std::int16_t>(tap.w1);
    }
    if (x % block == block - 1 && 3 * tap.first + kLaneBytes <= 3 * image_w) out.safe = x + 1;
  }
  if (out.safe < padded) {
    out.tail_first = out.first[static_cast<std::size_t>(out.safe)];
    for (std::size_t i = static_cast<std::size_t>(out.safe); i < out.first.size(); ++i) {
      out.first[i] -= out.tail_first;
    }
  }
  return out;
}

class Bilinear final : public RowResizer {
 public:
  Bilinear(const Spec& spec, const ImageView& image, const Geometry& geometry, Columns columns)
      : kernels_(row_kernels()),
        count_(static_cast<int>(padded_pixels(columns.count()))),
        image_w_(image.width),
        image_h_(image.height),
        scale_y_(cv2_scale(image.height, geometry.resized_h)),
        taps_x_(taps_x(image.width, geometry.resized_w, columns, kernels_.lanes)),
        source_(spec, image, first_column(image, geometry, columns),
                last_column(image, geometry, columns)) {
    for (BlendedRow& row : kept_) row.values.resize(4 * static_cast<std::size_t>(count_));
    if (taps_x_.safe < count_) {
      tail_.resize(static_cast<std::size_t>(3 * image_w_ - taps_x_.tail_first) + kLaneBytes);
    }
  }

  void row(int y, std::uint32_t* pixels) override {
    const Cv2Tap tap = cv2_tap(y, scale_y_, image_h_, false);
    // Ascending rows: what was the second row often becomes the first.
    if (kept_[0].source_y != tap.first) std::swap(kept_[0], kept_[1]);
    blend_source_row(tap.first, kept_[0]);
    const bool has_second = tap.second != tap.first && tap.w1 != 0;
    if (has_second) blend_source_row(tap.second, kept_[1]);
    kernels_.blend_y(kept_[0].values.data(), kept_[has_second ? 1 : 0].values.data(), tap.w0,
                     tap.w1, count_, pixels);
  }

 private:
  static int first_column(const ImageView& image, const Geometry& geometry, Columns columns) {
    const double scale = cv2_scale(image.width, geometry.resized_w);
    return cv2_tap(columns.begin, scale, image.width, true).first;
  }
  static int last_column(const ImageView& image, const Geometry& geometry, Columns columns) {
    const double scale = cv2_scale(image.width, geometry.resized_w);
    return cv2_tap(columns.end - 1, scale, image.width, true).second + 1;
  }

  void blend_source_row(int y, BlendedRow& into) {
    if (into.source_y == y) return;
    into.source_y = y;
    const std::uint8_t* bytes = source_.row(y);
    kernels_.blend_x(bytes, taps_x_.first.data(), taps_x_.weights.data(), taps_x_.safe,
                     into.values.data());
    if (taps_x_.safe == count_) return;
    std::copy(bytes + taps_x_.tail_first, bytes + 3 * static_cast<std::ptrdiff_t>(image_w_),
              tail_.begin());
    const auto safe = static_cast<std::size_t>(taps_x_.safe);
    kernels_.blend_x(tail_.data(), taps_x_.first.data() + safe, taps_x_.weights.data() + 8 * safe,
                     count_ - taps_x_.safe, into.values.data() + 4 * safe);
  }

  const RowKernels& kernels_;
  int count_, image_w_, image_h_;
  double scale_y_;
  TapsX taps_x_;
  SourceRows source_;
  std::vector<std::uint8_t> tail_;
  std::array<BlendedRow, 2> kept_;
};

}  // namespace

std::unique_ptr<RowResizer> make_cv2_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns) {
  return std::make_unique<Bilinear>(spec, image, geometry, columns);
}

}  // namespace visionrt::preprocess
