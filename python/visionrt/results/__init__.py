"""Result objects, one class per task. Field names follow ``supervision``."""

from visionrt.results.base import ImageRef, Result
from visionrt.results.classification import Classification
from visionrt.results.detections import Detection, Detections
from visionrt.results.instances import Instances
from visionrt.results.keypoints import Keypoints
from visionrt.results.rotated import RotatedDetections
from visionrt.results.segmentation import Segmentation

__all__ = [
    "Classification",
    "Detection",
    "Detections",
    "ImageRef",
    "Instances",
    "Keypoints",
    "Result",
    "RotatedDetections",
    "Segmentation",
]
