// CPU back end of the YOLOX head.
#include "decode/decode.h"
#include "decode/scan.h"

namespace visionrt {

Candidates decode_yolox_cpu(const float* output, const YoloxHead& head,
                            const DecodeOptions& options) {
  const RowLayout layout{head.anchors, head.columns, head.num_classes, true};
  return scan_rows(output, layout, options, [&head](const float* row, std::int32_t anchor) {
    return yolox_box(head, row, anchor);
  });
}

}  // namespace visionrt
