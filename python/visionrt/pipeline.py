"""The whole path of a frame: image → preprocess → engine → decode and postprocess → result."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import image_io
from visionrt.backends.base import Backend, BindingBackend, DeviceBackend
from visionrt.errors import InputDataError, ModelError
from visionrt.gpu_images import DeviceImage, device_image, is_on_device
from visionrt.heads import Frame, head_for
from visionrt.image_io import ImageSource
from visionrt.lanes import Lane, LanePool
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import ImageRef, Result

if TYPE_CHECKING:
    from visionrt.gpu_pipeline import GpuPipeline, Pixels

_STAGES = ("decode", "preprocess", "inference", "postprocess")


class Pipeline:
    """A recipe and an engine put together. Safe from several threads.

    Args:
        recipe: task, head, labels and preprocess spec.
        backend: the engine; not owned.
        max_batch: most images per run where the graph's batch is not fixed.

    Attributes:
        batch: most images that :meth:`run` takes.

    Raises:
        ModelError: the graph's input does not fit the preprocess spec.
        UsageError: the recipe's head options do not fit the graph's outputs.
    """

    def __init__(self, recipe: Recipe, backend: Backend, *, max_batch: int) -> None:
        self._backend = backend
        self._input = image_input(recipe, backend.inputs)
        fixed = self._input.shape[0]
        limit = max_batch if backend.max_batch is None else min(max_batch, backend.max_batch)
        self._is_fixed = isinstance(fixed, int)
        self.batch = fixed if isinstance(fixed, int) else limit
        self._preprocess = Preprocessor(recipe.preprocess)
        self._head = head_for(recipe, backend.outputs)
        spec = recipe.preprocess
        self._lanes = LanePool(spec.tensor_shape(self.batch), spec.dtype)
        self._gpu: GpuPipeline | None = None
        self._gpu_problem = ""
        if isinstance(backend, DeviceBackend):
            from visionrt.gpu_pipeline import GpuPipeline

            self._gpu_problem = backend.device_problem()
            if not self._gpu_problem:
                self._gpu = GpuPipeline(recipe, backend, self._preprocess, self._head)

    def run(
        self, images: Sequence[ImageSource], options: PredictOptions, color: str
    ) -> list[Result]:
        """One result per image; blocks.

        Args:
            images: 1 to :attr:`batch` of them, as :func:`visionrt.image_io.decode` takes them.
            options: thresholds and filters.
            color: channel order of arrays, ``bgr`` or ``rgb``.

        Raises:
            InputDataError: an image cannot be used.
            UsageError: closed.
        """
        times = [time.perf_counter()]
        pixels = [self._pixels(image, color) for image in images]
        times.append(time.perf_counter())
        lane = self._lanes.take()
        try:
            frames = [Frame(p.shape[:2], self._preprocess.geometry(*p.shape[:2])) for p in pixels]
            results: Sequence[Result] | None = None
            if self._gpu is not None:
                size = self.batch if self._is_fixed else len(pixels)
                results = self._gpu.run(pixels, frames, options, color, size)
                times += [times[-1], time.perf_counter()]
            if results is None:
                host = [_on_host(image) for image in pixels]
                self._preprocess(host, color=color, out=lane.tensor[: len(pixels)])
                times[2:] = [time.perf_counter()]
                outputs = self._infer(lane, self.batch if self._is_fixed else len(pixels))
                times.append(time.perf_counter())
                if self._is_fixed and self.batch > len(frames):
                    outputs = {name: array[: len(frames)] for name, array in outputs.items()}
                results = self._head.decode(outputs, frames, options)
        finally:
            self._lanes.give_back(lane)
        times.append(time.perf_counter())
        milliseconds = [(b - a) * 1e3 / len(images) for a, b in itertools.pairwise(times)]
        for image, result in zip(images, results, strict=True):
            result.source = ImageRef(image, color)
            result.speed = dict(zip(_STAGES, milliseconds, strict=True))
            if not image_io.is_encoded(image):
                del result.speed["decode"]
        return list(results)

    def _infer(self, lane: Lane, count: int) -> Mapping[str, NDArray[Any]]:
        """The outputs for the first images of a lane; its next run may overwrite them."""
        run = lane.runs.get(count)
        if run is None:
            name, tensor = self._input.name, lane.tensor[:count]
            if not isinstance(self._backend, BindingBackend):
                return self._backend.run({name: tensor})
            run = lane.runs[count] = self._backend.bind(name, tensor)
        return run()

    def _pixels(self, image: ImageSource, color: str) -> Pixels:
        if not is_on_device(image):
            return image_io.decode(image, color)
        if self._gpu is None:
            raise _not_here(f"a GPU array ({type(image).__name__})")
        return device_image(image, self._gpu.reader)

    def notes(self) -> list[str]:
        """Lines for people about the path that frames take; none on the CPU."""
        if self._gpu_problem:
            return [f"frames: preprocessed and decoded on the CPU: {self._gpu_problem}"]
        return [] if self._gpu is None else [self._gpu.note()]

    def close(self) -> None:
        """Refuse new calls, and wait for those under way. May be called twice."""
        self._lanes.close()
        if self._gpu is not None:
            self._gpu.close()


def _on_host(image: Pixels) -> NDArray[np.uint8]:
    if isinstance(image, DeviceImage):
        raise _not_here("a GPU array")
    return image


def _not_here(got: str) -> InputDataError:
    return InputDataError(
        "an image in host memory, for frames are preprocessed on the CPU here",
        got=got,
        fix="Copy it to the host, or load the model on the GPU.",
    )


def image_input(recipe: Recipe, inputs: Sequence[TensorInfo]) -> TensorInfo:
    """The graph's image input, checked against the preprocess spec.

    Raises:
        ModelError: not exactly one input, or one of another shape or dtype.
    """
    spec = recipe.preprocess
    shape = spec.tensor_shape()
    fits = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].dtype == spec.dtype
    if fits:
        pairs = list(zip(inputs[0].shape, shape, strict=True))[1:]
        fits = all(isinstance(graph, str) or graph == wanted for graph, wanted in pairs)
    if not fits:
        raise ModelError(
            f"one input of {spec.dtype}[batch, {', '.join(map(str, shape[1:]))}], "
            "as the preprocess spec says",
            got="; ".join(map(str, inputs)) or "no input",
            fix="Correct the preprocess spec (size, layout, color, dtype).",
        )
    return inputs[0]
