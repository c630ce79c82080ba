// CUDA back end of the YOLOX head: threshold, decode and compaction in one launch.
//
// Mapping: one warp per anchor, lanes over classes; most warps read one objectness and leave. Grid
// (anchors / 4, batch), 128 threads.
// Numerics: float32 as in decode/box_codes.h, exp included, contraction off: the CPU back end's
// bits.
//
// Bytes: the classes of an anchor are read where its objectness passes, which every candidate's
// does.
//
// budget: decode_yolox registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="4*anchors + 4*candidates*classes + 44*candidates"
// budget: decode_yolox_half registers<=64 spills=0 shared<=0 launches=1 wide="store"
//   bytes="2*anchors + 2*candidates*classes + 36*candidates"
#include "decode/emit.cuh"

namespace visionrt {
namespace {

template <class T>
__device__ __forceinline__ void scan_yolox(const T* __restrict__ output, const YoloxHead& head,
                                           const DecodeOptions& options,
                                           const CandidateBuffers& out) {
  scan_row(output, head, true, options, out, [&head](const float* code, std::int32_t anchor) {
    return yolox_box(head, code, anchor);
  });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolox(const float* __restrict__ output, YoloxHead head, DecodeOptions options,
                 CandidateBuffers out) {
  scan_yolox(output, head, options, out);
}

extern "C" __global__ void __launch_bounds__(kDecodeThreads)
    decode_yolox_half(const __half* __restrict__ output, YoloxHead head, DecodeOptions options,
                      CandidateBuffers out) {
  scan_yolox(output, head, options, out);
}

}  // namespace visionrt
