"""Boxes: which were lost, which are new, which changed their class, and how the others moved.

Boxes are matched as :class:`visionrt.metrics.BoxAgreement` does it. Of those left over, a pair at
one place (IoU of at least 0.5) is a flip: the same box with another class.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from trtconvert.diff.change import Change, Row, flip_rows, mean, p95, some
from visionrt.metrics import match_boxes
from visionrt.plot import short_name
from visionrt.results import Detections


@dataclass
class _Counts:
    name: str = ""
    reference: int = 0
    candidate: int = 0
    lost: int = 0
    new: int = 0
    flipped_from: int = 0
    flipped_to: int = 0
    overlaps: list[float] = field(default_factory=list)
    score_shifts: list[float] = field(default_factory=list)


class BoxDiff:
    """See :class:`trtconvert.diff.change.ResultDiff`.

    Per class, ``reference = matched + lost + flipped_from`` and
    ``candidate = matched + new + flipped_to``. Shifts are of the matches: the score's is signed,
    candidate minus reference, and its ``p95`` is of its size; the IoU's is ``1 − IoU``.
    """

    def __init__(self) -> None:
        self._by_class: defaultdict[int, _Counts] = defaultdict(_Counts)
        self._flips: Counter[tuple[int, int]] = Counter()

    def update(self, reference: Detections, candidate: Detections) -> Change:
        """Take the two results of one image."""
        for class_id in reference.class_id.tolist():
            self._of(reference, class_id).reference += 1
        for class_id in candidate.class_id.tolist():
            self._of(candidate, class_id).candidate += 1
        matches = match_boxes(reference, candidate)
        shift, moved = 0.0, ""
        for c, r, overlap in matches:
            counts = self._of(reference, int(reference.class_id[r]))
            before, after = float(reference.confidence[r]), float(candidate.confidence[c])
            counts.overlaps.append(overlap)
            counts.score_shifts.append(after - before)
            if max(abs(after - before), 1 - overlap) > shift:
                shift = max(abs(after - before), 1 - overlap)
                name = _name(reference, r)
                moved = f"{name} {before:.2f} → {after:.2f}, IoU {overlap:.2f}"
        lost, new, flips = self._leftovers(reference, candidate, matches)
        # A sure box that is gone is worse than a doubtful one.
        gone = [float(reference.confidence[r]) for r in lost + [r for r, _ in flips]]
        come = [float(candidate.confidence[c]) for c in new]
        shift = max([shift, *gone, *come])
        turns = [f"{_name(reference, r)} → {_name(candidate, c)}" for r, c in flips]
        parts = [f"{len(turns)} flipped ({some(turns)})"] if turns else []
        parts += [f"{len(lost)} lost ({some(_scored(reference, lost))})"] if lost else []
        parts += [f"{len(new)} new ({some(_scored(candidate, new))})"] if new else []
        reason = "; ".join(parts) or moved or "no difference"
        return Change(len(lost) + len(new) + len(flips), shift, reason)

    def classes(self) -> list[Row]:
        """See the protocol."""
        return [
            {
                "class_id": class_id,
                "name": c.name,
                "reference": c.reference,
                "candidate": c.candidate,
                "matched": len(c.overlaps),
                "lost": c.lost,
                "new": c.new,
                "flipped_from": c.flipped_from,
                "flipped_to": c.flipped_to,
                "mean_iou": mean(c.overlaps),
                "iou_shift_p95": p95([1 - overlap for overlap in c.overlaps]),
                "score_shift": mean(c.score_shifts),
                "score_shift_p95": p95(c.score_shifts),
            }
            for class_id, c in sorted(self._by_class.items())
        ]

    def flips(self) -> list[Row]:
        """See the protocol."""
        return flip_rows(self._flips, {k: c.name for k, c in self._by_class.items()})

    def _leftovers(
        self, reference: Detections, candidate: Detections, matches: list[tuple[int, int, float]]
    ) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """Count what did not match: rows of the lost and the new, and row pairs of the flipped."""
        free_r = np.setdiff1d(np.arange(len(reference)), [r for _, r, _ in matches])
        free_c = np.setdiff1d(np.arange(len(candidate)), [c for c, _, _ in matches])
        pairs = match_boxes(reference[free_r], candidate[free_c], any_class=True)
        flips = [(int(free_r[j]), int(free_c[i])) for i, j, _ in pairs]
        for r, c in flips:
            old, new_id = int(reference.class_id[r]), int(candidate.class_id[c])
            self._of(reference, old).flipped_from += 1
            self._of(candidate, new_id).flipped_to += 1
            self._flips[old, new_id] += 1
        lost = np.delete(free_r, [j for _, j, _ in pairs]).tolist()
        new = np.delete(free_c, [i for i, _, _ in pairs]).tolist()
        for r in lost:
            self._of(reference, int(reference.class_id[r])).lost += 1
        for c in new:
            self._of(candidate, int(candidate.class_id[c])).new += 1
        return lost, new, flips

    def _of(self, result: Detections, class_id: int) -> _Counts:
        counts = self._by_class[class_id]
        counts.name = counts.name or short_name(result.label(class_id))
        return counts


def _name(result: Detections, row: int) -> str:
    return short_name(result.label(int(result.class_id[row])))


def _scored(result: Detections, rows: list[int]) -> list[str]:
    return [f"{_name(result, row)} {float(result.confidence[row]):.2f}" for row in rows]
