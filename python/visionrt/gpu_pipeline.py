"""A frame's path on the GPU: pinned copy → preprocess → engine → decode and NMS → result block.

Everything between the two copies stays on the device, in one stream. Once a shape has run, the
whole sequence is one CUDA graph; see :mod:`visionrt.gpu_graphs`. The results equal those of the
pipeline on the CPU, given equal engine outputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.backends.base import DeviceBackend, DeviceLane
from visionrt.device import Stream, close_with, cuda_errors, device_index, open_device
from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.gpu_boxes import (
    BoxBlock,
    DeviceColumnsHead,
    DeviceRotatedHead,
    can_decode,
    device_head,
)
from visionrt.gpu_graphs import GraphCache
from visionrt.gpu_images import DeviceImage
from visionrt.gpu_tables import WeightTables
from visionrt.heads import Frame, Head
from visionrt.options import PredictOptions
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.results import Result

Pixels: TypeAlias = NDArray[np.uint8] | DeviceImage

_IMAGE_ALIGNMENT = 256  # of each image in the staging memory


class GpuPipeline:
    """Runs batches of decoded images on the lanes of a back end. Safe from several threads.

    Args:
        recipe: thresholds and labels.
        backend: the engine; not owned.
        preprocess: images to tensor.
        head: the decoder on the CPU; also used where the device cannot do its work.
    """

    def __init__(
        self, recipe: Recipe, backend: DeviceBackend, preprocess: Preprocessor, head: Head
    ) -> None:
        self._recipe = recipe
        self._backend = backend
        self._preprocess = preprocess
        self._head = head
        self._frames: dict[int, LaneFrames] = {}
        self._streams: list[Stream] = []
        self._lock = threading.Lock()
        # The values, not self: the finalizer must not keep the owner alive.
        self._close = close_with(self, _closer(self._frames, self._streams))

    def run(
        self,
        pixels: Sequence[Pixels],
        frames: Sequence[Frame],
        options: PredictOptions,
        color: str,
        batch: int,
    ) -> Sequence[Result] | None:
        """One result per image, or None where the engine has outputs of unknown shape; blocks.

        Args:
            pixels: uint8 (height, width, 3), any strides, in host or in device memory. The latter
                are not copied, and must not change until this returns.
            frames: of the same images.
            options: thresholds and filters.
            color: channel order of ``pixels``.
            batch: images in the engine's tensor; those past ``pixels`` hold anything.

        Raises:
            InputDataError: no profile takes the batch.
            MissingDependencyError: the GPU or its memory failed.
        """
        with self._backend.lane() as lane, lane.device.current():
            return self._on(lane).run(pixels, frames, options, color, batch)

    def note(self) -> str:
        """One line for people: what runs where, and whether by CUDA graphs."""
        frames_made = list(self._frames.values())
        on_device = device_head(self._head) is not None and not any(
            frames.had_other_outputs for frames in frames_made
        )
        where = "boxes by kernels on the GPU" if on_device else "outputs on the CPU"
        problems = {frames.graphs.problem for frames in frames_made} - {""}
        graphs = f"no CUDA graphs: {'; '.join(sorted(problems))}" if problems else "CUDA graphs"
        return f"frames: preprocessed on the GPU, {where}, {graphs}"

    def reader(self) -> tuple[int, int]:
        """The GPU's number, and a stream on it that owners of images may make wait for them.

        One stream for all callers, on which nothing but such waits is queued; a lane waits for it.
        """
        with self._lock:
            if not self._streams:
                self._streams.append(open_device(device_index(self._backend.device)).stream())
            stream = self._streams[0]
        return stream.device.info.index, stream.handle

    def close(self) -> None:
        """Release graphs and memory; no call may be under way. May be called twice."""
        self._close()

    def _on(self, lane: DeviceLane) -> LaneFrames:
        with self._lock:
            frames = self._frames.get(id(lane))
            if frames is None:
                frames = LaneFrames(lane, self._recipe, self._preprocess, self._head)
                self._frames[id(lane)] = frames
            return frames


def _closer(all_frames: dict[int, LaneFrames], streams: list[Stream]) -> Callable[[], None]:
    def close() -> None:
        while all_frames:
            all_frames.popitem()[1].close()
        while streams:
            streams.pop().close()

    return close


@dataclass(frozen=True)
class _Work:
    """What a frame's launches depend on, the engine's binding aside; the key of its graph."""

    images: tuple[tuple[int, int, int, int], ...]  # device address, height, width, row bytes
    tables: tuple[int, ...]  # device addresses of the images' resize weights
    color: str
    addresses: tuple[int, ...]
    options: PredictOptions | None  # None: the outputs go to the host as they are


class LaneFrames:
    """One lane's frames: staging memory, preprocessing, result block, graphs."""

    def __init__(
        self, lane: DeviceLane, recipe: Recipe, preprocess: Preprocessor, head: Head
    ) -> None:
        self._lane = lane
        self._spec = recipe.preprocess
        self._plan = preprocess.plan
        self._head = head
        device = lane.device
        self._over = device.event(timing=False)  # of the last frame that was left running
        self._staged = device.pinned()
        self._source = device.buffer()
        self._tables = WeightTables(preprocess.plan, lane.stream)
        self._device_head = device_head(head)
        self._boxes = BoxBlock(lane, self._device_head, recipe) if self._device_head else None
        self._generation = -1
        self.had_other_outputs = False  # that the box kernels do not read
        self._is_closed = False
        self.graphs = GraphCache(lane.stream)

    def run(
        self,
        pixels: Sequence[Pixels],
        frames: Sequence[Frame],
        options: PredictOptions,
        color: str,
        batch: int,
    ) -> Sequence[Result] | None:
        """See :meth:`GpuPipeline.run`. The context must be current."""
        lane = self._lane
        if not self._bind(batch):
            return None
        work, staged = self._prepare(pixels, options, color)
        keeps = work.options is not None and work.options.keep_on_device
        is_left = False
        try:
            self.graphs.run(work, batch, lambda: self._enqueue(work, staged, frames))
            if self._boxes is not None and keeps:
                results = self._boxes.kept(frames, lane.stream)
                # The caller may overwrite an image of its own as soon as this returns.
                if not any(isinstance(image, DeviceImage) for image in pixels):
                    self._over.record(lane.stream)
                    lane.leave_running()
                    is_left = True
                return results
        finally:
            # After an error too: queued copies still use the page-locked memory.
            if not is_left:
                lane.stream.synchronize()
        if self._boxes is not None and work.options is not None:
            return self._boxes.detections(lane.outputs(), frames, lane.stream)
        # The page-locked arrays are written again by the next frame, so results get copies. Only a
        # padded batch is cut: an output may have no batch axis.
        count = len(frames) if batch > len(frames) else None
        host = {name: array[:count].copy() for name, array in lane.host_outputs().items()}
        return self._head.decode(host, frames, options)

    def close(self) -> None:
        """Release the graphs, then the memory they use. May be called twice."""
        with self._lane.device.current():
            # The event, not the stream, on which another model's frame may be being recorded.
            if not self._is_closed:
                with contextlib.suppress(MissingDependencyError):  # told by the frame's results
                    self._over.synchronize()
            self._is_closed = True
            self.graphs.clear()
        if self._boxes is not None:
            self._boxes.close()
        for owned in (self._over, self._staged, self._source, self._tables):
            owned.close()

    def _bind(self, batch: int) -> bool:
        """Bind the engine; False where its outputs cannot be planned for."""
        lane = self._lane
        is_planned = lane.bind(self._spec.tensor_shape(batch))
        if lane.generation != self._generation:
            self.graphs.clear()
            self._generation = lane.generation
        problem = lane.capture_problem()
        if problem:
            self.graphs.stop(problem)
        return is_planned

    def _prepare(
        self, pixels: Sequence[Pixels], options: PredictOptions, color: str
    ) -> tuple[_Work, NDArray[np.uint8]]:
        """Stage the images and make room for everything: recorded work must not allocate."""
        starts, end = [], 0
        for image in pixels:
            starts.append(end)
            if not isinstance(image, DeviceImage):
                end += math.ceil(image.size / _IMAGE_ALIGNMENT) * _IMAGE_ALIGNMENT
        staged = self._staged.array((end,), np.uint8)
        source = self._source.reserve(end)
        images = []
        for image, start in zip(pixels, starts, strict=True):
            if isinstance(image, DeviceImage):
                images.append((image.address, image.height, image.width, image.row_bytes))
                if image.stream is not None:
                    self._wait_for(image.stream)
            else:
                np.copyto(staged[start : start + image.size].reshape(image.shape), image)
                height, width = image.shape[:2]
                images.append((source + start, height, width, 3 * width))
        sizes = [(height, width) for _, height, width, _ in images]
        try:
            tables = self._tables.addresses(sizes)
        except ValueError as error:
            raise InputDataError(
                "images that the preprocess spec takes", got=str(error), fix="Check their sizes."
            ) from error
        outputs = self._lane.outputs()
        addresses: tuple[int, ...] = (staged.ctypes.data, end)
        head = self._device_head
        on_device = head is not None and can_decode(head, outputs, options)
        self.had_other_outputs = head is not None and not on_device
        if self._boxes is not None and on_device:
            if isinstance(head, (DeviceRotatedHead, DeviceColumnsHead)):
                options = dataclasses.replace(options, keep_on_device=False)
            addresses += self._boxes.reserve(outputs, len(pixels), options)
            return _Work(tuple(images), tables, color, addresses, options), staged
        addresses += tuple(a.ctypes.data for a in self._lane.host_outputs().values())
        return _Work(tuple(images), tables, color, addresses, None), staged

    def _wait_for(self, stream: int) -> None:
        """Queue a wait for what the owner of an image has queued; nothing on the host waits."""
        with cuda_errors("wait for another stream"):
            _core.wait_for_stream(self._lane.stream.handle, stream)

    def _enqueue(self, work: _Work, staged: NDArray[np.uint8], frames: Sequence[Frame]) -> None:
        """Queue the whole frame."""
        lane = self._lane
        stream = lane.stream
        lane.device.copy_to_device(self._source.address, staged, stream)
        with cuda_errors("preprocess images"):
            self._plan.run_cuda(
                work.images,
                lane.input_address(),
                work.tables,
                stream.handle,
                work.color,
            )
        lane.enqueue()
        if self._boxes is not None and work.options is not None:
            self._boxes.enqueue(lane.outputs(), frames, work.options, stream)
        else:
            lane.queue_download()
