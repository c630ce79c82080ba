#include "bindings/bindings.h"

namespace visionrt {

void bind_decode(pybind11::module_&) {}

}  // namespace visionrt
