// One bug a kernel, each beside its repair: the proof that the checker sees, and only what is
// there.
//
// Every kernel takes (out, in, n); threads of a grid number their elements i. SEEDED_BUG(name)
// makes `bug_name` and `fixed_name` of one body, in which kBug chooses.
#define SEEDED_BUG(name)                                                              \
  template <bool kBug>                                                                \
  __device__ __forceinline__ void name(int* out, const int* in, int n, int i);        \
  extern "C" __global__ void bug_##name(int* out, const int* in, int n) {             \
    name<true>(out, in, n, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));  \
  }                                                                                   \
  extern "C" __global__ void fixed_##name(int* out, const int* in, int n) {           \
    name<false>(out, in, n, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x)); \
  }                                                                                   \
  EMULATED_KERNEL(bug_##name)                                                         \
  EMULATED_KERNEL(fixed_##name)                                                       \
  template <bool kBug>                                                                \
  __device__ __forceinline__ void name(int* out, const int* in, int n, int i)

constexpr unsigned kAllLanes = 0xffffffffu;

// ---- data races ---------------------------------------------------------------------------------

SEEDED_BUG(missing_barrier) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = in[i];
  if (!kBug) __syncthreads();
  out[i] = tile[63 - t];
}

SEEDED_BUG(tile_reused_too_early) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    tile[t] = in[i] + round;
    __syncthreads();
    sum += tile[(t + 1) % 64];
    if (!kBug) __syncthreads();
  }
  out[i] = sum;
}

SEEDED_BUG(blocks_write_one_place) {
  if (threadIdx.x == 0) out[kBug ? 0 : blockIdx.x] = in[i];
}

SEEDED_BUG(block_reads_its_neighbours_output) {
  out[i] = in[i];
  if (kBug && i >= 64) out[i] += out[i - 64];
}

SEEDED_BUG(counter_without_atomics) {
  if (kBug) {
    if (in[i] % 2 == 0) out[0] += 1;
  } else {
    if (in[i] % 2 == 0) atomicAdd(out, 1);
  }
}

SEEDED_BUG(atomic_result_read_plainly) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, in[i]);
  if (!kBug) __syncthreads();
  out[i] = total;
}

SEEDED_BUG(warp_exchange_without_syncwarp) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = in[i];
  if (!kBug) __syncwarp();
  out[i] = tile[t ^ 1];
}

SEEDED_BUG(vote_taken_for_a_fence) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = in[i];
  const unsigned odd = __ballot_sync(kAllLanes, in[i] & 1);
  if (!kBug) __syncwarp();
  out[i] = tile[t ^ 1] + static_cast<int>(odd & 1u);
}

SEEDED_BUG(half_a_warp_synchronised) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  tile[t] = in[i];
  __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
  if (!kBug) __syncwarp();
  out[i] = tile[t ^ 16];
}

SEEDED_BUG(last_block_without_a_fence) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    out[1 + blockIdx.x] = in[i];
    if (!kBug) __threadfence();
    last = atomicAdd(out, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (last && threadIdx.x < gridDim.x) out[n / 2 + threadIdx.x] = out[1 + threadIdx.x];
}

SEEDED_BUG(neighbouring_bytes_of_one_word) {
  // Bytes side by side are no race; a word over four of them is.
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  if (kBug && threadIdx.x % 4 == 0) out[i / 4] = in[i];
  bytes[i] = static_cast<unsigned char>(in[i]);
}

// ---- unwritten memory ---------------------------------------------------------------------------

SEEDED_BUG(unwritten_shared) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  if (!kBug || t < 63) tile[t] = in[i];
  __syncthreads();
  out[i] = tile[63 - t];
}

SEEDED_BUG(shared_kept_from_another_block) {
  __shared__ int kept;
  if (threadIdx.x == 0 && (!kBug || blockIdx.x == 0)) kept = in[0];
  __syncthreads();
  out[i] = kept;
}

SEEDED_BUG(unwritten_global) {
  if (!kBug) out[i] = 0;
  out[i] += in[i];
}

// ---- bounds and alignment -----------------------------------------------------------------------

SEEDED_BUG(write_past_the_end) {
  if (kBug ? i <= n : i < n) out[i] = 1;
}

SEEDED_BUG(read_before_the_start) { out[i] = in[kBug || i > 0 ? i - 1 : 0]; }

SEEDED_BUG(grid_without_a_guard) {
  if (!kBug && i >= n) return;
  out[i] = in[i];
}

SEEDED_BUG(shared_index_past_the_end) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = in[i];
  __syncthreads();
  out[i] = tile[kBug ? t + 1 : (t + 1) % 64];
}

