"""Classes of whole images: which best classes flipped, and how sure the others are."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from trtconvert.diff.change import Change, Row, flip_rows, mean, p95
from visionrt.plot import short_name
from visionrt.results import Classification

_NONE = -1


@dataclass
class _Counts:
    name: str = ""
    reference: int = 0
    candidate: int = 0
    score_shifts: list[float] = field(default_factory=list)


class TopOneDiff:
    """See :class:`trtconvert.diff.change.ResultDiff`.

    The score's shift is candidate minus reference, over the images whose best class is the same.
    An image without any class counts as one of class −1, ``(none)``.
    """

    def __init__(self) -> None:
        self._by_class: defaultdict[int, _Counts] = defaultdict(_Counts)
        self._flips: Counter[tuple[int, int]] = Counter()

    def update(self, reference: Classification, candidate: Classification) -> Change:
        """Take the two results of one image."""
        (before, old), (after, new) = _best(reference), _best(candidate)
        names = [_name(reference, old), _name(candidate, new)]
        for class_id, name in zip((old, new), names, strict=True):
            self._by_class[class_id].name = name
        self._by_class[old].reference += 1
        self._by_class[new].candidate += 1
        text = f"{names[0]} {before:.3f} → {names[1]} {after:.3f}"
        if old != new:
            self._flips[old, new] += 1
            # A sure answer that flips is worse than a doubtful one.
            return Change(1, before, text)
        self._by_class[old].score_shifts.append(after - before)
        return Change(0, abs(after - before), f"{names[0]} {before:.3f} → {after:.3f}")

    def classes(self) -> list[Row]:
        """See the protocol."""
        return [
            {
                "class_id": class_id,
                "name": c.name,
                "reference": c.reference,
                "candidate": c.candidate,
                "same": len(c.score_shifts),
                "score_shift": mean(c.score_shifts),
                "score_shift_p95": p95(c.score_shifts),
            }
            for class_id, c in sorted(self._by_class.items())
        ]

    def flips(self) -> list[Row]:
        """See the protocol."""
        return flip_rows(self._flips, {k: c.name for k, c in self._by_class.items()})


def _best(result: Classification) -> tuple[float, int]:
    return (float(result.confidence[0]), int(result.class_id[0])) if len(result) else (0.0, _NONE)


def _name(result: Classification, class_id: int) -> str:
    return "(none)" if class_id == _NONE else short_name(result.label(class_id))
