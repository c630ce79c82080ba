#include "decode/scan.h"

namespace visionrt {

VISIONRT_VECTOR_CLONES
float max_above(const float* values, std::size_t count, float floor) {
  // Independent lanes: a single running maximum may not be reordered by the compiler.
  constexpr std::size_t kLanes = 16;
  float lanes[kLanes];
  for (float& lane : lanes) lane = floor;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] = larger_of(values[i + l], lanes[l]);
  }
  for (std::size_t l = 0; i < count; ++i, ++l) lanes[l] = larger_of(values[i], lanes[l]);
  float best = floor;
  for (const float lane : lanes) best = larger_of(lane, best);
  return best;
}

}  // namespace visionrt
