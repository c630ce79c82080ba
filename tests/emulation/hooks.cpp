// What the compiler calls from a checked kernel, and the linker for its memcpy and memset (--wrap).
#include "checker.h"

using emulation::access;
using emulation::Access;

#define ACCESS(size, how) access(address, size, Access::how, __builtin_return_address(0))
#define HOOKS(size)                                                                 \
  void __tsan_read##size(std::uintptr_t address) { ACCESS(size, kRead); }           \
  void __tsan_write##size(std::uintptr_t address) { ACCESS(size, kWrite); }         \
  void __tsan_unaligned_read##size(std::uintptr_t address) { ACCESS(size, kRead); } \
  void __tsan_unaligned_write##size(std::uintptr_t address) { ACCESS(size, kWrite); }

extern "C" {

void __tsan_init() {}
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(std::uintptr_t address, std::size_t size) { ACCESS(size, kRead); }
void __tsan_write_range(std::uintptr_t address, std::size_t size) { ACCESS(size, kWrite); }

void* __wrap_memcpy(void* to, const void* from, std::size_t size) {
  auto address = reinterpret_cast<std::uintptr_t>(from);
  ACCESS(size, kRead);
  address = reinterpret_cast<std::uintptr_t>(to);
  ACCESS(size, kWrite);
  return std::memcpy(to, from, size);
}
void* __wrap_memset(void* to, int value, std::size_t size) {
  const auto address = reinterpret_cast<std::uintptr_t>(to);
  ACCESS(size, kWrite);
  return std::memset(to, value, size);
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

void __ubsan_handle_type_mismatch_v1(const UbsanMismatch* data, std::uintptr_t address) {
  const unsigned alignment = 1u << data->log2_alignment;
  emulation::report("misaligned access",
                    "an access of type " + std::string(data->type->name) + " " +
                        std::to_string(address % alignment) + " bytes off a multiple of " +
                        std::to_string(alignment),
                    emulation::launch.fiber, {nullptr, 0, __builtin_return_address(0)});
  emulation::kill_launch();
}
void __ubsan_handle_out_of_bounds(const UbsanBounds* data, std::uintptr_t index) {
  emulation::report(
      "out of bounds",
      "index " + std::to_string(static_cast<long long>(index)) + " of " + data->array->name,
      emulation::launch.fiber, {nullptr, 0, __builtin_return_address(0)});
  emulation::kill_launch();
}
}
