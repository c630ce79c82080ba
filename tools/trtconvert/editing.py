"""Applies what is asked of a graph before all else; see ``edits.py``."""

from __future__ import annotations

import dataclasses

from onnx import ModelProto

from trtconvert.cutting import cut_at
from trtconvert.edits import EditedModel, GraphEdits
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
    if edits.outputs:
        edited = EditedModel(cut_at(model, edits.outputs))
    elif edits.nms == "outside":
        edited = without_nms(model)
    edited = dataclasses.replace(edited, model=without_training(edited.model))
    if edits.channels_first:
        edited = dataclasses.replace(edited, model=with_channels_first(edited.model))
    if edits.input_size is not None:
        sized = with_input_size(edited.model, edits.input_size)
        edited = dataclasses.replace(edited, model=sized)
    if edits.free_batch:
        edited = dataclasses.replace(edited, model=with_free_batch(edited.model))
    return edited
