// CUDA back end of nms.h, the second half: the greedy walk. nms_sort.cu puts the candidates in
// order.
//
// nms_greedy: one block per image, as nms/greedy.cuh says.
//   Mapping: grid batch, 512 threads.
// Bytes: the boxes kept so far are read again for each chunk, out of L1 and L2.
// Numerics: float32 as in nms/box.h, contraction off: the CPU back end's indices, bit for bit. Rows
//   are mapped to the image as preprocess.py's boxes_to_image maps them.
//
// budget: nms_greedy registers<=64 spills=0 shared<=5120 launches=1 wide="load,store"
//   bytes="20*candidates + 88*kept + 4"
#include "nms/greedy.cuh"

namespace visionrt {
namespace {

struct UprightWalk {
  using Shape = Box;
  const Box* boxes;
  Box* kept;
  const RowMaps& maps;

  __device__ __forceinline__ Box load(std::size_t place) const { return load_box(boxes, place); }
  __device__ __forceinline__ void finish(Detection& row, std::size_t place,
                                         std::int32_t image) const {
    row.box = load_box(boxes, place);
    if (maps.enabled) row.box = mapped(row.box, maps.images[image]);
    row.extra = static_cast<float>(row.class_id);
  }
  static __device__ __forceinline__ Box fetch(const Box* from, std::size_t i) {
    return load_box(from, i);
  }
  static __device__ __forceinline__ void store(Box* to, std::size_t i, const Box& box) {
    store_box(to, i, box);
  }
  static __device__ __forceinline__ bool is_usable(const Box&) { return true; }
  static __device__ __forceinline__ bool suppresses(const Box& first, const Box& second,
                                                    float threshold) {
    return visionrt::suppresses(first, area_of(first), second, area_of(second), threshold);
  }
};

}  // namespace

// Two blocks a multiprocessor are more than a batch brings; for more, ptxas spills on sm_100.
extern "C" __global__ void __launch_bounds__(kGreedyThreads, 2)
    nms_greedy(NmsInputs inputs, NmsOptions options, SortedCandidates sorted, KeptList kept,
               NmsOutputs outputs, const __grid_constant__ RowMaps maps) {
  greedy_walk(UprightWalk{sorted.boxes, kept.boxes, maps}, inputs, options, sorted, kept, outputs);
}

}  // namespace visionrt
