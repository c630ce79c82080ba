// The ten driver functions that csrc/cuda opens, over the emulated kernels: every call runs at
// once.
//
// Enough to run the launchers of csrc and nothing else. "Device" memory is the test's own memory.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kNotFound = 500, kLaunchFailed = 719;

struct Emulation {
  int (*has_kernel)(const char*);
  int (*launch)(const char*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void**);
  void (*mark_written)(void*, std::size_t);
};

template <class Function>
void resolve(void* library, const char* symbol, Function& target) {
  target = reinterpret_cast<Function>(dlsym(library, symbol));
  if (target == nullptr) std::abort();
}

const Emulation& emulation() {
  static const Emulation found = [] {
    const char* path = std::getenv("VISIONRT_EMULATED_KERNELS");
    void* library = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) std::abort();
    Emulation out;
    resolve(library, "emu_has_kernel", out.has_kernel);
    resolve(library, "emu_launch", out.launch);
    resolve(library, "emu_mark_written", out.mark_written);
    return out;
  }();
  return found;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
int cuGetErrorName(int error, const char** name) {
  *name = error == kSuccess ? "CUDA_SUCCESS" : "CUDA_ERROR";
  return kSuccess;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == kLaunchFailed ? "the emulation found something wrong" : "refused";
  return kSuccess;
}
int cuCtxGetCurrent(void** context) {
  *context = nullptr;
  return kSuccess;
}
int cuLibraryLoadData(void** library, const void*, int*, void**, unsigned, int*, void**, unsigned) {
  static int only;
  *library = &only;
  return kSuccess;
}
int cuLibraryGetKernel(void** kernel, void*, const char* name) {
  static std::set<std::string> names;
  if (emulation().has_kernel(name) == 0) return kNotFound;
  *kernel = const_cast<std::string*>(&*names.insert(name).first);
  return kSuccess;
}
int cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared_bytes, void*, void** arguments, void** extra) {
  if (extra != nullptr) return kInvalidValue;
  const std::string& name = *static_cast<const std::string*>(kernel);
  const int findings =
      emulation().launch(name.c_str(), gx, gy, gz, bx, by, bz, shared_bytes, arguments);
  return findings == 0 ? kSuccess : kLaunchFailed;
}
int cuMemsetD8Async(std::uint64_t target, unsigned char value, std::size_t bytes, void*) {
  std::memset(reinterpret_cast<void*>(target), value, bytes);
  emulation().mark_written(reinterpret_cast<void*>(target), bytes);
  return kSuccess;
}
int cuMemcpyHtoDAsync_v2(std::uint64_t target, const void* source, std::size_t bytes, void*) {
  std::memcpy(reinterpret_cast<void*>(target), source, bytes);
  emulation().mark_written(reinterpret_cast<void*>(target), bytes);
  return kSuccess;
}
}
