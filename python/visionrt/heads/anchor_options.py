"""The head option ``anchors`` of the ``ssd`` head: what it may be, and what it stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads import pyramid_anchors, ssd_anchors
from visionrt.heads.base import bad_option
from visionrt.heads.pyramid_anchors import PyramidScheme
from visionrt.heads.ssd_anchors import AnchorGrid
from visionrt.recipe import Recipe

_GRID_KEYS = {"feature_maps", "scales", "ratios", "reduce_lowest"}
_PYRAMID_KEYS = {"levels", "scales", "ratios", "inner", "centre", "strides"}
_CHOICES = {"inner": ("ratios", "scales"), "strides": ("powers", "exact", "whole")}


@dataclass(frozen=True)
class Anchors:
    """Anchors of a head.

    Attributes:
        rows: float32 [A, 4]: cy, cx, h, w in 0…1; none where there are levels.
        levels: float32 [rows, columns, shapes, 4] of each level of a pyramid; or none.
    """

    rows: NDArray[np.float32] | None = None
    levels: tuple[NDArray[np.float32], ...] = ()

    def all(self) -> NDArray[np.float32]:
        """Every anchor, float32 [A, 4], in the order level, row, column, shape."""
        if self.rows is not None:
            return self.rows
        return np.concatenate([level.reshape(-1, 4) for level in self.levels])


def anchors_from(recipe: Recipe) -> Anchors:
    """The anchors that the head options describe.

    Raises:
        UsageError: no anchors, an unknown preset, or ill-formed ones.
    """
    value = recipe.head_options.get("anchors")
    if isinstance(value, str) and value in ssd_anchors.PRESETS:
        return Anchors(ssd_anchors.PRESETS[value]())
    size_hw = recipe.preprocess.size
    if isinstance(value, str) and value in pyramid_anchors.PRESETS:
        scheme = pyramid_anchors.PRESETS[value]
        return Anchors(levels=pyramid_anchors.pyramid_anchors(scheme, size_hw))
    if isinstance(value, Mapping) and "levels" in value and set(value) <= _PYRAMID_KEYS:
        scheme = _scheme(recipe, value)
        return Anchors(levels=pyramid_anchors.pyramid_anchors(scheme, size_hw))
    if isinstance(value, Mapping) and "feature_maps" in value and set(value) <= _GRID_KEYS:
        return Anchors(ssd_anchors.anchors_from_grids(_grids(recipe, value)))
    if isinstance(value, (list, tuple)) and value:
        rows = [numbers_of(recipe, "anchors", row, 4) for row in value]
        return Anchors(np.array(rows, np.float32))
    presets = " | ".join((*ssd_anchors.PRESETS, *pyramid_anchors.PRESETS))
    forms = f"{presets}, rows [cy, cx, h, w], feature_maps and scales, or levels and scales"
    raise bad_option(recipe, "anchors", forms, value)


def numbers_of(recipe: Recipe, key: str, value: Any, count: int) -> list[float]:
    """So many finite numbers of a head option. Raises UsageError where it is something else."""
    try:
        out = [float(v) for v in value]
    except (TypeError, ValueError) as error:
        raise bad_option(recipe, key, f"{count} numbers", value) from error
    if len(out) != count or isinstance(value, str) or not all(map(math.isfinite, out)):
        raise bad_option(recipe, key, f"{count} numbers", value)
    return out


def _above_zero(recipe: Recipe, key: str, value: Any) -> list[float]:
    """A list of numbers above 0 inside the option ``anchors``."""
    wanted = f"{key}, a list of numbers above 0"
    if not isinstance(value, (list, tuple)) or not value:
        raise bad_option(recipe, "anchors", wanted, value)
    numbers = numbers_of(recipe, "anchors", value, len(value))
    if min(numbers) <= 0:
        raise bad_option(recipe, "anchors", wanted, value)
    return numbers


def _grids(recipe: Recipe, value: Mapping[str, Any]) -> list[AnchorGrid]:
    maps = value["feature_maps"]
    if (
        not isinstance(maps, (list, tuple))
        or not maps
        or not all(isinstance(size, (list, tuple)) and len(size) == 2 for size in maps)
        or not all(type(side) is int and side > 0 for size in maps for side in size)
    ):
        wanted = "feature_maps, a list of [height, width] in whole cells"
        raise bad_option(recipe, "anchors", wanted, maps)
    scales = _above_zero(recipe, "scales", value.get("scales"))
    if len(scales) != len(maps) + 1:
        wanted = f"{len(maps) + 1} scales, one more than feature_maps"
        raise bad_option(recipe, "anchors", wanted, scales)
    return ssd_anchors.grids_from_scales(
        [(height, width) for height, width in maps],
        scales,
        _above_zero(recipe, "ratios", value.get("ratios", [1.0, 2.0, 0.5])),
        reduce_lowest=bool(value.get("reduce_lowest", False)),
    )


def _scheme(recipe: Recipe, value: Mapping[str, Any]) -> PyramidScheme:
    levels = value["levels"]
    whole = isinstance(levels, (list, tuple)) and all(type(level) is int for level in levels)
    if not whole or len(levels) != 2 or not 0 <= levels[0] <= levels[1] <= 16:
        raise bad_option(recipe, "anchors", "levels [first, last] of 0 to 16", levels)
    for key, allowed in _CHOICES.items():
        if value.get(key, allowed[0]) not in allowed:
            raise bad_option(recipe, "anchors", f"{key} {' | '.join(allowed)}", value[key])
    scales = _above_zero(recipe, "scales", value.get("scales", [4.0]))
    ratios = value.get("ratios", [1.0])
    if not isinstance(ratios, (list, tuple)) or not ratios:
        raise bad_option(recipe, "anchors", "ratios, a list of numbers or pairs", ratios)
    shapes = []
    for ratio in ratios:
        if isinstance(ratio, (list, tuple)):
            pair = _above_zero(recipe, "ratios", ratio)
            width, height = numbers_of(recipe, "anchors", pair, 2)
        else:
            width, height = pyramid_anchors.shape_of_ratio(*_above_zero(recipe, "ratios", [ratio]))
        shapes.append((width, height))
    return PyramidScheme(
        scales=tuple(scales),
        shapes=tuple(shapes),
        levels=(levels[0], levels[1]),
        inner=value.get("inner", "ratios"),
        centre=numbers_of(recipe, "anchors", [value.get("centre", 0.5)], 1)[0],
        strides=value.get("strides", "powers"),
    )
