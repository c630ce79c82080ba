// How a compiled kernel file tells the emulator its entry points.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace emulation {

struct Kernel {
  const char* name;
  void (*call)(void** arguments);  // arguments[i] points at argument i, as in cuLaunchKernel
  const std::size_t* argument_bytes;
  int argument_count;
};

void add_kernel(const Kernel& kernel);

template <class... Arguments>
struct Signature {
  static constexpr int count = sizeof...(Arguments);
  static constexpr std::size_t bytes[] = {sizeof(Arguments)..., 0};
};
template <class... Arguments>
Signature<std::remove_cv_t<Arguments>...> signature_of(void (*)(Arguments...));

template <class... Arguments, std::size_t... I>
void call_with(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<Arguments>*>(arguments[I])...);
}
template <class... Arguments>
void call_with(void (*kernel)(Arguments...), void** arguments) {
  call_with(kernel, arguments, std::index_sequence_for<Arguments...>());
}

}  // namespace emulation

#define EMULATED_KERNEL(kernel)                                                         \
  static const bool kernel##_is_added = [] {                                            \
    using Found = decltype(emulation::signature_of(&kernel));                           \
    emulation::add_kernel({#kernel, [](void** a) { emulation::call_with(&kernel, a); }, \
                           Found::bytes, Found::count});                                \
    return true;                                                                        \
  }();
