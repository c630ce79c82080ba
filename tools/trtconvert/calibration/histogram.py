"""A histogram of absolute values that takes batches and never grows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import ModelError

BINS = 2048
# Of the last bin's edge; below it the reciprocal of a bin's width leaves float32.
_LEAST_LIMIT = 2.0**-64


class Histogram:
    """Counts of \\|x\\| in ``BINS`` equal bins over ``[0, limit)``, exact zeros apart.

    ``limit`` is a power of two above the largest value seen. When it doubles, neighbouring bins
    merge, which is what counting anew would give: the result does not depend on the order of the
    batches. Unless values are tiny, at least half of the bins are below the largest.

    Attributes:
        counts: int64 ``[BINS]``.
        zeros: how many values were exactly zero; they are not in ``counts``.
        peak: largest absolute value seen.
        limit: upper edge of the last bin; 0 before the first value that is not zero.
    """

    def __init__(self, name: str = "tensor") -> None:
        self.name = name
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.zeros = 0
        self.peak = 0.0
        self.limit = 0.0

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * self.width, np.float64)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.limit / BINS

    def update(self, values: NDArray[np.floating], peak: float | None = None) -> None:
        """Count a batch.

        Args:
            values: float32 of any shape.
            peak: largest magnitude of the batch that ``values`` are a sample of; None where they
                are the whole batch.

        Raises:
            ModelError: a value, or ``peak``, is NaN or infinite.
        """
        magnitude = np.abs(values, dtype=np.float32).ravel()
        if not magnitude.size:
            return
        largest = float(magnitude.max())
        peak = largest if peak is None else peak
        if not (math.isfinite(peak) and math.isfinite(largest)):
            raise ModelError(
                f"finite values in {self.name}",
                got="NaN or infinity on a calibration image",
                fix="Check the preprocess spec, and the FP32 model on this image.",
            )
        if peak == 0.0:
            self.zeros += magnitude.size
            return
        self.peak = max(self.peak, peak)
        self._reach(max(2.0 ** math.frexp(peak)[1], _LEAST_LIMIT))
        zeros = int(np.count_nonzero(magnitude == 0))
        # A power of two scales exactly, so no value lands in the wrong bin.
        magnitude *= np.float32(BINS / self.limit)
        bins = np.bincount(magnitude.astype(np.int32), minlength=BINS)
        bins[0] -= zeros
        self.zeros += zeros
        self.counts += bins

    def _reach(self, limit: float) -> None:
        if self.limit == 0.0:
            self.limit = limit
        while self.limit < limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.limit *= 2
