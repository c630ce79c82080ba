// Judges every access of a checked kernel.
//
// Kernels are compiled with -fsanitize=thread,alignment,bounds, and linked with none of the
// sanitizers' libraries: the calls that the compiler plants arrive here. For each byte a shadow cell
// remembers who wrote and who read it last in this launch (in this block, for shared memory). Two
// accesses by different threads, one of them a write and not both atomic, are a race unless
//   - a block barrier lies between them,
//   - a __syncwarp that both lanes took part in lies between them (shuffles and votes order
//     nothing), or
//   - the earlier block fenced and then touched an atomic variable that the later one touched.
#include "runtime.h"

#include <algorithm>
#include <memory>
#include <unordered_map>

namespace emulation {
namespace {

enum Kind : std::uint64_t { kNobody, kThread, kWarpMates, kBlockMates, kSeveralBlocks };

// Who accessed a byte. Of several unordered threads: the smallest group they share.
struct Record {
  std::uint64_t kind : 3, atomic : 1, block : 20, thread : 10, epoch : 18, clock : 12;
  bool operator==(const Record& other) const { return std::memcmp(this, &other, 8) == 0; }
};
static_assert(sizeof(Record) == 8);

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
  std::vector<std::uint8_t> written;  // of device memory, for each byte; empty: all of it
  std::vector<std::unique_ptr<Chunk>> chunks;

  Cell* cells(std::size_t offset, std::uint64_t generation) {
    if (chunks.empty()) chunks.resize(bytes / kChunkBytes + 1);
    auto& chunk = chunks[offset / kChunkBytes];
    if (!chunk) chunk = std::make_unique<Chunk>();
    if (chunk->generation != generation) {
      std::memset(chunk->cells, 0, sizeof chunk->cells);
      chunk->generation = generation;
    }
    return &chunk->cells[offset % kChunkBytes];
  }
};

std::vector<std::unique_ptr<Region>> device_regions, shared_regions;
std::unique_ptr<Region> parameters, dynamic_shared_region;
std::vector<Region*> map;  // of the launch, by address
Region* last_region = nullptr;
std::uintptr_t image_low = 0, image_high = 0;  // of the library of checked kernels
std::uint64_t block_generation = 0;

// What a fence and an atomic operation after it hand to whoever touches the variable later.
struct Release {
  unsigned block, thread, epoch, clock;
};
struct Acquired {
  Release release;
  unsigned by_thread, in_epoch;
};
bool any_fence = false;
std::unordered_map<std::uintptr_t, std::vector<Release>> releases;
std::unordered_map<unsigned, std::vector<Acquired>> acquired;  // by releasing block

Record own_record(bool atomic) {
  const Fiber& self = *launch.fiber;
  return {kThread, atomic, launch.block, self.number, launch.epoch & 0x3ffffu, self.clock & 0xfffu};
}

bool visible(const Acquired& a) {
  return a.by_thread == launch.fiber->number || a.in_epoch < launch.epoch;
}

bool released(const Record& earlier) {
  const auto found = acquired.find(static_cast<unsigned>(earlier.block));
  if (found == acquired.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(), [&](const Acquired& a) {
    const Release& r = a.release;
    const bool by_releaser = earlier.kind == kThread && earlier.thread == r.thread &&
                             earlier.epoch == r.epoch && earlier.clock <= r.clock;
    return visible(a) && (earlier.epoch < r.epoch || by_releaser);
  });
}

// True when the running thread comes after everything in the record.
bool is_after(const Record& earlier) {
  const Fiber& self = *launch.fiber;
  if (earlier.kind == kNobody) return true;
  if (earlier.kind == kSeveralBlocks) {
    return any_fence && acquired.size() + 1 >= launch.blocks &&
           std::all_of(acquired.begin(), acquired.end(), [](const auto& entry) {
             return std::any_of(entry.second.begin(), entry.second.end(), visible);
           });
  }
  if (earlier.block != launch.block) return any_fence && released(earlier);
  if (earlier.epoch < launch.epoch) return true;
  if (earlier.kind == kBlockMates) return false;
  const bool warp_mate = earlier.thread / 32 == self.warp();
  if (earlier.kind == kThread) {
    return earlier.thread == self.number ||
           (warp_mate && earlier.clock <= self.seen[earlier.thread % 32]);
  }
  return warp_mate && std::all_of(self.seen.begin(), self.seen.end(), [&](unsigned clock) {
           return clock >= earlier.clock;
         });
}

// Adds the running thread to a record that it does not come after.
Record widened(const Record& earlier, Record own) {
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
  const auto number = static_cast<unsigned>(record.thread);
  const auto place = [](unsigned i, const dim3& size) {
    return "(" + std::to_string(i % size.x) + ", " + std::to_string(i / size.x % size.y) + ", " +
           std::to_string(i / (size.x * size.y)) + ")";
  };
  const std::string block = "block " + place(static_cast<unsigned>(record.block), gridDim);
  switch (record.kind) {
    case kThread:
      return "thread " + place(number, blockDim) + " of " + block;
    case kWarpMates:
      return "several lanes of its warp in " + block;
    case kBlockMates:
      return "several threads of " + block;
    default:
      return "several blocks";
  }
}

std::string bytes_at(std::size_t bytes, const Region& region, std::uintptr_t address) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes") + " at '" + region.name + "' + " +
         std::to_string(address - region.base);
}

