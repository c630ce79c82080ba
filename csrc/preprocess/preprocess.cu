// cv2 mode in one pass: resize, colour order or luma, normalisation, layout and border.
//
// Mapping: block (32, 8) makes a tile of 128 x 8 tensor pixels of image blockIdx.z. A thread makes
//   four pixels, 32 columns apart, into shared memory in the order of the tensor; then threads
//   store 16 bytes each, whatever the element type, or single contiguous elements where rows of the
//   tensor are not aligned to 16 bytes.
// Taps: the block first computes its 128 + 8 taps into shared memory, so that the double arithmetic
//   that OpenCV's weights need is paid once per row and column of a tile, not per pixel.
// Bytes: a pixel and the one right of it come in one or two aligned 8-byte loads, through L1
//   (neighbours share lines), so each needed byte crosses the bus about once: of the rows two per
//   tensor row at most, of those all columns, because sectors of 32 bytes hold 10 pixels. Every
//   element of the tensor is written once. The budget's bytes are one float32 NCHW image.
// Numerics: preprocess.h. Borders and all blending in integers; compiled without contraction.
//
// budget: preprocess_cv2 registers<=64 spills=0 shared<=5376 launches=1 wide="store"
//   bytes="3*W*min(H, 2*resized_h) + 12*h*w"
#include "preprocess/tile_store.cuh"

namespace visionrt::preprocess {

constexpr int kTileX = 128, kTileY = 8, kBlockX = 32, kPixels = kTileX / kBlockX;
constexpr int kThreads = kBlockX * kTileY;

__device__ inline Pixel sample(const KernelArgs& args, const DeviceImage& image, const Cv2Tap& tx,
                               const Cv2Tap& ty) {
  // tx.second is the pixel right of tx.first, or its weight is 0.
  const auto blended_row = [&](int y) {
    const std::uint8_t* row = image.data + y * image.row_bytes;
    const PixelPair pair = pair_of(read_pair(row, tx.first, image.width), args, image);
    Pixel out;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      out.channel[i] = cv2_blend_x(pair.left.channel[i], pair.right.channel[i], tx.w0, tx.w1);
    }
    return out;
  };
  const Pixel top = blended_row(ty.first), bottom = blended_row(ty.second);
  Pixel out;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    out.channel[i] = cv2_blend_y(top.channel[i], bottom.channel[i], ty.w0, ty.w1);
  }
  return out;
}

}  // namespace visionrt::preprocess

extern "C" __global__ void __launch_bounds__(256)
    preprocess_cv2(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  __shared__ Cv2Tap taps_x[kTileX];
  __shared__ Cv2Tap taps_y[kTileY];
  __shared__ ByteTile<kTileX, kTileY> tile;
  const TilePlace place{static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y) * kTileY,
                        static_cast<int>(blockIdx.x) * kTileX};
  const DeviceImage& image = args.images[place.image];
  const int lane = static_cast<int>(threadIdx.y) * kBlockX + static_cast<int>(threadIdx.x);
  if (lane < kTileX) {
    taps_x[lane] = cv2_tap(place.x + lane - image.offset_x, image.scale_x, image.width, true);
  } else if (lane < kTileX + kTileY) {
    const int row = lane - kTileX;
    taps_y[row] = cv2_tap(place.y + row - image.offset_y, image.scale_y, image.height, false);
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.y), y = place.y + row;
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const int column = static_cast<int>(threadIdx.x) + i * kBlockX, x = place.x + column;
    const bool is_shown = x < args.width && y < args.height && shows_image(image, y, x);
    tile.put(args, row, column,
             is_shown ? sample(args, image, taps_x[column], taps_y[row])
                      : Pixel{{args.pad_value, args.pad_value, args.pad_value}});
  }
  __syncthreads();
  store_tile<kThreads>(tile, args, place, lane);
}
