// Pillow's antialiased BILINEAR, row by row: source rows are filtered horizontally to 8 bits into
// a ring that holds the rows one output row needs, then summed vertically.
#include <algorithm>
#include <vector>

#include "compiler.h"
#include "preprocess/avx2.h"
#include "preprocess/resize.h"
#include "preprocess/sampling.h"
#include "preprocess/source_rows.h"

namespace visionrt::preprocess {
namespace {

// The horizontal filter of the visible columns. Taps come in pairs, and a pair has kPairBytes
// weights: one per channel of the first pixel, of the second, and zeros.
struct FilterX {
  int first_source, end_source;       // columns of the source that have a weight
  std::vector<std::int64_t> start;    // per column, the byte of its first tap
  std::vector<std::int32_t> pairs;    // per column, how many pairs of taps
  std::vector<std::int32_t> weights;  // of all pairs
};

FilterX filter_x(int image_w, int resized_w, int channels, Columns columns) {
  const double scale = pil_scale(image_w, resized_w);
  FilterX out{};
  out.first_source = pil_taps(columns.begin, scale, image_w).first;
  std::vector<std::int32_t> taps_weights(static_cast<std::size_t>(pil_max_taps(scale)));
  for (int x = columns.begin; x < columns.end; ++x) {
    const PilTaps taps = pil_taps(x, scale, image_w);
    pil_weights(taps, scale, taps_weights.data(), 1);
    const int pairs = (taps.count + 1) / 2;
    out.start.push_back(static_cast<std::int64_t>(channels) * taps.first);
    out.pairs.push_back(pairs);
    out.end_source = taps.first + taps.count;
    const std::size_t at = out.weights.size();
    out.weights.resize(at + static_cast<std::size_t>(pairs) * kPairBytes);
    for (int k = 0; k < taps.count; ++k) {
      const int byte = k / 2 * kPairBytes + k % 2 * channels;
      for (int c = 0; c < channels; ++c) {
        out.weights[at + static_cast<std::size_t>(byte + c)] =
            taps_weights[static_cast<std::size_t>(k)];
      }
    }
  }
  return out;
}

template <int kChannels>
void filter_pixels(const std::uint8_t* pixels, const FilterX& filter,
                   std::uint8_t* const planes[]) {
  const std::int32_t* w = filter.weights.data();
  for (std::size_t x = 0; x < filter.start.size(); ++x) {
    const std::uint8_t* p = pixels + filter.start[x];
    std::int32_t sums[kChannels];
    std::fill(sums, sums + kChannels, kPilRound);
    for (int k = 0; k < filter.pairs[x]; ++k, p += 2 * kChannels, w += kPairBytes) {
      for (int c = 0; c < kChannels; ++c) {
        sums[c] += p[c] * w[c] + p[kChannels + c] * w[kChannels + c];
      }
    }
    for (int c = 0; c < kChannels; ++c) {
      planes[c][x] = static_cast<std::uint8_t>(pil_to_byte(sums[c]));
    }
  }
}

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
        filter_x_(filter_x(image.width, geometry.resized_w, channels_, columns)),
        source_(spec, image, filter_x_.first_source, filter_x_.end_source),
        padded_(static_cast<std::size_t>(channels_) * static_cast<std::size_t>(image.width) +
                kPairBytes),
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
      filter_source_row(y, values);
    }
    return values;
  }

  void filter_source_row(int y, std::uint8_t* values) {
    // A copy with room behind it: a pair is read whole, even where it ends in zero weights.
    const std::ptrdiff_t first = filter_x_.first_source * static_cast<std::ptrdiff_t>(channels_);
    const std::ptrdiff_t end = filter_x_.end_source * static_cast<std::ptrdiff_t>(channels_);
    const std::uint8_t* pixels = source_.row(y);
    std::copy(pixels + first, pixels + end, padded_.begin() + first);
    // planes[b] is the row of the channel that lies at byte b of a source pixel.
    std::uint8_t* planes[3];
    for (int c = 0; c < channels_; ++c) {
      planes[source_.byte_of_channel(c)] = values + static_cast<std::ptrdiff_t>(c) * width_;
    }
    if (channels_ == 1) {
      filter_pixels<1>(padded_.data(), filter_x_, planes);
    } else if (has_avx2()) {
      filter_pixels_avx2(padded_.data(), filter_x_.start.data(), filter_x_.pairs.data(),
                         filter_x_.weights.data(), width_, planes);
    } else {
      filter_pixels<3>(padded_.data(), filter_x_, planes);
    }
  }

  int channels_, width_, image_h_;
  double scale_y_;
  FilterX filter_x_;
  SourceRows source_;
  std::vector<std::uint8_t> padded_;
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
