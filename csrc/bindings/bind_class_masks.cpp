#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "masks/class_masks.h"

namespace py = pybind11;

namespace visionrt {
namespace {

SampledAxis axis_of(const IntArray& first, const FloatArray& weight, const char* name) {
  check_shape(first, name, "[n]", {-1});
  check_shape(weight, "a weight per point", "[n]", {first.shape(0)});
  return {first.data(), weight.data(), checked_int32(first.shape(0), name)};
}

ClassGrid grid_of(const FloatArray& scores) {
  check_shape(scores, "scores", "[classes, h, w]", {-1, -1, -1});
  ClassGrid grid;
  grid.scores = scores.data();
  grid.classes = checked_int32(scores.shape(0), "the classes");
  grid.height = checked_int32(scores.shape(1), "the grid's height");
  grid.width = checked_int32(scores.shape(2), "the grid's width");
  return grid;
}

template <class Id>
std::pair<py::array, py::array_t<float>> filled(const ClassGrid& grid, const SampledAxis& x,
                                                const SampledAxis& y) {
  py::array_t<Id> mask({y.count, x.count});
  py::array_t<float> confidence({y.count, x.count});
  Id* ids = mask.mutable_data();
  float* values = confidence.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    class_mask_cpu(grid, x, y, ids, values);
  }
  return {mask, confidence};
}

std::pair<py::array, py::array_t<float>> class_mask(const FloatArray& scores,
                                                    const std::optional<FloatArray>& values,
                                                    const IntArray& x0, const FloatArray& wx,
                                                    const IntArray& y0, const FloatArray& wy) {
  ClassGrid grid = grid_of(scores);
  if (values.has_value()) {
    check_shape(*values, "values of the shape of scores", "[classes, h, w]",
                {scores.shape(0), scores.shape(1), scores.shape(2)});
    grid.values = values->data();
  }
  const SampledAxis x = axis_of(x0, wx, "x0"), y = axis_of(y0, wy, "y0");
  check_class_grid(grid, x, y);
  return grid.classes <= 256 ? filled<std::uint8_t>(grid, x, y) : filled<std::uint16_t>(grid, x, y);
}

std::pair<py::array_t<std::uint8_t>, py::array_t<float>> binary_mask(
    const FloatArray& scores, bool is_logit, float threshold, const IntArray& x0,
    const FloatArray& wx, const IntArray& y0, const FloatArray& wy) {
  const ClassGrid grid = grid_of(scores);
  check_shape(scores, "scores", "[1, h, w]", {1, -1, -1});
  const SampledAxis x = axis_of(x0, wx, "x0"), y = axis_of(y0, wy, "y0");
  check_class_grid(grid, x, y);
  py::array_t<std::uint8_t> mask({y.count, x.count});
  py::array_t<float> confidence({y.count, x.count});
  std::uint8_t* ids = mask.mutable_data();
  float* values = confidence.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    binary_mask_cpu(grid, x, y, is_logit, threshold, ids, values);
  }
  return {mask, confidence};
}

}  // namespace

void bind_class_masks(py::module_& m) {
  m.def(
      "class_mask", &class_mask, py::arg("scores"), py::arg("values").none(true), py::arg("x0"),
      py::arg("wx"), py::arg("y0"), py::arg("wy"),
      "The class of each pixel of an image from scores float32 [classes, h, w]: those are sampled\n"
      "bilinearly, and compared. Column j lies between columns x0[j] and x0[j] + 1 of the grid,\n"
      "with weight wx[j] on the latter; rows likewise. A negative x0 or y0, which only the ends\n"
      "may have, is outside: class 0, confidence 0. Ties go to the lower class.\n"
      "Returns (mask [H, W] uint8, or uint16 above 256 classes; float32 [H, W], the sample of\n"
      "`values`, of the shape of scores, of that class; None: of the scores). Releases the GIL.");
  m.def(
      "binary_mask", &binary_mask, py::arg("scores"), py::arg("is_logit"), py::arg("threshold"),
      py::arg("x0"), py::arg("wx"), py::arg("y0"), py::arg("wy"),
      "The same of one class, float32 [1, h, w], whose sample, or the logistic function of it, is\n"
      "a probability p: mask uint8 [H, W] is p >= threshold, and the confidence float32 [H, W] p\n"
      "there, 1 - p elsewhere. Releases the GIL.");
}

}  // namespace visionrt
