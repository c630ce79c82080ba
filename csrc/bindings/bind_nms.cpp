#include <pybind11/stl.h>

#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "nms/nms.h"

namespace py = pybind11;

namespace visionrt {
namespace {

const std::int32_t* data_or_null(const std::optional<IntArray>& array) {
  return array ? array->data() : nullptr;
}

const Box* as_boxes(const FloatArray& array) { return reinterpret_cast<const Box*>(array.data()); }

IntArray nms(const FloatArray& boxes, const FloatArray& scores,
             const std::optional<IntArray>& class_ids, float iou_threshold, std::int32_t max_det,
             const std::optional<IntArray>& source_index, std::int32_t max_candidates) {
  check_shape(boxes, "boxes", "[n, 4]", {-1, 4});
  const py::ssize_t n = boxes.shape(0);
  check_shape(scores, "scores", "[n]", {n});
  if (class_ids) check_shape(*class_ids, "class_ids", "[n]", {n});
  if (source_index) check_shape(*source_index, "source_index", "[n]", {n});
  const std::int32_t count = checked_int32(n, "the number of boxes");

  NmsOptions options{iou_threshold, max_det, max_candidates, true};
  check_nms_options(options);
  options.max_det = std::min(max_det, std::max(count, 1));
  std::vector<std::int32_t> kept(static_cast<std::size_t>(options.max_det));
  std::int32_t kept_count = 0;
  {
    const NmsInputs inputs{as_boxes(boxes),
                           scores.data(),
                           data_or_null(class_ids),
                           data_or_null(source_index),
                           nullptr,
                           1,
                           count};
    const py::gil_scoped_release unlocked;
    nms_cpu(inputs, options, kept.data(), &kept_count);
  }
  return IntArray(kept_count, kept.data());
}

std::pair<IntArray, IntArray> nms_batched(const FloatArray& boxes, const FloatArray& scores,
                                          const std::optional<IntArray>& class_ids,
                                          const std::optional<IntArray>& counts,
                                          float iou_threshold, std::int32_t max_det,
                                          const std::optional<IntArray>& source_index,
                                          std::int32_t max_candidates) {
  check_shape(boxes, "boxes", "[batch, n, 4]", {-1, -1, 4});
  const py::ssize_t batch = boxes.shape(0), n = boxes.shape(1);
  check_shape(scores, "scores", "[batch, n]", {batch, n});
  if (class_ids) check_shape(*class_ids, "class_ids", "[batch, n]", {batch, n});
  if (source_index) check_shape(*source_index, "source_index", "[batch, n]", {batch, n});
  if (counts) check_shape(*counts, "counts", "[batch]", {batch});
  const NmsOptions options{iou_threshold, max_det, max_candidates, true};
  check_nms_options(options);

  IntArray kept({batch, static_cast<py::ssize_t>(max_det)});
  IntArray kept_counts(batch);
  const NmsInputs inputs{as_boxes(boxes),
                         scores.data(),
                         data_or_null(class_ids),
                         data_or_null(source_index),
                         data_or_null(counts),
                         checked_int32(batch, "the batch"),
                         checked_int32(n, "the number of boxes")};
  std::int32_t* kept_data = kept.mutable_data();
  std::int32_t* counts_data = kept_counts.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    nms_cpu(inputs, options, kept_data, counts_data);
  }
  return {std::move(kept), std::move(kept_counts)};
}

}  // namespace

void bind_nms(py::module_& m) {
  const std::int32_t no_limit = std::numeric_limits<std::int32_t>::max();
  m.def("nms", &nms, py::arg("boxes"), py::arg("scores"), py::arg("class_ids"),
        py::arg("iou_threshold"), py::arg("max_det"), py::arg("source_index") = py::none(),
        py::arg("max_candidates") = no_limit,
        "Exact greedy NMS of one image on the CPU. boxes float32 [n, 4] xyxy, scores float32 [n],\n"
        "class_ids int32 [n] or None (agnostic). Returns int32 [k], best first. Ties go to the\n"
        "lower source_index (default: the position). Releases the GIL.");
  m.def("nms_batched", &nms_batched, py::arg("boxes"), py::arg("scores"), py::arg("class_ids"),
        py::arg("counts"), py::arg("iou_threshold"), py::arg("max_det"),
        py::arg("source_index") = py::none(), py::arg("max_candidates") = no_limit,
        "NMS of a batch on the CPU: boxes float32 [batch, n, 4], of which counts[i] are read.\n"
        "Returns (int32 [batch, max_det] padded with -1, int32 [batch]). Releases the GIL.");
}

}  // namespace visionrt
