// CUDA back end of the YOLO head: threshold, decode and compaction in one launch.
//
// decode_yolo_columns ([4 + C, anchors]): one thread per anchor, so neighbours read neighbours.
//   Mapping: grid (anchors / 128, batch), 128 threads.
// decode_yolo_rows ([anchors, 4 + C] or [anchors, 5 + C]): one warp per anchor, lanes over classes;
//   with objectness most warps read one value and leave.
//   Mapping: grid (anchors / 4, batch), 128 threads.
// Numerics: float32 as in decode/box_codes.h, contraction off: the CPU back end's bits. The order
// of the candidates is arbitrary; source_index restores it.
//
// budget: decode_yolo_columns registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="4*anchors*classes + 44*candidates"
// budget: decode_yolo_rows registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="4*anchors*(classes + 1) + 44*candidates"
#include "decode/emit.cuh"

namespace visionrt {

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_columns(const float* __restrict__ output, YoloHead head, DecodeOptions options,
                        CandidateBuffers out) {
  const std::int32_t anchor = blockIdx.x * kDecodeThreads + threadIdx.x;
  const std::int32_t image = blockIdx.y;
  if (anchor >= head.anchors) return;
  const std::size_t stride = head.anchors;
  const float* column = output + static_cast<std::size_t>(image) * head.columns * stride + anchor;
  const float* classes = column + 4 * stride;

  BestClass best{options.score_threshold, -1};
#pragma unroll 8
  for (std::int32_t id = 0; id < head.num_classes; ++id) {
    const float score = classes[id * stride];
    if (score > best.score) best = {score, id};
  }
  if (best.class_id < 0) return;
  const Box box =
      box_from_center(column[0], column[stride], column[2 * stride], column[3 * stride]);
  if (!options.multi_label) {
    append_candidate(out, image, box, best.score, best.class_id,
                     anchor * head.num_classes + best.class_id);
    return;
  }
  for (std::int32_t id = 0; id < head.num_classes; ++id) {
    const float score = classes[id * stride];
    if (score > options.score_threshold) {
      append_candidate(out, image, box, score, id, anchor * head.num_classes + id);
    }
  }
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolo_rows(const float* __restrict__ output, YoloHead head, DecodeOptions options,
                     CandidateBuffers out) {
  const std::int32_t anchor = blockIdx.x * kRowsPerBlock + threadIdx.x / 32;
  const std::int32_t image = blockIdx.y;
  if (anchor >= head.anchors) return;
  const float* row =
      output + (static_cast<std::size_t>(image) * head.anchors + anchor) * head.columns;
  scan_row(row, head.form == YoloForm::kObjectness, head.num_classes, options, image, anchor, out,
           [](const float* code) { return box_from_center(code[0], code[1], code[2], code[3]); });
}

}  // namespace visionrt
