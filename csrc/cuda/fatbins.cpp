// The fatbins nvcc made, embedded by the assembler.
#include "cuda/launch.h"

// Global and hidden: link-time optimisation may put the assembly and its users in different units.
#define VISIONRT_FATBIN(name, path)                                \
  __asm__(                                                         \
      ".section .rodata,\"a\"\n.balign 16\n"                       \
      ".globl visionrt_fatbin_" #name                              \
      "_begin\n"                                                   \
      ".hidden visionrt_fatbin_" #name                             \
      "_begin\n"                                                   \
      ".globl visionrt_fatbin_" #name                              \
      "_end\n"                                                     \
      ".hidden visionrt_fatbin_" #name                             \
      "_end\n"                                                     \
      "visionrt_fatbin_" #name "_begin:\n.incbin \"" path          \
      "\"\n"                                                       \
      "visionrt_fatbin_" #name "_end:\n.byte 0\n.previous\n");     \
  extern "C" const unsigned char visionrt_fatbin_##name##_begin[]; \
  extern "C" const unsigned char visionrt_fatbin_##name##_end[];
#include "fatbin_table.inc"
#undef VISIONRT_FATBIN

namespace visionrt::cuda {

const std::vector<Fatbin>& embedded_fatbins() noexcept {
  static const std::vector<Fatbin> table = {
#define VISIONRT_FATBIN(name, path)             \
  Fatbin{#name, visionrt_fatbin_##name##_begin, \
         static_cast<std::size_t>(visionrt_fatbin_##name##_end - visionrt_fatbin_##name##_begin)},
#include "fatbin_table.inc"
#undef VISIONRT_FATBIN
  };
  return table;
}

bool has_kernels() noexcept { return !embedded_fatbins().empty(); }

}  // namespace visionrt::cuda
