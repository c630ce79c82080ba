#if defined(__x86_64__)
#include "preprocess/rows_vector.h"

namespace visionrt::preprocess {

const RowKernels kAvx512Rows{kLanes, blend_x, blend_y, filter_x, filter_y, store_row};

}  // namespace visionrt::preprocess
#endif
