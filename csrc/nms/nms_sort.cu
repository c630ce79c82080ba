// CUDA back end of nms.h, the first half: the order of the candidates, in two launches.
//
// nms_sort: a block sorts a tile of 2048 candidates by key (bitonic, in shared memory; no more than
//   the next power of two of what the tile holds).
//   Mapping: grid (capacity / 2048, batch), 1024 threads; blocks past the count leave at once.
// nms_place: a candidate's place is its place in its own tile, plus how many keys of every other
//   tile come before it, by binary search. Then it is copied there.
//   Mapping: one thread per candidate, grid (capacity / 256 + 1, batch), 256 threads. Neighbours
//   hold neighbouring keys, so a warp's searches read the same few lines.
// Work for n candidates: n/2 * 66 exchanges, then n * (n / 2048) * 12 reads: 5 million for 30,000
//   candidates, where comparing every pair takes 900 million. Pairs would win only below about 500
//   candidates (500 comparisons a thread, all broadcasts, against 45 exchanges and the second
//   launch's microsecond or two); the count is known on the device alone, so one path serves all.
// Filter: unwanted classes and infinite boxes get the key of what never takes part. Class ids are
//   read only where classes are filtered: 4 bytes a candidate more than the budget counts.
// Numerics: keys are integers, and no two eligible ones of an image are equal: the order is exact.
//
// budget: nms_sort registers<=64 spills=0 shared<=24576 launches=1 wide="load"
//   bytes="36*candidates"
// budget: nms_place registers<=64 spills=0 shared<=0 launches=1 wide="load,store"
//   bytes="56*candidates + 4"
#include "nms/box_device.cuh"
#include "nms/nms_kernels.h"

namespace visionrt {
namespace {

constexpr NmsKey kNeverKept = ~0ull;

__device__ __forceinline__ std::int32_t count_of(const NmsInputs& inputs, std::int32_t image) {
  if (inputs.counts == nullptr) return inputs.capacity;
  return max(0, min(inputs.capacity, inputs.counts[image]));
}

// Whether the bit of a class is set.
__device__ __forceinline__ bool is_wanted(const NmsFilter& filter, std::int32_t class_id) {
  return class_id >= 0 && class_id < kMaxFilterClasses &&
         (filter.classes[class_id / 32] >> (class_id % 32) & 1u) != 0;
}

// Orders by score descending, then source index ascending. No candidate that takes part has
// kNeverKept: a source index is below 2^31.
__device__ __forceinline__ NmsKey key_of(const NmsInputs& inputs, const NmsFilter& filter,
                                         std::size_t at, std::int32_t i) {
  const float score = inputs.scores[at];
  const Box box = load_box(inputs.boxes, at);
  if (!is_eligible(box, score) || (filter.finite_only && !is_finite(box))) return kNeverKept;
  if (filter.classes_only) {
    if (!is_wanted(filter, inputs.class_ids == nullptr ? 0 : inputs.class_ids[at])) {
      return kNeverKept;
    }
  }
  const std::int32_t source = inputs.source_index == nullptr ? i : inputs.source_index[at];
  return static_cast<NmsKey>(descending_key(score)) << 32 | static_cast<std::uint32_t>(source);
}

// How many of the ascending keys[0..count) are below `key`.
__device__ __forceinline__ std::int32_t keys_below(const NmsKey* keys, std::int32_t count,
                                                   NmsKey key) {
  std::int32_t below = 0;
  while (count > 0) {
    const std::int32_t half = count / 2;
    const bool go_right = keys[below + half] < key;
    below += go_right ? half + 1 : 0;
    count = go_right ? count - half - 1 : half;
  }
  return below;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kSortThreads)
    nms_sort(NmsInputs inputs, const __grid_constant__ NmsFilter filter, SortedTiles tiles) {
  __shared__ NmsKey keys[kSortTile];
  __shared__ std::uint16_t slots[kSortTile];  // where in the tile a key came from
  const std::int32_t image = blockIdx.y;
  const std::int32_t count = count_of(inputs, image);
  const std::int32_t first = blockIdx.x * kSortTile;
  if (first >= count) return;
  const std::int32_t live = min(kSortTile, count - first);
  std::int32_t size = 2;
  while (size < live) size *= 2;

  const std::size_t start = static_cast<std::size_t>(image) * inputs.capacity + first;
  const std::int32_t thread = threadIdx.x;
  for (std::int32_t i = thread; i < size; i += kSortThreads) {
    keys[i] = i < live ? key_of(inputs, filter, start + i, first + i) : kNeverKept;
    slots[i] = static_cast<std::uint16_t>(i);
  }
  __syncthreads();

  // A thread exchanges one pair a step. While the pairs are at most 32 apart, a warp's 32 pairs are
  // 64 neighbours that no other warp touches.
  const bool busy = thread < (size / 2 + 31) / 32 * 32;
  for (std::int32_t run = 2; run <= size; run *= 2) {
    for (std::int32_t apart = run / 2; apart > 0; apart /= 2) {
      const std::int32_t low = 2 * thread - (thread & (apart - 1)), high = low + apart;
      if (high < size) {
        const NmsKey a = keys[low], b = keys[high];
        const bool ascending = (low & run) == 0;
        if (ascending ? b < a : a < b) {
          keys[low] = b;
          keys[high] = a;
          const std::uint16_t slot = slots[low];
          slots[low] = slots[high];
          slots[high] = slot;
        }
      }
      // The step after this one, or the first of the next run.
      const std::int32_t next = apart > 1 ? apart / 2 : run;
      if (apart > 32 || (next > 32 && next < size)) {
        __syncthreads();
      } else if (busy) {
        __syncwarp();
      }
    }
  }
  __syncthreads();
  for (std::int32_t i = thread; i < live; i += kSortThreads) {
    tiles.keys[start + i] = keys[i];
    tiles.positions[start + i] = first + slots[i];
  }
}

extern "C" __global__ void __launch_bounds__(kPlaceThreads)
    nms_place(NmsInputs inputs, SortedTiles tiles, SortedCandidates sorted) {
  const std::int32_t image = blockIdx.y;
  const std::int32_t count = count_of(inputs, image);
  const std::int32_t i = blockIdx.x * kPlaceThreads + static_cast<std::int32_t>(threadIdx.x);
  if (i > count) return;
  const std::size_t start = static_cast<std::size_t>(image) * inputs.capacity;
  const NmsKey* keys = tiles.keys + start;
  // The place one past the last candidate counts as never kept: its rank is how many are eligible.
  const NmsKey own = i < count ? keys[i] : kNeverKept;
  if (i < count && own == kNeverKept) return;
  const std::int32_t own_tile = i < count ? i / kSortTile * kSortTile : count;
  std::int32_t rank = i - own_tile;
  for (std::int32_t tile = 0; tile < count; tile += kSortTile) {
    if (tile != own_tile) rank += keys_below(keys + tile, min(kSortTile, count - tile), own);
  }
  if (i == count) {
    sorted.counts[image] = min(rank, sorted.limit);
    return;
  }
  if (rank >= sorted.limit) return;
  const std::int32_t position = tiles.positions[start + i];
  const std::size_t to = static_cast<std::size_t>(image) * sorted.limit + rank;
  store_box(sorted.boxes, to, load_box(inputs.boxes, start + position));
  sorted.class_ids[to] = inputs.class_ids == nullptr ? 0 : inputs.class_ids[start + position];
  sorted.positions[to] = position;
}

}  // namespace visionrt
