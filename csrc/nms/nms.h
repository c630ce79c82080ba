// Contract: exact greedy non-maximum suppression.
//
// Candidates are visited by score descending, ties by source index ascending. Each one is kept
// unless a box kept before it, of the same class, has an intersection over union with it greater
// than the threshold (strictly; the float32 formula is `suppresses` in nms/box.h). Both back ends
// give the same indices, bit for bit.
//
// - A NaN score or a NaN coordinate: the candidate is left out, as if it had not been given.
// - A negative or zero size is area 0: the box survives, and suppresses nothing.
// - Infinite scores and coordinates follow IEEE arithmetic; -0 and +0 are the same score.
// - Classes are compared as integers; coordinates are never offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "cuda/launch.h"
#include "nms/result_rows.h"

namespace visionrt {

// Views of candidates. Host pointers for the CPU back end, device pointers for CUDA.
struct NmsInputs {
  const Box* boxes = nullptr;                  // [batch, capacity], 16-byte aligned for CUDA
  const float* scores = nullptr;               // [batch, capacity]
  const std::int32_t* class_ids = nullptr;     // [batch, capacity]; null: one class
  const std::int32_t* source_index = nullptr;  // [batch, capacity], >= 0 and unique in an image;
                                               // null: the position in the array
  const std::int32_t* counts = nullptr;        // [batch], clamped to 0..capacity; null: capacity
  std::int32_t batch = 0;
  std::int32_t capacity = 0;
};

struct NmsOptions {
  float iou_threshold = 0.45f;  // 0..1; 1 suppresses nothing
  std::int32_t max_det = 300;   // the first max_det survivors are kept; 1 or more
  // Only this many of the best candidates are visited; 1 or more.
  std::int32_t max_candidates = std::numeric_limits<std::int32_t>::max();
  bool class_aware = true;  // false: boxes of different classes suppress each other too
};

// Throws std::invalid_argument, naming the value, when an option is out of its range.
void check_nms_options(const NmsOptions& options);

// kept: int32 [batch, max_det], positions in the image's candidates, best first, then -1.
// kept_counts: int32 [batch]. Blocks; allocates about 40 bytes per candidate while it runs.
void nms_cpu(const NmsInputs& inputs, const NmsOptions& options, std::int32_t* kept,
             std::int32_t* kept_counts);

// Which candidates the CUDA back end takes; the others are left out as if they had not been given.
// Passed to the kernel by value.
constexpr std::int32_t kMaxFilterClasses = 4096;
struct NmsFilter {
  bool finite_only = false;  // no infinite coordinate
  bool classes_only = false;
  std::uint32_t classes[kMaxFilterClasses / 32] = {};  // a bit a class that is wanted
};

// More columns of a head's output that come with the rows: that of column c of a candidate with
// source index s of image i is values[i * image_stride + s / classes * anchor_stride +
// c * column_stride]. Strides are in elements.
struct ExtraColumns {
  const float* values = nullptr;
  std::int64_t image_stride = 0;
  std::int64_t anchor_stride = 0;
  std::int64_t column_stride = 0;
  std::int32_t classes = 1;  // 1 or more
  std::int32_t columns = 0;  // 0: none
  float* out = nullptr;      // [batch, max_det, columns]; rows after the last are not written
};

// Outputs of the CUDA back end, all in device memory.
struct NmsOutputs {
  std::int32_t* kept = nullptr;         // [batch, max_det], then -1
  std::int32_t* kept_counts = nullptr;  // [batch]
  Detection* detections = nullptr;      // [batch, max_det], zeros after the last; null: not wanted
  ExtraColumns extra;                   // needs detections
};

// Bytes of device workspace, for a 256-byte aligned pointer (what cuMemAlloc gives): 12 for each
// place of the capacity, 24 for each of the candidates visited, 20 for each box kept.
std::size_t nms_cuda_workspace_bytes(std::int32_t batch, std::int32_t capacity,
                                     const NmsOptions& options);

// Queues three launches on the stream; does not block, allocate, or read anything back, so it can
// be captured in a graph. The counts are read on the device. `maps`, in host memory, one for each
// image or null, map the boxes of `detections`; with them, a launch more for every further 32
// images.
void nms_cuda(const NmsInputs& inputs, const NmsFilter& filter, const NmsOptions& options,
              const ImageMap* maps, void* workspace, std::size_t workspace_bytes,
              const NmsOutputs& outputs, cuda::StreamHandle stream);

}  // namespace visionrt
