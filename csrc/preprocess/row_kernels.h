// The inner loops of preprocessing, one row at a time, for each instruction-set level.
//
// A pixel is four bytes here: the three channels of the source in the source's order (or one, of
// luma), and a byte that nobody reads. Four-byte pixels need no shuffle between the passes, and a
// 32-bit lane per pixel is what the stores to planes start from.
//
// Passes work on whole blocks of 4 * lanes pixels, where `lanes` is how many 128-bit lanes a vector
// has. In a block, the taps of pixel 4 * l + j lie at place j * lanes + l (place_in_block), and
// blended rows have an order of their own; with these, packing within lanes gives pixels in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "preprocess/dtype.h"

namespace visionrt::preprocess {

// Source bytes read from a first tap on.
constexpr int kLaneBytes = 16;
// Taps of the pil filter that one lane covers; 12 bytes of kLaneBytes.
constexpr int kQuad = 4;
// Weights of a quad: taps 0 and 1, then 2 and 3, each first the high parts, then the low ones; each
// of these is the pair of weights, once per channel.
constexpr int kQuadWeights = 32;
// A pil weight is high * 2048 + low, so that products fit into multiplications of 16 bits.
constexpr int kLowBits = 11;

// The widest block, in pixels; rows of pixels have room for a multiple of it.
constexpr int kMaxBlock = 16;
constexpr std::size_t padded_pixels(int count) {
  return (static_cast<std::size_t>(count) + kMaxBlock - 1) / kMaxBlock * kMaxBlock;
}

inline int place_in_block(int pixel, int lanes) {
  const int within = pixel % (4 * lanes);
  return pixel - within + within % 4 * lanes + within / 4;
}

// Where and how a row of pixels goes into the tensor.
struct StoreRow {
  DType dtype;
  bool interleaved;  // NHWC
  bool reversed;     // the tensor's channels are in the other order than the pixel's bytes
  int channels;      // 3 or 1
  const float* mean;
  const float* inv_std;
  // float16 of each byte, [3][256]; only read at levels that have no conversion.
  const std::uint16_t* halves;
};

struct RowKernels {
  int lanes;

  // cv2, three channels. Blends `count` pixels, a multiple of the block, horizontally:
  //   cv2_blend_x(p[c], p[c + 3], w0, w1) with p = pixels + first
  // `weights` has w0, w1 four times per pixel; `out` gets four values per pixel.
  void (*blend_x)(const std::uint8_t* pixels, const std::int32_t* first,
                  const std::int16_t* weights, int count, std::int16_t* out);

  // cv2. Blends two such rows vertically into pixels.
  void (*blend_y)(const std::int16_t* top, const std::int16_t* bottom, int w0, int w1, int count,
                  std::uint32_t* pixels);

  // pil, three channels. Filters `count` pixels, a multiple of the block, horizontally. Each block
  // has quads[block] quads per pixel. `weights` has, by block, by j (see place_in_block), by quad:
  // for each part of kQuadWeights, 8 weights per lane.
  void (*filter_x)(const std::uint8_t* bytes, const std::int32_t* first, const std::int32_t* quads,
                   const std::int16_t* weights, int count, std::uint32_t* pixels);

  // pil. The weighted sum of rows[0 ... taps), rounded to bytes.
  void (*filter_y)(const std::uint32_t* const* rows, const std::int32_t* weights, int taps,
                   int count, std::uint32_t* pixels);

  // Writes `count` pixels; out[c] is where channel c of the first one goes. Interleaved: out[0].
  void (*store)(const std::uint32_t* pixels, int count, const StoreRow& row, void* const out[3]);
};

// The kernels of the level in use (cpu/level.h).
const RowKernels& row_kernels();

extern const RowKernels kScalarRows;
#if defined(__x86_64__)
extern const RowKernels kAvx2Rows, kAvx512Rows;
#elif defined(__aarch64__)
extern const RowKernels kNeonRows;
#endif

}  // namespace visionrt::preprocess
