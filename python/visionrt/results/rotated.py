"""The result of a detector of rotated boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.results.detections import Detections


@dataclass(kw_only=True, eq=False, repr=False)
class RotatedDetections(Detections):
    """Rotated boxes, best first; ``xyxy`` are the upright boxes around them, within the image.

    Attributes:
        xywhr: float32 [n, 5]: centre, sides and angle in radians, pixels of the original image. The
            first side is the longer one and runs along (cos r, sin r), y downwards; r is in 0…pi.
    """

    xywhr: NDArray[np.float32]

    @property
    def xyxyxyxy(self) -> NDArray[np.float32]:
        """Corners float32 [n, 4, 2], one after another around the box; may lie off the image."""
        return corners_of(self.xywhr)

    def __getitem__(self, index: Any) -> RotatedDetections:
        """Some of the rows."""
        some = super().__getitem__(index)
        rows: Any = slice(index, index + 1 or None) if isinstance(index, int) else index
        return RotatedDetections(
            image_hw=some.image_hw,
            names=some.names,
            speed=some.speed,
            source=some.source,
            xyxy=some.xyxy,
            confidence=some.confidence,
            class_id=some.class_id,
            data=some.data,
            xywhr=self.xywhr[rows],
        )

    def to_json(self) -> dict[str, Any]:
        """As :meth:`Detections.to_json`, and ``xywhr`` and ``xyxyxyxy`` of each."""
        out = super().to_json()
        pairs = zip(self.xywhr.tolist(), self.xyxyxyxy.tolist(), strict=True)
        for entry, (box, corners) in zip(out["detections"], pairs, strict=True):
            entry |= {"xywhr": box, "xyxyxyxy": corners}
        return out

    def rows(self) -> list[dict[str, Any]]:
        """One row per box: ``class_id, name, confidence, cx, cy, width, height, angle``."""
        keys = ("cx", "cy", "width", "height", "angle")
        return [
            {
                "class_id": row.class_id,
                "name": row.name,
                "confidence": row.confidence,
                **dict(zip(keys, box, strict=True)),
            }
            for row, box in zip(self, self.xywhr.tolist(), strict=True)
        ]

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry per box; ``bbox`` is the upright box, ``segmentation`` the four corners."""
        out = super().to_coco(image_id, category_ids)
        for entry, corners in zip(out, self.xyxyxyxy, strict=True):
            entry["segmentation"] = [corners.ravel().tolist()]
        return out

    def to_supervision(self) -> Any:
        """As :meth:`Detections.to_supervision`; the corners are ``data["xyxyxyxy"]``.

        That is where ``supervision`` looks for them to draw and compare rotated boxes.
        """
        out = super().to_supervision()
        out.data["xyxyxyxy"] = self.xyxyxyxy
        return out

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Outlines with name and confidence."""
        from visionrt import plot

        return plot.draw_rotated(canvas, self)


def corners_of(xywhr: NDArray[np.floating]) -> NDArray[np.float32]:
    """Corners float32 [n, 4, 2] of boxes [n, 5]: centre ± the two half sides, in turn."""
    boxes = xywhr.astype(np.float64)
    angle = boxes[:, 4]
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * boxes[:, 2:3] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * boxes[:, 3:4] / 2
    turns = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    points = [boxes[:, :2] + a * along + b * across for a, b in turns]
    return np.stack(points, axis=1).astype(np.float32)
