"""Detections that stay in GPU memory until they are read there or on the host.

Their memory is lent by :mod:`visionrt.gpu_result_pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core, dlpack
from visionrt.gpu_result_pool import LEGACY_STREAM, KeptMemory
from visionrt.results import Detections

if TYPE_CHECKING:
    from visionrt.gpu_layout import Layout

_UNREAD: Any = object()


class ResultBlock:
    """The rows of one batch in device memory, and on the host once somebody reads them."""

    def __init__(self, memory: KeptMemory, layout: Layout) -> None:
        self.memory = memory
        self.layout = layout
        self._host: NDArray[np.uint8] | None = None

    def rows(self, image: int) -> NDArray[Any]:
        """The rows of an image on the host; the first call for a block waits and copies."""
        if self._host is None:
            self._host = self.memory.download(self.layout.block_bytes)
        return self.layout.rows(self._host, image)


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in GPU memory, for any library that takes DLPack or the CUDA Array Interface.

    It keeps its memory alive, and so does what was made from it. What a consumer queues on the
    stream that it names runs after the frame; the host waits for nothing.

    Attributes:
        shape: sizes of the axes.
        strides: of the axes, in elements.
        dtype: float32 or int32.
        address: of the first element, in device memory.
        gpu: number of the GPU.
    """

    memory: KeptMemory
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    gpu: int

    def to_dlpack(self, stream: int | None = None) -> Any:
        """A DLPack capsule; see :meth:`__dlpack__`."""
        return self.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self.gpu)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """As the Python array API has it: ``stream`` is the consumer's, -1 for no order.

        Raises:
            BufferError: a copy or another device is asked for.
            ValueError: stream 0, which could mean two.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("expected a view on the same GPU, got a request for a copy")
        if stream == 0:
            raise ValueError("expected a stream of CUDA, 1 or 2 for its default ones, got 0")
        self.memory.order(LEGACY_STREAM if stream is None else stream)
        return _core.dlpack_capsule(
            self,
            self.address,
            self.gpu,
            self.shape,
            self.strides,
            self.dtype.name,
            versioned=max_version is not None and max_version[0] >= 1,
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. Its stream waits for the frame, and nothing else runs there."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            # An empty array is said to have no address.
            "data": (0 if 0 in self.shape else self.address, False),
            "strides": tuple(step * self.dtype.itemsize for step in self.strides),
            "stream": self.memory.ordered_stream(),
        }


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """The rows of one image where they lie, without waiting for the frame.

    Every array has room for ``max_det`` boxes; those after ``count`` are zeros.

    Attributes:
        xyxy: float32 [max_det, 4], pixels of the original image, best first.
        confidence: float32 [max_det].
        class_id: int32 [max_det].
        count: int32 [1], how many boxes there are.
        table: float32 [max_det, 6], the columns x0, y0, x1, y1, confidence and class.
    """

    xyxy: DeviceArray
    confidence: DeviceArray
    class_id: DeviceArray
    count: DeviceArray
    table: DeviceArray


class DeviceDetections(Detections):
    """Boxes as :class:`Detections` has them, which come to the host when they are first read.

    As an array itself it is float32 [n, 6] in GPU memory: x0, y0, x1, y1, confidence, class. How
    many there are must be known for that, so it waits for the frame; :attr:`on_device` does not.
    """

    def __init__(self, block: ResultBlock, image: int, **fields: Any) -> None:
        self._block = block
        self._image = image
        self._host: dict[str, NDArray[Any]] = {}
        super().__init__(xyxy=_UNREAD, confidence=_UNREAD, class_id=_UNREAD, **fields)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """See :class:`Detections`."""
        return self._read("xyxy")

    @xyxy.setter
    def xyxy(self, value: NDArray[np.float32]) -> None:
        self._set("xyxy", value)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """See :class:`Detections`."""
        return self._read("confidence")

    @confidence.setter
    def confidence(self, value: NDArray[np.float32]) -> None:
        self._set("confidence", value)

    @property
    def class_id(self) -> NDArray[np.int32]:
        """See :class:`Detections`."""
        return self._read("class_id")

    @class_id.setter
    def class_id(self, value: NDArray[np.int32]) -> None:
        self._set("class_id", value)

    @property
    def on_device(self) -> DeviceRows:
        """The rows in GPU memory."""
        layout, image = self._block.layout, self._image
        start = self._block.memory.address + layout.rows_offset
        start += image * layout.max_det * layout.row_words * 4

        def column(word: int, width: int | None, kind: type[np.generic]) -> DeviceArray:
            inner: Sequence[int] = () if width is None else (width,)
            strides = (layout.row_words, *([1] * len(inner)))
            return self._array((layout.max_det, *inner), strides, kind, start + 4 * word)

        count = self._array((1,), (1,), np.int32, self._block.memory.address + 4 * image)
        return DeviceRows(
            xyxy=column(0, 4, np.float32),
            confidence=column(4, None, np.float32),
            class_id=column(6, None, np.int32),
            count=count,
            table=column(0, 6, np.float32),
        )

    def to_dlpack(self, stream: int | None = None) -> Any:
        """A DLPack capsule of float32 [n, 6]; see :class:`DeviceArray`."""
        return self._table().to_dlpack(stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self._block.memory.gpu)

    def __dlpack__(self, **options: Any) -> Any:
        return self._table().__dlpack__(**options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Of float32 [n, 6]; see :class:`DeviceArray`."""
        return self._table().__cuda_array_interface__

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process, or a copy, gets the values.
        fields = ("image_hw", "names", "speed", "source", "xyxy", "confidence", "class_id", "data")
        return (_on_host, ({name: getattr(self, name) for name in fields},))

    def _table(self) -> DeviceArray:
        table = self.on_device.table
        shape = (len(self._block.rows(self._image)), *table.shape[1:])
        return self._array(shape, table.strides, np.float32, table.address)

    def _array(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        kind: type[np.generic],
        address: int,
    ) -> DeviceArray:
        memory = self._block.memory
        return DeviceArray(memory, shape, strides, np.dtype(kind), address, memory.gpu)

    def _set(self, name: str, value: NDArray[Any]) -> None:
        if value is not _UNREAD:
            self._host[name] = value

    def _read(self, name: str) -> NDArray[Any]:
        if name not in self._host:
            rows = self._block.rows(self._image)
            self._host.setdefault(name, rows[_COLUMNS[name]].copy())
        return self._host[name]


_COLUMNS = {"xyxy": "xyxy", "confidence": "score", "class_id": "class_id"}


def _on_host(fields: dict[str, Any]) -> Detections:
    return Detections(**fields)
