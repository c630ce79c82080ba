// Start-up, the one device, and contexts.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "state.h"
#include "stream.h"

using fake::context_stack;
using fake::current_context;
using fake::state;

namespace {

constexpr char kName[] = "Fake GPU";
constexpr char kPciBusId[] = "0000:01:00.0";

void copy_text(char* target, int length, const char* text) {
  if (length > 0) std::snprintf(target, static_cast<std::size_t>(length), "%s", text);
}

bool is_live(CUcontext context) { return state().contexts.count(context) != 0; }

// Everything of a context goes with it; what was still live is a leak of the program.
void destroy(CUcontext context) {
  fake::destroy_streams(context);
  context->destroyed = true;
  state().contexts.erase(context);
  if (state().primary == context) state().primary = nullptr;
}

CUcontext make_context(CUdevice device, bool is_primary) {
  // Tombstones stay, so that a stale handle is told from a live one.
  auto* context = new CUctx_st;
  context->device = device;
  context->is_primary = is_primary;
  context->legacy_stream = fake::make_stream(context, false);
  state().contexts.insert(context);
  return context;
}

}  // namespace

CUresult CUDAAPI cuInit(unsigned int flags) {
  FAKE_ENTER(kInit);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  state().initialised = true;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
  FAKE_ENTER(kNothing);
  *version = state().driver_version;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
  FAKE_ENTER(kInit);
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
  FAKE_ENTER(kInit);
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  copy_text(name, length, kName);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  copy_text(id, length, kPciBusId);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *major = state().compute_capability / 10;
  *minor = state().compute_capability % 10;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(std::size_t* bytes, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = state().memory_bytes;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = state().compute_capability / 10;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = state().compute_capability % 10;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      *value = 32;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = 1024;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = 28;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
      *value = 1;
      return CUDA_SUCCESS;
    default:
      *value = 0;
      return CUDA_SUCCESS;
  }
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (state().primary == nullptr) state().primary = make_context(device, true);
  ++state().primary->references;
  *context = state().primary;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (state().primary == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (--state().primary->references == 0) destroy(state().primary);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *flags = 0;
  *active = state().primary != nullptr;
  return CUDA_SUCCESS;
}

#if CUDA_VERSION >= 13000
CUresult CUDAAPI cuCtxCreate(CUcontext* context, CUctxCreateParams*, unsigned int, CUdevice device)
#else
CUresult CUDAAPI cuCtxCreate(CUcontext* context, unsigned int, CUdevice device)
#endif
{
  FAKE_ENTER(kInit);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *context = make_context(device, false);
  (*context)->references = 1;
  context_stack().push_back(*context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxDestroy(CUcontext context) {
  FAKE_ENTER(kInit);
  if (!is_live(context) || context->is_primary) return CUDA_ERROR_INVALID_CONTEXT;
  destroy(context);
  if (current_context() == context) context_stack().pop_back();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxDetach(CUcontext context) {
  FAKE_ENTER(kInit);
  // The real driver forbids this call on a primary context, which PyCUDA makes unless told not to.
  if (!is_live(context) || context->is_primary) return CUDA_ERROR_INVALID_CONTEXT;
  if (current_context() != context) return CUDA_ERROR_INVALID_CONTEXT;
  context_stack().pop_back();
  if (--context->references == 0) destroy(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent(CUcontext context) {
  FAKE_ENTER(kInit);
  if (!is_live(context)) return CUDA_ERROR_INVALID_CONTEXT;
  context_stack().push_back(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext* context) {
  FAKE_ENTER(kInit);
  if (context_stack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context != nullptr) *context = current_context();
  context_stack().pop_back();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext context) {
  FAKE_ENTER(kInit);
  if (context != nullptr && !is_live(context)) return CUDA_ERROR_INVALID_CONTEXT;
  if (!context_stack().empty()) context_stack().pop_back();
  if (context != nullptr) context_stack().push_back(context);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
  FAKE_ENTER(kInit);
  *context = current_context();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
  FAKE_ENTER(kContext);
  *device = call.context->device;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext context, unsigned int* version) {
  FAKE_ENTER(kInit);
  if (context != nullptr && !is_live(context)) return CUDA_ERROR_INVALID_CONTEXT;
  *version = 3020;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSynchronize() {
  FAKE_ENTER(kContext);
  return fake::drain_context(call.context, call.lock);
}
