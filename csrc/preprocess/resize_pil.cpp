// Pillow's antialiased BILINEAR, row by row: source rows are filtered horizontally to 8 bits into
// a ring that holds the rows one output row needs, then summed vertically.
#include <algorithm>
#include <vector>

#include "preprocess/resize.h"
#include "preprocess/sampling.h"
#include "preprocess/source_rows.h"
#include "preprocess/vectorise.h"

namespace visionrt::preprocess {
namespace {

// Taps and weights of consecutive output positions of one axis.
class Filter {
 public:
  Filter(int image_side, int resized_side, int begin, int end)
      : scale_(pil_scale(image_side, resized_side)), image_side_(image_side) {
    for (int i = begin; i < end; ++i) {
      const PilTaps taps = pil_taps(i, scale_, image_side);
      offsets_.push_back(weights_.size());
      weights_.resize(weights_.size() + static_cast<std::size_t>(taps.count));
      pil_weights(taps, scale_, weights_.data() + offsets_.back(), 1);
      taps_.push_back(taps);
    }
  }

  const PilTaps& taps(int i) const { return taps_[static_cast<std::size_t>(i)]; }
  const std::int32_t* weights(int i) const {
    return weights_.data() + offsets_[static_cast<std::size_t>(i)];
  }
  int first_source() const { return taps_.front().first; }
  int end_source() const { return taps_.back().first + taps_.back().count; }

 private:
  double scale_;
  int image_side_;
  std::vector<PilTaps> taps_;
  std::vector<std::size_t> offsets_;
  std::vector<std::int32_t> weights_;
};

VISIONRT_VECTOR_CLONES void add_weighted(const std::uint8_t* __restrict row, std::int32_t weight,
                                         int count, std::int32_t* __restrict sums) {
  for (int x = 0; x < count; ++x) sums[x] += row[x] * weight;
}

VISIONRT_VECTOR_CLONES void to_bytes(const std::int32_t* __restrict sums, int count,
                                     std::uint8_t* __restrict bytes) {
  for (int x = 0; x < count; ++x) bytes[x] = static_cast<std::uint8_t>(pil_to_byte(sums[x]));
}

class Antialiased final : public RowResizer {
 public:
  Antialiased(const Spec& spec, const ImageView& image, const Geometry& geometry, Columns columns)
      : channels_(spec.channels()),
        width_(columns.count()),
        image_h_(image.height),
        scale_y_(pil_scale(image.height, geometry.resized_h)),
        filter_x_(image.width, geometry.resized_w, columns.begin, columns.end),
        source_(spec, image, filter_x_.first_source(), filter_x_.end_source()),
        ring_rows_(std::min(pil_max_taps(scale_y_), image.height)),
        weights_y_(static_cast<std::size_t>(pil_max_taps(scale_y_))),
        sums_(row_elements()),
        ring_(row_elements() * static_cast<std::size_t>(ring_rows_)),
        ring_source_(static_cast<std::size_t>(ring_rows_), -1) {}

  void row(int y, std::uint8_t* const planes[]) override {
    const PilTaps taps = pil_taps(y, scale_y_, image_h_);
    pil_weights(taps, scale_y_, weights_y_.data(), 1);
    std::fill(sums_.begin(), sums_.end(), kPilRound);
    for (int k = 0; k < taps.count; ++k) {
      add_weighted(filtered_row(taps.first + k), weights_y_[static_cast<std::size_t>(k)],
                   static_cast<int>(row_elements()), sums_.data());
    }
    for (int c = 0; c < channels_; ++c) {
      to_bytes(sums_.data() + static_cast<std::ptrdiff_t>(c) * width_, width_, planes[c]);
    }
  }

 private:
  std::size_t row_elements() const {
    return static_cast<std::size_t>(channels_) * static_cast<std::size_t>(width_);
  }

  // Source row `y` filtered horizontally, from the ring.
  const std::uint8_t* filtered_row(int y) {
    const auto slot = static_cast<std::size_t>(y % ring_rows_);
    std::uint8_t* values = ring_.data() + slot * row_elements();
    if (ring_source_[slot] != y) {
      ring_source_[slot] = y;
      if (channels_ == 3) {
        filter_pixels<3>(source_.row(y), values);
      } else {
        filter_pixels<1>(source_.row(y), values);
      }
    }
    return values;
  }

  template <int kChannels>
  void filter_pixels(const std::uint8_t* pixels, std::uint8_t* values) const {
    for (int x = 0; x < width_; ++x) {
      const PilTaps& taps = filter_x_.taps(x);
      const std::int32_t* weights = filter_x_.weights(x);
      const std::uint8_t* p = pixels + kChannels * static_cast<std::ptrdiff_t>(taps.first);
      std::int32_t sums[kChannels];
      for (int c = 0; c < kChannels; ++c) sums[c] = kPilRound;
      for (int k = 0; k < taps.count; ++k, p += kChannels) {
        for (int c = 0; c < kChannels; ++c) sums[c] += p[c] * weights[k];
      }
      for (int c = 0; c < kChannels; ++c) {
        values[static_cast<std::ptrdiff_t>(source_.byte_of_channel(c)) * width_ + x] =
            static_cast<std::uint8_t>(pil_to_byte(sums[c]));
      }
    }
  }

  int channels_, width_, image_h_;
  double scale_y_;
  Filter filter_x_;
  SourceRows source_;
  int ring_rows_;
  std::vector<std::int32_t> weights_y_;
  std::vector<std::int32_t> sums_;
  std::vector<std::uint8_t> ring_;
  std::vector<int> ring_source_;
};

}  // namespace

std::unique_ptr<RowResizer> make_pil_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns) {
  return std::make_unique<Antialiased>(spec, image, geometry, columns);
}

}  // namespace visionrt::preprocess
