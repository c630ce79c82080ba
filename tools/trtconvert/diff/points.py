"""Keypoints: which are no longer seen, which are new, and how far the others moved.

Poses are paired, and keypoints seen, as :class:`visionrt.metrics.KeypointAgreement` does it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from trtconvert.diff.change import Change, Row, mean, p95, some
from visionrt.errors import UsageError
from visionrt.metrics import KEYPOINT_RADIUS, pair_poses
from visionrt.results import Keypoints


@dataclass
class _Counts:
    name: str = ""
    reference: int = 0
    candidate: int = 0
    lost: int = 0
    new: int = 0
    moved: int = 0
    shifts: list[float] = field(default_factory=list)
    score_shifts: list[float] = field(default_factory=list)


class KeypointDiff:
    """See :class:`trtconvert.diff.change.ResultDiff`; a row per keypoint of the skeleton.

    ``shift`` is how far a keypoint that both see went, as a share of the image's longer side;
    ``moved`` counts those beyond 5 %. ``lost`` and ``new`` are seen by one side only.
    """

    def __init__(self) -> None:
        self._by_point: defaultdict[int, _Counts] = defaultdict(_Counts)

    def update(self, reference: Keypoints, candidate: Keypoints) -> Change:
        """Take the two results of one image."""
        a, b = reference.keypoints, candidate.keypoints
        if a.shape[1] != b.shape[1]:
            raise UsageError(
                "two models of the same keypoints",
                got=f"{a.shape[1]} and {b.shape[1]}",
                fix="Compare models of one skeleton.",
            )
        seen_a, seen_b = a[..., 2] >= reference.threshold, b[..., 2] >= candidate.threshold
        # What is left in these was seen by one side only.
        lost, new = seen_a.copy(), seen_b.copy()
        answers, largest, moved = 0, 0.0, ""
        for i, j, shifts in pair_poses(reference, candidate):
            both = seen_a[i] & seen_b[j]
            lost[i] &= ~both
            new[j] &= ~both
            for k in np.flatnonzero(both).tolist():
                counts, shift = self._of(reference, k), float(shifts[k])
                counts.shifts.append(shift)
                counts.score_shifts.append(float(b[j, k, 2]) - float(a[i, k, 2]))
                counts.moved += shift > KEYPOINT_RADIUS
                answers += shift > KEYPOINT_RADIUS
                if shift > largest:
                    largest, moved = shift, f"{counts.name} moved {shift:.1%} of the side"
        gone, come = (np.nonzero(left)[1].tolist() for left in (lost, new))
        self._count(reference, seen_a, seen_b, gone, come)
        parts = [moved] if moved else []
        parts += [f"{len(gone)} lost ({some(self._names(gone))})"] if gone else []
        parts += [f"{len(come)} new ({some(self._names(come))})"] if come else []
        reason = "; ".join(parts) or "no difference"
        return Change(answers + len(gone) + len(come), largest, reason)

    def classes(self) -> list[Row]:
        """See the protocol."""
        return [
            {
                "keypoint": k,
                "name": c.name,
                "reference": c.reference,
                "candidate": c.candidate,
                "lost": c.lost,
                "new": c.new,
                "moved": c.moved,
                "shift": mean(c.shifts),
                "shift_p95": p95(c.shifts),
                "score_shift": mean(c.score_shifts),
                "score_shift_p95": p95(c.score_shifts),
            }
            for k, c in sorted(self._by_point.items())
        ]

    def flips(self) -> list[Row]:
        """None: a keypoint has no class."""
        return []

    def _count(
        self,
        result: Keypoints,
        seen_a: np.ndarray,
        seen_b: np.ndarray,
        gone: list[int],
        come: list[int],
    ) -> None:
        for k in range(result.keypoints.shape[1]):
            counts = self._of(result, k)
            counts.reference += int(seen_a[:, k].sum())
            counts.candidate += int(seen_b[:, k].sum())
            counts.lost += gone.count(k)
            counts.new += come.count(k)

    def _names(self, points: list[int]) -> list[str]:
        return [self._by_point[k].name for k in points]

    def _of(self, result: Keypoints, k: int) -> _Counts:
        counts = self._by_point[k]
        counts.name = counts.name or result.label(k)
        return counts
