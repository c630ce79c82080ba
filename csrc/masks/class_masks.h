// Contract: the classes of an image's pixels from a grid of scores, sampled where the pixels lie.
//
// Column j of the image lies among the grid's columns between first[j] and first[j] + 1, with
// weight[j] on the latter; an index past the last column means the last. A negative first[j] is a
// column that the model did not see: class 0, confidence 0 there. Rows likewise.
//
// Numerics: a sample is made along y, then along x, as a + weight * (b - a) in float32, product and
// addition rounded separately. Ties go to the lower class. The logistic function is float32, within
// 4 units in the last place of 1.
#pragma once

#include <cstdint>

namespace visionrt {

// One axis of the image. Both arrays have `count` elements.
struct SampledAxis {
  const std::int32_t* first = nullptr;
  const float* weight = nullptr;
  std::int32_t count = 0;
};

struct ClassGrid {
  const float* scores = nullptr;  // [classes, height, width]
  const float* values = nullptr;  // the same shape: the confidence of each class; null: the scores
  std::int32_t classes = 0;       // 1 to 65536
  std::int32_t height = 0, width = 0;
};

// Throws std::invalid_argument for a grid without elements or with too many classes, and
// std::out_of_range for an axis that points outside of the grid.
void check_class_grid(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y);

// mask [y.count, x.count]: the class with the largest sample; confidence: the sample of `values`
// there. Id is uint8 (at most 256 classes) or uint16. Blocks; allocates a few rows.
template <class Id>
void class_mask_cpu(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y, Id* mask,
                    float* confidence);

// One class, whose sample, or with `is_logit` the logistic function of it, is the probability p of
// class 1: mask is p >= threshold, confidence is p there and 1 - p elsewhere. Otherwise as above.
void binary_mask_cpu(const ClassGrid& grid, const SampledAxis& x, const SampledAxis& y,
                     bool is_logit, float threshold, std::uint8_t* mask, float* confidence);

}  // namespace visionrt
