// What the decode kernels share: appending a candidate, and a warp's best value.
#pragma once

#include "decode/decode_kernels.h"
#include "nms/box_device.cuh"

namespace visionrt {

constexpr unsigned kAllLanes = 0xffffffffu;

// The compiler makes one atomic operation of a warp's (VOTE, POPC and SHFL around it): where a lane
// takes an anchor, 8400 candidates cost 263 of them; where a warp does, a candidate costs one, and
// few pass. A barrier to make one of a block's would cost more. The host has checked the capacity.
__device__ __forceinline__ void append_candidate(const CandidateBuffers& out, std::int32_t image,
                                                 const Box& box, float score, std::int32_t class_id,
                                                 std::int32_t source_index) {
  const std::int32_t slot = atomicAdd(&out.counts[image], 1);
  const std::size_t at = static_cast<std::size_t>(image) * out.capacity + slot;
  store_box(out.boxes, at, box);
  out.scores[at] = score;
  out.class_ids[at] = class_id;
  out.source_index[at] = source_index;
}

struct BestClass {
  float score;
  std::int32_t class_id;  // INT32_MAX: every value is NaN, or there is none
};

__device__ __forceinline__ void take_better(BestClass& best, float score, std::int32_t class_id) {
  if (score > best.score || (score == best.score && class_id < best.class_id)) {
    best = {score, class_id};
  }
}

// The best of values[0..count) without values[skip], in every lane of a full warp; ties go to the
// lower position, NaN values are passed over.
__device__ __forceinline__ BestClass warp_best(const float* values, std::int32_t count,
                                               std::int32_t skip) {
  BestClass best{-INFINITY, INT32_MAX};
  for (std::int32_t id = static_cast<std::int32_t>(threadIdx.x % 32); id < count; id += 32) {
    if (id != skip) take_better(best, values[id], id);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const float score = __shfl_xor_sync(kAllLanes, best.score, distance);
    const std::int32_t class_id = __shfl_xor_sync(kAllLanes, best.class_id, distance);
    take_better(best, score, class_id);
  }
  return best;
}

// One warp, one row [box code, objectness?, class scores, ...]; `box_of(row)` decodes.
template <class BoxOf>
__device__ __forceinline__ void scan_row(const float* row, bool has_objectness,
                                         std::int32_t num_classes, const DecodeOptions& options,
                                         std::int32_t image, std::int32_t anchor,
                                         const CandidateBuffers& out, const BoxOf& box_of) {
  const float threshold = options.score_threshold;
  const float objectness = has_objectness ? row[4] : 1.0f;
  if (has_objectness && !(objectness > threshold)) return;
  const float* classes = row + (has_objectness ? 5 : 4);
  const std::int32_t lane = threadIdx.x % 32;
  if (options.multi_label) {
    for (std::int32_t id = lane; id < num_classes; id += 32) {
      const float score = has_objectness ? objectness * classes[id] : classes[id];
      if (score > threshold) {
        append_candidate(out, image, box_of(row), score, id, anchor * num_classes + id);
      }
    }
    return;
  }
  const BestClass best = warp_best(classes, num_classes, -1);
  const float score = has_objectness ? objectness * best.score : best.score;
  if (lane == 0 && score > threshold && best.score > -INFINITY) {
    append_candidate(out, image, box_of(row), score, best.class_id,
                     anchor * num_classes + best.class_id);
  }
}

}  // namespace visionrt
