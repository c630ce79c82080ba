// Resizing on the CPU, one output row at a time, so that no resized image is ever stored.
#pragma once

#include <cstdint>
#include <memory>

#include "preprocess/preprocess.h"

namespace visionrt::preprocess {

// The columns of the resized image that the tensor shows.
struct Columns {
  int begin, end;
  int count() const { return end - begin; }
};
Columns visible_columns(const Spec& spec, const Geometry& geometry);

// Produces rows of one resized image. Neighbouring rows share work, so ask for them in ascending
// order. One object per thread.
class RowResizer {
 public:
  virtual ~RowResizer() = default;
  // Writes the visible columns of row `y` of the resized image, in the source's channel order; see
  // row_kernels.h. There is room for padded_pixels(columns.count()).
  virtual void row(int y, std::uint32_t* pixels) = 0;
};

std::unique_ptr<RowResizer> make_cv2_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns);
std::unique_ptr<RowResizer> make_pil_resizer(const Spec& spec, const ImageView& image,
                                             const Geometry& geometry, Columns columns);

}  // namespace visionrt::preprocess
