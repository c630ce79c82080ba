// CUDA back end of nms_rotated.h: the greedy walk; nms_sort.cu puts the candidates in order.
//
// nms_rotated_greedy: one block per image, as nms/greedy.cuh says. A candidate is turned when its
//   chunk is loaded, so its sine and cosine are made once and kept with the box.
//   Mapping: grid batch, 512 threads.
// Bytes: the boxes kept so far are read again for each chunk, out of L1 and L2.
// Numerics: float32 as in nms/rotated.h, contraction off: the CPU back end's indices, bit for bit.
//
// budget: nms_rotated_greedy registers<=64 spills=0 shared<=7168 launches=1 wide="load,store"
//   bytes="28*candidates + 120*kept + 4"
#include "nms/greedy.cuh"
#include "nms/nms_rotated.h"

namespace visionrt {
namespace {

struct RotatedWalk {
  using Shape = RotatedBox;
  SortedCandidates sorted;
  const std::int32_t* sources;  // of this image, or null
  AngleView angles;
  RotatedBox* kept;

  __device__ __forceinline__ RotatedBox load(std::size_t place) const {
    const std::int32_t position = sorted.positions[place];
    const std::int32_t source = sources == nullptr ? position : sources[position];
    const float angle = angles.at(static_cast<std::int32_t>(blockIdx.x), source);
    return rotated_box(load_box(sorted.boxes, place), angle, sorted.class_ids[place]);
  }
  __device__ __forceinline__ void finish(Detection& row, std::size_t place,
                                         std::int32_t image) const {
    row.box = load_box(sorted.boxes, place);
    row.extra = angles.at(image, row.source);
  }
  static __device__ __forceinline__ RotatedBox fetch(const RotatedBox* from, std::size_t i) {
    const float4 v = reinterpret_cast<const float4*>(from)[2 * i];
    const float4 u = reinterpret_cast<const float4*>(from)[2 * i + 1];
    return {v.x, v.y, v.z, v.w, u.x, u.y, __float_as_int(u.z), __float_as_int(u.w)};
  }
  static __device__ __forceinline__ void store(RotatedBox* to, std::size_t i,
                                               const RotatedBox& box) {
    reinterpret_cast<float4*>(to)[2 * i] = make_float4(box.cx, box.cy, box.half_w, box.half_h);
    reinterpret_cast<float4*>(to)[2 * i + 1] =
        make_float4(box.cosine, box.sine, __int_as_float(box.class_id), __int_as_float(box.usable));
  }
  static __device__ __forceinline__ bool is_usable(const RotatedBox& box) {
    return box.usable != 0;
  }
  static __device__ __forceinline__ bool suppresses(const RotatedBox& first,
                                                    const RotatedBox& second, float threshold) {
    return visionrt::suppresses(first, second, threshold);
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kGreedyThreads)
    nms_rotated_greedy(NmsInputs inputs, AngleView angles, NmsOptions options,
                       SortedCandidates sorted, KeptList kept, RotatedBox* kept_boxes,
                       NmsOutputs outputs) {
  const std::size_t start = static_cast<std::size_t>(blockIdx.x) * inputs.capacity;
  const std::int32_t* sources =
      inputs.source_index == nullptr ? nullptr : inputs.source_index + start;
  greedy_walk(RotatedWalk{sorted, sources, angles, kept_boxes}, inputs, options, sorted, kept,
              outputs);
}

}  // namespace visionrt
