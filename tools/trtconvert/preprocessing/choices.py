"""What a preprocess spec may be: the usual values of each field, and what a task is usually fed.

A *known* spec goes with a head that only one published family of models has. A *convention* is what
most models of a task are fed; it is where a search begins, and what stands where nothing tells
better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionrt.heads.pyramid_anchors import PRESETS as PYRAMIDS
from visionrt.spec import PreprocessSpec, Triple

# In the order R, G, B; pixel units. One stands for its near equals: (x - 127) / 128 differs from
# x / 127.5 - 1 by less than a hundredth, which no images tell apart.
SCALES: dict[str, tuple[Triple, Triple]] = {
    "0…255": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "x / 255": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "x / 127.5 - 1": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "ImageNet's mean and std": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "minus ImageNet's mean": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
COLORS = ("rgb", "bgr")
RESIZES: dict[str, dict[str, Any]] = {
    "crop": {"resize": "crop", "crop_ratio": 0.875, "interpolation": "pil"},
    "crop, all of the shorter side": {"resize": "crop", "crop_ratio": 1.0, "interpolation": "pil"},
    "stretch": {"resize": "stretch", "interpolation": "cv2"},
    "letterbox": {"resize": "letterbox", "interpolation": "cv2", "pad_value": 114},
    "letterbox, black": {"resize": "letterbox", "interpolation": "cv2", "pad_value": 0},
}
# One of each kind: what other fields are judged over.
MAIN_RESIZES = ("crop", "stretch", "letterbox")

_TENSORFLOW = {"resize": "stretch", "color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}
_KNOWN: dict[tuple[str, str | None], tuple[dict[str, Any], str]] = {
    ("ssd", "tf_ssd_300"): (_TENSORFLOW, "TensorFlow's SSDs are fed so"),
    ("keypoints", "movenet"): (
        {"resize": "letterbox", "pad_value": 0, "color": "rgb", "mean": [0] * 3, "std": [1] * 3},
        "MoveNet is fed so",
    ),
    ("centerface", None): (
        {"resize": "stretch", "color": "rgb", "mean": [0] * 3, "std": [1] * 3},
        "CenterFace is fed so",
    ),
}
_CONVENTIONS = {
    "classify": "crop",
    "segment": "stretch",
    "detect": "letterbox",
    "keypoints": "letterbox",
    "instances": "letterbox",
    "obb": "letterbox",
}
_CONVENTIONS_OF_HEADS = {"ssd": "stretch", "detr": "stretch", "centernet": "stretch"}


def known_spec(head: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Fields of the spec that a published family is fed with, and why; None for other heads."""
    kind = options.get("form", options.get("anchors"))
    return _KNOWN.get((head, kind if isinstance(kind, str) else None))


def usual_resize(task: str, head: str, options: Mapping[str, Any]) -> str:
    """The key in ``RESIZES`` that most models of a task are fed with."""
    anchors = options.get("anchors")
    if head == "ssd" and (
        "levels" in anchors if isinstance(anchors, Mapping) else anchors in PYRAMIDS
    ):
        return _CONVENTIONS["detect"]  # RetinaNet and EfficientDet, unlike SSDs
    return _CONVENTIONS_OF_HEADS.get(head, _CONVENTIONS[task])


def with_choice(base: PreprocessSpec, scale: str, color: str, resize: str) -> PreprocessSpec:
    """``base`` with the chosen values; its size, layout and type stay. Grey stays grey."""
    mean, std = SCALES[scale]
    step = -1 if color == "bgr" else 1
    if base.channels == 1:
        color = base.color
        mean, std = (mean[1],) * 3, (std[1],) * 3
    return base.replace(color=color, mean=mean[::step], std=std[::step], **RESIZES[resize])
