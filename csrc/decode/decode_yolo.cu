// CUDA back end of the YOLO head: threshold, decode and compaction in one launch.
//
// decode_yolo_columns ([4 + C, anchors]): a lane per anchor, so neighbours read neighbours; the
//   warps of a block, four, each take a quarter of the classes of the same 32 anchors. A thread per
//   anchor would keep too few loads on their way to fill the memory bus.
//   Mapping: grid (anchors / 32, batch), 128 threads.
// decode_yolo_rows ([anchors, 4 + C] or [anchors, 5 + C]): one warp per anchor, lanes over classes;
//   with objectness most warps read one value and leave.
//   Mapping: grid (anchors / 4, batch), 128 threads.
// Numerics: float32 as in decode/box_codes.h, contraction off: the CPU back end's bits. The order
// of the candidates is arbitrary; source_index restores it.
//
// budget: decode_yolo_columns registers<=64 spills=0 shared<=1024 launches=1 wide="store"
//   bytes="4*anchors*classes + 44*candidates"
// budget: decode_yolo_rows registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="4*anchors*(classes + 1) + 44*candidates"
// budget: decode_yolo_columns_half registers<=64 spills=0 shared<=1024 launches=1 wide="store"
//   bytes="2*anchors*classes + 36*candidates"
// budget: decode_yolo_rows_half registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="2*anchors*(classes + 1) + 36*candidates"
#include "decode/emit.cuh"

namespace visionrt {
namespace {

template <class T>
__device__ __forceinline__ void scan_columns(const T* __restrict__ output, const YoloHead& head,
                                             const DecodeOptions& options,
                                             const CandidateBuffers& out) {
  constexpr std::int32_t kParts = kDecodeThreads / kColumnsPerBlock;
  __shared__ BestClass bests[kParts][kColumnsPerBlock];
  const std::int32_t lane = threadIdx.x % kColumnsPerBlock;
  const std::int32_t part = threadIdx.x / kColumnsPerBlock;
  const std::int32_t anchor = blockIdx.x * kColumnsPerBlock + lane;
  const std::int32_t image = blockIdx.y;
  const bool exists = anchor < head.anchors;
  const std::size_t stride = head.anchors;
  const T* column = output + static_cast<std::size_t>(image) * head.columns * stride + anchor;
  const T* classes = column + 4 * stride;
  const std::int32_t per_part = (head.num_classes + kParts - 1) / kParts;
  const std::int32_t first = part * per_part;
  const std::int32_t end = exists ? min(first + per_part, head.num_classes) : first;
  const auto box = [&] {
    const BoxCode code = load_code(column, stride);
    return box_from_center(code.at[0], code.at[1], code.at[2], code.at[3]);
  };

  BestClass best{options.score_threshold, -1};
#pragma unroll 8
  for (std::int32_t id = first; id < end; ++id) {
    const float score = as_float(classes[id * stride]);
    if (score > best.score) best = {score, id};
  }
  if (options.multi_label) {
    if (best.class_id < 0) return;
    const Box own = box();
    for (std::int32_t id = first; id < end; ++id) {
      const float score = as_float(classes[id * stride]);
      if (score > options.score_threshold) {
        append_candidate(out, image, own, score, id, anchor * head.num_classes + id);
      }
    }
    return;
  }
  bests[part][lane] = best;
  __syncthreads();
  if (part != 0) return;
  // Parts ascend by class, so a tie goes to the lower one.
  for (std::int32_t other = 1; other < kParts; ++other) {
    if (bests[other][lane].score > best.score) best = bests[other][lane];
  }
  if (best.class_id < 0) return;
  append_candidate(out, image, box(), best.score, best.class_id,
                   anchor * head.num_classes + best.class_id);
}

template <class T>
__device__ __forceinline__ void scan_yolo_row(const T* __restrict__ output, const YoloHead& head,
                                              const DecodeOptions& options,
                                              const CandidateBuffers& out) {
  scan_row(output, head, head.form == YoloForm::kObjectness, options, out,
           [](const float* code, std::int32_t) {
             return box_from_center(code[0], code[1], code[2], code[3]);
           });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_columns(const float* __restrict__ output, YoloHead head, DecodeOptions options,
                        CandidateBuffers out) {
  scan_columns(output, head, options, out);
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_columns_half(const __half* __restrict__ output, YoloHead head,
                             DecodeOptions options, CandidateBuffers out) {
  scan_columns(output, head, options, out);
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_rows(const float* __restrict__ output, YoloHead head, DecodeOptions options,
                     CandidateBuffers out) {
  scan_yolo_row(output, head, options, out);
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_rows_half(const __half* __restrict__ output, YoloHead head, DecodeOptions options,
                          CandidateBuffers out) {
  scan_yolo_row(output, head, options, out);
}

}  // namespace visionrt
