// One function per contract; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace visionrt {

void bind_preprocess(pybind11::module_& m);
void bind_nms(pybind11::module_& m);
void bind_decode(pybind11::module_& m);
void bind_masks(pybind11::module_& m);
void bind_class_masks(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_graph(pybind11::module_& m);
void bind_dlpack(pybind11::module_& m);

}  // namespace visionrt
