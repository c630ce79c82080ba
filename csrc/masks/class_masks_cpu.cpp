// The CPU back end: a row of the image at a time. The image is mostly wider than the grid, so the
// pixels between two neighbouring columns of the grid are sampled together, eight at a time.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "compiler.h"
#include "masks/class_masks.h"

namespace visionrt {
namespace {

constexpr std::int32_t kAtOnce = 8;

// Pixels from `begin` on that lie behind the same column of the grid; they end at the next run.
struct Run {
  std::int32_t begin, column;
};

// The columns that the model saw, as runs, and room for what a row needs.
struct Columns {
  explicit Columns(const SampledAxis& x, std::int32_t grid_width)
      : begin(static_cast<std::int32_t>(
            std::find_if(x.first, x.first + x.count, [](std::int32_t at) { return at >= 0; }) -
            x.first)),
        end(x.count),
        weights(x.weight, x.weight + x.count),
        blended(static_cast<std::size_t>(grid_width) + 1),
        steps(static_cast<std::size_t>(grid_width)) {
    while (end > begin && x.first[end - 1] < 0) --end;
    for (std::int32_t j = begin; j < end; ++j) {
      if (runs.empty() || runs.back().column != x.first[j]) runs.push_back({j, x.first[j]});
    }
    weights.resize(weights.size() + kAtOnce);
  }

  std::int32_t begin, end;  // outside of these the model saw nothing
  std::vector<Run> runs;
  std::vector<float> weights;
  std::vector<float> blended, steps;  // of the grid's columns: the value, and to the next one
};

VISIONRT_VECTOR_CLONES
void blend_rows(const float* __restrict top, const float* __restrict bottom, float weight,
                std::int32_t count, float* __restrict out) {
  for (std::int32_t j = 0; j < count; ++j) out[j] = top[j] + weight * (bottom[j] - top[j]);
}

// Writes up to kAtOnce - 1 elements past `end`.
VISIONRT_VECTOR_CLONES
void sample_runs(const Run* runs, std::size_t count, std::int32_t end, const float* blended,
                 const float* steps, const float* weights, float* out) {
  for (std::size_t r = 0; r < count; ++r) {
    const std::int32_t stop = r + 1 < count ? runs[r + 1].begin : end;
    const float value = blended[runs[r].column], step = steps[runs[r].column];
    // What is written past the run is written again by the next one.
    for (std::int32_t j = runs[r].begin; j < stop; j += kAtOnce) {
      float eight[kAtOnce];
      for (std::int32_t k = 0; k < kAtOnce; ++k) eight[k] = value + weights[j + k] * step;
      std::memcpy(out + j, eight, sizeof eight);
    }
  }
}

// Row `first` of the grid's plane and the one after it, blended and sampled at every column.
void sample_row(const float* plane, const ClassGrid& grid, std::int32_t first, float weight,
                Columns& columns, float* out) {
  const auto width = static_cast<std::size_t>(grid.width);
  const float* top = plane + static_cast<std::size_t>(first) * width;
  const float* bottom = first + 1 < grid.height ? top + width : top;
  float* blended = columns.blended.data();
  blend_rows(top, bottom, weight, grid.width, blended);
  blended[width] = blended[width - 1];
  for (std::size_t j = 0; j < width; ++j) columns.steps[j] = blended[j + 1] - blended[j];
  sample_runs(columns.runs.data(), columns.runs.size(), columns.end, blended, columns.steps.data(),
              columns.weights.data(), out);
}

VISIONRT_VECTOR_CLONES
void take_larger(const float* __restrict samples, std::int32_t class_id, std::int32_t count,
                 float* __restrict best, std::int32_t* __restrict ids) {
  for (std::int32_t j = 0; j < count; ++j) {
    const bool is_larger = samples[j] > best[j];
    ids[j] = is_larger ? class_id : ids[j];
    best[j] = is_larger ? samples[j] : best[j];
  }
}

// exp(x) for x in -87 ... 88, by 2^n * exp(r), |r| <= ln 2 / 2, and the Taylor series of exp(r) to
// r^7, whose remainder is below 2^-27. NaN stays NaN.
[[gnu::always_inline]] inline float exponential(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const float shifted = x * 1.44269504f + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float sum = 1.0f / 5040.0f;
  sum = sum * r + 1.0f / 720.0f;
  sum = sum * r + 1.0f / 120.0f;
  sum = sum * r + 1.0f / 24.0f;
  sum = sum * r + 1.0f / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the low bits of `shifted` are n
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}

VISIONRT_VECTOR_CLONES
void logistic(float* values, std::int32_t count) {
  for (std::int32_t j = 0; j < count; ++j) {
    float x = -values[j];
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    values[j] = 1.0f / (1.0f + exponential(x));
  }
}

VISIONRT_VECTOR_CLONES
void compare(const float* __restrict probabilities, float threshold, std::int32_t count,
             std::uint8_t* __restrict mask, float* __restrict confidence) {
  // Two loops and no branch: GCC leaves one loop that does both scalar.
  for (std::int32_t j = 0; j < count; ++j) mask[j] = probabilities[j] >= threshold ? 1 : 0;
  for (std::int32_t j = 0; j < count; ++j) {
    const float p = probabilities[j], rest = 1.0f - p;
    confidence[j] = p >= threshold ? p : rest;
  }
}

// Where row i of the image goes; what the model did not see of it is written here.
template <class Id>
struct Row {
  Row(std::int32_t i, const SampledAxis& x, const SampledAxis& y, const Columns& columns, Id* masks,
      float* confidences)
      : is_seen(y.first[i] >= 0 && columns.begin < columns.end) {
    const auto width = static_cast<std::size_t>(x.count);
    mask = masks + static_cast<std::size_t>(i) * width;
    confidence = confidences + static_cast<std::size_t>(i) * width;
    const std::int32_t begin = is_seen ? columns.begin : x.count;
    const std::int32_t end = is_seen ? columns.end : x.count;
    std::fill(mask, mask + begin, Id{0});
    std::fill(confidence, confidence + begin, 0.0f);
    std::fill(mask + end, mask + x.count, Id{0});
    std::fill(confidence + end, confidence + x.count, 0.0f);
  }

