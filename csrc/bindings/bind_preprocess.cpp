// Python's view of the preprocess contract. Every error of a caller's data is a ValueError.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "cpu/level.h"
#include "preprocess/preprocess.h"

namespace py = pybind11;

namespace visionrt {
namespace {

using preprocess::Color;
using preprocess::DType;
using preprocess::Geometry;
using preprocess::ImageView;
using preprocess::Layout;
using preprocess::Spec;

// A device image: address, height, width, row_bytes.
using DeviceImageTuple = std::tuple<std::uintptr_t, int, int, std::int64_t>;

std::string describe(const py::array& a) {
  return std::string(py::str(a.dtype())) + " array of shape " +
         std::string(py::str(a.attr("shape"))) + " and strides " +
         std::string(py::str(a.attr("strides")));
}

[[noreturn]] void refuse(const std::string& expected, const std::string& got) {
  throw py::value_error("expected " + expected + ", got " + got);
}

Color source_color(const std::string& word) {
  if (word == "bgr") return Color::kBgr;
  if (word == "rgb") return Color::kRgb;
  refuse("source_color 'bgr' or 'rgb'", "'" + word + "'");
}

ImageView image_view(const py::array& a, Color color, std::size_t index) {
  const std::string name = "image " + std::to_string(index);
  if (a.ndim() != 3 || a.shape(2) != 3 || !a.dtype().equal(py::dtype::of<std::uint8_t>())) {
    refuse(name + " to be a uint8 array of shape (height, width, 3)", describe(a));
  }
  if (a.shape(0) < 1 || a.shape(1) < 1 || a.shape(0) > preprocess::kMaxImageSide ||
      a.shape(1) > preprocess::kMaxImageSide) {
    refuse(name + " to have sides of 1 to " + std::to_string(preprocess::kMaxImageSide) + " pixels",
           describe(a));
  }
  // NumPy leaves the stride of an axis of length 1 arbitrary.
  if (a.strides(2) != 1 || (a.shape(1) > 1 && a.strides(1) != 3)) {
    refuse(name + " to have contiguous pixels (any row stride)", describe(a));
  }
  return {static_cast<const std::uint8_t*>(a.data()), static_cast<int>(a.shape(0)),
          static_cast<int>(a.shape(1)), a.shape(0) > 1 ? a.strides(0) : 0, color};
}

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return py::dtype("float32");
    case DType::kFloat16:
      return py::dtype("float16");
    case DType::kUint8:
      return py::dtype("uint8");
  }
  throw std::logic_error("unknown dtype");
}

class PreprocessPlan {
 public:
  PreprocessPlan(const std::string& resize, std::array<int, 2> size_hw, double crop_ratio,
                 const std::string& interpolation, const std::string& color,
                 std::array<double, 3> mean, std::array<double, 3> std, int pad_value,
                 const std::string& letterbox_align, const std::string& layout,
                 const std::string& dtype)
      : spec_(preprocess::make_spec({resize,
                                     interpolation,
                                     color,
                                     letterbox_align,
                                     layout,
                                     dtype,
                                     size_hw[0],
                                     size_hw[1],
                                     crop_ratio,
                                     {mean[0], mean[1], mean[2]},
                                     {std[0], std[1], std[2]},
                                     pad_value})) {}

  Geometry geometry(std::int64_t height, std::int64_t width) const {
    return preprocess::geometry_for(spec_.fit, height, width);
  }

  void run(const std::vector<py::array>& images, py::array out, const std::string& color,
           int threads) const {
    std::vector<ImageView> views;
    for (const py::array& image : images) {
      views.push_back(image_view(image, source_color(color), views.size()));
    }
    check_output(out, views.size());
    void* data = out.mutable_data();
    const py::gil_scoped_release release;
    preprocess::run_cpu(spec_, views.data(), views.size(), data, threads);
  }

  IntArray cuda_table(int height, int width) const {
    const std::vector<std::int32_t> table = preprocess::cuda_table(spec_, height, width);
    return IntArray(static_cast<py::ssize_t>(table.size()), table.data());
  }

  void run_cuda(const std::vector<DeviceImageTuple>& images, std::uintptr_t out,
                const std::vector<cuda::DevicePtr>& tables, std::uintptr_t stream,
                const std::string& color) const {
    std::vector<ImageView> views;
    for (const auto& [address, h, w, row_bytes] : images) {
      views.push_back(
          {reinterpret_cast<const std::uint8_t*>(address), h, w, row_bytes, source_color(color)});
    }
    if (spec_.interpolation == preprocess::Interpolation::kPil && tables.size() != views.size()) {
      refuse("a table of weights for each of " + std::to_string(views.size()) + " images",
             std::to_string(tables.size()));
    }
    const py::gil_scoped_release release;
    preprocess::run_cuda(spec_, views.data(), tables.data(), views.size(), out, stream);
  }

