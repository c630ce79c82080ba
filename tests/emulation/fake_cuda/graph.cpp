#include "graph.h"

#include <algorithm>

#include "state.h"
#include "stream.h"

namespace fake {

std::size_t add_node(CUgraph graph, Operation operation, const std::vector<std::size_t>& after) {
  auto node = std::make_unique<CUgraphNode_st>();
  node->graph = graph;
  node->index = graph->nodes.size();
  node->operation = std::move(operation);
  node->after = after;
  graph->nodes.push_back(std::move(node));
  return graph->nodes.size() - 1;
}

namespace {

Steps steps_of(CUgraph graph) {
  Steps steps;
  for (const auto& node : graph->nodes) steps.push_back({node->operation, node->after});
  return steps;
}

CUresult run_all(const Steps& steps) {
  for (const Step& step : steps) {
    const CUresult result = run(step.operation);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

bool same_order(const Step& old, const CUgraphNode_st& fresh) { return old.after == fresh.after; }

CUgraphExecUpdateResult update_problem(const Steps& old, CUgraph graph, std::size_t& where) {
  if (old.size() != graph->nodes.size()) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  for (where = 0; where < old.size(); ++where) {
    const CUgraphNode_st& node = *graph->nodes[where];
    if (!same_order(old[where], node)) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (old[where].operation.type != node.operation.type) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    }
    const bool is_rectangle = node.operation.rows != 1 || old[where].operation.rows != 1;
    if (is_rectangle && node.operation.rows != old[where].operation.rows) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

bool is_live(CUgraph graph) { return state().graphs.count(graph) != 0; }
bool is_live(CUgraphExec exec) { return state().graph_execs.count(exec) != 0; }

// The step of an executable graph that a node of its source stands for, or null.
const Step* step_of(CUgraphExec exec, CUgraphNode node) {
  if (node == nullptr || exec->source != node->graph) return nullptr;
  return node->index < exec->steps->size() ? &(*exec->steps)[node->index] : nullptr;
}

void replace(CUgraphExec exec, std::size_t index, const Operation& operation) {
  auto changed = std::make_shared<Steps>(*exec->steps);
  (*changed)[index].operation = operation;
  exec->steps = std::move(changed);
}

}  // namespace
}  // namespace fake

using fake::state;

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph,
                                             unsigned long long flags) {
  FAKE_ENTER(kContext);
  if (!fake::is_live(graph)) return CUDA_ERROR_INVALID_VALUE;
  if (flags != 0) return CUDA_ERROR_NOT_SUPPORTED;
  *exec = new CUgraphExec_st;
  (*exec)->context = graph->context;
  (*exec)->source = graph;
  (*exec)->steps = std::make_shared<const fake::Steps>(fake::steps_of(graph));
  state().graph_execs.insert(*exec);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream handle) {
  FAKE_ENTER(kContext);
  CUstream stream = fake::stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!fake::is_live(exec)) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture) return CUDA_ERROR_NOT_SUPPORTED;
  return fake::enqueue(stream, [steps = exec->steps] { return fake::run_all(*steps); }, call.lock);
}

CUresult CUDAAPI cuGraphExecUpdate(CUgraphExec exec, CUgraph graph,
                                   CUgraphExecUpdateResultInfo* info) {
  FAKE_ENTER(kContext);
  if (!fake::is_live(exec) || !fake::is_live(graph)) return CUDA_ERROR_INVALID_VALUE;
  std::size_t where = 0;
  *info = {};
  info->result = fake::update_problem(*exec->steps, graph, where);
  if (info->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
    if (where < graph->nodes.size()) info->errorNode = graph->nodes[where].get();
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  }
  exec->steps = std::make_shared<const fake::Steps>(fake::steps_of(graph));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_KERNEL_NODE_PARAMS* params) {
  FAKE_ENTER(kContext);
  if (!fake::is_live(exec)) return CUDA_ERROR_INVALID_VALUE;
  const fake::Step* step = fake::step_of(exec, node);
  if (step == nullptr || step->operation.type != CU_GRAPH_NODE_TYPE_KERNEL) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (params->kernelParams == nullptr || params->extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  const auto kernel =
      params->kern != nullptr ? params->kern : reinterpret_cast<CUkernel>(params->func);
  if (kernel != step->operation.kernel) return CUDA_ERROR_NOT_SUPPORTED;
  fake::Operation changed = step->operation;
  const unsigned grid[] = {params->gridDimX, params->gridDimY, params->gridDimZ};
  const unsigned block[] = {params->blockDimX, params->blockDimY, params->blockDimZ};
  std::copy(grid, grid + 3, changed.grid);
  std::copy(block, block + 3, changed.block);
  changed.shared_bytes = params->sharedMemBytes;
  for (std::size_t i = 0; i < changed.arguments.size(); ++i) {
    const auto* bytes = static_cast<const unsigned char*>(params->kernelParams[i]);
    std::copy(bytes, bytes + changed.arguments[i].size(), changed.arguments[i].begin());
  }
  fake::replace(exec, node->index, changed);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_MEMCPY3D* params, CUcontext context) {
  FAKE_ENTER(kContext);
  if (!fake::is_live(exec) || context != exec->context) return CUDA_ERROR_INVALID_VALUE;
  const fake::Step* step = fake::step_of(exec, node);
  if (step == nullptr || step->operation.type != CU_GRAPH_NODE_TYPE_MEMCPY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (params->Height != 1 || params->Depth != 1) return CUDA_ERROR_NOT_SUPPORTED;
  const bool to_host = params->dstMemoryType == CU_MEMORYTYPE_HOST;
  const bool from_host = params->srcMemoryType == CU_MEMORYTYPE_HOST;
  void* to = to_host ? params->dstHost : reinterpret_cast<void*>(params->dstDevice);
  const void* from = from_host ? params->srcHost : reinterpret_cast<const void*>(params->srcDevice);
  fake::replace(exec, node->index, fake::copy_of(to, from, params->WidthInBytes));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, std::size_t* count) {
  FAKE_ENTER(kContext);
  if (!fake::is_live(graph)) return CUDA_ERROR_INVALID_VALUE;
  const std::size_t total = graph->nodes.size();
  if (nodes != nullptr) {
    for (std::size_t i = 0; i < *count; ++i) {
      nodes[i] = i < total ? graph->nodes[i].get() : nullptr;
    }
  }
  *count = nodes == nullptr ? total : std::min(*count, total);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  FAKE_ENTER(kContext);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *type = node->operation.type;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
  FAKE_ENTER(kInit);
  if (state().graphs.erase(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
  delete graph;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
  FAKE_ENTER(kInit);
  if (state().graph_execs.erase(exec) == 0) return CUDA_ERROR_INVALID_VALUE;
  delete exec;
  return CUDA_SUCCESS;
}
