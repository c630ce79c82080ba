// Reading source pixels, for the preprocess kernels.
#pragma once

#include "preprocess/kernel_args.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {

// Up to three channels in the tensor's order.
struct Pixel {
  int channel[3];
};

// The pixel of these three bytes, its channels brought into the tensor's order.
__device__ inline Pixel pixel_of(int byte0, int byte1, int byte2, const KernelArgs& args,
                                 const DeviceImage& image) {
  const int blue = image.blue_byte == 0 ? byte0 : byte2;
  const int red = image.blue_byte == 0 ? byte2 : byte0;
  if (args.channels == 1) return {{luma(blue, byte1, red), 0, 0}};
  return args.blue_first ? Pixel{{blue, byte1, red}} : Pixel{{red, byte1, blue}};
}

// The source pixel at `p`.
__device__ inline Pixel read_pixel(const std::uint8_t* p, const KernelArgs& args,
                                   const DeviceImage& image) {
  return pixel_of(p[0], p[1], p[2], args, image);
}

struct PixelPair {
  Pixel left, right;
};
// Two pixels side by side, from their 6 bytes in the low end of `bytes`.
__device__ inline PixelPair pair_of(std::uint64_t bytes, const KernelArgs& args,
                                    const DeviceImage& image) {
  const auto at = [bytes](int i) { return static_cast<int>(bytes >> (8 * i) & 0xffu); };
  return {pixel_of(at(0), at(1), at(2), args, image), pixel_of(at(3), at(4), at(5), args, image)};
}

// The 6 bytes of pixel `first` of a row and of the pixel right of it, in one or two aligned loads
// of 8 bytes; near the row's ends, where those would reach outside it, byte by byte. Right of the
// last pixel is that pixel again.
__device__ inline std::uint64_t read_pair(const std::uint8_t* row, int first, int width) {
  const std::uint8_t* p = row + 3 * static_cast<std::int64_t>(first);
  const auto misfit = static_cast<int>(reinterpret_cast<std::uintptr_t>(p) % 8);
  const int loads = misfit > 2 ? 2 : 1;
  const std::int64_t left = 3 * static_cast<std::int64_t>(first) - misfit;
  if (left >= 0 && left + 8 * loads <= 3 * static_cast<std::int64_t>(width)) {
    const auto* words = reinterpret_cast<const unsigned long long*>(row + left);
    std::uint64_t bytes = __ldg(words) >> (8 * misfit);
    if (loads == 2) bytes |= __ldg(words + 1) << (64 - 8 * misfit);
    return bytes;
  }
  const std::uint8_t* right = first + 1 < width ? p + 3 : p;
  std::uint64_t bytes = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    bytes |= static_cast<std::uint64_t>(p[i]) << (8 * i);
    bytes |= static_cast<std::uint64_t>(right[i]) << (8 * i + 24);
  }
  return bytes;
}

// True when tensor position (y, x) shows the image rather than the letterbox border.
__device__ inline bool shows_image(const DeviceImage& image, int y, int x) {
  const int resized_y = y - image.offset_y, resized_x = x - image.offset_x;
  return resized_y >= 0 && resized_y < image.resized_h && resized_x >= 0 &&
         resized_x < image.resized_w;
}

// Whether a pixel's elements lie side by side in the tensor. One channel is a plane in either
// layout.
__device__ inline bool is_interleaved(const KernelArgs& args) {
  return args.nhwc != 0 && args.channels == 3;
}

}  // namespace visionrt::preprocess
