// CPU back end of nms_rotated.h: each candidate against the kept boxes of its class.
#include <algorithm>
#include <unordered_map>
#include <vector>

#include "nms/nms_rotated.h"
#include "nms/order.h"

namespace visionrt {
namespace {

std::int32_t nms_one_image(const NmsInputs& inputs, std::int32_t image, std::int32_t count,
                           const AngleView& angles, const NmsOptions& options, std::int32_t* kept) {
  const std::size_t start =
      static_cast<std::size_t>(image) * static_cast<std::size_t>(inputs.capacity);
  const Box* boxes = inputs.boxes + start;
  const std::int32_t* ids = inputs.class_ids == nullptr ? nullptr : inputs.class_ids + start;
  const std::int32_t* sources =
      inputs.source_index == nullptr ? nullptr : inputs.source_index + start;
  std::vector<Entry> scratch;
  std::vector<Entry> order = visiting_order(boxes, inputs.scores + start, sources, count, scratch);
  order.resize(std::min(order.size(), static_cast<std::size_t>(options.max_candidates)));

  std::unordered_map<std::int32_t, std::vector<RotatedBox>> kept_by_class;
  std::int32_t kept_count = 0;
  for (const Entry& entry : order) {
    if (kept_count == options.max_det) break;
    const auto position = static_cast<std::int32_t>(entry.value);
    const std::int32_t source = sources == nullptr ? position : sources[position];
    const std::int32_t id = ids == nullptr || !options.class_aware ? 0 : ids[position];
    const RotatedBox box = rotated_box(boxes[position], angles.at(image, source), id);
    if (box.usable == 0) continue;
    std::vector<RotatedBox>& others = kept_by_class[id];
    const bool hit = std::any_of(others.begin(), others.end(), [&](const RotatedBox& other) {
      return suppresses(other, box, options.iou_threshold);
    });
    if (hit) continue;
    others.push_back(box);
    kept[kept_count++] = position;
  }
  std::fill(kept + kept_count, kept + options.max_det, -1);
  return kept_count;
}

}  // namespace

void nms_rotated_cpu(const NmsInputs& inputs, const AngleView& angles, const NmsOptions& options,
                     std::int32_t* kept, std::int32_t* kept_counts) {
  check_nms_options(options);
  for (std::int32_t image = 0; image < inputs.batch; ++image) {
    const std::int32_t count = inputs.counts == nullptr
                                   ? inputs.capacity
                                   : std::clamp(inputs.counts[image], 0, inputs.capacity);
    kept_counts[image] = nms_one_image(inputs, image, count, angles, options,
                                       kept + static_cast<std::size_t>(image) * options.max_det);
  }
}

}  // namespace visionrt
