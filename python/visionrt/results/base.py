"""What every result has: the image's size, the time of each stage, a picture and a JSON form."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import InputDataError

if TYPE_CHECKING:
    from visionrt.image_io import ImageSource


@dataclass(slots=True)
class ImageRef:
    """The image that was given, for :meth:`Result.plot`.

    A reference and no copy: a caller who overwrites the array or the file plots what is there then.
    """

    source: ImageSource
    color: str

    def __str__(self) -> str:
        if isinstance(self.source, (str, os.PathLike)):
            return Path(self.source).name
        return "image"


@dataclass(kw_only=True, eq=False, repr=False)
class Result(ABC):
    """Base of the results of every task. Arrays live in host memory.

    Attributes:
        image_hw: height and width of the original image, pixels.
        names: class names by class id; may be empty.
        speed: milliseconds per stage: ``decode`` (only when the input was encoded), ``preprocess``,
            ``inference``, ``postprocess``. An image of a batch has its share of the batch's time.
        source: what :meth:`plot` draws on; see :class:`ImageRef`. Set it to None to let go of it.
    """

    image_hw: tuple[int, int]
    names: tuple[str, ...] = ()
    speed: dict[str, float] = field(default_factory=dict)
    source: ImageRef | None = None

    @abstractmethod
    def summary(self) -> str:
        """What was found, in a few words."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The result as JSON types, with class names and without pixels."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary of JSON scalars per class, box, segment or keypoint, for a table."""

    @abstractmethod
    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Entries of a COCO results file.

        Args:
            image_id: of the image in the data set.
            category_ids: the data set's category id of each class id; default: the class id.
        """

    @abstractmethod
    def draw(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw on a BGR picture of the image's size; returns another array."""

    def plot(self, image: ImageSource | None = None) -> NDArray[np.uint8]:
        """The annotated picture, (height, width, 3) uint8 BGR.

        Args:
            image: what to draw on, of the original's size; a NumPy array is BGR. Default: the image
                the model was called with, which is decoded again when it was a file or bytes.

        Raises:
            InputDataError: no image is known, it cannot be read any more, or its size differs.
        """
        from visionrt import image_io

        ref = self.source if image is None else ImageRef(image, "bgr")
        if ref is None:
            raise InputDataError(
                "an image to draw on", got="none", fix="Give it: result.plot(image)."
            )
        pixels = image_io.decode(ref.source, ref.color)
        if pixels.shape[:2] != self.image_hw:
            raise InputDataError(
                f"an image of {self.image_hw[1]}x{self.image_hw[0]} pixels to draw on",
                got=f"{pixels.shape[1]}x{pixels.shape[0]}",
                fix="Give the image that the model was called with.",
            )
        return self.draw(pixels if ref.color == "bgr" else pixels[..., ::-1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`plot`'s picture; the format follows the file name's ending.

        Raises:
            InputDataError: as :meth:`plot`, an unknown ending, or the file cannot be written.
        """
        from visionrt import image_io

        image_io.write(path, self.plot())

    def label(self, class_id: int) -> str:
        """Name of a class, or its number where no name is known."""
        if 0 <= class_id < len(self.names):
            return self.names[class_id]
        return str(class_id)

    def __str__(self) -> str:
        h, w = self.image_hw
        where = f"{self.source} " if self.source else ""
        took = f" ({sum(self.speed.values()):.1f} ms)" if self.speed else ""
        return f"{where}{w}x{h}: {self.summary()}{took}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def _json_head(self) -> dict[str, Any]:
        h, w = self.image_hw
        return {
            "image": {"height": h, "width": w},
            "speed_ms": {k: round(v, 3) for k, v in self.speed.items()},
        }


def category_of(class_id: int, category_ids: Sequence[int] | None) -> int:
    """COCO category id of a class id; see :meth:`Result.to_coco`."""
    if category_ids is None:
        return class_id
    if not 0 <= class_id < len(category_ids):
        raise InputDataError(
            f"a category id for class {class_id}",
            got=f"{len(category_ids)} ids",
            fix="Give one category id per class of the model.",
        )
    return int(category_ids[class_id])


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed RLE of a (height, width) mask: column-major, zeros first."""
    flat = np.concatenate(([False], mask.ravel(order="F"), [True]))
    # A change at position i of `flat` starts a run at pixel i; the closing True is no pixel.
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    bounds = np.concatenate(([0], starts[starts < mask.size], [mask.size]))
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}
