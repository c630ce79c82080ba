"""A stand-in for ``pycuda.driver`` whose device memory is host memory.

It holds callers to the rules that the real one has: a call that touches the device needs the
context current in the calling thread, asynchronous copies need page-locked memory and a
non-blocking stream, and nothing is freed twice. ``live`` counts what has not been freed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from visionrt import device

COMPUTE_CAPABILITY = (8, 6)
MEMORY_BYTES = 1 << 30

live: Counter[str] = Counter()
_thread = threading.local()


class Error(Exception):
    pass


class LogicError(Error):
    pass


class MemoryError(Error):  # noqa: A001 - PyCUDA's name
    pass


def contexts() -> list[Context]:
    if not hasattr(_thread, "stack"):
        _thread.stack = []
    return _thread.stack


def is_current() -> bool:
    return bool(contexts())


def _need_context() -> None:
    if not is_current():
        raise LogicError("invalid device context")


def init() -> None:
    pass


def get_driver_version() -> int:
    return 13000


class Context:
    def __init__(self) -> None:
        live["context"] += 1

    def push(self) -> None:
        contexts().append(self)

    def detach(self) -> None:
        live["context"] -= 1

    @staticmethod
    def pop() -> None:
        _need_context()
        contexts().pop()

    @staticmethod
    def synchronize() -> None:
        _need_context()


class Device:
    def __init__(self, index: int) -> None:
        self.index = index

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Double"

    def compute_capability(self) -> tuple[int, int]:
        return COMPUTE_CAPABILITY

    def total_memory(self) -> int:
        return MEMORY_BYTES

    def retain_primary_context(self) -> Context:
        return Context()


class _Allocation:
    def __init__(self, kind: str, size: int) -> None:
        _need_context()
        if size > MEMORY_BYTES:
            raise MemoryError("cuMemAlloc failed: out of memory")
        self._kind = kind
        # 256 bytes more than asked for, to begin at a multiple of 256 as CUDA does.
        self.memory: Any = np.full(size + 256, 0xAB, np.uint8)
        live[kind] += 1

    def free(self) -> None:
        _need_context()
        if self.memory is None:
            raise LogicError("freed twice")
        # What reads or writes it from now on sees garbage.
        self.memory[:] = 0xCD
        self.memory = None
        live[self._kind] -= 1


class DeviceAllocation(_Allocation):
    def __int__(self) -> int:
        start = int(self.memory.ctypes.data)
        return start + -start % 256


def mem_alloc(size: int) -> DeviceAllocation:
    if size < 1:
        raise LogicError("invalid argument")
    return DeviceAllocation("device memory", size)


def mem_get_info() -> tuple[int, int]:
    _need_context()
    return MEMORY_BYTES, MEMORY_BYTES


class _HostAllocation(_Allocation):
    """Base of a page-locked array, as ``array.base`` of PyCUDA's."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__


_pinned: set[tuple[int, int]] = set()


def pagelocked_empty(size: int, dtype: Any) -> Any:
    allocation = _HostAllocation("pinned memory", size * np.dtype(dtype).itemsize)
    start = allocation.memory.ctypes.data
    span = (start, start + allocation.memory.nbytes)
    _pinned.add(span)
    free = allocation.free

    def free_and_forget() -> None:
        free()
        _pinned.discard(span)

    allocation.free = free_and_forget
    array = np.asarray(allocation)
    assert array.base is allocation
    return array


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _need_context()
        if flags != 1:
            raise LogicError("a stream that waits for the default stream")
        live["stream"] += 1
        self.handle = 0x5000 + live["stream"]

    def __del__(self) -> None:
        live["stream"] -= 1
        if not is_current():
            live["stream destroyed without a context"] += 1

    def synchronize(self) -> None:
        _need_context()

    def wait_for_event(self, event: Event) -> None:
        _need_context()


class Event:
    def __init__(self, flags: int = 0) -> None:
        _need_context()
        self._time_ms: float | None = None

    def record(self, stream: Stream) -> None:
        _need_context()
        self._time_ms = 1.0

    def synchronize(self) -> None:
        if self._time_ms is None:
            raise LogicError("not recorded")

    def time_since(self, start: Event) -> float:
        if self._time_ms is None or start._time_ms is None:
            raise LogicError("not recorded")
        return self._time_ms - start._time_ms


def _check_copy(host: Any, stream: Stream) -> None:
    _need_context()
    if stream is None or not host.flags.c_contiguous:
        raise LogicError("invalid argument")
    start = host.ctypes.data
    if not any(low <= start and start + host.nbytes <= high for low, high in _pinned):
        raise LogicError("the host memory is not page-locked")


def memcpy_htod_async(dest: int, src: Any, stream: Stream) -> None:
    _check_copy(src, stream)
    ctypes.memmove(dest, src.ctypes.data, src.nbytes)


def memcpy_dtoh_async(dest: Any, src: int, stream: Stream) -> None:
    _check_copy(dest, stream)
    ctypes.memmove(dest.ctypes.data, src, dest.nbytes)


def as_modules() -> dict[str, types.ModuleType]:
    """``pycuda`` and ``pycuda.driver`` for ``sys.modules``."""
    package, driver = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver")
    driver.__dict__.update({k: v for k, v in globals().items() if not k.startswith("__")})
    package.driver = driver  # type: ignore[attr-defined]
    package.__path__ = []
    return {"pycuda": package, "pycuda.driver": driver}


@contextlib.contextmanager
def installed() -> Iterator[Counter[str]]:
    """Have ``visionrt.device`` use the double; gives ``live``, and leaves no trace."""
    live.clear()
    with (
        mock.patch.dict(sys.modules, as_modules()),
        mock.patch.object(device._core, "driver_problem", return_value=""),
        # Launches need a driver library; with that, see tests/emulation.
        mock.patch.object(device._core, "has_kernels", return_value=False),
    ):
        _forget()
        try:
            yield live
        finally:
            gc.collect()
            _forget()


def _forget() -> None:
    device.open_device.cache_clear()
    device._driver.cache_clear()
