// Three kernels as plain functions, with the interface of the emulation: for tests of the driver.
#include <cstddef>
#include <cstring>

extern "C" {

// add(float* data, int count, float amount); copy(float* to, const float* from, int count);
// crash(): fails as a kernel with an illegal access does.
int emu_has_kernel(const char* name) {
  return !std::strcmp(name, "add") || !std::strcmp(name, "copy") || !std::strcmp(name, "crash");
}

int emu_launch(const char* name, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
               unsigned, void** args) {
  if (!std::strcmp(name, "crash")) return 1;
  auto* to = *static_cast<float**>(args[0]);
  if (!std::strcmp(name, "add")) {
    for (int i = 0; i < *static_cast<int*>(args[1]); ++i) to[i] += *static_cast<float*>(args[2]);
  } else {
    std::memcpy(to, *static_cast<float**>(args[1]), *static_cast<int*>(args[2]) * sizeof(float));
  }
  return 0;
}

int emu_parameter_sizes(const char* name, std::size_t* bytes, int) {
  const std::size_t add[] = {8, 4, 4}, copy[] = {8, 8, 4};
  if (!std::strcmp(name, "crash")) return 0;
  std::memcpy(bytes, std::strcmp(name, "add") ? copy : add, sizeof add);
  return 3;
}

const char* emu_findings() { return ""; }
void emu_clear() {}
void emu_register(void*, std::size_t, const char*, int) {}
void emu_unregister(void*) {}
}
