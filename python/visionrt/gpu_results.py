"""Detections that stay in GPU memory until they are read there or on the host.

A frame's rows are copied, on the device, into a block that belongs to its results, so the lane's
own memory is free for the next frame and a recorded graph needs no address but its own. A block
goes back to its lane's pool with the last result, array or DLPack tensor that refers to it, from
whatever thread; the pool lives as long as any of them, the model may be closed before. What other
libraries have queued by then still reads the block, so it is written again only after that.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core, dlpack
from visionrt.device import Device, DeviceBuffer, Event, Stream, cuda_errors
from visionrt.results import Detections

if TYPE_CHECKING:
    from visionrt.gpu_layout import Layout

_UNREAD: Any = object()
_LEGACY_STREAM = 1  # what a consumer means who names no stream
_ANY_STREAM = -1


@dataclass(frozen=True)
class _Slot:
    """A block's memory, the event after which it holds its rows, and streams that may read it."""

    memory: DeviceBuffer
    event: Event
    readers: set[int] = field(default_factory=set)

    def wait_for_readers(self, stream: Stream) -> None:
        """Let what is queued on a stream from now on write the memory.

        Only the legacy default stream is sure to be there still, and can be waited for on the GPU;
        for others the memory is freed, which waits on the host.
        """
        if self.readers == {_LEGACY_STREAM}:
            with cuda_errors("wait for a reader of a result"):
                _core.wait_for_stream(stream.handle, _LEGACY_STREAM)
        elif self.readers:
            self.memory.close()
        self.readers.clear()

    def close(self) -> None:
        self.memory.close()
        self.event.close()


class ResultPool:
    """Memory of the results of one lane, on which nothing but reading is queued.

    Safe from several threads. The device's context need not be current.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = device.stream()
        self.pinned = device.pinned()
        self.scratch = device.buffer()
        self.reading = threading.Lock()  # of who uses stream, pinned and scratch
        self._idle: list[_Slot] = []
        self._lent = 0
        self._is_retired = False
        # Reentrant: the garbage collector gives blocks back in the middle of anything.
        self._lock = threading.RLock()

    def keep(self, address: int, size: int, stream: Stream) -> KeptMemory:
        """Queue a copy of a lane's device memory on its stream; does not wait for it.

        Raises:
            MissingDependencyError: the GPU failed, or has too little memory.
        """
        with self._lock:
            slot = self._idle.pop() if self._idle else None
            self._lent += 1
        try:
            if slot is None:
                slot = _Slot(self.device.buffer(), self.device.event(timing=False))
            slot.wait_for_readers(stream)
            to = slot.memory.reserve(size)
            self.device.copy_on_device(to, address, size, stream)
            slot.event.record(stream)
        except BaseException:
            self._give_back(slot)
            raise
        return KeptMemory(self, slot, functools.partial(self._give_back, slot))

    def retire(self) -> None:
        """Lend nothing more; what is lent is freed as it comes back. May be called twice."""
        with self._lock:
            self._is_retired = True
            self._free_unused()

    def _give_back(self, slot: _Slot | None) -> None:
        with self._lock:
            self._lent -= 1
            if slot is not None:
                self._idle.append(slot)
            if self._is_retired:
                self._free_unused()

    def _free_unused(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._lent == 0:
            for owned in (self.pinned, self.scratch, self.stream):
                owned.close()


class KeptMemory:
    """Device memory that is lent as long as this lives, whatever becomes of the model."""

    def __init__(self, pool: ResultPool, slot: _Slot, give_back: Callable[[], None]) -> None:
        self.address = slot.memory.address
        self.gpu = pool.device.info.index
        self._pool = pool
        self._event = slot.event
        self._readers = slot.readers
        weakref.finalize(self, give_back)

    @contextlib.contextmanager
    def reading(self) -> Iterator[ResultPool]:
        """The pool, whose stream and scratch memory are the caller's in the block; waits first.

        Raises:
            MissingDependencyError: the GPU failed, now or in the frame.
        """
        with self._pool.reading, self._pool.device.current():
            self._event.synchronize()
            yield self._pool

    def download(self, size: int) -> NDArray[np.uint8]:
        """A copy on the host; blocks until the frame is over."""
        with self.reading() as pool:
            staged = pool.pinned.array((size,), np.uint8)
            pool.device.copy_to_host(staged, self.address, pool.stream)
            pool.stream.synchronize()
            return staged.copy()

    def order(self, stream: int) -> None:
        """Make a stream that will read, by its integer handle, wait for the memory.

        Does not block. -1: whoever reads has an order of its own.
        """
        self._readers.add(stream)
        if stream == _ANY_STREAM:
            return
        with cuda_errors("make another stream wait"), self._pool.device.current():
            _core.wait_for_stream(stream, self._ordered())

    def ordered_stream(self) -> int:
        """The handle of a stream that waits for the memory, for a reader of unknown stream.

        Does not block.
        """
        self._readers.add(_ANY_STREAM)
        with self._pool.device.current():
            return self._ordered()

    def _ordered(self) -> int:
        self._pool.stream.wait_for(self._event)
        return self._pool.stream.handle


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
        self.memory.order(_LEGACY_STREAM if stream is None else stream)
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
