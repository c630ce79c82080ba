"""Cleans a graph: the passes that do not change what a model computes, in order."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from trtconvert.batching import takes_batches
from trtconvert.passes.absorb import absorb_scale
from trtconvert.passes.dims import BATCH, infer_shapes, settle_dims
from trtconvert.passes.fold import fold
from trtconvert.passes.prune import prune
from trtconvert.passes.slim import slim
from trtconvert.passes.upgrade import upgrade
from trtconvert.passes.widen import widen
from trtconvert.shapes import image_input_of
from trtconvert.targets.base import ShapeRange
from visionrt.errors import ModelError


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
        keep_batch: whether a symbolic batch stays one even when its range has one size. A graph
            that works for one image only gets a fixed batch all the same.
        warnings: what to tell the user is appended here.

    Raises:
        ModelError: no conversion to the operator set, shapes that do not fit together, or a graph
            that does not take the batches that the range asks for.
    """
    notes = [] if warnings is None else warnings
    clean = _passes(model, ranges, keep_batch, notes)
    _, shape = image_input_of(clean)
    if shape[0] != BATCH or takes_batches(clean):
        return clean
    if any(size.max[0] > 1 for size in ranges.values()):
        raise ModelError(
            "a model that takes batches",
            got="one with a batch of 1 baked into its graph",
            fix="Leave --batch out, or export the model with a dynamic batch in every node.",
        )
    notes.append("the graph works for one image at a time, so its batch was fixed to 1")
    return _passes(model, ranges, False, [])


def _passes(
    model: ModelProto, ranges: Mapping[str, ShapeRange], keep_batch: bool, notes: list[str]
) -> ModelProto:
    clean = ModelProto()
    clean.CopyFrom(model)
    fold(clean)
    clean = upgrade(clean)
    widen(clean)
    prune(clean)
    clean = settle_dims(clean, ranges, keep_batch=keep_batch)
    clean = slim(clean, notes)
    fold(clean)
    absorb_scale(clean)
    prune(clean)
    return infer_shapes(clean)
