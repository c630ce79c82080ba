// pil mode in three passes: tables of weights, the horizontal filter, the vertical filter and
// everything after it. The tables are made on the device, so that a captured graph needs no host
// memory; they cost one thread per row and column of the tensor.
//
// Mapping: preprocess_pil_tables      one thread per column, then per row, of the tensor
//          preprocess_pil_horizontal  block (32, 8); one thread per tensor column and needed source
//                                     row
//          preprocess_pil_vertical    block (32, 8); one thread per tensor pixel
//          Image blockIdx.z in each.
// Bytes: the horizontal pass reads each needed source pixel as often as filters overlap (twice when
//   reducing, through L1) and writes 8-bit rows of the tensor's width; the vertical pass reads
//   those likewise. The budgets' bytes count each once, for one float32 NCHW image.
// Numerics: preprocess.h. Weights are made in double, as Pillow does, and summed in integers.
//
// budget: preprocess_pil_tables registers<=64 spills=0 shared<=0 launches=1
//   bytes="8*(W + H) + 12*(w + h)"
// budget: preprocess_pil_horizontal registers<=64 spills=0 shared<=0 launches=1
//   bytes="3*W*H + 3*H*w"
// budget: preprocess_pil_vertical registers<=64 spills=0 shared<=0 launches=1
//   bytes="3*H*w + 12*h*w"
#include "preprocess/pixel.cuh"

namespace visionrt::preprocess {

// One axis' table: first[n], count[n], weights[taps][n].
__device__ inline void write_taps(std::int32_t* table, int n, int i, int position, double scale,
                                  int count) {
  const PilTaps taps = pil_taps(position, scale, count);
  table[i] = taps.first;
  table[n + i] = taps.count;
  pil_weights(taps, scale, table + 2 * static_cast<std::int64_t>(n) + i, n);
}

}  // namespace visionrt::preprocess

extern "C" __global__ void __launch_bounds__(128)
    preprocess_pil_tables(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  const DeviceImage& image = args.images[blockIdx.z];
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < args.width) {
    const int position = i - image.offset_x;
    if (position >= 0 && position < image.resized_w) {
      write_taps(image.table_x, args.width, i, position, image.scale_x, image.width);
    }
  } else if (i < args.width + args.height) {
    const int row = i - args.width, position = row - image.offset_y;
    if (position >= 0 && position < image.resized_h) {
      write_taps(image.table_y, args.height, row, position, image.scale_y, image.height);
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
    preprocess_pil_horizontal(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  const DeviceImage& image = args.images[blockIdx.z];
  const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int position = x - image.offset_x;
  if (x >= args.width || position < 0 || position >= image.resized_w) return;
  const int first = image.table_x[x], count = image.table_x[args.width + x];
  const std::int32_t* weights = image.table_x + 2 * static_cast<std::int64_t>(args.width) + x;
  const int row_step = static_cast<int>(gridDim.y * blockDim.y);
  for (int row = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y); row < image.filtered_rows;
       row += row_step) {
    const std::uint8_t* p = image.data + (image.filtered_first + row) * image.row_bytes +
                            3 * static_cast<std::int64_t>(first);
    int sums[3] = {kPilRound, kPilRound, kPilRound};
    for (int k = 0; k < count; ++k) {
      const Pixel pixel = read_pixel(p + 3 * static_cast<std::int64_t>(k), args, image);
      const int weight = weights[static_cast<std::int64_t>(k) * args.width];
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c] += pixel.channel[c] * weight;
    }
    std::uint8_t* out =
        image.filtered + (static_cast<std::int64_t>(row) * args.width + x) * args.channels;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if (c < args.channels) out[c] = static_cast<std::uint8_t>(pil_to_byte(sums[c]));
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
    preprocess_pil_vertical(const __grid_constant__ visionrt::preprocess::KernelArgs args) {
  using namespace visionrt::preprocess;
  const DeviceImage& image = args.images[blockIdx.z];
  const int x = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int y = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  if (x >= args.width || y >= args.height) return;
  Pixel pixel{{args.pad_value, args.pad_value, args.pad_value}};
  if (shows_image(image, y, x)) {
    const int first = image.table_y[y] - image.filtered_first;
    const int count = image.table_y[args.height + y];
    const std::int32_t* weights = image.table_y + 2 * static_cast<std::int64_t>(args.height) + y;
    int sums[3] = {kPilRound, kPilRound, kPilRound};
    for (int k = 0; k < count; ++k) {
      const std::uint8_t* p =
          image.filtered + (static_cast<std::int64_t>(first + k) * args.width + x) * args.channels;
      const int weight = weights[static_cast<std::int64_t>(k) * args.height];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        if (c < args.channels) sums[c] += p[c] * weight;
      }
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) pixel.channel[c] = pil_to_byte(sums[c]);
  }
  write_pixel(pixel, args, static_cast<int>(blockIdx.z), y, x);
}
