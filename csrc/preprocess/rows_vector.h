// The row kernels, written once over the operations of simd.h. Each source that includes this file
// is compiled for one instruction set; everything here is local to it, so that the linker cannot
// give one level's code to another.
#pragma once

#include "preprocess/row_kernels.h"
#include "preprocess/sampling.h"
#include "preprocess/simd.h"

namespace visionrt::preprocess {
namespace {

constexpr int kBlock = 4 * kLanes;
constexpr int kVectorBytes = 16 * kLanes;

void blend_x(const std::uint8_t* pixels, const std::int32_t* first, const std::int16_t* weights,
             int count, std::int16_t* out) {
  const Vector pairs = every_lane(kPairs[0]);
  const auto blended = [&](int place) {
    const Vector two = shuffle(load_lanes(pixels, first + place), pairs);
    return shift_right_32<4>(
        multiply_pairs(two, load(weights + 8 * static_cast<std::ptrdiff_t>(place))));
  };
  for (int x = 0; x < count; x += kBlock, out += 4 * kBlock) {
    store(out, pack_32(blended(x), blended(x + kLanes)));
    store(out + 2 * kBlock, pack_32(blended(x + 2 * kLanes), blended(x + 3 * kLanes)));
  }
}

void blend_y(const std::int16_t* top, const std::int16_t* bottom, int w0, int w1, int count,
             std::uint32_t* pixels) {
  const Vector a = splat_16(w0), b = splat_16(w1), half = splat_16(2);
  const auto blended = [=](const std::int16_t* t, const std::int16_t* u) {
    const Vector sum = add_16(multiply_high(load(t), a), multiply_high(load(u), b));
    return shift_right_16<2>(add_16(sum, half));
  };
  for (int x = 0; x < count; x += kBlock, top += 4 * kBlock, bottom += 4 * kBlock) {
    store(pixels + x,
          pack_bytes(blended(top, bottom), blended(top + 2 * kBlock, bottom + 2 * kBlock)));
  }
}

// high * 2048 + low, rounded to a byte's range by the packs that follow.
inline Vector filtered(Vector high, Vector low) {
  const Vector sum = add_32(shift_left_32<kLowBits>(high), low);
  return shift_right_32<kPilBits>(add_32(sum, splat_32(kPilRound)));
}

void filter_x(const std::uint8_t* bytes, const std::int32_t* first, const std::int32_t* quads,
              const std::int16_t* weights, int count, std::uint32_t* pixels) {
  const Vector first_pairs = every_lane(kPairs[0]), second_pairs = every_lane(kPairs[1]);
  for (int x = 0; x < count; x += kBlock) {
    Vector sums[4];
    for (int j = 0; j < 4; ++j) {
      Vector high = zero(), low = zero();
      for (int q = 0; q < quads[x / kBlock]; ++q, weights += kQuadWeights * kLanes) {
        const Vector taps =
            load_lanes(bytes + 3 * kQuad * static_cast<std::ptrdiff_t>(q), first + x + j * kLanes);
        const Vector a = shuffle(taps, first_pairs), b = shuffle(taps, second_pairs);
        high = add_32(high, multiply_pairs(a, load(weights)));
        low = add_32(low, multiply_pairs(a, load(weights + 8 * kLanes)));
        high = add_32(high, multiply_pairs(b, load(weights + 16 * kLanes)));
        low = add_32(low, multiply_pairs(b, load(weights + 24 * kLanes)));
      }
      sums[j] = filtered(high, low);
    }
    store(pixels + x, pack_bytes(pack_32(sums[0], sums[1]), pack_32(sums[2], sums[3])));
  }
}

void filter_y(const std::uint32_t* const* rows, const std::int32_t* weights, int taps, int count,
              std::uint32_t* pixels) {
  for (int x = 0; x < count; x += kBlock) {
    Vector high[4], low[4];
    for (int i = 0; i < 4; ++i) high[i] = low[i] = zero();
    for (int k = 0; k < taps; k += 2) {
      const bool is_pair = k + 1 < taps;
      const std::int32_t w0 = weights[k], w1 = is_pair ? weights[k + 1] : 0;
      // Pairs of weights, as 32-bit values.
      const Vector highs = splat_32((w1 >> kLowBits) << 16 | w0 >> kLowBits);
      constexpr std::int32_t kLow = (1 << kLowBits) - 1;
      const Vector lows = splat_32((w1 & kLow) << 16 | (w0 & kLow));
      const Vector a = load(rows[k] + x), b = load(rows[is_pair ? k + 1 : k] + x);
      const Vector halves[2] = {interleave_low(a, b), interleave_high(a, b)};
      for (int i = 0; i < 4; ++i) {
        const Vector pair = i % 2 == 0 ? interleave_low(halves[i / 2], zero())
                                       : interleave_high(halves[i / 2], zero());
        high[i] = add_32(high[i], multiply_pairs(pair, highs));
        low[i] = add_32(low[i], multiply_pairs(pair, lows));
      }
    }
    store(pixels + x, pack_bytes(pack_32(filtered(high[0], low[0]), filtered(high[1], low[1])),
                                 pack_32(filtered(high[2], low[2]), filtered(high[3], low[3]))));
  }
}

// ---- stores -------------------------------------------------------------------------------------

inline void floats_of(const std::uint32_t* pixels, int count, int shift, float mean, float inv_std,
                      float* __restrict out) {
  for (int x = 0; x < count; ++x) {
    out[x] = normalise(static_cast<int>((pixels[x] >> shift) & 255u), mean, inv_std);
  }
}

// All three planes in one pass: a pixel is read once.
inline void store_float_planes(const std::uint32_t* pixels, int count, const StoreRow& row,
                               float* __restrict first, float* __restrict second,
                               float* __restrict third) {
  const int first_shift = row.reversed ? 16 : 0, third_shift = 16 - first_shift;
  const float m0 = row.mean[0], m1 = row.mean[1], m2 = row.mean[2];
  const float s0 = row.inv_std[0], s1 = row.inv_std[1], s2 = row.inv_std[2];
  for (int x = 0; x < count; ++x) {
    const std::uint32_t pixel = pixels[x];
    first[x] = normalise(static_cast<int>((pixel >> first_shift) & 255u), m0, s0);
    second[x] = normalise(static_cast<int>((pixel >> 8) & 255u), m1, s1);
    third[x] = normalise(static_cast<int>((pixel >> third_shift) & 255u), m2, s2);
  }
}

void store_planes(const std::uint32_t* pixels, int count, const StoreRow& row, int c, void* out) {
  const int shift = 8 * (row.reversed ? 2 - c : c);
  const float mean = row.mean[c], inv_std = row.inv_std[c];
  if (row.dtype == DType::kFloat32) {
    floats_of(pixels, count, shift, mean, inv_std, static_cast<float*>(out));
  } else if (row.dtype == DType::kUint8) {
    auto* bytes = static_cast<std::uint8_t*>(out);
    for (int x = 0; x < count; ++x) bytes[x] = static_cast<std::uint8_t>(pixels[x] >> shift);
  } else {
    constexpr int kStep = 128;
    auto* halves = static_cast<std::uint16_t*>(out);
    alignas(64) float values[kStep];
    for (int x = 0; x < count; x += kStep) {
      const int n = count - x < kStep ? count - x : kStep;
      floats_of(pixels + x, n, shift, mean, inv_std, values);
      to_halves(values, n / 8 * 8, halves + x);
      if (n % 8 == 0) continue;
      std::uint16_t last[8];
      to_halves(values + n / 8 * 8, 8, last);  // what is past the end is not kept
      memcpy(halves + x + n / 8 * 8, last, sizeof last[0] * static_cast<std::size_t>(n % 8));
    }
  }
}

// Three elements a pixel, written as four: the fourth is overwritten by the next pixel, so the last
// one is written apart.
template <class Element>
inline void store_pixels(const std::uint32_t* pixels, int count, const StoreRow& row,
                         Element* out) {
  typedef float Floats __attribute__((vector_size(16)));
  typedef std::int32_t Ints __attribute__((vector_size(16)));
  const Ints shift = row.reversed ? Ints{16, 8, 0, 0} : Ints{0, 8, 16, 0};
  const Floats mean = {row.mean[0], row.mean[1], row.mean[2], 0.0f};
  const Floats inv_std = {row.inv_std[0], row.inv_std[1], row.inv_std[2], 0.0f};
  alignas(32) Element last[8];
  for (int x = 0; x < count; ++x) {
    const auto pixel = static_cast<std::int32_t>(pixels[x]);
    const Ints bytes = (Ints{pixel, pixel, pixel, pixel} >> shift) & 255;
    const Floats values = (__builtin_convertvector(bytes, Floats) - mean) * inv_std;
    Element* to = x + 1 < count ? out + 3 * static_cast<std::ptrdiff_t>(x) : last;
    if constexpr (sizeof(Element) == sizeof(float)) {
      memcpy(to, &values, sizeof values);
    } else {
      float eight[8] = {};
      memcpy(eight, &values, sizeof values);
      std::uint16_t halves[8];
      to_halves(eight, 8, halves);
      memcpy(to, halves, 4 * sizeof(Element));
    }
  }
  if (count > 0) {
    memcpy(out + 3 * (static_cast<std::ptrdiff_t>(count) - 1), last, 3 * sizeof(Element));
  }
}

void store_interleaved_bytes(const std::uint32_t* pixels, int count, bool reversed,
                             std::uint8_t* out) {
  const int first = reversed ? 16 : 0;
  for (int x = 0; x < count; ++x, out += 3) {
    out[0] = static_cast<std::uint8_t>(pixels[x] >> first);
    out[1] = static_cast<std::uint8_t>(pixels[x] >> 8);
    out[2] = static_cast<std::uint8_t>(pixels[x] >> (16 - first));
  }
}

void store_row(const std::uint32_t* pixels, int count, const StoreRow& row, void* const out[3]) {
  if (!row.interleaved && row.channels == 3 && row.dtype == DType::kFloat32) {
    store_float_planes(pixels, count, row, static_cast<float*>(out[0]), static_cast<float*>(out[1]),
                       static_cast<float*>(out[2]));
  } else if (!row.interleaved || row.channels == 1) {
    for (int c = 0; c < row.channels; ++c) store_planes(pixels, count, row, c, out[c]);
  } else if (row.dtype == DType::kFloat32) {
    store_pixels(pixels, count, row, static_cast<float*>(out[0]));
  } else if (row.dtype == DType::kFloat16) {
    store_pixels(pixels, count, row, static_cast<std::uint16_t*>(out[0]));
  } else {
    store_interleaved_bytes(pixels, count, row.reversed, static_cast<std::uint8_t*>(out[0]));
  }
}

}  // namespace
}  // namespace visionrt::preprocess
