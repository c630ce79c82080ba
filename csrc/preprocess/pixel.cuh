// Reading a source pixel and writing a tensor pixel, for the preprocess kernels.
#pragma once

#include "preprocess/kernel_args.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {

// Up to three channels in the tensor's order.
struct Pixel {
  int channel[3];
};

// The source pixel at `p`, its channels brought into the tensor's order.
__device__ inline Pixel read_pixel(const std::uint8_t* p, const KernelArgs& args,
                                   const DeviceImage& image) {
  const int blue = image.blue_byte, red = 2 - blue;
  if (args.channels == 1) return {{luma(p[blue], p[1], p[red]), 0, 0}};
  return args.blue_first ? Pixel{{p[blue], p[1], p[red]}} : Pixel{{p[red], p[1], p[blue]}};
}

__device__ inline void write_pixel(const Pixel& pixel, const KernelArgs& args, int image_index,
                                   int y, int x) {
  const std::int64_t plane = static_cast<std::int64_t>(args.height) * args.width;
  const std::int64_t place = static_cast<std::int64_t>(y) * args.width + x;
  const std::int64_t image = image_index * plane * args.channels;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (c >= args.channels) break;
    const std::int64_t at = image + (args.nhwc ? place * args.channels + c : c * plane + place);
    const int v = pixel.channel[c];
    if (args.dtype == DType::kFloat32) {
      static_cast<float*>(args.out)[at] = normalise(v, args.mean[c], args.inv_std[c]);
    } else if (args.dtype == DType::kFloat16) {
      static_cast<std::uint16_t*>(args.out)[at] =
          half_from_float(normalise(v, args.mean[c], args.inv_std[c]));
    } else {
      static_cast<std::uint8_t*>(args.out)[at] = static_cast<std::uint8_t>(v);
    }
  }
}

// True when tensor position (y, x) shows the image rather than the letterbox border.
__device__ inline bool shows_image(const DeviceImage& image, int y, int x) {
  const int resized_y = y - image.offset_y, resized_x = x - image.offset_x;
  return resized_y >= 0 && resized_y < image.resized_h && resized_x >= 0 &&
         resized_x < image.resized_w;
}

}  // namespace visionrt::preprocess
