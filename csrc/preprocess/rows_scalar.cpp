// The row kernels in plain loops: for processors without vectors that we know, and the reference of
// the other levels.
#include "cpu/level.h"
#include "preprocess/row_kernels.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {
namespace {

std::uint32_t pixel_of(const int values[3]) {
  return static_cast<std::uint32_t>(values[0]) | static_cast<std::uint32_t>(values[1]) << 8 |
         static_cast<std::uint32_t>(values[2]) << 16;
}

void blend_x(const std::uint8_t* pixels, const std::int32_t* first, const std::int16_t* weights,
             int count, std::int16_t* out) {
  for (int x = 0; x < count; ++x, weights += 8, out += 4) {
    const std::uint8_t* p = pixels + first[x];
    for (int c = 0; c < 3; ++c) {
      out[c] = static_cast<std::int16_t>(cv2_blend_x(p[c], p[c + 3], weights[0], weights[1]));
    }
  }
}

void blend_y(const std::int16_t* top, const std::int16_t* bottom, int w0, int w1, int count,
             std::uint32_t* pixels) {
  for (int x = 0; x < count; ++x, top += 4, bottom += 4) {
    int values[3];
    for (int c = 0; c < 3; ++c) values[c] = cv2_blend_y(top[c], bottom[c], w0, w1);
    pixels[x] = pixel_of(values);
  }
}

void filter_x(const std::uint8_t* bytes, const std::int32_t* first, const std::int32_t* quads,
              const std::int16_t* weights, int count, std::uint32_t* pixels) {
  for (int x = 0; x < count; ++x) {
    int sums[3] = {kPilRound, kPilRound, kPilRound};
    const std::uint8_t* p = bytes + first[x];
    for (int q = 0; q < quads[x / 4]; ++q, p += 3 * kQuad, weights += kQuadWeights) {
      for (int k = 0; k < kQuad; ++k) {
        const std::int16_t* w = weights + k / 2 * 16 + k % 2;
        const int weight = w[0] * (1 << kLowBits) + w[8];
        for (int c = 0; c < 3; ++c) sums[c] += p[3 * k + c] * weight;
      }
    }
    int values[3];
    for (int c = 0; c < 3; ++c) values[c] = pil_to_byte(sums[c]);
    pixels[x] = pixel_of(values);
  }
}

void filter_y(const std::uint32_t* const* rows, const std::int32_t* weights, int taps, int count,
              std::uint32_t* pixels) {
  for (int x = 0; x < count; ++x) {
    int values[3] = {kPilRound, kPilRound, kPilRound};
    for (int k = 0; k < taps; ++k) {
      for (int c = 0; c < 3; ++c) {
        values[c] += static_cast<int>((rows[k][x] >> (8 * c)) & 255u) * weights[k];
      }
    }
    for (int& value : values) value = pil_to_byte(value);
    pixels[x] = pixel_of(values);
  }
}

void store_row(const std::uint32_t* pixels, int count, const StoreRow& row, void* const out[3]) {
  const std::ptrdiff_t step = row.interleaved ? row.channels : 1;
  for (int c = 0; c < row.channels; ++c) {
    void* plane = row.interleaved ? out[0] : out[c];
    const std::ptrdiff_t from = row.interleaved ? c : 0;
    const int shift = 8 * (row.reversed ? 2 - c : c);
    for (int x = 0; x < count; ++x) {
      const auto byte = static_cast<std::uint8_t>(pixels[x] >> shift);
      const std::ptrdiff_t at = from + step * x;
      if (row.dtype == DType::kFloat32) {
        static_cast<float*>(plane)[at] = normalise(byte, row.mean[c], row.inv_std[c]);
      } else if (row.dtype == DType::kFloat16) {
        static_cast<std::uint16_t*>(plane)[at] = row.halves[256 * c + byte];
      } else {
        static_cast<std::uint8_t*>(plane)[at] = byte;
      }
    }
  }
}

}  // namespace

const RowKernels kScalarRows{1, blend_x, blend_y, filter_x, filter_y, store_row};

const RowKernels& row_kernels() {
  switch (cpu::level()) {
#if defined(__x86_64__)
    case cpu::Level::kAvx2:
      return kAvx2Rows;
    case cpu::Level::kAvx512:
      return kAvx512Rows;
#elif defined(__aarch64__)
    case cpu::Level::kNeon:
      return kNeonRows;
#endif
    default:
      return kScalarRows;
  }
}

}  // namespace visionrt::preprocess
