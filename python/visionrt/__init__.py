"""Reads engine files and runs them: an image goes in, classes, boxes or masks come out.

>>> model = visionrt.load("detector.engine")
>>> result = model("street.jpg", confidence=0.4)
>>> result.xyxy, result.confidence, result.class_id
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visionrt.version import __version__

# Name -> the module that defines it. Importing a package that a script may never use costs every
# script time, so each is imported when it is first asked for.
_PUBLIC = {
    "load": "visionrt.loading",
    "Model": "visionrt.model",
    "Recipe": "visionrt.recipe",
    "PreprocessSpec": "visionrt.spec",
    "Result": "visionrt.results",
    "Classification": "visionrt.results",
    "Detections": "visionrt.results",
    "Segmentation": "visionrt.results",
    "Keypoints": "visionrt.results",
    "Instances": "visionrt.results",
    "RotatedDetections": "visionrt.results",
    "VisionrtError": "visionrt.errors",
}

if TYPE_CHECKING:
    from visionrt.errors import VisionrtError
    from visionrt.loading import load
    from visionrt.model import Model
    from visionrt.recipe import Recipe
    from visionrt.results import (
        Classification,
        Detections,
        Instances,
        Keypoints,
        Result,
        RotatedDetections,
        Segmentation,
    )
    from visionrt.spec import PreprocessSpec

__all__ = [
    "Classification",
    "Detections",
    "Instances",
    "Keypoints",
    "Model",
    "PreprocessSpec",
    "Recipe",
    "Result",
    "RotatedDetections",
    "Segmentation",
    "VisionrtError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'visionrt' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
