// Kernel launches through the driver API.
//
// libcuda.so.1 is opened on first use and nothing of the CUDA runtime is linked, so the extension
// imports on a machine with no driver and shares whatever context the caller made current.
// Kernels are `extern "C"` entry points of the embedded fatbins, found by name.
//
// Nothing here allocates device memory or creates a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace visionrt::cuda {

using DevicePtr = std::uint64_t;      // CUdeviceptr
using StreamHandle = std::uintptr_t;  // CUstream as an integer

// The driver is missing, too old, or refused a call. what() names the call and the driver's reason.
class DriverError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct LaunchShape {
  Dim3 grid;
  Dim3 block;
  unsigned dynamic_shared_bytes = 0;
};

// True when this build holds kernels.
bool has_kernels() noexcept;

// True when libcuda.so.1 can be opened and holds every symbol used. Never throws.
bool driver_available() noexcept;

// Why driver_available() is false, in words; empty when it is true.
std::string driver_problem();

// Names of the embedded fatbins ("preprocess", "nms", ...), with their bytes.
struct Fatbin {
  const char* name;
  const unsigned char* data;
  std::size_t bytes;
};
const std::vector<Fatbin>& embedded_fatbins() noexcept;

// Queues kernel `name` on `stream` in the current context. `args[i]` points at argument i. Does not
// block. Throws DriverError when there is no driver, no such kernel, or the launch is refused.
void launch_raw(const char* name, const LaunchShape& shape, StreamHandle stream, void** args);

template <class... Args>
void launch(const char* name, const LaunchShape& shape, StreamHandle stream, Args... args) {
  void* pointers[] = {static_cast<void*>(&args)...};
  launch_raw(name, shape, stream, pointers);
}

// Queues a byte fill. Does not block.
void fill_bytes(DevicePtr target, unsigned char value, std::size_t bytes, StreamHandle stream);

// Queues a copy from host to device; `source` must stay alive until the stream has passed it.
void copy_to_device(DevicePtr target, const void* source, std::size_t bytes, StreamHandle stream);

}  // namespace visionrt::cuda
