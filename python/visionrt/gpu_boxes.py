"""Box heads on the device: decode and NMS kernels, and the block that brings the boxes back.

A head that can do this has ``enqueue_decode``; see :class:`DeviceBoxHead`. The survivors and their
order are those of the head's own ``decode``: the kernels share its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.backends.base import DeviceLane, DeviceTensor
from visionrt.device import Stream, cuda_errors
from visionrt.heads import Frame
from visionrt.options import PredictOptions
from visionrt.preprocess import boxes_to_image
from visionrt.recipe import Recipe
from visionrt.results import Detections

_MAX_CANDIDATES = 30_000  # what the decoders on the CPU keep
_ALIGNMENT = 256
# A row of the result block, as csrc/nms/nms.h has it.
_ROW = np.dtype([("xyxy", np.float32, 4), ("score", np.float32), ("class_id", np.int32)])


@dataclass(frozen=True)
class CandidateBuffers:
    """Device addresses of what a decode kernel writes; ``capacity`` candidates per image."""

    boxes: int
    scores: int
    class_ids: int
    source_index: int
    counts: int
    capacity: int

    def addresses(self) -> tuple[int, int, int, int, int]:
        """In the order the native calls take."""
        return (self.boxes, self.scores, self.class_ids, self.source_index, self.counts)


@runtime_checkable
class DeviceBoxHead(Protocol):
    """A head whose boxes a kernel can decode.

    Attributes:
        constant: float32 array that the kernel reads besides the outputs, or None.
    """

    constant: NDArray[np.float32] | None

    def capacity(self, outputs: Mapping[str, DeviceTensor]) -> int:
        """Most candidates an image can give.

        Raises:
            ModelError: an output has another shape than the head's layout.
        """
        ...

    def enqueue_decode(
        self,
        outputs: Mapping[str, DeviceTensor],
        batch: int,
        confidence: float,
        candidates: CandidateBuffers,
        constant: int,
        stream: int,
    ) -> None:
        """Queue the kernel for the first ``batch`` images. Does not block."""
        ...


class BoxBlock:
    """Memory of one lane for decode, NMS and the results, and the launches on it."""

    def __init__(self, lane: DeviceLane, head: DeviceBoxHead, recipe: Recipe) -> None:
        self._device = lane.device
        self._head = head
        self._recipe = recipe
        self._memory = lane.device.buffer()
        self._constant = lane.device.buffer()
        self._pinned = lane.device.pinned()
        self._layout: _Layout | None = None
        if head.constant is not None:
            self._upload(head.constant, lane.stream)

    def reserve(
        self, outputs: Mapping[str, DeviceTensor], batch: int, options: PredictOptions
    ) -> tuple[int, ...]:
        """Make room; returns what the launches depend on besides ``outputs`` and ``options``."""
        capacity = self._head.capacity(outputs)
        layout = _Layout.of(batch, capacity, min(options.max_det, capacity))
        address = self._memory.reserve(layout.total)
        host = self._pinned.array((layout.block_bytes,), np.uint8)
        self._layout = layout.at(address)
        return (address, self._constant.address, host.ctypes.data, batch, layout.max_det)

    def enqueue(
        self, outputs: Mapping[str, DeviceTensor], options: PredictOptions, stream: Stream
    ) -> None:
        """Queue decode (a fill and a kernel), NMS (two kernels) and one copy to the host."""
        layout = self._layout
        assert layout is not None
        candidates = layout.candidates
        with cuda_errors("decode boxes"):
            self._head.enqueue_decode(
                outputs,
                layout.batch,
                options.confidence,
                candidates,
                self._constant.address,
                stream.handle,
            )
            _core.cuda_nms(
                candidates.boxes,
                candidates.scores,
                candidates.class_ids,
                candidates.source_index,
                candidates.counts,
                layout.batch,
                candidates.capacity,
                options.iou,
                layout.max_det,
                layout.workspace,
                layout.workspace_bytes,
                layout.kept,
                layout.block,
                stream.handle,
                detections=layout.block + layout.rows_offset,
                class_aware=not self._recipe.class_agnostic,
                max_candidates=_MAX_CANDIDATES,
            )
        host = self._pinned.array((layout.block_bytes,), np.uint8)
        self._device.copy_to_host(host, layout.block, stream)

    def detections(self, frames: Sequence[Frame]) -> list[Detections] | None:
        """The results, once the stream has passed the copy.

        None where a box is not finite: FP16 can overflow, and the head on the CPU leaves such
        boxes out before the NMS.
        """
        layout = self._layout
        assert layout is not None
        block = self._pinned.array((layout.block_bytes,), np.uint8)
        counts = block[: 4 * layout.batch].view(np.int32)
        rows = block[layout.rows_offset :].view(_ROW).reshape(layout.batch, layout.max_det)
        found = [rows[i, : counts[i]] for i in range(len(frames))]
        if not all(np.isfinite(some["xyxy"]).all() for some in found):
            return None
        return [
            Detections(
                image_hw=frame.image_hw,
                names=self._recipe.labels,
                xyxy=boxes_to_image(frame.geometry, some["xyxy"]),
                confidence=some["score"].copy(),
                class_id=some["class_id"].copy(),
            )
            for some, frame in zip(found, frames, strict=True)
        ]

    def close(self) -> None:
        """Free the memory. May be called twice."""
        for owned in (self._memory, self._constant, self._pinned):
            owned.close()

    def _upload(self, constant: NDArray[np.float32], stream: Stream) -> None:
        staged = self._pinned.array(constant.shape, np.float32)
        np.copyto(staged, constant)
        with self._device.current():
            address = self._constant.reserve(staged.nbytes)
            self._device.copy_to_device(address, staged, stream)
            stream.synchronize()


@dataclass(frozen=True)
class _Layout:
    """Where the parts lie in one allocation; offsets until :meth:`at`, addresses after."""

    batch: int
    max_det: int
    candidates: CandidateBuffers
    workspace: int
    workspace_bytes: int
    kept: int
    block: int
    block_bytes: int
    rows_offset: int
    total: int

    @classmethod
    def of(cls, batch: int, capacity: int, max_det: int) -> _Layout:
        max_det = max(max_det, 1)
        places = batch * capacity
        workspace = _core.cuda_nms_workspace_bytes(batch, capacity, max_det, _MAX_CANDIDATES)
        # The block: counts int32 [batch], then rows [batch, max_det].
        rows_offset = -(-4 * batch // _ROW.itemsize) * _ROW.itemsize
        block = rows_offset + batch * max_det * _ROW.itemsize
        sizes = [16 * places, 4 * places, 4 * places, 4 * places, 4 * batch]
        sizes += [workspace, 4 * batch * max_det, block]
        starts, end = [], 0
        for size in sizes:
            starts.append(end)
            end += math.ceil(size / _ALIGNMENT) * _ALIGNMENT
        candidates = CandidateBuffers(
            starts[0], starts[1], starts[2], starts[3], starts[4], capacity
        )
        return cls(
            batch=batch,
            max_det=max_det,
            candidates=candidates,
            workspace=starts[5],
            workspace_bytes=workspace,
            kept=starts[6],
            block=starts[7],
            block_bytes=block,
            rows_offset=rows_offset,
            total=end,
        )

    def at(self, address: int) -> _Layout:
        moved: dict[str, Any] = dict(self.__dict__)
        for part in ("workspace", "kept", "block"):
            moved[part] += address
        boxes, scores, class_ids, index, counts = (
            address + offset for offset in self.candidates.addresses()
        )
        capacity = self.candidates.capacity
        moved["candidates"] = CandidateBuffers(boxes, scores, class_ids, index, counts, capacity)
        return _Layout(**moved)