Region* region_at(std::uintptr_t address) {
  if (last_region != nullptr && address - last_region->base < last_region->bytes) {
    return last_region;
  }
  auto next = std::upper_bound(map.begin(), map.end(), address,
                               [](std::uintptr_t a, const Region* r) { return a < r->base; });
  if (next == map.begin()) return nullptr;
  Region* region = *(next - 1);
  if (address - region->base >= region->bytes) return nullptr;
  return last_region = region;
}

[[noreturn]] void out_of_bounds(std::uintptr_t address, std::size_t bytes, bool write, void* pc) {
  const Region* near = nullptr;
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const Region* region : map) {
    const std::uintptr_t end = region->base + region->bytes;
    const std::uintptr_t gap = address >= end                 ? address - end
                               : address >= region->base      ? 0
                                                              : region->base - address;
    if (gap <= distance) {
      distance = gap;
      near = region;
    }
  }
  std::string text = (write ? "writes " : "reads ") + std::to_string(bytes) + " bytes at ";
  char plain[32];
  std::snprintf(plain, sizeof plain, "0x%llx", static_cast<unsigned long long>(address));
  text += plain;
  if (near != nullptr && distance < (1u << 20)) {
    text += address < near->base ? ", " + std::to_string(distance) + " bytes before '"
                                 : ", " + std::to_string(address - near->base - near->bytes) +
                                       " bytes past the end of '";
    text += near->name + "' (" + std::to_string(near->bytes) + " bytes)";
  } else {
    text += ", in no buffer";
  }
  report("out of bounds", text, launch.fiber, pc);
  kill_launch();
}

void race(const Record& earlier, const char* now, const char* then, std::uintptr_t address,
          std::size_t bytes, const Region& region, void* pc) {
  report("data race",
         std::string(now) + " " + bytes_at(bytes, region, address) + ", unordered with " +
             (earlier.atomic ? "an atomic operation" : then) + " of " + who(earlier),
         launch.fiber, pc);
}

enum class Access { kRead, kWrite, kAtomic };

