#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "emulator.h"
#include "stream.h"

namespace fake {
namespace {

constexpr std::size_t kGuardBytes = 512;  // also the alignment
constexpr unsigned char kGuard = 0xFD, kFresh = 0xCD, kFreed = 0xDD;

// Every address ever handed out, so that a freed one is not taken for ordinary host memory.
std::map<std::uintptr_t, std::size_t>& retired() {
  static auto* all = new std::map<std::uintptr_t, std::size_t>;
  return *all;
}

template <class Map>
auto holder(Map& map, std::uintptr_t address) {
  auto after = map.upper_bound(address);
  return after == map.begin() ? map.end() : std::prev(after);
}

void* allocate(std::size_t bytes, MemoryKind kind, CUcontext owner) {
  const std::size_t body = (bytes + kGuardBytes - 1) / kGuardBytes * kGuardBytes;
  auto* raw = static_cast<unsigned char*>(std::aligned_alloc(kGuardBytes, body + 2 * kGuardBytes));
  if (raw == nullptr) return nullptr;
  std::memset(raw, kGuard, body + 2 * kGuardBytes);
  unsigned char* base = raw + kGuardBytes;
  std::memset(base, kFresh, bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(base);
  // New memory may lie where old memory was.
  auto& old = retired();
  for (auto at = old.begin(); at != old.end();) {
    const bool overlaps = at->first < address + bytes && address < at->first + at->second;
    at = overlaps ? old.erase(at) : std::next(at);
  }
  state().allocations[address] = {bytes, kind, owner, raw};
  if (kind == MemoryKind::kDevice) {
    state().used_bytes += bytes;
    announce(base, bytes);
  }
  return base;
}

void check_guards(const Allocation& allocation) {
  const unsigned char* raw = allocation.raw;
  const unsigned char* base = raw + kGuardBytes;
  const auto touched = [](unsigned char byte) { return byte != kGuard; };
  if (std::any_of(raw, base, touched) ||
      std::any_of(base + allocation.bytes, base + allocation.bytes + kGuardBytes, touched)) {
    report("memory of " + std::to_string(allocation.bytes) + " bytes was written out of bounds");
  }
}

CUresult release(const void* start, MemoryKind kind) {
  const auto found = state().allocations.find(reinterpret_cast<std::uintptr_t>(start));
  if (found == state().allocations.end() || found->second.kind != kind) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Allocation allocation = found->second;
  check_guards(allocation);
  if (kind == MemoryKind::kDevice) {
    withdraw(allocation.raw + kGuardBytes);
    state().used_bytes -= allocation.bytes;
  }
  state().allocations.erase(found);
  retired()[reinterpret_cast<std::uintptr_t>(start)] = allocation.bytes;
  std::memset(allocation.raw + kGuardBytes, kFreed, allocation.bytes);
  std::free(allocation.raw);
  return CUDA_SUCCESS;
}

}  // namespace

const Allocation* allocation_of(const void* start) {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const auto found = holder(state().allocations, address);
  if (found == state().allocations.end()) return nullptr;
  return address < found->first + found->second.bytes ? &found->second : nullptr;
}

bool reachable(const void* start, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const auto found = holder(state().allocations, address);
  if (found != state().allocations.end() && address < found->first + found->second.bytes) {
    return address + bytes <= found->first + found->second.bytes;
  }
  const auto gone = holder(retired(), address);
  return gone == retired().end() || address >= gone->first + gone->second;
}

bool is_device(const void* address) {
  const Allocation* allocation = allocation_of(address);
  return allocation != nullptr && allocation->kind == MemoryKind::kDevice;
}

bool is_pinned(const void* address) {
  const Allocation* allocation = allocation_of(address);
  return allocation != nullptr && allocation->kind == MemoryKind::kPinned;
}

}  // namespace fake

using fake::state;

CUresult CUDAAPI cuMemAlloc(CUdeviceptr* address, std::size_t bytes) {
  FAKE_ENTER(kContext);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (fake::refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (bytes > state().memory_bytes - state().used_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  void* made = fake::allocate(bytes, fake::MemoryKind::kDevice, call.context);
  if (made == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = reinterpret_cast<CUdeviceptr>(made);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFree(CUdeviceptr address) {
  FAKE_ENTER(kContext);
  if (fake::refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  // The real call waits for the device, too.
  const CUresult before = fake::drain_idle_streams(call.context, call.lock);
  const CUresult freed =
      fake::release(reinterpret_cast<const void*>(address), fake::MemoryKind::kDevice);
  return freed != CUDA_SUCCESS ? freed : before;
}

CUresult CUDAAPI cuMemHostAlloc(void** address, std::size_t bytes, unsigned int) {
  FAKE_ENTER(kContext);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (fake::refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  *address = fake::allocate(bytes, fake::MemoryKind::kPinned, call.context);
  return *address == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void* address) {
  FAKE_ENTER(kContext);
  if (fake::refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const CUresult before = fake::drain_idle_streams(call.context, call.lock);
  const CUresult freed = fake::release(address, fake::MemoryKind::kPinned);
  return freed != CUDA_SUCCESS ? freed : before;
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned int* flags, void* address) {
  FAKE_ENTER(kContext);
  if (!fake::is_pinned(address)) return CUDA_ERROR_INVALID_VALUE;
  *flags = 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetInfo(std::size_t* free, std::size_t* total) {
  FAKE_ENTER(kContext);
  *total = state().memory_bytes;
  *free = state().memory_bytes - state().used_bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) {
  FAKE_ENTER(kContext);
  const auto* found = fake::allocation_of(reinterpret_cast<const void*>(address));
  if (found == nullptr || found->kind != fake::MemoryKind::kDevice) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = reinterpret_cast<CUdeviceptr>(found->raw) + fake::kGuardBytes;
  if (bytes != nullptr) *bytes = found->bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerGetAttribute(void* data, CUpointer_attribute attribute,
                                       CUdeviceptr address) {
  FAKE_ENTER(kContext);
  const auto* found = fake::allocation_of(reinterpret_cast<const void*>(address));
  if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) =
          found->kind == fake::MemoryKind::kDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(data) = found->owner;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = found->owner->device;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}
