// Judges every access of a checked kernel.
//
// Kernels are compiled with -fsanitize=thread,alignment,bounds, and linked with none of the
// sanitizers' libraries: the calls that the compiler plants arrive here (hooks.cpp). For each byte
// a cell remembers who wrote and who read it last in this launch (in this block, for shared
// memory). Two accesses by different threads, one of them a write and not both atomic, are a race
// unless
//   - a block barrier lies between them,
//   - a __syncwarp that both lanes took part in lies between them (shuffles and votes order
//     nothing), or
//   - the earlier block fenced and then touched an atomic variable that the later one touched.
#include "checker.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

namespace emulation {
namespace {

enum Kind : std::uint64_t { kNobody, kThread, kWarpMates, kBlockMates, kSeveralBlocks };

// Who accessed a byte. Of several unordered threads: the smallest group they share.
struct Record {
  std::uint64_t kind : 3, atomic : 1, block : 20, thread : 10, epoch : 18, clock : 12;
};
struct Cell {
  Record write, read;
};
constexpr std::size_t kChunkBytes = 1024;
struct Chunk {
  std::uint64_t generation;
  Cell cells[kChunkBytes];
};

struct Region {
  std::uintptr_t base;
  std::size_t bytes;
  std::string name;
  bool shared = false, read_only = false;
  std::vector<std::uint8_t> written = {};  // of device memory, for each byte; empty: all of it
  std::vector<std::unique_ptr<Chunk>> chunks = {};

  // Cleared when a launch or a block comes to a chunk first.
  Cell& cell(std::size_t offset, std::uint64_t generation) {
    if (chunks.empty()) chunks.resize(bytes / kChunkBytes + 1);
    auto& chunk = chunks[offset / kChunkBytes];
    if (!chunk) chunk = std::make_unique<Chunk>();
    if (chunk->generation != generation) *chunk = {generation, {}};
    return chunk->cells[offset % kChunkBytes];
  }
};

std::vector<std::unique_ptr<Region>> device_regions, shared_regions;
Region parameters{0, 0, "kernel parameters", false, true};
Region dynamic_region{0, 0, "dynamic shared memory", true};
std::vector<Region*> map;  // of the launch, by address
Region* last_region = nullptr;
std::uintptr_t shared_low = ~std::uintptr_t{0}, shared_high = 0;  // static variables and their gaps
std::uint64_t block_generation = 0;

// What a fence and an atomic operation after it hand to whoever touches the variable later.
struct Release {
  unsigned block, thread, epoch, clock;
  unsigned by_thread, in_epoch;  // who took it over
  bool visible() const { return by_thread == launch.fiber->number || in_epoch < launch.epoch; }
};
bool any_fence = false;
std::unordered_map<std::uintptr_t, std::vector<Release>> releases;  // by variable
std::unordered_map<unsigned, std::vector<Release>> acquired;        // by releasing block

bool released(const Record& earlier) {
  const auto found = acquired.find(static_cast<unsigned>(earlier.block));
  if (found == acquired.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Release& r) {
    const bool by_releaser = earlier.kind == kThread && earlier.thread == r.thread &&
                             earlier.epoch == r.epoch && earlier.clock <= r.clock;
    return r.visible() && (earlier.epoch < r.epoch || by_releaser);
  });
}

bool all_blocks_released() {
  return acquired.size() + 1 >= launch.blocks &&
         std::all_of(acquired.begin(), acquired.end(), [](const auto& entry) {
           return std::any_of(entry.second.begin(), entry.second.end(),
                              [](const Release& r) { return r.visible(); });
         });
}

// True when the running thread comes after everything in the record.
bool is_after(const Record& earlier) {
  const Fiber& self = *launch.fiber;
  if (earlier.kind == kNobody) return true;
  if (earlier.kind == kSeveralBlocks) return any_fence && all_blocks_released();
  if (earlier.block != launch.block) return any_fence && released(earlier);
  if (earlier.epoch < launch.epoch) return true;
  if (earlier.kind == kBlockMates) return false;
  const bool warp_mate = earlier.thread / 32 == self.warp();
  if (earlier.kind == kThread) {
    return earlier.thread == self.number ||
           (warp_mate && earlier.clock <= self.seen[earlier.thread % 32]);
  }
  return warp_mate && *std::min_element(self.seen, self.seen + 32) >= earlier.clock;
}

// The running thread alone, or added to a record that it does not come after.
Record with_self(const Record& earlier, bool atomic, bool after) {
  const Fiber& self = *launch.fiber;
  Record own{kThread, atomic, launch.block, self.number, launch.epoch, self.clock};
  if (after) return own;
  if (earlier.kind == kSeveralBlocks || earlier.block != own.block) {
    own.kind = kSeveralBlocks;
  } else if (earlier.kind == kBlockMates || earlier.thread / 32 != own.thread / 32) {
    own.kind = kBlockMates;
  } else if (earlier.kind == kWarpMates || earlier.thread != own.thread) {
    own.kind = kWarpMates;
    own.clock = std::max(own.clock, earlier.clock);
  }
  return own;
}

std::string who(const Record& record) {
  if (record.kind == kSeveralBlocks) return "several blocks";
  const std::string block = "block " + position(static_cast<unsigned>(record.block), gridDim);
  if (record.kind == kBlockMates) return "several threads of " + block;
  if (record.kind == kWarpMates) return "several lanes of a warp of " + block;
  return "thread " + position(static_cast<unsigned>(record.thread), blockDim) + " of " + block;
}

std::string size_text(std::size_t bytes) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

Region* region_at(std::uintptr_t address) {
  if (last_region != nullptr && address - last_region->base < last_region->bytes) {
    return last_region;
  }
  auto next = std::upper_bound(map.begin(), map.end(), address,
                               [](std::uintptr_t a, const Region* r) { return a < r->base; });
  if (next == map.begin()) return nullptr;
  Region* region = *(next - 1);
  return address - region->base < region->bytes ? last_region = region : nullptr;
}

[[noreturn]] void out_of_bounds(std::uintptr_t address, std::size_t bytes, bool write,
                                const Place& place) {
  std::string text =
      std::string(write ? "writes " : "reads ") + size_text(bytes) + ", in no buffer";
  std::uintptr_t least = 1 << 20;
  for (const Region* region : map) {
    const bool before = address < region->base;
    const std::uintptr_t gap =
        before ? region->base - address : address - std::min(address, region->base + region->bytes);
    if (gap >= least || region->bytes == 0) continue;
    least = gap;
    text =
        std::string(write ? "writes " : "reads ") + size_text(bytes) + " at '" + region->name +
        (before ? "' - " + std::to_string(gap) : "' + " + std::to_string(address - region->base)) +
        ", which has " + size_text(region->bytes);
  }
  report("out of bounds", text, launch.fiber, place);
  kill_launch();
}

}  // namespace

