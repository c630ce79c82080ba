// Array arguments: what was wrong with a shape is said in one sentence, as ValueError.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace visionrt {

// C-contiguous; NumPy may copy or widen (float16 to float32), but never narrows silently.
using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;
using IntArray = pybind11::array_t<std::int32_t, pybind11::array::c_style>;

inline std::string shape_text(const pybind11::array& array) {
  std::string text = "(";
  for (pybind11::ssize_t i = 0; i < array.ndim(); ++i) {
    text += std::to_string(array.shape(i)) + (i + 1 < array.ndim() ? ", " : "");
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

// `expected` holds sizes; -1 takes any. `layout` names the axes for the message: "[n, 4]".
inline void check_shape(const pybind11::array& array, const char* name, const char* layout,
                        const std::vector<pybind11::ssize_t>& expected) {
  bool ok = array.ndim() == static_cast<pybind11::ssize_t>(expected.size());
  for (std::size_t i = 0; ok && i < expected.size(); ++i) {
    ok = expected[i] < 0 || array.shape(static_cast<pybind11::ssize_t>(i)) == expected[i];
  }
  if (ok) return;
  std::string sizes = "(";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    sizes += (expected[i] < 0 ? std::string("any") : std::to_string(expected[i])) +
             (i + 1 < expected.size() ? ", " : "");
  }
  sizes += expected.size() == 1 ? ",)" : ")";
  throw std::invalid_argument(std::string(name) + " must have shape " + layout + " = " + sizes +
                              ", got " + shape_text(array));
}

inline std::int32_t checked_int32(pybind11::ssize_t value, const char* name) {
  if (value < 0 || value > INT32_MAX) {
    throw std::invalid_argument(std::string(name) + " must be 0 or more and below 2^31, got " +
                                std::to_string(value));
  }
  return static_cast<std::int32_t>(value);
}

}  // namespace visionrt
