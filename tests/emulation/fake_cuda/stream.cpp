#include "stream.h"

#include <algorithm>

#include "graph.h"
#include "memory.h"
#include "state.h"

namespace fake {
namespace {

void note_loss(CUcontext context, CUresult result) {
  if (corrupts_context(result)) context->lost = result;
}

std::vector<std::shared_ptr<Queue>> queues_of(CUcontext context) {
  std::vector<std::shared_ptr<Queue>> queues;
  for (CUstream stream : state().streams) {
    if (stream->queue->context == context) queues.push_back(stream->queue);
  }
  return queues;
}

CUresult drain(CUcontext context, Lock& lock, bool skips_running) {
  CUresult result = context->lost;
  for (const auto& queue : queues_of(context)) {
    if (skips_running && queue->running) continue;
    const CUresult one = advance(queue, queue->queued, lock);
    if (result == CUDA_SUCCESS) result = one;
  }
  return result;
}

}  // namespace

CUstream make_stream(CUcontext context, bool blocking) {
  auto* stream = new CUstream_st;
  stream->blocking = blocking;
  stream->queue = std::make_shared<Queue>();
  stream->queue->context = context;
  state().streams.insert(stream);
  return stream;
}

CUstream stream_of(CUstream handle, CUcontext context) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    return context->legacy_stream;
  }
  const auto found = state().streams.find(handle);
  if (found == state().streams.end() || handle->queue->context != context) return nullptr;
  return handle;
}

CUresult enqueue(CUstream stream, std::function<CUresult()> work, Lock& lock) {
  CUcontext context = stream->queue->context;
  if (context->lost != CUDA_SUCCESS) return context->lost;
  const bool is_legacy = stream == context->legacy_stream;
  if (is_legacy) {
    // The legacy stream waits for every blocking stream, and never defers.
    for (CUstream other : std::vector<CUstream>(state().streams.begin(), state().streams.end())) {
      if (other == stream || !other->blocking || other->queue->context != context) continue;
      if (other->capture) {
        return invalidate(*other->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
      }
      const CUresult result = advance(other->queue, other->queue->queued, lock);
      if (result != CUDA_SUCCESS) return result;
    }
  }
  const auto queue = stream->queue;
  queue->waiting.push_back(std::move(work));
  ++queue->queued;
  if (state().defers && !is_legacy) return CUDA_SUCCESS;
  return advance(queue, queue->queued, lock);
}

CUresult submit(CUstream stream, Operation operation, Lock& lock) {
  if (stream->capture) {
    Capture& capture = *stream->capture;
    if (capture.invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (operation.staged || operation.type == CU_GRAPH_NODE_TYPE_EMPTY) {
      return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    stream->tail = {add_node(capture.graph, std::move(operation), stream->tail)};
    return CUDA_SUCCESS;
  }
  return enqueue(stream, [operation = std::move(operation)] { return run(operation); }, lock);
}

CUresult advance(const std::shared_ptr<Queue>& queue, std::uint64_t position, Lock& lock) {
  CUcontext context = queue->context;
  while (queue->done < position) {
    if (queue->running) {
      state().changed.wait(lock);
      continue;
    }
    const auto work = std::move(queue->waiting.front());
    queue->waiting.pop_front();
    queue->running = true;
    // In a lost context nothing runs any more; the queue only empties.
    const bool runs = context->lost == CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    lock.unlock();
    if (runs) result = work();
    lock.lock();
    note_loss(context, result);
    queue->running = false;
    ++queue->done;
    state().changed.notify_all();
    if (result != CUDA_SUCCESS && !corrupts_context(result)) return result;
  }
  return context->lost;
}

CUresult drain_context(CUcontext context, Lock& lock) {
  // Whatever the mode and the thread: a capturing stream cannot be waited for.
  for (CUstream stream : state().streams) {
    if (stream->capture && stream->queue->context == context) {
      return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
  }
  return drain(context, lock, false);
}

CUresult drain_idle_streams(CUcontext context, Lock& lock) { return drain(context, lock, true); }

void destroy_streams(CUcontext context) {
  auto& streams = state().streams;
  for (auto at = streams.begin(); at != streams.end();) {
    at = (*at)->queue->context == context ? streams.erase(at) : std::next(at);
  }
}

CUresult invalidate(Capture& capture, CUresult why) {
  capture.invalidated = true;
  return why;
}

bool refuse_in_capture() {
  bool refused = false;
  for (CUstream stream : state().streams) {
    if (!stream->capture || stream->capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool is_mine = stream->capture->thread == std::this_thread::get_id();
    if (is_mine || stream->capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL) {
      invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
      refused = true;
    }
  }
  return refused;
}

}  // namespace fake

using fake::state;
using fake::stream_of;

CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned int flags) {
  FAKE_ENTER(kContext);
  if (flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  *stream = fake::make_stream(call.context, flags != CU_STREAM_NON_BLOCKING);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamDestroy(CUstream handle) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr || stream == call.context->legacy_stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  // The real driver lets queued work finish after the handle is gone.
  const auto queue = stream->queue;
  const CUresult result = fake::advance(queue, queue->queued, call.lock);
  state().streams.erase(stream);
  delete stream;
  return result;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream handle) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    return fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  const auto queue = stream->queue;
  return fake::advance(queue, queue->queued, call.lock);
}

CUresult CUDAAPI cuStreamQuery(CUstream handle) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    return fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  const auto queue = stream->queue;
  if (queue->done == queue->queued) return CUDA_SUCCESS;
  // Each question lets one step happen, so that polling ends.
  const CUresult result = fake::advance(queue, queue->done + 1, call.lock);
  return result != CUDA_SUCCESS ? result : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  fake::Operation op;
  op.type = CU_GRAPH_NODE_TYPE_HOST;
  op.host_function = function;
  op.host_data = data;
  return fake::submit(stream, std::move(op), call.lock);
}
