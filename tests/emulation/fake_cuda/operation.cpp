#include "operation.h"

#include <cstring>

#include "emulator.h"
#include "memory.h"
#include "state.h"

namespace fake {
namespace {

// Checked when the work is done, not only when it is queued: memory may be gone by then.
CUresult check_rows(const char* what, const void* start, std::size_t pitch, std::size_t row_bytes,
                    std::size_t rows) {
  if (rows == 0 || row_bytes == 0) return CUDA_SUCCESS;
  const std::size_t span = pitch * (rows - 1) + row_bytes;
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (reachable(start, span)) return CUDA_SUCCESS;
  report(std::string(what) + " of " + std::to_string(span) + " bytes outside live memory");
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

CUresult run_copy(const Operation& op) {
  const unsigned char* from = op.staged ? op.staged->data() : op.from;
  CUresult result = check_rows("copy to memory", op.to, op.to_pitch, op.row_bytes, op.rows);
  if (result == CUDA_SUCCESS && !op.staged) {
    result = check_rows("copy from memory", op.from, op.from_pitch, op.row_bytes, op.rows);
  }
  if (result != CUDA_SUCCESS) return result;
  for (std::size_t row = 0; row < op.rows; ++row) {
    std::memmove(op.to + row * op.to_pitch, from + row * op.from_pitch, op.row_bytes);
    mark_written(op.to + row * op.to_pitch, op.row_bytes);
  }
  return CUDA_SUCCESS;
}

CUresult run_fill(const Operation& op) {
  const CUresult result = check_rows("fill", op.to, op.to_pitch, op.row_bytes, op.rows);
  if (result != CUDA_SUCCESS) return result;
  for (std::size_t row = 0; row < op.rows; ++row) {
    unsigned char* start = op.to + row * op.to_pitch;
    for (std::size_t at = 0; at < op.row_bytes; at += op.element_bytes) {
      std::memcpy(start + at, &op.fill_value, op.element_bytes);
    }
    mark_written(start, op.row_bytes);
  }
  return CUDA_SUCCESS;
}

CUresult run_kernel(const Operation& op) {
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    ++state().calls["execute"];
    const CUresult fault = injected("execute");
    if (fault != CUDA_SUCCESS) return fault;
  }
  return launch_emulated(op);
}

CUresult run_host(const Operation& op) {
  in_host_function() = true;
  op.host_function(op.host_data);
  in_host_function() = false;
  return CUDA_SUCCESS;
}

}  // namespace

Operation copy_of(void* to, const void* from, std::size_t bytes) {
  Operation op;
  op.type = CU_GRAPH_NODE_TYPE_MEMCPY;
  op.to = static_cast<unsigned char*>(to);
  op.from = static_cast<const unsigned char*>(from);
  op.row_bytes = op.to_pitch = op.from_pitch = bytes;
  return op;
}

Operation fill_of(CUdeviceptr to, unsigned value, std::size_t element_bytes, std::size_t count) {
  Operation op;
  op.type = CU_GRAPH_NODE_TYPE_MEMSET;
  op.to = reinterpret_cast<unsigned char*>(to);
  op.fill_value = value;
  op.element_bytes = element_bytes;
  op.row_bytes = op.to_pitch = element_bytes * count;
  return op;
}

CUresult run(const Operation& operation) {
  switch (operation.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return run_kernel(operation);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return run_copy(operation);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return run_fill(operation);
    case CU_GRAPH_NODE_TYPE_HOST:
      return run_host(operation);
    default:
      return CUDA_SUCCESS;
  }
}

}  // namespace fake
