"""Tensor pixels to image pixels in float64, from the definitions of letterbox and stretch."""

from __future__ import annotations

import numpy as np
from head_calls import SIZE, frame_of

from visionrt.heads import Frame
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

ROUNDING = 2.0**-24  # relative error of one float32 operation
LETTERBOX = PreprocessSpec(size=SIZE)
STRETCH = PreprocessSpec(size=SIZE, resize="stretch")
# Wide, tall, of the tensor's own size, and so small that it is enlarged.
IMAGES_HW = ((120, 300), (301, 77), SIZE, (7, 5))


def placement(spec: PreprocessSpec, image_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image pixels per tensor pixel, and the image's corner in the tensor: both x, y."""
    image, tensor = np.array(image_hw[::-1], float), np.array(SIZE[::-1], float)
    if spec.resize == "stretch":
        return image / tensor, np.zeros(2)
    resized = np.maximum(np.round(image * (tensor / image).min()), 1)
    return image / resized, (tensor - resized) // 2


def frames(recipe: Recipe) -> list[tuple[Frame, np.ndarray, np.ndarray]]:
    """Frames of every size, with their :func:`placement`."""
    return [(frame_of(recipe, *size), *placement(recipe.preprocess, size)) for size in IMAGES_HW]


def to_image(points: np.ndarray, frame: Frame, scale: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Points [..., 2] as x, y, held within the image."""
    height, width = frame.image_hw
    return np.clip((points - corner) * scale, 0, [width, height])


def boxes_in(corners: np.ndarray, frame: Frame, scale: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Corners [n, 4] of the tensor as those of the image."""
    return to_image(corners.reshape(-1, 2, 2), frame, scale, at).reshape(-1, 4)


def bound(sizes: np.ndarray, scale: np.ndarray, roundings: int) -> np.ndarray:
    """What so many roundings of numbers up to ``sizes``, plus the tensor's own, come to."""
    return ROUNDING * roundings * (np.abs(sizes) + max(SIZE)) * scale.max()
