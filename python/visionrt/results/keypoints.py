"""The result of pose estimation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import MissingDependencyError
from visionrt.results.base import Result, category_of


@dataclass(kw_only=True, eq=False, repr=False)
class Keypoints(Result):
    """The keypoints of each object found. ``names`` are those of the keypoints.

    Attributes:
        keypoints: float32 [n, K, 3]: x, y in pixels of the original image, confidence 0…1.
        skeleton: pairs of keypoint indices to join by a line.
        threshold: confidence from which a keypoint counts as seen in pictures and summaries.
        xyxy: float32 [n, 4], the objects' boxes in pixels of the original image, best first; None
            where the model gives none. Then the next two are given as well.
        score: float32 [n], of the objects.
        class_id: int32 [n], of the objects, whose names are ``object_names``.
    """

    keypoints: NDArray[np.float32]
    skeleton: tuple[tuple[int, int], ...] = ()
    threshold: float = 0.25
    xyxy: NDArray[np.float32] | None = None
    score: NDArray[np.float32] | None = None
    class_id: NDArray[np.int32] | None = None
    object_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Of each object, float32 [n]: ``score``, or else the mean of its keypoints."""
        if self.score is not None:
            return self.score
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
        """Adds ``poses``: a list of ``{"confidence", "keypoints": [{"name", "x", "y", …}]}``.

        With ``xyxy`` and ``class_id`` where the model gives them.
        """
        poses: list[dict[str, Any]] = [
            {"confidence": c, "keypoints": []} for c in self.confidence.tolist()
        ]
        if self.xyxy is not None and self.class_id is not None:
            for pose, box, class_id in zip(poses, self.xyxy, self.class_id.tolist(), strict=True):
                pose |= {"xyxy": box.tolist(), "class_id": class_id}
        for row in self.rows():
            poses[row.pop("pose")]["keypoints"].append(row)
        return self._json_head() | {"poses": poses}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry per object; ``keypoints`` is x, y, 1 for each.

        The category is that of the object's class, 0 where there are none. Without
        ``category_ids`` it is the class id + 1: COCO's person is 1.
        """
        ids = [0] * len(self) if self.class_id is None else self.class_id.tolist()
        out = []
        for points, score, class_id in zip(
            self.keypoints, self.confidence.tolist(), ids, strict=True
        ):
            category = class_id + 1 if category_ids is None else category_of(class_id, category_ids)
            # COCO's results files ask for a visibility and say that it is not read.
            flat = np.concatenate((points[:, :2], np.ones((len(points), 1))), axis=1)
            entry = {"image_id": image_id, "category_id": category, "score": score}
            out.append({**entry, "keypoints": flat.ravel().tolist()})
        return out

    def to_supervision(self) -> Any:
        """The same as ``supervision.KeyPoints``.

        Raises:
            MissingDependencyError: ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError(
                "the package supervision", got=str(error), fix="pip install supervision"
            ) from error
        ids = np.zeros(len(self), int) if self.class_id is None else self.class_id.astype(int)
        return supervision.KeyPoints(
            xy=self.keypoints[..., :2],
            class_id=ids,
            confidence=self.keypoints[..., 2],
        )

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Points and the skeleton's lines."""
        from visionrt import plot

        return plot.draw_poses(canvas, self)
