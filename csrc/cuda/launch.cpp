#include "cuda/launch.h"

#include <mutex>
#include <unordered_map>

#include "cuda/driver.h"

namespace visionrt::cuda {
namespace {

// Loads every fatbin once per process and finds entry points by name. CuLibrary handles belong to
// the process, not to a context, so one table serves every context and thread.
class KernelTable {
 public:
  CuKernel find(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!loaded_) load();
    const auto known = kernels_.find(name);
    if (known != kernels_.end()) return known->second;
    for (CuLibrary library : libraries_) {
      CuKernel kernel = nullptr;
      constexpr CuResult kNotFound = 500;  // CUDA_ERROR_NOT_FOUND: it is in another library
      const CuResult result = driver().cuLibraryGetKernel(&kernel, library, name.c_str());
      if (result == kNotFound) continue;
      // Or what a GPU without machine code in this build says would be lost.
      check(result, ("cuLibraryGetKernel of " + name).c_str());
      kernels_.emplace(name, kernel);
      return kernel;
    }
    throw DriverError("no kernel named " + name + " is embedded in this build");
  }

 private:
  void load() {
    if (!has_kernels()) {
      throw DriverError("this build holds no CUDA kernels: rebuild with nvcc (VISIONRT_CUDA=ON)");
    }
    std::vector<CuLibrary> libraries;
    for (const Fatbin& fatbin : embedded_fatbins()) {
      CuLibrary library = nullptr;
      check(driver().cuLibraryLoadData(&library, fatbin.data, nullptr, nullptr, 0, nullptr, nullptr,
                                       0),
            "cuLibraryLoadData");
      libraries.push_back(library);
    }
    libraries_ = std::move(libraries);
    loaded_ = true;
  }

  std::mutex mutex_;
  bool loaded_ = false;
  std::vector<CuLibrary> libraries_;
  std::unordered_map<std::string, CuKernel> kernels_;
};

KernelTable& kernel_table() {
  // Leaked on purpose: the driver may be gone when static destructors run.
  static KernelTable* table = new KernelTable;
  return *table;
}

CuStream as_stream(StreamHandle handle) { return reinterpret_cast<CuStream>(handle); }

}  // namespace

void launch_raw(const char* name, const LaunchShape& shape, StreamHandle stream, void** args) {
  const CuKernel kernel = kernel_table().find(name);
  check(driver().cuLaunchKernel(kernel, shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x,
                                shape.block.y, shape.block.z, shape.dynamic_shared_bytes,
                                as_stream(stream), args, nullptr),
        name);
}

void fill_bytes(DevicePtr target, unsigned char value, std::size_t bytes, StreamHandle stream) {
  check(driver().cuMemsetD8Async(target, value, bytes, as_stream(stream)), "cuMemsetD8Async");
}

void copy_to_device(DevicePtr target, const void* source, std::size_t bytes, StreamHandle stream) {
  check(driver().cuMemcpyHtoDAsync(target, source, bytes, as_stream(stream)), "cuMemcpyHtoDAsync");
}

}  // namespace visionrt::cuda
