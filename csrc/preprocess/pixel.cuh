// Reading source pixels and writing tensor pixels, for the preprocess kernels.
#pragma once

#include <type_traits>

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

// ---- stores -------------------------------------------------------------------------------------

// Calls `write(out, element_of)` with the tensor's element type: element_of(value, channel) is the
// element of a byte.
template <class Write>
__device__ inline void with_elements(const KernelArgs& args, const Write& write) {
  if (args.dtype == DType::kFloat32) {
    write(static_cast<float*>(args.out),
          [&args](int v, int c) { return normalise(v, args.mean[c], args.inv_std[c]); });
  } else if (args.dtype == DType::kFloat16) {
    write(static_cast<std::uint16_t*>(args.out), [&args](int v, int c) {
      return half_from_float(normalise(v, args.mean[c], args.inv_std[c]));
    });
  } else {
    write(static_cast<std::uint8_t*>(args.out),
          [](int v, int) { return static_cast<std::uint8_t>(v); });
  }
}

__device__ inline void write_pixel(const Pixel& pixel, const KernelArgs& args, int image_index,
                                   int y, int x) {
  const std::int64_t plane = static_cast<std::int64_t>(args.height) * args.width;
  const std::int64_t place = static_cast<std::int64_t>(y) * args.width + x;
  const std::int64_t image = image_index * plane * args.channels;
  with_elements(args, [&](auto* out, const auto& element_of) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= args.channels) break;
      const std::int64_t at = image + (args.nhwc ? place * args.channels + c : c * plane + place);
      out[at] = element_of(pixel.channel[c], c);
    }
  });
}

// Four elements that one instruction stores: 16 bytes of float32, 8 of float16, 4 of uint8.
template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

// Pixels x ... x + 3 of row y, in stores of four elements each. Needs KernelArgs::fours and an x
// that is a multiple of 4.
__device__ inline void write_four_pixels(const Pixel (&pixels)[4], const KernelArgs& args,
                                         int image_index, int y, int x) {
  const std::int64_t plane = static_cast<std::int64_t>(args.height) * args.width;
  const std::int64_t place = static_cast<std::int64_t>(y) * args.width + x;
  const std::int64_t image = image_index * plane * args.channels;
  const bool interleaved = args.nhwc && args.channels == 3;
  with_elements(args, [&](auto* out, const auto& element_of) {
    using Element = std::remove_reference_t<decltype(*out)>;
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      if (part >= args.channels) break;
      Four<Element> four;
      // Interleaved, the 12 elements lie in a row; in planes, a part is a channel.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int e = 4 * part + i;
        four.at[i] = interleaved ? element_of(pixels[e / 3].channel[e % 3], e % 3)
                                 : element_of(pixels[i].channel[part], part);
      }
      Element* to = out + image + (interleaved ? 3 * place + 4 * part : part * plane + place);
      *reinterpret_cast<Four<Element>*>(to) = four;
    }
  });
}

// True when tensor position (y, x) shows the image rather than the letterbox border.
__device__ inline bool shows_image(const DeviceImage& image, int y, int x) {
  const int resized_y = y - image.offset_y, resized_x = x - image.offset_x;
  return resized_y >= 0 && resized_y < image.resized_h && resized_x >= 0 &&
         resized_x < image.resized_w;
}

}  // namespace visionrt::preprocess
