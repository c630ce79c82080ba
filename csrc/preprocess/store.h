// From rows of pixels to rows of the tensor: normalisation, element type and layout.
#pragma once

#include <cstdint>
#include <vector>

#include "preprocess/preprocess.h"
#include "preprocess/row_kernels.h"

namespace visionrt::preprocess {

// Where a run of pixels goes.
struct TensorPlace {
  std::size_t image;
  int y, x;
};

class RowStore {
 public:
  explicit RowStore(const Spec& spec);

  // Writes `count` pixels of an image with channels in the order `source` into the tensor `out`.
  void write(const std::uint32_t* pixels, int count, Color source, const TensorPlace& place,
             void* out) const;

  // Copies row `from` of an image of the tensor, which is written, to row `to`.
  void copy_row(std::size_t image, int from, int to, void* out) const;

 private:
  // Bytes from the start of the tensor to channel c of a pixel.
  std::size_t byte_of(const TensorPlace& place, std::size_t c) const;

  Spec spec_;
  const RowKernels& kernels_;
  std::vector<std::uint16_t> halves_;
};

}  // namespace visionrt::preprocess
