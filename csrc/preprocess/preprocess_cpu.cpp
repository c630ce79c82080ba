// The CPU back end: every thread takes a band of the batch's output rows.
#include <algorithm>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "preprocess/preprocess.h"
#include "preprocess/resize.h"
#include "preprocess/store.h"

namespace visionrt::preprocess {

Columns visible_columns(const Spec& spec, const Geometry& geometry) {
  return {std::max(0, -geometry.offset_x),
          std::min(geometry.resized_w, spec.fit.width - geometry.offset_x)};
}

namespace {

// Rows [begin, end) of one image's part of the tensor.
void fill_rows(const Spec& spec, const RowStore& store, const ImageView& image,
               const Geometry& geometry, std::size_t index, int begin, int end, void* out) {
  const Columns columns = visible_columns(spec, geometry);
  const auto resizer = spec.interpolation == Interpolation::kCv2
                           ? make_cv2_resizer(spec, image, geometry, columns)
                           : make_pil_resizer(spec, image, geometry, columns);
  const int width = spec.fit.width, left = std::max(0, geometry.offset_x);
  const int right = left + columns.count();
  std::vector<std::uint32_t> pixels(padded_pixels(columns.count()));
  const bool has_border = columns.count() < width || geometry.resized_h < spec.fit.height;
  const std::vector<std::uint32_t> border(has_border ? static_cast<std::size_t>(width) : 0,
                                          spec.pad_value * 0x010101u);
  int border_row = -1;  // the first row of border; the others are copies
  for (int y = begin; y < end; ++y) {
    const int resized_y = y - geometry.offset_y;
    if (resized_y < 0 || resized_y >= geometry.resized_h) {
      if (border_row < 0) {
        border_row = y;
        store.write(border.data(), width, image.color, {index, y, 0}, out);
      } else {
        store.copy_row(index, border_row, y, out);
      }
      continue;
    }
    resizer->row(resized_y, pixels.data());
    if (left > 0) store.write(border.data(), left, image.color, {index, y, 0}, out);
    store.write(pixels.data(), columns.count(), image.color, {index, y, left}, out);
    if (right < width) {
      store.write(border.data(), width - right, image.color, {index, y, right}, out);
    }
  }
}

}  // namespace

void run_cpu(const Spec& spec, const ImageView* images, std::size_t count, void* out, int threads) {
  if (threads < 1) {
    throw std::invalid_argument("expected at least 1 thread, got " + std::to_string(threads));
  }
  std::vector<Geometry> geometries;
  for (std::size_t i = 0; i < count; ++i) {
    geometries.push_back(geometry_for(spec.fit, images[i].height, images[i].width));
  }
  const RowStore store(spec);
  const auto rows_per_image = static_cast<std::size_t>(spec.fit.height);
  const std::size_t rows = count * rows_per_image;
  const std::size_t bands = std::min(static_cast<std::size_t>(threads), rows);
  std::vector<std::exception_ptr> failures(bands);

  const auto run_band = [&](std::size_t band) {
    try {
      const std::size_t band_end = rows * (band + 1) / bands;
      for (std::size_t row = rows * band / bands; row < band_end;) {
        const std::size_t i = row / rows_per_image;
        const std::size_t end = std::min(band_end, (i + 1) * rows_per_image);
        fill_rows(spec, store, images[i], geometries[i], i,
                  static_cast<int>(row - i * rows_per_image),
                  static_cast<int>(end - i * rows_per_image), out);
        row = end;
      }
    } catch (...) {  // out of memory: carried to the caller's thread
      failures[band] = std::current_exception();
    }
  };

  std::vector<std::thread> workers;
  workers.reserve(bands);
  std::size_t started = 1;
  try {
    for (; started < bands; ++started) workers.emplace_back(run_band, started);
  } catch (const std::system_error&) {
    // The system gives no more threads: the caller's does what is left.
  }
  if (bands > 0) run_band(0);
  for (std::size_t band = started; band < bands; ++band) run_band(band);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace visionrt::preprocess
