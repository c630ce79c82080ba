"""The whole path of a frame: image → preprocess → engine → decode and postprocess → result."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from visionrt import image_io
from visionrt.backends.base import Backend
from visionrt.errors import ModelError, UsageError, VisionrtError
from visionrt.heads import Frame, head_for
from visionrt.image_io import ImageSource
from visionrt.lanes import LanePool, SharedBackend
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions, options_for
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import ImageRef, Result
from visionrt.streaming import ordered_results

WORKERS = 2  # threads behind submit and stream: while one is in the engine, the other decodes

_STAGES = ("decode", "preprocess", "inference", "postprocess")


class Model:
    """A recipe and an engine, ready to be called. Safe from several threads.

    Use as a context manager, or call :meth:`close`.

    Args:
        recipe: task, head, labels, preprocess spec and default thresholds.
        backend: the engine; closed with the model, or with the last of its clones.
        name: for people.
        notes: lines for :meth:`explain`: why this back end.
        max_batch: most images per run where the graph's batch is not fixed.
        workers: threads behind :meth:`submit` and :meth:`stream`.

    Raises:
        ModelError: the graph's input does not fit the recipe's preprocess spec.
        UsageError: the recipe's head options do not fit the graph's outputs.
    """

    def __init__(
        self,
        recipe: Recipe,
        backend: Backend,
        *,
        name: str = "",
        notes: Sequence[str] = (),
        max_batch: int = 8,
        workers: int = WORKERS,
        _shared: SharedBackend | None = None,
    ) -> None:
        self.recipe = recipe
        self.backend = backend
        self.name = name
        self._notes = tuple(notes)
        self._workers = workers
        self._input = image_input(recipe, backend.inputs)
        fixed_batch = self._input.shape[0]
        self._is_fixed = isinstance(fixed_batch, int)
        limit = max_batch if backend.max_batch is None else min(max_batch, backend.max_batch)
        self._batch = fixed_batch if isinstance(fixed_batch, int) else limit
        self._preprocess = Preprocessor(recipe.preprocess)
        self._head = head_for(recipe, backend.outputs)
        spec = recipe.preprocess
        self._lanes = LanePool(spec.tensor_shape(self._batch), spec.dtype)
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._shared = _shared or SharedBackend(backend)
        self._shared.acquire()

    def _run(
        self, images: Sequence[ImageSource], options: PredictOptions, color: str
    ) -> list[Result]:
        times = [time.perf_counter()]
        pixels = [image_io.decode(image, color) for image in images]
        times.append(time.perf_counter())
        with self._lanes.lane() as tensor:
            batch = self._preprocess(pixels, color=color, out=tensor[: len(pixels)])
            frames = [Frame(p.shape[:2], self._preprocess.geometry(*p.shape[:2])) for p in pixels]
            times.append(time.perf_counter())
            feed = tensor if self._is_fixed else batch
            outputs = self.backend.run({self._input.name: feed})
            times.append(time.perf_counter())
            if len(feed) > len(frames):
                outputs = {name: array[: len(frames)] for name, array in outputs.items()}
            results = list(self._head.decode(outputs, frames, options))
        times.append(time.perf_counter())
        milliseconds = [(b - a) * 1e3 / len(images) for a, b in itertools.pairwise(times)]
        for image, result in zip(images, results, strict=True):
            result.source = ImageRef(image, color)
            result.speed = dict(zip(_STAGES, milliseconds, strict=True))
            if not image_io.is_encoded(image):
                del result.speed["decode"]
        return results

    @overload
    def __call__(self, source: list[Any] | tuple[Any, ...], **options: Any) -> list[Result]: ...

    @overload
    def __call__(self, source: ImageSource, **options: Any) -> Any: ...

    def __call__(self, source: Any, *, color: str = "bgr", **options: Any) -> Any:
        """Predict; blocks.

        Args:
            source: a path, encoded bytes, an array of shape (h, w), (h, w, 1), (h, w, 3) or
                (h, w, 4) and type uint8, or a PIL image; or a list or tuple of those.
            color: channel order of arrays, ``bgr`` or ``rgb``.
            options: ``confidence``, ``iou``, ``max_det``, ``classes`` (ids or names), ``top_k``;
                see :func:`visionrt.options.options_for`. Default: the recipe's.

        Returns:
            A result for one image, a list of results for a list. The class follows the task; see
            :mod:`visionrt.results`.

        Raises:
            InputDataError: an image cannot be used.
            UsageError: an option is out of range, or the model is closed.
        """
        chosen = options_for(self.recipe, **options)
        if not isinstance(source, (list, tuple)):
            return self._run([source], chosen, color)[0]
        parts = range(0, len(source), self._batch)
        return [r for i in parts for r in self._run(source[i : i + self._batch], chosen, color)]

    def submit(
        self, frame: ImageSource, *, color: str = "bgr", **options: Any
    ) -> concurrent.futures.Future[Any]:
        """Predict in a worker thread; does not block. The future gives a result, or the error.

        An array must not be changed until then. Nothing bounds how many frames wait.
        """
        chosen = options_for(self.recipe, **options)
        with self._lock:
            if self._is_closed:
                raise UsageError("an open model", got="a closed one", fix="Load it again.")
            if self._executor is None:
                self._executor = concurrent.futures.ThreadPoolExecutor(
                    self._workers, thread_name_prefix="visionrt"
                )
            return self._executor.submit(lambda: self._run([frame], chosen, color)[0])

    @overload
    def stream(
        self,
        frames: Iterable[ImageSource],
        *,
        lookahead: int | None = None,
        errors: Literal["raise"] = "raise",
        **options: Any,
    ) -> Iterator[Any]: ...

    @overload
    def stream(
        self,
        frames: Iterable[ImageSource],
        *,
        lookahead: int | None = None,
        errors: Literal["return"],
        **options: Any,
    ) -> Iterator[Any | VisionrtError]: ...

    def stream(
        self,
        frames: Iterable[ImageSource],
        *,
        lookahead: int | None = None,
        errors: str = "raise",
        **options: Any,
    ) -> Iterator[Any]:
        """Predict many frames; decode, engine and postprocess of different frames overlap.

        Yields results in the frames' order, and reads at most ``lookahead`` frames (default: twice
        the workers) ahead; these must not be changed meanwhile. See
        :func:`visionrt.streaming.ordered_results` for ``errors`` and for stopping early.
        """
        return ordered_results(
            lambda frame: self.submit(frame, **options),
            frames,
            lookahead=2 * self._workers if lookahead is None else lookahead,
            errors=errors,
        )

    def clone(self) -> Model:
        """Another model on the same loaded engine, with working memory and workers of its own."""
        return Model(
            self.recipe,
            self.backend,
            name=self.name,
            notes=self._notes,
            max_batch=self._batch,
            workers=self._workers,
            _shared=self._shared,
        )

    def warmup(self, n: int = 3) -> None:
        """Run ``n`` times on a grey image, so that later calls are not the first ones."""
        grey = np.full((*self.recipe.preprocess.size, 3), 114, np.uint8)
        for _ in range(n):
            self(grey)

    def close(self) -> None:
        """Wait for calls under way, cancel those that wait, release the engine. May be repeated."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self._lanes.close()
        self._shared.release()

    def explain(self) -> str:
        """What runs the model, and why nothing else does; one line each."""
        used = f"used: {self.backend.name} on {self.backend.device}"
        return "\n".join(self._notes or (used,))

    @property
    def task(self) -> str:
        """``classify``, ``detect``, ``segment`` or ``keypoints``."""
        return self.recipe.task

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by class id; may be empty."""
        return self.recipe.labels

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return self.backend.device

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self.name} ({self.task}) on {self.device} by {self.backend.name}>"


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
