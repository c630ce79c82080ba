"""Heads: one file per layout of raw outputs; each documents its head options."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from visionrt.heads.base import Frame, Head
from visionrt.manifest import TensorInfo
from visionrt.recipe import HEADS, Recipe

__all__ = ["Frame", "Head", "head_for"]

# Head -> module and class, so that a model loads the code of its own head only.
_CLASSES = {
    "classifier": ("classifier", "ClassifierHead"),
    "ssd": ("ssd", "SsdHead"),
    "yolo": ("yolo", "YoloHead"),
    "yolox": ("yolox", "YoloxHead"),
    "yolo_maps": ("yolo_maps", "YoloMapsHead"),
    "end2end": ("end2end", "End2EndHead"),
    "detr": ("detr", "DetrHead"),
    "boxes_scores": ("boxes_scores", "BoxesScoresHead"),
    "nms_inside": ("nms_inside", "NmsInsideHead"),
    "centernet": ("centernet", "CenterNetHead"),
    "centerface": ("centerface", "CenterFaceHead"),
    "logits": ("logits", "LogitsHead"),
    "keypoints": ("keypoints", "KeypointsHead"),
    "yolo_pose": ("yolo_pose", "YoloPoseHead"),
    "simcc": ("simcc", "SimccHead"),
    "heatmaps": ("heatmaps", "HeatmapsHead"),
    "proto_mask": ("proto_mask", "ProtoMaskHead"),
    "mask_rcnn": ("mask_rcnn", "MaskRcnnHead"),
    "obb": ("obb", "ObbHead"),
}
assert set(_CLASSES) == set(HEADS)


def head_for(recipe: Recipe, outputs: Sequence[TensorInfo]) -> Head:
    """The head that the recipe names, for a graph with these outputs.

    Raises:
        UsageError: head options that are unknown, ill-typed, or name no output.
    """
    module, name = _CLASSES[recipe.head]
    cls = getattr(importlib.import_module(f"visionrt.heads.{module}"), name)
    head: Head = cls(recipe, outputs)
    return head
