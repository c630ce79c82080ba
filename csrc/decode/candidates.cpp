#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "decode/decode.h"

namespace visionrt {
namespace {

template <class T>
void gather(std::vector<T>& values, const std::vector<std::uint32_t>& ascending) {
  for (std::size_t i = 0; i < ascending.size(); ++i) values[i] = values[ascending[i]];
  values.resize(ascending.size());
}

}  // namespace

void Candidates::append(const Box& box, float score, std::int32_t class_id, std::int32_t anchor) {
  boxes.push_back(box);
  scores.push_back(score);
  class_ids.push_back(class_id);
  anchors.push_back(anchor);
}

void Candidates::keep_best(std::int32_t max_candidates) {
  const auto limit = static_cast<std::size_t>(max_candidates);
  if (scores.size() <= limit) return;
  std::vector<std::uint32_t> best(scores.size());
  std::iota(best.begin(), best.end(), 0u);
  const auto middle = best.begin() + static_cast<std::ptrdiff_t>(limit);
  std::nth_element(best.begin(), middle, best.end(), [this](std::uint32_t a, std::uint32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  best.resize(limit);
  std::sort(best.begin(), best.end());
  gather(boxes, best);
  gather(scores, best);
  gather(class_ids, best);
  gather(anchors, best);
}

void check_decode_options(const DecodeOptions& options) {
  if (std::isnan(options.score_threshold)) {
    throw std::invalid_argument("score_threshold must be a number, got NaN");
  }
  if (options.max_candidates < 1) {
    throw std::invalid_argument("max_candidates must be 1 or more, got " +
                                std::to_string(options.max_candidates));
  }
}

YoloxHead yolox_head(std::int32_t anchors, std::int32_t columns, std::int32_t num_classes,
                     std::int32_t input_height, std::int32_t input_width,
                     const std::vector<std::int32_t>& strides) {
  if (strides.empty() || strides.size() > static_cast<std::size_t>(kMaxLevels)) {
    throw std::invalid_argument("strides must hold 1 to " + std::to_string(kMaxLevels) +
                                " values, got " + std::to_string(strides.size()));
  }
  if (input_height < 1 || input_width < 1) {
    throw std::invalid_argument("input_hw must be positive, got (" + std::to_string(input_height) +
                                ", " + std::to_string(input_width) + ")");
  }
  YoloxHead head;
  head.anchors = anchors;
  head.columns = columns;
  head.num_classes = num_classes;
  std::int64_t total = 0;
  for (const std::int32_t stride : strides) {
    if (stride < 1) {
      throw std::invalid_argument("a stride must be 1 or more, got " + std::to_string(stride));
    }
    head.strides[head.levels] = stride;
    head.grid_widths[head.levels] = input_width / stride;
    total += static_cast<std::int64_t>(input_height / stride) * (input_width / stride);
    head.first_anchors[++head.levels] =
        static_cast<std::int32_t>(std::min<std::int64_t>(total, INT32_MAX));
  }
  if (total != anchors) {
    throw std::invalid_argument("the strides give " + std::to_string(total) + " anchors for a " +
                                std::to_string(input_height) + "x" + std::to_string(input_width) +
                                " input, but the output has " + std::to_string(anchors));
  }
  return head;
}

std::int64_t decode_capacity(std::int32_t anchors, std::int32_t num_classes, bool multi_label) {
  return static_cast<std::int64_t>(anchors) * (multi_label ? num_classes : 1);
}

}  // namespace visionrt