  bool is_seen;
  Id* mask;
  float* confidence;
};

void check_axis(const char* name, const SampledAxis& axis, std::int32_t cells) {
  bool was_seen = false, has_ended = false;
  for (std::int32_t i = 0; i < axis.count; ++i) {
    const bool is_seen = axis.first[i] >= 0;
    if (axis.first[i] >= cells) {
      throw std::out_of_range("expected " + std::string(name) + " below " + std::to_string(cells) +
                              ", got " + std::to_string(axis.first[i]));
    }
    if (is_seen && has_ended) {
      throw std::invalid_argument("expected what is outside in " + std::string(name) +
                                  " at its ends, got some at " + std::to_string(i - 1));
    }
    has_ended = was_seen && !is_seen;
    was_seen = was_seen || is_seen;
  }
}

}  // namespace

void check_class_grid(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y) {
  if (grid.classes < 1 || grid.classes > 65536 || grid.height < 1 || grid.width < 1) {
    throw std::invalid_argument("expected 1 to 65536 classes and a grid with cells, got " +
                                std::to_string(grid.classes) + " classes of " +
                                std::to_string(grid.height) + " x " + std::to_string(grid.width));
  }
  check_axis("x0", x, grid.width);
  check_axis("y0", y, grid.height);
}

template <class Id>
void class_mask_cpu(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y, Id* mask,
                    float* confidence) {
  Columns columns(x, grid.width);
  const auto room = static_cast<std::size_t>(x.count) + kAtOnce;
  const std::size_t area = static_cast<std::size_t>(grid.height) * grid.width;
  std::vector<float> best(room), samples(room);
  std::vector<std::int32_t> ids(room);
  const std::int32_t begin = columns.begin, count = columns.end - columns.begin;
  for (std::int32_t i = 0; i < y.count; ++i) {
    const Row<Id> row(i, x, y, columns, mask, confidence);
    if (!row.is_seen) continue;
    const std::int32_t first = y.first[i];
    std::fill(ids.begin(), ids.end(), 0);
    sample_row(grid.scores, grid, first, y.weight[i], columns, best.data());
    for (std::int32_t c = 1; c < grid.classes; ++c) {
      sample_row(grid.scores + static_cast<std::size_t>(c) * area, grid, first, y.weight[i],
                 columns, samples.data());
      take_larger(samples.data() + begin, c, count, best.data() + begin, ids.data() + begin);
    }
    std::copy(ids.begin() + begin, ids.begin() + columns.end, row.mask + begin);
    if (grid.values == nullptr) {
      std::copy(best.begin() + begin, best.begin() + columns.end, row.confidence + begin);
      continue;
    }
    const std::size_t below = first + 1 < grid.height ? static_cast<std::size_t>(grid.width) : 0;
    const float weight = y.weight[i];
    for (std::int32_t j = begin; j < columns.end; ++j) {
      const float* top = grid.values + static_cast<std::size_t>(ids[j]) * area +
                         static_cast<std::size_t>(first) * grid.width;
      const std::int32_t left = x.first[j], right = std::min(left + 1, grid.width - 1);
      const float a = top[left] + weight * (top[below + left] - top[left]);
      const float b = top[right] + weight * (top[below + right] - top[right]);
      row.confidence[j] = a + x.weight[j] * (b - a);
    }
  }
}

template void class_mask_cpu(const ClassGrid&, const SampledAxis&, const SampledAxis&,
                             std::uint8_t*, float*);
template void class_mask_cpu(const ClassGrid&, const SampledAxis&, const SampledAxis&,
                             std::uint16_t*, float*);

void binary_mask_cpu(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y,
                     bool is_logit, float threshold, std::uint8_t* mask, float* confidence) {
  Columns columns(x, grid.width);
  std::vector<float> samples(static_cast<std::size_t>(x.count) + kAtOnce);
  const std::int32_t begin = columns.begin, count = columns.end - columns.begin;
  for (std::int32_t i = 0; i < y.count; ++i) {
    const Row<std::uint8_t> row(i, x, y, columns, mask, confidence);
    if (!row.is_seen) continue;
    sample_row(grid.scores, grid, y.first[i], y.weight[i], columns, samples.data());
    if (is_logit) logistic(samples.data() + begin, count);
    compare(samples.data() + begin, threshold, count, row.mask + begin, row.confidence + begin);
  }
}

}  // namespace visionrt
