// What nms_cuda.cpp hands to the kernels of nms_sort.cu and nms.cu.
#pragma once

#include "nms/nms.h"

namespace visionrt {

constexpr std::int32_t kSortTile = 2048;
constexpr std::int32_t kSortThreads = kSortTile / 2;
constexpr std::int32_t kPlaceThreads = 256;
constexpr std::int32_t kGreedyThreads = 512;

// Score descending, then source index ascending, as one integer that ascends.
using NmsKey = unsigned long long;

// Workspace: each tile of kSortTile candidates by itself in order, [batch, capacity].
struct SortedTiles {
  NmsKey* keys;
  std::int32_t* positions;
};

// Workspace: the best `limit` candidates of each image in visiting order, [batch, limit].
struct SortedCandidates {
  Box* boxes;
  std::int32_t* class_ids;
  std::int32_t* positions;
  std::int32_t* counts;  // [batch]
  std::int32_t limit;
};

// How one launch's images map the boxes of their rows.
constexpr std::int32_t kMaxMappedImages = 32;
struct RowMaps {
  bool enabled = false;
  ImageMap images[kMaxMappedImages] = {};
};

// Workspace: the boxes kept so far, [batch, max_det].
struct KeptList {
  Box* boxes;
  std::int32_t* class_ids;
};

}  // namespace visionrt
