// From a tile of bytes in shared memory to the tensor, in stores of 16 bytes.
#pragma once

#include <cstring>
#include <type_traits>

#include "preprocess/pixel.cuh"

namespace visionrt::preprocess {

// The bytes of kCols x kRows resized pixels in the order of the tensor: plane by plane, or
// interleaved where the tensor is NHWC with 3 channels.
template <int kColumns, int kRows>
struct alignas(16) ByteTile {
  static constexpr int kCols = kColumns, kLines = kRows;
  static_assert(kCols % 16 == 0, "a run is stored 16 elements at once");
  std::uint8_t bytes[3 * kCols * kRows];

  __device__ void put(const KernelArgs& args, int row, int column, const Pixel& pixel) {
    const bool interleaved = is_interleaved(args);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c >= args.channels) break;
      const int at =
          interleaved ? (row * kCols + column) * 3 + c : (c * kRows + row) * kCols + column;
      bytes[at] = static_cast<std::uint8_t>(pixel.channel[c]);
    }
  }
};

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

template <int kCount>
struct alignas(kCount) Bytes {
  std::uint8_t at[kCount];
};

// Where a tile lies.
struct TilePlace {
  int image, y, x;
};

// Stores kAtOnce elements a thread: 16 bytes, or a single element where rows are not aligned.
template <int kAtOnce, bool kInterleaved, int kThreads, class Tile, class Element, class ElementOf>
__device__ inline void store_runs(const Tile& tile, const KernelArgs& args, const TilePlace& place,
                                  int thread, Element* out, const ElementOf& element_of) {
  constexpr int kSide = kInterleaved ? 3 : 1;  // elements of a pixel in a run
  constexpr int kRun = Tile::kCols * kSide;    // elements that lie in a row
  constexpr int kPerRun = kRun / kAtOnce;
  const int runs = kInterleaved ? Tile::kLines : Tile::kLines * args.channels;
  const int length = min(Tile::kCols, args.width - place.x) * kSide;
  const std::int64_t plane = static_cast<std::int64_t>(args.height) * args.width;
  Element* image = out + place.image * plane * args.channels;
  for (int i = thread; i < runs * kPerRun; i += kThreads) {
    const int run = i / kPerRun, at = i % kPerRun * kAtOnce;
    const int plane_index = run / Tile::kLines, y = place.y + run % Tile::kLines;
    if (y >= args.height || at >= length) continue;
    const auto bytes = *reinterpret_cast<const Bytes<kAtOnce>*>(tile.bytes + run * kRun + at);
    Element elements[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      elements[j] = element_of(bytes.at[j], kInterleaved ? (at + j) % 3 : plane_index);
    }
    const std::int64_t pixel = static_cast<std::int64_t>(y) * args.width + place.x;
    Element* to = image + plane_index * plane + pixel * kSide + at;
    if constexpr (kAtOnce * sizeof(Element) == sizeof(uint4)) {
      uint4 words;
      memcpy(&words, elements, sizeof words);
      *reinterpret_cast<uint4*>(to) = words;
    } else {
      *to = elements[0];
    }
  }
}

// Stores a whole tile; every thread of the block comes here, after a barrier.
template <int kThreads, class Tile>
__device__ inline void store_tile(const Tile& tile, const KernelArgs& args, const TilePlace& place,
                                  int thread) {
  with_elements(args, [&](auto* out, const auto& element_of) {
    constexpr int kWide = 16 / sizeof(std::remove_reference_t<decltype(*out)>);
    if (args.wide != 0) {
      if (is_interleaved(args)) {
        store_runs<kWide, true, kThreads>(tile, args, place, thread, out, element_of);
      } else {
        store_runs<kWide, false, kThreads>(tile, args, place, thread, out, element_of);
      }
    } else if (is_interleaved(args)) {
      store_runs<1, true, kThreads>(tile, args, place, thread, out, element_of);
    } else {
      store_runs<1, false, kThreads>(tile, args, place, thread, out, element_of);
    }
  });
}

}  // namespace visionrt::preprocess
