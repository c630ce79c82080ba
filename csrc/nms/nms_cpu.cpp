// CPU back end of nms.h.
//
// Each candidate, in visiting order, is tested against the kept boxes of its own class, which lie
// together in one segment, so the test is a straight SIMD loop that ends at the first hit, and the
// walk ends at max_det.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "compiler.h"
#include "nms/nms.h"
#include "nms/order.h"

namespace visionrt {
namespace {

constexpr std::size_t kLanes = 16;

// The kept boxes, coordinate by coordinate, one segment per class. Unused places hold boxes of
// area 0, which suppress nothing, so loops run over whole groups of kLanes.
class KeptBoxes {
 public:
  explicit KeptBoxes(std::size_t places) : places_(places), values_(5 * places, 0.0f) {}

  void put(std::size_t place, const Box& box, float area) {
    const float fields[] = {box.x1, box.y1, box.x2, box.y2, area};
    for (std::size_t f = 0; f < 5; ++f) values_[f * places_ + place] = fields[f];
  }
  const float* field(std::size_t f) const { return values_.data() + f * places_; }

 private:
  std::size_t places_;
  std::vector<float> values_;
};

VISIONRT_VECTOR_CLONES
bool any_suppresses(const float* x1, const float* y1, const float* x2, const float* y2,
                    const float* areas, std::size_t count, const Box& candidate, float area,
                    float threshold) {
  const Box box = candidate;
  for (std::size_t first = 0; first < count; first += kLanes) {
    std::int32_t hits = 0;
    for (std::size_t i = first; i < first + kLanes; ++i) {
      hits |= suppresses(Box{x1[i], y1[i], x2[i], y2[i]}, areas[i], box, area, threshold);
    }
    if (hits != 0) return true;
  }
  return false;
}

struct Segment {
  std::size_t begin = 0;
  std::size_t kept = 0;
};

// Gives each place in the visiting order its class's segment, sized for what it may keep.
// Returns how many places the segments take together.
std::size_t assign_segments(const std::vector<Entry>& order, const std::int32_t* class_ids,
                            std::size_t max_det, std::vector<std::uint32_t>& segment_of,
                            std::vector<Segment>& segments, std::vector<Entry>& scratch) {
  std::vector<Entry> by_class(order.size());
  for (std::uint32_t rank = 0; rank < order.size(); ++rank) {
    const std::int32_t id = class_ids == nullptr ? 0 : class_ids[order[rank].value];
    by_class[rank] = {static_cast<std::uint32_t>(id), rank};
  }
  if (class_ids != nullptr) stable_sort_by_key(by_class, scratch);
  segment_of.resize(order.size());
  std::size_t places = 0;
  for (std::size_t first = 0, last = 0; first < by_class.size(); first = last) {
    while (last < by_class.size() && by_class[last].key == by_class[first].key) {
      segment_of[by_class[last++].value] = static_cast<std::uint32_t>(segments.size());
    }
    segments.push_back({places, 0});
    places += (std::min(last - first, max_det) + kLanes - 1) / kLanes * kLanes;
  }
  return places;
}

std::int32_t nms_one_image(const Box* boxes, const float* scores, const std::int32_t* class_ids,
                           const std::int32_t* source_index, std::int32_t count,
                           const NmsOptions& options, std::int32_t* kept) {
  std::vector<Entry> scratch;
  std::vector<Entry> order = visiting_order(boxes, scores, source_index, count, scratch);
  order.resize(std::min(order.size(), static_cast<std::size_t>(options.max_candidates)));

  std::vector<std::uint32_t> segment_of;
  std::vector<Segment> segments;
  const std::size_t places =
      assign_segments(order, options.class_aware ? class_ids : nullptr,
                      static_cast<std::size_t>(options.max_det), segment_of, segments, scratch);

  KeptBoxes kept_boxes(places);
  std::int32_t kept_count = 0;
  for (std::size_t rank = 0; rank < order.size() && kept_count < options.max_det; ++rank) {
    const std::uint32_t position = order[rank].value;
    const Box& box = boxes[position];
    const float area = area_of(box);
    Segment& segment = segments[segment_of[rank]];
    const std::size_t b = segment.begin;
    if (any_suppresses(kept_boxes.field(0) + b, kept_boxes.field(1) + b, kept_boxes.field(2) + b,
                       kept_boxes.field(3) + b, kept_boxes.field(4) + b, segment.kept, box, area,
                       options.iou_threshold)) {
      continue;
    }
    kept_boxes.put(segment.begin + segment.kept++, box, area);
    kept[kept_count++] = static_cast<std::int32_t>(position);
  }
  std::fill(kept + kept_count, kept + options.max_det, -1);
  return kept_count;
}

template <class T>
const T* row_or_null(const T* base, std::size_t row, std::size_t width) {
  return base == nullptr ? nullptr : base + row * width;
}

}  // namespace

void check_nms_options(const NmsOptions& options) {
  // Written so that NaN fails too.
  if (!(options.iou_threshold >= 0.0f && options.iou_threshold <= 1.0f)) {
    throw std::invalid_argument("iou_threshold must be between 0 and 1, got " +
                                std::to_string(options.iou_threshold));
  }
  if (options.max_det < 1) {
    throw std::invalid_argument("max_det must be 1 or more, got " +
                                std::to_string(options.max_det));
  }
  if (options.max_candidates < 1) {
    throw std::invalid_argument("max_candidates must be 1 or more, got " +
                                std::to_string(options.max_candidates));
  }
}

void nms_cpu(const NmsInputs& inputs, const NmsOptions& options, std::int32_t* kept,
             std::int32_t* kept_counts) {
  check_nms_options(options);
  const auto capacity = static_cast<std::size_t>(inputs.capacity);
  for (std::size_t image = 0; image < static_cast<std::size_t>(inputs.batch); ++image) {
    const std::int32_t count = inputs.counts == nullptr
                                   ? inputs.capacity
                                   : std::clamp(inputs.counts[image], 0, inputs.capacity);
    kept_counts[image] =
        nms_one_image(inputs.boxes + image * capacity, inputs.scores + image * capacity,
                      row_or_null(inputs.class_ids, image, capacity),
                      row_or_null(inputs.source_index, image, capacity), count, options,
                      kept + image * static_cast<std::size_t>(options.max_det));
  }
}

}  // namespace visionrt
