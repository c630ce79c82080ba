// OpenCV's INTER_LINEAR on 8-bit images, row by row: two source rows are blended horizontally,
// kept, and blended vertically. Enlarging reuses them for several output rows.
//
// OpenCV takes the mean of 2x2 blocks when both sides halve exactly. That needs no path of its own:
// with all weights 1/2 no bit is lost before the last rounding, which is the mean's.
#include <algorithm>
#include <array>
#include <vector>

#include "compiler.h"
#include "preprocess/avx2.h"
#include "preprocess/resize.h"
#include "preprocess/sampling.h"
#include "preprocess/source_rows.h"

namespace visionrt::preprocess {
namespace {

// A source row blended horizontally: planes of 15-bit values.
struct BlendedRow {
  int source_y = -1;
  std::vector<std::int16_t> values;
};

// The taps of the visible columns.
struct TapsX {
  std::vector<Cv2Tap> taps;
  // The leading columns that blend_pixels_avx2 may do, in the form it takes.
  int vector_count = 0;
  std::vector<std::int32_t> first;
  std::vector<std::int16_t> weights;
};

TapsX taps_x(int image_w, int resized_w, int channels, Columns columns) {
  const double scale = cv2_scale(image_w, resized_w);
  TapsX out;
  out.taps.reserve(static_cast<std::size_t>(columns.count()));
  for (int x = columns.begin; x < columns.end; ++x) {
    out.taps.push_back(cv2_tap(x, scale, image_w, true));
  }
  if (channels != 3 || !has_avx2()) return out;
  for (const Cv2Tap& tap : out.taps) {
    // Reads must stay inside the row; this far from its end, `second` is `first` + 1.
    if (3 * static_cast<std::int64_t>(image_w - tap.first) < kBlendReadBytes) break;
    out.first.push_back(tap.first);
    for (int i = 0; i < 4; ++i) {
      out.weights.push_back(static_cast<std::int16_t>(tap.w0));
      out.weights.push_back(static_cast<std::int16_t>(tap.w1));
    }
  }
  out.vector_count = static_cast<int>(out.first.size()) / 8 * 8;
  return out;
}

VISIONRT_VECTOR_CLONES void blend_rows(const std::int16_t* __restrict top,
                                       const std::int16_t* __restrict bottom, int w0, int w1,
                                       int count, std::uint8_t* __restrict out) {
  const auto a = static_cast<std::int16_t>(w0), b = static_cast<std::int16_t>(w1);
  for (int x = 0; x < count; ++x) {
    out[x] = static_cast<std::uint8_t>(cv2_blend_y(top[x], bottom[x], a, b));
  }
}

class Bilinear final : public RowResizer {
 public:
  Bilinear(const Spec& spec, const ImageView& image, const Geometry& geometry, Columns columns)
      : channels_(spec.channels()),
        width_(columns.count()),
        image_h_(image.height),
        scale_y_(cv2_scale(image.height, geometry.resized_h)),
        taps_x_(taps_x(image.width, geometry.resized_w, channels_, columns)),
        source_(spec, image, taps_x_.taps.front().first, taps_x_.taps.back().second + 1) {
    for (BlendedRow& row : kept_) {
      row.values.resize(static_cast<std::size_t>(channels_) * static_cast<std::size_t>(width_));
    }
  }

  void row(int y, std::uint8_t* const planes[]) override {
    const Cv2Tap tap = cv2_tap(y, scale_y_, image_h_, false);
    // Ascending rows: what was the second row often becomes the first.
    if (kept_[0].source_y != tap.first) std::swap(kept_[0], kept_[1]);
    blend_source_row(tap.first, kept_[0]);
    if (tap.second != tap.first) blend_source_row(tap.second, kept_[1]);
    const BlendedRow& second = tap.second == tap.first ? kept_[0] : kept_[1];
    for (int c = 0; c < channels_; ++c) {
      const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(c) * width_;
      blend_rows(kept_[0].values.data() + plane, second.values.data() + plane, tap.w0, tap.w1,
                 width_, planes[c]);
    }
  }

 private:
  void blend_source_row(int y, BlendedRow& into) {
    if (into.source_y == y) return;
    into.source_y = y;
    const std::uint8_t* pixels = source_.row(y);
    if (channels_ == 3) {
      blend_pixels<3>(pixels, into.values.data());
    } else {
      blend_pixels<1>(pixels, into.values.data());
    }
  }

  template <int kChannels>
  void blend_pixels(const std::uint8_t* pixels, std::int16_t* values) const {
    // planes[b] is the row of the channel that lies at byte b of a source pixel.
    std::int16_t* planes[kChannels];
    for (int c = 0; c < kChannels; ++c) {
      planes[source_.byte_of_channel(c)] = values + static_cast<std::ptrdiff_t>(c) * width_;
    }
    if (kChannels == 3 && taps_x_.vector_count > 0) {
      blend_pixels_avx2(pixels, taps_x_.first.data(), taps_x_.weights.data(), taps_x_.vector_count,
                        planes);
    }
    for (int x = taps_x_.vector_count; x < width_; ++x) {
      const Cv2Tap& tap = taps_x_.taps[static_cast<std::size_t>(x)];
      const std::uint8_t* left = pixels + kChannels * static_cast<std::ptrdiff_t>(tap.first);
      const std::uint8_t* right = pixels + kChannels * static_cast<std::ptrdiff_t>(tap.second);
      for (int b = 0; b < kChannels; ++b) {
        planes[b][x] = static_cast<std::int16_t>(cv2_blend_x(left[b], right[b], tap.w0, tap.w1));
      }
    }
  }

  int channels_, width_, image_h_;
  double scale_y_;
  TapsX taps_x_;
  SourceRows source_;
  std::array<BlendedRow, 2> kept_;
};

}  // namespace

std::unique_ptr<RowResizer> make_cv2_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns) {
  return std::make_unique<Bilinear>(spec, image, geometry, columns);
}

}  // namespace visionrt::preprocess
