"""Box codes and scores that lie in maps, two for each level of a pyramid.

A map is [n, K·C, h, w], [n, h, w, K·C], or with K and C apart: [n, K, h, w, C], [n, K, C, h, w] or
[n, h, w, K, C]. The anchors that can pass are found where the scores lie, and only their numbers
are gathered: the maps are many times larger.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.base import as_float32, bad_option, bad_shape
from visionrt.manifest import TensorInfo
from visionrt.recipe import Recipe


def maps_by_anchor(
    outputs: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    cells: Sequence[tuple[int, int, int]],
    batch: int,
    allowed: range,
    columns: str,
) -> list[NDArray[np.float32]]:
    """Maps of one kind as views [n, K, C, h, w], float32.

    One map may fit two orders of its axes, as 36 × 36 cells of 36 numbers do: the order is the
    one that all of them fit.

    Args:
        names: of the outputs, one for each level.
        cells: rows, columns and anchors a cell of each level.
        allowed: what C may be.
        columns: the same in words.

    Raises:
        ModelError: a map of another shape than its level's, or no common order and C.
    """
    fitting = []
    for name, (height, width, per_cell) in zip(names, cells, strict=True):
        shape = outputs[name].shape
        found = {order: _columns(shape, order, (height, width), per_cell) for order in _ORDERS}
        fitting.append({order: c for order, c in found.items() if c in allowed})
        if not fitting[-1] or shape[0] != batch:
            wanted = f"[{batch}, {per_cell} × {columns}, {height}, {width}]"
            raise bad_shape(name, f"{wanted}, or with its axes in another order", shape)
    for order in _ORDERS:
        if len({level.get(order) for level in fitting}) == 1 and order in fitting[0]:
            return [
                _by_anchor(outputs[name], order, per_cell, fitting[0][order])
                for name, (_, _, per_cell) in zip(names, cells, strict=True)
            ]
    shapes = [str(outputs[name].shape) for name in names]
    raise bad_shape(", ".join(names), "in one order, with as many columns each", shapes)


# Of the axes K, C, h and w; the first two may be one.
_ORDERS = ("khwc", "kchw", "hwkc")


def _columns(shape: tuple[int, ...], order: str, grid: tuple[int, int], per_cell: int) -> int:
    """C of a map in an order; 0 where its shape does not fit."""
    channels: tuple[int, ...] = ()
    if order == "khwc" and len(shape) == 5 and shape[2:4] == grid:
        channels = shape[1], shape[4]
    elif order == "kchw" and len(shape) in (4, 5) and shape[-2:] == grid:
        channels = shape[1:-2]
    elif order == "hwkc" and len(shape) in (4, 5) and shape[1:3] == grid:
        channels = shape[3:]
    if len(channels) == 1 and channels[0] % per_cell == 0:
        return channels[0] // per_cell
    return channels[1] if len(channels) == 2 and channels[0] == per_cell else 0


def _by_anchor(array: NDArray[Any], order: str, per_cell: int, columns: int) -> NDArray[np.float32]:
    given = as_float32(array)
    if order == "khwc":
        return given.transpose(0, 1, 4, 2, 3)
    if order == "kchw":
        return given.reshape(len(given), per_cell, columns, *given.shape[-2:])
    split = given.reshape(*given.shape[:3], per_cell, columns)
    return split.transpose(0, 3, 4, 1, 2)


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
                or any(name not in known for name in map(str, given))
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
        background: int,
    ) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Codes [k, 4], scores [k, C] and anchors [k, 4] of the anchors that can pass, per image.

        In the order level, row, column, shape.

        Raises:
            ModelError: maps of other shapes than their levels', or no column for the background.
        """
        cells = [level.shape[:3] for level in self.anchors]
        codes = maps_by_anchor(outputs, self.boxes, cells, batch, range(4, 5), "4")
        # The background is one of the columns.
        allowed = range(max(1, background + 1), sys.maxsize)
        scores = maps_by_anchor(outputs, self.scores, cells, batch, allowed, "classes")
        for image in range(batch):
            parts = [
                _passing(*level, confidence, activation)
                for level in zip(
                    (of_level[image] for of_level in codes),
                    (of_level[image] for of_level in scores),
                    self.anchors,
                    strict=True,
                )
            ]
            yield tuple(np.concatenate(part) for part in zip(*parts, strict=True))


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
