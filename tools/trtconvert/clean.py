"""Cleans a graph: the passes that do not change what a model computes, in order."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from trtconvert.passes.dims import infer_shapes, settle_dims
from trtconvert.passes.fold import fold
from trtconvert.passes.prune import prune
from trtconvert.passes.slim import slim
from trtconvert.passes.upgrade import upgrade
from trtconvert.passes.widen import widen
from trtconvert.targets.base import ShapeRange


def clean_model(
    model: ModelProto,
    ranges: Mapping[str, ShapeRange],
    *,
    keep_batch: bool = True,
    warnings: list[str] | None = None,
) -> ModelProto:
    """A float32 graph in operator set 17 or newer, with known sizes and named nodes.

    Args:
        model: a checked model; not changed.
        ranges: sizes of every input, by name; see :mod:`trtconvert.shapes`.
        keep_batch: whether a symbolic batch stays one even when its range has one size.
        warnings: what to tell the user is appended here.

    Raises:
        ModelError: no conversion to the operator set, or shapes that do not fit together.
    """
    notes = [] if warnings is None else warnings
    clean = ModelProto.FromString(model.SerializeToString())
    fold(clean)
    clean = upgrade(clean)
    widen(clean)
    prune(clean)
    clean = settle_dims(clean, ranges, keep_batch=keep_batch)
    clean = slim(clean, notes)
    fold(clean)
    prune(clean)
    return infer_shapes(clean)
