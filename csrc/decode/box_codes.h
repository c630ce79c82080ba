// How each head codes a box and a score, in float32 steps that the CPU and CUDA back ends share.
//
// exp is computed here rather than by a library, so that both back ends round alike: candidates
// are equal bit for bit.
#pragma once

#include <cmath>

#include "nms/box.h"

namespace visionrt {

// e^x to about 1 unit in the last place: x = n ln2 + r, |r| <= ln2/2, a Taylor polynomial in r,
// then two exact scalings (one factor would overflow at n = 128). Overflows to inf, underflows
// gradually.
VISIONRT_HD float exp_float32(float x) {
  if (x != x) return x;
  if (x > 89.0f) return INFINITY;
  if (x < -104.0f) return 0.0f;
  // Adding and taking 1.5 * 2^23 rounds to the nearest integer.
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  // ln2 in two parts; the first has 9 bits, so n * 0.693359375 is exact.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 5.0e-1f;
  const float value = (p * (r * r) + r) + 1.0f;
  const int exponent = static_cast<int>(n);
  const int half = exponent / 2;
  const std::uint32_t bits[2] = {static_cast<std::uint32_t>(half + 127) << 23,
                                 static_cast<std::uint32_t>(exponent - half + 127) << 23};
  float scale[2];
  memcpy(scale, bits, sizeof scale);
  return (value * scale[0]) * scale[1];
}

VISIONRT_HD float sigmoid_float32(float x) { return 1.0f / (1.0f + exp_float32(-x)); }

// YOLO: centre and size in pixels.
VISIONRT_HD Box box_from_center(float cx, float cy, float width, float height) {
  const float half_width = width * 0.5f;
  const float half_height = height * 0.5f;
  return {cx - half_width, cy - half_height, cx + half_width, cy + half_height};
}

// YOLOX (Ge et al. 2021): offsets from the cell, in cells; log size, in cells.
VISIONRT_HD Box box_from_cell(const float* code, std::int32_t cell_x, std::int32_t cell_y,
                              float stride) {
  return box_from_center((code[0] + static_cast<float>(cell_x)) * stride,
                         (code[1] + static_cast<float>(cell_y)) * stride,
                         exp_float32(code[2]) * stride, exp_float32(code[3]) * stride);
}

struct SsdScales {
  float y, x, height, width;
};

// SSD (Liu et al. 2016): the anchor is (cy, cx, h, w), normalised, and the code (ty, tx, th, tw),
// or (tx, ty, tw, th) with x_first; the corners are scaled to the input's pixels.
VISIONRT_HD Box box_from_anchor(const float* code, bool x_first, const float* anchor,
                                const SsdScales& scales, float input_height, float input_width) {
  // Selected, not indexed: a kernel's array with a computed index would lie in memory.
  const float ty = x_first ? code[1] : code[0];
  const float tx = x_first ? code[0] : code[1];
  const float th = x_first ? code[3] : code[2];
  const float tw = x_first ? code[2] : code[3];
  const float cy = (ty / scales.y) * anchor[2] + anchor[0];
  const float cx = (tx / scales.x) * anchor[3] + anchor[1];
  const float height = exp_float32(th / scales.height) * anchor[2];
  const float width = exp_float32(tw / scales.width) * anchor[3];
  const Box box = box_from_center(cx, cy, width, height);
  return {box.x1 * input_width, box.y1 * input_height, box.x2 * input_width, box.y2 * input_height};
}

}  // namespace visionrt
