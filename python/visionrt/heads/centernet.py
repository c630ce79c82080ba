"""The ``centernet`` head: objects as points of a heat map (Zhou et al. 2019, "Objects as Points").

Outputs: heat map [n, C, h, w] of class scores, size [n, 2, h, w] and offset [n, 2, h, w].
A cell whose score is the largest of its 3×3 neighbours is an object. Its centre is the cell's
column and row plus the offset, its width and height are the size; both times the tensor's pixels
per cell.

Head options:
    heatmap, size, offset: names of the outputs; needed.
    activation: of the heat map: ``none`` (default) or ``sigmoid``.
    order: of the two channels of size and offset: ``xy`` (default) or ``yx``.
    size_form: ``cells`` (default), or ``log`` where the size is the exponential, in cells.
    shift: cells from a cell's corner to where its offset counts from: 0 (default) or 0.5.

NMS follows with the recipe's ``iou``; its peaks already stand apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import as_float32, bad_shape, check_options, choice, output_named
from visionrt.heads.boxes import CandidateHead, Candidates
from visionrt.heads.classifier import sigmoid
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe

OPTIONS = ("heatmap", "size", "offset", "activation", "order", "size_form", "shift")


class CentreMaps:
    """The maps of a model that finds objects by their centres, checked and decoded to boxes."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        names = ("heatmap", "size", "offset")
        self.heatmap, self.size, self.offset = (
            output_named(recipe, outputs, name).name for name in names
        )
        self._tensor_hw = recipe.preprocess.size
        self._activation = choice(recipe, "activation", ("none", "sigmoid"), "none")
        self._is_yx = choice(recipe, "order", ("xy", "yx"), "xy") == "yx"
        self._is_log = choice(recipe, "size_form", ("cells", "log"), "cells") == "log"
        self._shift = np.float32(choice(recipe, "shift", (0, 0.5), 0))

    def arrays(
        self, outputs: Mapping[str, NDArray[Any]], batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Scores [n, C, h, w], sizes and offsets [n, 2, h, w]. Raises ModelError."""
        heat = as_float32(outputs[self.heatmap])
        if heat.ndim != 4 or len(heat) != batch or heat.size == 0:
            raise bad_shape(self.heatmap, f"[{batch}, classes, h, w]", heat.shape)
        maps = []
        for name in (self.size, self.offset):
            array = as_float32(outputs[name])
            if array.shape != (batch, 2, *heat.shape[2:]):
                raise bad_shape(
                    name, f"[{batch}, 2, {heat.shape[2]}, {heat.shape[3]}]", array.shape
                )
            maps.append(array[:, ::-1] if self._is_yx else array)
        return (sigmoid(heat) if self._activation == "sigmoid" else heat), maps[0], maps[1]

    def boxes(
        self,
        found: Sequence[NDArray[Any]],
        heat: NDArray[np.float32],
        sizes: NDArray[np.float32],
        offsets: NDArray[np.float32],
    ) -> Candidates:
        """Candidates at ``found`` (class, row, column) of one image's maps, in tensor pixels."""
        classes, rows, columns = found
        per_cell = np.divide(self._tensor_hw[::-1], heat.shape[:0:-1], dtype=np.float32)
        cells = np.stack([columns, rows], axis=1).astype(np.float32)
        centres = (cells + self._shift + offsets[:, rows, columns].T) * per_cell
        extent = sizes[:, rows, columns].T
        if self._is_log:
            # A broken size overflows; the caller drops what is not finite.
            with np.errstate(over="ignore"):
                extent = np.exp(extent)
        half = extent * per_cell * np.float32(0.5)
        corners = np.concatenate([centres - half, centres + half], axis=1)
        anchors = (rows * heat.shape[2] + columns).astype(np.int32)
        return corners, heat[classes, rows, columns], classes.astype(np.int32), anchors


class CenterNetHead(CandidateHead):
    """See the module."""

    def __init__(self, recipe: Recipe, outputs: Sequence[TensorInfo]) -> None:
        check_options(recipe, OPTIONS)
        self._recipe = recipe
        self._maps = CentreMaps(recipe, outputs)

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]], batch: int, confidence: float
    ) -> Iterator[Candidates]:
        for heat, sizes, offsets in zip(*self._maps.arrays(outputs, batch), strict=True):
            found = np.nonzero((heat > confidence) & is_peak(heat))
            yield self._maps.boxes(found, heat, sizes, offsets)


def is_peak(maps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a value of [C, h, w] is the largest of its 3×3 neighbours; equals are all peaks."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    highest = maps
    for dy in range(3):
        for dx in range(3):
            window = padded[:, dy : dy + maps.shape[1], dx : dx + maps.shape[2]]
            highest = np.maximum(highest, window)
    return np.asarray(maps >= highest)
