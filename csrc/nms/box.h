// The box type and the float32 rules that the CPU and CUDA back ends share, operation by operation.
//
// Both compilers run with contraction off (-ffp-contract=off, --fmad=false), so every expression
// here rounds the same way on both sides and the same boxes survive.
#pragma once

#include <cstdint>
#include <cstring>

#include "compiler.h"

namespace visionrt {

// Corners in pixels. x2 < x1 or y2 < y1 is a box of area 0.
struct Box {
  float x1, y1, x2, y2;
};

VISIONRT_HD float smaller_of(float a, float b) { return a < b ? a : b; }
VISIONRT_HD float larger_of(float a, float b) { return a > b ? a : b; }

VISIONRT_HD float area_of(const Box& box) {
  return larger_of(box.x2 - box.x1, 0.0f) * larger_of(box.y2 - box.y1, 0.0f);
}

// True when the intersection over union of two boxes exceeds the threshold:
//   inter > threshold * ((area_a + area_b) - inter)
// Symmetric in its boxes. The product instead of inter / union makes 0 / 0 "no overlap": a box of
// area 0 neither suppresses nor is suppressed. An infinite union compares false.
VISIONRT_HD bool suppresses(const Box& a, float area_a, const Box& b, float area_b,
                            float threshold) {
  const float width = larger_of(smaller_of(a.x2, b.x2) - larger_of(a.x1, b.x1), 0.0f);
  const float height = larger_of(smaller_of(a.y2, b.y2) - larger_of(a.y1, b.y1), 0.0f);
  const float inter = width * height;
  return inter > threshold * ((area_a + area_b) - inter);
}

// A candidate may survive when neither its score nor a coordinate is NaN.
VISIONRT_HD bool is_eligible(const Box& box, float score) {
  return score == score && box.x1 == box.x1 && box.y1 == box.y1 && box.x2 == box.x2 &&
         box.y2 == box.y2;
}

VISIONRT_HD bool is_finite(float value) { return value - value == 0.0f; }

VISIONRT_HD bool is_finite(const Box& box) {
  return is_finite(box.x1) && is_finite(box.y1) && is_finite(box.x2) && is_finite(box.y2);
}

// Maps a score that is not NaN to an integer that ascends as the score descends; -0 equals +0.
VISIONRT_HD std::uint32_t descending_key(float score) {
  std::uint32_t bits;
  score = score == 0.0f ? 0.0f : score;
  memcpy(&bits, &score, sizeof bits);
  return (bits & 0x80000000u) != 0 ? bits : bits ^ 0x7fffffffu;
}

}  // namespace visionrt
