// The C interface: tables of kernels, launches one at a time, and the findings as text.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "runtime.h"

namespace emulation {

void run_grid(const Kernel& kernel, const dim3& grid, const dim3& block, unsigned shared_bytes,
              void** arguments, bool checking);
void set_seed(std::uint64_t seed);
void checker_register(std::uintptr_t base, std::size_t bytes, const char* name, bool written);
void checker_unregister(std::uintptr_t base);
void checker_mark_written(std::uintptr_t start, std::size_t bytes);
void checker_assume_written();

namespace {

using Table = std::map<std::string, Kernel>;

struct Finding {
  const char* kind;
  std::string text;
  const void* place;
  unsigned count;
};

std::mutex mutex;
Table checked_kernels, fast_kernels;
Table* table_being_filled = nullptr;
std::vector<Finding> findings;
unsigned new_findings = 0;
bool checking = true;
std::string findings_text;

std::string own_folder() {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&set_seed), &info);
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/'));
}

// The kernels of one library register themselves while it is opened.
void open_kernels(const char* file, Table& table) {
  table_being_filled = &table;
  const std::string path = own_folder() + "/" + file;
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
    std::fprintf(stderr, "emulation: %s\n", dlerror());
    std::abort();
  }
}

struct Image {
  std::string path;
  std::uintptr_t base = 0, low = ~std::uintptr_t{0}, high = 0;
};

int measure(dl_phdr_info* info, std::size_t, void* target) {
  auto& image = *static_cast<Image*>(target);
  if (image.path != info->dlpi_name) return 0;
  image.base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const std::uintptr_t start = info->dlpi_addr + header.p_vaddr;
    image.low = std::min(image.low, start);
    image.high = std::max(image.high, start + header.p_memsz);
  }
  return 1;
}

// `nm` listed the shared variables at build time: address, size, name.
void load() {
  static bool loaded = false;
  if (loaded) return;
  loaded = true;
  open_kernels("libfast.so", fast_kernels);
  open_kernels("libchecked.so", checked_kernels);
  Image image;
  image.path = own_folder() + "/libchecked.so";
  dl_iterate_phdr(measure, &image);
  checker_set_image(image.low, image.high);
  std::ifstream variables(own_folder() + "/shared_variables.txt");
  std::string line;
  while (std::getline(variables, line)) {
    std::uintptr_t address = 0;
    std::size_t bytes = 0;
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR " %zx %*c %n", &address, &bytes, &name_at) == 2) {
      checker_add_shared(image.base + address, bytes, line.substr(static_cast<std::size_t>(name_at)));
    }
  }
}

// Source file and line of an address inside the checked kernels.
std::string source_of(const void* place) {
  Dl_info info;
  if (place == nullptr || dladdr(place, &info) == 0 || info.dli_fname == nullptr) return "";
  char command[1024];
  std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
                static_cast<std::size_t>(static_cast<const char*>(place) - 1 -
                                         static_cast<const char*>(info.dli_fbase)));
  std::string out;
  if (FILE* pipe = popen(command, "r")) {
    // From the innermost inlined function outwards: the first line that is a kernel file's.
    char line[256] = "";
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
      const bool ours = std::strncmp(line, "cuda_", 5) == 0 || line[0] == '?';
      if (out.empty() && !ours) out = line;
    }
    pclose(pipe);
  }
  out = out.substr(0, out.find_first_of(" \n"));
  return out.empty() ? "" : " (" + out + ")";
}

std::string invalid_launch(const dim3& grid, const dim3& block, unsigned shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (blocks == 0 || threads == 0) return "an empty grid or block";
  if (threads > kMaxThreads || block.z > 64) return std::to_string(threads) + " threads in a block";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "a grid side over the limit";
  if (shared_bytes > 227 * 1024) return std::to_string(shared_bytes) + " bytes of shared memory";
  if (blocks > 1u << 20) return "more blocks than the emulation counts (2^20)";
  return "";
}

}  // namespace

