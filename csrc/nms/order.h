// The order in which the CPU back ends visit candidates.
#pragma once

#include <cstdint>
#include <vector>

#include "nms/box.h"

namespace visionrt {

struct Entry {
  std::uint32_t key;
  std::uint32_t value;
};

// Least-significant-digit radix sort by key. Bytes that all keys share cost nothing.
void stable_sort_by_key(std::vector<Entry>& entries, std::vector<Entry>& scratch);

// Positions of the eligible candidates, in `value`: score descending, then source index ascending
// (null: the position).
std::vector<Entry> visiting_order(const Box* boxes, const float* scores,
                                  const std::int32_t* source_index, std::int32_t count,
                                  std::vector<Entry>& scratch);

}  // namespace visionrt
