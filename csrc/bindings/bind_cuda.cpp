#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace visionrt {

void bind_cuda(py::module_& m) {
  py::register_exception<cuda::DriverError>(m, "DriverError", PyExc_RuntimeError);
  m.def("has_kernels", &cuda::has_kernels, "True when this build holds CUDA kernels.");
  m.def("driver_problem", &cuda::driver_problem,
        "Why the NVIDIA driver cannot be used, in words; empty when it can.");
  m.def(
      "embedded_fatbins",
      [] {
        std::vector<std::pair<std::string, std::size_t>> out;
        for (const auto& f : cuda::embedded_fatbins()) out.emplace_back(f.name, f.bytes);
        return out;
      },
      "Name and size in bytes of every embedded fatbin.");
}

}  // namespace visionrt
