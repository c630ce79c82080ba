"""Anchors (default boxes) of SSD models: [n, 4] float32, cy, cx, h, w, normalised to 0…1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AnchorGrid:
    """One feature map: its height and width, and the (scale, width/height ratio) of each anchor."""

    size_hw: tuple[int, int]
    shapes: tuple[tuple[float, float], ...]


def anchors_from_grids(grids: Sequence[AnchorGrid]) -> NDArray[np.float32]:
    """Anchors in the order map, row, column, shape.

    h = scale / sqrt(ratio), w = scale * sqrt(ratio); centres at (i + 0.5) / size.
    Source: Liu et al., SSD: Single Shot MultiBox Detector, section 2.2.
    """
    parts = []
    for grid in grids:
        rows, columns = grid.size_hw
        sizes = [(s / math.sqrt(r), s * math.sqrt(r)) for s, r in grid.shapes]
        out = np.empty((rows, columns, len(sizes), 4))
        out[..., 0] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
        out[..., 1] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
        out[..., 2:] = sizes
        parts.append(out.reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def grids_from_scales(
    sizes_hw: Sequence[tuple[int, int]],
    scales: Sequence[float],
    ratios: Sequence[float],
    *,
    reduce_lowest: bool,
) -> list[AnchorGrid]:
    """The usual grids: on each map its scale with every ratio, and sqrt(scale * next) with ratio 1.

    Args:
        sizes_hw: of the feature maps, the largest first.
        scales: one per map, and one more for the last map's extra anchor.
        ratios: width over height.
        reduce_lowest: whether the first map has only the three shapes (0.1, 1), (scale, 2) and
            (scale, 1/2), as the SSDs of the TensorFlow 1 detection zoo do.
    """
    grids = []
    for i, size_hw in enumerate(sizes_hw):
        scale, following = scales[i], scales[i + 1]
        if i == 0 and reduce_lowest:
            shapes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            shapes = [(scale, ratio) for ratio in ratios]
            shapes.append((math.sqrt(scale * following), 1.0))
        grids.append(AnchorGrid(size_hw, tuple(shapes)))
    return grids


def tf_ssd_300() -> NDArray[np.float32]:
    """The 1,917 anchors of the TensorFlow 1 zoo's 300 x 300 SSDs with a MobileNet or Inception."""
    sides = (19, 10, 5, 3, 2, 1)
    scales = [0.2 + (0.95 - 0.2) * i / (len(sides) - 1) for i in range(len(sides))]
    # The zoo's configuration files give a third as 0.3333.
    ratios = (1.0, 2.0, 0.5, 3.0, 0.3333)
    sizes = [(side, side) for side in sides]
    return anchors_from_grids(grids_from_scales(sizes, [*scales, 1.0], ratios, reduce_lowest=True))


PRESETS = {"tf_ssd_300": tf_ssd_300}
