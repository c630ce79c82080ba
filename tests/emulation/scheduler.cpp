// Runs the threads of a block as fibers, blocks and threads in random order, and keeps the rules of
// barriers and warp intrinsics.
//
// One block runs at a time. A round resumes every fiber that can run, in a new random order; a fiber
// runs until it exits or waits. Barriers are settled between rounds, warp operations when their last
// lane arrives.
#include "runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

Launch launch;

namespace {

std::uint64_t random_state = 0x9e3779b97f4a7c15ull;
std::vector<Fiber> fibers;
void* scheduler_stack_pointer = nullptr;
void** kernel_arguments = nullptr;
char* dynamic_shared_memory = nullptr;
unsigned block_threads = 0, live = 0, at_barrier = 0, barrier_count = 0;

std::string count_of(unsigned n, const char* noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

const char* name_of(WarpOp op) {
  switch (op) {
    case WarpOp::kSync:
      return "__syncwarp";
    case WarpOp::kShuffle:
      return "a shuffle";
    case WarpOp::kBallot:
      return "a vote";
    case WarpOp::kReduce:
      return "a reduction";
  }
  return "";
}

}  // namespace

#if defined(__x86_64__)
// Saves what a function call must preserve, and changes stacks.
extern "C" void emulation_switch(void** save, void* to);
__asm__(
    ".text\n.globl emulation_switch\n.type emulation_switch, @function\nemulation_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emulation_switch, .-emulation_switch\n");
#else
#error "emulation_switch is written for x86-64"
#endif

namespace {

void to_scheduler() {
  emulation_switch(&launch.fiber->stack_pointer, scheduler_stack_pointer);
}

// A lane has arrived or exited: ends the operation if no live lane of its mask is missing.
void try_complete(unsigned warp, unsigned mask, WarpOp op) {
  Fiber* first_lane = &fibers[warp * 32];
  const unsigned lanes = std::min(32u, block_threads - warp * 32);
  Fiber* members[32];
  unsigned count = 0, exited = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    if (lane >= lanes || first_lane[lane].wait == Wait::kExited) {
      exited |= 1u << lane;
      continue;
    }
    Fiber& fiber = first_lane[lane];
    if (fiber.wait != Wait::kWarp || fiber.mask != mask || fiber.op != op) return;
    members[count++] = &fiber;
  }
  if (count == 0) return;
  const Fiber& first = *members[0];
  char text[160];
  if (exited != 0) {
    std::snprintf(text, sizeof text, "the mask 0x%08x of %s names lanes 0x%08x, which %s (%s)", mask,
                  name_of(op), exited, "have exited or do not exist", describe(first.site).c_str());
    report("exited lane", text, &first, first.site.file + first.site.line);
  }
  std::array<std::uint64_t, 32> values{};
  unsigned votes = 0, here = 0;
  for (unsigned i = 0; i < count; ++i) {
    values[members[i]->lane()] = members[i]->value;
    votes |= (members[i]->value != 0 ? 1u : 0u) << members[i]->lane();
    here |= 1u << members[i]->lane();
    if (op != WarpOp::kSync && !(members[i]->site == first.site)) {
      report("wrong mask",
             std::string("lanes of one mask meet in ") + name_of(op) + " at different places: " +
                 describe(first.site) + " and " + describe(members[i]->site),
             members[i], first.site.file + first.site.line);
    }
  }
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = *members[i];
    if (op == WarpOp::kShuffle && (here >> fiber.source_lane & 1u) == 0) {
      std::snprintf(text, sizeof text, "a shuffle reads lane %u, which %s (%s)", fiber.source_lane,
                    (exited >> fiber.source_lane & 1u) != 0 ? "has exited" : "is not in its mask",
                    describe(fiber.site).c_str());
      report((exited >> fiber.source_lane & 1u) != 0 ? "exited lane" : "wrong mask", text, &fiber,
             fiber.site.file + fiber.site.line);
    }
    fiber.result = op == WarpOp::kBallot ? votes : values[fiber.source_lane];
    if (op == WarpOp::kReduce) fiber.lane_values = values;
    fiber.wait = Wait::kNothing;
  }
  if (op == WarpOp::kSync) checker_join(members, count);
}

