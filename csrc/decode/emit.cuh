// What the decode kernels share: appending a candidate, and a warp's best value.
#pragma once

#include <cuda_fp16.h>

#include "decode/decode_kernels.h"
#include "nms/box_device.cuh"

namespace visionrt {

constexpr unsigned kAllLanes = 0xffffffffu;

// An element of an output. Every float16 is a float32, so the CPU back end, which widens the whole
// output first, has the same values.
__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

// The four numbers of a box code, `stride` elements apart.
struct BoxCode {
  float at[4];
};
template <class T>
__device__ __forceinline__ BoxCode load_code(const T* code, std::size_t stride = 1) {
  return {{as_float(code[0]), as_float(code[stride]), as_float(code[2 * stride]),
           as_float(code[3 * stride])}};
}

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
template <class T>
__device__ __forceinline__ BestClass warp_best(const T* values, std::int32_t count,
                                               std::int32_t skip) {
  BestClass best{-INFINITY, INT32_MAX};
  for (std::int32_t id = static_cast<std::int32_t>(threadIdx.x % 32); id < count; id += 32) {
    if (id != skip) take_better(best, as_float(values[id]), id);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    const float score = __shfl_xor_sync(kAllLanes, best.score, distance);
    const std::int32_t class_id = __shfl_xor_sync(kAllLanes, best.class_id, distance);
    take_better(best, score, class_id);
  }
  return best;
}

// One warp, one row [box code, objectness?, class scores, ...] of an output [batch, anchors,
// columns]; `box_of(code, anchor)` decodes four floats. The grid is kRowsPerBlock anchors by image.
template <class T, class Head, class BoxOf>
__device__ __forceinline__ void scan_row(const T* __restrict__ output, const Head& head,
                                         bool has_objectness, const DecodeOptions& options,
                                         const CandidateBuffers& out, const BoxOf& box_of) {
  const std::int32_t anchor = blockIdx.x * kRowsPerBlock + threadIdx.x / 32;
  const std::int32_t image = blockIdx.y;
  if (anchor >= head.anchors) return;
  const T* row = output + (static_cast<std::size_t>(image) * head.anchors + anchor) * head.columns;
  const std::int32_t num_classes = head.num_classes;
  const float threshold = options.score_threshold;
  const float objectness = has_objectness ? as_float(row[4]) : 1.0f;
  if (has_objectness && !(objectness > threshold)) return;
  const T* classes = row + (has_objectness ? 5 : 4);
  const std::int32_t lane = threadIdx.x % 32;
  if (options.multi_label) {
    for (std::int32_t id = lane; id < num_classes; id += 32) {
      const float score =
          has_objectness ? objectness * as_float(classes[id]) : as_float(classes[id]);
      if (score > threshold) {
        append_candidate(out, image, box_of(load_code(row).at, anchor), score, id,
                         anchor * num_classes + id);
      }
    }
    return;
  }
  const BestClass best = warp_best(classes, num_classes, -1);
  const float score = has_objectness ? objectness * best.score : best.score;
  if (lane == 0 && score > threshold && best.score > -INFINITY) {
    append_candidate(out, image, box_of(load_code(row).at, anchor), score, best.class_id,
                     anchor * num_classes + best.class_id);
  }
}

}  // namespace visionrt
