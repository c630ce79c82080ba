"""Box heads on the device: decode and NMS kernels, and the block that brings the boxes back.

A head that can do this has ``enqueue_decode``; see :class:`DeviceBoxHead`. The survivors, their
order and their numbers are those of the head's own ``decode``: the kernels share its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.backends.base import DeviceLane, DeviceTensor
from visionrt.device import Stream, cuda_errors
from visionrt.heads import Frame, Head
from visionrt.heads.boxes import MAX_CANDIDATES
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections

_ALIGNMENT = 256
# A row of the result block, as csrc/nms/result_rows.h has it. ``extra`` is the class as a number,
# or the angle of a rotated box.
ROW = np.dtype(
    [
        ("xyxy", np.float32, 4),
        ("score", np.float32),
        ("extra", np.float32),
        ("class_id", np.int32),
        ("source", np.int32),
    ]
)


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
        decodes_on_device: false where the head's options ask for what no kernel does.
        reads_float16: whether the outputs may be float16; they may always be float32.
    """

    constant: NDArray[np.float32] | None
    decodes_on_device: bool
    reads_float16: bool

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


@dataclass(frozen=True)
class Angles:
    """Where the angles of anchors lie: float32, strides in elements, by ``source // classes``."""

    address: int
    image_stride: int
    anchor_stride: int
    classes: int


@runtime_checkable
class DeviceRotatedHead(DeviceBoxHead, Protocol):
    """A head whose boxes are turned. Its rows come back in pixels of the tensor."""

    def angles(self, outputs: Mapping[str, DeviceTensor]) -> Angles:
        """Where the angles are."""
        ...

    def result(
        self,
        upright: NDArray[np.float32],
        angles: NDArray[np.float32],
        score: NDArray[np.float32],
        class_id: NDArray[np.int32],
        frame: Frame,
    ) -> Detections:
        """The result of what was kept, best first; the arrays are the result's own."""
        ...


def device_head(head: Head) -> DeviceBoxHead | None:
    """The head, where kernels can decode its boxes."""
    return head if isinstance(head, DeviceBoxHead) and head.decodes_on_device else None


def can_decode(
    head: DeviceBoxHead, outputs: Mapping[str, DeviceTensor], options: PredictOptions
) -> bool:
    """Whether the kernels read outputs of these types, and know the wanted classes."""
    kinds = {tensor.dtype for tensor in outputs.values()}
    allowed = [np.float32, np.float16] if head.reads_float16 else [np.float32]
    highest = max(options.classes, default=0) if options.classes is not None else 0
    return (
        len(kinds) == 1
        and kinds <= set(map(np.dtype, allowed))
        and (highest < _core.max_filter_classes)
    )


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
        rotated = isinstance(self._head, DeviceRotatedHead)
        workspace_bytes = (
            _core.cuda_nms_rotated_workspace_bytes if rotated else _core.cuda_nms_workspace_bytes
        )
        layout = _Layout.of(workspace_bytes, batch, capacity, min(options.max_det, capacity))
        address = self._memory.reserve(layout.total)
        host = self._pinned.array((layout.block_bytes,), np.uint8)
        self._layout = layout.at(address)
        return (address, self._constant.address, host.ctypes.data, batch, layout.max_det)

    def enqueue(
        self,
        outputs: Mapping[str, DeviceTensor],
        frames: Sequence[Frame],
        options: PredictOptions,
        stream: Stream,
    ) -> None:
        """Queue decode (a fill and a kernel), NMS (three kernels) and one copy to the host.

        Infinite boxes, which FP16 can give, and unwanted classes are left out before the NMS.
        """
        layout = self._now()
        candidates, head = layout.candidates, self._head
        with cuda_errors("decode boxes"):
            head.enqueue_decode(
                outputs,
                layout.batch,
                options.confidence,
                candidates,
                self._constant.address,
                stream.handle,
            )
            arguments: dict[str, Any] = {
                "boxes": candidates.boxes,
                "scores": candidates.scores,
                "class_ids": candidates.class_ids,
                "source_index": candidates.source_index,
                "counts": candidates.counts,
                "batch": layout.batch,
                "capacity": candidates.capacity,
                "iou_threshold": options.iou,
                "max_det": layout.max_det,
                "workspace": layout.workspace,
                "workspace_bytes": layout.workspace_bytes,
                "kept": layout.kept,
                "kept_counts": layout.block,
                "stream": stream.handle,
                "detections": layout.block + layout.rows_offset,
                "class_aware": not self._recipe.class_agnostic,
                "max_candidates": MAX_CANDIDATES,
                "finite_only": True,
                "classes": options.classes,
            }
            if isinstance(head, DeviceRotatedHead):
                where = head.angles(outputs)
                _core.cuda_nms_rotated(
                    **arguments,
                    angles=where.address,
                    image_stride=where.image_stride,
                    anchor_stride=where.anchor_stride,
                    num_classes=where.classes,
                )
            else:
                _core.cuda_nms(**arguments, geometries=[frame.geometry for frame in frames])
        host = self._pinned.array((layout.block_bytes,), np.uint8)
        self._device.copy_to_host(host, layout.block, stream)

    def detections(self, frames: Sequence[Frame]) -> list[Detections]:
        """The results, once the stream has passed the copy."""
        layout = self._now()
        block = self._pinned.array((layout.block_bytes,), np.uint8)
        return [self._result(layout.rows(block, i), frame) for i, frame in enumerate(frames)]

    def _result(self, rows: NDArray[Any], frame: Frame) -> Detections:
        # The block is written again by the next frame, so results get copies.
        xyxy, score, class_id = (rows[name].copy() for name in ("xyxy", "score", "class_id"))
        if isinstance(self._head, DeviceRotatedHead):
            return self._head.result(xyxy, rows["extra"].copy(), score, class_id, frame)
        return Detections(
            image_hw=frame.image_hw,
            names=self._recipe.labels,
            xyxy=xyxy,
            confidence=score,
            class_id=class_id,
        )

    def _now(self) -> _Layout:
        assert self._layout is not None, "reserve comes first"
        return self._layout

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

    def rows(self, block: NDArray[np.uint8], image: int) -> NDArray[Any]:
        """The rows of one image, of ``ROW``, in a copy of the block; best first."""
        counts = block[: 4 * self.batch].view(np.int32)
        rows = block[self.rows_offset :].view(ROW).reshape(self.batch, self.max_det)
        found: NDArray[Any] = rows[image, : counts[image]]
        return found

    @classmethod
    def of(
        cls, workspace_bytes: Callable[..., int], batch: int, capacity: int, max_det: int
    ) -> _Layout:
        max_det = max(max_det, 1)
        places = batch * capacity
        workspace = workspace_bytes(batch, capacity, max_det, MAX_CANDIDATES)
        # The block: counts int32 [batch], then rows [batch, max_det].
        rows_offset = -(-4 * batch // ROW.itemsize) * ROW.itemsize
        block = rows_offset + batch * max_det * ROW.itemsize
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