void run_fiber() {
  launch.kernel->call(kernel_arguments);
  Fiber& self = *launch.fiber;
  self.wait = Wait::kExited;
  --live;
  const unsigned first = self.warp() * 32, end = std::min(first + 32, block_threads);
  for (unsigned i = first; i < end; ++i) {
    const Fiber& other = fibers[i];
    if (other.wait == Wait::kWarp && (other.mask >> self.lane() & 1u) != 0) {
      try_complete(self.warp(), other.mask, other.op);
    }
  }
  to_scheduler();
  __builtin_unreachable();
}

void prepare(Fiber& fiber, unsigned number) {
  fiber.number = number;
  fiber.thread = {number % blockDim.x, number / blockDim.x % blockDim.y,
                  number / (blockDim.x * blockDim.y)};
  fiber.wait = Wait::kNothing;
  fiber.clock = 1;
  fiber.seen.fill(0);
  fiber.fenced = false;
  // The first switch pops six registers and returns into run_fiber.
  auto** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64);
  top[6] = reinterpret_cast<void*>(&run_fiber);
  fiber.stack_pointer = top;
}

void make_stacks(unsigned count) {
  if (fibers.size() >= count) return;
  static char* const stacks = static_cast<char*>(
      mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks == MAP_FAILED) std::abort();
  for (unsigned i = static_cast<unsigned>(fibers.size()); i < count; ++i) {
    fibers.emplace_back();
    fibers.back().stack = stacks + i * kStackBytes;
  }
}

void end_barrier() {
  const Fiber* first = nullptr;
  for (unsigned i = 0; i < block_threads; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.wait != Wait::kBarrier) continue;
    if (first == nullptr) first = &fiber;
    if (!(fiber.site == first->site)) {
      report("divergent barrier",
             "threads of a block wait at different barriers: " + describe(first->site) + " and " +
                 describe(fiber.site),
             &fiber, first->site.file + first->site.line);
      break;
    }
  }
  if (live < block_threads) {
    report("divergent barrier",
           count_of(block_threads - live, "thread") + " exited before the barrier at " +
               describe(first->site),
           first, first->site.file + first->site.line);
  }
  unsigned predicates = 0;
  for (unsigned i = 0; i < block_threads; ++i) {
    predicates += fibers[i].wait == Wait::kBarrier && fibers[i].predicate ? 1 : 0;
  }
  for (unsigned i = 0; i < block_threads; ++i) {
    Fiber& fiber = fibers[i];
    if (fiber.wait != Wait::kBarrier) continue;
    fiber.wait = Wait::kNothing;
    fiber.clock = 1;
    fiber.seen.fill(0);
  }
  at_barrier = 0;
  barrier_count = predicates;
  ++launch.epoch;
}

// Nothing can run: says who waits where, and gives the block up.
void report_deadlock() {
  std::vector<std::pair<std::string, unsigned>> places;
  const Fiber* in_warp = nullptr;
  for (unsigned i = 0; i < block_threads; ++i) {
    const Fiber& fiber = fibers[i];
    if (fiber.wait == Wait::kExited) continue;
    const bool warp = fiber.wait == Wait::kWarp;
    if (warp && in_warp == nullptr) in_warp = &fiber;
    std::string place = std::string(warp ? name_of(fiber.op) : "__syncthreads") + " (" +
                        describe(fiber.site) + ")";
    if (warp) {
      char mask[32];
      std::snprintf(mask, sizeof mask, " with mask 0x%08x", fiber.mask);
      place += mask;
    }
    auto found = std::find_if(places.begin(), places.end(),
                              [&](const auto& known) { return known.first == place; });
    if (found == places.end()) found = places.insert(places.end(), {place, 0});
    ++found->second;
  }
  std::string text = "threads wait for each other for ever:";
  for (const auto& [place, count] : places) text += " " + std::to_string(count) + " in " + place;
  report(at_barrier != 0 ? "divergent barrier" : "wrong mask", text, in_warp,
         in_warp->site.file + in_warp->site.line);
  launch.killed = true;
}

