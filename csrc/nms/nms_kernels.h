// What nms_cuda.cpp hands to the kernels of nms.cu.
#pragma once

#include "nms/nms.h"

namespace visionrt {

constexpr std::int32_t kRankThreads = 256;
constexpr std::int32_t kGreedyThreads = 512;

// Workspace: the best `limit` candidates of each image in visiting order, [batch, limit].
struct SortedCandidates {
  Box* boxes;
  std::int32_t* class_ids;
  std::int32_t* positions;
  std::int32_t* counts;  // [batch]
  std::int32_t limit;
};

// Workspace: the boxes kept so far, [batch, max_det].
struct KeptList {
  Box* boxes;
  std::int32_t* class_ids;
};

}  // namespace visionrt
