// Every family of intrinsics once, for the test of the emulation against NumPy.
#include <cuda_fp16.h>

constexpr unsigned kAllLanes = 0xffffffffu;

// out[11][threads]: one row an intrinsic, over one warp or more.
extern "C" __global__ void warp_intrinsics(const int* in, int* out, int width, int operand) {
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int v = in[t];
  int row = 0;
  const auto put = [&](int value) { out[row++ * threads + t] = value; };
  put(__shfl_sync(kAllLanes, v, operand, width));
  put(__shfl_up_sync(kAllLanes, v, static_cast<unsigned>(operand), width));
  put(__shfl_down_sync(kAllLanes, v, static_cast<unsigned>(operand), width));
  put(__shfl_xor_sync(kAllLanes, v, operand, width));
  put(static_cast<int>(__ballot_sync(kAllLanes, v > 0)));
  put(__any_sync(kAllLanes, v > 90));
  put(__all_sync(kAllLanes, v > -90));
  put(__syncthreads_count(v > 0));
  put(__syncthreads_or(v > 95) != 0);
  put(__syncthreads_and(v > -99) != 0);
  // Eight bytes, and a mask of half a warp.
  const double d = t % 32 < 16 ? __shfl_xor_sync(0xffffu, v * 0.5, 1) : 0.0;
  put(static_cast<int>(2 * d));
}

// counters: sum, least, greatest, and, or, xor, wrapped, exchanged; slots[i]: who got place i.
extern "C" __global__ void atomics(const int* in, int n, int* counters, int* slots, float* sum,
                                   unsigned* wrapped) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  atomicAdd(&counters[0], in[i]);
  atomicMin(&counters[1], in[i]);
  atomicMax(&counters[2], in[i]);
  atomicAnd(&counters[3], in[i]);
  atomicOr(&counters[4], in[i]);
  atomicXor(&counters[5], in[i]);
  slots[atomicAdd(&counters[6], 1)] = i;
  atomicAdd(sum, 0.5f);
  atomicInc(wrapped, 6u);
  int seen = 0, expected;
  do {
    expected = seen;
    seen = atomicCAS(&counters[7], expected, expected + 3);
  } while (seen != expected);
}

extern "C" __global__ void half_conversions(const float* in, unsigned short* halves, float* back) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const __half half = __float2half_rn(in[i]);
  halves[i] = __half_as_ushort(half);
  back[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(i)));
}

// out[4][n]
extern "C" __global__ void bits(const unsigned* a, const unsigned* b, unsigned* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  out[i] = static_cast<unsigned>(__popc(a[i]));
  out[n + i] = static_cast<unsigned>(__ffs(static_cast<int>(a[i])));
  out[2 * n + i] = static_cast<unsigned>(__clz(static_cast<int>(a[i])));
  out[3 * n + i] = __umulhi(a[i], b[i]);
}

__constant__ int kPowers[4] = {1, 10, 100, 1000};
template <class T>
struct Scales {
  static constexpr T values[2] = {3, 7};
};

// Tables of constants are not device memory, and need not be registered.
extern "C" __global__ void constants(const int* in, int* out) {
  const int t = static_cast<int>(threadIdx.x);
  out[t] = kPowers[in[t]] * Scales<int>::values[in[t] % 2];
}

// Leaves the indices of a three-dimensional launch.
extern "C" __global__ void indices(uint4* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      make_uint4(block, threadIdx.x, threadIdx.y, threadIdx.z);
}

// The order in which threads came, by a counter.
extern "C" __global__ void arrival(int* counter, int* order) {
  order[atomicAdd(counter, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// The smallest consumer: reads what another launch should have written.
extern "C" __global__ void copy(const int* in, int* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i];
}
