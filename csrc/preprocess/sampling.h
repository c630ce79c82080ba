// The arithmetic of one pixel, for the CPU back end and the kernels alike: which source pixels a
// resized pixel reads, with which integer weights, and how a byte becomes an element of the tensor.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "compiler.h"

namespace visionrt::preprocess {

VISIONRT_HD int clamp_index(int index, int count) {
  return index < 0 ? 0 : (index >= count ? count - 1 : index);
}

// BT.601 luma with 15-bit weights.
VISIONRT_HD int luma(int blue, int green, int red) {
  return (blue * 3735 + green * 19235 + red * 9798 + (1 << 14)) >> 15;
}

// ---- cv2: two taps per axis, 11-bit weights -----------------------------------------------------

struct Cv2Tap {
  int first, second;  // source positions, inside the image
  int w0, w1;         // weights, 0...2048
};

// The reciprocal of the rounded ratio, as OpenCV has it, rather than the ratio itself.
VISIONRT_HD double cv2_scale(int image_side, int resized_side) {
  return 1.0 / (static_cast<double>(resized_side) / image_side);
}

// Horizontally, a tap that would leave the image becomes the edge pixel with full weight.
// Vertically, OpenCV keeps the fractional weights and repeats the edge row, which rounds otherwise.
VISIONRT_HD Cv2Tap cv2_tap(int position, double scale, int count, bool horizontal) {
  float fraction = static_cast<float>((position + 0.5) * scale - 0.5);
  const float floor = floorf(fraction);
  int first = static_cast<int>(floor);
  fraction -= floor;
  if (horizontal && (first < 0 || first >= count - 1)) {
    first = clamp_index(first, count);
    fraction = 0.0f;
  }
  return {clamp_index(first, count), clamp_index(first + 1, count),
          static_cast<int>(rintf((1.0f - fraction) * 2048.0f)),
          static_cast<int>(rintf(fraction * 2048.0f))};
}

// The horizontal blend, kept in 15 bits.
VISIONRT_HD int cv2_blend_x(int left, int right, int w0, int w1) {
  return (left * w0 + right * w1) >> 4;
}

// The vertical blend of two such values: each product keeps its high half.
VISIONRT_HD int cv2_blend_y(int top, int bottom, int w0, int w1) {
  return (((top * w0) >> 16) + ((bottom * w1) >> 16) + 2) >> 2;
}

// ---- pil: a triangle as wide as the reduction, 22-bit weights -----------------------------------

constexpr int kPilBits = 22;

struct PilTaps {
  int first, count;  // source positions first ... first + count - 1
  double center;     // in source pixels
};

VISIONRT_HD double pil_scale(int image_side, int resized_side) {
  return static_cast<double>(image_side) / resized_side;
}

// Half the filter's width in source pixels.
VISIONRT_HD double pil_support(double scale) { return scale < 1.0 ? 1.0 : scale; }

// The most taps any position has.
VISIONRT_HD int pil_max_taps(double scale) {
  return 2 * static_cast<int>(ceil(pil_support(scale))) + 1;
}

VISIONRT_HD PilTaps pil_taps(int position, double scale, int count) {
  const double support = pil_support(scale);
  const double center = (position + 0.5) * scale;
  int first = static_cast<int>(center - support + 0.5);
  int last = static_cast<int>(center + support + 0.5);
  if (first < 0) first = 0;
  if (last > count) last = count;
  return {first, last - first, center};
}

// Weight of tap k before the weights are made to sum to 1.
VISIONRT_HD double pil_triangle(const PilTaps& taps, double scale, int k) {
  const double distance = (k + taps.first - taps.center + 0.5) * (1.0 / pil_support(scale));
  const double size = distance < 0.0 ? -distance : distance;
  return size < 1.0 ? 1.0 - size : 0.0;
}

// Writes the integer weights of `taps` to weights[0], weights[stride], ...
VISIONRT_HD void pil_weights(const PilTaps& taps, double scale, std::int32_t* weights,
                             std::int64_t stride) {
  double sum = 0.0;
  for (int k = 0; k < taps.count; ++k) sum += pil_triangle(taps, scale, k);
  for (int k = 0; k < taps.count; ++k) {
    const double weight = pil_triangle(taps, scale, k);
    const double normalised = sum != 0.0 ? weight / sum : weight;
    weights[k * stride] = static_cast<std::int32_t>(0.5 + normalised * (1 << kPilBits));
  }
}

// Sums start at this, so that the shift in pil_to_byte rounds.
constexpr int kPilRound = 1 << (kPilBits - 1);

VISIONRT_HD int pil_to_byte(int sum) {
  const int value = sum >> kPilBits;
  return value < 0 ? 0 : (value > 255 ? 255 : value);
}

// ---- a byte to an element -----------------------------------------------------------------------

VISIONRT_HD float normalise(int value, float mean, float inv_std) {
  return (static_cast<float>(value) - mean) * inv_std;
}

// IEEE half of a float32, rounded to nearest, ties to even; NaN stays NaN.
VISIONRT_HD std::uint16_t half_from_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  std::uint32_t half;
  if (bits >= 0x47800000u) {  // 65536 and above, infinity, NaN
    half = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (bits >= 0x38800000u) {  // normal; a carry out of 65504's mantissa gives infinity
    half = (bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13;
  } else if (bits >= 0x33000000u) {  // subnormal: shift the mantissa with its hidden bit
    const std::uint32_t shift = 126u - (bits >> 23);
    const std::uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    const std::uint32_t kept = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
    const std::uint32_t middle = 1u << (shift - 1u);
    half = kept + ((rest > middle || (rest == middle && (kept & 1u))) ? 1u : 0u);
  } else {
    half = 0;
  }
  return static_cast<std::uint16_t>(sign | half);
}

}  // namespace visionrt::preprocess
