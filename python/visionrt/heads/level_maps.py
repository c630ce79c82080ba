"""Box codes and scores that lie in maps, two for each level of a pyramid.

A map is [n, K·C, h, w], [n, h, w, K·C], or with K and C apart: [n, K, h, w, C], [n, K, C, h, w] or
[n, h, w, K, C]. The anchors that can pass are found where the scores lie, and only their numbers
are gathered: the maps are many times larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import as_float32, bad_option, bad_shape
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe


def by_anchor(
    array: NDArray[Any], grid: tuple[int, int], per_cell: int
) -> NDArray[np.float32] | None:
    """A map as a view [n, K, C, h, w], float32; None where its shape does not fit."""
    shape = array.shape
    if len(shape) not in (4, 5) or shape[0] == 0:
        return None
    if len(shape) == 5 and shape[2:4] == grid and _splits((shape[1], shape[4]), per_cell):
        return as_float32(array).transpose(0, 1, 4, 2, 3)
    if shape[-2:] == grid and _splits(shape[1:-2], per_cell):
        return as_float32(array).reshape(shape[0], per_cell, -1, *grid)
    if shape[1:3] == grid and _splits(shape[3:], per_cell):
        split = as_float32(array).reshape(shape[0], *grid, per_cell, -1)
        return split.transpose(0, 3, 4, 1, 2)
    return None


def _splits(channels: tuple[int, ...], per_cell: int) -> bool:
    """Whether the axes of channels are K·C, or K and C."""
    if len(channels) == 1:
        return channels[0] > 0 and channels[0] % per_cell == 0
    return channels[0] == per_cell and channels[1] > 0


def logit_floor(confidence: float) -> float:
    """A raw score that no sigmoid brings above ``confidence``, with a margin over its rounding.

    The margin of a thousandth is far more than float32 rounds away; -inf for 0, +inf for 1.
    """
    if confidence >= 1:
        return math.inf
    lowered = 0.999 * confidence
    return math.log(lowered / (1 - lowered)) if lowered > 0 else -math.inf


@dataclass(frozen=True)
class LevelMaps:
    """The outputs of a head that has its own maps for each level.

    Attributes:
        boxes, scores: names of the outputs, the finest level first.
        anchors: float32 [h, w, K, 4] of each level.
    """

    boxes: tuple[str, ...]
    scores: tuple[str, ...]
    anchors: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        outputs: Sequence[TensorInfo],
        anchors: tuple[NDArray[np.float32], ...],
    ) -> LevelMaps:
        """The maps that the head options name.

        Raises:
            UsageError: other outputs than the graph's, not one for each level, or no levels.
        """
        if not anchors:
            given = recipe.head_options.get("anchors")
            raise bad_option(recipe, "anchors", "a pyramid, as there are outputs by level", given)
        known = {info.name for info in outputs}
        names = []
        for key in ("boxes", "scores"):
            given = recipe.head_options.get(key)
            if (
                not isinstance(given, (list, tuple))
                or len(given) != len(anchors)
                or not known.issuperset(given)
            ):
                wanted = f"a name of {sorted(known)} for each of {len(anchors)} levels"
                raise bad_option(recipe, key, wanted, given)
            names.append(tuple(given))
        return cls(names[0], names[1], anchors)

    def rows(
        self,
        outputs: Mapping[str, NDArray[Any]],
        batch: int,
        confidence: float,
        activation: str,
    ) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Codes [k, 4], scores [k, C] and anchors [k, 4] of the anchors that can pass, per image.

        In the order level, row, column, shape.

        Raises:
            ModelError: a map of another shape than its level's.
        """
        maps = [
            (
                self._map(outputs, self.boxes[level], level, batch, 4),
                self._map(outputs, self.scores[level], level, batch, None),
            )
            for level in range(len(self.anchors))
        ]
        for image in range(batch):
            parts = [
                _passing(codes[image], scores[image], anchors, confidence, activation)
                for (codes, scores), anchors in zip(maps, self.anchors, strict=True)
            ]
            yield tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _map(
        self,
        outputs: Mapping[str, NDArray[Any]],
        name: str,
        level: int,
        batch: int,
        columns: int | None,
    ) -> NDArray[np.float32]:
        height, width, per_cell, _ = self.anchors[level].shape
        found = by_anchor(outputs[name], (height, width), per_cell)
        if found is None or found.shape[0] != batch or columns not in (None, found.shape[2]):
            wanted = f"[{batch}, {per_cell} × {columns or 'classes'}, {height}, {width}]"
            raise bad_shape(name, f"{wanted}, or with channels last", outputs[name].shape)
        return found


def _passing(
    codes: NDArray[np.float32],
    scores: NDArray[np.float32],
    anchors: NDArray[np.float32],
    confidence: float,
    activation: str,
) -> tuple[NDArray[np.float32], ...]:
    """Of one level: codes and scores [K, C, h, w], anchors [h, w, K, 4]."""
    # Of a softmax, no class alone says how it compares.
    usable: NDArray[np.bool_] = np.ones(scores.shape, bool)
    if activation != "softmax":
        floor = confidence if activation == "none" else logit_floor(confidence)
        np.greater(scores, np.float32(floor), out=usable)
    by_cell = np.moveaxis(np.logical_or.reduce(usable, axis=1), 0, 2)
    rows, columns, shapes = np.nonzero(by_cell)
    at = (shapes, slice(None), rows, columns)
    return (
        np.ascontiguousarray(codes[at]),
        np.ascontiguousarray(scores[at]),
        anchors[rows, columns, shapes],
    )
