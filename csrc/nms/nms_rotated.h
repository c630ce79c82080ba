// Contract: exact greedy non-maximum suppression of rotated boxes.
//
// nms.h holds, with these changes. A candidate is an upright box and an angle by which it is turned
// about its centre (nms/rotated.h). Overlap is the intersection over union of the two polygons, not
// the probabilistic IoU of Gaussians (Llerena et al. 2021): it is what DOTA's evaluation measures,
// and a threshold means the same as for upright boxes. An angle that is NaN, infinite or beyond
// kLargestAngle leaves the candidate out, after max_candidates has been applied.
#pragma once

#include "nms/nms.h"
#include "nms/rotated.h"

namespace visionrt {

// Where the angles lie, in radians: that of a candidate with source index s of image i is
// values[i * image_stride + s / classes * anchor_stride]. Lets the angles stay in a head's output.
struct AngleView {
  const float* values = nullptr;
  std::int64_t image_stride = 0;
  std::int64_t anchor_stride = 1;
  std::int32_t classes = 1;  // 1 or more

  VISIONRT_HD float at(std::int32_t image, std::int32_t source) const {
    return values[image * image_stride + source / classes * anchor_stride];
  }
};

// As nms_cpu.
void nms_rotated_cpu(const NmsInputs& inputs, const AngleView& angles, const NmsOptions& options,
                     std::int32_t* kept, std::int32_t* kept_counts);

// As nms_cuda_workspace_bytes: 32 bytes for each box kept.
std::size_t nms_rotated_cuda_workspace_bytes(std::int32_t batch, std::int32_t capacity,
                                             const NmsOptions& options);

// As nms_cuda; `detections` are the upright boxes, in pixels of the tensor, with their angles.
void nms_rotated_cuda(const NmsInputs& inputs, const AngleView& angles, const NmsFilter& filter,
                      const NmsOptions& options, void* workspace, std::size_t workspace_bytes,
                      const NmsOutputs& outputs, cuda::StreamHandle stream);

}  // namespace visionrt