void access(std::uintptr_t address, std::size_t bytes, Access how, const void* code) {
  if (launch.fiber == nullptr || bytes == 0) return;
  const Place place{nullptr, 0, code};
  take_steps(1, place);
  if (address - reinterpret_cast<std::uintptr_t>(launch.fiber->stack) < kStackBytes) return;
  const bool write = how != Access::kRead;
  Region* region = region_at(address);
  const bool in_shared = address >= shared_low && address < shared_high;
  if (region == nullptr && !write && !in_shared && is_constant(address)) return;
  if (region == nullptr || address - region->base + bytes > region->bytes ||
      (write && region->read_only)) {
    out_of_bounds(address, bytes, write, place);
  }
  if (region->read_only) return;

  const std::size_t first = address - region->base;
  const auto tell_race = [&](const Record& earlier, const char* then) {
    report("data race",
           std::string(write ? "writes " : "reads ") + size_text(bytes) + " at '" + region->name +
               "' + " + std::to_string(first) + ", unordered with " +
               (earlier.atomic ? "an atomic operation" : then) + " of " + who(earlier),
           launch.fiber, place);
  };
  const std::uint64_t generation = region->shared ? block_generation : launch.number;
  bool unwritten = false, raced = false;
  for (std::size_t at = first; at < first + bytes; ++at) {
    Cell& cell = region->cell(at, generation);
    if (how != Access::kWrite) {
      unwritten |= region->shared ? cell.write.kind == kNobody
                                  : !region->written.empty() && region->written[at] == 0;
    }
    const bool atomic = how == Access::kAtomic, both_atomic = atomic && cell.write.atomic;
    const bool after_write = is_after(cell.write), after_read = is_after(cell.read);
    if (!raced && !after_write && !both_atomic) tell_race(cell.write, "a write");
    if (!raced && write && !after_read) tell_race(cell.read, "a read");
    raced |= (!after_write && !both_atomic) || (write && !after_read);
    if (write) {
      cell = {with_self(cell.write, atomic, after_write || !both_atomic), {}};
      if (!region->written.empty()) region->written[at] = 1;
    } else {
      cell.read = with_self(cell.read, false, after_read);
    }
  }
  if (unwritten) {
    report("read of unwritten memory", "reads '" + region->name + "' + " + std::to_string(first),
           launch.fiber, place);
  }
}

