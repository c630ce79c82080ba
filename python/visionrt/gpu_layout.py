"""Where candidates, workspace and results of a lane lie in its memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.heads.boxes import MAX_CANDIDATES

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


@dataclass(frozen=True)
class Layout:
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
    extra_offset: int
    extra_columns: int
    total: int

    row_words = ROW.itemsize // 4

    def rows(self, block: NDArray[np.uint8], image: int) -> NDArray[Any]:
        """The rows of one image, of ``ROW``, in a copy of the block; best first."""
        counts = block[: 4 * self.batch].view(np.int32)
        rows = (
            block[self.rows_offset : self.extra_offset].view(ROW).reshape(self.batch, self.max_det)
        )
        found: NDArray[Any] = rows[image, : counts[image]]
        return found

    def extra(self, block: NDArray[np.uint8], image: int) -> NDArray[np.float32]:
        """The further columns of the rows of one image, float32 [n, extra_columns]."""
        values = block[self.extra_offset :].view(np.float32)
        shape = (self.batch, self.max_det, self.extra_columns)
        counts = block[: 4 * self.batch].view(np.int32)
        found: NDArray[np.float32] = values.reshape(shape)[image, : counts[image]]
        return found

    @classmethod
    def of(
        cls,
        workspace_bytes: Callable[..., int],
        batch: int,
        capacity: int,
        max_det: int,
        extra_columns: int = 0,
    ) -> Layout:
        """Of ``batch`` images with ``capacity`` candidates each.

        Args:
            workspace_bytes: what the NMS asks for, of batch, capacity, max_det and max_candidates.
            extra_columns: float32 columns that come with each row.
        """
        max_det = max(max_det, 1)
        places = batch * capacity
        workspace = workspace_bytes(batch, capacity, max_det, MAX_CANDIDATES)
        # The block: counts int32 [batch], rows [batch, max_det], extra columns of the same.
        rows_offset = -(-4 * batch // ROW.itemsize) * ROW.itemsize
        extra_offset = rows_offset + batch * max_det * ROW.itemsize
        block = extra_offset + 4 * batch * max_det * extra_columns
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
            extra_offset=extra_offset,
            extra_columns=extra_columns,
            total=end,
        )

    def at(self, address: int) -> Layout:
        """The same, in an allocation at an address."""
        moved: dict[str, Any] = dict(self.__dict__)
        for part in ("workspace", "kept", "block"):
            moved[part] += address
        boxes, scores, class_ids, index, counts = (
            address + offset for offset in self.candidates.addresses()
        )
        capacity = self.candidates.capacity
        moved["candidates"] = CandidateBuffers(boxes, scores, class_ids, index, counts, capacity)
        return Layout(**moved)
