"""Anchors of detectors on a feature pyramid: the same shapes at each cell of each level.

A level l has a stride of 2^l pixels and ceil(size / 2^l) cells a side. Its anchors are as large as
the scales times its stride, so that one set of shapes serves all levels.
Sources: Lin et al., Focal Loss for Dense Object Detection, section 4 (levels 3 to 7, three scales
an octave, three ratios); Tan et al., EfficientDet, section 4 (the same of another base). Their
implementations differ in what PRESETS says: order, centre, rounding. Each agrees to 2e-4 pixels
with its library on nine sizes, of 100×203 to 800×1344: torchvision 0.29.1, MMDetection 3.3.0 and
effdet 0.4.1; Detectron2's was read in its source (its commit 09bbf085).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


@dataclass(frozen=True)
class PyramidScheme:
    """What makes the anchors of a pyramid.

    Attributes:
        scales: sides of anchors in strides of their level.
        shapes: width and height of an anchor of scale 1.
        levels: the first and the last one.
        inner: ``ratios`` or ``scales``: which comes faster in the order of a cell's anchors.
        centre: of an anchor, in cells from the upper left of its cell: 0.5 or 0.
        strides: ``powers`` of two; ``exact``, the image's size over the number of cells; or
            ``whole``, that rounded down.
        whole_pixels: whether scales are cut and half sides rounded to whole pixels.
    """

    scales: tuple[float, ...] = tuple(4 * octave for octave in _OCTAVES)
    shapes: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    levels: tuple[int, int] = (3, 7)
    inner: str = "ratios"
    centre: float = 0.5
    strides: str = "powers"
    whole_pixels: bool = False

    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.scales) * len(self.shapes)

    def grids(self, size_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of cells of each level."""
        height, width = size_hw
        first, last = self.levels
        return [(-(-height >> level), -(-width >> level)) for level in range(first, last + 1)]


def shape_of_ratio(ratio: float) -> tuple[float, float]:
    """Width and height, of area 1, with width / height = ``ratio``."""
    return math.sqrt(ratio), 1 / math.sqrt(ratio)


_WIDE_FIRST = tuple(shape_of_ratio(ratio) for ratio in (2.0, 1.0, 0.5))


def _efficientdet(scale: float, last_level: int = 7) -> PyramidScheme:
    """EfficientDet's, with sides of so many strides."""
    return PyramidScheme(
        scales=tuple(scale * octave for octave in _OCTAVES),
        shapes=((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
        levels=(3, last_level),
        strides="exact",
    )


PRESETS = {
    "retinanet": PyramidScheme(shapes=_WIDE_FIRST, centre=0.0),
    "retinanet_mmdet": PyramidScheme(shapes=_WIDE_FIRST, centre=0.0, inner="scales"),
    "retinanet_torchvision": PyramidScheme(
        shapes=_WIDE_FIRST, centre=0.0, inner="scales", strides="whole", whole_pixels=True
    ),
    "efficientdet": _efficientdet(4.0),
    "efficientdet_lite": _efficientdet(3.0),
    "efficientdet_d7": _efficientdet(5.0),
    "efficientdet_d7x": _efficientdet(4.0, last_level=8),
}
# Whose they are, for a user who must choose.
OWNERS: Mapping[str, str] = {
    "retinanet": "Detectron2",
    "retinanet_mmdet": "MMDetection",
    "retinanet_torchvision": "torchvision",
    "efficientdet": "EfficientDet-D0 to D6, Lite3 and Lite4",
    "efficientdet_lite": "EfficientDet-Lite0 to Lite2 and Lite3x",
    "efficientdet_d7": "EfficientDet-D7",
    "efficientdet_d7x": "EfficientDet-D7x",
}


def pyramid_anchors(
    scheme: PyramidScheme, size_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], ...]:
    """Anchors of each level, float32 [rows, columns, shapes, 4]: cy, cx, h, w in 0…1."""
    out = []
    first, _ = scheme.levels
    for index, grid in enumerate(scheme.grids(size_hw)):
        power = 2 ** (first + index)
        stride_hw = _strides(scheme, size_hw, grid, power)
        # Only strides that follow the image's size take the anchors with them.
        unit_hw = stride_hw if scheme.strides == "exact" else (power, power)
        sides = np.array(_sides(scheme, unit_hw))
        level = np.empty((*grid, len(sides), 4))
        for axis in (0, 1):
            centres = (np.arange(grid[axis]) + scheme.centre) * stride_hw[axis]
            level[..., axis] = centres[:, None, None] if axis == 0 else centres[None, :, None]
        level[..., 2:] = sides[:, ::-1]
        out.append((level / np.array([*size_hw, *size_hw])).astype(np.float32))
    return tuple(out)


def _strides(
    scheme: PyramidScheme, size_hw: Sequence[int], grid: Sequence[int], power: int
) -> tuple[float, float]:
    if scheme.strides == "powers":
        return power, power
    if scheme.strides == "whole":
        return size_hw[0] // grid[0], size_hw[1] // grid[1]
    return size_hw[0] / grid[0], size_hw[1] / grid[1]


def _sides(scheme: PyramidScheme, unit_hw: tuple[float, float]) -> list[tuple[float, float]]:
    """Width and height in pixels of each anchor of a cell, in order."""
    if scheme.inner == "ratios":
        pairs = [(scale, shape) for scale in scheme.scales for shape in scheme.shapes]
    else:
        pairs = [(scale, shape) for shape in scheme.shapes for scale in scheme.scales]
    height, width = unit_hw
    if not scheme.whole_pixels:
        return [(w * scale * width, h * scale * height) for scale, (w, h) in pairs]
    sides = [(w * int(scale * width), h * int(scale * height)) for scale, (w, h) in pairs]
    return [(2.0 * round(w / 2), 2.0 * round(h / 2)) for w, h in sides]
