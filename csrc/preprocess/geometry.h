// Where an image lands in the tensor. Decided here, once, in integers, for every back end.
#pragma once

#include <cstdint>

namespace visionrt::preprocess {

enum class Resize { kLetterbox, kStretch, kCrop };
enum class Align { kCenter, kTopLeft };

// Longest image side accepted, and longest side of a resized image (of which only the part that
// the tensor shows is ever computed).
constexpr int kMaxImageSide = 1 << 20;
constexpr int kMaxResizedSide = 1 << 30;

struct Fit {
  Resize resize;
  int height, width;  // of the tensor
  double crop_ratio;  // share of the resized shorter side that kCrop keeps, in (0, 1]
  Align align;        // of a letterboxed image in its border
};

// The resized image's top left pixel sits at tensor position (offset_x, offset_y): the border's
// width in a letterbox, minus the crop's start in a crop. In continuous coordinates, where pixel i
// covers [i, i + 1):
//
//   image_x = (tensor_x - offset_x) * scale_x        image_y = (tensor_y - offset_y) * scale_y
struct Geometry {
  int image_h, image_w;
  int resized_h, resized_w;
  int offset_x, offset_y;
  double scale_x, scale_y;  // image side / resized side
};

// kLetterbox: the largest size of the image's aspect ratio inside the tensor; the shorter side is
//   the exact quotient rounded to nearest, ties to even, at least 1. Centred borders differ by at
//   most one pixel, the smaller one top or left.
// kStretch: the tensor's size.
// kCrop: the smallest size of the image's aspect ratio that covers round(side / crop_ratio) on both
//   axes, the longer side truncated; the crop starts at half the surplus, ties to even.
//
// Throws std::invalid_argument when an image side is outside 1...kMaxImageSide, or the resized
// image would be longer than kMaxResizedSide.
Geometry geometry_for(const Fit& fit, std::int64_t image_h, std::int64_t image_w);

}  // namespace visionrt::preprocess
