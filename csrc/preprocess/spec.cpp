// The spec in words, checked and turned into a Spec.
#include <cmath>
#include <stdexcept>
#include <utility>

#include "preprocess/preprocess.h"

namespace visionrt::preprocess {
namespace {

template <class Choice>
Choice choose(const char* key, const std::string& word,
              std::initializer_list<std::pair<const char*, Choice>> choices) {
  std::string names;
  for (const auto& [name, choice] : choices) {
    if (word == name) return choice;
    names += (names.empty() ? "" : " | ") + std::string(name);
  }
  throw std::invalid_argument("expected " + std::string(key) + " to be " + names + ", got '" +
                              word + "'");
}

void require(bool holds, const std::string& expected, const std::string& got) {
  if (!holds) throw std::invalid_argument("expected " + expected + ", got " + got);
}

}  // namespace

std::size_t Spec::element_bytes() const {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
      return 2;
    case DType::kUint8:
      return 1;
  }
  throw std::logic_error("unknown dtype");
}

std::size_t Spec::image_elements() const {
  return static_cast<std::size_t>(channels()) * static_cast<std::size_t>(fit.height) *
         static_cast<std::size_t>(fit.width);
}

Spec make_spec(const SpecText& text) {
  Spec spec{};
  spec.fit.resize = choose<Resize>(
      "resize", text.resize,
      {{"letterbox", Resize::kLetterbox}, {"stretch", Resize::kStretch}, {"crop", Resize::kCrop}});
  spec.fit.align = choose<Align>("letterbox_align", text.letterbox_align,
                                 {{"center", Align::kCenter}, {"top_left", Align::kTopLeft}});
  spec.interpolation =
      choose<Interpolation>("interpolation", text.interpolation,
                            {{"cv2", Interpolation::kCv2}, {"pil", Interpolation::kPil}});
  spec.color = choose<Color>("color", text.color,
                             {{"rgb", Color::kRgb}, {"bgr", Color::kBgr}, {"gray", Color::kGray}});
  spec.layout =
      choose<Layout>("layout", text.layout, {{"nchw", Layout::kNchw}, {"nhwc", Layout::kNhwc}});
  spec.dtype = choose<DType>(
      "dtype", text.dtype,
      {{"float32", DType::kFloat32}, {"float16", DType::kFloat16}, {"uint8", DType::kUint8}});
  require(text.height >= 1 && text.width >= 1 && text.height <= 16384 && text.width <= 16384,
          "a tensor size of 1 to 16384 pixels a side",
          std::to_string(text.height) + " x " + std::to_string(text.width));
  require(text.crop_ratio > 0 && text.crop_ratio <= 1, "crop_ratio in (0, 1]",
          std::to_string(text.crop_ratio));
  require(text.pad_value >= 0 && text.pad_value <= 255, "pad_value in 0 to 255",
          std::to_string(text.pad_value));
  spec.fit.height = text.height;
  spec.fit.width = text.width;
  spec.fit.crop_ratio = text.crop_ratio;
  spec.pad_value = static_cast<std::uint8_t>(text.pad_value);
  for (int c = 0; c < 3; ++c) {
    require(std::isfinite(text.mean[c]), "a finite mean", std::to_string(text.mean[c]));
    require(std::isfinite(text.std[c]) && text.std[c] > 0, "a finite std above 0",
            std::to_string(text.std[c]));
    require(spec.dtype != DType::kUint8 || (text.mean[c] == 0 && text.std[c] == 1),
            "mean 0 and std 1 with uint8",
            "mean " + std::to_string(text.mean[c]) + ", std " + std::to_string(text.std[c]));
    spec.mean[c] = static_cast<float>(text.mean[c]);
    spec.inv_std[c] = static_cast<float>(1.0 / text.std[c]);
  }
  return spec;
}

}  // namespace visionrt::preprocess
