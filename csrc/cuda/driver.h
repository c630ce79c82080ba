// The part of the CUDA driver API that is used, resolved from libcuda.so.1 at run time.
//
// Declared here by hand, so that building needs no CUDA headers. Signatures follow the CUDA Driver
// API reference (12.0 and later).
#pragma once

#include <cstddef>
#include <cstdint>

namespace visionrt::cuda {

using CuResult = int;
using CuContext = struct CuContextOpaque*;
using CuStream = struct CuStreamOpaque*;
using CuLibrary = struct CuLibraryOpaque*;
using CuKernel = struct CuKernelOpaque*;
using CuEvent = struct CuEventOpaque*;
using CuGraph = struct CuGraphOpaque*;
using CuGraphNode = struct CuGraphNodeOpaque*;
using CuGraphExec = struct CuGraphExecOpaque*;

struct Driver {
  CuResult (*cuInit)(unsigned flags);
  CuResult (*cuDriverGetVersion)(int* version);
  CuResult (*cuGetErrorName)(CuResult error, const char** name);
  CuResult (*cuGetErrorString)(CuResult error, const char** text);
  CuResult (*cuCtxGetCurrent)(CuContext* context);
  CuResult (*cuLibraryLoadData)(CuLibrary* library, const void* code, int* jit_options,
                                void** jit_values, unsigned jit_count, int* library_options,
                                void** library_values, unsigned library_count);
  CuResult (*cuLibraryGetKernel)(CuKernel* kernel, CuLibrary library, const char* name);
  CuResult (*cuLaunchKernel)(CuKernel kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z,
                             unsigned shared_bytes, CuStream stream, void** args, void** extra);
  CuResult (*cuMemsetD8Async)(std::uint64_t target, unsigned char value, std::size_t bytes,
                              CuStream stream);
  CuResult (*cuMemcpyHtoDAsync)(std::uint64_t target, const void* source, std::size_t bytes,
                                CuStream stream);
};

// CUgraphExecUpdateResultInfo.
struct CuGraphUpdateInfo {
  int result;
  CuGraphNode node;
  CuGraphNode from_node;
};

// What csrc/graph uses.
struct GraphDriver {
  CuResult (*cuStreamBeginCapture)(CuStream stream, int mode);
  CuResult (*cuStreamEndCapture)(CuStream stream, CuGraph* graph);
  CuResult (*cuGraphInstantiate)(CuGraphExec* exec, CuGraph graph, unsigned long long flags);
  CuResult (*cuGraphExecUpdate)(CuGraphExec exec, CuGraph graph, CuGraphUpdateInfo* info);
  CuResult (*cuGraphLaunch)(CuGraphExec exec, CuStream stream);
  CuResult (*cuGraphGetNodes)(CuGraph graph, CuGraphNode* nodes, std::size_t* count);
  CuResult (*cuGraphNodeGetType)(CuGraphNode node, int* type);
  CuResult (*cuGraphDestroy)(CuGraph graph);
  CuResult (*cuGraphExecDestroy)(CuGraphExec exec);
  CuResult (*cuEventCreate)(CuEvent* event, unsigned flags);
  CuResult (*cuEventRecord)(CuEvent event, CuStream stream);
  CuResult (*cuStreamWaitEvent)(CuStream stream, CuEvent event, unsigned flags);
  CuResult (*cuEventDestroy)(CuEvent event);
};

// The resolved driver. Throws DriverError (cuda/launch.h) when it cannot be used.
const Driver& driver();

// Its graph functions, looked up on first use. Throws DriverError when one is missing.
const GraphDriver& graph_driver();

// Throws DriverError naming `call` and the driver's own words unless `result` is success.
void check(CuResult result, const char* call);

}  // namespace visionrt::cuda
