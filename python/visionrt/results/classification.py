"""The result of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.results.base import Result, category_of


@dataclass(kw_only=True, eq=False, repr=False)
class Classification(Result):
    """The likeliest classes of an image, best first.

    Attributes:
        class_id: int32 [k].
        confidence: float32 [k], 0…1.
        logits: float32 [C], the model's raw output for the image.
    """

    class_id: NDArray[np.int32]
    confidence: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.class_id)

    @property
    def best(self) -> str:
        """Name of the likeliest class; empty when no class was left by the filters."""
        return self.label(int(self.class_id[0])) if len(self) else ""

    def summary(self) -> str:
        """The classes and their probabilities."""
        pairs = zip(self.class_id.tolist(), self.confidence.tolist(), strict=True)
        return ", ".join(f"{self.label(c)} {p:.3f}" for c, p in pairs) or "no class"

    def rows(self) -> list[dict[str, Any]]:
        """One row per class: ``class_id, name, confidence``."""
        pairs = zip(self.class_id.tolist(), self.confidence.tolist(), strict=True)
        return [{"class_id": c, "name": self.label(c), "confidence": p} for c, p in pairs]

    def to_json(self) -> dict[str, Any]:
        """Adds ``classes``, which are :meth:`rows`."""
        return self._json_head() | {"classes": self.rows()}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry with ``category_id`` and ``score`` per class."""
        pairs = zip(self.class_id.tolist(), self.confidence.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": category_of(c, category_ids), "score": p}
            for c, p in pairs
        ]

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A panel with the classes in the top left corner."""
        from visionrt import plot

        pairs = zip(self.class_id.tolist(), self.confidence.tolist(), strict=True)
        return plot.draw_classes(canvas, [(self.label(c), p) for c, p in pairs])
