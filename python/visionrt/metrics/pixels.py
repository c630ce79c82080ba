"""Segmentation: the share of pixels of the same class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionrt.metrics.base import Agreement, share
from visionrt.results import Segmentation


class PixelAgreement:
    """Share of pixels with the same class; every image counts the same, whatever its size."""

    metric = "pixel"

    def __init__(self) -> None:
        self._images = 0
        self.shares = 0.0
        self._both: NDArray[np.int64] = np.zeros(0, np.int64)
        self._either: NDArray[np.int64] = np.zeros(0, np.int64)

    def update(self, reference: Segmentation, candidate: Segmentation) -> None:
        """Take the two results of one image, masks of one shape."""
        self._images += 1
        of_reference, of_candidate, both = pixel_counts(reference, candidate)
        self.shares += float(both.sum()) / max(reference.mask.size, 1)
        self._both = add_counts(self._both, both)
        self._either = add_counts(self._either, of_reference + of_candidate - both)

    def agreement(self) -> Agreement:
        """Details: ``mean_iou`` over the classes that either model found on any image."""
        present = self._either > 0
        overlaps = self._both[present] / self._either[present]
        return Agreement(
            self.metric,
            self._images,
            share(self.shares, self._images),
            details={
                "mean_iou": share(float(overlaps.sum()), overlaps.size),
                "classes": int(present.sum()),
            },
        )


def pixel_counts(
    reference: Segmentation, candidate: Segmentation
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels by class id of the reference, of the candidate, and where both say that class.

    Args:
        reference, candidate: with masks of one shape.
    """
    a, b = reference.mask.ravel(), candidate.mask.ravel()
    classes = max(int(a.max(initial=0)), int(b.max(initial=0))) + 1
    of_a, of_b, both = (np.bincount(ids, minlength=classes) for ids in (a, b, a[a == b]))
    return of_a, of_b, both


def add_counts(total: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two vectors by class id, of which either may be the longer one."""
    out: NDArray[np.int64] = np.zeros(max(len(total), len(counts)), np.int64)
    out[: len(total)] += total
    out[: len(counts)] += counts
    return out
