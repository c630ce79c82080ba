// The CPU back end: box by box, sums of the prototype pixels under it, then its pixels.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "masks/mask_sampling.h"

namespace visionrt {
namespace {

constexpr std::int32_t kMaxSide = 1 << 20;

void check_size(const char* name, std::int32_t value, std::int32_t least) {
  if (value >= least && value <= kMaxSide) return;
  throw std::invalid_argument(std::string(name) + " must be " + std::to_string(least) + " to " +
                              std::to_string(kMaxSide) + ", got " + std::to_string(value));
}

void check_axis(const char* name, const MaskAxis& axis) {
  if (axis.scale > 0.0 && std::isfinite(axis.scale) && std::isfinite(axis.shift)) return;
  throw std::invalid_argument("the " + std::string(name) +
                              " mapping must have a finite scale above 0 and a finite shift, got " +
                              std::to_string(axis.scale) + " and " + std::to_string(axis.shift));
}

// sums[x] += coefficient * row[x]
VISIONRT_VECTOR_CLONES void add_scaled(const float* __restrict row, float coefficient,
                                       std::int32_t count, float* __restrict sums) {
  for (std::int32_t x = 0; x < count; ++x) sums[x] += coefficient * row[x];
}

// A rectangle of prototype pixels.
struct Rectangle {
  std::int32_t top, bottom, left, right;  // the last row and column are inside
  std::int32_t width() const { return right - left + 1; }
  std::int32_t height() const { return bottom - top + 1; }
};

void make_sums(const MaskInputs& in, std::size_t detection, const Rectangle& part,
               std::vector<float>& sums) {
  const auto width = static_cast<std::size_t>(part.width());
  sums.assign(width * static_cast<std::size_t>(part.height()), 0.0f);
  const float* coefficients = in.coefficients + detection * static_cast<std::size_t>(in.channels);
  const float* rows = in.prototypes;
  for (std::int32_t channel = 0; channel < in.channels; ++channel) {
    for (std::int32_t y = part.top; y <= part.bottom; ++y) {
      const std::size_t at =
          static_cast<std::size_t>(channel) * static_cast<std::size_t>(in.prototype_h) +
          static_cast<std::size_t>(y);
      add_scaled(rows + at * static_cast<std::size_t>(in.prototype_w) + part.left,
                 coefficients[channel], part.width(),
                 sums.data() + static_cast<std::size_t>(y - part.top) * width);
    }
  }
}

}  // namespace

void check_mask_inputs(const MaskInputs& inputs) {
  check_size("detections", inputs.detections, 0);
  check_size("channels", inputs.channels, 1);
  check_size("the prototypes' height", inputs.prototype_h, 1);
  check_size("the prototypes' width", inputs.prototype_w, 1);
  check_size("the window's height", inputs.height, 0);
  check_size("the window's width", inputs.width, 0);
  check_axis("x", inputs.x);
  check_axis("y", inputs.y);
  if (inputs.threshold != inputs.threshold) {
    throw std::invalid_argument("threshold must be a number, got nan");
  }
}

void instance_masks_cpu(const MaskInputs& in, std::uint8_t* masks) {
  check_mask_inputs(in);
  const auto width = static_cast<std::size_t>(in.width);
  const std::size_t area = static_cast<std::size_t>(in.height) * width;
  const auto detections = static_cast<std::size_t>(in.detections);
  std::fill_n(masks, detections * area, std::uint8_t{0});
  std::size_t count = detections;
  if (in.count != nullptr) {
    count = static_cast<std::size_t>(std::clamp(*in.count, 0, in.detections));
  }
  std::vector<float> sums;
  std::vector<MaskTap> taps_x;
  for (std::size_t i = 0; i < count; ++i) {
    const Box& box = in.boxes[i];
    const MaskSpan columns = mask_span(box.x1, box.x2, in.width);
    const MaskSpan rows = mask_span(box.y1, box.y2, in.height);
    if (columns.empty() || rows.empty()) continue;
    taps_x.clear();
    for (std::int32_t x = columns.first; x < columns.end; ++x) {
      taps_x.push_back(mask_tap(x, in.x, in.prototype_w));
    }
    const Rectangle part{mask_tap(rows.first, in.y, in.prototype_h).first,
                         mask_tap(rows.end - 1, in.y, in.prototype_h).second, taps_x.front().first,
                         taps_x.back().second};
    make_sums(in, i, part, sums);
    for (std::int32_t y = rows.first; y < rows.end; ++y) {
      const MaskTap tap = mask_tap(y, in.y, in.prototype_h);
      const float* top = sums.data() +
                         static_cast<std::ptrdiff_t>(tap.first - part.top) * part.width() -
                         part.left;
      const float* bottom = sums.data() +
                            static_cast<std::ptrdiff_t>(tap.second - part.top) * part.width() -
                            part.left;
      std::uint8_t* out = masks + i * area + static_cast<std::size_t>(y) * width;
      for (std::int32_t x = columns.first; x < columns.end; ++x) {
        const MaskTap& at = taps_x[static_cast<std::size_t>(x - columns.first)];
        const float value =
            mask_blend(mask_blend(top[at.first], top[at.second], at.weight),
                       mask_blend(bottom[at.first], bottom[at.second], at.weight), tap.weight);
        out[x] = value > in.threshold ? 1 : 0;
      }
    }
  }
}

}  // namespace visionrt
