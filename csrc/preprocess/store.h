// From rows of bytes to rows of the tensor: normalisation, element type and layout.
#pragma once

#include <array>
#include <cstdint>

#include "preprocess/preprocess.h"

namespace visionrt::preprocess {

class RowStore {
 public:
  explicit RowStore(const Spec& spec);

  // Writes row `y` of image `image` of the tensor `out` from spec.channels() planes of
  // spec.fit.width bytes.
  void write(const std::uint8_t* const planes[], std::size_t image, int y, void* out) const;

 private:
  Spec spec_;
  // float16 has no vector conversion in the baseline instruction set: look all 256 values up.
  std::array<std::array<std::uint16_t, 256>, 3> halves_;
};

}  // namespace visionrt::preprocess
