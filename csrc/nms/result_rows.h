// Rows of the CUDA back end's result block, and the mapping of their boxes to the image.
#pragma once

#include "nms/box.h"

namespace visionrt {

// Ready to be copied to the host, or to be read where it lies: words 0 to 5 are float32 columns
// x1, y1, x2, y2, score, class.
struct alignas(16) Detection {
  Box box;
  float score;
  float extra;            // the class id as a number; of a rotated box its angle in radians
  std::int32_t class_id;  // 0 when there are no class ids
  std::int32_t source;    // source index of the candidate
};
static_assert(sizeof(Detection) == 32, "two stores of 16 bytes");

// From pixels of the tensor to pixels of one image: within 0 ... limit, (v - offset) * scale.
struct ImageMap {
  float offset_x, offset_y, scale_x, scale_y, limit_x, limit_y;
};

// Subtraction and product are rounded separately, as NumPy rounds them: neither compiler contracts.
VISIONRT_HD float mapped(float value, float offset, float scale, float limit) {
  return smaller_of(larger_of((value - offset) * scale, 0.0f), limit);
}

VISIONRT_HD Box mapped(const Box& box, const ImageMap& map) {
  return {mapped(box.x1, map.offset_x, map.scale_x, map.limit_x),
          mapped(box.y1, map.offset_y, map.scale_y, map.limit_y),
          mapped(box.x2, map.offset_x, map.scale_x, map.limit_x),
          mapped(box.y2, map.offset_y, map.scale_y, map.limit_y)};
}

}  // namespace visionrt
