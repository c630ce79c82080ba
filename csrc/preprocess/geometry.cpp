#include "preprocess/geometry.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace visionrt::preprocess {
namespace {

std::int64_t divide_half_even(std::int64_t numerator, std::int64_t denominator) {
  const std::int64_t quotient = numerator / denominator;
  const std::int64_t twice = 2 * (numerator % denominator);
  const bool up = twice > denominator || (twice == denominator && quotient % 2 == 1);
  return quotient + (up ? 1 : 0);
}

// The side to resize to before a centre crop, as Python's round(side / crop_ratio).
std::int64_t side_before_crop(int side, double crop_ratio) {
  const double exact = side / crop_ratio;
  if (!(exact <= kMaxResizedSide)) {
    throw std::invalid_argument(
        "expected a crop_ratio that resizes to at most " + std::to_string(kMaxResizedSide) +
        " pixels, got " + std::to_string(crop_ratio) + " with a side of " + std::to_string(side));
  }
  return static_cast<std::int64_t>(std::nearbyint(exact));
}

struct Size {
  std::int64_t h, w;
};

Size letterboxed(const Fit& fit, std::int64_t h, std::int64_t w) {
  // The axis with the smaller ratio of tensor to image fills the tensor.
  if (fit.height * w <= fit.width * h) {
    return {fit.height, std::max<std::int64_t>(1, divide_half_even(w * fit.height, h))};
  }
  return {std::max<std::int64_t>(1, divide_half_even(h * fit.width, w)), fit.width};
}

Size covering(const Fit& fit, std::int64_t h, std::int64_t w) {
  const std::int64_t cover_h = side_before_crop(fit.height, fit.crop_ratio);
  const std::int64_t cover_w = side_before_crop(fit.width, fit.crop_ratio);
  // The axis with the larger ratio is met exactly, so the other one is at least covered.
  if (cover_w * h >= cover_h * w) return {cover_w * h / w, cover_w};
  return {cover_h, cover_h * w / h};
}

std::int64_t border_before(Align align, std::int64_t tensor_side, std::int64_t resized_side) {
  return align == Align::kCenter ? (tensor_side - resized_side) / 2 : 0;
}

}  // namespace

Geometry geometry_for(const Fit& fit, std::int64_t image_h, std::int64_t image_w) {
  if (image_h < 1 || image_w < 1 || image_h > kMaxImageSide || image_w > kMaxImageSide) {
    throw std::invalid_argument("expected image sides of 1 to " + std::to_string(kMaxImageSide) +
                                " pixels, got " + std::to_string(image_h) + " x " +
                                std::to_string(image_w));
  }
  Size resized{fit.height, fit.width};
  std::int64_t offset_x = 0, offset_y = 0;
  if (fit.resize == Resize::kLetterbox) {
    resized = letterboxed(fit, image_h, image_w);
    offset_x = border_before(fit.align, fit.width, resized.w);
    offset_y = border_before(fit.align, fit.height, resized.h);
  } else if (fit.resize == Resize::kCrop) {
    resized = covering(fit, image_h, image_w);
    offset_x = -divide_half_even(resized.w - fit.width, 2);
    offset_y = -divide_half_even(resized.h - fit.height, 2);
  }
  if (resized.h > kMaxResizedSide || resized.w > kMaxResizedSide) {
    throw std::invalid_argument("expected an image at most " + std::to_string(kMaxResizedSide) +
                                " pixels long when resized before the crop, got " +
                                std::to_string(image_h) + " x " + std::to_string(image_w) +
                                ", resized to " + std::to_string(resized.h) + " x " +
                                std::to_string(resized.w));
  }
  return {static_cast<int>(image_h),
          static_cast<int>(image_w),
          static_cast<int>(resized.h),
          static_cast<int>(resized.w),
          static_cast<int>(offset_x),
          static_cast<int>(offset_y),
          static_cast<double>(image_w) / static_cast<double>(resized.w),
          static_cast<double>(image_h) / static_cast<double>(resized.h)};
}

}  // namespace visionrt::preprocess
