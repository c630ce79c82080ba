"""The whole path of a frame: image → preprocess → engine → decode and postprocess → result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import image_io
from visionrt._fastpath import image_shape
from visionrt.backends.base import Backend, BindingBackend, DeviceBackend
from visionrt.errors import InputDataError, ModelError, UsageError
from visionrt.gpu_images import DeviceImage, device_image, is_on_device
from visionrt.heads import Frame, head_for
from visionrt.image_io import COLORS, ImageSource
from visionrt.lanes import Lane, LanePool
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import ImageRef, Result

if TYPE_CHECKING:
    from visionrt.gpu_pipeline import GpuPipeline, Pixels

RGB_CHANNELS = 3
DECODES = ("auto", "scaled", "exact")


class Pipeline:
    """A recipe and an engine put together. Safe from several threads.

    Args:
        recipe: task, head, labels and preprocess spec.
        backend: the engine; not owned.
        max_batch: most images per run where the graph's batch is not fixed.
        decode: ``auto``, ``scaled`` or ``exact``; see :class:`visionrt.model.Model`.

    Attributes:
        batch: most images that :meth:`run` takes.

    Raises:
        ModelError: the graph's input does not fit the preprocess spec.
        UsageError: the recipe's head options do not fit the graph's outputs, or another ``decode``.
    """

    def __init__(
        self, recipe: Recipe, backend: Backend, *, max_batch: int, decode: str = "auto"
    ) -> None:
        self._backend = backend
        self._input = image_input(recipe, backend.inputs)
        fixed = self._input.shape[0]
        limit = max_batch if backend.max_batch is None else min(max_batch, backend.max_batch)
        self._is_fixed = isinstance(fixed, int)
        self.batch = fixed if isinstance(fixed, int) else limit
        self._takes_one = not isinstance(fixed, int) or fixed == 1
        self._preprocess = Preprocessor(recipe.preprocess)
        self._divisor_for = _divisor_for(decode, self._preprocess)
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
        read = [self._pixels(image, color) for image in images]
        times.append(time.perf_counter())
        lane = self._lanes.take()
        try:
            pixels = [image for image, _ in read]
            frames = [Frame(hw, self._preprocess.geometry(*hw)) for _, hw in read]
            results: Sequence[Result] | None = None
            if self._gpu is not None:
                size = self.batch if self._is_fixed else len(pixels)
                results = self._gpu.run(pixels, frames, options, color, size)
                times += [times[-1], time.perf_counter()]
            if results is None:
                host = [_on_host(image) for image in pixels]
                self._preprocess.fill(host, color, lane.tensor[: len(pixels)])
                times[2:] = [time.perf_counter()]
                outputs = self._infer(lane, self.batch if self._is_fixed else len(pixels))
                times.append(time.perf_counter())
                if self._is_fixed and self.batch > len(frames):
                    outputs = {name: array[: len(frames)] for name, array in outputs.items()}
                results = self._head.decode(outputs, frames, options)
        finally:
            self._lanes.give_back(lane)
        times.append(time.perf_counter())
        each_ms = 1e3 / len(images)
        t0, t1, t2, t3, t4 = times
        for image, result in zip(images, results, strict=True):
            result.source = ImageRef(image, color)
            speed = {"decode": (t1 - t0) * each_ms} if image_io.is_encoded(image) else {}
            speed["preprocess"] = (t2 - t1) * each_ms
            speed["inference"] = (t3 - t2) * each_ms
            speed["postprocess"] = (t4 - t3) * each_ms
            result.speed = speed
        return list(results)

    def run_one(self, image: ImageSource, options: PredictOptions, color: str) -> Result:
        """As :meth:`run`, of one image; blocks.

        An array in host memory, for an engine there, takes the shortest way: an engine of some
        milliseconds has pushed this code and its data out of the caches, and what is not touched
        is not missed.
        """
        if type(image) is not np.ndarray or self._gpu is not None or color not in COLORS:
            return self.run([image], options, color)[0]
        started = time.perf_counter()
        shape = image_shape(image)
        if shape is None or not (shape[2] == RGB_CHANNELS and shape[3]) or not self._takes_one:
            return self.run([image], options, color)[0]
        hw = (shape[0], shape[1])
        lane = self._lanes.take()
        try:
            frame = Frame(hw, self._preprocess.geometry(*hw))
            self._preprocess.fill([image], color, lane.first)
            filled = time.perf_counter()
            run = lane.runs.get(1)
            outputs = self._infer(lane, 1) if run is None else run()
            ran = time.perf_counter()
            (result,) = self._head.decode(outputs, (frame,), options)
        finally:
            self._lanes.give_back(lane)
        result.source = ImageRef(image, color)
        result.speed = {
            "preprocess": (filled - started) * 1e3,
            "inference": (ran - filled) * 1e3,
            "postprocess": (time.perf_counter() - ran) * 1e3,
        }
        return result

    def _infer(self, lane: Lane, count: int) -> Mapping[str, NDArray[Any]]:
        """The outputs for the first images of a lane; its next run may overwrite them."""
        run = lane.runs.get(count)
        if run is None:
            name, tensor = self._input.name, lane.tensor[:count]
            if not isinstance(self._backend, BindingBackend):
                return self._backend.run({name: tensor})
            run = lane.runs[count] = self._backend.bind(name, tensor)
        return run()

    def _pixels(self, image: ImageSource, color: str) -> tuple[Pixels, tuple[int, int]]:
        """The image, which may be a JPEG decoded smaller, and the size it has in full."""
        if not is_on_device(image):
            # On a GPU resizing is cheap, and its kernels place an image by the size that comes.
            divisor_for = self._divisor_for if self._gpu is None else _whole
            return image_io.decode_for(image, color, divisor_for)
        if self._gpu is None:
            raise _not_here(f"a GPU array ({type(image).__name__})")
        found = device_image(image, self._gpu.reader)
        return found, found.shape[:2]

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


def _divisor_for(decode: str, preprocess: Preprocessor) -> Callable[[int, int], int]:
    if decode not in DECODES:
        raise UsageError(
            f"decode: {' | '.join(DECODES)}", got=repr(decode), fix="Give one of them."
        )
    is_scaled = decode == "scaled"
    if decode == "auto":
        is_scaled = preprocess.spec.interpolation == "pil"
    return preprocess.jpeg_divisor if is_scaled else _whole


def _whole(height: int, width: int) -> int:
    return 1


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
