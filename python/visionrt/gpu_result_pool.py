"""Memory of results in GPU memory, which is lent, read in order, and written again.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt.device import Device, DeviceBuffer, Event, Stream, cuda_errors

LEGACY_STREAM = 1  # what a consumer means who names no stream
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
        if self.readers == {LEGACY_STREAM}:
            with cuda_errors("wait for a reader of a result"):
                _core.wait_for_stream(stream.handle, LEGACY_STREAM)
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
