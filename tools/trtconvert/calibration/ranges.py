"""Chooses the absolute value that int8 maps to 127, from a histogram.

Each method returns a threshold above 0 and not above the largest value seen, or 0 for a tensor
that was zero everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trtconvert.calibration.histogram import BINS, Histogram
from trtconvert.calibration.options import CalibrationOptions

LEVELS = 127
_CANDIDATES = 192
# Bins between two thresholds that the entropy method tries.
_ENTROPY_STEP = 8


def threshold(histogram: Histogram, options: CalibrationOptions) -> float:
    """The threshold of ``options.method``."""
    if histogram.peak == 0.0:
        return 0.0
    if options.method == "minmax":
        return histogram.peak
    if options.method == "percentile":
        return percentile_threshold(histogram, options.percentile)
    if options.method == "entropy":
        return entropy_threshold(histogram)
    return mse_threshold(histogram)


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """Upper edge of the first bin below which ``percentile`` percent of all values lie."""
    below = histogram.zeros + np.cumsum(histogram.counts)
    index = int(np.searchsorted(below, percentile / 100 * below[-1]))
    return min((index + 1) * histogram.width, histogram.peak)


def mse_threshold(histogram: Histogram) -> float:
    """The threshold with the least mean squared error of rounding and clipping.

    A bin stands for its centre. Thresholds whose step is finer than a bin are not tried: the
    histogram cannot tell their rounding errors.
    """
    used = histogram.counts > 0
    values, weights = histogram.centers[used], histogram.counts[used]
    lowest = min(LEVELS * histogram.width, histogram.peak)
    candidates = np.linspace(lowest, histogram.peak, _CANDIDATES)
    steps = candidates[:, None] / LEVELS
    restored = np.minimum(np.rint(values / steps), LEVELS) * steps
    errors = np.square(values - restored) @ weights
    # The last of equals: no clipping where it gains nothing.
    return float(candidates[len(errors) - 1 - int(np.argmin(errors[::-1]))])


def entropy_threshold(histogram: Histogram) -> float:
    """The threshold whose 128 levels lose the least information (Kullback-Leibler divergence).

    For each threshold, the histogram clipped there is compared with the one that is left when its
    bins are merged into 128 levels and each level spread over its bins that were not empty. The
    method: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    last = int(np.flatnonzero(histogram.counts)[-1]) + 1
    ends = range(min(LEVELS + 1, last), last + _ENTROPY_STEP, _ENTROPY_STEP)
    tried = [min(end, last) for end in ends]
    divergences = [_divergence(histogram.counts, end) for end in tried]
    best = tried[int(np.argmin(divergences))]
    return min(best * histogram.width, histogram.peak)


def _divergence(counts: NDArray[np.int64], end: int) -> float:
    kept = counts[:end].astype(np.float64)
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    levels = min(LEVELS + 1, end)
    starts = np.arange(levels) * end // levels
    present = counts[:end] > 0
    sums = np.add.reduceat(kept, starts)
    filled = np.add.reduceat(present.astype(np.float64), starts)
    sizes = np.diff(np.append(starts, end))
    spread = np.repeat(np.divide(sums, filled, out=np.zeros(levels), where=filled > 0), sizes)
    spread[~present] = 0.0
    if not spread.any():
        return math.inf
    p, q = clipped / clipped.sum(), spread / spread.sum()
    shared = p > 0
    if np.any(q[shared] == 0):
        # Clipped mass fell into a bin that the merged histogram has empty.
        q = np.maximum(q, 1.0 / (BINS * max(counts.sum(), 1)))
    return float(np.sum(p[shared] * np.log(p[shared] / q[shared])))
