"""The result of semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.results.base import Result, category_of, run_lengths


@dataclass(kw_only=True, eq=False, repr=False)
class Segmentation(Result):
    """A class for every pixel of the original image.

    Attributes:
        mask: (height, width), class ids; uint8, or uint16 for a model with more than 256 classes.
            0 where the model did not look (outside the crop of a ``crop`` spec).
        confidence: float32 (height, width), the probability of the pixel's class; 0 where the model
            did not look, 1 where it gives class ids alone.
    """

    mask: NDArray[np.uint8] | NDArray[np.uint16]
    confidence: NDArray[np.float32]

    def shares(self) -> dict[int, float]:
        """Share of the image's pixels per class id that occurs, the largest first."""
        counts = np.bincount(self.mask.ravel())
        present = np.flatnonzero(counts)
        order = present[np.argsort(-counts[present], kind="stable")]
        return {int(c): float(counts[c] / self.mask.size) for c in order}

    def summary(self) -> str:
        """The classes and their shares of the image."""
        return ", ".join(f"{self.label(c)} {share:.1%}" for c, share in self.shares().items())

    def rows(self) -> list[dict[str, Any]]:
        """One row per class that occurs: ``class_id, name, share``."""
        return [
            {"class_id": c, "name": self.label(c), "share": share}
            for c, share in self.shares().items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Adds ``segments``: :meth:`rows`, each with its ``mask`` as COCO's uncompressed RLE."""
        segments = [r | {"mask": run_lengths(self.mask == r["class_id"])} for r in self.rows()]
        return self._json_head() | {"segments": segments}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One entry with ``segmentation`` (uncompressed RLE) and mean ``score`` per class."""
        return [
            {
                "image_id": image_id,
                "category_id": category_of(c, category_ids),
                "segmentation": run_lengths(self.mask == c),
                "score": float(self.confidence[self.mask == c].mean()),
            }
            for c in self.shares()
        ]

    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A translucent colour over every class but 0, with a legend."""
        from visionrt import plot

        return plot.draw_segments(canvas, self)
