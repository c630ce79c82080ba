#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() =
      "Native operations: preprocessing, decoding, NMS and masks, on the CPU and through CUDA.";
  visionrt::bind_preprocess(m);
  visionrt::bind_nms(m);
  visionrt::bind_decode(m);
  visionrt::bind_masks(m);
  visionrt::bind_class_masks(m);
  visionrt::bind_cuda(m);
  visionrt::bind_graph(m);
  visionrt::bind_dlpack(m);
}
