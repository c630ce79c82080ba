"""Applies what is asked of a graph before all else; see ``edits.py``."""

from __future__ import annotations

import dataclasses

from onnx import ModelProto

from trtconvert.cutting import cut_at
from trtconvert.edits import EditedModel, EditStage, GraphEdits
from trtconvert.graph import image_inputs, shape_of
from trtconvert.nms_in_graph import without_nms
from trtconvert.passes.channels_first import with_channels_first
from trtconvert.passes.free_batch import with_free_batch
from trtconvert.passes.inference import without_training
from trtconvert.passes.input_size import with_input_size


def apply_edits(model: ModelProto, edits: GraphEdits) -> EditedModel:
    """The model as ``edits`` asks: first cut, then turned, sized and freed. What trains goes.

    Raises:
        UsageError: names that are not in the graph.
        ModelError: no NMS that can be cut off, or a graph that does not work at the input size.
    """
    edited = EditedModel(model)
    stages: list[EditStage] = []
    if edits.outputs:
        edited = EditedModel(cut_at(model, edits.outputs))
    elif edits.nms == "outside":
        edited = without_nms(model)
    flag = "--outputs" if edits.outputs else "--nms outside"
    against = "the tensors of the original graph"
    instead = f"Leave {flag} out, or name other tensors with --outputs."
    _note(stages, ("cut", flag), (model, edited.model), against, instead)

    now = edited.model
    left = without_training(now)
    against = "the formula of each node that was changed"
    instead = "Export the model in inference mode (model.eval())."
    _note(stages, ("training", "training mode undone"), (now, left), against, instead)
    now = left
    if edits.channels_first:
        left = with_channels_first(now)
        against = "the outputs of the graph that takes channels last"
        instead = 'Keep the layout, with "layout": "nhwc" in --preprocess.'
        _note(stages, ("channels", "input made channels first"), (now, left), against, instead)
        now = left
    if edits.input_size is not None:
        left = with_input_size(now, edits.input_size)
        _note_size(stages, now, left, edits.input_size)
        now = left
    if edits.free_batch:
        left = with_free_batch(now)
        against, instead = "each image alone", "Leave --batch out, or export it with a batch."
        _note(stages, ("batch", "--batch"), (now, left), against, instead)
        now = left
    return dataclasses.replace(edited, model=now, stages=tuple(stages))


def _note(
    stages: list[EditStage],
    kind_label: tuple[str, str],
    before_after: tuple[ModelProto, ModelProto],
    against: str,
    instead: str,
) -> None:
    """Keep a stage where the edit did something: a pass returns what it leaves alone."""
    if before_after[0] is not before_after[1]:
        stages.append(EditStage(*kind_label, *before_after, against, instead))


def _note_size(
    stages: list[EditStage], before: ModelProto, after: ModelProto, size: tuple[int, int]
) -> None:
    sides = shape_of(image_inputs(before.graph)[0])
    height, width = sides[2:] if sides[1] in (1, 3) else sides[1:3]
    label = f"--input-size {size[0]}x{size[1]}"
    against = "the outputs of the original graph at this size"
    if isinstance(height, int) and isinstance(width, int) and (height, width) != size:
        # No reference has another size than its own.
        after = with_input_size(before, (height, width))
        against = (
            f"nothing to compare with at this size; edited to its own {height}x{width}, the outputs"
            " of the original graph"
        )
    instead = "Leave --input-size out, or export the model at this size."
    _note(stages, ("size", label), (before, after), against, instead)
