// 16-byte loads and stores of boxes. Box itself asks for 4-byte alignment, as NumPy's arrays do.
#pragma once

#include "nms/box.h"

namespace visionrt {

__device__ __forceinline__ Box load_box(const Box* boxes, std::size_t i) {
  const float4 v = reinterpret_cast<const float4*>(boxes)[i];
  return {v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ void store_box(Box* boxes, std::size_t i, const Box& box) {
  reinterpret_cast<float4*>(boxes)[i] = make_float4(box.x1, box.y1, box.x2, box.y2);
}

}  // namespace visionrt
