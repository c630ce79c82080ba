"""Sets calibration images apart, so that no choice is made on images it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# With fewer images, each part would be too small to say anything.
LEAST_IMAGES = 16
_EVERY = 3


def split_for_tuning(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images to calibrate on and images to tune on; the same for any order of ``files``.

    A file that is listed twice counts once.

    Every third of the sorted files tunes. With fewer than ``LEAST_IMAGES``, both are all of them.
    """
    ordered = sorted(set(files))
    if len(ordered) < LEAST_IMAGES:
        return ordered, ordered
    tuning = ordered[_EVERY - 1 :: _EVERY]
    apart = set(tuning)
    return [path for path in ordered if path not in apart], tuning
