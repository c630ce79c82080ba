// Runs the threads of a block as fibers, blocks and threads in random order, and keeps the rules of
// barriers and warp intrinsics.
//
// One block runs at a time. A round resumes every fiber that can run, in a new random order; a
// fiber runs until it exits or waits. Barriers are settled between rounds, warp operations when
// their last lane arrives.
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <vector>

#include "runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

Launch launch;

namespace {

// Accesses are counted only when checked, an atomic operation always, as many steps.
constexpr std::uint64_t kMaxSteps = 1u << 28;

std::uint64_t random_state = 0x9e3779b97f4a7c15ull;
Fiber fibers[kMaxThreads];
jmp_buf contexts[kMaxThreads], scheduler_context;
bool begun[kMaxThreads];  // a fiber that exits is used again; one that was left has to begin anew
unsigned live = 0, at_barrier = 0, barrier_count = 0;

const char* const kNames[] = {"__syncwarp", "a shuffle", "a vote"};
const char* name_of(WarpOp op) { return kNames[static_cast<int>(op)]; }

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

void to_scheduler() {
  if (_setjmp(contexts[launch.fiber->number]) == 0) _longjmp(scheduler_context, 1);
}

// A lane has arrived or exited: ends the operation if no live lane of its mask is missing.
void try_complete(unsigned warp, unsigned mask, WarpOp op) {
  Fiber* members[32];
  unsigned count = 0, here = 0, votes = 0;
  std::uint64_t values[32] = {};
  for (unsigned lane = 0; lane < 32; ++lane) {
    Fiber& fiber = fibers[warp * 32 + lane];
    if ((mask >> lane & 1u) == 0 || fiber.wait == Wait::kExited) continue;
    if (fiber.wait != Wait::kWarp || fiber.mask != mask || fiber.op != op) return;
    members[count++] = &fiber;
    here |= 1u << lane;
    values[lane] = fiber.value;
    if (fiber.value != 0) votes |= 1u << lane;
  }
  if (count == 0) return;
  const Place place = members[0]->place;
  if (here != mask) {
    report("exited lane",
           std::string(name_of(op)) + " has the mask " + hex(mask) + ", of which the lanes " +
               hex(mask & ~here) + " have exited or do not exist",
           members[0], place);
  }
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = *members[i];
    fiber.result = op == WarpOp::kVote ? votes : values[fiber.source];
    fiber.wait = Wait::kNothing;
    if (op != WarpOp::kSync && !(fiber.place == place)) {
      report("wrong mask",
             std::string("lanes of one mask meet in ") + name_of(op) + " at two places, also at " +
                 describe(fiber.place),
             &fiber, place);
    }
    if (op == WarpOp::kShuffle && (here >> fiber.source & 1u) == 0) {
      const bool in_mask = (mask >> fiber.source & 1u) != 0;
      report(in_mask ? "exited lane" : "wrong mask",
             "a shuffle reads lane " + std::to_string(fiber.source) +
                 (in_mask ? ", which has exited" : ", which is not in its mask"),
             &fiber, fiber.place);
    }
  }
  if (op == WarpOp::kSync) checker_join(members, count);
}

void run_fiber() {
  for (;;) {
    launch.kernel->call(launch.arguments);
    Fiber& self = *launch.fiber;
    self.wait = Wait::kExited;
    --live;
    for (unsigned i = self.warp() * 32; i < self.warp() * 32 + 32; ++i) {
      const Fiber& other = fibers[i];
      if (other.wait == Wait::kWarp && (other.mask >> self.lane() & 1u) != 0) {
        try_complete(self.warp(), other.mask, other.op);
      }
    }
    to_scheduler();
  }
}

void begin(Fiber& fiber) {
  ucontext_t context;
  getcontext(&context);
  context.uc_link = nullptr;
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStackBytes;
  makecontext(&context, run_fiber, 0);
  setcontext(&context);
}

void resume(Fiber& fiber) {
  threadIdx = fiber.thread;
  launch.fiber = &fiber;
  if (_setjmp(scheduler_context) == 0) {
    if (begun[fiber.number]) _longjmp(contexts[fiber.number], 1);
    begun[fiber.number] = true;
    begin(fiber);
  }
  launch.fiber = nullptr;
}

void prepare(unsigned number) {
  static char* const stacks =
      static_cast<char*>(mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks == MAP_FAILED) std::abort();
  Fiber& fiber = fibers[number];
  if (fiber.wait != Wait::kExited) begun[number] = false;
  fiber = {};
  fiber.number = number;
  fiber.stack = stacks + number * kStackBytes;
  fiber.thread = {number % blockDim.x, number / blockDim.x % blockDim.y,
                  number / (blockDim.x * blockDim.y)};
  fiber.clock = 1;
  if (number >= launch.threads) fiber.wait = Wait::kExited;
}

void end_barrier() {
  Fiber* const end = fibers + launch.threads;
  const auto waiting = [](const Fiber& fiber) { return fiber.wait == Wait::kBarrier; };
  const Fiber* first = std::find_if(fibers, end, waiting);
  const Fiber* other = std::find_if(fibers, end, [&](const Fiber& fiber) {
    return waiting(fiber) && !(fiber.place == first->place);
  });
  if (other != end) {
    report("divergent barrier", "threads of its block wait at " + describe(first->place), other,
           other->place);
  }
  if (live < launch.threads) {
    report("divergent barrier",
           std::to_string(launch.threads - live) + " threads of its block have exited", first,
           first->place);
  }
  at_barrier = barrier_count = 0;
  ++launch.epoch;
  for (Fiber* fiber = fibers; fiber != end; ++fiber) {
    if (!waiting(*fiber)) continue;
    barrier_count += fiber->predicate ? 1 : 0;
    fiber->wait = Wait::kNothing;
    fiber->clock = 1;
    std::fill_n(fiber->seen, 32, 0u);
  }
}

