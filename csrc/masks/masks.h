// Contract: instance masks from prototypes and coefficients, cropped to boxes and upsampled.
//
// One image. The mask of detection i at pixel (y, x) of a window of height x width pixels is 1 when
//
//   sum over channels j of coefficients[i, j] * prototypes[j, py, px]  >  threshold
//
// with (py, px) the pixel's centre among the prototypes, sampled bilinearly (linearly between
// prototype centres, the edge repeated outside), and when the centre lies in the box:
// x1 <= x + 0.5 < x2 and likewise in y. Elsewhere it is 0. The window is whatever the caller maps:
// the tensor, or the image itself.
//
// Numerics, the same bits on both back ends: the sum is float32, channel by channel from 0, product
// and addition rounded separately. A sum is made per prototype pixel and then interpolated: along
// x, then along y, as a + (b - a) * weight in float32. Positions are double, weights float32. NaN
// is not above any threshold. A box with a NaN, or with no area, has an empty mask.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/launch.h"
#include "nms/box.h"

namespace visionrt {

// Where a window's pixels lie among the prototypes, along one axis: in continuous coordinates,
// where pixel p covers [p, p + 1), prototype = window * scale + shift.
struct MaskAxis {
  double scale = 1.0;  // above 0
  double shift = 0.0;
};

// Views. Host pointers for the CPU back end, device pointers for CUDA.
struct MaskInputs {
  const float* prototypes = nullptr;    // [channels, prototype_h, prototype_w]
  const float* coefficients = nullptr;  // [detections, channels]
  const Box* boxes = nullptr;           // [detections], in pixels of the window
  const std::int32_t* count = nullptr;  // [1], clamped to 0..detections: masks after it are empty;
                                        // null: all of them
  std::int32_t detections = 0;
  std::int32_t channels = 0;
  std::int32_t prototype_h = 0, prototype_w = 0;
  std::int32_t height = 0, width = 0;  // of the window
  MaskAxis x, y;
  float threshold = 0.0f;  // of the sum: 0 is a probability of one half
};

// Throws std::invalid_argument, naming the value, for a size that is negative or above 2^20, no
// channel or prototype pixel, or a mapping that is not finite or not ascending.
void check_mask_inputs(const MaskInputs& inputs);

// masks: uint8 [detections, height, width], 0 or 1, all of it written. Blocks; allocates the sums
// of the prototype pixels under one box at a time.
void instance_masks_cpu(const MaskInputs& inputs, std::uint8_t* masks);

// Queues one launch on the stream; does not block or allocate. `masks` as above, in device memory;
// rows aligned to 16 bytes (an aligned start and a width that is a multiple of 16) are stored
// faster. Boxes are read where they are, aligned to 4 bytes. Throws also for more than 65535
// detections, and cuda::DriverError when the driver refuses.
void instance_masks_cuda(const MaskInputs& inputs, std::uint8_t* masks, cuda::StreamHandle stream);

}  // namespace visionrt
