#include "preprocess/store.h"

#include "compiler.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {
namespace {

// `step` elements lie from one pixel to the next in the tensor: 1 in planes, 3 interleaved.
template <class T, class Element>
inline void write_plane(const std::uint8_t* __restrict plane, int width, int step,
                        T* __restrict out, Element element) {
  if (step == 1) {
    for (int x = 0; x < width; ++x) out[x] = element(plane[x]);
  } else {
    for (int x = 0; x < width; ++x) out[3 * static_cast<std::ptrdiff_t>(x)] = element(plane[x]);
  }
}

VISIONRT_VECTOR_CLONES void write_floats(const std::uint8_t* plane, int width, int step, float mean,
                                         float inv_std, float* out) {
  write_plane(plane, width, step, out, [=](std::uint8_t v) { return normalise(v, mean, inv_std); });
}

}  // namespace

RowStore::RowStore(const Spec& spec) : spec_(spec), halves_{} {
  if (spec.dtype != DType::kFloat16) return;
  for (std::size_t c = 0; c < halves_.size(); ++c) {
    for (int v = 0; v < 256; ++v) {
      halves_[c][static_cast<std::size_t>(v)] =
          half_from_float(normalise(v, spec.mean[c], spec.inv_std[c]));
    }
  }
}

void RowStore::write(const std::uint8_t* const planes[], std::size_t image, int y,
                     void* out) const {
  const int channels = spec_.channels(), width = spec_.fit.width;
  const std::size_t row = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
  const std::size_t plane_elements = spec_.image_elements() / static_cast<std::size_t>(channels);
  const bool interleaved = spec_.layout == Layout::kNhwc;
  const int step = interleaved ? channels : 1;
  for (int c = 0; c < channels; ++c) {
    const auto channel = static_cast<std::size_t>(c);
    const std::size_t start = image * spec_.image_elements() +
                              (interleaved ? row * static_cast<std::size_t>(channels) + channel
                                           : channel * plane_elements + row);
    switch (spec_.dtype) {
      case DType::kFloat32:
        write_floats(planes[c], width, step, spec_.mean[c], spec_.inv_std[c],
                     static_cast<float*>(out) + start);
        break;
      case DType::kFloat16: {
        const std::uint16_t* table = halves_[channel].data();
        write_plane(planes[c], width, step, static_cast<std::uint16_t*>(out) + start,
                    [=](std::uint8_t v) { return table[v]; });
        break;
      }
      case DType::kUint8:
        write_plane(planes[c], width, step, static_cast<std::uint8_t*>(out) + start,
                    [](std::uint8_t v) { return v; });
        break;
    }
  }
}

}  // namespace visionrt::preprocess
