"""Masks: the IoU of each class, over the pixels of all images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trtconvert.diff.change import Change, Row
from visionrt.metrics import add_counts, pixel_counts
from visionrt.plot import short_name
from visionrt.results import Segmentation


class PixelDiff:
    """See :class:`trtconvert.diff.change.ResultDiff`. Pixels have no flips of their own."""

    def __init__(self) -> None:
        self._counts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * 3
        self._names: dict[int, str] = {}

    def update(self, reference: Segmentation, candidate: Segmentation) -> Change:
        """Take the two results of one image, masks of one shape."""
        counts = pixel_counts(reference, candidate)
        self._counts = [add_counts(a, b) for a, b in zip(self._counts, counts, strict=True)]
        present = np.flatnonzero(counts[0] + counts[1]).tolist()
        for class_id in present:
            self._names.setdefault(class_id, short_name(reference.label(class_id)))
        differ = 1 - float(counts[2].sum()) / max(reference.mask.size, 1)
        overlaps = {c: _iou(*(int(count[c]) for count in counts)) for c in present}
        worst = min(overlaps, key=lambda c: overlaps[c])
        reason = f"{differ:.2%} of pixels; IoU of {self._names[worst]} {overlaps[worst]:.3f}"
        return Change(differ, 0.0, reason)

    def classes(self) -> list[Row]:
        """See the protocol; sizes are pixels."""
        rows = []
        for class_id, name in sorted(self._names.items()):
            reference, candidate, both = (int(count[class_id]) for count in self._counts)
            row = {"class_id": class_id, "name": name}
            row |= {"reference": reference, "candidate": candidate, "both": both}
            rows.append(row | {"iou": _iou(reference, candidate, both)})
        return rows

    def flips(self) -> list[Row]:
        """None."""
        return []


def _iou(reference: int, candidate: int, both: int) -> float:
    return both / (reference + candidate - both)
