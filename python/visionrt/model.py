"""The model a user holds: calls, futures, streams, clones, and its end."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from visionrt.backends.base import Backend
from visionrt.errors import UsageError, VisionrtError
from visionrt.image_io import ImageSource
from visionrt.lanes import SharedBackend
from visionrt.options import options_for
from visionrt.pipeline import Pipeline
from visionrt.recipe import Recipe
from visionrt.results import Result
from visionrt.streaming import ordered_results

WORKERS = 2  # threads behind submit and stream: while one is in the engine, the other decodes


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
        decode: ``scaled`` decodes a JPEG at a half, a quarter or an eighth of its size where that
            is no smaller than what the preprocess spec resizes it to; ``exact`` decodes it whole,
            as conversion and verification do. ``auto`` scales where the spec's interpolation is
            ``pil``, which averages over what it leaves out, as the scaled decoder does; cv2's
            skips pixels, and models that are fed so were seen to answer otherwise. Frames that a
            GPU preprocesses are decoded whole.
        open_for_streams: opens an engine that gets more frames done at once than ``backend``, with
            ``workers`` of them under way; called by the first :meth:`stream`, which then uses it.

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
        decode: str = "auto",
        open_for_streams: Callable[[], Backend] | None = None,
        _shared: SharedBackend | None = None,
    ) -> None:
        self.recipe = recipe
        self.backend = backend
        self.name = name
        self._notes = tuple(notes)
        self._max_batch = max_batch
        self._workers = workers
        self._defaults = options_for(recipe)
        self._decode = decode
        self._pipeline = Pipeline(recipe, backend, max_batch=max_batch, decode=decode)
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self._open_for_streams = open_for_streams
        self._for_streams: Model | None = None
        self._shared = _shared or SharedBackend(backend)
        self._shared.acquire()

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
            options: ``confidence``, ``iou``, ``max_det``, ``classes`` (ids or names), ``top_k``,
                ``keep_on_device``; see :func:`visionrt.options.options_for`. Default: the recipe's.
                With ``keep_on_device`` a detector on a GPU returns when the frame is queued, or,
                for images in GPU memory, when they have been read; boxes come to the host when
                they are read, or never (:class:`visionrt.gpu_results.DeviceDetections`).

        Returns:
            A result for one image, a list of results for a list. The class follows the task; see
            :mod:`visionrt.results`.

        Raises:
            InputDataError: an image cannot be used.
            UsageError: an option is out of range, or the model is closed.
        """
        chosen = options_for(self.recipe, **options) if options else self._defaults
        if not isinstance(source, (list, tuple)):
            return self._pipeline.run_one(source, chosen, color)
        size = self._pipeline.batch
        parts = [source[i : i + size] for i in range(0, len(source), size)]
        return [result for part in parts for result in self._pipeline.run(part, chosen, color)]

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
            return self._executor.submit(lambda: self._pipeline.run_one(frame, chosen, color))

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
            lambda frame: self._streaming().submit(frame, **options),
            frames,
            lookahead=2 * self._workers if lookahead is None else lookahead,
            errors=errors,
        )

    def _streaming(self) -> Model:
        """The model that streams run on: this one, or one on an engine opened for them."""
        if self._open_for_streams is None:
            return self
        with self._lock:
            if self._is_closed:
                raise UsageError("an open model", got="a closed one", fix="Load it again.")
            if self._for_streams is None:
                backend = self._open_for_streams()
                try:
                    self._for_streams = Model(
                        self.recipe,
                        backend,
                        max_batch=self._max_batch,
                        workers=self._workers,
                        decode=self._decode,
                    )
                except BaseException:
                    backend.close()
                    raise
            return self._for_streams

    def clone(self) -> Model:
        """Another model on the same loaded engine, with working memory and workers of its own."""
        return Model(
            self.recipe,
            self.backend,
            name=self.name,
            notes=self._notes,
            max_batch=self._max_batch,
            workers=self._workers,
            decode=self._decode,
            open_for_streams=self._open_for_streams,
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
        if self._for_streams is not None:
            self._for_streams.close()
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self._pipeline.close()
        self._shared.release()

    def explain(self) -> str:
        """What runs the model, and why nothing else does; one line each."""
        used = f"used: {self.backend.name} on {self.backend.device}"
        return "\n".join([*(self._notes or (used,)), *self._pipeline.notes()])

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
