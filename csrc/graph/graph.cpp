#include "graph/graph.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace visionrt::graph {
namespace {

using cuda::graph_driver;

constexpr int kThreadLocal = 1;           // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr int kKernelNode = 0;            // CU_GRAPH_NODE_TYPE_KERNEL
constexpr cuda::CuResult kRefused = 910;  // CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE

cuda::CuStream as_stream(cuda::StreamHandle handle) {
  return reinterpret_cast<cuda::CuStream>(handle);
}

// CUgraphExecUpdateResult in words.
const char* reason(int result) {
  switch (result) {
    case 2:
      return "another sequence of work";
    case 3:
      return "another kind of work in one place";
    case 4:
      return "another kernel in one place";
    case 5:
      return "parameters that cannot be changed in place";
    case 6:
      return "work that cannot be changed in place";
    case 7:
      return "a kernel of another context";
    case 8:
      return "other launch attributes";
    default:
      return "a change that the driver refuses";
  }
}

std::vector<cuda::CuGraphNode> nodes_of(cuda::CuGraph graph) {
  std::size_t count = 0;
  cuda::check(graph_driver().cuGraphGetNodes(graph, nullptr, &count), "cuGraphGetNodes");
  std::vector<cuda::CuGraphNode> nodes(count);
  if (count != 0) {
    cuda::check(graph_driver().cuGraphGetNodes(graph, nodes.data(), &count), "cuGraphGetNodes");
  }
  return nodes;
}

}  // namespace

void begin_recording(cuda::StreamHandle stream) {
  cuda::check(graph_driver().cuStreamBeginCapture(as_stream(stream), kThreadLocal),
              "cuStreamBeginCapture");
}

void discard_recording(cuda::StreamHandle stream) {
  cuda::CuGraph graph = nullptr;
  // Refused where nothing is recorded or the recording is spoiled: there is nothing to discard.
  graph_driver().cuStreamEndCapture(as_stream(stream), &graph);
  if (graph != nullptr) graph_driver().cuGraphDestroy(graph);
}

void wait_for_stream(cuda::StreamHandle waiter, cuda::StreamHandle other) {
  constexpr unsigned kDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
  const auto& d = graph_driver();
  cuda::CuEvent event = nullptr;
  cuda::check(d.cuEventCreate(&event, kDisableTiming), "cuEventCreate");
  const cuda::CuResult recorded = d.cuEventRecord(event, as_stream(other));
  const cuda::CuResult waits =
      recorded == 0 ? d.cuStreamWaitEvent(as_stream(waiter), event, 0) : recorded;
  // The wait stays queued: the driver frees the event when it is over.
  d.cuEventDestroy(event);
  cuda::check(recorded, "cuEventRecord");
  cuda::check(waits, "cuStreamWaitEvent");
}

Recording::Recording(cuda::StreamHandle stream) {
  cuda::check(graph_driver().cuStreamEndCapture(as_stream(stream), &graph_), "cuStreamEndCapture");
}

Recording::~Recording() {
  if (graph_ != nullptr) graph_driver().cuGraphDestroy(graph_);
}

Recording::Recording(Recording&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}

std::size_t Recording::node_count() const { return nodes_of(graph_).size(); }

std::size_t Recording::kernel_count() const {
  const std::vector<cuda::CuGraphNode> nodes = nodes_of(graph_);
  const auto kernels = std::count_if(nodes.begin(), nodes.end(), [](cuda::CuGraphNode node) {
    int type = -1;
    cuda::check(graph_driver().cuGraphNodeGetType(node, &type), "cuGraphNodeGetType");
    return type == kKernelNode;
  });
  return static_cast<std::size_t>(kernels);
}

Graph::Graph(const Recording& recording) {
  cuda::check(graph_driver().cuGraphInstantiate(&exec_, recording.handle(), 0),
              "cuGraphInstantiate");
}

Graph::~Graph() { close(); }

Graph::Graph(Graph&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}

void Graph::launch(cuda::StreamHandle stream) const {
  if (exec_ == nullptr) throw cuda::DriverError("the graph is closed");
  cuda::check(graph_driver().cuGraphLaunch(exec_, as_stream(stream)), "cuGraphLaunch");
}

std::string Graph::update(const Recording& recording) {
  if (exec_ == nullptr) throw cuda::DriverError("the graph is closed");
  cuda::CuGraphUpdateInfo info{};
  const cuda::CuResult result = graph_driver().cuGraphExecUpdate(exec_, recording.handle(), &info);
  if (result == kRefused) return reason(info.result);
  cuda::check(result, "cuGraphExecUpdate");
  return "";
}

void Graph::close() noexcept {
  if (exec_ != nullptr) graph_driver().cuGraphExecDestroy(std::exchange(exec_, nullptr));
}

}  // namespace visionrt::graph
