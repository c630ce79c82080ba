#include "cpu/level.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace visionrt::cpu {
namespace {

std::vector<Level> found_levels() {
  std::vector<Level> found{Level::kScalar};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) {
    found.push_back(Level::kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      found.push_back(Level::kAvx512);
    }
  }
#elif defined(__aarch64__)
  found.push_back(Level::kNeon);
#endif
  return found;
}

constexpr Level kAllLevels[] = {Level::kScalar, Level::kNeon, Level::kAvx2, Level::kAvx512};

// "a | b | c", for error messages.
template <class Levels>
std::string names_of(const Levels& some) {
  std::string names;
  for (const Level level : some)
    names += (names.empty() ? "" : " | ") + std::string(name_of(level));
  return names;
}

Level first_level() {
  const char* wanted = std::getenv("VISIONRT_CPU_LEVEL");
  if (wanted == nullptr || *wanted == '\0') return levels().back();
  for (const Level level : levels()) {
    if (std::string(wanted) == name_of(level)) return level;
  }
  for (const Level level : kAllLevels) {
    if (std::string(wanted) == name_of(level)) return levels().back();
  }
  throw std::invalid_argument("expected VISIONRT_CPU_LEVEL to be one of " + names_of(kAllLevels) +
                              ", got '" + wanted + "'");
}

std::atomic<Level>& current() {
  static std::atomic<Level> level{first_level()};
  return level;
}

}  // namespace

const std::vector<Level>& levels() {
  static const std::vector<Level> found = found_levels();
  return found;
}

const char* name_of(Level level) {
  switch (level) {
    case Level::kScalar:
      return "scalar";
    case Level::kNeon:
      return "neon";
    case Level::kAvx2:
      return "avx2";
    case Level::kAvx512:
      return "avx512";
  }
  throw std::logic_error("unknown level");
}

Level level() { return current().load(std::memory_order_relaxed); }

void use_level(const std::string& name) {
  for (const Level level : levels()) {
    if (name == name_of(level)) {
      current().store(level, std::memory_order_relaxed);
      return;
    }
  }
  throw std::invalid_argument("expected a level of this processor, " + names_of(levels()) +
                              ", got '" + name + "'");
}

}  // namespace visionrt::cpu
