"""Box heads on the device: decode and NMS kernels, and the block that brings the boxes back.

A head that can do this has ``enqueue_decode``; see :class:`DeviceBoxHead`. The survivors, their
order and their numbers are those of the head's own ``decode``: the kernels share its arithmetic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.backends.base import DeviceLane, DeviceTensor
from visionrt.device import Stream, cuda_errors
from visionrt.gpu_layout import CandidateBuffers, Layout
from visionrt.gpu_result_pool import KeptMemory, ResultPool
from visionrt.gpu_results import DeviceDetections, ResultBlock
from visionrt.heads import Frame, Head
from visionrt.heads.boxes import MAX_CANDIDATES
from visionrt.heads.yolo_columns import Rows
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Detections, Result


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


@dataclass(frozen=True)
class Columns:
    """Where further float32 columns of anchors lie, strides in elements."""

    address: int
    image_stride: int
    anchor_stride: int
    column_stride: int
    classes: int
    columns: int


@runtime_checkable
class DeviceColumnsHead(DeviceBoxHead, Protocol):
    """A head that makes more of a box from further columns, on the host.

    Attributes:
        kept_output: an output that its results need and that stays on the device, or None.
    """

    kept_output: str | None

    def columns(self, outputs: Mapping[str, DeviceTensor]) -> Columns:
        """Where the columns are."""
        ...

    def result(
        self, rows: Rows, frame: Frame, kept: KeptMemory | None, image: int, shape: tuple[int, ...]
    ) -> Result:
        """The result of what was kept, best first; the arrays are the result's own.

        Args:
            rows: boxes in pixels of the tensor.
            frame: of the image.
            kept: a copy of ``kept_output`` of the whole batch; None where nothing was found.
            image: which of the batch.
            shape: of ``kept_output``.
        """
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
        self._pool: ResultPool | None = None
        self._layout: Layout | None = None
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
        columns = 0
        if isinstance(self._head, DeviceColumnsHead):
            columns = self._head.columns(outputs).columns
        max_det = min(options.max_det, capacity)
        layout = Layout.of(workspace_bytes, batch, capacity, max_det, columns)
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

        Without the copy where the boxes are to stay on the device.

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
            elif isinstance(head, DeviceColumnsHead):
                extra = head.columns(outputs)
                out = layout.block + layout.extra_offset
                _core.cuda_nms(**arguments, extra=(*dataclasses.astuple(extra), out))
            else:
                _core.cuda_nms(**arguments, geometries=[frame.geometry for frame in frames])
        if not options.keep_on_device:
            host = self._pinned.array((layout.block_bytes,), np.uint8)
            self._device.copy_to_host(host, layout.block, stream)

    def kept(self, frames: Sequence[Frame], stream: Stream) -> list[Detections]:
        """The results of what was queued with ``keep_on_device``. Does not wait.

        Raises:
            MissingDependencyError: the GPU failed, or has too little memory.
        """
        layout = self._now()
        block = ResultBlock(self._keep(layout.block, layout.block_bytes, stream), layout)
        return [
            DeviceDetections(block, i, image_hw=frame.image_hw, names=self._recipe.labels)
            for i, frame in enumerate(frames)
        ]

    def detections(
        self, outputs: Mapping[str, DeviceTensor], frames: Sequence[Frame], stream: Stream
    ) -> list[Result]:
        """The results, once the stream has passed the copy.

        Raises:
            MissingDependencyError: there is too little memory for what results keep.
        """
        layout = self._now()
        block = self._pinned.array((layout.block_bytes,), np.uint8)
        found = [layout.rows(block, i) for i in range(len(frames))]
        head = self._head
        if not isinstance(head, DeviceColumnsHead):
            return [self._result(rows, frame) for rows, frame in zip(found, frames, strict=True)]
        kept: KeptMemory | None = None
        shape: tuple[int, ...] = ()
        if head.kept_output is not None:
            output = outputs[head.kept_output]
            shape = output.shape
            if any(map(len, found)):
                size = output.dtype.itemsize * math.prod((len(frames), *shape[1:]))
                kept = self._keep(output.address, size, stream)
        results = []
        for i, (rows, frame) in enumerate(zip(found, frames, strict=True)):
            extra = layout.extra(block, i).copy()
            own = Rows(rows["xyxy"].copy(), rows["score"].copy(), rows["class_id"].copy(), extra)
            results.append(head.result(own, frame, kept, i, shape))
        return results

    def _keep(self, address: int, size: int, stream: Stream) -> KeptMemory:
        if self._pool is None:
            self._pool = ResultPool(self._device)
        return self._pool.keep(address, size, stream)

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

    def _now(self) -> Layout:
        assert self._layout is not None, "reserve comes first"
        return self._layout

    def close(self) -> None:
        """Free the memory, but for what results hold. May be called twice."""
        if self._pool is not None:
            self._pool.retire()
        for owned in (self._memory, self._constant, self._pinned):
            owned.close()

    def _upload(self, constant: NDArray[np.float32], stream: Stream) -> None:
        staged = self._pinned.array(constant.shape, np.float32)
        np.copyto(staged, constant)
        with self._device.current():
            address = self._constant.reserve(staged.nbytes)
            self._device.copy_to_device(address, staged, stream)
            stream.synchronize()
