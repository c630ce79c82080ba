// Contract: raw detection heads to candidates for NMS. Threshold first; only what passed is
// decoded.
//
// A candidate is a box (xyxy float32, pixels of the model's input, not clipped), a score, a class
// id and its anchor. It passes when score > score_threshold; a NaN score never passes.
//
// - Best class (default): one candidate per anchor at most, of its highest class; ties go to the
//   lower class, NaN classes are passed over.
// - Multi label: every class that passes is a candidate.
// - Order on the CPU: anchor ascending, then class ascending. CUDA appends in any order, and writes
//   source_index = anchor * num_classes + class, by which NMS breaks ties: the survivors are equal.
// - More than max_candidates: the highest scores stay, ties to the lower source index. On CUDA the
//   buffers hold whatever can pass (decode_capacity) and NMS applies max_candidates.
// - A box may be NaN or infinite when its code is; NMS leaves NaN boxes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/launch.h"
#include "decode/box_codes.h"

namespace visionrt {

struct DecodeOptions {
  float score_threshold = 0.25f;
  bool multi_label = false;
  std::int32_t max_candidates = 30000;  // CPU only
};

// Columns of a YOLO output. Columns past the classes (mask coefficients, keypoints) are skipped.
enum class YoloForm : std::int32_t {
  kChannelsFirst,  // v8 to v12: [4 + C + extra, anchors], cx cy w h then class scores
  kRows,           // the same transposed: [anchors, 4 + C + extra]
  kObjectness,     // v5, v7: [anchors, 5 + C + extra], cx cy w h objectness, class scores
};

// Scores are probabilities already. With objectness, score = objectness * class score, the best
// class is that of the best class score, and an anchor passes only if its objectness does.
struct YoloHead {
  YoloForm form = YoloForm::kChannelsFirst;
  std::int32_t anchors = 0;
  std::int32_t columns = 0;
  std::int32_t num_classes = 0;
};

// YOLOX: [anchors, 5 + C + extra] like kObjectness, boxes coded per cell of the grids, strides in
// order, rows of cells top to bottom. Passed to the kernel by value.
constexpr std::int32_t kMaxLevels = 8;
struct YoloxHead {
  std::int32_t anchors = 0;
  std::int32_t columns = 0;
  std::int32_t num_classes = 0;
  std::int32_t levels = 0;
  std::int32_t strides[kMaxLevels] = {};
  std::int32_t grid_widths[kMaxLevels] = {};
  std::int32_t first_anchors[kMaxLevels + 1] = {};  // of each level, and the total
};

// Fills the grid part of a head. Throws std::invalid_argument for no strides, more than kMaxLevels,
// or an anchor count that the grids do not give.
YoloxHead yolox_head(std::int32_t anchors, std::int32_t columns, std::int32_t num_classes,
                     std::int32_t input_height, std::int32_t input_width,
                     const std::vector<std::int32_t>& strides);

VISIONRT_HD Box yolox_box(const YoloxHead& head, const float* row, std::int32_t anchor) {
  std::int32_t level = 0;
  while (level + 1 < head.levels && anchor >= head.first_anchors[level + 1]) ++level;
  const std::int32_t cell = anchor - head.first_anchors[level];
  const std::int32_t width = head.grid_widths[level];
  return box_from_cell(row, cell % width, cell / width, static_cast<float>(head.strides[level]));
}

enum class Activation : std::int32_t { kNone, kSigmoid, kSoftmax };

// SSD: box codes [anchors, 4] (ty, tx, th, tw, or tx, ty, tw, th), scores [anchors, num_classes],
// anchors [anchors, 4] (cy, cx, h, w) normalised. The background column never becomes a candidate,
// but takes part in a softmax; class ids are column numbers. The best class is that of the best raw
// score, before the activation. Passed to the kernel by value.
struct SsdHead {
  std::int32_t anchors = 0;
  std::int32_t num_classes = 0;
  std::int32_t background = 0;  // -1: none
  Activation activation = Activation::kNone;
  bool x_first = false;                        // of the codes
  SsdScales scales{10.0f, 10.0f, 5.0f, 5.0f};  // the codes are divided by these
  float input_height = 0.0f;
  float input_width = 0.0f;
};

// The largest raw score of an anchor and the sum of e^(score - largest) over all its classes. The
// sum runs in 32 lanes (class modulo 32), which are then added in halves.
struct Softmax {
  float largest = 0.0f;
  float sum = 1.0f;
};

VISIONRT_HD float activated_score(float raw, Activation activation, const Softmax& softmax) {
  if (activation == Activation::kSigmoid) return sigmoid_float32(raw);
  if (activation == Activation::kSoftmax) {
    return exp_float32(raw - softmax.largest) / softmax.sum;
  }
  return raw;
}

struct Candidates {
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<std::int32_t> class_ids;
  std::vector<std::int32_t> anchors;

  void append(const Box& box, float score, std::int32_t class_id, std::int32_t anchor);
  // Keeps the max_candidates highest scores, in the order they stand in.
  void keep_best(std::int32_t max_candidates);
};

// One image each, host pointers; block. Throw std::invalid_argument for a threshold that is NaN.
Candidates decode_yolo_cpu(const float* output, const YoloHead& head, const DecodeOptions& options);
Candidates decode_yolox_cpu(const float* output, const YoloxHead& head,
                            const DecodeOptions& options);
Candidates decode_ssd_cpu(const float* box_codes, const float* scores, const float* anchors,
                          const SsdHead& head, const DecodeOptions& options);

void check_decode_options(const DecodeOptions& options);

// Where the CUDA back end writes, in device memory: NmsInputs' layout, with counts.
struct CandidateBuffers {
  Box* boxes = nullptr;                  // [batch, capacity], 16-byte aligned
  float* scores = nullptr;               // [batch, capacity]
  std::int32_t* class_ids = nullptr;     // [batch, capacity]
  std::int32_t* source_index = nullptr;  // [batch, capacity]
  std::int32_t* counts = nullptr;        // [batch], set to 0 first
  std::int32_t batch = 0;
  std::int32_t capacity = 0;
};

// How many candidates an image can give: the least capacity the CUDA back end takes.
std::int64_t decode_capacity(std::int32_t anchors, std::int32_t num_classes, bool multi_label);

// The element type of a head's outputs; float16 is widened, which loses nothing.
enum class OutputType { kFloat32, kFloat16 };

// Queue a fill of the counts and one launch; do not block or allocate. Throw std::invalid_argument
// when the capacity is too small, DriverError when the driver refuses.
void decode_yolo_cuda(const void* output, OutputType type, const YoloHead& head,
                      const DecodeOptions& options, const CandidateBuffers& out,
                      cuda::StreamHandle stream);
void decode_yolox_cuda(const void* output, OutputType type, const YoloxHead& head,
                       const DecodeOptions& options, const CandidateBuffers& out,
                       cuda::StreamHandle stream);
void decode_ssd_cuda(const void* box_codes, const void* scores, OutputType type,
                     const float* anchors, const SsdHead& head, const DecodeOptions& options,
                     const CandidateBuffers& out, cuda::StreamHandle stream);

}  // namespace visionrt
