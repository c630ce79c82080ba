#if defined(__x86_64__)
#include "preprocess/rows_vector.h"

namespace visionrt::preprocess {

const RowKernels kAvx2Rows{kLanes, blend_x, blend_y, filter_x, filter_y, store_row};

}  // namespace visionrt::preprocess
#endif
