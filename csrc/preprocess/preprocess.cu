// cv2 mode in one pass: resize, colour order or luma, normalisation, layout and border.
//
// Mapping: block (32, 8) makes a tile of 128 x 8 tensor pixels of image blockIdx.z; a thread makes
//   4 pixels, 32 columns apart, so that a warp's stores to a plane are contiguous.
// Taps: the block first computes its 128 + 8 taps into shared memory, so that the double arithmetic
//   that OpenCV's weights need is paid once per row and column of a tile, not per pixel.
// Bytes: reads each source pixel that has a weight, through L1/L2 (neighbours share them); writes
//   every element of the tensor once. The budget's bytes are one float32 NCHW image, each source
//   byte read once.
// Numerics: preprocess.h. All blending in integers; compiled without contraction.
//
// budget: preprocess_cv2 registers<=64 spills=0 shared<=2176 bytes="W*H*3 + 4*3*h*w"
#include "preprocess/pixel.cuh"

namespace visionrt::preprocess {

constexpr int kTileX = 128, kTileY = 8, kBlockX = 32;

__device__ inline Pixel sample(const KernelArgs& args, const DeviceImage& image, const Cv2Tap& tx,
                               const Cv2Tap& ty) {
  const std::uint8_t* top = image.data + ty.first * image.row_bytes;
  const std::uint8_t* bottom = image.data + ty.second * image.row_bytes;
  const std::int64_t left = 3 * static_cast<std::int64_t>(tx.first);
  const std::int64_t right = 3 * static_cast<std::int64_t>(tx.second);
  const Pixel a = read_pixel(top + left, args, image);
  const Pixel b = read_pixel(top + right, args, image);
  const Pixel c = read_pixel(bottom + left, args, image);
  const Pixel d = read_pixel(bottom + right, args, image);
  Pixel out;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    out.channel[i] =
        cv2_blend_y(cv2_blend_x(a.channel[i], b.channel[i], tx.w0, tx.w1),
                    cv2_blend_x(c.channel[i], d.channel[i], tx.w0, tx.w1), ty.w0, ty.w1);
  }
  return out;
}

}  // namespace visionrt::preprocess

extern "C" __global__ void __launch_bounds__(256)
    preprocess_cv2(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  __shared__ Cv2Tap taps_x[kTileX];
  __shared__ Cv2Tap taps_y[kTileY];
  const DeviceImage& image = args.images[blockIdx.z];
  const int tile_x = static_cast<int>(blockIdx.x) * kTileX;
  const int tile_y = static_cast<int>(blockIdx.y) * kTileY;
  const int lane = static_cast<int>(threadIdx.y) * kBlockX + static_cast<int>(threadIdx.x);
  if (lane < kTileX) {
    taps_x[lane] = cv2_tap(tile_x + lane - image.offset_x, image.scale_x, image.width, true);
  } else if (lane < kTileX + kTileY) {
    const int row = lane - kTileX;
    taps_y[row] = cv2_tap(tile_y + row - image.offset_y, image.scale_y, image.height, false);
  }
  __syncthreads();
  const int y = tile_y + static_cast<int>(threadIdx.y);
  if (y >= args.height) return;
  for (int column = static_cast<int>(threadIdx.x); column < kTileX; column += kBlockX) {
    const int x = tile_x + column;
    if (x >= args.width) return;
    const Pixel pixel = shows_image(image, y, x)
                            ? sample(args, image, taps_x[column], taps_y[threadIdx.y])
                            : Pixel{{args.pad_value, args.pad_value, args.pad_value}};
    write_pixel(pixel, args, static_cast<int>(blockIdx.z), y, x);
  }
}
