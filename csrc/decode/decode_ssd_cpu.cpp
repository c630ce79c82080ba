// CPU back end of the SSD head. Raw scores are compared first, so that an activation is computed
// only for anchors that can pass.
#include <cmath>
#include <limits>

#include "decode/decode.h"
#include "decode/scan.h"

namespace visionrt {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// log(p / (1 - p)) at 0.999 of the threshold: nothing below can pass, and the margin is far above
// what float32 activations round away. -inf (skip nothing) for thresholds outside (0, 1).
float logit_floor(float threshold) {
  if (!(threshold > 0.0f && threshold < 1.0f)) return kLowest;
  const double p = 0.999 * threshold;
  return static_cast<float>(std::log(p / (1.0 - p)));
}

float best_foreground(const float* scores, const SsdHead& head) {
  const auto count = static_cast<std::size_t>(head.num_classes);
  if (head.background < 0) return max_above(scores, count, kLowest);
  const auto background = static_cast<std::size_t>(head.background);
  const float before = max_above(scores, background, kLowest);
  return max_above(scores + background + 1, count - background - 1, before);
}

Softmax softmax_of(const float* scores, std::int32_t count) {
  Softmax softmax{max_above(scores, static_cast<std::size_t>(count), kLowest), 0.0f};
  constexpr std::int32_t kLanes = 32;
  float lanes[kLanes] = {};
  for (std::int32_t id = 0; id < count; ++id) {
    lanes[id % kLanes] += exp_float32(scores[id] - softmax.largest);
  }
  for (std::int32_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int32_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  softmax.sum = lanes[0];
  return softmax;
}

}  // namespace

Candidates decode_ssd_cpu(const float* box_codes, const float* scores, const float* anchors,
                          const SsdHead& head, const DecodeOptions& options) {
  check_decode_options(options);
  Candidates found;
  const float threshold = options.score_threshold;
  const float floor = logit_floor(threshold);
  for (std::int32_t anchor = 0; anchor < head.anchors; ++anchor) {
    const float* row = scores + static_cast<std::ptrdiff_t>(anchor) * head.num_classes;
    const float best = best_foreground(row, head);
    if (head.activation == Activation::kNone && !(best > threshold)) continue;
    if (head.activation == Activation::kSigmoid && best < floor) continue;
    // A softmax over the background alone bounds the softmax over all classes from above.
    if (head.activation == Activation::kSoftmax && head.background >= 0 &&
        best - row[head.background] < floor) {
      continue;
    }
    const Softmax softmax =
        head.activation == Activation::kSoftmax ? softmax_of(row, head.num_classes) : Softmax{};
    const std::ptrdiff_t code = static_cast<std::ptrdiff_t>(anchor) * 4;
    for (std::int32_t id = 0; id < head.num_classes; ++id) {
      if (id == head.background || !(options.multi_label || row[id] == best)) continue;
      const float score = activated_score(row[id], head.activation, softmax);
      if (score > threshold) {
        found.append(box_from_anchor(box_codes + code, head.x_first, anchors + code, head.scales,
                                     head.input_height, head.input_width),
                     score, id, anchor);
      }
      if (!options.multi_label) break;
    }
  }
  found.keep_best(options.max_candidates);
  return found;
}

}  // namespace visionrt
