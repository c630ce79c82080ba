// The greedy walk of one image's ordered candidates by one block, for any shape of box.
//
// It walks the places in chunks of 128, and ends at max_det. Each chunk: (1) test against the kept
// boxes, 4 threads per candidate; (2) overlap bits of the chunk's pairs, one warp per row; (3) one
// thread walks the bits; (4) the survivors are written side by side.
//
// `Walk` has: Shape, of 16-byte parts; load(place), of the candidates in order; store(array, i,
// shape) and fetch(array, i), in 16-byte accesses; is_usable(shape);
// suppresses(first, second, threshold), first being the one that is kept; finish(row, place, image)
// fills in `box` and `extra` of a row.
//
// In the end the extra columns of the rows are gathered, if any, a thread per value.
#pragma once

#include "nms/box_device.cuh"
#include "nms/nms_kernels.h"

namespace visionrt {
namespace {

constexpr std::int32_t kChunk = 128;
constexpr std::int32_t kWords = kChunk / 32;
constexpr std::int32_t kParts = kGreedyThreads / kChunk;
constexpr unsigned kAllThreads = 0xffffffffu;

__device__ __forceinline__ bool bit_of(const unsigned* words, std::int32_t i) {
  return (words[i / 32] >> (i % 32) & 1u) != 0;
}

__device__ __forceinline__ void store_row(Detection* rows, std::size_t i, const Detection& row) {
  auto* words = reinterpret_cast<float4*>(rows + i);
  words[0] = make_float4(row.box.x1, row.box.y1, row.box.x2, row.box.y2);
  words[1] =
      make_float4(row.score, row.extra, __int_as_float(row.class_id), __int_as_float(row.source));
}

template <class Walk>
__device__ __forceinline__ void greedy_walk(const Walk& walk, const NmsInputs& inputs,
                                            const NmsOptions& options,
                                            const SortedCandidates& sorted, const KeptList& kept,
                                            const NmsOutputs& outputs) {
  using Shape = typename Walk::Shape;
  alignas(16) __shared__ Shape shapes[kChunk];
  __shared__ std::int32_t class_ids[kChunk];
  __shared__ unsigned overlaps[kChunk][kWords];
  __shared__ unsigned removed[kWords];
  __shared__ unsigned survivors[kWords];
  __shared__ std::int32_t kept_count;

  const std::int32_t thread = threadIdx.x;
  const std::int32_t lane = thread % 32;
  const std::int32_t image = blockIdx.x;
  const std::size_t sorted_start = static_cast<std::size_t>(image) * sorted.limit;
  const std::size_t kept_start = static_cast<std::size_t>(image) * options.max_det;
  const std::int32_t total = sorted.counts[image];
  const float threshold = options.iou_threshold;
  const bool any_class = !options.class_aware;
  if (thread == 0) kept_count = 0;

  for (std::int32_t start = 0; start < total; start += kChunk) {
    const std::int32_t size = min(kChunk, total - start);
    if (thread < size) {
      Walk::store(shapes, thread, walk.load(sorted_start + start + thread));
      class_ids[thread] = sorted.class_ids[sorted_start + start + thread];
    }
    if (thread < kWords) {
      // Places past the end count as removed.
      const std::int32_t live = max(0, min(32, size - 32 * thread));
      removed[thread] = live == 32 ? 0u : kAllThreads << live;
    }
    __syncthreads();
    const std::int32_t already = kept_count;
    if (already >= options.max_det) break;

    // 1. A warp holds 32 candidates and one part of the kept boxes, so each read is a broadcast.
    const std::int32_t candidate = thread % kChunk;
    bool hit = false;
    if (candidate < size) {
      const Shape own = Walk::fetch(shapes, candidate);
      hit = !Walk::is_usable(own);
      for (std::int32_t k = thread / kChunk; k < already && !hit; k += kParts) {
        hit = (any_class || kept.class_ids[kept_start + k] == class_ids[candidate]) &&
              Walk::suppresses(Walk::fetch(walk.kept, kept_start + k), own, threshold);
      }
    }
    const unsigned hits = __ballot_sync(kAllThreads, hit);
    if (lane == 0 && hits != 0) atomicOr(&removed[candidate / 32], hits);
    __syncthreads();

    // 2. Bit c of row r: r suppresses c, which comes after it. Rows already removed are never read.
    for (std::int32_t row = thread / 32; row < size; row += kGreedyThreads / 32) {
      if (bit_of(removed, row)) continue;
      const Shape own = Walk::fetch(shapes, row);
      for (std::int32_t word = row / 32; word < kWords; ++word) {
        const std::int32_t column = 32 * word + lane;
        bool overlap = false;
        if (column > row && column < size && (any_class || class_ids[column] == class_ids[row])) {
          overlap = Walk::suppresses(own, Walk::fetch(shapes, column), threshold);
        }
        const unsigned bits = __ballot_sync(kAllThreads, overlap);
        if (lane == 0) overlaps[row][word] = bits;
      }
    }
    __syncthreads();

    // 3. The greedy walk: only survivors cost a step.
    if (thread == 0) {
      std::int32_t room = options.max_det - already;
      for (std::int32_t word = 0; word < kWords; ++word) {
        unsigned chosen = 0;
        unsigned alive = ~removed[word];
        while (alive != 0 && room > 0) {
          const std::int32_t bit = __ffs(static_cast<int>(alive)) - 1;
          chosen |= 1u << bit;
          --room;
          for (std::int32_t w = word; w < kWords; ++w) removed[w] |= overlaps[32 * word + bit][w];
          alive &= ~(removed[word] | 1u << bit);
        }
        survivors[word] = chosen;
      }
      kept_count = options.max_det - room;
    }
    __syncthreads();

    // 4. Place each survivor after those before it.
    if (thread < size && bit_of(survivors, thread)) {
      std::int32_t slot = already + __popc(survivors[thread / 32] & ((1u << lane) - 1u));
      for (std::int32_t word = 0; word < thread / 32; ++word) slot += __popc(survivors[word]);
      const std::size_t to = kept_start + slot;
      const std::int32_t position = sorted.positions[sorted_start + start + thread];
      Walk::store(walk.kept, to, Walk::fetch(shapes, thread));
      kept.class_ids[to] = class_ids[thread];
      outputs.kept[to] = position;
      if (outputs.detections != nullptr) {
        const std::size_t from = static_cast<std::size_t>(image) * inputs.capacity + position;
        Detection row{};
        row.score = inputs.scores[from];
        row.class_id = class_ids[thread];
        row.source = inputs.source_index == nullptr ? position : inputs.source_index[from];
        walk.finish(row, sorted_start + start + thread, image);
        store_row(outputs.detections, to, row);
      }
    }
  }

  __syncthreads();
  const std::int32_t found = kept_count;
  if (thread == 0) outputs.kept_counts[image] = found;
  const ExtraColumns& extra = outputs.extra;
  for (std::int32_t i = thread; i < found * extra.columns; i += kGreedyThreads) {
    const std::int32_t slot = i / extra.columns, column = i % extra.columns;
    const std::int32_t anchor = outputs.detections[kept_start + slot].source / extra.classes;
    extra.out[(kept_start + slot) * extra.columns + column] =
        extra.values[image * extra.image_stride + anchor * extra.anchor_stride +
                     column * extra.column_stride];
  }
  for (std::int32_t slot = found + thread; slot < options.max_det; slot += kGreedyThreads) {
    outputs.kept[kept_start + slot] = -1;
    if (outputs.detections != nullptr) store_row(outputs.detections, kept_start + slot, {});
  }
}

}  // namespace
}  // namespace visionrt
