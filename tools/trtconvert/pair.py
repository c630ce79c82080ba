"""Two graphs side by side on the same images, one image in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtconvert.progress import Progress
from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError
from visionrt.heads import Frame, Head, head_for
from visionrt.metrics import Agreement
from visionrt.options import options_for
from visionrt.pipeline import image_input
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import Result

Outputs = dict[str, NDArray[Any]]


class Side:
    """A graph and its recipe.

    Args:
        graph: an ONNX model, serialized or a file.
        recipe: how images go in, and what the outputs mean.
        optimize: whether ONNX Runtime may rewrite the graph; see
            :class:`visionrt.backends.onnxruntime.OnnxRuntimeBackend`.
        confidence: score threshold; the recipe's where it is None.

    Raises:
        ModelError: the graph does not load, or its input does not fit the recipe.
        UsageError: ``confidence`` is outside 0…1.
    """

    def __init__(
        self,
        graph: bytes | Path,
        recipe: Recipe,
        *,
        optimize: bool = True,
        confidence: float | None = None,
    ) -> None:
        self.recipe = recipe
        self._options = options_for(recipe, confidence=confidence)
        self._preprocess = Preprocessor(recipe.preprocess)
        self._head: Head | None = None
        self._backend = OnnxRuntimeBackend(graph, optimize=optimize)
        try:
            info = image_input(recipe, self._backend.inputs)
        except BaseException:
            self._backend.close()
            raise
        self._input = info.name
        self._batch = info.shape[0] if isinstance(info.shape[0], int) else 1

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """A BGR image as the graph takes it, with a batch of 1."""
        return self._preprocess([pixels])

    def outputs(self, tensor: NDArray[Any]) -> Outputs:
        """Raw outputs of one image. A graph with a fixed batch gets it that many times."""
        feed = np.repeat(tensor, self._batch, axis=0) if self._batch > 1 else tensor
        outputs = self._backend.run({self._input: feed})
        # Cut only what was repeated: an output of a batch of one may have no batch axis.
        return {n: array[:1] for n, array in outputs.items()} if self._batch > 1 else dict(outputs)

    def result(self, outputs: Outputs, image_hw: tuple[int, int]) -> Result:
        """What the raw outputs say about an image of that size.

        Raises:
            ModelError: they do not have the head's layout.
            UsageError: the recipe's head options do not fit the graph.
        """
        # Made on first use: raw outputs can be compared where no head fits them.
        if self._head is None:
            self._head = head_for(self.recipe, self._backend.outputs)
        frame = Frame(image_hw, self._preprocess.geometry(*image_hw))
        return self._head.decode(outputs, [frame], self._options)[0]

    def close(self) -> None:
        """Release the engine. May be called twice."""
        self._backend.close()


@dataclass(frozen=True)
class Compared:
    """One image: raw outputs and results of the reference and of the candidate."""

    path: Path
    outputs: tuple[Outputs, Outputs]
    results: tuple[Result, Result]

    @property
    def is_broken(self) -> bool:
        """Whether the candidate gives NaN or infinity where the reference gives numbers alone."""
        reference, candidate = self.outputs
        return _is_finite(reference) and not _is_finite(candidate)


def discounted(agreement: Agreement, broken: int) -> Agreement:
    """An agreement to which ``broken`` of its images contribute nothing.

    NaN agrees with nothing, whatever class an argmax makes of it.
    """
    sound = 1 - broken / agreement.images if agreement.images else 1.0
    return dataclasses.replace(agreement, agreement=agreement.agreement * sound)


class Pair:
    """A reference and a candidate. Use as a context manager.

    Args:
        reference, candidate: each makes its side; the first is closed where the second fails.

    Attributes:
        skipped: a line for each image that could not be read.
    """

    def __init__(self, reference: Callable[[], Side], candidate: Callable[[], Side]) -> None:
        self._reference = reference()
        try:
            self._candidate = candidate()
        except BaseException:
            self._reference.close()
            raise
        self._same_tensor = self._reference.recipe.preprocess == self._candidate.recipe.preprocess
        self.skipped: list[str] = []

    def outputs(self, pixels: NDArray[np.uint8]) -> tuple[Outputs, Outputs]:
        """Raw outputs of both sides; an image that both take alike is preprocessed once."""
        tensor = self._reference.tensor(pixels)
        other = tensor if self._same_tensor else self._candidate.tensor(pixels)
        return self._reference.outputs(tensor), self._candidate.outputs(other)

    def compare(self, images: Sequence[Path], stage: str, progress: Progress) -> Iterator[Compared]:
        """Both results of each image, in order; one that cannot be read is skipped.

        Raises:
            InputDataError: after the last image, when none could be read.
        """
        read = 0
        for done, path in enumerate(images, 1):
            try:
                pixels = image_io.decode(path)
            except InputDataError as error:
                self.skipped.append(f"skipped {path}: {error.got}")
                continue
            read += 1
            outputs = self.outputs(pixels)
            image_hw = pixels.shape[:2]
            sides = (self._reference, self._candidate)
            a, b = (side.result(raw, image_hw) for side, raw in zip(sides, outputs, strict=True))
            yield Compared(path, outputs, (a, b))
            progress(stage, done, len(images))
        if not read:
            raise InputDataError(
                "an image that can be read",
                got=f"none of {len(images)}; {self.skipped[0]}",
                fix="Give JPEG, PNG or WebP files.",
            )

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.close()
        self._candidate.close()


def _is_finite(outputs: Outputs) -> bool:
    floats = (array for array in outputs.values() if array.dtype.kind == "f")
    return all(bool(np.isfinite(array).all()) for array in floats)
