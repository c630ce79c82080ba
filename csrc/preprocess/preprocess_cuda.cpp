// The CUDA back end's host side: geometry, sizes and workspace are settled here; kernels only
// index.
#include <algorithm>
#include <stdexcept>

#include "preprocess/kernel_args.h"
#include "preprocess/preprocess.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {
namespace {

constexpr std::size_t kAlignment = 16;
constexpr unsigned kMaxGridY = 65535;

unsigned blocks_for(int count, int per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

DeviceImage describe(const Spec& spec, const ImageView& image) {
  const Geometry geometry = geometry_for(spec.fit, image.height, image.width);
  const bool cv2 = spec.interpolation == Interpolation::kCv2;
  const auto scale = cv2 ? cv2_scale : pil_scale;
  DeviceImage out{};
  out.data = image.data;
  out.row_bytes = image.row_bytes;
  out.scale_x = scale(image.width, geometry.resized_w);
  out.scale_y = scale(image.height, geometry.resized_h);
  out.height = image.height;
  out.width = image.width;
  out.resized_h = geometry.resized_h;
  out.resized_w = geometry.resized_w;
  out.offset_x = geometry.offset_x;
  out.offset_y = geometry.offset_y;
  out.blue_byte = image.color == Color::kBgr ? 0 : 2;
  if (!cv2) {
    out.taps_x = std::min(pil_max_taps(out.scale_x), image.width);
    out.taps_y = std::min(pil_max_taps(out.scale_y), image.height);
    const int top = std::max(0, -geometry.offset_y);
    const int bottom = std::min(geometry.resized_h, spec.fit.height - geometry.offset_y) - 1;
    const PilTaps last = pil_taps(bottom, out.scale_y, image.height);
    out.filtered_first = pil_taps(top, out.scale_y, image.height).first;
    out.filtered_rows = last.first + last.count - out.filtered_first;
  }
  return out;
}

// Bytes of the three parts of one image's workspace: see DeviceImage.
struct Workspace {
  std::size_t table_x, table_y, filtered;
  std::size_t total() const { return table_x + table_y + filtered; }
};

Workspace workspace_of(const Spec& spec, const DeviceImage& image) {
  if (spec.interpolation == Interpolation::kCv2) return {0, 0, 0};
  const auto w = static_cast<std::size_t>(spec.fit.width);
  const auto h = static_cast<std::size_t>(spec.fit.height);
  return {aligned(sizeof(std::int32_t) * w * (2 + static_cast<std::size_t>(image.taps_x))),
          aligned(sizeof(std::int32_t) * h * (2 + static_cast<std::size_t>(image.taps_y))),
          aligned(w * static_cast<std::size_t>(image.filtered_rows) *
                  static_cast<std::size_t>(spec.channels()))};
}

template <class T>
T* device_pointer(cuda::DevicePtr address) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

void launch_chunk(const Spec& spec, const KernelArgs& args, unsigned images,
                  cuda::StreamHandle stream) {
  const int h = args.height, w = args.width;
  if (spec.interpolation == Interpolation::kCv2) {
    cuda::launch("preprocess_cv2", {{blocks_for(w, 128), blocks_for(h, 8), images}, {32, 8, 1}},
                 stream, args);
    return;
  }
  int rows = 0;
  for (unsigned i = 0; i < images; ++i) rows = std::max(rows, args.images[i].filtered_rows);
  cuda::launch("preprocess_pil_tables", {{blocks_for(w + h, 128), 1, images}, {128, 1, 1}}, stream,
               args);
  cuda::launch("preprocess_pil_horizontal",
               {{blocks_for(w, 32), std::min(blocks_for(rows, 8), kMaxGridY), images}, {32, 8, 1}},
               stream, args);
  cuda::launch("preprocess_pil_vertical",
               {{blocks_for(w, 32), blocks_for(h, 8), images}, {32, 8, 1}}, stream, args);
}

}  // namespace

std::size_t cuda_workspace_bytes(const Spec& spec, const ImageView* images, std::size_t count) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    bytes += workspace_of(spec, describe(spec, images[i])).total();
  }
  return bytes;
}

void run_cuda(const Spec& spec, const ImageView* images, std::size_t count, cuda::DevicePtr out,
              cuda::DevicePtr workspace, std::size_t workspace_bytes, cuda::StreamHandle stream) {
  const std::size_t needed = cuda_workspace_bytes(spec, images, count);
  if (workspace_bytes < needed || workspace % kAlignment != 0) {
    throw std::invalid_argument("expected a workspace of at least " + std::to_string(needed) +
                                " bytes aligned to 16, got " + std::to_string(workspace_bytes) +
                                " bytes at address " + std::to_string(workspace));
  }
  KernelArgs args{};
  args.height = spec.fit.height;
  args.width = spec.fit.width;
  args.channels = spec.channels();
  args.blue_first = spec.color == Color::kBgr;
  args.nhwc = spec.layout == Layout::kNhwc;
  args.fours = args.width % 4 == 0 && out % (4 * spec.element_bytes()) == 0;
  args.dtype = spec.dtype;
  args.pad_value = spec.pad_value;
  std::copy(std::begin(spec.mean), std::end(spec.mean), args.mean);
  std::copy(std::begin(spec.inv_std), std::end(spec.inv_std), args.inv_std);

  const std::size_t image_bytes = spec.image_elements() * spec.element_bytes();
  for (std::size_t first = 0; first < count; first += kMaxImagesPerLaunch) {
    const std::size_t images_now = std::min<std::size_t>(kMaxImagesPerLaunch, count - first);
    for (std::size_t i = 0; i < images_now; ++i) {
      DeviceImage image = describe(spec, images[first + i]);
      const Workspace parts = workspace_of(spec, image);
      image.table_x = device_pointer<std::int32_t>(workspace);
      image.table_y = device_pointer<std::int32_t>(workspace + parts.table_x);
      image.filtered = device_pointer<std::uint8_t>(workspace + parts.table_x + parts.table_y);
      workspace += parts.total();
      args.images[i] = image;
    }
    args.out = device_pointer<void>(out + first * image_bytes);
    launch_chunk(spec, args, static_cast<unsigned>(images_now), stream);
  }
}

}  // namespace visionrt::preprocess
