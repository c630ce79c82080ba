"""What a comparison keeps of each image, and the figures that every task shares."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """How the two results of one image differ.

    Attributes:
        answers: how many answers differ (boxes, keypoints, the best class), or the share of pixels.
        shift: the largest change of a score or a place among the others, 0…1.
        reason: for people.
    """

    answers: float
    shift: float
    reason: str


class ResultDiff(Protocol):
    """Counts over images; ``update`` once per image. Keeps a few numbers per answer."""

    def update(self, reference: Any, candidate: Any) -> Change:
        """Take the two results of one image."""
        ...

    def classes(self) -> list[Row]:
        """A row per class (or keypoint) that occurred, in the order of their ids."""
        ...

    def flips(self) -> list[Row]:
        """Answers that changed their class, the most frequent first; see :func:`flip_rows`."""
        ...


class WorstImages:
    """The images that differ the most: by answers, then by shift, then in the order given.

    Args:
        limit: most images to keep.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, float, int, Path, str]] = []
        self._seen = 0

    def add(self, path: Path, change: Change) -> None:
        """Take one image; those without any difference are not kept."""
        self._seen += 1
        if change.answers == 0 and change.shift == 0:
            return
        heapq.heappush(self._heap, (change.answers, change.shift, -self._seen, path, change.reason))
        if len(self._heap) > self._limit:
            heapq.heappop(self._heap)

    def listed(self) -> list[tuple[Path, str]]:
        """Path and reason, the worst first."""
        return [(path, reason) for _, _, _, path, reason in sorted(self._heap, reverse=True)]


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def p95(values: Sequence[float]) -> float | None:
    """95th percentile of the absolute values; None of nothing."""
    return float(np.percentile(np.abs(values), 95)) if len(values) else None


def flip_rows(flips: Counter[tuple[int, int]], names: Mapping[int, str]) -> list[Row]:
    """Rows of :meth:`ResultDiff.flips`; two classes may have one name, so ids are there too."""
    ordered = sorted(flips.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"from_id": a, "from": names[a], "to_id": b, "to": names[b], "count": count}
        for (a, b), count in ordered
    ]


def some(items: Sequence[str], most: int = 3) -> str:
    """The first few of a list, for a sentence."""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
