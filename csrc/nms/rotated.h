// Rotated boxes, in float32 steps that the CPU and CUDA back ends share, operation by operation.
//
// A box turned by `angle` radians about its centre: its first side runs along (cos, sin), so with y
// downwards a positive angle turns clockwise.
#pragma once

#include <cmath>

#include "nms/box.h"

namespace visionrt {

// Beyond this, or NaN: the candidate is left out. The reduction below is good for 2^13.
constexpr float kLargestAngle = 8192.0f;

VISIONRT_HD bool is_usable_angle(float angle) {
  return angle >= -kLargestAngle && angle <= kLargestAngle;
}

// Sine and cosine to about 1 unit in the last place: x = n pi/2 + r, |r| <= pi/4, Taylor
// polynomials in r. Not a library's, so that both back ends round alike.
VISIONRT_HD void sin_cos_float32(float x, float& sine, float& cosine) {
  // Adding and taking 1.5 * 2^23 rounds to the nearest integer.
  const float n = (x * 0.636619772f + 12582912.0f) - 12582912.0f;
  // pi/2 in two parts; the first has 8 bits, so n * 1.5703125 is exact.
  const float r = (x - n * 1.5703125f) - n * 4.83826795e-4f;
  const float z = r * r;
  float s = 2.75573192e-6f;
  s = s * z - 1.98412698e-4f;
  s = s * z + 8.33333333e-3f;
  s = s * z - 1.66666667e-1f;
  s = s * (z * r) + r;
  float c = -2.75573192e-7f;
  c = c * z + 2.48015873e-5f;
  c = c * z - 1.38888889e-3f;
  c = c * z + 4.16666667e-2f;
  c = (c * z - 0.5f) * z + 1.0f;
  const int quarter = static_cast<int>(n) & 3;
  const bool swapped = (quarter & 1) != 0;
  sine = swapped ? c : s;
  cosine = swapped ? s : c;
  if ((quarter & 2) != 0) sine = -sine;
  if (quarter == 1 || quarter == 2) cosine = -cosine;
}

struct alignas(16) RotatedBox {
  float cx, cy, half_w, half_h;
  float cosine, sine;
  std::int32_t class_id;
  std::int32_t usable;  // 0: never kept
};

// The upright box that a head decodes, turned about its centre.
VISIONRT_HD RotatedBox rotated_box(const Box& upright, float angle, std::int32_t class_id) {
  RotatedBox box;
  box.cx = (upright.x1 + upright.x2) * 0.5f;
  box.cy = (upright.y1 + upright.y2) * 0.5f;
  box.half_w = larger_of(upright.x2 - upright.x1, 0.0f) * 0.5f;
  box.half_h = larger_of(upright.y2 - upright.y1, 0.0f) * 0.5f;
  box.class_id = class_id;
  box.usable = is_usable_angle(angle) ? 1 : 0;
  sin_cos_float32(box.usable != 0 ? angle : 0.0f, box.sine, box.cosine);
  return box;
}

VISIONRT_HD float area_of(const RotatedBox& box) { return (box.half_w * box.half_h) * 4.0f; }

// The mean over a line from a to b of its values held within -limit ... limit.
VISIONRT_HD float clamped_mean(float a, float b, float limit) {
  const float low = smaller_of(a, b), high = larger_of(a, b);
  if (low >= limit) return limit;
  if (high <= -limit) return -limit;
  const float rise = high - low;
  if (!(rise > 0.0f)) return low;
  const float inner_low = larger_of(low, -limit), inner_high = smaller_of(high, limit);
  const float below = inner_low - low, above = high - inner_high, middle = inner_high - inner_low;
  return ((above - below) * limit + middle * ((inner_low + inner_high) * 0.5f)) / rise;
}

// The part of a polygon's area that one edge adds, within |x| < half_w and |y| < half_h.
VISIONRT_HD float edge_area(float x0, float y0, float x1, float y1, float half_w, float half_h) {
  const float from = smaller_of(larger_of(x0, -half_w), half_w);
  const float to = smaller_of(larger_of(x1, -half_w), half_w);
  if (from == to) return 0.0f;
  const float slope_x = x1 - x0, slope_y = y1 - y0;
  const float start = from == x0 ? y0 : y0 + slope_y * ((from - x0) / slope_x);
  const float end = to == x1 ? y1 : y0 + slope_y * ((to - x0) / slope_x);
  return (to - from) * clamped_mean(start, end, half_h);
}

// The area of the polygon that two boxes share. In the frame of b, a vertical line meets the convex
// quadrilateral a in one stretch, whose part within b is the difference of its ends held within b;
// so the area is the integral of held edges over x, edge by edge (Green's theorem). Nothing is
// collected and no side is decided, so edges that coincide cost only a rounding.
VISIONRT_HD float shared_area(const RotatedBox& a, const RotatedBox& b) {
  const float dx = a.cx - b.cx, dy = a.cy - b.cy;
  const float x = dx * b.cosine + dy * b.sine, y = dy * b.cosine - dx * b.sine;
  const float c = a.cosine * b.cosine + a.sine * b.sine;
  const float s = a.sine * b.cosine - a.cosine * b.sine;
  const float ux = a.half_w * c, uy = a.half_w * s;
  const float vx = -(a.half_h * s), vy = a.half_h * c;
  if (fabsf(x) >= (fabsf(ux) + fabsf(vx)) + b.half_w) return 0.0f;
  if (fabsf(y) >= (fabsf(uy) + fabsf(vy)) + b.half_h) return 0.0f;
  const float px = x + (ux + vx), py = y + (uy + vy);
  const float qx = x - (ux - vx), qy = y - (uy - vy);
  const float rx = x - (ux + vx), ry = y - (uy + vy);
  const float tx = x + (ux - vx), ty = y + (uy - vy);
  const float w = b.half_w, h = b.half_h;
  const float sum = (edge_area(px, py, qx, qy, w, h) + edge_area(qx, qy, rx, ry, w, h)) +
                    (edge_area(rx, ry, tx, ty, w, h) + edge_area(tx, ty, px, py, w, h));
  // At most the smaller box, whatever was rounded.
  return smaller_of(fabsf(sum), smaller_of(area_of(a), area_of(b)));
}

// As `suppresses` in nms/box.h, of polygons; `first` is the box that was kept. A box of area 0
// neither suppresses nor is suppressed.
VISIONRT_HD bool suppresses(const RotatedBox& first, const RotatedBox& second, float threshold) {
  const float inter = shared_area(first, second);
  return inter > threshold * ((area_of(first) + area_of(second)) - inter);
}

}  // namespace visionrt
