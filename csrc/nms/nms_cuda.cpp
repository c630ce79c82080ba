// Launches of nms_sort.cu, nms.cu and nms_rotated.cu.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "nms/nms_kernels.h"
#include "nms/nms_rotated.h"

namespace visionrt {
namespace {

constexpr std::size_t kAlignment = 256;

// Hands out parts of one block of device memory; with a null block it only measures.
class Carver {
 public:
  explicit Carver(void* block) : address_(reinterpret_cast<std::uintptr_t>(block)) {}

  template <class T>
  T* take(std::size_t count) {
    T* part = reinterpret_cast<T*>(address_ + used_);
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  }
  std::size_t used() const { return used_; }

 private:
  std::uintptr_t address_;
  std::size_t used_ = 0;
};

struct Workspace {
  SortedTiles tiles;
  SortedCandidates sorted;
  KeptList kept;
  RotatedBox* kept_rotated;
  std::size_t bytes;
};

Workspace carve(void* block, std::int32_t batch, std::int32_t capacity, const NmsOptions& options,
                bool rotated) {
  const std::int32_t limit = std::min(capacity, options.max_candidates);
  const std::size_t places = static_cast<std::size_t>(batch) * capacity;
  const std::size_t sorted_places = static_cast<std::size_t>(batch) * limit;
  const std::size_t kept_places = static_cast<std::size_t>(batch) * options.max_det;
  Carver carver(block);
  Workspace workspace{};
  workspace.tiles.keys = carver.take<NmsKey>(places);
  workspace.tiles.positions = carver.take<std::int32_t>(places);
  workspace.sorted.boxes = carver.take<Box>(sorted_places);
  if (rotated) {
    workspace.kept_rotated = carver.take<RotatedBox>(kept_places);
  } else {
    workspace.kept.boxes = carver.take<Box>(kept_places);
  }
  workspace.sorted.class_ids = carver.take<std::int32_t>(sorted_places);
  workspace.sorted.positions = carver.take<std::int32_t>(sorted_places);
  workspace.kept.class_ids = carver.take<std::int32_t>(kept_places);
  workspace.sorted.counts = carver.take<std::int32_t>(static_cast<std::size_t>(batch));
  workspace.sorted.limit = limit;
  workspace.bytes = carver.used();
  return workspace;
}

void check_sizes(std::int32_t batch, std::int32_t capacity) {
  if (batch < 0 || batch > 65535) {
    throw std::invalid_argument("batch must be 0 to 65535, got " + std::to_string(batch));
  }
  if (capacity < 0 || capacity > INT32_MAX - kSortTile) {
    throw std::invalid_argument("capacity is out of range: " + std::to_string(capacity));
  }
}

}  // namespace

std::size_t nms_cuda_workspace_bytes(std::int32_t batch, std::int32_t capacity,
                                     const NmsOptions& options) {
  check_nms_options(options);
  check_sizes(batch, capacity);
  return carve(nullptr, batch, capacity, options, false).bytes;
}

std::size_t nms_rotated_cuda_workspace_bytes(std::int32_t batch, std::int32_t capacity,
                                             const NmsOptions& options) {
  check_nms_options(options);
  check_sizes(batch, capacity);
  return carve(nullptr, batch, capacity, options, true).bytes;
}

namespace {

void check_memory(const NmsInputs& inputs, const NmsOptions& options, const NmsOutputs& outputs,
                  const void* workspace, std::size_t workspace_bytes, std::size_t needed) {
  if (workspace_bytes < needed) {
    throw std::invalid_argument("the NMS workspace must have " + std::to_string(needed) +
                                " bytes or more, got " + std::to_string(workspace_bytes));
  }
  const ExtraColumns& extra = outputs.extra;
  if (extra.columns < 0 || extra.classes < 1 ||
      (extra.columns > 0 && outputs.detections == nullptr)) {
    throw std::invalid_argument(
        "extra columns must be 0 or more, with detections and 1 class or more");
  }
  const std::int64_t values = static_cast<std::int64_t>(options.max_det) * extra.columns;
  if (values > INT32_MAX - kGreedyThreads) {  // the kernel counts them, a block's step beyond
    throw std::invalid_argument("max_det * extra columns must be at most " +
                                std::to_string(INT32_MAX - kGreedyThreads) + ", got " +
                                std::to_string(values));
  }
  if (reinterpret_cast<std::uintptr_t>(inputs.boxes) % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(outputs.detections) % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(workspace) % kAlignment != 0) {
    throw std::invalid_argument(
        "boxes and detections must be aligned to 16 bytes and the workspace to 256");
  }
}

// Queues nms_sort and nms_place.
void put_in_order(const NmsInputs& inputs, const NmsFilter& filter, const Workspace& parts,
                  cuda::StreamHandle stream) {
  const auto images = static_cast<unsigned>(inputs.batch);
  const auto tiles = static_cast<unsigned>(std::max(1, (inputs.capacity - 1) / kSortTile + 1));
  cuda::launch("nms_sort", {{tiles, images, 1}, {kSortThreads, 1, 1}, 0}, stream, inputs, filter,
               parts.tiles);
  // One thread more than candidates: it counts the eligible ones.
  const auto blocks = static_cast<unsigned>(inputs.capacity / kPlaceThreads + 1);
  cuda::launch("nms_place", {{blocks, images, 1}, {kPlaceThreads, 1, 1}, 0}, stream, inputs,
               parts.tiles, parts.sorted);
}

cuda::LaunchShape one_block_per_image(std::int32_t images) {
  return {{static_cast<unsigned>(images), 1, 1}, {kGreedyThreads, 1, 1}, 0};
}

// Everything that a block of nms_greedy finds by its image's number.
struct GreedyWork {
  NmsInputs inputs;
  SortedCandidates sorted;
  KeptList kept;
  NmsOutputs outputs;
};

template <class T>
void advance(T*& pointer, std::size_t count) {
  if (pointer != nullptr) pointer += count;
}

// The same from image `first` on.
GreedyWork from_image(GreedyWork work, std::int32_t first, std::int32_t max_det) {
  const auto images = static_cast<std::size_t>(first);
  const std::size_t places = images * static_cast<std::size_t>(work.inputs.capacity);
  const std::size_t sorted = images * static_cast<std::size_t>(work.sorted.limit);
  const std::size_t kept = images * static_cast<std::size_t>(max_det);
  advance(work.inputs.boxes, places);
  advance(work.inputs.scores, places);
  advance(work.inputs.class_ids, places);
  advance(work.inputs.source_index, places);
  advance(work.inputs.counts, images);
  advance(work.sorted.boxes, sorted);
  advance(work.sorted.class_ids, sorted);
  advance(work.sorted.positions, sorted);
  advance(work.sorted.counts, images);
  advance(work.kept.boxes, kept);
  advance(work.kept.class_ids, kept);
  advance(work.outputs.kept, kept);
  advance(work.outputs.kept_counts, images);
  advance(work.outputs.detections, kept);
  advance(work.outputs.extra.values,
          images * static_cast<std::size_t>(work.outputs.extra.image_stride));
  advance(work.outputs.extra.out, kept * static_cast<std::size_t>(work.outputs.extra.columns));
  return work;
}

}  // namespace

void nms_cuda(const NmsInputs& inputs, const NmsFilter& filter, const NmsOptions& options,
              const ImageMap* maps, void* workspace, std::size_t workspace_bytes,
              const NmsOutputs& outputs, cuda::StreamHandle stream) {
  check_memory(inputs, options, outputs, workspace, workspace_bytes,
               nms_cuda_workspace_bytes(inputs.batch, inputs.capacity, options));
  if (inputs.batch == 0) return;
  const Workspace parts = carve(workspace, inputs.batch, inputs.capacity, options, false);
  put_in_order(inputs, filter, parts, stream);
  const std::int32_t at_once = maps == nullptr ? inputs.batch : kMaxMappedImages;
  for (std::int32_t first = 0; first < inputs.batch; first += at_once) {
    const std::int32_t images = std::min(at_once, inputs.batch - first);
    RowMaps row_maps;
    if (maps != nullptr) {
      row_maps.enabled = true;
      std::copy_n(maps + first, images, row_maps.images);
    }
    const GreedyWork work =
        from_image({inputs, parts.sorted, parts.kept, outputs}, first, options.max_det);
    cuda::launch("nms_greedy", one_block_per_image(images), stream, work.inputs, options,
                 work.sorted, work.kept, work.outputs, row_maps);
  }
}

void nms_rotated_cuda(const NmsInputs& inputs, const AngleView& angles, const NmsFilter& filter,
                      const NmsOptions& options, void* workspace, std::size_t workspace_bytes,
                      const NmsOutputs& outputs, cuda::StreamHandle stream) {
  check_memory(inputs, options, outputs, workspace, workspace_bytes,
               nms_rotated_cuda_workspace_bytes(inputs.batch, inputs.capacity, options));
  if (inputs.batch == 0) return;
  const Workspace parts = carve(workspace, inputs.batch, inputs.capacity, options, true);
  put_in_order(inputs, filter, parts, stream);
  cuda::launch("nms_rotated_greedy", one_block_per_image(inputs.batch), stream, inputs, angles,
               options, parts.sorted, parts.kept, parts.kept_rotated, outputs);
}

}  // namespace visionrt
