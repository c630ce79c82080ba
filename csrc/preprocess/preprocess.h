// Images to tensor: the contract shared by the CPU and the CUDA back end.
//
// Input is HWC uint8 with three interleaved channels and any row stride. Output is one C-contiguous
// tensor of shape (n, c, h, w) or (n, h, w, c). Pixel (y, x) of image i is
//
//   source -> [luma, when the tensor is gray] -> resize to 8 bits -> (v - mean) * inv_std
//
// Numerics, the same bits on every back end:
//   * luma is BT.601 in 15-bit fixed point, as OpenCV's 8-bit COLOR_BGR2GRAY.
//   * cv2: the 8-bit result of OpenCV's resize with INTER_LINEAR (11-bit weights).
//   * pil: the 8-bit result of Pillow's antialiased BILINEAR (22-bit weights, horizontal pass
//     rounded to 8 bits, then vertical). Pillow 13 goes vertically first when the height shrinks by
//     more than twice what the width does; there a pixel may differ by 1.
//   * The subtraction and the multiplication are separate float32 operations. inv_std is 1 / std
//     in double, rounded to float32. float16 is that float32 rounded to nearest, ties to even.
//     uint8 stores v itself.
//   * The letterbox border is pad_value in every channel, then normalised.
//
// Ownership: nothing here keeps a pointer after it returns, except that run_cuda's work is only
// queued: its device buffers must live until the stream has passed it.
// Errors: std::invalid_argument says what was expected and what came; run_cuda also throws
// cuda::DriverError. On an error the output may be partly written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "preprocess/dtype.h"
#include "preprocess/geometry.h"

namespace visionrt::preprocess {

enum class Interpolation { kCv2, kPil };
enum class Color { kRgb, kBgr, kGray };
enum class Layout { kNchw, kNhwc };

// How an image becomes a tensor. Build it with make_spec, which validates it.
struct Spec {
  Fit fit;
  Interpolation interpolation;
  Color color;
  Layout layout;
  DType dtype;
  std::uint8_t pad_value;
  float mean[3];  // in the order of `color`; gray uses the first
  float inv_std[3];

  int channels() const { return color == Color::kGray ? 1 : 3; }
  std::size_t element_bytes() const;
  std::size_t image_elements() const;  // elements of one image in the tensor
};

// The same in words, as the preprocess spec spells it.
struct SpecText {
  std::string resize, interpolation, color, letterbox_align, layout, dtype;
  int height, width;
  double crop_ratio;
  double mean[3], std[3];
  int pad_value;
};
Spec make_spec(const SpecText& text);

// An image in host memory (run_cpu) or device memory (run_cuda). `row_bytes` may be negative.
struct ImageView {
  const std::uint8_t* data;
  int height, width;
  std::int64_t row_bytes;
  Color color;  // kRgb or kBgr
};

// Fills `out`, which holds `count * spec.image_elements()` elements, with `threads` threads
// (the caller's included). Blocks. Temporary memory per thread is a few rows of the tensor's width;
// in pil mode, as many as an output row has source rows.
void run_cpu(const Spec& spec, const ImageView* images, std::size_t count, void* out, int threads);

// What run_cuda needs in device memory, 4-byte aligned, for images of one size: the weights of pil
// mode, made in double as Pillow makes them. Empty in cv2 mode. It depends on nothing else, so
// keep it for the next image of the size.
std::vector<std::int32_t> cuda_table(const Spec& spec, int height, int width);

// Queues the same work on `stream`, in the current context: one launch for up to 32 images. Does
// not block, allocates nothing. `tables` holds the address of each image's cuda_table; not read in
// cv2 mode.
void run_cuda(const Spec& spec, const ImageView* images, const cuda::DevicePtr* tables,
              std::size_t count, cuda::DevicePtr out, cuda::StreamHandle stream);

}  // namespace visionrt::preprocess
