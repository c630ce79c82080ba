#include "preprocess/store.h"

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

void RowStore::write(const std::uint32_t* pixels, int count, Color source, const TensorPlace& place,
                     void* out) const {
  const bool is_gray = spec_.color == Color::kGray;
  const auto channels = static_cast<std::size_t>(spec_.channels());
  const std::size_t plane_elements = spec_.image_elements() / channels;
  const std::size_t pixel =
      static_cast<std::size_t>(place.y) * static_cast<std::size_t>(spec_.fit.width) +
      static_cast<std::size_t>(place.x);
  const StoreRow row{spec_.dtype,
                     spec_.layout == Layout::kNhwc,
                     !is_gray && source != spec_.color,
                     spec_.channels(),
                     spec_.mean,
                     spec_.inv_std,
                     halves_.data()};
  void* to[3] = {};
  for (std::size_t c = 0; c < channels; ++c) {
    const std::size_t element = place.image * spec_.image_elements() +
                                (row.interleaved ? channels * pixel : c * plane_elements + pixel);
    to[c] = static_cast<std::uint8_t*>(out) + element * spec_.element_bytes();
  }
  kernels_.store(pixels, count, row, to);
}

}  // namespace visionrt::preprocess