void fence() {
  Fiber& self = *launch.fiber;
  any_fence = self.fenced = true;
  self.fence_epoch = launch.epoch;
  self.fence_clock = self.clock++;
}

void before_atomic(void* address, std::size_t bytes, void* return_address) {
  take_steps(256, {nullptr, 0, return_address});
  if (random_below(8) == 0) yield();
  if (!launch.checking) return;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  access(at, bytes, Access::kAtomic, return_address);
  if (!any_fence) return;
  const Fiber& self = *launch.fiber;
  auto& list = releases[at];
  for (Release release : list) {
    if (release.block == launch.block) continue;
    release.by_thread = self.number;
    release.in_epoch = launch.epoch;
    acquired[release.block].push_back(release);
  }
  if (self.fenced) {
    list.push_back({launch.block, self.number, self.fence_epoch, self.fence_clock, 0, 0});
  }
}

void checker_join(Fiber* const* members, unsigned count) {
  unsigned joined[32] = {}, clock = 0;
  for (unsigned i = 0; i < count; ++i) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      joined[lane] = std::max(joined[lane], members[i]->seen[lane]);
    }
    clock = std::max(clock, members[i]->clock);
  }
  for (unsigned i = 0; i < count; ++i) joined[members[i]->lane()] = clock;
  for (unsigned i = 0; i < count; ++i) {
    std::copy_n(joined, 32, members[i]->seen);
    members[i]->clock = clock + 1;
  }
}

void checker_begin_launch() {
  parameters.base = reinterpret_cast<std::uintptr_t>(launch.arguments);
  parameters.bytes = launch.parameter_bytes;
  dynamic_region = {reinterpret_cast<std::uintptr_t>(launch.dynamic_shared),
                    launch.dynamic_shared_bytes, "dynamic shared memory", true};
  map = {&parameters, &dynamic_region};
  for (const auto& region : device_regions) map.push_back(region.get());
  for (const auto& region : shared_regions) map.push_back(region.get());
  std::sort(map.begin(), map.end(),
            [](const Region* a, const Region* b) { return a->base < b->base; });
  last_region = nullptr;
  any_fence = false;
  releases.clear();
}

void checker_begin_block() {
  ++block_generation;
  acquired.clear();
}

void add_shared_variable(std::uintptr_t base, std::size_t bytes, const std::string& name) {
  shared_regions.push_back(std::unique_ptr<Region>(new Region{base, bytes, name, true}));
  shared_low = std::min(shared_low, base);
  shared_high = std::max(shared_high, base + 65536);
}

void add_device_memory(std::uintptr_t base, std::size_t bytes, const char* name, bool written) {
  device_regions.push_back(std::unique_ptr<Region>(new Region{base, bytes, name}));
  if (!written) device_regions.back()->written.assign(bytes, 0);
}

void remove_device_memory(std::uintptr_t base) {
  const auto is_there = [&](const auto& region) { return region->base == base; };
  device_regions.erase(std::remove_if(device_regions.begin(), device_regions.end(), is_there),
                       device_regions.end());
}

void mark_written(std::uintptr_t start, std::size_t bytes) {
  for (auto& region : device_regions) {
    const std::size_t offset = start - region->base;
    if (offset >= region->bytes || region->written.empty()) continue;
    std::fill_n(region->written.data() + offset, std::min(bytes, region->bytes - offset),
                std::uint8_t{1});
  }
}

void mark_all_written() {
  for (auto& region : device_regions) region->written.clear();
}

}  // namespace emulation
