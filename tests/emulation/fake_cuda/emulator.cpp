#include "emulator.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace fake {
namespace {

struct Emulator {
  void* library = nullptr;
  int (*has_kernel)(const char*) = nullptr;
  int (*launch)(const char*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void**) = nullptr;
  const char* (*findings)() = nullptr;
  void (*clear)() = nullptr;
  void (*add)(void*, std::size_t, const char*, int) = nullptr;
  void (*remove)(void*) = nullptr;
  int (*parameter_sizes)(const char*, std::size_t*, int) = nullptr;  // optional
  void (*written)(void*, std::size_t) = nullptr;                     // optional
  std::mutex one_at_a_time;
};

template <class Function>
void find(void* library, const char* symbol, Function& target) {
  target = reinterpret_cast<Function>(dlsym(library, symbol));
}

Emulator* load() {
  auto* loaded = new Emulator;
  const char* path = std::getenv("VISIONRT_EMULATED_KERNELS");
  if (path == nullptr || *path == '\0') return loaded;
  loaded->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (loaded->library == nullptr) {
    std::fprintf(stderr, "fake CUDA driver: %s\n", dlerror());
    return loaded;
  }
  find(loaded->library, "emu_has_kernel", loaded->has_kernel);
  find(loaded->library, "emu_launch", loaded->launch);
  find(loaded->library, "emu_findings", loaded->findings);
  find(loaded->library, "emu_clear", loaded->clear);
  find(loaded->library, "emu_register", loaded->add);
  find(loaded->library, "emu_unregister", loaded->remove);
  find(loaded->library, "emu_parameter_sizes", loaded->parameter_sizes);
  find(loaded->library, "emu_mark_written", loaded->written);
  void (*set_checking)(int) = nullptr;
  find(loaded->library, "emu_set_checking", set_checking);
  const char* fast = std::getenv("VISIONRT_EMULATION_FAST");
  if (set_checking != nullptr && fast != nullptr && *fast == '1') set_checking(0);
  return loaded;
}

Emulator& emulator() {
  static Emulator* loaded = load();
  return *loaded;
}

}  // namespace

bool has_kernel(const std::string& name) {
  Emulator& e = emulator();
  return e.has_kernel != nullptr && e.has_kernel(name.c_str()) != 0;
}

bool parameter_bytes(const std::string& name, std::vector<std::size_t>& bytes) {
  constexpr int kMost = 64;
  Emulator& e = emulator();
  if (e.parameter_sizes == nullptr) return false;
  bytes.resize(kMost);
  const int count = e.parameter_sizes(name.c_str(), bytes.data(), kMost);
  bytes.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  return count >= 0;
}

CUresult launch_emulated(const Operation& op) {
  Emulator& e = emulator();
  std::vector<void*> pointers;
  auto arguments = op.arguments;
  for (auto& argument : arguments) pointers.push_back(argument.data());
  const std::lock_guard<std::mutex> lock(e.one_at_a_time);
  const int status =
      e.launch(op.kernel->name.c_str(), op.grid[0], op.grid[1], op.grid[2], op.block[0],
               op.block[1], op.block[2], op.shared_bytes, pointers.data());
  return status == 0 ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

void announce(void* base, std::size_t bytes) {
  Emulator& e = emulator();
  const int written = e.written == nullptr;
  if (e.add != nullptr) e.add(base, bytes, "device memory", written);
}

void withdraw(void* base) {
  if (emulator().remove != nullptr) emulator().remove(base);
}

void mark_written(void* start, std::size_t bytes) {
  if (emulator().written != nullptr) emulator().written(start, bytes);
}

std::string emulator_findings() {
  const char* text = emulator().findings == nullptr ? nullptr : emulator().findings();
  return text == nullptr ? "" : text;
}

void clear_emulator_findings() {
  if (emulator().clear != nullptr) emulator().clear();
}

}  // namespace fake