void run_block(unsigned block) {
  launch.block = block;
  launch.epoch = 0;
  blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
  live = block_threads;
  at_barrier = 0;
  for (unsigned i = 0; i < block_threads; ++i) prepare(fibers[i], i);
  if (launch.checking) checker_begin_block();

  static unsigned order[kMaxThreads];
  std::iota(order, order + block_threads, 0u);
  bool shuffled = false;
  while (live > 0 && !launch.killed) {
    // Unchecked, the first order of a block serves all its rounds.
    if (!shuffled || launch.checking) {
      for (unsigned i = block_threads; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
      shuffled = true;
    }
    bool any_ran = false;
    for (unsigned i = 0; i < block_threads && !launch.killed; ++i) {
      Fiber& fiber = fibers[order[i]];
      if (fiber.wait != Wait::kNothing) continue;
      any_ran = true;
      threadIdx = fiber.thread;
      launch.fiber = &fiber;
      emulation_switch(&scheduler_stack_pointer, fiber.stack_pointer);
      launch.fiber = nullptr;
    }
    if (live > 0 && at_barrier == live) {
      end_barrier();
    } else if (!any_ran && live > 0) {
      report_deadlock();
    }
  }
}

}  // namespace

// ---- called by kernels --------------------------------------------------------------------------

unsigned block_barrier(bool predicate, const char* file, int line) {
  Fiber& self = *launch.fiber;
  self.wait = Wait::kBarrier;
  self.site = {file, line};
  self.predicate = predicate;
  ++at_barrier;
  to_scheduler();
  return barrier_count;
}

std::uint64_t warp_operation(WarpOp op, unsigned mask, std::uint64_t value, unsigned source_lane,
                             const char* file, int line) {
  Fiber& self = *launch.fiber;
  self.wait = Wait::kWarp;
  self.site = {file, line};
  self.op = op;
  self.mask = mask;
  self.value = value;
  self.source_lane = source_lane;
  if ((mask >> self.lane() & 1u) == 0) {
    char text[128];
    std::snprintf(text, sizeof text, "lane %u is not in the mask 0x%08x of its own %s (%s)",
                  self.lane(), mask, name_of(op), describe(self.site).c_str());
    report("wrong mask", text, &self, file + line);
    kill_launch();
  }
  try_complete(self.warp(), mask, op);
  // The last lane to arrive goes on at once or later, as on a device.
  if (self.wait == Wait::kWarp || random_below(2) == 0) to_scheduler();
  return self.result;
}

std::uint64_t lane_value(unsigned lane) { return launch.fiber->lane_values[lane]; }
unsigned own_lane() { return launch.fiber->lane(); }
void* dynamic_shared() { return dynamic_shared_memory; }

void yield() { to_scheduler(); }

void kill_launch() {
  launch.killed = true;
  to_scheduler();
  __builtin_unreachable();
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
  std::size_t bytes = sizeof(void*) * static_cast<std::size_t>(kernel.argument_count + 1);
  const auto aligned = [](std::size_t n) { return (n + 15) / 16 * 16; };
  for (int i = 0; i < kernel.argument_count; ++i) bytes = aligned(bytes) + kernel.argument_bytes[i];
  std::vector<std::max_align_t> parameters(bytes / sizeof(std::max_align_t) + 1);
  auto* base = reinterpret_cast<char*>(parameters.data());
  kernel_arguments = reinterpret_cast<void**>(base);
  std::size_t used = sizeof(void*) * static_cast<std::size_t>(kernel.argument_count + 1);
  for (int i = 0; i < kernel.argument_count; ++i) {
    used = aligned(used);
    kernel_arguments[i] = base + used;
    std::memcpy(base + used, arguments[i], kernel.argument_bytes[i]);
    used += kernel.argument_bytes[i];
  }

  // Poisoned for every launch: what a kernel does not write is not 0.
  std::vector<std::max_align_t> dynamic(shared_bytes / sizeof(std::max_align_t) + 1);
  std::memset(dynamic.data(), 0xa5, dynamic.size() * sizeof(std::max_align_t));
  dynamic_shared_memory = reinterpret_cast<char*>(dynamic.data());

  launch.kernel = &kernel;
  launch.checking = checking;
  launch.killed = false;
  ++launch.number;
  gridDim = grid;
  blockDim = block;
  block_threads = block.x * block.y * block.z;
  launch.blocks = grid.x * grid.y * grid.z;
  make_stacks(block_threads);
  if (checking) checker_begin_launch(base, bytes, dynamic_shared_memory, shared_bytes);
  std::vector<unsigned> order(launch.blocks);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned i = launch.blocks; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
  for (const unsigned number : order) {
    run_block(number);
    if (launch.killed) break;
  }
  if (checking) checker_end_launch();
}

}  // namespace emulation
