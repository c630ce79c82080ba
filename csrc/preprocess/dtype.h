// Element types of the tensor. Apart from the contract, because kernels include it too.
#pragma once

namespace visionrt::preprocess {

enum class DType { kFloat32, kFloat16, kUint8 };

}  // namespace visionrt::preprocess
