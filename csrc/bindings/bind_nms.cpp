#include "bindings/bindings.h"

namespace visionrt {

void bind_nms(pybind11::module_&) {}

}  // namespace visionrt
