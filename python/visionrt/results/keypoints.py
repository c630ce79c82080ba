"""The result of pose estimation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.results.base import Result, category_of


@dataclass(kw_only=True, eq=False, repr=False)
class Keypoints(Result):
    """The keypoints of each object found. ``names`` are those of the keypoints.

    Attributes:
        keypoints: float32 [n, K, 3]: x, y in pixels of the original image, confidence 0…1.
        skeleton: pairs of keypoint indices to join by a line.
        threshold: confidence from which a keypoint counts as seen in pictures and summaries.
    """

    keypoints: NDArray[np.float32]
    skeleton: tuple[tuple[int, int], ...] = ()
    threshold: float = 0.25

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Mean confidence of each object's keypoints, float32 [n]."""
        return np.asarray(self.keypoints[..., 2].mean(axis=1), dtype=np.float32)

    def summary(self) -> str:
        """How many objects, and how many of their keypoints are seen."""
        seen = (self.keypoints[..., 2] >= self.threshold).sum(axis=1).tolist()
        count = self.keypoints.shape[1]
        poses = ", ".join(f"{s} of {count} keypoints" for s in seen)
        return f"{len(self)} pose{'s' * (len(self) != 1)}" + (f" ({poses})" if seen else "")

    def rows(self) -> list[dict[str, Any]]:
        """One row per keypoint: ``pose, keypoint, name, x, y, confidence``."""
        return [
            {"pose": i, "keypoint": k, "name": self.label(k), "x": x, "y": y, "confidence": c}
            for i, points in enumerate(self.keypoints.tolist())
            for k, (x, y, c) in enumerate(points)
        ]

    def to_json(self) -> dict[str, Any]:
        """Adds ``poses``: a list of ``{"confidence", "keypoints": [{"name", "x", "y", …}]}``."""
        poses: list[dict[str, Any]] = [
            {"confidence": c, "keypoints": []} for c in self.confidence.tolist()
        ]
        for row in self.rows():
            poses[row.pop("pose")]["keypoints"].append(row)
        return self._json_head() | {"poses": poses}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry per object; ``keypoints`` is x, y, 1 for each. The category is class 0's.

        Without ``category_ids`` the category is 1, COCO's person.
        """
        category = category_of(0, category_ids) if category_ids is not None else 1
        out = []
        for points, score in zip(self.keypoints, self.confidence.tolist(), strict=True):
            # COCO's results files ask for a visibility and say that it is not read.
            flat = np.concatenate((points[:, :2], np.ones((len(points), 1))), axis=1)
            entry = {"image_id": image_id, "category_id": category, "score": score}
            out.append({**entry, "keypoints": flat.ravel().tolist()})
        return out

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Points and the skeleton's lines."""
        from visionrt import plot

        return plot.draw_poses(canvas, self)
