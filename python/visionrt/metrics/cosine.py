"""Raw outputs of two engines, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OutputCosine:
    """Mean cosine of raw float outputs: over the outputs of an image, then over images.

    Two outputs that are all zeros have cosine 1; a candidate with NaN or infinity has 0, as
    one of another shape (of models that choose how many boxes there are).
    ``broken`` counts the images on which only the candidate gives NaN or infinity.
    """

    def __init__(self) -> None:
        self._images = 0
        self._sum = 0.0
        self.broken = 0

    def update(
        self, reference: Mapping[str, NDArray[Any]], candidate: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take the outputs of one image, by name."""
        cosines = []
        is_broken = False
        for name, array in reference.items():
            if array.dtype.kind != "f":
                continue
            other = candidate[name]
            is_finite = bool(np.isfinite(other).all())
            is_broken |= not is_finite and bool(np.isfinite(array).all())
            comparable = is_finite and array.shape == other.shape
            cosines.append(cosine(array, other) if comparable else 0.0)
        self.broken += is_broken
        if cosines:
            self._images += 1
            self._sum += sum(cosines) / len(cosines)

    def mean(self) -> float | None:
        """The mean; None where no float output was seen."""
        return self._sum / self._images if self._images else None


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays, in float64. Two zero arrays have 1, one has 0."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    if norms == 0.0:
        return float(not x.any() and not y.any())
    return float(np.clip(float(x @ y) / norms, -1.0, 1.0))
