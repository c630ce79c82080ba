"""Preprocessing written with OpenCV, Pillow, NumPy and exact fractions, as the tests' reference."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionrt.spec import PreprocessSpec

Array = NDArray[Any]


def placement(spec: PreprocessSpec, h: int, w: int) -> tuple[int, int, int, int]:
    """(resized_h, resized_w, offset_y, offset_x), in exact arithmetic."""
    th, tw = spec.size
    if spec.resize == "stretch":
        return th, tw, 0, 0
    if spec.resize == "letterbox":
        ratio = min(Fraction(th, h), Fraction(tw, w))
        rh, rw = (max(1, round(side * ratio)) for side in (h, w))
        if spec.letterbox_align == "top_left":
            return rh, rw, 0, 0
        return rh, rw, (th - rh) // 2, (tw - rw) // 2
    cover_h, cover_w = (round(side / spec.crop_ratio) for side in (th, tw))
    ratio = max(Fraction(cover_h, h), Fraction(cover_w, w))
    rh, rw = int(h * ratio), int(w * ratio)
    return rh, rw, -round(Fraction(rh - th, 2)), -round(Fraction(rw - tw, 2))


def resized_cv2(image: Array, h: int, w: int) -> Array:
    """cv2.resize(INTER_LINEAR) that keeps the channel axis."""
    out = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    return out.reshape(h, w, image.shape[2])


def resized_pil(image: Array, h: int, w: int) -> Array:
    """Pillow's BILINEAR, one axis per call: horizontally, then vertically.

    From version 13 on, Pillow itself goes vertically first when the height shrinks by more than
    twice what the width does, which may round a pixel otherwise; a call that changes one axis has
    no choice.
    """
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    bilinear = Image.Resampling.BILINEAR
    picture = picture.resize((w, picture.height), bilinear).resize((w, h), bilinear)
    return np.asarray(picture).reshape(h, w, image.shape[2])


def pixels(spec: PreprocessSpec, image: Array, color: str) -> Array:
    """The tensor's 8-bit pixels before normalisation, (height, width, channels)."""
    code = f"COLOR_{color.upper()}2{spec.color.upper()}"
    if color != spec.color:
        image = cv2.cvtColor(np.ascontiguousarray(image), getattr(cv2, code))
    image = np.ascontiguousarray(image).reshape(*image.shape[:2], spec.channels)
    rh, rw, oy, ox = placement(spec, *image.shape[:2])
    resized = (resized_cv2 if spec.interpolation == "cv2" else resized_pil)(image, rh, rw)
    th, tw = spec.size
    out = np.full((th, tw, spec.channels), spec.pad_value, np.uint8)
    if spec.resize == "crop":
        return resized[-oy : th - oy, -ox : tw - ox]
    out[oy : oy + rh, ox : ox + rw] = resized
    return out


def tensor(spec: PreprocessSpec, images: list[Array], color: str) -> Array:
    """The whole tensor."""
    batch = np.stack([pixels(spec, image, color) for image in images])
    if spec.dtype != "uint8":
        mean = np.array(spec.mean[: spec.channels]).astype(np.float32)
        inv_std = (1.0 / np.array(spec.std[: spec.channels])).astype(np.float32)
        batch = ((batch.astype(np.float32) - mean) * inv_std).astype(spec.dtype)
    return batch.transpose(0, 3, 1, 2) if spec.layout == "nchw" else batch


def random_image(rng: np.random.Generator, h: int, w: int) -> Array:
    """A noise image whose rows are contiguous, apart, overlapping a wider one, or upside down."""
    form = rng.integers(4)
    if form == 0:
        return rng.integers(0, 256, (h, w, 3), np.uint8)
    if form == 1:
        return rng.integers(0, 256, (h, w + int(rng.integers(1, 9)), 3), np.uint8)[:, :w]
    if form == 2:
        return rng.integers(0, 256, (2 * h, w, 3), np.uint8)[::2]
    return rng.integers(0, 256, (h, w, 3), np.uint8)[::-1]


def random_spec(rng: np.random.Generator, longest: int, **fixed: Any) -> PreprocessSpec:
    """A spec with every field drawn."""

    def pick(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    dtype = pick("float32", "float16", "uint8")
    plain = dtype == "uint8"
    fields = {
        "resize": pick("letterbox", "stretch", "crop"),
        "size": tuple(int(v) for v in rng.integers(1, longest + 1, 2)),
        "crop_ratio": pick(0.5, 0.8, 0.875, 0.95, 1.0),
        "color": pick("rgb", "bgr", "gray"),
        "mean": (0.0, 0.0, 0.0) if plain else pick((0.0,) * 3, (123.675, 116.28, 103.53)),
        "std": (1.0, 1.0, 1.0) if plain else pick((255.0,) * 3, (50.001, 57.12, 50.01)),
        "pad_value": int(rng.integers(256)),
        "letterbox_align": pick("center", "top_left"),
        "layout": pick("nchw", "nhwc"),
        "dtype": dtype,
    }
    return PreprocessSpec(**{**fields, **fixed})


def random_cases(
    seed: int, count: int, longest: int, **fixed: Any
) -> Iterator[tuple[PreprocessSpec, list[Array], str]]:
    """Specs with one to three images each, and the images' channel order."""
    rng = np.random.default_rng(seed)
    while count:
        spec = random_spec(rng, longest, **fixed)
        sizes = rng.integers(1, longest + 1, (int(rng.choice([1, 1, 3])), 2)).tolist()
        if rng.integers(8) == 0:  # the ratios at which a resize may take another path
            factor = int(rng.choice([1, 2, 3, 4]))
            sizes = [[factor * side for side in spec.size]]
        # A crop of a long image resizes it whole in the reference.
        if all(np.prod(placement(spec, h, w)[:2]) < 1 << 22 for h, w in sizes):
            yield spec, [random_image(rng, h, w) for h, w in sizes], str(rng.choice(["bgr", "rgb"]))
            count -= 1
