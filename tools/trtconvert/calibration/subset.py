"""Picks a few images that cover many: farthest-point sampling on thumbnails.

The first is the one nearest to the mean of all; each next is the one farthest from those already
taken (Euclidean distance of the pixels, ties by file order). The largest distance of any image to
the subset is at most twice the least that is possible: T. F. Gonzalez, "Clustering to minimize the
maximum intercluster distance", Theoretical Computer Science 38 (1985).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trtconvert.calibration.reader import image_files
from trtconvert.calibration.thumbnails import Thumbnails, thumbnails_of
from trtconvert.progress import Progress, silent
from visionrt.errors import InputDataError

# A folder of 50,000 photos should not take an hour.
MOST_POOL = 2048


@dataclass(frozen=True)
class Subset:
    """A covering subset.

    Attributes:
        files: the chosen ones, in the order in which they were chosen.
        pool: how many images they were chosen from.
        farthest: root mean square distance, in grey levels, of the least covered image to the
            nearest chosen one.
    """

    files: tuple[Path, ...]
    pool: int
    farthest: float

    @property
    def how(self) -> str:
        """One sentence for people."""
        return (
            f"{len(self.files)} of {self.pool} images taken by farthest-point sampling on "
            f"thumbnails; none of the others is more than {self.farthest:.0f} grey levels from them"
        )

    def to_json(self) -> dict[str, Any]:
        """The files, and how they were chosen."""
        return {"how": self.how, "pool": self.pool, "files": [str(f) for f in self.files]}


def covering_subset(
    source: Path | Sequence[Path], count: int, progress: Progress = silent
) -> Subset:
    """The ``count`` images that cover ``source`` best; deterministic, whatever the files' order.

    At most ``MOST_POOL`` images are considered, taken at even steps from the sorted list.

    Raises:
        InputDataError: no such folder, or fewer than ``count`` readable images.
    """
    files = image_files(source)
    pool = min(len(files), max(MOST_POOL, count))
    chosen = [files[i * len(files) // pool] for i in range(pool)]
    thumbnails = thumbnails_of(chosen, progress, "Choosing images")
    if len(thumbnails) < count:
        raise InputDataError(
            f"{count} images to choose",
            got=str(len(thumbnails)),
            fix="Add images, or ask for fewer.",
        )
    rows, farthest = farthest_points(thumbnails, count)
    return Subset(tuple(thumbnails.files[i] for i in rows), len(thumbnails), farthest)


def farthest_points(thumbnails: Thumbnails, count: int) -> tuple[list[int], float]:
    """Indices in order of choice, and the distance of the least covered image."""
    points = thumbnails.pixels.reshape(len(thumbnails), -1).astype(np.float32)
    rows = [int(np.argmin(np.square(points - points.mean(axis=0)).mean(axis=1)))]
    nearest = np.square(points - points[rows[0]]).mean(axis=1)
    while len(rows) < count:
        # Taken ones are at −1, so that a repeated image never repeats an index.
        nearest[rows[-1]] = -1.0
        rows.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.square(points - points[rows[-1]]).mean(axis=1))
    nearest[rows] = 0.0
    return rows, float(np.sqrt(nearest.max()))
