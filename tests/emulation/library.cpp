// The C interface: tables of kernels, launches one at a time, and the findings as text.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

#include "checker.h"

namespace emulation {

void run_grid(const Kernel& kernel, const dim3& grid, const dim3& block, unsigned shared_bytes,
              void** arguments, bool checking);
void set_seed(std::uint64_t seed);

namespace {

using Table = std::map<std::string, Kernel>;

struct Finding {
  const char* kind;
  std::string text;
  Place place;
  unsigned count;
};

std::mutex mutex;
Table checked_kernels, fast_kernels, *table_being_filled = nullptr;
std::vector<Finding> findings;
unsigned found_in_launch = 0;
bool checking = true;

Dl_info library_of(const void* address) {
  Dl_info info{};
  dladdr(address, &info);
  return info;
}

// The kernels of one library add themselves while it is opened. Returns where it was loaded.
std::uintptr_t open_kernels(const std::string& path, Table& table) {
  table_being_filled = &table;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "emulation: %s\n", dlerror());
    std::abort();
  }
  return static_cast<link_map*>(library)->l_addr;
}

void load_kernels() {
  if (table_being_filled != nullptr) return;
  const std::string own = library_of(&launch).dli_fname, folder = own.substr(0, own.rfind('/') + 1);
  open_kernels(folder + "libfast.so", fast_kernels);
  const std::uintptr_t base = open_kernels(folder + "libchecked.so", checked_kernels);
  // What `nm` listed at build time: address, size, kind, name.
  std::ifstream variables(folder + "shared_variables.txt");
  std::string name;
  char kind = 0;
  for (std::uintptr_t at = 0, size = 0; variables >> std::hex >> at >> size >> kind;) {
    std::getline(variables >> std::ws, name);
    add_shared_variable(base + at, size, name);
  }
}

// "nms.cu:77", from the innermost inlined function outwards.
std::string lines_of(const void* code) {
  const Dl_info info = library_of(code);
  if (info.dli_fname == nullptr) return "";
  char command[1024], line[256];
  std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' %#tx 2>/dev/null", info.dli_fname,
                static_cast<const char*>(code) - 1 - static_cast<const char*>(info.dli_fbase));
  std::string out;
  FILE* pipe = popen(command, "r");
  while (pipe != nullptr && std::fgets(line, sizeof line, pipe) != nullptr) {
    const std::string place(line, std::strcspn(line, " \n"));
    if (place.rfind("cuda_", 0) == 0 || place[0] == '?') continue;
    out += (out.empty() ? "" : " in ") + place;
  }
  if (pipe != nullptr) pclose(pipe);
  return out;
}

std::string invalid_launch(const dim3& grid, const dim3& block, unsigned shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (blocks == 0 || threads == 0) return "an empty grid or block";
  if (threads > kMaxThreads || block.z > 64) return std::to_string(threads) + " threads in a block";
  if (grid.y > 65535 || grid.z > 65535) return "a grid side over the limit";
  if (shared_bytes > 227 * 1024) return std::to_string(shared_bytes) + " bytes of shared memory";
  return blocks > 1u << 20 ? "more blocks than the emulation counts (2^20)" : "";
}

}  // namespace

void add_kernel(const Kernel& kernel) { table_being_filled->emplace(kernel.name, kernel); }

std::string position(unsigned i, const dim3& size) {
  return "(" + std::to_string(i % size.x) + ", " + std::to_string(i / size.x % size.y) + ", " +
         std::to_string(i / (size.x * size.y)) + ")";
}

bool is_constant(std::uintptr_t address) {
  static std::uintptr_t known[64];  // pages; dladdr is slow
  std::uintptr_t& slot = known[address / 4096 % 64];
  if (slot == address / 4096) return true;
  const void* base = library_of(reinterpret_cast<void*>(address)).dli_fbase;
  const void* kernels = library_of(reinterpret_cast<void*>(launch.kernel->call)).dli_fbase;
  if (base == nullptr || (base != library_of(&launch).dli_fbase && base != kernels)) return false;
  slot = address / 4096;
  return true;
}

