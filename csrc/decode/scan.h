// Threshold scans of the CPU back ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "compiler.h"
#include "decode/decode.h"

namespace visionrt {

// The largest of floor and values[0..count); NaN values are passed over.
float max_above(const float* values, std::size_t count, float floor);

// The position of the first value that equals `wanted`, which must be there.
inline std::int32_t first_equal(const float* values, float wanted) {
  std::int32_t i = 0;
  while (values[i] != wanted) ++i;
  return i;
}

// Rows of [box code, objectness?, class scores, extra columns]. `box_of(row, anchor)` decodes.
struct RowLayout {
  std::int32_t anchors;
  std::int32_t columns;
  std::int32_t num_classes;
  bool has_objectness;
};

template <class BoxOf>
Candidates scan_rows(const float* output, const RowLayout& layout, const DecodeOptions& options,
                     const BoxOf& box_of) {
  check_decode_options(options);
  Candidates found;
  const std::ptrdiff_t class_offset = layout.has_objectness ? 5 : 4;
  const float threshold = options.score_threshold;
  for (std::int32_t anchor = 0; anchor < layout.anchors; ++anchor) {
    const float* row = output + static_cast<std::ptrdiff_t>(anchor) * layout.columns;
    const float objectness = layout.has_objectness ? row[4] : 1.0f;
    if (layout.has_objectness && !(objectness > threshold)) continue;
    const float* classes = row + class_offset;
    if (options.multi_label) {
      for (std::int32_t id = 0; id < layout.num_classes; ++id) {
        const float score = layout.has_objectness ? objectness * classes[id] : classes[id];
        if (score > threshold) found.append(box_of(row, anchor), score, id, anchor);
      }
      continue;
    }
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    const float best = max_above(classes, static_cast<std::size_t>(layout.num_classes), kLowest);
    const float score = layout.has_objectness ? objectness * best : best;
    if (score > threshold && best > kLowest) {
      found.append(box_of(row, anchor), score, first_equal(classes, best), anchor);
    }
  }
  found.keep_best(options.max_candidates);
  return found;
}

}  // namespace visionrt