void access(std::uintptr_t address, std::size_t bytes, Access how, void* pc) {
  const Fiber* self = launch.fiber;
  if (self == nullptr || bytes == 0) return;
  const std::uintptr_t on_stack = address - reinterpret_cast<std::uintptr_t>(self->stack);
  if (on_stack < kStackBytes) return;
  const auto is_index = [&](const void* at) {
    return address - reinterpret_cast<std::uintptr_t>(at) < sizeof(uint3);
  };
  if (is_index(&threadIdx) || is_index(&blockIdx) || is_index(&blockDim) || is_index(&gridDim)) {
    return;
  }
  const bool write = how != Access::kRead;
  Region* region = region_at(address);
  if (region == nullptr) {
    // Tables of constants.
    if (!write && address >= image_low && address + bytes <= image_high) return;
    out_of_bounds(address, bytes, write, pc);
  }
  std::size_t offset = address - region->base;
  if (offset + bytes > region->bytes) {
    out_of_bounds(address, bytes, write, pc);
  }
  if (region->read_only) {
    if (write) out_of_bounds(address, bytes, true, pc);
    return;
  }
  const Record own = own_record(how == Access::kAtomic);
  const std::uint64_t generation = region->shared ? block_generation : launch.number;
  bool unwritten = false, told = false;
  while (bytes > 0) {
    Cell* cells = region->cells(offset, generation);
    const std::size_t here = std::min(bytes, kChunkBytes - offset % kChunkBytes);
    for (std::size_t i = 0; i < here; ++i) {
      Cell& cell = cells[i];
      if (how != Access::kWrite) {
        unwritten |= region->shared ? cell.write.kind == kNobody
                                    : !region->written.empty() && region->written[offset + i] == 0;
      }
      const bool both_atomic = how == Access::kAtomic && cell.write.atomic;
      const bool after_write = is_after(cell.write);
      if (!after_write && !both_atomic && !told) {
        race(cell.write, write ? "writes" : "reads", "a write", address, bytes, *region, pc);
        told = true;
      }
      if (!write) {
        if (!(cell.read == own)) cell.read = is_after(cell.read) ? own : widened(cell.read, own);
        continue;
      }
      if (!is_after(cell.read) && !told) {
        race(cell.read, "writes", "a read", address, bytes, *region, pc);
        told = true;
      }
      cell.write = both_atomic && !after_write ? widened(cell.write, own) : own;
      cell.read = {};
      if (!region->written.empty()) region->written[offset + i] = 1;
    }
    offset += here;
    address += here;
    bytes -= here;
  }
  if (unwritten) {
    report("read of unwritten memory",
           "reads '" + region->name + "' + " + std::to_string(offset - bytes), launch.fiber, pc);
  }
}

}  // namespace

void checker_begin_launch(void* parameter_block, std::size_t parameter_bytes, void* dynamic,
                          std::size_t dynamic_bytes) {
  const auto region_of = [](void* base, std::size_t bytes, const char* name) {
    auto region = std::make_unique<Region>();
    region->base = reinterpret_cast<std::uintptr_t>(base);
    region->bytes = bytes;
    region->name = name;
    return region;
  };
  parameters = region_of(parameter_block, parameter_bytes, "kernel parameters");
  parameters->read_only = true;
  dynamic_shared_region = region_of(dynamic, dynamic_bytes, "dynamic shared memory");
  dynamic_shared_region->shared = true;
  map = {parameters.get(), dynamic_shared_region.get()};
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

void checker_end_launch() {
  map.clear();
  last_region = nullptr;
}

void checker_join(Fiber* const* members, unsigned count) {
  std::array<unsigned, 32> joined{};
  unsigned clock = 0;
  for (unsigned i = 0; i < count; ++i) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      joined[lane] = std::max(joined[lane], members[i]->seen[lane]);
    }
    clock = std::max(clock, members[i]->clock);
  }
  for (unsigned i = 0; i < count; ++i) joined[members[i]->lane()] = clock;
  for (unsigned i = 0; i < count; ++i) {
    members[i]->seen = joined;
    members[i]->clock = clock + 1;
  }
}

void checker_add_shared(std::uintptr_t address, std::size_t bytes, const std::string& name) {
  auto region = std::make_unique<Region>();
  region->base = address;
  region->bytes = bytes;
  region->name = name;
  region->shared = true;
  shared_regions.push_back(std::move(region));
}

void checker_set_image(std::uintptr_t low, std::uintptr_t high) {
  image_low = low;
  image_high = high;
}

void checker_register(std::uintptr_t base, std::size_t bytes, const char* name, bool written) {
  auto region = std::make_unique<Region>();
  region->base = base;
  region->bytes = bytes;
  region->name = name;
  if (!written) region->written.assign(bytes, 0);
  device_regions.push_back(std::move(region));
}

// The host wrote there: a copy or a fill.
void checker_mark_written(std::uintptr_t start, std::size_t bytes) {
  for (auto& region : device_regions) {
    const std::size_t offset = start - region->base;
    if (offset >= region->bytes || region->written.empty()) continue;
    std::fill_n(region->written.begin() + static_cast<std::ptrdiff_t>(offset),
                std::min(bytes, region->bytes - offset), std::uint8_t{1});
  }
}

void checker_unregister(std::uintptr_t base) {
  device_regions.erase(std::remove_if(device_regions.begin(), device_regions.end(),
                                      [&](const auto& region) { return region->base == base; }),
                       device_regions.end());
}

