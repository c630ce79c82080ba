// Libraries of kernels, and launches of them, which go to the emulated kernels by name.
#include <algorithm>
#include <cstring>

#include "emulator.h"
#include "state.h"
#include "stream.h"

struct CUlib_st {
  const void* code = nullptr;
};

namespace {

// The first word of a fatbin, and of an ELF cubin.
constexpr std::uint32_t kFatbin = 0xBA55ED50;
constexpr std::uint32_t kElf = 0x464C457F;
constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535, kMaxShared = 48 * 1024;

std::map<std::string, CUkern_st*>& kernels() {
  static auto* all = new std::map<std::string, CUkern_st*>;
  return *all;
}

bool fits_device(const fake::Operation& op) {
  const auto& b = op.block;
  const auto positive = [](unsigned size) { return size > 0; };
  return std::all_of(op.grid, op.grid + 3, positive) && std::all_of(b, b + 3, positive) &&
         std::uint64_t{b[0]} * b[1] * b[2] <= kMaxThreads && b[2] <= 64 &&
         op.grid[0] <= 0x7FFFFFFF && op.grid[1] <= kMaxGridYZ && op.grid[2] <= kMaxGridYZ &&
         op.shared_bytes <= kMaxShared;
}

}  // namespace

CUresult CUDAAPI cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**,
                                   unsigned int, CUlibraryOption*, void**, unsigned int) {
  FAKE_ENTER(kInit);
  std::uint32_t magic = 0;
  std::memcpy(&magic, code, sizeof magic);
  if (magic != kFatbin && magic != kElf) return CUDA_ERROR_INVALID_IMAGE;
  *library = new CUlib_st{code};
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLibraryUnload(CUlibrary library) {
  FAKE_ENTER(kInit);
  delete library;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  FAKE_ENTER(kInit);
  if (library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!fake::has_kernel(name)) return CUDA_ERROR_NOT_FOUND;
  CUkern_st*& known = kernels()[name];
  if (known == nullptr) {
    known = new CUkern_st{name, {}};
    if (!fake::parameter_bytes(name, known->parameter_bytes)) {
      fake::report(std::string("the emulation does not tell the parameters of ") + name);
      return CUDA_ERROR_NOT_SUPPORTED;
    }
  }
  *kernel = known;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuKernelGetName(const char** name, CUkernel kernel) {
  FAKE_ENTER(kInit);
  if (kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *name = kernel->name.c_str();
  return CUDA_SUCCESS;
}

// A CUkernel may be given in the place of a CUfunction.
CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                                unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                unsigned int block_z, unsigned int shared_bytes, CUstream handle,
                                void** arguments, void** extra) {
  FAKE_ENTER(kContext);
  CUstream stream = fake::stream_of(handle, call.context);
  const auto kernel = reinterpret_cast<CUkernel>(function);
  if (stream == nullptr || kernel == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  fake::Operation op;
  op.type = CU_GRAPH_NODE_TYPE_KERNEL;
  op.kernel = kernel;
  const unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
  std::copy(grid, grid + 3, op.grid);
  std::copy(block, block + 3, op.block);
  op.shared_bytes = shared_bytes;
  if (!fits_device(op)) return CUDA_ERROR_INVALID_VALUE;
  for (std::size_t i = 0; i < kernel->parameter_bytes.size(); ++i) {
    const auto* bytes = static_cast<const unsigned char*>(arguments[i]);
    op.arguments.emplace_back(bytes, bytes + kernel->parameter_bytes[i]);
  }
  return fake::submit(stream, std::move(op), call.lock);
}
