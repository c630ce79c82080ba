#include "preprocess/store.h"

#include <cstring>

#include "preprocess/sampling.h"

namespace visionrt::preprocess {

RowStore::RowStore(const Spec& spec) : spec_(spec), kernels_(row_kernels()) {
  if (spec.dtype != DType::kFloat16 || &kernels_ != &kScalarRows) return;
  for (int c = 0; c < 3; ++c) {
    for (int v = 0; v < 256; ++v) {
      halves_.push_back(half_from_float(normalise(v, spec.mean[c], spec.inv_std[c])));
    }
  }
}

std::size_t RowStore::byte_of(const TensorPlace& place, std::size_t c) const {
  const auto channels = static_cast<std::size_t>(spec_.channels());
  const std::size_t pixel =
      static_cast<std::size_t>(place.y) * static_cast<std::size_t>(spec_.fit.width) +
      static_cast<std::size_t>(place.x);
  const std::size_t in_image = spec_.layout == Layout::kNhwc
                                   ? channels * pixel + c
                                   : c * (spec_.image_elements() / channels) + pixel;
  return (place.image * spec_.image_elements() + in_image) * spec_.element_bytes();
}

void RowStore::write(const std::uint32_t* pixels, int count, Color source, const TensorPlace& place,
                     void* out) const {
  const bool is_gray = spec_.color == Color::kGray;
  const StoreRow row{spec_.dtype,
                     spec_.layout == Layout::kNhwc,
                     !is_gray && source != spec_.color,
                     spec_.channels(),
                     spec_.mean,
                     spec_.inv_std,
                     halves_.data()};
  void* to[3] = {};
  for (std::size_t c = 0; c < static_cast<std::size_t>(spec_.channels()); ++c) {
    to[c] = static_cast<std::uint8_t*>(out) + byte_of(place, c);
  }
  kernels_.store(pixels, count, row, to);
}

void RowStore::copy_row(std::size_t image, int from, int to, void* out) const {
  auto* bytes = static_cast<std::uint8_t*>(out);
  const auto channels = static_cast<std::size_t>(spec_.channels());
  const std::size_t planes = spec_.layout == Layout::kNhwc ? 1 : channels;
  const std::size_t row_bytes =
      static_cast<std::size_t>(spec_.fit.width) * (channels / planes) * spec_.element_bytes();
  for (std::size_t c = 0; c < planes; ++c) {
    std::memcpy(bytes + byte_of({image, to, 0}, c), bytes + byte_of({image, from, 0}, c),
                row_bytes);
  }
}

}  // namespace visionrt::preprocess
