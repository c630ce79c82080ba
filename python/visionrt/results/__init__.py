"""Result objects, one class per task. Field names follow ``supervision``."""

from visionrt.results.base import ImageRef, Result
from visionrt.results.classification import Classification
from visionrt.results.detections import Detection, Detections
from visionrt.results.keypoints import Keypoints
from visionrt.results.segmentation import Segmentation

__all__ = [
    "Classification",
    "Detection",
    "Detections",
    "ImageRef",
    "Keypoints",
    "Result",
    "Segmentation",
]
