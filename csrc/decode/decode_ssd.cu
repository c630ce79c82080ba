// CUDA back end of the SSD head: activation, threshold, decode and compaction in one launch.
//
// Mapping: one warp per anchor, lanes over classes. Grid (anchors / 4, batch), 128 threads.
// Numerics: float32 as in decode/box_codes.h, contraction off. A softmax sums in 32 lanes and then
// halves, which the CPU back end repeats: the same bits.
//
// budget: decode_ssd registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="4*anchors*classes + 60*candidates"
// budget: decode_ssd_half registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="2*anchors*classes + 52*candidates"
#include "decode/emit.cuh"

namespace visionrt {
namespace {

template <class T>
__device__ __forceinline__ float warp_softmax_sum(const T* scores, std::int32_t count,
                                                  float largest) {
  float sum = 0.0f;
  for (std::int32_t id = static_cast<std::int32_t>(threadIdx.x % 32); id < count; id += 32) {
    sum += exp_float32(as_float(scores[id]) - largest);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  return sum;
}

template <class T>
__device__ __forceinline__ void scan_anchor(const T* __restrict__ box_codes,
                                            const T* __restrict__ scores,
                                            const float* __restrict__ anchors, const SsdHead& head,
                                            const DecodeOptions& options,
                                            const CandidateBuffers& out) {
  const std::int32_t anchor = blockIdx.x * kRowsPerBlock + threadIdx.x / 32;
  const std::int32_t image = blockIdx.y;
  const std::int32_t lane = threadIdx.x % 32;
  if (anchor >= head.anchors) return;
  const std::size_t row_index = static_cast<std::size_t>(image) * head.anchors + anchor;
  const T* row = scores + row_index * head.num_classes;
  const float threshold = options.score_threshold;

  const BestClass best = warp_best(row, head.num_classes, head.background);
  if (best.class_id == INT32_MAX) return;
  if (head.activation == Activation::kNone && !(best.score > threshold)) return;
  Softmax softmax;
  if (head.activation == Activation::kSoftmax) {
    softmax.largest =
        head.background < 0 ? best.score : larger_of(as_float(row[head.background]), best.score);
    softmax.sum = warp_softmax_sum(row, head.num_classes, softmax.largest);
  }
  const auto emit = [&](std::int32_t id) {
    const float score = activated_score(as_float(row[id]), head.activation, softmax);
    if (!(score > threshold)) return;
    const Box box =
        box_from_anchor(load_code(box_codes + row_index * 4).at, head.x_first, anchors + anchor * 4,
                        head.scales, head.input_height, head.input_width);
    append_candidate(out, image, box, score, id, anchor * head.num_classes + id);
  };
  if (!options.multi_label) {
    if (lane == 0) emit(best.class_id);
    return;
  }
  for (std::int32_t id = lane; id < head.num_classes; id += 32) {
    if (id != head.background) emit(id);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_ssd(const float* __restrict__ box_codes, const float* __restrict__ scores,
               const float* __restrict__ anchors, SsdHead head, DecodeOptions options,
               CandidateBuffers out) {
  scan_anchor(box_codes, scores, anchors, head, options, out);
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_ssd_half(const __half* __restrict__ box_codes, const __half* __restrict__ scores,
                    const float* __restrict__ anchors, SsdHead head, DecodeOptions options,
                    CandidateBuffers out) {
  scan_anchor(box_codes, scores, anchors, head, options, out);
}

}  // namespace visionrt