SEEDED_BUG(shared_read_past_the_end_by_pointer) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  const int* place = tile + (kBug ? t + 1 : 63 - t);
  tile[t] = in[i];
  __syncthreads();
  out[i] = *place;
}

SEEDED_BUG(shared_pointer_past_the_end) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  int* place = tile + t + (kBug ? 1 : 0);
  *place = in[i];
  out[i] = *place;
}

SEEDED_BUG(dynamic_shared_too_small) {
  extern __shared__ int dynamic[];
  const int t = static_cast<int>(threadIdx.x);
  if (kBug) {
    dynamic[t + 1] = in[i];
    out[i] = dynamic[t + 1];
  } else {
    dynamic[t] = in[i];
    out[i] = dynamic[t];
  }
}

SEEDED_BUG(misaligned_wide_load) {
  if (i >= n / 4 - 1) return;
  const int4 v = *reinterpret_cast<const int4*>(in + 4 * i + (kBug ? 1 : 0));
  out[i] = v.x + v.w;
}

SEEDED_BUG(misaligned_wide_store_to_shared) {
  __shared__ __align__(16) unsigned char bytes[64 * 20];
  auto* place = reinterpret_cast<int4*>(bytes + threadIdx.x * (kBug ? 20 : 16));
  *place = make_int4(i, i, i, i);
  out[i] = place->x + in[i];
}

// ---- barriers -----------------------------------------------------------------------------------

SEEDED_BUG(barrier_in_a_divergent_branch) {
  if (threadIdx.x < 40) {
    out[i] = in[i];
    if (kBug) __syncthreads();
  }
  if (!kBug) __syncthreads();
}

SEEDED_BUG(return_before_a_barrier) {
  if (kBug && i >= n - 8) return;
  __syncthreads();
  if (i < n - 8) out[i] = in[i];
}

SEEDED_BUG(two_barriers_for_two_halves) {
  if (kBug && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[i] = in[i];
}

SEEDED_BUG(barrier_in_a_loop_of_uneven_length) {
  const int rounds = kBug ? static_cast<int>(threadIdx.x) % 2 + 1 : 2;
  for (int round = 0; round < rounds; ++round) __syncthreads();
  out[i] = in[i];
}

SEEDED_BUG(blocks_wait_for_each_other) {
  // Nothing says that the blocks of an ordinary launch run side by side.
  if (threadIdx.x == 0) {
    atomicExch(&out[blockIdx.x], 1);
    while (kBug && atomicAdd(&out[(blockIdx.x + 1) % gridDim.x], 0) == 0) {
    }
  }
  if (i >= static_cast<int>(gridDim.x)) out[i] = in[i];
}

SEEDED_BUG(barrier_against_a_shuffle) {
  int v = in[i];
  if (kBug && threadIdx.x == 5) {
    __syncthreads();
  } else {
    v += __shfl_xor_sync(kAllLanes, v, 1);
    __syncthreads();
  }
  out[i] = v;
}

// ---- warp masks ---------------------------------------------------------------------------------

SEEDED_BUG(lane_outside_its_own_mask) {
  out[i] = __shfl_xor_sync(kBug ? 0x7fffffffu : kAllLanes, in[i], 1);
}

SEEDED_BUG(shuffle_from_a_lane_outside_the_mask) {
  int v = in[i];
  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffu, v, kBug ? 16 : 8);
  out[i] = v;
}

SEEDED_BUG(full_mask_in_a_divergent_branch) {
  int v = in[i];
  if (threadIdx.x % 32 < 16) v += __shfl_xor_sync(kBug ? kAllLanes : 0xffffu, v, 1);
  __syncwarp();
  out[i] = v;
}

SEEDED_BUG(lanes_disagree_on_the_mask) {
  const unsigned mask = kBug && threadIdx.x % 32 == 3 ? 0xfu : kAllLanes;
  out[i] = static_cast<int>(__ballot_sync(mask, in[i] > 0));
}

SEEDED_BUG(shuffle_from_an_exited_lane) {
  if (kBug && threadIdx.x % 32 >= 24) return;
  const int v = __shfl_down_sync(kAllLanes, in[i], 8);
  if (threadIdx.x % 32 < 24) out[i] = v;
}

SEEDED_BUG(vote_that_names_exited_lanes) {
  if (threadIdx.x % 32 == 31) return;
  out[i] = static_cast<int>(__ballot_sync(kBug ? kAllLanes : 0x7fffffffu, in[i] > 0));
}

SEEDED_BUG(one_mask_at_two_places) {
  int v = in[i];
  if (kBug && threadIdx.x % 2 == 0) {
    v += __shfl_xor_sync(kAllLanes, v, 1);
  } else {
    v += __shfl_xor_sync(kAllLanes, v, 1);
  }
  out[i] = v;
}
