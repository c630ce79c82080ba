// Copies and fills. Page-locked memory is read when the copy runs, pageable memory when it is
// queued: a program that reuses a page-locked buffer too early shows here as on a real device.
#include "memory.h"
#include "state.h"
#include "stream.h"

using fake::Operation;
using fake::stream_of;

namespace {

enum Direction { kToDevice, kToHost, kOnDevice };

const void* pointer(CUdeviceptr address) { return reinterpret_cast<const void*>(address); }
void* writable(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

bool in_device_memory(const void* start, std::size_t bytes) {
  return fake::is_device(start) && fake::reachable(start, bytes);
}

std::size_t span(std::size_t pitch, const Operation& op) {
  return op.rows == 0 || op.row_bytes == 0 ? 0 : pitch * (op.rows - 1) + op.row_bytes;
}

CUresult queue(CUstream handle, Operation op, Direction direction, fake::Call& call) {
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (span(1, op) == 0) return CUDA_SUCCESS;
  if (direction != kToHost && !in_device_memory(op.to, span(op.to_pitch, op))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool reads_device = op.type == CU_GRAPH_NODE_TYPE_MEMCPY && direction != kToDevice;
  if (reads_device && !in_device_memory(op.from, span(op.from_pitch, op))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool stages = direction == kToDevice && !fake::is_pinned(op.from);
  if (stages) {
    const std::size_t bytes = span(op.from_pitch, op);
    op.staged = std::make_shared<std::vector<unsigned char>>(op.from, op.from + bytes);
  }
  const bool waits = direction == kToHost && !fake::is_pinned(op.to);
  if (waits && stream->capture) {
    return fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  const auto line = stream->queue;
  const CUresult result = fake::submit(stream, std::move(op), call.lock);
  return waits && result == CUDA_SUCCESS ? fake::advance(line, line->queued, call.lock) : result;
}

// A call without a stream goes through the legacy stream, which is not allowed in a capture.
CUresult queue_now(Operation op, Direction direction, fake::Call& call) {
  if (fake::refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return queue(nullptr, std::move(op), direction, call);
}

bool is_host(CUmemorytype type) { return type == CU_MEMORYTYPE_HOST; }

CUresult describe(const CUDA_MEMCPY2D* copy, Operation& op, Direction& direction) {
  if (copy->srcMemoryType == CU_MEMORYTYPE_ARRAY || copy->dstMemoryType == CU_MEMORYTYPE_ARRAY) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  const bool from_host = is_host(copy->srcMemoryType), to_host = is_host(copy->dstMemoryType);
  if (from_host && to_host) return CUDA_ERROR_INVALID_VALUE;
  const auto* from =
      static_cast<const unsigned char*>(from_host ? copy->srcHost : pointer(copy->srcDevice));
  auto* to = static_cast<unsigned char*>(to_host ? copy->dstHost : writable(copy->dstDevice));
  op = fake::copy_of(to + copy->dstY * copy->dstPitch + copy->dstXInBytes,
                     from + copy->srcY * copy->srcPitch + copy->srcXInBytes, copy->WidthInBytes);
  op.rows = copy->Height;
  op.to_pitch = copy->dstPitch;
  op.from_pitch = copy->srcPitch;
  if (op.to_pitch < op.row_bytes || op.from_pitch < op.row_bytes) return CUDA_ERROR_INVALID_VALUE;
  direction = from_host ? kToDevice : to_host ? kToHost : kOnDevice;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, std::size_t bytes,
                                   CUstream stream) {
  FAKE_ENTER(kContext);
  return queue(stream, fake::copy_of(writable(to), from, bytes), kToDevice, call);
}

CUresult CUDAAPI cuMemcpyDtoHAsync(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  FAKE_ENTER(kContext);
  return queue(stream, fake::copy_of(to, pointer(from), bytes), kToHost, call);
}

CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes,
                                   CUstream stream) {
  FAKE_ENTER(kContext);
  return queue(stream, fake::copy_of(writable(to), pointer(from), bytes), kOnDevice, call);
}

CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr to, const void* from, std::size_t bytes) {
  FAKE_ENTER(kContext);
  return queue_now(fake::copy_of(writable(to), from, bytes), kToDevice, call);
}

CUresult CUDAAPI cuMemcpyDtoH(void* to, CUdeviceptr from, std::size_t bytes) {
  FAKE_ENTER(kContext);
  return queue_now(fake::copy_of(to, pointer(from), bytes), kToHost, call);
}

CUresult CUDAAPI cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
  FAKE_ENTER(kContext);
  return queue_now(fake::copy_of(writable(to), pointer(from), bytes), kOnDevice, call);
}

CUresult CUDAAPI cuMemcpy2DAsync(const CUDA_MEMCPY2D* copy, CUstream stream) {
  FAKE_ENTER(kContext);
  Operation op;
  Direction direction = kOnDevice;
  const CUresult result = describe(copy, op, direction);
  return result != CUDA_SUCCESS ? result : queue(stream, std::move(op), direction, call);
}

CUresult CUDAAPI cuMemcpy2D(const CUDA_MEMCPY2D* copy) {
  FAKE_ENTER(kContext);
  Operation op;
  Direction direction = kOnDevice;
  const CUresult result = describe(copy, op, direction);
  return result != CUDA_SUCCESS ? result : queue_now(std::move(op), direction, call);
}

CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count,
                                 CUstream stream) {
  FAKE_ENTER(kContext);
  return queue(stream, fake::fill_of(to, value, 1, count), kOnDevice, call);
}

CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr to, unsigned int value, std::size_t count,
                                  CUstream stream) {
  FAKE_ENTER(kContext);
  if (to % 4 != 0) return CUDA_ERROR_INVALID_VALUE;
  return queue(stream, fake::fill_of(to, value, 4, count), kOnDevice, call);
}

CUresult CUDAAPI cuMemsetD8(CUdeviceptr to, unsigned char value, std::size_t count) {
  FAKE_ENTER(kContext);
  return queue_now(fake::fill_of(to, value, 1, count), kOnDevice, call);
}
