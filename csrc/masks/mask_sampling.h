// The arithmetic of one mask pixel, for both back ends: see masks.h for the rules.
#pragma once

#include <cmath>

#include "compiler.h"
#include "masks/masks.h"

namespace visionrt {

// Pixels of an axis whose centre lies in [low, high): first ... end - 1. Empty when high is not
// above low, or either is NaN.
struct MaskSpan {
  std::int32_t first, end;
  VISIONRT_HD bool empty() const { return first >= end; }
};

// The first of `side` pixels whose centre is not below `edge`.
VISIONRT_HD std::int32_t first_centre(float edge, std::int32_t side) {
  const double first = ceil(static_cast<double>(edge) - 0.5);
  if (!(first > 0.0)) return 0;
  return first < static_cast<double>(side) ? static_cast<std::int32_t>(first) : side;
}

VISIONRT_HD MaskSpan mask_span(float low, float high, std::int32_t side) {
  if (!(low < high)) return {0, 0};
  return {first_centre(low, side), first_centre(high, side)};
}

// Two neighbouring prototype pixels, and the weight of the second.
struct MaskTap {
  std::int32_t first, second;
  float weight;
};

VISIONRT_HD MaskTap mask_tap(std::int32_t pixel, const MaskAxis& axis, std::int32_t side) {
  const double position = (pixel + 0.5) * axis.scale + axis.shift - 0.5;
  if (!(position > 0.0)) return {0, 0, 0.0f};
  if (position >= static_cast<double>(side - 1)) return {side - 1, side - 1, 0.0f};
  const double below = floor(position);
  const auto first = static_cast<std::int32_t>(below);
  return {first, first + 1, static_cast<float>(position - below)};
}

VISIONRT_HD float mask_blend(float a, float b, float weight) { return a + (b - a) * weight; }

}  // namespace visionrt
