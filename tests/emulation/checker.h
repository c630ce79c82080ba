// The checker's side that the compiler's hooks and the library call.
#pragma once

#include "runtime.h"

namespace emulation {

enum class Access { kRead, kWrite, kAtomic };
// Judges one access of the running thread; `code` is the address of the code that makes it.
void access(std::uintptr_t address, std::size_t bytes, Access how, const void* code);

// "(x, y, z)" of a block in a grid or a thread in a block.
std::string position(unsigned number, const dim3& size);
// Whether an address lies in the libraries of the emulation: a table of constants, or threadIdx.
bool is_constant(std::uintptr_t address);

void add_shared_variable(std::uintptr_t base, std::size_t bytes, const std::string& name);
void add_device_memory(std::uintptr_t base, std::size_t bytes, const char* name, bool written);
void remove_device_memory(std::uintptr_t base);
// The host wrote there.
void mark_written(std::uintptr_t start, std::size_t bytes);
void mark_all_written();

}  // namespace emulation