std::string describe(const Place& place) {
  if (place.file == nullptr) return lines_of(place.code);
  const std::string path = place.file;
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(place.line);
}

void report(const char* kind, const std::string& text, const Fiber* fiber, const Place& place) {
  const auto known = std::find_if(findings.begin(), findings.end(), [&](const Finding& finding) {
    return finding.kind == kind && finding.place == place;
  });
  if (known != findings.end()) {
    ++known->count;
    // A place that offended in an earlier launch is news to this one.
    found_in_launch = std::max(found_in_launch, 1u);
    return;
  }
  ++found_in_launch;
  const std::string thread = fiber == nullptr ? ""
                                              : ": thread " + position(fiber->number, blockDim) +
                                                    " of block " + position(launch.block, gridDim);
  findings.push_back(
      {kind, launch.kernel->name + (": " + std::string(kind)) + thread + ": " + text, place, 1});
}

}  // namespace emulation

using namespace emulation;
using Lock = std::lock_guard<std::mutex>;

extern "C" {

int emu_has_kernel(const char* name) {
  const Lock lock(mutex);
  load_kernels();
  return checked_kernels.count(name) != 0 ? 1 : 0;
}

// Fills `bytes` with the size of each parameter, up to `room` of them; returns how many the kernel
// has, or -1 when there is no such kernel.
int emu_parameter_sizes(const char* name, std::size_t* bytes, int room) {
  const Lock lock(mutex);
  load_kernels();
  const auto found = checked_kernels.find(name);
  if (found == checked_kernels.end()) return -1;
  std::copy_n(found->second.argument_bytes, std::min(room, found->second.argument_count), bytes);
  return found->second.argument_count;
}

// Runs a kernel to its end. Returns how many findings it gave: 0 is clean.
int emu_launch(const char* name, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
               unsigned bz, unsigned dynamic_shared_bytes, void** args) {
  const Lock lock(mutex);
  load_kernels();
  found_in_launch = 0;
  const Table& table = checking ? checked_kernels : fast_kernels;
  const auto found = table.find(name);
  const dim3 grid{gx, gy, gz}, block{bx, by, bz};
  const std::string problem = found == table.end()
                                  ? "there is no such kernel"
                                  : invalid_launch(grid, block, dynamic_shared_bytes);
  if (!problem.empty()) {
    const Kernel named{name, nullptr, nullptr, 0};
    launch.kernel = &named;
    report("invalid launch", problem, nullptr, {nullptr, 0, nullptr});
    launch.kernel = nullptr;
    return static_cast<int>(found_in_launch);
  }
  // An unchecked launch does not tell what it writes.
  if (!checking) mark_all_written();
  run_grid(found->second, grid, block, dynamic_shared_bytes, args, checking);
  return static_cast<int>(found_in_launch);
}

// One finding a line, since emu_clear. The text lives until the next call.
const char* emu_findings(void) {
  const Lock lock(mutex);
  static std::string text;
  text.clear();
  for (const Finding& finding : findings) {
    const std::string place = describe(finding.place);
    text += finding.text + (place.empty() ? "" : " (" + place + ")");
    if (finding.count > 1) text += " [" + std::to_string(finding.count) + " times]";
    text += '\n';
  }
  return text.c_str();
}

void emu_clear(void) {
  const Lock lock(mutex);
  findings.clear();
}

void emu_seed(std::uint64_t seed) {
  const Lock lock(mutex);
  set_seed(seed);
}

void emu_set_checking(int on) {
  const Lock lock(mutex);
  checking = on != 0;
}

void emu_register(void* base, std::size_t bytes, const char* name, int written) {
  const Lock lock(mutex);
  add_device_memory(reinterpret_cast<std::uintptr_t>(base), bytes, name, written != 0);
}

void emu_unregister(void* base) {
  const Lock lock(mutex);
  remove_device_memory(reinterpret_cast<std::uintptr_t>(base));
}

void emu_mark_written(void* start, std::size_t bytes) {
  const Lock lock(mutex);
  mark_written(reinterpret_cast<std::uintptr_t>(start), bytes);
}
}
