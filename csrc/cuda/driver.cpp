#include "cuda/driver.h"

#include <dlfcn.h>

#include <string>

#include "cuda/launch.h"

namespace visionrt::cuda {
namespace {

// cuLibraryLoadData, which loads once for every context, came with CUDA 12.0.
constexpr int kOldestDriver = 12000;
constexpr CuResult kSuccess = 0;

struct Loaded {
  void* library = nullptr;
  Driver table{};
  std::string problem;
};

template <class Function>
bool resolve(void* library, const char* symbol, Function& target, std::string& problem) {
  target = reinterpret_cast<Function>(dlsym(library, symbol));
  if (target == nullptr) {
    problem = std::string("libcuda.so.1 has no ") + symbol + ": the NVIDIA driver is too old";
    return false;
  }
  return true;
}

Loaded load() {
  Loaded out;
  // Never closed: the driver keeps threads of its own that outlive any handle of ours.
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    out.problem = std::string("no NVIDIA driver: ") + (reason ? reason : "libcuda.so.1 not found");
    return out;
  }
  out.library = library;
  Driver& t = out.table;
  std::string& p = out.problem;
  const bool complete = resolve(library, "cuInit", t.cuInit, p) &&
                        resolve(library, "cuDriverGetVersion", t.cuDriverGetVersion, p) &&
                        resolve(library, "cuGetErrorName", t.cuGetErrorName, p) &&
                        resolve(library, "cuGetErrorString", t.cuGetErrorString, p) &&
                        resolve(library, "cuCtxGetCurrent", t.cuCtxGetCurrent, p) &&
                        resolve(library, "cuLibraryLoadData", t.cuLibraryLoadData, p) &&
                        resolve(library, "cuLibraryGetKernel", t.cuLibraryGetKernel, p) &&
                        resolve(library, "cuLaunchKernel", t.cuLaunchKernel, p) &&
                        resolve(library, "cuMemsetD8Async", t.cuMemsetD8Async, p) &&
                        resolve(library, "cuMemcpyHtoDAsync_v2", t.cuMemcpyHtoDAsync, p);
  if (!complete) return out;
  int version = 0;
  if (t.cuDriverGetVersion(&version) != kSuccess || version < kOldestDriver) {
    p = "the NVIDIA driver supports CUDA " + std::to_string(version / 1000) + "." +
        std::to_string(version % 1000 / 10) + "; 12.0 or later is needed";
    return out;
  }
  const CuResult started = t.cuInit(0);
  if (started != kSuccess) {
    const char* text = nullptr;
    t.cuGetErrorString(started, &text);
    p = std::string("cuInit failed: ") + (text ? text : std::to_string(started).c_str());
  }
  return out;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

GraphDriver load_graph_driver() {
  driver();  // throws unless the driver can be used
  void* const library = loaded().library;
  GraphDriver t{};
  std::string p;
  const bool complete = resolve(library, "cuStreamBeginCapture_v2", t.cuStreamBeginCapture, p) &&
                        resolve(library, "cuStreamEndCapture", t.cuStreamEndCapture, p) &&
                        resolve(library, "cuGraphInstantiateWithFlags", t.cuGraphInstantiate, p) &&
                        resolve(library, "cuGraphExecUpdate_v2", t.cuGraphExecUpdate, p) &&
                        resolve(library, "cuGraphLaunch", t.cuGraphLaunch, p) &&
                        resolve(library, "cuGraphGetNodes", t.cuGraphGetNodes, p) &&
                        resolve(library, "cuGraphNodeGetType", t.cuGraphNodeGetType, p) &&
                        resolve(library, "cuGraphDestroy", t.cuGraphDestroy, p) &&
                        resolve(library, "cuGraphExecDestroy", t.cuGraphExecDestroy, p) &&
                        resolve(library, "cuEventCreate", t.cuEventCreate, p) &&
                        resolve(library, "cuEventRecord", t.cuEventRecord, p) &&
                        resolve(library, "cuStreamWaitEvent", t.cuStreamWaitEvent, p) &&
                        resolve(library, "cuEventDestroy_v2", t.cuEventDestroy, p);
  if (!complete) throw DriverError(p);
  return t;
}

}  // namespace

const GraphDriver& graph_driver() {
  static const GraphDriver once = load_graph_driver();
  return once;
}

const Driver& driver() {
  const Loaded& state = loaded();
  if (!state.problem.empty()) throw DriverError(state.problem);
  return state.table;
}

bool driver_available() noexcept { return driver_problem().empty(); }

std::string driver_problem() { return loaded().problem; }

void check(CuResult result, const char* call) {
  if (result == kSuccess) return;
  const Driver& d = driver();
  const char* name = nullptr;
  const char* text = nullptr;
  d.cuGetErrorName(result, &name);
  d.cuGetErrorString(result, &text);
  throw DriverError(std::string(call) + ": " + (name ? name : std::to_string(result).c_str()) +
                    " (" + (text ? text : "no description") + ")");
}

}  // namespace visionrt::cuda
