"""Tables of resize weights in device memory, one for each image size that a lane has met lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from visionrt._core import PreprocessPlan
from visionrt.device import DeviceBuffer, Stream

LIMIT = 16  # kept; a 1080p image needs 50 kB at 640 x 640

Size = tuple[int, int]


class WeightTables:
    """What ``PreprocessPlan.run_cuda`` wants besides the images, in pil mode; nothing in cv2 mode.

    For one lane: what is queued on its stream must be over when a table is asked for, because the
    least used one may give up its place.
    """

    def __init__(self, plan: PreprocessPlan, stream: Stream) -> None:
        self._plan = plan
        self._stream = stream
        self._pinned = stream.device.pinned()
        self._tables: OrderedDict[Size, DeviceBuffer] = OrderedDict()
        self._is_needed = plan.cuda_table(1, 1).size > 0

    def addresses(self, sizes: Sequence[Size]) -> tuple[int, ...]:
        """Of the table of each (height, width), made where there is none; blocks then.

        Raises:
            MissingDependencyError: not enough GPU memory.
            ValueError: a size that the preprocess spec does not take.
        """
        if not self._is_needed:
            for size in sizes:
                self._plan.geometry(*size)
            return ()
        wanted = set(sizes)
        for size in wanted & self._tables.keys():
            self._tables.move_to_end(size)
        for size in wanted - self._tables.keys():
            self._tables[size] = self._filled(size, wanted)
        return tuple(self._tables[size].address for size in sizes)

    def close(self) -> None:
        """Free the memory. May be called twice."""
        for buffer in (*self._tables.values(), self._pinned):
            buffer.close()
        self._tables.clear()

    def _filled(self, size: Size, wanted: set[Size]) -> DeviceBuffer:
        table = self._plan.cuda_table(*size)
        device = self._stream.device
        oldest = next(iter(self._tables), size)
        if len(self._tables) >= LIMIT and oldest not in wanted:
            buffer = self._tables.pop(oldest)
        else:
            buffer = device.buffer()
        try:
            staged = self._pinned.array(table.shape, np.int32)
            np.copyto(staged, table)
            device.copy_to_device(buffer.reserve(table.nbytes), staged, self._stream)
            self._stream.synchronize()
        except BaseException:
            buffer.close()
            raise
        return buffer
