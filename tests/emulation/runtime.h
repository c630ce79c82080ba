// What the scheduler and the checker share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_emulation.h"
#include "kernel_table.h"

namespace emulation {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr unsigned kMaxThreads = 1024;

enum class Wait { kNothing, kBarrier, kWarp, kExited };

struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && file == other.file; }
};

struct Fiber {
  void* stack_pointer;
  char* stack;
  unsigned number;
  uint3 thread;
  Wait wait;
  Site site;
  // At a barrier or a warp operation.
  bool predicate;
  WarpOp op;
  unsigned mask, source_lane;
  std::uint64_t value, result;
  std::array<std::uint64_t, 32> lane_values;  // of the operation that ended last
  // The checker's clocks: own, what is known of the other lanes' since the last block barrier, and
  // the fence executed last.
  unsigned clock;
  std::array<unsigned, 32> seen;
  bool fenced;
  unsigned fence_epoch, fence_clock;

  unsigned lane() const { return number % 32; }
  unsigned warp() const { return number / 32; }
};

struct Launch {
  const Kernel* kernel = nullptr;
  bool checking = false;
  std::uint64_t number = 0;
  unsigned block = 0, blocks = 0;  // the running block's place in the grid, and how many
  unsigned epoch = 0;              // barriers the running block has passed
  Fiber* fiber = nullptr;          // that runs; null outside a block
  bool killed = false;
};

extern Launch launch;

// Uniform in 0 to bound - 1.
unsigned random_below(unsigned bound);
void yield();
// Ends the launch from inside a fiber, as an illegal address does on a device.
[[noreturn]] void kill_launch();
// "kernel: kind: text: thread (x, y, z) of block (x, y, z)[: place]". Repeats of a kind at a
// place are counted, not listed.
void report(const char* kind, const std::string& text, const Fiber* fiber, const void* place);
std::string describe(const Site& site);

// ---- checker.cpp --------------------------------------------------------------------------------

void checker_begin_launch(void* parameters, std::size_t parameter_bytes, void* dynamic_shared,
                          std::size_t dynamic_shared_bytes);
void checker_begin_block();
void checker_end_launch();
// Lanes that passed a __syncwarp together.
void checker_join(Fiber* const* members, unsigned count);
void checker_add_shared(std::uintptr_t address, std::size_t bytes, const std::string& name);
void checker_set_image(std::uintptr_t low, std::uintptr_t high);

}  // namespace emulation
