// One piece of device work: what a stream queues, and what a graph node records.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

struct CUkern_st {
  std::string name;
  std::vector<std::size_t> parameter_bytes;
};

namespace fake {

struct Operation {
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;

  // Kernels: the arguments are copied when the launch is queued, as the real driver does.
  CUkernel kernel = nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared_bytes = 0;
  std::vector<std::vector<unsigned char>> arguments;

  // Copies and fills: `rows` rows of `row_bytes`.
  unsigned char* to = nullptr;
  const unsigned char* from = nullptr;
  std::size_t row_bytes = 0, rows = 1, to_pitch = 0, from_pitch = 0;
  std::size_t element_bytes = 1;
  unsigned fill_value = 0;
  std::shared_ptr<std::vector<unsigned char>> staged;  // of pageable memory, when it was queued

  CUhostFn host_function = nullptr;
  void* host_data = nullptr;
};

Operation copy_of(void* to, const void* from, std::size_t bytes);
Operation fill_of(CUdeviceptr to, unsigned value, std::size_t element_bytes, std::size_t count);

// Does the work. The lock must not be held.
CUresult run(const Operation& operation);

}  // namespace fake
