// Streams as queues, events as positions in them, and captures that divert work into a graph.
#pragma once

#include <cuda.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "operation.h"

namespace fake {

// The work of a stream, in order. It outlives the stream while an event points at it.
struct Queue {
  CUcontext context = nullptr;
  std::deque<std::function<CUresult()>> waiting;
  std::uint64_t queued = 0, done = 0;
  bool running = false;
};

// A capture that began in `origin` and may have spread to other streams through events.
struct Capture {
  CUgraph graph = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  CUstream origin = nullptr;
  bool invalidated = false;
  std::vector<CUstream> streams;
};

}  // namespace fake

struct CUstream_st {
  bool blocking = true;  // ordered with the legacy stream
  std::shared_ptr<fake::Queue> queue;
  std::shared_ptr<fake::Capture> capture;
  std::vector<std::size_t> tail;  // nodes of the capture that the next one depends on
};

struct CUevent_st {
  CUcontext context = nullptr;
  bool times = true;
  std::shared_ptr<fake::Queue> queue;  // null until recorded
  std::uint64_t position = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> when;
  std::shared_ptr<fake::Capture> capture;  // when last recorded in a capturing stream
  std::vector<std::size_t> captured_tail;
};

namespace fake {

using Lock = std::unique_lock<std::mutex>;

CUstream make_stream(CUcontext context, bool blocking);

// The stream behind a handle, null included; a null result is an invalid handle.
CUstream stream_of(CUstream handle, CUcontext context);

// Queues an operation, or records it where the stream is capturing.
CUresult submit(CUstream stream, Operation operation, Lock& lock);
CUresult enqueue(CUstream stream, std::function<CUresult()> work, Lock& lock);

// Runs a queue up to a position. The lock is released while work runs.
CUresult advance(const std::shared_ptr<Queue>& queue, std::uint64_t position, Lock& lock);

CUresult drain_context(CUcontext context, Lock& lock);
// As drain_context, but leaves out streams whose work another thread is running now: waiting for
// them could wait for a host function that waits for a lock of the caller, such as Python's.
CUresult drain_idle_streams(CUcontext context, Lock& lock);
void destroy_streams(CUcontext context);

// True where a call that may synchronise is not allowed, for a capture is under way; which it
// also invalidates.
bool refuse_in_capture();
CUresult invalidate(Capture& capture, CUresult why);

}  // namespace fake
