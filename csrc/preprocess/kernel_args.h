// What the launcher hands to the preprocess kernels, by value: no device array to fill or to keep.
#pragma once

#include <cstdint>

#include "preprocess/dtype.h"

namespace visionrt::preprocess {

constexpr int kMaxImagesPerLaunch = 32;

struct DeviceImage {
  const std::uint8_t* data;
  std::int64_t row_bytes;
  double scale_x, scale_y;  // cv2_scale or pil_scale
  std::int32_t height, width;
  std::int32_t resized_h, resized_w;
  std::int32_t offset_x, offset_y;
  std::int32_t blue_byte;  // 0 in BGR, 2 in RGB
  // pil only: for every position of one tensor axis `first`, `count`, then `taps` rows of weights.
  const std::int32_t* table;  // of the columns
  const std::int32_t* table_y;
};

struct KernelArgs {
  void* out;  // of the launch's first image
  std::int32_t height, width;
  std::int32_t channels;    // 3 or 1
  std::int32_t blue_first;  // tensor is BGR rather than RGB
  std::int32_t nhwc;
  std::int32_t wide;  // every run of 16 bytes of a row is aligned
  DType dtype;
  std::int32_t pad_value;
  float mean[3], inv_std[3];
  DeviceImage images[kMaxImagesPerLaunch];
};
static_assert(sizeof(KernelArgs) <= 4096,
              "more kernel parameters need compute capability 7.0 and CUDA 12.1");

}  // namespace visionrt::preprocess
