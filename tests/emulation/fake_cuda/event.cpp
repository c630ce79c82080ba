// Events: a position in a stream's queue, or a set of nodes of a capture.
#include <algorithm>

#include "graph.h"
#include "state.h"
#include "stream.h"

using fake::state;
using fake::stream_of;

namespace {

bool is_live(CUevent event) { return state().events.count(event) != 0; }

}  // namespace

CUresult CUDAAPI cuEventCreate(CUevent* event, unsigned int flags) {
  FAKE_ENTER(kContext);
  *event = new CUevent_st;
  (*event)->context = call.context;
  (*event)->times = (flags & CU_EVENT_DISABLE_TIMING) == 0;
  state().events.insert(*event);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy(CUevent event) {
  FAKE_ENTER(kContext);
  if (!is_live(event)) return CUDA_ERROR_INVALID_HANDLE;
  state().events.erase(event);
  delete event;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream handle) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr || !is_live(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture = stream->capture;
    event->captured_tail = stream->tail;
    event->queue = nullptr;
    return CUDA_SUCCESS;
  }
  auto when = std::make_shared<std::chrono::steady_clock::time_point>();
  event->capture = nullptr;
  event->when = when;
  event->queue = stream->queue;
  event->position = stream->queue->queued + 1;
  return fake::enqueue(
      stream,
      [when] {
        *when = std::chrono::steady_clock::now();
        return CUDA_SUCCESS;
      },
      call.lock);
}

CUresult CUDAAPI cuEventQuery(CUevent event) {
  FAKE_ENTER(kContext);
  if (!is_live(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  if (!event->queue || event->queue->done >= event->position) return CUDA_SUCCESS;
  const auto queue = event->queue;
  const CUresult result = fake::advance(queue, queue->done + 1, call.lock);
  return result != CUDA_SUCCESS ? result : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuEventSynchronize(CUevent event) {
  FAKE_ENTER(kContext);
  if (!is_live(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) {
    return fake::invalidate(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
  }
  if (!event->queue) return CUDA_SUCCESS;
  const auto queue = event->queue;
  return fake::advance(queue, event->position, call.lock);
}

CUresult CUDAAPI cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  FAKE_ENTER(kContext);
  if (!is_live(start) || !is_live(end)) return CUDA_ERROR_INVALID_HANDLE;
  if (!start->times || !end->times || !start->queue || !end->queue) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (start->queue->done < start->position || end->queue->done < end->position) {
    return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*end->when - *start->when).count();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int) {
  FAKE_ENTER(kContext);
  CUstream stream = stream_of(handle, call.context);
  if (stream == nullptr || !is_live(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) {
    // The waiting stream joins the capture that the event belongs to.
    if (event->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->capture && stream->capture != event->capture) {
      return fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    }
    if (!stream->capture) {
      stream->capture = event->capture;
      stream->capture->streams.push_back(stream);
      stream->tail.clear();
    }
    for (std::size_t node : event->captured_tail) {
      if (std::find(stream->tail.begin(), stream->tail.end(), node) == stream->tail.end()) {
        stream->tail.push_back(node);
      }
    }
    return CUDA_SUCCESS;
  }
  if (stream->capture) {
    return fake::invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  }
  if (!event->queue) return CUDA_SUCCESS;
  const auto queue = event->queue;
  const std::uint64_t position = event->position;
  return fake::enqueue(
      stream,
      [queue, position] {
        fake::Lock lock(state().mutex);
        return fake::advance(queue, position, lock);
      },
      call.lock);
}
