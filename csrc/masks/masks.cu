// CUDA back end of masks.h: products, crop and upsampling in one launch; nothing in between is
// stored.
//
// Mapping: a block (8, 32) makes a tile of 128 x 32 window pixels of detection blockIdx.z; a thread
//   makes 16 side by side and stores them at once, or one by one where rows are not aligned. A tile
//   outside its box is zeros at once.
// Taps: as in preprocess_cv2, the double arithmetic of positions is paid once per row and column of
//   a tile.
// Sums: the block then makes the sums of the prototype pixels under its part of the box in shared
//   memory, each once; at the usual 4 : 1 that is 34 x 10 of them for 4096 pixels. Where a tile
//   covers more than 2048 (a window smaller than the prototypes), each tap is summed when it is
//   needed: the same operations in the same order, hence the same bits.
// Bytes: the prototypes once (they stay in L2), each mask once.
// Numerics: masks.h; compiled without contraction.
//
// budget: instance_masks registers<=64 spills=0 shared<=10240 launches=1 wide="store"
//   bytes="4*mask_channels*prototypes + kept*(h*w + 4*mask_channels + 16)"
#include "masks/mask_kernels.h"
#include "masks/mask_sampling.h"

namespace visionrt {
namespace {

// Unrolled, so that several channels are on their way; not where four copies would stand.
template <int kUnrolled>
__device__ __forceinline__ float prototype_sum(const MaskInputs& in, const float* coefficients,
                                               std::int32_t y, std::int32_t x) {
  const std::size_t plane = static_cast<std::size_t>(in.prototype_h) * in.prototype_w;
  const float* at = in.prototypes + static_cast<std::size_t>(y) * in.prototype_w + x;
  float sum = 0.0f;
#pragma unroll kUnrolled
  for (std::int32_t channel = 0; channel < in.channels; ++channel) {
    sum += coefficients[channel] * at[channel * plane];
  }
  return sum;
}

// Four bits, lowest first, as four bytes of 0 or 1.
__device__ __forceinline__ unsigned four_bytes(unsigned bits) {
  return (bits & 1u) | (bits & 2u) << 7 | (bits & 4u) << 14 | (bits & 8u) << 21;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kMaskThreadsX* kMaskThreadsY)
    instance_masks(const __grid_constant__ MaskInputs in, std::uint8_t* masks) {
  __shared__ float sums[kMaskSums];
  __shared__ MaskTap taps_x[kMaskTileX];
  __shared__ MaskTap taps_y[kMaskTileY];
  const std::int32_t detection = blockIdx.z;
  const std::int32_t tile_x = blockIdx.x * kMaskTileX, tile_y = blockIdx.y * kMaskTileY;
  const float* coefficients = in.coefficients + static_cast<std::size_t>(detection) * in.channels;

  // The part of the box in this tile.
  MaskSpan columns{0, 0}, rows{0, 0};
  if (in.count == nullptr || detection < *in.count) {
    const Box box = in.boxes[detection];
    columns = mask_span(box.x1, box.x2, in.width);
    rows = mask_span(box.y1, box.y2, in.height);
    columns = {max(columns.first, tile_x), min(columns.end, tile_x + kMaskTileX)};
    rows = {max(rows.first, tile_y), min(rows.end, tile_y + kMaskTileY)};
  }
  const bool any = !columns.empty() && !rows.empty();
  const std::int32_t thread = threadIdx.y * kMaskThreadsX + threadIdx.x;
  if (any && thread < kMaskTileX) {
    taps_x[thread] = mask_tap(tile_x + thread, in.x, in.prototype_w);
  } else if (any && thread < kMaskTileX + kMaskTileY) {
    taps_y[thread - kMaskTileX] = mask_tap(tile_y + thread - kMaskTileX, in.y, in.prototype_h);
  }
  __syncthreads();
  std::int32_t left = 0, top = 0, sums_w = 0, sums_h = 0;
  if (any) {
    left = taps_x[columns.first - tile_x].first;
    top = taps_y[rows.first - tile_y].first;
    sums_w = taps_x[columns.end - 1 - tile_x].second - left + 1;
    sums_h = taps_y[rows.end - 1 - tile_y].second - top + 1;
  }
  const bool kept = static_cast<std::int64_t>(sums_w) * sums_h <= kMaskSums;
  if (any && kept) {
    for (std::int32_t i = thread; i < sums_w * sums_h; i += kMaskThreadsX * kMaskThreadsY) {
      sums[i] = prototype_sum<8>(in, coefficients, top + i / sums_w, left + i % sums_w);
    }
  }
  __syncthreads();

  const std::int32_t x = tile_x + static_cast<std::int32_t>(threadIdx.x) * kMaskRun;
  const std::int32_t y = tile_y + static_cast<std::int32_t>(threadIdx.y);
  if (y >= in.height || x >= in.width) return;
  unsigned run = 0;  // a bit a pixel: an array would be indexed at run time
  if (any && y >= rows.first && y < rows.end) {
    const MaskTap tap_y = taps_y[threadIdx.y];
    const auto sum_at = [&](std::int32_t py, std::int32_t px) {
      return kept ? sums[(py - top) * sums_w + px - left]
                  : prototype_sum<1>(in, coefficients, py, px);
    };
    for (std::int32_t i = 0; i < kMaskRun; ++i) {
      if (x + i < columns.first || x + i >= columns.end) continue;
      const MaskTap tap = taps_x[x + i - tile_x];
      const float upper =
          mask_blend(sum_at(tap_y.first, tap.first), sum_at(tap_y.first, tap.second), tap.weight);
      const float lower =
          mask_blend(sum_at(tap_y.second, tap.first), sum_at(tap_y.second, tap.second), tap.weight);
      if (mask_blend(upper, lower, tap_y.weight) > in.threshold) run |= 1u << i;
    }
  }
  std::uint8_t* out = masks + (static_cast<std::size_t>(detection) * in.height + y) * in.width + x;
  if (in.width % kMaskRun == 0 && reinterpret_cast<std::uintptr_t>(masks) % kMaskRun == 0) {
    *reinterpret_cast<uint4*>(out) = make_uint4(four_bytes(run), four_bytes(run >> 4),
                                                four_bytes(run >> 8), four_bytes(run >> 12));
    return;
  }
  for (std::int32_t i = 0; i < min(kMaskRun, in.width - x); ++i) {
    out[i] = static_cast<std::uint8_t>(run >> i & 1u);
  }
}

}  // namespace visionrt
