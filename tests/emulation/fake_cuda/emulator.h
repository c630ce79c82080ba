// The library of emulated kernels, whose path is in VISIONRT_EMULATED_KERNELS.
#pragma once

#include <cstddef>
#include <string>

#include "operation.h"

namespace fake {

// Whether there is an emulated kernel of this name.
bool has_kernel(const std::string& name);

// Bytes of each parameter, in order; false where the library cannot tell.
bool parameter_bytes(const std::string& name, std::vector<std::size_t>& bytes);

CUresult launch_emulated(const Operation& launch);

// Device memory that kernels may touch. What was not written yet is told where the library
// listens to it.
void announce(void* base, std::size_t bytes);
void withdraw(void* base);
void mark_written(void* start, std::size_t bytes);

// What the emulation found wrong, as text; empty when nothing.
std::string emulator_findings();
void clear_emulator_findings();

}  // namespace fake
