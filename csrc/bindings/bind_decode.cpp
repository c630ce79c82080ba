#include <pybind11/stl.h>

#include <array>
#include <tuple>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "decode/decode.h"

namespace py = pybind11;

namespace visionrt {
namespace {

using CandidateArrays = std::tuple<FloatArray, FloatArray, IntArray, IntArray>;

CandidateArrays to_arrays(const Candidates& found) {
  const auto n = static_cast<py::ssize_t>(found.scores.size());
  FloatArray boxes({n, py::ssize_t{4}});
  if (n > 0)
    std::memcpy(boxes.mutable_data(), found.boxes.data(), found.boxes.size() * sizeof(Box));
  return {std::move(boxes), FloatArray(n, found.scores.data()), IntArray(n, found.class_ids.data()),
          IntArray(n, found.anchors.data())};
}

void check_classes(std::int32_t num_classes, std::int64_t anchors) {
  if (num_classes < 1) {
    throw std::invalid_argument("num_classes must be 1 or more, got " +
                                std::to_string(num_classes));
  }
  if (anchors * num_classes > INT32_MAX) {
    throw std::invalid_argument("anchors * num_classes must be below 2^31, got " +
                                std::to_string(anchors * num_classes));
  }
}

void check_columns(std::int64_t columns, std::int64_t box_columns, std::int32_t num_classes) {
  if (columns < box_columns + num_classes) {
    throw std::invalid_argument("the output must have " + std::to_string(box_columns) + " + " +
                                std::to_string(num_classes) + " columns or more, got " +
                                std::to_string(columns));
  }
}

YoloForm yolo_form(const std::string& name) {
  if (name == "v8") return YoloForm::kChannelsFirst;
  if (name == "v8_rows") return YoloForm::kRows;
  if (name == "v5") return YoloForm::kObjectness;
  throw std::invalid_argument("form must be \"v8\", \"v8_rows\" or \"v5\", got \"" + name + "\"");
}

YoloHead yolo_head(const std::string& form_name, std::int64_t rows, std::int64_t columns,
                   std::int32_t num_classes) {
  YoloHead head;
  head.form = yolo_form(form_name);
  if (head.form == YoloForm::kChannelsFirst) std::swap(rows, columns);
  head.anchors = checked_int32(rows, "the number of anchors");
  head.columns = checked_int32(columns, "the number of columns");
  head.num_classes = num_classes;
  check_classes(num_classes, head.anchors);
  check_columns(columns, head.form == YoloForm::kObjectness ? 5 : 4, num_classes);
  return head;
}

Activation activation_named(const std::string& name) {
  if (name == "none") return Activation::kNone;
  if (name == "sigmoid") return Activation::kSigmoid;
  if (name == "softmax") return Activation::kSoftmax;
  throw std::invalid_argument("activation must be \"none\", \"sigmoid\" or \"softmax\", got \"" +
                              name + "\"");
}

SsdHead ssd_head(std::int64_t anchors, std::int64_t num_classes,
                 const std::array<std::int32_t, 2>& input_hw, const std::array<float, 4>& variances,
                 const std::string& activation, std::int32_t background, const std::string& code) {
  SsdHead head;
  head.anchors = checked_int32(anchors, "the number of anchors");
  head.num_classes = checked_int32(num_classes, "the number of classes");
  check_classes(head.num_classes, anchors);
  if (background < -1 || background >= head.num_classes) {
    throw std::invalid_argument("background must be -1 (none) or a column below " +
                                std::to_string(num_classes) + ", got " +
                                std::to_string(background));
  }
  for (const float variance : variances) {
    if (!(variance > 0.0f)) {
      throw std::invalid_argument("variances must be positive, got " + std::to_string(variance));
    }
  }
  if (input_hw[0] < 1 || input_hw[1] < 1) {
    throw std::invalid_argument("input_hw must be positive, got (" + std::to_string(input_hw[0]) +
                                ", " + std::to_string(input_hw[1]) + ")");
  }
  if (code != "yxhw" && code != "xywh") {
    throw std::invalid_argument("code must be \"yxhw\" or \"xywh\", got \"" + code + "\"");
  }
  head.x_first = code == "xywh";
  head.background = background;
  head.activation = activation_named(activation);
  head.scales = {variances[0], variances[1], variances[2], variances[3]};
  head.input_height = static_cast<float>(input_hw[0]);
  head.input_width = static_cast<float>(input_hw[1]);
  return head;
}

CandidateArrays decode_yolo(const FloatArray& output, const std::string& form,
                            std::int32_t num_classes, float score_threshold, bool multi_label,
                            std::int32_t max_candidates) {
  check_shape(output, "output", form == "v8" ? "[columns, anchors]" : "[anchors, columns]",
              {-1, -1});
  const YoloHead head = yolo_head(form, output.shape(0), output.shape(1), num_classes);
  const float* data = output.data();
  Candidates found;
  {
    const py::gil_scoped_release unlocked;
    found = decode_yolo_cpu(data, head, {score_threshold, multi_label, max_candidates});
  }
  return to_arrays(found);
}

CandidateArrays decode_yolox(const FloatArray& output, const std::array<std::int32_t, 2>& input_hw,
                             std::int32_t num_classes, float score_threshold,
                             const std::vector<std::int32_t>& strides, bool multi_label,
                             std::int32_t max_candidates) {
  check_shape(output, "output", "[anchors, columns]", {-1, -1});
  check_classes(num_classes, output.shape(0));
  check_columns(output.shape(1), 5, num_classes);
  const YoloxHead head = yolox_head(checked_int32(output.shape(0), "the number of anchors"),
                                    checked_int32(output.shape(1), "the number of columns"),
                                    num_classes, input_hw[0], input_hw[1], strides);
  const float* data = output.data();
  Candidates found;
  {
    const py::gil_scoped_release unlocked;
    found = decode_yolox_cpu(data, head, {score_threshold, multi_label, max_candidates});
  }
  return to_arrays(found);
}

CandidateArrays decode_ssd(const FloatArray& box_codes, const FloatArray& scores,
                           const FloatArray& anchors, const std::array<std::int32_t, 2>& input_hw,
                           float score_threshold, const std::array<float, 4>& variances,
                           const std::string& activation, std::int32_t background, bool multi_label,
                           std::int32_t max_candidates, const std::string& code) {
  check_shape(scores, "scores", "[anchors, classes]", {-1, -1});
  check_shape(box_codes, "box_codes", "[anchors, 4]", {scores.shape(0), 4});
  check_shape(anchors, "anchors", "[anchors, 4]", {scores.shape(0), 4});
  const SsdHead head =
      ssd_head(scores.shape(0), scores.shape(1), input_hw, variances, activation, background, code);
  const float *codes_data = box_codes.data(), *scores_data = scores.data(),
              *anchors_data = anchors.data();
  Candidates found;
  {
    const py::gil_scoped_release unlocked;
    found = decode_ssd_cpu(codes_data, scores_data, anchors_data, head,
                           {score_threshold, multi_label, max_candidates});
  }
  return to_arrays(found);
}

// Where candidates go on the device: boxes, scores, class_ids, source_index, counts.
using BufferAddresses = std::array<std::uintptr_t, 5>;

CandidateBuffers buffers_at(const BufferAddresses& addresses, std::int32_t batch,
                            std::int32_t capacity) {
  return {reinterpret_cast<Box*>(addresses[0]),
          reinterpret_cast<float*>(addresses[1]),
          reinterpret_cast<std::int32_t*>(addresses[2]),
          reinterpret_cast<std::int32_t*>(addresses[3]),
          reinterpret_cast<std::int32_t*>(addresses[4]),
          batch,
          capacity};
}

const void* memory_at(std::uintptr_t address) { return reinterpret_cast<const void*>(address); }

OutputType type_of(bool is_float16) {
  return is_float16 ? OutputType::kFloat16 : OutputType::kFloat32;
}

void cuda_decode_yolo(std::uintptr_t output, std::int32_t batch, const std::string& form,
                      std::int32_t anchors, std::int32_t columns, std::int32_t num_classes,
                      float score_threshold, const BufferAddresses& candidates,
                      std::int32_t capacity, cuda::StreamHandle stream, bool multi_label,
                      bool is_float16) {
  const bool transposed = form == "v8";
  const YoloHead head =
      yolo_head(form, transposed ? columns : anchors, transposed ? anchors : columns, num_classes);
  decode_yolo_cuda(memory_at(output), type_of(is_float16), head, {score_threshold, multi_label},
                   buffers_at(candidates, batch, capacity), stream);
}

void cuda_decode_yolox(std::uintptr_t output, std::int32_t batch,
                       const std::array<std::int32_t, 2>& input_hw, std::int32_t anchors,
                       std::int32_t columns, std::int32_t num_classes, float score_threshold,
                       const BufferAddresses& candidates, std::int32_t capacity,
                       cuda::StreamHandle stream, const std::vector<std::int32_t>& strides,
                       bool multi_label, bool is_float16) {
  check_classes(num_classes, anchors);
  check_columns(columns, 5, num_classes);
  const YoloxHead head =
      yolox_head(anchors, columns, num_classes, input_hw[0], input_hw[1], strides);
  decode_yolox_cuda(memory_at(output), type_of(is_float16), head, {score_threshold, multi_label},
                    buffers_at(candidates, batch, capacity), stream);
}

void cuda_decode_ssd(std::uintptr_t box_codes, std::uintptr_t scores, std::uintptr_t anchor_boxes,
                     std::int32_t batch, std::int32_t anchors, std::int32_t num_classes,
                     const std::array<std::int32_t, 2>& input_hw, float score_threshold,
                     const BufferAddresses& candidates, std::int32_t capacity,
                     cuda::StreamHandle stream, const std::array<float, 4>& variances,
                     const std::string& activation, std::int32_t background, bool multi_label,
                     bool is_float16, const std::string& code) {
  const SsdHead head =
      ssd_head(anchors, num_classes, input_hw, variances, activation, background, code);
  decode_ssd_cuda(memory_at(box_codes), memory_at(scores), type_of(is_float16),
                  reinterpret_cast<const float*>(anchor_boxes), head,
                  {score_threshold, multi_label}, buffers_at(candidates, batch, capacity), stream);
}

void bind_cuda_decode(py::module_& m) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("decode_capacity", &decode_capacity, py::arg("anchors"), py::arg("num_classes"),
        py::arg("multi_label") = false,
        "Candidates an image can give: the least capacity the cuda_decode functions take.");
  m.def(
      "cuda_decode_yolo", &cuda_decode_yolo, Unlocked(), py::arg("output"), py::arg("batch"),
      py::arg("form"), py::arg("anchors"), py::arg("columns"), py::arg("num_classes"),
      py::arg("score_threshold"), py::arg("candidates"), py::arg("capacity"), py::arg("stream"),
      py::arg("multi_label") = false, py::arg("is_float16") = false,
      "Queues decode_yolo of a batch on the stream. output: device address of float32 or float16\n"
      "[batch, ...] in the form's layout. candidates: addresses of boxes [batch, capacity, 4], "
      "scores,\n"
      "class_ids, source_index [batch, capacity] and counts [batch]; the order is arbitrary,\n"
      "source_index = anchor * num_classes + class. Does not block. Raises DriverError.");
  m.def("cuda_decode_yolox", &cuda_decode_yolox, Unlocked(), py::arg("output"), py::arg("batch"),
        py::arg("input_hw"), py::arg("anchors"), py::arg("columns"), py::arg("num_classes"),
        py::arg("score_threshold"), py::arg("candidates"), py::arg("capacity"), py::arg("stream"),
        py::arg("strides") = std::vector<std::int32_t>{8, 16, 32}, py::arg("multi_label") = false,
        py::arg("is_float16") = false,
        "Queues decode_yolox of a batch on the stream; arguments as cuda_decode_yolo.");
  m.def("cuda_decode_ssd", &cuda_decode_ssd, Unlocked(), py::arg("box_codes"), py::arg("scores"),
        py::arg("anchor_boxes"), py::arg("batch"), py::arg("anchors"), py::arg("num_classes"),
        py::arg("input_hw"), py::arg("score_threshold"), py::arg("candidates"), py::arg("capacity"),
        py::arg("stream"), py::arg("variances") = std::array<float, 4>{10.0f, 10.0f, 5.0f, 5.0f},
        py::arg("activation") = "none", py::arg("background") = 0, py::arg("multi_label") = false,
        py::arg("is_float16") = false, py::arg("code") = "yxhw",
        "Queues decode_ssd of a batch on the stream. box_codes [batch, anchors, 4] and scores\n"
        "[batch, anchors, num_classes] per image, anchor_boxes [anchors, 4] shared; candidates as\n"
        "cuda_decode_yolo.");
}

}  // namespace

