#include "nms/order.h"

#include <algorithm>
#include <array>

namespace visionrt {

void stable_sort_by_key(std::vector<Entry>& entries, std::vector<Entry>& scratch) {
  std::array<std::array<std::uint32_t, 256>, 4> histograms{};
  for (const Entry& entry : entries) {
    for (int byte = 0; byte < 4; ++byte) ++histograms[byte][(entry.key >> (8 * byte)) & 0xff];
  }
  scratch.resize(entries.size());
  for (int byte = 0; byte < 4; ++byte) {
    auto& histogram = histograms[byte];
    if (std::find(histogram.begin(), histogram.end(), entries.size()) != histogram.end()) continue;
    std::uint32_t start = 0;
    for (std::uint32_t& count : histogram) {
      const std::uint32_t size = count;
      count = start;
      start += size;
    }
    for (const Entry& entry : entries) {
      scratch[histogram[(entry.key >> (8 * byte)) & 0xff]++] = entry;
    }
    entries.swap(scratch);
  }
}

std::vector<Entry> visiting_order(const Box* boxes, const float* scores,
                                  const std::int32_t* source_index, std::int32_t count,
                                  std::vector<Entry>& scratch) {
  std::vector<Entry> order;
  order.reserve(static_cast<std::size_t>(count));
  for (std::int32_t i = 0; i < count; ++i) {
    if (!is_eligible(boxes[i], scores[i])) continue;
    const auto tie = source_index == nullptr ? 0u : static_cast<std::uint32_t>(source_index[i]);
    order.push_back({tie, static_cast<std::uint32_t>(i)});
  }
  if (source_index != nullptr) stable_sort_by_key(order, scratch);
  for (Entry& entry : order) entry.key = descending_key(scores[entry.value]);
  stable_sort_by_key(order, scratch);
  return order;
}

}  // namespace visionrt