 private:
  void check_output(const py::array& out, std::size_t images) const {
    const auto n = static_cast<py::ssize_t>(images);
    const py::ssize_t c = spec_.channels(), h = spec_.fit.height, w = spec_.fit.width;
    const bool nchw = spec_.layout == Layout::kNchw;
    const std::array<py::ssize_t, 4> shape = {n, nchw ? c : h, nchw ? h : w, nchw ? w : c};
    const py::dtype dtype = numpy_dtype(spec_.dtype);
    const bool fits = out.ndim() == 4 && std::equal(shape.begin(), shape.end(), out.shape()) &&
                      out.dtype().equal(dtype) && out.writeable() &&
                      (out.flags() & py::array::c_style) != 0;
    if (!fits) {
      const py::tuple expected = py::make_tuple(shape[0], shape[1], shape[2], shape[3]);
      refuse("out to be a writable C-contiguous " + std::string(py::str(dtype)) +
                 " array of shape " + std::string(py::str(expected)),
             describe(out));
    }
  }

  Spec spec_;
};

}  // namespace

void bind_preprocess(py::module_& m) {
  m.def(
      "cpu_levels",
      [] {
        std::vector<std::string> names;
        for (const cpu::Level level : cpu::levels()) names.emplace_back(cpu::name_of(level));
        return names;
      },
      "Instruction-set levels that this build has and this processor runs, slowest first.");
  m.def(
      "cpu_level", [] { return std::string(cpu::name_of(cpu::level())); },
      "The level in use: the best, or the environment variable VISIONRT_CPU_LEVEL where it names "
      "one of cpu_levels().");
  m.def("use_cpu_level", &cpu::use_level, py::arg("name"),
        "Changes the level of the whole process. Raises ValueError when it is not there.");
  py::class_<Geometry>(m, "Geometry",
                       "Where an image lands in the tensor. In continuous coordinates, where pixel "
                       "i covers [i, i + 1): image_x = (tensor_x - offset_x) * scale_x, and "
                       "likewise y. Offsets are the letterbox border, or negative in a crop.")
      .def_readonly("image_h", &Geometry::image_h)
      .def_readonly("image_w", &Geometry::image_w)
      .def_readonly("resized_h", &Geometry::resized_h)
      .def_readonly("resized_w", &Geometry::resized_w)
      .def_readonly("offset_x", &Geometry::offset_x)
      .def_readonly("offset_y", &Geometry::offset_y)
      .def_readonly("scale_x", &Geometry::scale_x)
      .def_readonly("scale_y", &Geometry::scale_y);

  py::class_<PreprocessPlan>(m, "PreprocessPlan",
                             "A checked, immutable preprocess spec, ready to run. Safe to use from "
                             "several threads. Bad values raise ValueError.")
      .def(py::init<const std::string&, std::array<int, 2>, double, const std::string&,
                    const std::string&, std::array<double, 3>, std::array<double, 3>, int,
                    const std::string&, const std::string&, const std::string&>(),
           py::arg("resize"), py::arg("size_hw"), py::arg("crop_ratio"), py::arg("interpolation"),
           py::arg("color"), py::arg("mean"), py::arg("std"), py::arg("pad_value"),
           py::arg("letterbox_align"), py::arg("layout"), py::arg("dtype"))
      .def("geometry", &PreprocessPlan::geometry, py::arg("height"), py::arg("width"),
           "Where an image of this size lands in the tensor.")
      .def("run", &PreprocessPlan::run, py::arg("images").noconvert(), py::arg("out").noconvert(),
           py::arg("source_color"), py::arg("threads") = 1,
           "Fills `out` on the CPU, without the GIL. Images are uint8 (height, width, 3) with "
           "contiguous pixels and any row stride; `out` is C-contiguous, of the tensor's shape and "
           "dtype.")
      .def("cuda_table", &PreprocessPlan::cuda_table, py::arg("height"), py::arg("width"),
           "int32 [k]: what run_cuda wants in device memory for images of a size, weights in pil "
           "mode. Empty in cv2 mode.")
      .def("run_cuda", &PreprocessPlan::run_cuda, py::arg("images"), py::arg("out"),
           py::arg("tables"), py::arg("stream"), py::arg("source_color"),
           "Queues the same work on a CUDA stream, one launch for up to 32 images. Images are "
           "(address, height, width, row_bytes) in device memory; `tables` holds the address of "
           "the cuda_table of each one's size, and may be empty in cv2 mode. Does not block. "
           "Raises DriverError when the driver is missing or refuses.");
}

}  // namespace visionrt
