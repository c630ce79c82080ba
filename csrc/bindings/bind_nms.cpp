#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "nms/nms.h"
#include "nms/nms_rotated.h"
#include "preprocess/geometry.h"

namespace py = pybind11;

namespace visionrt {
namespace {

constexpr std::int32_t kNoLimit = std::numeric_limits<std::int32_t>::max();

const std::int32_t* data_or_null(const std::optional<IntArray>& array) {
  return array ? array->data() : nullptr;
}

const Box* as_boxes(const FloatArray& array) { return reinterpret_cast<const Box*>(array.data()); }

// What survives of one image's boxes; `run(options, kept, kept_count)` finds it without the GIL.
template <class Run>
IntArray survivors(std::int32_t count, NmsOptions options, const Run& run) {
  check_nms_options(options);
  options.max_det = std::min(options.max_det, std::max(count, 1));
  std::vector<std::int32_t> kept(static_cast<std::size_t>(options.max_det));
  std::int32_t kept_count = 0;
  {
    const py::gil_scoped_release unlocked;
    run(options, kept.data(), &kept_count);
  }
  return IntArray(kept_count, kept.data());
}

// Views of one image's arrays, checked.
NmsInputs inputs_of(const FloatArray& boxes, const FloatArray& scores,
                    const std::optional<IntArray>& class_ids,
                    const std::optional<IntArray>& source_index) {
  check_shape(boxes, "boxes", "[n, 4]", {-1, 4});
  const py::ssize_t n = boxes.shape(0);
  check_shape(scores, "scores", "[n]", {n});
  if (class_ids) check_shape(*class_ids, "class_ids", "[n]", {n});
  if (source_index) check_shape(*source_index, "source_index", "[n]", {n});
  return {as_boxes(boxes),
          scores.data(),
          data_or_null(class_ids),
          data_or_null(source_index),
          nullptr,
          1,
          checked_int32(n, "the number of boxes")};
}

IntArray nms(const FloatArray& boxes, const FloatArray& scores,
             const std::optional<IntArray>& class_ids, float iou_threshold, std::int32_t max_det,
             const std::optional<IntArray>& source_index, std::int32_t max_candidates) {
  const NmsInputs inputs = inputs_of(boxes, scores, class_ids, source_index);
  return survivors(inputs.capacity, {iou_threshold, max_det, max_candidates, true},
                   [&](const NmsOptions& options, std::int32_t* kept, std::int32_t* kept_count) {
                     nms_cpu(inputs, options, kept, kept_count);
                   });
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

// Angles one by one: that of candidate i is angles[i].
IntArray nms_rotated(const FloatArray& boxes, const FloatArray& angles, const FloatArray& scores,
                     const std::optional<IntArray>& class_ids, float iou_threshold,
                     std::int32_t max_det, std::int32_t max_candidates) {
  const NmsInputs inputs = inputs_of(boxes, scores, class_ids, std::nullopt);
  check_shape(angles, "angles", "[n]", {boxes.shape(0)});
  const AngleView view{angles.data()};
  return survivors(inputs.capacity, {iou_threshold, max_det, max_candidates, true},
                   [&](const NmsOptions& options, std::int32_t* kept, std::int32_t* kept_count) {
                     nms_rotated_cpu(inputs, view, options, kept, kept_count);
                   });
}

FloatArray rotated_shared_areas(const FloatArray& a, const FloatArray& b) {
  check_shape(a, "a", "[n, 5]", {-1, 5});
  check_shape(b, "b", "[n, 5]", {a.shape(0), 5});
  FloatArray areas(a.shape(0));
  const auto box_at = [](const float* row) {
    return rotated_box({row[0], row[1], row[2], row[3]}, row[4], 0);
  };
  for (py::ssize_t i = 0; i < a.shape(0); ++i) {
    areas.mutable_at(i) = shared_area(box_at(a.data() + 5 * i), box_at(b.data() + 5 * i));
  }
  return areas;
}

NmsFilter filter_of(bool finite_only, const std::optional<std::vector<std::int32_t>>& classes) {
  NmsFilter filter;
  filter.finite_only = finite_only;
  filter.classes_only = classes.has_value();
  if (!classes) return filter;
  for (const std::int32_t id : *classes) {
    if (id < 0 || id >= kMaxFilterClasses) {
      throw std::invalid_argument("classes must be 0 to " + std::to_string(kMaxFilterClasses - 1) +
                                  ", got " + std::to_string(id));
    }
    filter.classes[id / 32] |= 1u << (id % 32);
  }
  return filter;
}

std::vector<ImageMap> maps_of(const std::vector<preprocess::Geometry>& geometries,
                              std::int32_t batch) {
  if (!geometries.empty() && static_cast<std::int64_t>(geometries.size()) != batch) {
    throw std::invalid_argument("geometries must be " + std::to_string(batch) +
                                ", one for each image, or none, got " +
                                std::to_string(geometries.size()));
  }
  std::vector<ImageMap> maps;
  for (const preprocess::Geometry& g : geometries) {
    maps.push_back({static_cast<float>(g.offset_x), static_cast<float>(g.offset_y),
                    static_cast<float>(g.scale_x), static_cast<float>(g.scale_y),
                    static_cast<float>(g.image_w), static_cast<float>(g.image_h)});
  }
  return maps;
}

// Device addresses arrive as integers; 0 is null.
NmsInputs inputs_at(const std::array<std::uintptr_t, 5>& candidates, std::int32_t batch,
                    std::int32_t capacity) {
  return {reinterpret_cast<const Box*>(candidates[0]),
          reinterpret_cast<const float*>(candidates[1]),
          reinterpret_cast<const std::int32_t*>(candidates[2]),
          reinterpret_cast<const std::int32_t*>(candidates[3]),
          reinterpret_cast<const std::int32_t*>(candidates[4]),
          batch,
          capacity};
}

// values, image_stride, anchor_stride, column_stride, classes, columns, out.
using ExtraTuple = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t,
                              std::int32_t, std::int32_t, std::uintptr_t>;

NmsOutputs outputs_at(std::uintptr_t kept, std::uintptr_t kept_counts, std::uintptr_t detections,
                      const std::optional<ExtraTuple>& extra) {
  NmsOutputs outputs{reinterpret_cast<std::int32_t*>(kept),
                     reinterpret_cast<std::int32_t*>(kept_counts),
                     reinterpret_cast<Detection*>(detections),
                     {}};
  if (extra) {
    const auto& [values, image, anchor, column, classes, columns, out] = *extra;
    outputs.extra = {
        reinterpret_cast<const float*>(values), image, anchor, column, classes, columns,
        reinterpret_cast<float*>(out)};
  }
  return outputs;
}

void cuda_nms(std::uintptr_t boxes, std::uintptr_t scores, std::uintptr_t class_ids,
              std::uintptr_t source_index, std::uintptr_t counts, std::int32_t batch,
              std::int32_t capacity, float iou_threshold, std::int32_t max_det,
              std::uintptr_t workspace, std::size_t workspace_bytes, std::uintptr_t kept,
              std::uintptr_t kept_counts, cuda::StreamHandle stream, std::uintptr_t detections,
              bool class_aware, std::int32_t max_candidates, bool finite_only,
              const std::optional<std::vector<std::int32_t>>& classes,
              const std::vector<preprocess::Geometry>& geometries,
              const std::optional<ExtraTuple>& extra) {
  const std::vector<ImageMap> maps = maps_of(geometries, batch);
  nms_cuda(inputs_at({boxes, scores, class_ids, source_index, counts}, batch, capacity),
           filter_of(finite_only, classes), {iou_threshold, max_det, max_candidates, class_aware},
           maps.empty() ? nullptr : maps.data(), reinterpret_cast<void*>(workspace),
           workspace_bytes, outputs_at(kept, kept_counts, detections, extra), stream);
}

void cuda_nms_rotated(std::uintptr_t boxes, std::uintptr_t angles, std::int64_t image_stride,
                      std::int64_t anchor_stride, std::int32_t num_classes, std::uintptr_t scores,
                      std::uintptr_t class_ids, std::uintptr_t source_index, std::uintptr_t counts,
                      std::int32_t batch, std::int32_t capacity, float iou_threshold,
                      std::int32_t max_det, std::uintptr_t workspace, std::size_t workspace_bytes,
                      std::uintptr_t kept, std::uintptr_t kept_counts, cuda::StreamHandle stream,
                      std::uintptr_t detections, bool class_aware, std::int32_t max_candidates,
                      bool finite_only, const std::optional<std::vector<std::int32_t>>& classes) {
  if (num_classes < 1) {
    throw std::invalid_argument("num_classes must be 1 or more, got " +
                                std::to_string(num_classes));
  }
  const AngleView view{reinterpret_cast<const float*>(angles), image_stride, anchor_stride,
                       num_classes};
  nms_rotated_cuda(inputs_at({boxes, scores, class_ids, source_index, counts}, batch, capacity),
                   view, filter_of(finite_only, classes),
                   {iou_threshold, max_det, max_candidates, class_aware},
                   reinterpret_cast<void*>(workspace), workspace_bytes,
                   outputs_at(kept, kept_counts, detections, std::nullopt), stream);
}

template <std::size_t (*kBytes)(std::int32_t, std::int32_t, const NmsOptions&)>
void bind_workspace_bytes(py::module_& m, const char* name, const char* text) {
  m.def(
      name,
      [](std::int32_t batch, std::int32_t capacity, std::int32_t max_det,
         std::int32_t max_candidates) {
        return kBytes(batch, capacity, {0.5f, max_det, max_candidates, true});
      },
      py::arg("batch"), py::arg("capacity"), py::arg("max_det"),
      py::arg("max_candidates") = kNoLimit, text);
}

void bind_rotated(py::module_& m) {
  m.def("nms_rotated", &nms_rotated, py::arg("boxes"), py::arg("angles"), py::arg("scores"),
        py::arg("class_ids"), py::arg("iou_threshold"), py::arg("max_det"),
        py::arg("max_candidates") = kNoLimit,
        "Exact greedy NMS of rotated boxes of one image on the CPU, by the IoU of polygons. boxes\n"
        "float32 [n, 4] xyxy before they are turned about their centres by angles float32 [n], in\n"
        "radians; otherwise as nms. Releases the GIL.");
  m.def("rotated_shared_areas", &rotated_shared_areas, py::arg("a"), py::arg("b"),
        "Areas that pairs of rotated boxes share, float32 [n]; boxes float32 [n, 5], xyxy and an\n"
        "angle as in nms_rotated.");
  bind_workspace_bytes<nms_rotated_cuda_workspace_bytes>(
      m, "cuda_nms_rotated_workspace_bytes",
      "Bytes of 256-byte aligned device memory that cuda_nms_rotated needs for these sizes.");
  m.def(
      "cuda_nms_rotated", &cuda_nms_rotated, py::arg("boxes"), py::arg("angles"),
      py::arg("image_stride"), py::arg("anchor_stride"), py::arg("num_classes"), py::arg("scores"),
      py::arg("class_ids"), py::arg("source_index"), py::arg("counts"), py::arg("batch"),
      py::arg("capacity"), py::arg("iou_threshold"), py::arg("max_det"), py::arg("workspace"),
      py::arg("workspace_bytes"), py::arg("kept"), py::arg("kept_counts"), py::arg("stream"),
      py::arg("detections") = 0, py::arg("class_aware") = true,
      py::arg("max_candidates") = kNoLimit, py::arg("finite_only") = false,
      py::arg("classes") = py::none(), py::call_guard<py::gil_scoped_release>(),
      "Queues nms_rotated of a batch on the stream; arguments as cuda_nms. The angle of a\n"
      "candidate with source index s of image i is the float32 at angles + 4 * (i * image_stride\n"
      "+ s / num_classes * anchor_stride). detections are the upright boxes, with the angle in "
      "the\n"
      "place of the class as a number.");
}

}  // namespace

void bind_nms(py::module_& m) {
  m.def("nms", &nms, py::arg("boxes"), py::arg("scores"), py::arg("class_ids"),
        py::arg("iou_threshold"), py::arg("max_det"), py::arg("source_index") = py::none(),
        py::arg("max_candidates") = kNoLimit,
        "Exact greedy NMS of one image on the CPU. boxes float32 [n, 4] xyxy, scores float32 [n],\n"
        "class_ids int32 [n] or None (agnostic). Returns int32 [k], best first. Ties go to the\n"
        "lower source_index (default: the position). Releases the GIL.");
  m.def("nms_batched", &nms_batched, py::arg("boxes"), py::arg("scores"), py::arg("class_ids"),
        py::arg("counts"), py::arg("iou_threshold"), py::arg("max_det"),
        py::arg("source_index") = py::none(), py::arg("max_candidates") = kNoLimit,
        "NMS of a batch on the CPU: boxes float32 [batch, n, 4], of which counts[i] are read.\n"
        "Returns (int32 [batch, max_det] padded with -1, int32 [batch]). Releases the GIL.");
  bind_workspace_bytes<nms_cuda_workspace_bytes>(
      m, "cuda_nms_workspace_bytes",
      "Bytes of 256-byte aligned device memory that cuda_nms needs for these sizes.");
  m.def("cuda_nms", &cuda_nms, py::arg("boxes"), py::arg("scores"), py::arg("class_ids"),
        py::arg("source_index"), py::arg("counts"), py::arg("batch"), py::arg("capacity"),
        py::arg("iou_threshold"), py::arg("max_det"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("kept"), py::arg("kept_counts"), py::arg("stream"),
        py::arg("detections") = 0, py::arg("class_aware") = true,
        py::arg("max_candidates") = kNoLimit, py::arg("finite_only") = false,
        py::arg("classes") = py::none(),
        py::arg("geometries") = std::vector<preprocess::Geometry>{}, py::arg("extra") = py::none(),
        py::call_guard<py::gil_scoped_release>(),
        "Queues NMS of a batch on the stream; device addresses are integers, 0 is none. boxes\n"
        "float32 [batch, capacity, 4], scores, class_ids, source_index [batch, capacity], counts\n"
        "int32 [batch]. Writes kept int32 [batch, max_det] (then -1), kept_counts int32 [batch],\n"
        "and detections [batch, max_det] of 32 bytes: x1 y1 x2 y2 score class float32, class_id\n"
        "source_index int32; zeros after the last. finite_only leaves out boxes with infinities,\n"
        "classes all others (each below max_filter_classes). geometries, one for each image, map\n"
        "the boxes of detections to the images. extra: (address, image stride, anchor stride,\n"
        "column stride, classes, columns, out) of more columns of the output, strides in\n"
        "elements: those of the kept go to out, float32 [batch, max_det, columns].\n"
        "Does not block. Raises DriverError when the driver is missing or refuses.");
  m.attr("max_filter_classes") = kMaxFilterClasses;
  bind_rotated(m);
}

}  // namespace visionrt
