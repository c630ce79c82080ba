// The launch of masks.cu.
#include <stdexcept>
#include <string>

#include "masks/mask_kernels.h"

namespace visionrt {

void instance_masks_cuda(const MaskInputs& inputs, std::uint8_t* masks, cuda::StreamHandle stream) {
  check_mask_inputs(inputs);
  if (inputs.detections > 65535) {
    throw std::invalid_argument("detections must be 0 to 65535, got " +
                                std::to_string(inputs.detections));
  }
  if (inputs.detections == 0 || inputs.height == 0 || inputs.width == 0) return;
  const auto blocks = [](std::int32_t side, std::int32_t tile) {
    return static_cast<unsigned>((side + tile - 1) / tile);
  };
  const cuda::Dim3 grid{blocks(inputs.width, kMaskTileX), blocks(inputs.height, kMaskTileY),
                        static_cast<unsigned>(inputs.detections)};
  const cuda::Dim3 block{kMaskThreadsX, kMaskThreadsY, 1};
  cuda::launch("instance_masks", {grid, block, 0}, stream, inputs, masks);
}

}  // namespace visionrt
