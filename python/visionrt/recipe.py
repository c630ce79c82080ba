"""The recipe: all that is known of a model besides its graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visionrt.errors import UsageError
from visionrt.spec import PreprocessSpec

# Which heads can serve which task. A head is the layout of the raw outputs.
HEADS_BY_TASK: dict[str, tuple[str, ...]] = {
    "classify": ("classifier",),
    "detect": (
        *("ssd", "yolo", "yolox", "yolo_maps", "end2end", "detr", "boxes_scores", "nms_inside"),
        "centernet",
    ),
    "segment": ("logits",),
    "keypoints": ("keypoints", "yolo_pose", "simcc", "heatmaps", "centerface"),
    "instances": ("proto_mask", "mask_rcnn"),
    "obb": ("obb",),
}
TASKS = tuple(HEADS_BY_TASK)
HEADS = tuple(head for heads in HEADS_BY_TASK.values() for head in heads)


@dataclass(frozen=True)
class Recipe:
    """Task, head, labels, preprocess spec and thresholds of a model.

    Attributes:
        task: ``classify``, ``detect``, ``segment``, ``keypoints``, ``instances`` or ``obb``.
        head: layout of the raw outputs; see ``visionrt.heads``.
        preprocess: how an image becomes the input tensor.
        labels: class names by class id; may be empty.
        confidence: default score threshold, 0…1.
        iou: NMS threshold, 0…1; a box goes when its IoU with a kept one is above it.
        max_det: most detections per image.
        class_agnostic: whether boxes of different classes suppress each other.
        head_options: what the head needs beside the tensors (anchors, activation, names of the
            outputs); the keys are documented by each head. JSON types only.
    """

    task: str
    head: str
    preprocess: PreprocessSpec
    labels: tuple[str, ...] = ()
    confidence: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    class_agnostic: bool = False
    head_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in HEADS_BY_TASK:
            raise _bad("task", " | ".join(TASKS), self.task)
        if self.head not in HEADS_BY_TASK[self.task]:
            raise _bad(f"head of task {self.task}", " | ".join(HEADS_BY_TASK[self.task]), self.head)
        for key in ("confidence", "iou"):
            value: object = getattr(self, key)
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise _bad(key, "a number in 0…1", value)
        max_det: object = self.max_det
        if not (isinstance(max_det, int) and max_det >= 1):
            raise _bad("max_det", "an integer above 0", max_det)
        labels: tuple[object, ...] = self.labels
        if not all(isinstance(label, str) for label in labels):
            raise _bad("labels", "a list of strings", labels)
        object.__setattr__(self, "labels", tuple(self.labels))

    def label(self, class_id: int) -> str:
        """Name of a class, or its number where no name is known."""
        if 0 <= class_id < len(self.labels):
            return self.labels[class_id]
        return str(class_id)

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types, in a fixed order."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["preprocess"] = self.preprocess.to_json()
        out["labels"] = list(self.labels)
        out["head_options"] = dict(self.head_options)
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Build from a mapping.

        Raises:
            UsageError: unknown or missing key, wrong type or value out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(value) - known)
        missing = sorted({"task", "head", "preprocess"} - set(value))
        if unknown or missing:
            raise _bad("keys", ", ".join(sorted(known)), f"unknown {unknown}, missing {missing}")
        fields = dict(value)
        fields["preprocess"] = PreprocessSpec.from_json(fields["preprocess"])
        fields["labels"] = tuple(fields.get("labels", ()))
        return cls(**fields)


def _bad(key: str, expected: str, got: object) -> UsageError:
    return UsageError(f"recipe {key}: {expected}", got=str(got), fix="Correct the recipe.")
