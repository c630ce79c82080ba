"""Poses: keypoints that both sides see, at nearly the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionrt.metrics.base import Agreement, mean, share
from visionrt.results import Keypoints

KEYPOINT_RADIUS = 0.05


class KeypointAgreement:
    """F1 of the seen keypoints.

    A keypoint is seen when its confidence reaches the result's ``threshold``. One that both see
    matches when the two places are within ``KEYPOINT_RADIUS`` of the image's longer side. Poses
    are paired nearest first, by the mean distance of their keypoints.
    """

    metric = "keypoint_f1"

    def __init__(self) -> None:
        self._images = 0
        self._references = 0
        self._candidates = 0
        self._matched = 0
        self._both = 0
        self._shift = 0.0

    def update(self, reference: Keypoints, candidate: Keypoints) -> None:
        """Take the two results of one image."""
        self._images += 1
        a, b = reference.keypoints, candidate.keypoints
        seen_a, seen_b = a[..., 2] >= reference.threshold, b[..., 2] >= candidate.threshold
        self._references += int(seen_a.sum())
        self._candidates += int(seen_b.sum())
        for i, j, shifts in pair_poses(reference, candidate):
            both = seen_a[i] & seen_b[j]
            self._both += int(both.sum())
            self._shift += float(shifts[both].sum())
            self._matched += int((shifts[both] <= KEYPOINT_RADIUS).sum())

    def agreement(self) -> Agreement:
        """Details: counts, and ``mean_shift`` of keypoints both see, as a share of the side."""
        return Agreement(
            self.metric,
            self._images,
            share(2 * self._matched, self._references + self._candidates),
            details={
                "mean_shift": mean(self._shift, self._both),
                "keypoints_reference": self._references,
                "keypoints_candidate": self._candidates,
                "keypoints_matched": self._matched,
            },
        )


def pair_poses(
    reference: Keypoints, candidate: Keypoints
) -> list[tuple[int, int, NDArray[np.floating]]]:
    """Pairs as ``(reference pose, candidate pose, shifts)``; see :class:`KeypointAgreement`.

    ``shifts`` [K] are distances of the keypoints as shares of the image's longer side.
    """
    a, b = reference.keypoints, candidate.keypoints
    if not len(a) or not len(b):
        return []
    shifts = np.linalg.norm(a[:, None, :, :2] - b[None, :, :, :2], axis=-1)
    shifts = shifts / max(reference.image_hw)
    return [(i, j, shifts[i, j]) for i, j in _pair_nearest(shifts.mean(axis=-1))]


def _pair_nearest(distances: NDArray[np.floating]) -> list[tuple[int, int]]:
    left = distances.copy()
    pairs = []
    for _ in range(min(left.shape)):
        i, j = (int(k) for k in np.unravel_index(int(np.argmin(left)), left.shape))
        pairs.append((i, j))
        left[i, :] = np.inf
        left[:, j] = np.inf
    return pairs
