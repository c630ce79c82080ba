// pil mode in one pass: both filters, colour order or luma, normalisation, layout and border.
//
// Mapping: block (32, 8) makes a tile of 32 x 16 tensor pixels of image blockIdx.z. It takes the
//   source rows under the tile 32 at a time: filters each horizontally to 8 bits into shared
//   memory, then adds them to the vertical sums of its pixels. So a filter may be of any height.
// Tables: the weights of an image size are made once, on the host, in double as Pillow does
//   (cuda_tables in preprocess.h), and stay in device memory; reading them costs cache lines.
// Bytes: a source byte is read by the filters that overlap it, out of L1, and crosses the bus about
//   once; rows between two tiles are filtered by both, an eighth more work where the image shrinks.
//   Every element of the tensor is written once. The budget's bytes are one float32 NCHW image.
// Numerics: preprocess.h; sums in integers.
//
// budget: preprocess_pil registers<=64 spills=0 shared<=5632 launches=1 wide="store"
//   bytes="3*W*H + 12*h*w"
#include "preprocess/tile_store.cuh"

namespace visionrt::preprocess {

constexpr int kTileX = 32, kTileY = 16, kBlockY = 8, kThreads = kTileX * kBlockY;
constexpr int kPixels = kTileY / kBlockY;  // of a thread, one below the other
constexpr int kRows = 32;                  // source rows at a time

// One axis of a table: first[n], count[n], weights[taps][n].
struct Taps {
  const std::int32_t* table;
  int n;

  __device__ int first(int i) const { return table[i]; }
  __device__ int end(int i) const { return table[i] + table[n + i]; }
  __device__ int weight(int i, int k) const {
    return table[(2 + static_cast<std::int64_t>(k)) * n + i];
  }
};

__device__ inline std::uint32_t filtered_pixel(const KernelArgs& args, const DeviceImage& image,
                                               const Taps& taps, int x, int row) {
  const int first = taps.first(x), count = taps.end(x) - first;
  const std::uint8_t* p = image.data + row * image.row_bytes + 3 * static_cast<std::int64_t>(first);
  int sums[3] = {kPilRound, kPilRound, kPilRound};
  for (int k = 0; k < count; ++k) {
    const Pixel pixel = read_pixel(p + 3 * static_cast<std::int64_t>(k), args, image);
    const int weight = taps.weight(x, k);
#pragma unroll
    for (int c = 0; c < 3; ++c) sums[c] += pixel.channel[c] * weight;
  }
  std::uint32_t packed = 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) packed |= static_cast<std::uint32_t>(pil_to_byte(sums[c])) << (8 * c);
  return packed;
}

}  // namespace visionrt::preprocess

extern "C" __global__ void __launch_bounds__(256)
    preprocess_pil(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  __shared__ std::uint32_t filtered[kRows][kTileX];
  __shared__ ByteTile<kTileX, kTileY> tile;
  const TilePlace place{static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y) * kTileY,
                        static_cast<int>(blockIdx.x) * kTileX};
  const DeviceImage& image = args.images[place.image];
  const int column = static_cast<int>(threadIdx.x), line = static_cast<int>(threadIdx.y);
  const int x = place.x + column;
  const Taps taps_x{image.table, args.width}, taps_y{image.table_y, args.height};
  const bool shows_x = x < args.width && shows_image(image, image.offset_y, x);

  // The tile's rows that show the image, and the source rows under them.
  const int top = max(place.y, image.offset_y);
  const int bottom = min(min(place.y + kTileY, args.height), image.offset_y + image.resized_h);
  const int begin = top < bottom ? taps_y.first(top) : 0;
  const int end = top < bottom ? taps_y.end(bottom - 1) : 0;
  int sums[kPixels][3];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) sums[i][0] = sums[i][1] = sums[i][2] = kPilRound;
  for (int start = begin; start < end; start += kRows) {
    const int size = min(kRows, end - start);
    if (shows_x) {
      for (int row = line; row < size; row += kBlockY) {
        filtered[row][column] = filtered_pixel(args, image, taps_x, x, start + row);
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const int y = place.y + line + i * kBlockY;
      if (!shows_x || y < top || y >= bottom) continue;
      const int first = taps_y.first(y), last = min(taps_y.end(y), start + size);
      for (int row = max(first, start); row < last; ++row) {
        const std::uint32_t pixel = filtered[row - start][column];
        const int weight = taps_y.weight(y, row - first);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
          sums[i][c] += static_cast<int>(pixel >> (8 * c) & 0xffu) * weight;
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const int row = line + i * kBlockY, y = place.y + row;
    Pixel pixel{{args.pad_value, args.pad_value, args.pad_value}};
    if (shows_x && y >= top && y < bottom) {
#pragma unroll
      for (int c = 0; c < 3; ++c) pixel.channel[c] = pil_to_byte(sums[i][c]);
    }
    tile.put(args, row, column, pixel);
  }
  __syncthreads();
  store_tile<kThreads>(tile, args, place, line * kTileX + column);
}
