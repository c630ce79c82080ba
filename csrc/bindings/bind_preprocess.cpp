#include "bindings/bindings.h"

namespace visionrt {

void bind_preprocess(pybind11::module_&) {}

}  // namespace visionrt
