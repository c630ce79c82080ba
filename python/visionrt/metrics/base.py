"""What every accumulator gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Agreement:
    """How well a candidate agrees with a reference.

    Attributes:
        metric: name of the main figure; see the module.
        images: that were compared.
        agreement: the main figure, 0…1.
        cosine: mean cosine of the raw outputs; None where outputs were not compared.
        details: further figures by name.
        warnings: what to know before trusting the figures.
    """

    metric: str
    images: int
    agreement: float
    cosine: float | None = None
    details: Mapping[str, float | int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Metric, images, agreement, cosine and the details as one flat object."""
        head: dict[str, Any] = {"metric": self.metric, "images": self.images}
        return head | {"agreement": self.agreement, "cosine": self.cosine} | dict(self.details)


class Accumulator(Protocol):
    """Counts over images; ``update`` once per image, then ``agreement``."""

    metric: str

    def update(self, reference: Any, candidate: Any) -> None:
        """Take the two results of one image."""
        ...

    def agreement(self) -> Agreement:
        """The figures so far; they leave ``cosine`` to the caller."""
        ...


def share(part: float, whole: float) -> float:
    """A share; 1 of nothing, as nothing differs."""
    return float(part) / whole if whole else 1.0


def mean(total: float, count: int) -> float:
    """The mean of ``count`` values with this sum; 0 of nothing."""
    return total / count if count else 0.0
