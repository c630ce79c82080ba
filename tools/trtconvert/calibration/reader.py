"""Image files, through the runtime's own preprocessing, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import image_io
from visionrt.errors import InputDataError
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
# Ranges settle long before this; a folder of 50,000 photos should not take an hour.
MOST_IMAGES = 256
# Of pixels that one calibration holds on to: its passes read many images again.
_KEPT_BYTES = 8 << 20


def image_files(source: Path | Sequence[Path]) -> list[Path]:
    """Image files of a folder and its subfolders, or of a list, sorted.

    Raises:
        InputDataError: no such folder, or no image in it.
    """
    if not isinstance(source, Path):
        files = sorted(source)
    elif source.is_dir():
        found = source.rglob("*")
        files = sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())
    else:
        raise InputDataError(
            f"a folder of images at {source}", got="no such folder", fix="Check the path."
        )
    if not files:
        raise InputDataError(
            f"images in {source if isinstance(source, Path) else 'the list'}",
            got="none",
            fix=f"Give files that end in {', '.join(sorted(SUFFIXES))}.",
        )
    return files


class ImageReader:
    """Iterates over batches of preprocessed images, which are not to be written to.

    May be iterated again. An image that cannot be read is skipped and named in ``skipped``. Holds
    one batch at a time, and the first images up to a fixed number of bytes, as 8-bit pixels of the
    tensor's size, so that later passes, and the readers of ``some`` and ``of``, need not decode
    them again.

    Args:
        source: a folder or files.
        spec: how an image becomes a tensor.
        count: how many images must be there; they are taken at even steps from the sorted list.
            None takes all, up to ``MOST_IMAGES`` of them at even steps.
        batch: images per tensor; a last part that is not full is filled up with its last image.
        may_be_empty: that no image can be read is no error.

    Attributes:
        files: the chosen files, sorted.
        spec, batch: as given.
        repeated: how many images of the last tensor fill it up.
        skipped: files that could not be read so far, with the reason.

    Raises:
        InputDataError: no folder, no image, fewer than ``count``; while iterating: every image is
            unreadable, and that is an error.
    """

    def __init__(
        self,
        source: Path | Sequence[Path],
        spec: PreprocessSpec,
        *,
        count: int | None = None,
        batch: int = 1,
        may_be_empty: bool = False,
    ) -> None:
        files = image_files(source)
        if count is not None and len(files) < count:
            raise InputDataError(
                f"{count} images", got=str(len(files)), fix="Add images, or ask for fewer."
            )
        wanted = min(len(files), MOST_IMAGES) if count is None else count
        self.files = [files[i * len(files) // wanted] for i in range(wanted)]
        self.skipped: dict[Path, str] = {}
        self.spec = spec
        self.batch = batch
        self.repeated = 0
        self._may_be_empty = may_be_empty
        self._preprocessor = Preprocessor(
            replace(spec, dtype="uint8", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        )
        self._kept: dict[Path, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        """Images that can be read, as far as is known."""
        return sum(path not in self.skipped for path in self.files)

    def some(self, count: int) -> ImageReader:
        """A reader of at most ``count`` of the images, at even steps; ``skipped`` is shared."""
        files = [path for path in self.files if path not in self.skipped] or self.files
        return self.of(files, min(count, len(files)))

    def of(
        self, files: Sequence[Path], count: int | None = None, *, may_be_empty: bool = False
    ) -> ImageReader:
        """A reader of some files, fed alike; ``skipped`` is shared."""
        out = ImageReader(
            files, self.spec, count=count, batch=self.batch, may_be_empty=may_be_empty
        )
        out.skipped, out._kept = self.skipped, self._kept
        return out

    def __iter__(self) -> Iterator[NDArray[Any]]:
        pending: list[NDArray[Any]] = []
        self.repeated = 0
        for path in self.files:
            if path in self.skipped:
                continue
            try:
                pending.append(self._tensor(path))
            except InputDataError as error:
                self.skipped[path] = error.got
                continue
            if len(pending) == self.batch:
                yield _stacked(pending)
                pending = []
        if pending:
            self.repeated = self.batch - len(pending)
            pending += [pending[-1]] * self.repeated
            yield _stacked(pending)
        if not len(self) and not self._may_be_empty:
            first = self.files[0]
            raise InputDataError(
                "an image that can be read",
                got=f"{len(self.files)} that cannot, {first.name} first: {self.skipped[first]}",
                fix="Give JPEG, PNG or WebP files.",
            )

    def _tensor(self, path: Path) -> NDArray[Any]:
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = self._preprocessor([image_io.decode(path)])
            if sum(kept.nbytes for kept in self._kept.values()) + pixels.nbytes <= _KEPT_BYTES:
                self._kept[path] = pixels
        return normalized(pixels, self.spec)

    def warnings(self) -> list[str]:
        """One line per skipped file."""
        return [f"skipped {path}: {reason}" for path, reason in self.skipped.items()]


def normalized(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[Any]:
    """The tensor of ``spec`` from its pixels before normalization, to the last bit.

    The subtraction and the multiplication are float32 operations, as in :mod:`visionrt.preprocess`.
    """
    if spec.dtype == "uint8":
        return pixels
    shape = (-1, 1, 1) if spec.layout == "nchw" else (-1,)
    mean = np.array(spec.mean[: spec.channels], np.float32).reshape(shape)
    scale = (1 / np.array(spec.std[: spec.channels])).astype(np.float32).reshape(shape)
    tensor = pixels.astype(np.float32)
    tensor -= mean
    tensor *= scale
    return tensor.astype(spec.dtype, copy=False)


def _stacked(tensors: list[NDArray[Any]]) -> NDArray[Any]:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
