// The shape of the decode kernels, for them and for their launches.
#pragma once

#include "decode/decode.h"

namespace visionrt {

constexpr std::int32_t kDecodeThreads = 128;
// Where a warp takes a row.
constexpr std::int32_t kRowsPerBlock = kDecodeThreads / 32;
// Where a lane takes an anchor, and the warps of a block share its classes.
constexpr std::int32_t kColumnsPerBlock = 32;

}  // namespace visionrt
