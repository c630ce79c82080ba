// CPU back end of the YOLO head: the transposed form is scanned row by row, as it lies in memory.
#include <algorithm>
#include <limits>

#include "decode/decode.h"
#include "decode/scan.h"

namespace visionrt {
namespace {

// Anchors per step. The scores of a step (80 classes: 40 KiB) are still near when the class of an
// anchor that passed is looked for.
constexpr std::size_t kStep = 128;

// The rows of a step are read eight at a time: fewer streams starve the prefetcher, and the running
// maxima are loaded and stored once for all eight.
constexpr std::int32_t kRows = 8;

VISIONRT_VECTOR_CLONES
void column_maxima(const float* scores, std::size_t row_stride, std::int32_t num_classes,
                   std::size_t count, float* __restrict best) {
  std::fill(best, best + count, -std::numeric_limits<float>::infinity());
  std::int32_t id = 0;
  for (; id + kRows <= num_classes; id += kRows) {
    const float* rows = scores + static_cast<std::size_t>(id) * row_stride;
    for (std::size_t i = 0; i < count; ++i) {
      float largest = best[i];
      for (std::size_t r = 0; r < kRows; ++r)
        largest = larger_of(rows[r * row_stride + i], largest);
      best[i] = largest;
    }
  }
  for (; id < num_classes; ++id) {
    const float* row = scores + static_cast<std::size_t>(id) * row_stride;
    for (std::size_t i = 0; i < count; ++i) best[i] = larger_of(row[i], best[i]);
  }
}

Candidates scan_channels_first(const float* output, const YoloHead& head,
                               const DecodeOptions& options) {
  check_decode_options(options);
  Candidates found;
  const auto stride = static_cast<std::size_t>(head.anchors);
  const float threshold = options.score_threshold;
  float best[kStep];
  for (std::size_t first = 0; first < stride; first += kStep) {
    const std::size_t count = std::min(kStep, stride - first);
    column_maxima(output + 4 * stride + first, stride, head.num_classes, count, best);
    for (std::size_t i = 0; i < count; ++i) {
      if (!(best[i] > threshold)) continue;
      const auto anchor = static_cast<std::int32_t>(first + i);
      const float* column = output + anchor;
      const Box box =
          box_from_center(column[0], column[stride], column[2 * stride], column[3 * stride]);
      for (std::int32_t id = 0; id < head.num_classes; ++id) {
        const float score = column[(4 + static_cast<std::size_t>(id)) * stride];
        if (options.multi_label ? score > threshold : score == best[i]) {
          found.append(box, score, id, anchor);
          if (!options.multi_label) break;
        }
      }
    }
  }
  found.keep_best(options.max_candidates);
  return found;
}

}  // namespace

Candidates decode_yolo_cpu(const float* output, const YoloHead& head,
                           const DecodeOptions& options) {
  if (head.form == YoloForm::kChannelsFirst) return scan_channels_first(output, head, options);
  const RowLayout layout{head.anchors, head.columns, head.num_classes,
                         head.form == YoloForm::kObjectness};
  return scan_rows(output, layout, options, [](const float* row, std::int32_t) {
    return box_from_center(row[0], row[1], row[2], row[3]);
  });
}

}  // namespace visionrt