void bind_decode(py::module_& m) {
  m.def("decode_yolo", &decode_yolo, py::arg("output"), py::arg("form"), py::arg("num_classes"),
        py::arg("score_threshold"), py::arg("multi_label") = false,
        py::arg("max_candidates") = 30000,
        "Candidates of a YOLO head. form: \"v8\" ([4+C, N]), \"v8_rows\" ([N, 4+C]) or \"v5\"\n"
        "([N, 5+C] with objectness); columns past the classes are skipped. Returns boxes float32\n"
        "[k, 4] xyxy in input pixels, scores float32 [k], class_ids int32 [k], anchors int32 [k].");
  m.def("decode_yolox", &decode_yolox, py::arg("output"), py::arg("input_hw"),
        py::arg("num_classes"), py::arg("score_threshold"),
        py::arg("strides") = std::vector<std::int32_t>{8, 16, 32}, py::arg("multi_label") = false,
        py::arg("max_candidates") = 30000,
        "Candidates of a YOLOX head, output float32 [N, 5+C]. Returns as decode_yolo.");
  m.def(
      "decode_ssd", &decode_ssd, py::arg("box_codes"), py::arg("scores"), py::arg("anchors"),
      py::arg("input_hw"), py::arg("score_threshold"),
      py::arg("variances") = std::array<float, 4>{10.0f, 10.0f, 5.0f, 5.0f},
      py::arg("activation") = "none", py::arg("background") = 0, py::arg("multi_label") = false,
      py::arg("max_candidates") = 30000, py::arg("code") = "yxhw",
      "Candidates of an SSD head: box_codes float32 [N, 4] (ty, tx, th, tw, or with code \"xywh\"\n"
      "tx, ty, tw, th), scores float32 [N, C], anchors float32 [N, 4] (cy, cx, h, w) normalised;\n"
      "variances for y, x, h, w. Class ids are the columns of scores; background -1: none.\n"
      "Returns as decode_yolo.");
  bind_cuda_decode(m);
}

}  // namespace visionrt