// Nothing can run: says who waits where, and gives the launch up.
void report_deadlock() {
  std::map<std::string, unsigned> places;
  const Fiber* in_warp = nullptr;
  for (unsigned i = 0; i < launch.threads; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.wait == Wait::kBarrier) ++places["__syncthreads at " + describe(fiber.place)];
    if (fiber.wait != Wait::kWarp) continue;
    ++places[std::string(name_of(fiber.op)) + " of " + hex(fiber.mask) + " at " +
             describe(fiber.place)];
    in_warp = &fiber;
  }
  std::string text = "threads wait for each other for ever:";
  for (const auto& [place, count] : places) text += " " + std::to_string(count) + " in " + place;
  report(at_barrier != 0 ? "divergent barrier" : "wrong mask", text, in_warp, in_warp->place);
  launch.killed = true;
}

void run_block(unsigned block) {
  launch.block = block;
  launch.epoch = at_barrier = 0;
  blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
  live = launch.threads;
  for (unsigned i = 0; i < (launch.threads + 31) / 32 * 32; ++i) prepare(i);
  if (launch.checking) checker_begin_block();

  unsigned order[kMaxThreads];
  std::iota(order, order + launch.threads, 0u);
  for (bool first_round = true; live > 0 && !launch.killed; first_round = false) {
    // Unchecked, the first order of a block serves all its rounds.
    if (first_round || launch.checking) {
      for (unsigned i = launch.threads; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
    }
    bool any_ran = false;
    for (unsigned i = 0; i < launch.threads && !launch.killed; ++i) {
      if (fibers[order[i]].wait != Wait::kNothing) continue;
      any_ran = true;
      resume(fibers[order[i]]);
    }
    if (live > 0 && at_barrier == live) {
      end_barrier();
    } else if (!any_ran && live > 0) {
      report_deadlock();
    }
  }
}

}  // namespace

unsigned block_barrier(bool predicate, const char* file, int line) {
  Fiber& self = *launch.fiber;
  self.wait = Wait::kBarrier;
  self.place = {file, line};
  self.predicate = predicate;
  ++at_barrier;
  to_scheduler();
  return barrier_count;
}

std::uint64_t warp_operation(WarpOp op, unsigned mask, std::uint64_t value, unsigned source,
                             const char* file, int line) {
  Fiber& self = *launch.fiber;
  self.wait = Wait::kWarp;
  self.place = {file, line};
  self.op = op;
  self.mask = mask;
  self.value = value;
  self.source = source;
  if ((mask >> self.lane() & 1u) == 0) {
    report("wrong mask",
           "lane " + std::to_string(self.lane()) + " is not in the mask " + hex(mask) +
               " that it gives to " + name_of(op),
           &self, self.place);
    kill_launch();
  }
  try_complete(self.warp(), mask, op);
  // The last lane to arrive goes on at once or later, as on a device.
  if (self.wait == Wait::kWarp || random_below(2) == 0) to_scheduler();
  return self.result;
}

unsigned own_lane() { return launch.fiber->lane(); }
void* dynamic_shared() { return launch.dynamic_shared; }
void yield() { to_scheduler(); }

void kill_launch() {
  launch.killed = true;
  _longjmp(scheduler_context, 1);
}

void take_steps(std::uint64_t steps, const Place& place) {
  launch.fiber->steps += steps;
  if (launch.fiber->steps <= kMaxSteps) return;
  report("endless loop", "waits for what does not happen; blocks run one after another",
         launch.fiber, place);
  kill_launch();
}

unsigned random_below(unsigned bound) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<unsigned>((random_state >> 32) * bound >> 32);
}

void set_seed(std::uint64_t seed) {
  random_state = seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
  if (random_state == 0) random_state = 1;
  for (int i = 0; i < 8; ++i) random_below(2);
}

// Runs every block of a grid. The arguments are copied first, as a launch does.
void run_grid(const Kernel& kernel, const dim3& grid, const dim3& block, unsigned shared_bytes,
              void** arguments, bool checking) {
  const auto count = static_cast<std::size_t>(kernel.argument_count);
  std::vector<std::size_t> offsets = {count * sizeof(void*)};
  for (std::size_t i = 0; i < count; ++i) {
    offsets[i] = (offsets[i] + 15) / 16 * 16;
    offsets.push_back(offsets[i] + kernel.argument_bytes[i]);
  }
  std::vector<std::max_align_t> parameters(offsets.back() / sizeof(std::max_align_t) + 1);
  auto* base = reinterpret_cast<char*>(parameters.data());
  launch.arguments = reinterpret_cast<void**>(base);
  launch.parameter_bytes = offsets.back();
  for (std::size_t i = 0; i < count; ++i) {
    launch.arguments[i] = base + offsets[i];
    std::memcpy(base + offsets[i], arguments[i], kernel.argument_bytes[i]);
  }
  std::vector<std::max_align_t> dynamic(shared_bytes / sizeof(std::max_align_t) + 1);
  launch.dynamic_shared = reinterpret_cast<char*>(dynamic.data());
  launch.dynamic_shared_bytes = shared_bytes;
  launch.kernel = &kernel;
  launch.checking = checking;
  launch.killed = false;
  ++launch.number;
  gridDim = grid;
  blockDim = block;
  launch.threads = block.x * block.y * block.z;
  launch.blocks = grid.x * grid.y * grid.z;
  if (checking) checker_begin_launch();
  std::vector<unsigned> order(launch.blocks);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned i = launch.blocks; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
  for (std::size_t i = 0; i < order.size() && !launch.killed; ++i) run_block(order[i]);
}

}  // namespace emulation
