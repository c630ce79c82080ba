"""What calibration is asked to do, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionrt.errors import UsageError

METHODS = ("mse", "minmax", "percentile", "entropy")


@dataclass(frozen=True)
class CalibrationOptions:
    """Where activation ranges come from.

    Attributes:
        images: a folder, or files. May be empty when ``ranges`` is given.
        method: ``mse`` (least squared error), ``minmax``, ``percentile`` or ``entropy`` (KL).
        percentile: share of values, in percent, that ``percentile`` keeps unclipped.
        count: how many images must be there; they are taken at even steps from the sorted list.
            None takes all, up to 256.
        subset: how many images to choose so that they cover all of them; see ``subset.py``.
        ranges: a table written by an earlier run, used instead of measuring ranges.
        bias_correction: measure and remove the mean error of each output channel.
        least_snr_db: a layer whose int8 output has a lower signal-to-noise ratio on the images
            stays float; 0 sets no limit. At 20 dB the noise has a tenth of the signal's amplitude.
        least_total_snr_db: signal to noise of the raw answers; layers stay float, the most noise
            per cost first, until it is reached. At 26 dB the noise has 5 % of the amplitude of
            what varies in them; 0 sets no limit, None takes the task's (``noise_budget.py``).
        equalization: even out the channels of tensors that share a scale, where it pays.
    """

    images: Path | Sequence[Path] = ()
    method: str = "mse"
    percentile: float = 99.99
    count: int | None = None
    subset: int | None = None
    ranges: Path | None = None
    bias_correction: bool = True
    least_snr_db: float = 20.0
    least_total_snr_db: float | None = None
    equalization: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"a calibration method: {' | '.join(METHODS)}",
                got=self.method,
                fix="Name one of them.",
            )
        if not (math.isfinite(self.percentile) and 50 < self.percentile <= 100):
            raise UsageError(
                "a percentile above 50, up to 100", got=str(self.percentile), fix="Try 99.99."
            )
        for limit_db in (self.least_snr_db, self.least_total_snr_db):
            if limit_db is not None and not (math.isfinite(limit_db) and limit_db >= 0):
                raise UsageError(
                    "a signal-to-noise ratio of at least 0 dB",
                    got=str(limit_db),
                    fix="Try 30, or 0 for no limit.",
                )
        for count in (self.count, self.subset):
            if count is not None and count < 1:
                raise UsageError(
                    "at least 1 calibration image", got=str(count), fix="Ask for 32 or more."
                )
        if self.count is not None and self.subset is not None:
            raise UsageError(
                "a number of images taken at even steps, or a covering subset",
                got="both",
                fix="Keep one: --calib-images or --calib-subset.",
            )


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration did.

    Attributes:
        images: that were read.
        seconds: wall time of all its passes.
        method: of the ranges.
        peak_rss_bytes: largest resident set of the process so far.
    """

    images: int
    seconds: float
    method: str
    peak_rss_bytes: int
