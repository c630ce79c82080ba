#include <pybind11/stl.h>

#include <tuple>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "masks/masks.h"

namespace py = pybind11;

namespace visionrt {
namespace {

// Pairs are (y, x), as shapes are.
using Pair = std::pair<double, double>;
using Size = std::pair<std::int32_t, std::int32_t>;

MaskInputs window_of(const Size& size, const Pair& scale, const Pair& shift, float threshold) {
  MaskInputs inputs;
  inputs.height = size.first;
  inputs.width = size.second;
  inputs.y = {scale.first, shift.first};
  inputs.x = {scale.second, shift.second};
  inputs.threshold = threshold;
  return inputs;
}

py::array_t<std::uint8_t> instance_masks(const FloatArray& prototypes,
                                         const FloatArray& coefficients, const FloatArray& boxes,
                                         const Size& size, const Pair& scale, const Pair& shift,
                                         float threshold) {
  check_shape(prototypes, "prototypes", "[channels, h, w]", {-1, -1, -1});
  check_shape(coefficients, "coefficients", "[k, channels]", {-1, prototypes.shape(0)});
  check_shape(boxes, "boxes", "[k, 4]", {coefficients.shape(0), 4});
  MaskInputs inputs = window_of(size, scale, shift, threshold);
  inputs.prototypes = prototypes.data();
  inputs.coefficients = coefficients.data();
  inputs.boxes = reinterpret_cast<const Box*>(boxes.data());
  inputs.detections = checked_int32(coefficients.shape(0), "the number of boxes");
  inputs.channels = checked_int32(prototypes.shape(0), "the channels");
  inputs.prototype_h = checked_int32(prototypes.shape(1), "the prototypes' height");
  inputs.prototype_w = checked_int32(prototypes.shape(2), "the prototypes' width");
  check_mask_inputs(inputs);
  py::array_t<std::uint8_t> masks({inputs.detections, inputs.height, inputs.width});
  std::uint8_t* out = masks.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    instance_masks_cpu(inputs, out);
  }
  return masks;
}

// Device addresses arrive as integers; 0 is null.
void cuda_instance_masks(std::uintptr_t prototypes,
                         const std::tuple<std::int32_t, std::int32_t, std::int32_t>& shape,
                         std::uintptr_t coefficients, std::uintptr_t boxes, std::uintptr_t count,
                         std::int32_t detections, const Size& size, const Pair& scale,
                         const Pair& shift, std::uintptr_t masks, cuda::StreamHandle stream,
                         float threshold) {
  MaskInputs inputs = window_of(size, scale, shift, threshold);
  inputs.prototypes = reinterpret_cast<const float*>(prototypes);
  inputs.coefficients = reinterpret_cast<const float*>(coefficients);
  inputs.boxes = reinterpret_cast<const Box*>(boxes);
  inputs.count = reinterpret_cast<const std::int32_t*>(count);
  inputs.detections = detections;
  std::tie(inputs.channels, inputs.prototype_h, inputs.prototype_w) = shape;
  instance_masks_cuda(inputs, reinterpret_cast<std::uint8_t*>(masks), stream);
}

}  // namespace

void bind_masks(py::module_& m) {
  m.def(
      "instance_masks", &instance_masks, py::arg("prototypes"), py::arg("coefficients"),
      py::arg("boxes"), py::arg("size"), py::arg("scale"), py::arg("shift") = Pair{0.0, 0.0},
      py::arg("threshold") = 0.0f,
      "Masks of one image on the CPU, uint8 [k, height, width] of 0 and 1, size = (height, "
      "width).\n"
      "prototypes float32 [channels, h, w], coefficients float32 [k, channels], boxes float32\n"
      "[k, 4] xyxy in pixels of the result. scale and shift are (y, x): prototype = pixel * scale\n"
      "+ shift. 1 where the interpolated sum exceeds the threshold, in the box. Releases the GIL.");
  m.def(
      "cuda_instance_masks", &cuda_instance_masks, py::arg("prototypes"), py::arg("shape"),
      py::arg("coefficients"), py::arg("boxes"), py::arg("count"), py::arg("detections"),
      py::arg("size"), py::arg("scale"), py::arg("shift"), py::arg("masks"), py::arg("stream"),
      py::arg("threshold") = 0.0f, py::call_guard<py::gil_scoped_release>(),
      "Queues the same work on the stream; device addresses are integers, 0 is none. shape is\n"
      "(channels, h, w) of the prototypes; count int32 [1] on the device, of the detections used.\n"
      "Writes masks uint8 [detections, height, width]. Does not block. Raises DriverError when\n"
      "the driver is missing or refuses.");
}

}  // namespace visionrt
