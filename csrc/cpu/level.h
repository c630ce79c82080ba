// Instruction-set levels of the CPU back ends, chosen at run time.
#pragma once

#include <string>
#include <vector>

namespace visionrt::cpu {

// kScalar runs everywhere; the plain loops of that level are what the others are compared with.
enum class Level { kScalar, kNeon, kAvx2, kAvx512 };

// What this build has and this processor can run, slowest first; kScalar is always there.
const std::vector<Level>& levels();
const char* name_of(Level level);

// The level in use: the best one, or what the environment variable VISIONRT_CPU_LEVEL names. There
// a level that this machine lacks is passed over, since a variable outlives a machine. The first
// call throws std::invalid_argument when it names no level at all.
Level level();

// Changes the level of the whole process, for tests. Throws std::invalid_argument when `name` is
// not among levels().
void use_level(const std::string& name);

}  // namespace visionrt::cpu
