"""Thumbnails of images: enough to tell duplicates, scenes and exposure, in 768 bytes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtconvert.progress import Progress, silent
from visionrt import image_io
from visionrt.errors import InputDataError
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

SIDE = 16
_SPEC = PreprocessSpec(
    resize="stretch",
    size=(SIDE, SIDE),
    interpolation="pil",
    std=(1.0, 1.0, 1.0),
    layout="nhwc",
    dtype="uint8",
)
_LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, RGB
# Root mean square deviation of a thumbnail, in grey levels, below which it has no content.
_PLAIN = 2.0


@dataclass(frozen=True)
class Thumbnails:
    """Of the images that can be read.

    Attributes:
        files: one per thumbnail.
        pixels: uint8 ``[n, SIDE, SIDE, 3]``, RGB, averaged over the whole image.
        unreadable: the other files, with the reason.
    """

    files: tuple[Path, ...]
    pixels: NDArray[np.uint8]
    unreadable: dict[Path, str]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def luma(self) -> NDArray[np.float64]:
        """Float64 ``[n, SIDE * SIDE]``, 0…255."""
        return np.asarray((self.pixels @ _LUMA).reshape(len(self), -1))

    def likeness(self) -> NDArray[np.float64]:
        """Correlation of each two thumbnails' pixels: float64 ``[n, n]``, −1…1.

        It does not see a change of brightness or contrast. Two plain images have 1, a plain one
        and another have 0.
        """
        rows = self.pixels.reshape(len(self), -1).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1)
        is_plain = norms < _PLAIN * np.sqrt(rows.shape[1])
        rows[is_plain] = 0.0
        rows /= np.where(is_plain, 1.0, norms)[:, None]
        out: NDArray[np.float64] = rows @ rows.T
        out[np.ix_(is_plain, is_plain)] = 1.0
        return out


def thumbnails_of(
    files: Sequence[Path], progress: Progress = silent, stage: str = "Auditing images"
) -> Thumbnails:
    """Decode each file once; holds one image at a time."""
    preprocess = Preprocessor(_SPEC)
    pixels: list[NDArray[np.uint8]] = []
    readable: list[Path] = []
    unreadable: dict[Path, str] = {}
    for done, path in enumerate(files, 1):
        try:
            pixels.append(preprocess([image_io.decode(path)])[0])
            readable.append(path)
        except InputDataError as error:
            unreadable[path] = error.got
        progress(stage, done, len(files))
    stack = np.stack(pixels) if pixels else np.zeros((0, SIDE, SIDE, 3), np.uint8)
    return Thumbnails(tuple(readable), stack, unreadable)