// An unchecked launch does not tell what it wrote: everything counts as written afterwards.
void checker_assume_written() {
  for (auto& region : device_regions) region->written.clear();
}

void fence() {
  if (!launch.checking) return;
  Fiber& self = *launch.fiber;
  any_fence = true;
  self.fenced = true;
  self.fence_epoch = launch.epoch;
  self.fence_clock = self.clock++;
}

void before_atomic(void* address, std::size_t bytes, void* return_address) {
  if (!launch.checking) return;
  if (random_below(8) == 0) yield();
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  access(at, bytes, Access::kAtomic, return_address);
  if (!any_fence) return;
  const Fiber& self = *launch.fiber;
  auto& list = releases[at];
  for (const Release& release : list) {
    if (release.block == launch.block) continue;
    acquired[release.block].push_back({release, self.number, launch.epoch});
  }
  if (self.fenced) list.push_back({launch.block, self.number, self.fence_epoch, self.fence_clock});
}

}  // namespace emulation

// ---- what the compiler calls --------------------------------------------------------------------

using emulation::access;
using emulation::Access;

#define ADDRESS reinterpret_cast<std::uintptr_t>(address)
#define CALLER __builtin_return_address(0)
#define TSAN_SIZE(size)                                                                          \
  void __tsan_read##size(void* address) { access(ADDRESS, size, Access::kRead, CALLER); }        \
  void __tsan_write##size(void* address) { access(ADDRESS, size, Access::kWrite, CALLER); }
#define TSAN_UNALIGNED(size)                                                                     \
  void __tsan_unaligned_read##size(void* address) { access(ADDRESS, size, Access::kRead, CALLER); } \
  void __tsan_unaligned_write##size(void* address) {                                             \
    access(ADDRESS, size, Access::kWrite, CALLER);                                               \
  }
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
TSAN_SIZE(1)
TSAN_SIZE(2)
TSAN_SIZE(4)
TSAN_SIZE(8)
TSAN_SIZE(16)
TSAN_UNALIGNED(2)
TSAN_UNALIGNED(4)
TSAN_UNALIGNED(8)
TSAN_UNALIGNED(16)
void __tsan_read_range(void* address, std::size_t size) {
  access(ADDRESS, size, Access::kRead, CALLER);
}
void __tsan_write_range(void* address, std::size_t size) {
  access(ADDRESS, size, Access::kWrite, CALLER);
}

// The linker sends the checked kernels' calls here (--wrap).
void* __wrap_memcpy(void* to, const void* from, std::size_t bytes) {
  access(reinterpret_cast<std::uintptr_t>(from), bytes, Access::kRead, CALLER);
  access(reinterpret_cast<std::uintptr_t>(to), bytes, Access::kWrite, CALLER);
  return std::memcpy(to, from, bytes);
}
void* __wrap_memset(void* to, int value, std::size_t bytes) {
  access(reinterpret_cast<std::uintptr_t>(to), bytes, Access::kWrite, CALLER);
  return std::memset(to, value, bytes);
}

// The layout of what -fsanitize=alignment and bounds pass, as GCC documents it in ubsan.c.
struct UbsanType {
  std::uint16_t kind, info;
  char name[1];
};
struct UbsanMismatch {
  const char* file;
  std::uint32_t line, column;
  const UbsanType* type;
  unsigned char log2_alignment, kind;
};
struct UbsanBounds {
  const char* file;
  std::uint32_t line, column;
  const UbsanType *array, *index;
};
void __ubsan_handle_type_mismatch_v1(UbsanMismatch* data, std::uintptr_t address) {
  if (emulation::launch.fiber == nullptr) return;
  char text[160];
  std::snprintf(text, sizeof text, "an access of type %s at 0x%llx, which %u does not divide",
                data->type->name, static_cast<unsigned long long>(address),
                1u << data->log2_alignment);
  emulation::report("misaligned access", text, emulation::launch.fiber, CALLER);
  emulation::kill_launch();
}
void __ubsan_handle_out_of_bounds(UbsanBounds* data, std::uintptr_t index) {
  if (emulation::launch.fiber == nullptr) return;
  emulation::report("out of bounds",
                    "index " + std::to_string(static_cast<long long>(index)) + " of an array of " +
                        data->array->name,
                    emulation::launch.fiber, CALLER);
  emulation::kill_launch();
}
}