void add_kernel(const Kernel& kernel) { table_being_filled->emplace(kernel.name, kernel); }

std::string describe(const Site& site) {
  const std::string path = site.file;
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line);
}

void report(const char* kind, const std::string& text, const Fiber* fiber, const void* place) {
  for (Finding& known : findings) {
    if (known.kind == kind && known.place == place) {
      // A place that offends in a later launch again is news to that launch.
      new_findings = std::max(new_findings, 1u);
      ++known.count;
      return;
    }
  }
  std::ostringstream out;
  out << launch.kernel->name << ": " << kind << ": ";
  if (fiber != nullptr) {
    out << "thread (" << fiber->thread.x << ", " << fiber->thread.y << ", " << fiber->thread.z
        << ") of block (" << blockIdx.x << ", " << blockIdx.y << ", " << blockIdx.z << "): ";
  }
  out << text;
  findings.push_back({kind, out.str(), place, 1});
  ++new_findings;
}

}  // namespace emulation

using namespace emulation;

extern "C" {

int emu_has_kernel(const char* name) {
  const std::lock_guard<std::mutex> lock(mutex);
  load();
  return checked_kernels.count(name) != 0 ? 1 : 0;
}

// Fills `bytes` with the size of each parameter, up to `room` of them; returns how many the kernel
// has, or -1 when there is no such kernel.
int emu_parameter_sizes(const char* name, std::size_t* bytes, int room) {
  const std::lock_guard<std::mutex> lock(mutex);
  load();
  const auto found = checked_kernels.find(name);
  if (found == checked_kernels.end()) return -1;
  const Kernel& kernel = found->second;
  std::copy_n(kernel.argument_bytes, std::min(room, kernel.argument_count), bytes);
  return kernel.argument_count;
}

int emu_launch(const char* name, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
               unsigned bz, unsigned dynamic_shared_bytes, void** args) {
  const std::lock_guard<std::mutex> lock(mutex);
  load();
  new_findings = 0;
  static const Kernel nameless{"", nullptr, nullptr, 0};
  launch.kernel = &nameless;
  const Table& table = checking ? checked_kernels : fast_kernels;
  const auto found = table.find(name);
  const dim3 grid{gx, gy, gz}, block{bx, by, bz};
  std::string problem = invalid_launch(grid, block, dynamic_shared_bytes);
  if (found == table.end()) problem = std::string("no kernel named ") + name;
  if (!problem.empty()) {
    report("invalid launch", std::string(name) + ": " + problem, nullptr, nullptr);
    return static_cast<int>(new_findings);
  }
  if (!checking) checker_assume_written();
  run_grid(found->second, grid, block, dynamic_shared_bytes, args, checking);
  return static_cast<int>(new_findings);
}

const char* emu_findings(void) {
  const std::lock_guard<std::mutex> lock(mutex);
  findings_text.clear();
  for (const Finding& finding : findings) {
    findings_text += finding.text + source_of(finding.place);
    if (finding.count > 1) findings_text += " [" + std::to_string(finding.count) + " times]";
    findings_text += '\n';
  }
  return findings_text.c_str();
}

void emu_clear(void) {
  const std::lock_guard<std::mutex> lock(mutex);
  findings.clear();
}

void emu_seed(std::uint64_t seed) {
  const std::lock_guard<std::mutex> lock(mutex);
  set_seed(seed);
}

void emu_register(void* base, std::size_t bytes, const char* name, int written) {
  const std::lock_guard<std::mutex> lock(mutex);
  checker_register(reinterpret_cast<std::uintptr_t>(base), bytes, name, written != 0);
}

void emu_mark_written(void* start, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  checker_mark_written(reinterpret_cast<std::uintptr_t>(start), bytes);
}

void emu_unregister(void* base) {
  const std::lock_guard<std::mutex> lock(mutex);
  checker_unregister(reinterpret_cast<std::uintptr_t>(base));
}

void emu_set_checking(int on) {
  const std::lock_guard<std::mutex> lock(mutex);
  checking = on != 0;
}
}
