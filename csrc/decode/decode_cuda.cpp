// Launches of the decode kernels.
#include <stdexcept>
#include <string>

#include "decode/decode_kernels.h"

namespace visionrt {
namespace {

// Checks what every head needs, and clears the counts.
void begin(std::int32_t anchors, std::int32_t num_classes, const DecodeOptions& options,
           const CandidateBuffers& out, cuda::StreamHandle stream) {
  check_decode_options(options);
  const std::int64_t needed = decode_capacity(anchors, num_classes, options.multi_label);
  if (out.capacity < needed) {
    throw std::invalid_argument("the candidate buffers must hold " + std::to_string(needed) +
                                " per image, got " + std::to_string(out.capacity));
  }
  if (out.batch < 0 || out.batch > 65535) {
    throw std::invalid_argument("batch must be 0 to 65535, got " + std::to_string(out.batch));
  }
  if (reinterpret_cast<std::uintptr_t>(out.boxes) % 16 != 0) {
    throw std::invalid_argument("the candidate boxes must be aligned to 16 bytes");
  }
  if (out.batch == 0) return;
  cuda::fill_bytes(reinterpret_cast<std::uintptr_t>(out.counts), 0,
                   static_cast<std::size_t>(out.batch) * sizeof(std::int32_t), stream);
}

std::string named(const char* kernel, OutputType type) {
  return std::string(kernel) + (type == OutputType::kFloat16 ? "_half" : "");
}

cuda::LaunchShape grid_of(std::int32_t anchors, std::int32_t anchors_per_block,
                          std::int32_t batch) {
  const auto blocks = static_cast<unsigned>((anchors - 1) / anchors_per_block + 1);
  return {{blocks, static_cast<unsigned>(batch), 1}, {kDecodeThreads, 1, 1}, 0};
}

}  // namespace

void decode_yolo_cuda(const void* output, OutputType type, const YoloHead& head,
                      const DecodeOptions& options, const CandidateBuffers& out,
                      cuda::StreamHandle stream) {
  begin(head.anchors, head.num_classes, options, out, stream);
  if (head.anchors == 0 || out.batch == 0) return;
  const bool columns = head.form == YoloForm::kChannelsFirst;
  cuda::launch(named(columns ? "decode_yolo_columns" : "decode_yolo_rows", type).c_str(),
               grid_of(head.anchors, columns ? kColumnsPerBlock : kRowsPerBlock, out.batch), stream,
               output, head, options, out);
}

void decode_yolox_cuda(const void* output, OutputType type, const YoloxHead& head,
                       const DecodeOptions& options, const CandidateBuffers& out,
                       cuda::StreamHandle stream) {
  begin(head.anchors, head.num_classes, options, out, stream);
  if (head.anchors == 0 || out.batch == 0) return;
  cuda::launch(named("decode_yolox", type).c_str(), grid_of(head.anchors, kRowsPerBlock, out.batch),
               stream, output, head, options, out);
}

void decode_ssd_cuda(const void* box_codes, const void* scores, OutputType type,
                     const float* anchors, const SsdHead& head, const DecodeOptions& options,
                     const CandidateBuffers& out, cuda::StreamHandle stream) {
  begin(head.anchors, head.num_classes, options, out, stream);
  if (head.anchors == 0 || out.batch == 0) return;
  cuda::launch(named("decode_ssd", type).c_str(), grid_of(head.anchors, kRowsPerBlock, out.batch),
               stream, box_codes, scores, anchors, head, options, out);
}

}  // namespace visionrt
