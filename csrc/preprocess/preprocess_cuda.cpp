// The CUDA back end's host side: geometry, sizes and tables are settled here; kernels only index.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "preprocess/kernel_args.h"
#include "preprocess/preprocess.h"
#include "preprocess/sampling.h"

namespace visionrt::preprocess {
namespace {

unsigned blocks_for(int count, int per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
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
  return out;
}

// One axis of a table: `first` and `count` of n positions, then rows of n weights. Positions that
// show no image have none.
struct Axis {
  int n, image_side, resized_side, offset;

  double scale() const { return pil_scale(image_side, resized_side); }
  std::size_t values() const {
    const int taps = std::min(pil_max_taps(scale()), image_side);
    return static_cast<std::size_t>(n) * (2 + static_cast<std::size_t>(taps));
  }
  void fill(std::int32_t* table) const {
    for (int i = 0; i < n; ++i) {
      const int position = i - offset;
      if (position < 0 || position >= resized_side) continue;
      const PilTaps taps = pil_taps(position, scale(), image_side);
      table[i] = taps.first;
      table[n + i] = taps.count;
      pil_weights(taps, scale(), table + 2 * static_cast<std::ptrdiff_t>(n) + i, n);
    }
  }
};

Axis axis_x(const Spec& spec, const Geometry& g) {
  return {spec.fit.width, static_cast<int>(g.image_w), g.resized_w, g.offset_x};
}

Axis axis_y(const Spec& spec, const Geometry& g) {
  return {spec.fit.height, static_cast<int>(g.image_h), g.resized_h, g.offset_y};
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
  cuda::launch("preprocess_pil", {{blocks_for(w, 32), blocks_for(h, 16), images}, {32, 8, 1}},
               stream, args);
}

}  // namespace

std::vector<std::int32_t> cuda_table(const Spec& spec, int height, int width) {
  const Geometry geometry = geometry_for(spec.fit, height, width);
  if (spec.interpolation == Interpolation::kCv2) return {};
  const Axis x = axis_x(spec, geometry), y = axis_y(spec, geometry);
  std::vector<std::int32_t> table(x.values() + y.values());
  x.fill(table.data());
  y.fill(table.data() + x.values());
  return table;
}

void run_cuda(const Spec& spec, const ImageView* images, const cuda::DevicePtr* tables,
              std::size_t count, cuda::DevicePtr out, cuda::StreamHandle stream) {
  const bool needs_tables = spec.interpolation == Interpolation::kPil;
  for (std::size_t i = 0; needs_tables && i < count; ++i) {
    if (tables != nullptr && tables[i] != 0 && tables[i] % sizeof(std::int32_t) == 0) continue;
    throw std::invalid_argument("expected a table of weights for image " + std::to_string(i) +
                                ", aligned to 4 bytes, got address " +
                                std::to_string(tables == nullptr ? 0 : tables[i]));
  }
  KernelArgs args{};
  args.height = spec.fit.height;
  args.width = spec.fit.width;
  args.channels = spec.channels();
  args.blue_first = spec.color == Color::kBgr;
  args.nhwc = spec.layout == Layout::kNhwc;
  const std::size_t row_elements =
      static_cast<std::size_t>(args.width) *
      static_cast<std::size_t>(spec.layout == Layout::kNhwc ? args.channels : 1);
  args.wide = row_elements * spec.element_bytes() % 16 == 0 && out % 16 == 0;
  args.dtype = spec.dtype;
  args.pad_value = spec.pad_value;
  std::copy(std::begin(spec.mean), std::end(spec.mean), args.mean);
  std::copy(std::begin(spec.inv_std), std::end(spec.inv_std), args.inv_std);

  const std::size_t image_bytes = spec.image_elements() * spec.element_bytes();
  for (std::size_t first = 0; first < count; first += kMaxImagesPerLaunch) {
    const std::size_t images_now = std::min<std::size_t>(kMaxImagesPerLaunch, count - first);
    for (std::size_t i = 0; i < images_now; ++i) {
      DeviceImage image = describe(spec, images[first + i]);
      if (needs_tables) {
        const Geometry geometry = geometry_for(spec.fit, image.height, image.width);
        image.table = device_pointer<const std::int32_t>(tables[first + i]);
        image.table_y = image.table + axis_x(spec, geometry).values();
      }
      args.images[i] = image;
    }
    args.out = device_pointer<void>(out + first * image_bytes);
    launch_chunk(spec, args, static_cast<unsigned>(images_now), stream);
  }
}

}  // namespace visionrt::preprocess
