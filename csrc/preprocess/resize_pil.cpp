// Pillow's antialiased BILINEAR, row by row: source rows are filtered horizontally to 8 bits into
// a ring that holds the rows one output row needs, then summed vertically.
#include <algorithm>
#include <vector>

#include "preprocess/resize.h"
#include "preprocess/row_kernels.h"
#include "preprocess/sampling.h"
#include "preprocess/source_rows.h"

namespace visionrt::preprocess {
namespace {

// The horizontal filter of the visible columns, as RowKernels::filter_x takes it.
struct FilterX {
  int first_source, end_source;     // columns of the source that have a weight
  std::vector<std::int32_t> first;  // per place, the byte of its first tap in those columns
  std::vector<std::int32_t> quads;  // per block
  std::vector<std::int16_t> weights;
  std::size_t read_bytes;  // from the first of those columns on
};

// Puts one weight where filter_x looks for it; `quad` points to the weights of a quad of all lanes.
void put_weight(std::int32_t weight, int tap, int lane, int lanes, std::int16_t* quad) {
  const std::int32_t parts[2] = {weight >> kLowBits, weight & ((1 << kLowBits) - 1)};
  for (int part = 0; part < 2; ++part) {
    std::int16_t* of_lane = quad + 8 * ((tap / 2 * 2 + part) * lanes + lane);
    for (int c = 0; c < 3; ++c) of_lane[2 * c + tap % 2] = static_cast<std::int16_t>(parts[part]);
  }
}

FilterX filter_x(int image_w, int resized_w, Columns columns, int lanes) {
  const double scale = pil_scale(image_w, resized_w);
  const int padded = static_cast<int>(padded_pixels(columns.count())), block = 4 * lanes;
  FilterX out{};
  out.first.resize(static_cast<std::size_t>(padded));
  out.first_source = pil_taps(columns.begin, scale, image_w).first;
  std::vector<std::int32_t> weights(static_cast<std::size_t>(pil_max_taps(scale)));
  for (int start = 0; start < padded; start += block) {
    std::vector<PilTaps> taps;
    int most = 1;
    for (int x = start; x < start + block; ++x) {
      // Past the last column, that one is repeated, with no weight.
      const bool is_real = x < columns.count();
      taps.push_back(pil_taps(std::min(columns.begin + x, columns.end - 1), scale, image_w));
      if (is_real) most = std::max(most, taps.back().count);
      if (is_real) out.end_source = std::max(out.end_source, taps.back().first + taps.back().count);
    }
    const int quads = (most + kQuad - 1) / kQuad;
    out.quads.push_back(quads);
    const std::size_t at = out.weights.size();
    out.weights.resize(at + static_cast<std::size_t>(block * quads) * kQuadWeights);
    for (int i = 0; i < block; ++i) {
      const PilTaps& of_pixel = taps[static_cast<std::size_t>(i)];
      const int first = 3 * (of_pixel.first - out.first_source);
      out.first[static_cast<std::size_t>(place_in_block(start + i, lanes))] = first;
      out.read_bytes = std::max(
          out.read_bytes, static_cast<std::size_t>(first + 3 * kQuad * (quads - 1)) + kLaneBytes);
      if (start + i >= columns.count()) continue;
      pil_weights(of_pixel, scale, weights.data(), 1);
      const int j = i % 4, lane = i / 4;
      for (int k = 0; k < of_pixel.count; ++k) {
        std::int16_t* quad =
            out.weights.data() + at +
            static_cast<std::size_t>((j * quads + k / kQuad) * kQuadWeights * lanes);
        put_weight(weights[static_cast<std::size_t>(k)], k % kQuad, lane, lanes, quad);
      }
    }
  }
  return out;
}

class Antialiased final : public RowResizer {
 public:
  Antialiased(const Spec& spec, const ImageView& image, const Geometry& geometry, Columns columns)
      : kernels_(row_kernels()),
        count_(static_cast<int>(padded_pixels(columns.count()))),
        image_h_(image.height),
        scale_y_(pil_scale(image.height, geometry.resized_h)),
        filter_x_(filter_x(image.width, geometry.resized_w, columns, kernels_.lanes)),
        source_(spec, image, filter_x_.first_source, filter_x_.end_source),
        bytes_(std::max(filter_x_.read_bytes, source_bytes())),
        weights_y_(static_cast<std::size_t>(pil_max_taps(scale_y_))),
        rows_(weights_y_.size()),
        ring_rows_(std::min(pil_max_taps(scale_y_), image.height)),
        ring_(static_cast<std::size_t>(count_) * static_cast<std::size_t>(ring_rows_)),
        ring_source_(static_cast<std::size_t>(ring_rows_), -1) {}

  void row(int y, std::uint32_t* pixels) override {
    const PilTaps taps = pil_taps(y, scale_y_, image_h_);
    pil_weights(taps, scale_y_, weights_y_.data(), 1);
    for (int k = 0; k < taps.count; ++k) {
      rows_[static_cast<std::size_t>(k)] = filtered_row(taps.first + k);
    }
    kernels_.filter_y(rows_.data(), weights_y_.data(), taps.count, count_, pixels);
  }

 private:
  std::size_t source_bytes() const {
    return 3 * static_cast<std::size_t>(filter_x_.end_source - filter_x_.first_source);
  }

  // Source row `y` filtered horizontally, from the ring.
  const std::uint32_t* filtered_row(int y) {
    const auto slot = static_cast<std::size_t>(y % ring_rows_);
    std::uint32_t* pixels = ring_.data() + slot * static_cast<std::size_t>(count_);
    if (ring_source_[slot] != y) {
      ring_source_[slot] = y;
      // A copy with room behind it: a quad is read whole, even where it ends in zero weights.
      const std::ptrdiff_t first = 3 * static_cast<std::ptrdiff_t>(filter_x_.first_source);
      std::copy_n(source_.row(y) + first, source_bytes(), bytes_.begin());
      kernels_.filter_x(bytes_.data(), filter_x_.first.data(), filter_x_.quads.data(),
                        filter_x_.weights.data(), count_, pixels);
    }
    return pixels;
  }

  const RowKernels& kernels_;
  int count_, image_h_;
  double scale_y_;
  FilterX filter_x_;
  SourceRows source_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::int32_t> weights_y_;
  std::vector<const std::uint32_t*> rows_;
  int ring_rows_;
  std::vector<std::uint32_t> ring_;
  std::vector<int> ring_source_;
};

}  // namespace

std::unique_ptr<RowResizer> make_pil_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns) {
  return std::make_unique<Antialiased>(spec, image, geometry, columns);
}

}  // namespace visionrt::preprocess
