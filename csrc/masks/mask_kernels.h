// The shape of the mask kernel, for it and for its launch.
#pragma once

#include "masks/masks.h"

namespace visionrt {

constexpr std::int32_t kMaskTileX = 128, kMaskTileY = 32;  // window pixels of a block
constexpr std::int32_t kMaskRun = 16;                      // of a thread, side by side
constexpr std::int32_t kMaskThreadsX = kMaskTileX / kMaskRun, kMaskThreadsY = kMaskTileY;
constexpr std::int32_t kMaskSums = 2048;  // prototype pixels whose sums a block keeps

}  // namespace visionrt
