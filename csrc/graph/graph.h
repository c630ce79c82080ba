// CUDA graphs: a stream's work recorded once, and launched again in one call.
//
// A recording fixes every address, size and kernel argument. Where only those change, a new
// recording updates a graph in place, which is several times cheaper than making one. Where the
// sequence of work itself changes, update() says so and the caller makes another graph.
//
// Streams are integer handles of the caller. The context of the stream must be current for every
// call except the destructors. Nothing here synchronises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/driver.h"
#include "cuda/launch.h"

namespace visionrt::graph {

// Starts to record what this thread queues on the stream, instead of running it. The mode is
// THREAD_LOCAL: other threads stay free to allocate, free and synchronise; this thread is not.
// Throws DriverError: the stream is capturing already, or is the default stream.
void begin_recording(cuda::StreamHandle stream);

// Ends and discards a recording, after an error. Does nothing where the stream is not recording.
void discard_recording(cuda::StreamHandle stream);

// Lets later work on `waiter` start only after what is queued on `other` now. Does not block.
// Either may be 1 or 2, the default streams, and `other` one that some other library made.
void wait_for_stream(cuda::StreamHandle waiter, cuda::StreamHandle other);

// Recorded work. Move-only.
class Recording {
 public:
  // Ends the recording of a stream. Throws DriverError when a call that is not allowed in a
  // recording spoiled it; the stream is usable again in either case.
  explicit Recording(cuda::StreamHandle stream);
  ~Recording();
  Recording(Recording&& other) noexcept;
  Recording& operator=(Recording&&) = delete;

  cuda::CuGraph handle() const { return graph_; }
  std::size_t node_count() const;
  std::size_t kernel_count() const;

 private:
  cuda::CuGraph graph_ = nullptr;
};

// Work that can be launched. Move-only. The buffers it was recorded with must outlive it.
class Graph {
 public:
  // Blocks while the driver prepares the work. The recording is not needed afterwards.
  explicit Graph(const Recording& recording);
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&&) = delete;

  // Queues the work. Does not block. Throws DriverError when it is refused or close() was called.
  void launch(cuda::StreamHandle stream) const;

  // Takes over the addresses, sizes and arguments of a recording of the same sequence of work, for
  // later launches; those already queued keep theirs. Returns an empty string, or why it cannot
  // be done, in which case nothing changed.
  std::string update(const Recording& recording);

  // Releases it; work already queued is not affected. May be called twice.
  void close() noexcept;

 private:
  cuda::CuGraphExec exec_ = nullptr;
};

}  // namespace visionrt::graph
