// What the scheduler, the checker and the library share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda_emulation.h"
#include "kernel_table.h"

namespace emulation {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr unsigned kMaxThreads = 1024;

// A line of a kernel file, or the code that called the checker.
struct Place {
  const char* file = nullptr;
  int line = 0;
  const void* code = nullptr;
  bool operator==(const Place& o) const {
    return file == o.file && line == o.line && code == o.code;
  }
};

enum class Wait { kNothing, kBarrier, kWarp, kExited };

struct Fiber {
  unsigned number;
  uint3 thread;
  char* stack;
  std::uint64_t steps;
  // What it waits for: a barrier, or an operation of its warp.
  Wait wait;
  Place place;
  bool predicate;
  WarpOp op;
  unsigned mask, source;
  std::uint64_t value, result;
  // The checker's clocks: its own, what it knows of the other lanes' since the last barrier of the
  // block, and those of its last fence.
  unsigned clock, seen[32];
  bool fenced;
  unsigned fence_epoch, fence_clock;

  unsigned lane() const { return number % 32; }
  unsigned warp() const { return number / 32; }
};

struct Launch {
  const Kernel* kernel = nullptr;
  void** arguments = nullptr;
  char* dynamic_shared = nullptr;
  std::size_t parameter_bytes = 0, dynamic_shared_bytes = 0;
  bool checking = false, killed = false;
  std::uint64_t number = 0;
  unsigned threads = 0, blocks = 0;  // in a block, in the grid
  unsigned block = 0, epoch = 0;     // the running block, and how many barriers it has passed
  Fiber* fiber = nullptr;            // that runs; null outside a block
};
extern Launch launch;

unsigned random_below(unsigned bound);
void yield();
// Counts the running thread's steps: one that takes too many waits for what will not happen.
void take_steps(std::uint64_t steps, const Place& place);
// Ends the launch from inside a fiber, as an illegal address does on a device.
[[noreturn]] void kill_launch();
// Repeats of a kind at a place are counted, not listed.
void report(const char* kind, const std::string& text, const Fiber* fiber, const Place& place);
std::string describe(const Place& place);

void checker_begin_launch();
void checker_begin_block();
// Lanes that passed a __syncwarp together.
void checker_join(Fiber* const* members, unsigned count);

}  // namespace emulation
