// Capture of a stream's work into a graph.
#include <algorithm>
#include <set>

#include "graph.h"
#include "state.h"
#include "stream.h"

using fake::state;
using fake::stream_of;

namespace {

// Whether everything that joined the capture is an ancestor of the origin's last node.
bool is_joined(const fake::Capture& capture) {
  std::set<std::size_t> known(capture.origin->tail.begin(), capture.origin->tail.end());
  for (std::size_t i = capture.graph->nodes.size(); i-- > 0;) {
    if (known.count(i) == 0) continue;
    const auto& after = capture.graph->nodes[i]->after;
    known.insert(after.begin(), after.end());
  }
  return std::all_of(capture.streams.begin(), capture.streams.end(), [&](CUstream stream) {
    return std::all_of(stream->tail.begin(), stream->tail.end(),
                       [&](std::size_t node) { return known.count(node) != 0; });
  });
}

}  // namespace

CUresult CUDAAPI cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream == call.context->legacy_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<fake::Capture>();
  capture->graph = new CUgraph_st;
  capture->graph->context = call.context;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream;
  capture->streams = {stream};
  stream->capture = capture;
  stream->tail.clear();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  FAKE_ENTER(kContext);
  *graph = nullptr;
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const auto capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
      capture->thread != std::this_thread::get_id()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  const bool joined = is_joined(*capture);
  for (CUstream member : capture->streams) {
    member->capture = nullptr;
    member->tail.clear();
  }
  if (capture->invalidated || !joined) {
    delete capture->graph;
    return capture->invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                                : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  state().graphs.insert(capture->graph);
  *graph = capture->graph;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!stream->capture) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
  } else {
    *status = stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                           : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  }
  return CUDA_SUCCESS;
}
