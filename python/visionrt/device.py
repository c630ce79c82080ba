"""The GPU: its primary context, streams, events and memory, by PyCUDA.

The only file that imports PyCUDA. It uses the device's *primary* context, which TensorRT and
every CUDA runtime library in the process share. A context belongs to a thread only inside
``with device.current():``, so nothing is left pushed when an exception ends the program (PyCUDA
aborts the process in that case). Memory is freed explicitly, with the context current: PyCUDA
leaks what is freed without.
"""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from visionrt import _core
from visionrt.errors import MissingDependencyError, UsageError

_NO_DRIVER = "Install the NVIDIA driver, version 580 or later for CUDA 13."
_NO_PYCUDA = (
    "Run: pip install pycuda; or, where it fails, tools/dev/install_pycuda.py of the sources."
)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


@dataclass(frozen=True)
class GpuInfo:
    """What a GPU is: ``compute_capability`` is its SM number, like ``86`` for 8.6."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver_version: str


def gpu_problem(index: int = 0) -> str:
    """Why GPU ``index`` cannot be used, in words; empty when it can."""
    try:
        _gpu(index)
    except MissingDependencyError as error:
        return error.got
    return ""


def gpu_info(index: int = 0) -> GpuInfo:
    """Name, compute capability, memory and driver of a GPU.

    Raises:
        MissingDependencyError: it cannot be used; the message has the cure.
    """
    cuda, gpu = _driver(), _gpu(index)
    with cuda_errors("describe the GPU"):
        major, minor = gpu.compute_capability()
        version = int(cuda.get_driver_version())
        return GpuInfo(
            index=index,
            name=str(gpu.name()),
            compute_capability=f"{major}{minor}",
            memory_bytes=int(gpu.total_memory()),
            driver_version=f"{version // 1000}.{version % 1000 // 10}",
        )


def device_index(text: str) -> int:
    """``1`` of ``cuda:1``; ``cuda`` is GPU 0.

    Raises:
        UsageError: another spelling.
    """
    name, colon, number = text.partition(":")
    if name != "cuda" or (colon and not number.isdecimal()):
        raise UsageError("a GPU like cuda:0", got=repr(text), fix="Write cuda or cuda:N.")
    return int(number) if colon else 0


@functools.cache
def open_device(index: int = 0) -> Device:
    """The one :class:`Device` of a GPU in this process.

    Raises:
        MissingDependencyError: it cannot be used; the message has the cure.
    """
    return Device(gpu_info(index), _gpu(index))


class Device:
    """A GPU with its primary context retained. Get it from :func:`open_device`."""

    def __init__(self, info: GpuInfo, gpu: Any) -> None:
        self.info = info
        self._cuda = _driver()
        with cuda_errors("retain the primary context"):
            self._context = gpu.retain_primary_context()
        # PyCUDA's destructor of a primary context makes the wrong call unless it was detached.
        close_with(self, self._context.detach)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for the block. Nests; any thread may enter.

        Raises:
            MissingDependencyError: the GPU failed, now or in work that was queued before.
        """
        with cuda_errors("make the context current"):
            self._context.push()
        try:
            yield
        except BaseException:
            # What failed in the block says more than what a pop after it says of the same failure.
            with contextlib.suppress(self._cuda.Error):
                self._cuda.Context.pop()
            raise
        with cuda_errors("leave the context"):
            self._cuda.Context.pop()

    def free_memory_bytes(self) -> int:
        """Bytes of GPU memory that are free now."""
        with self.current(), cuda_errors("ask for the free memory"):
            return int(self._cuda.mem_get_info()[0])

    def synchronize(self) -> None:
        """Block until everything queued in the context is over."""
        with self.current(), cuda_errors("wait for the GPU"):
            self._cuda.Context.synchronize()

    def stream(self) -> Stream:
        """A new non-blocking stream."""
        with self.current(), cuda_errors("make a stream"):
            return Stream(self, self._cuda.Stream(_NON_BLOCKING))

    def event(self, *, timing: bool = True) -> Event:
        """A new event; without ``timing`` it costs less and only orders work."""
        with self.current(), cuda_errors("make an event"):
            return Event(self, self._cuda.Event(0 if timing else _NO_TIMING))

    def buffer(self) -> DeviceBuffer:
        """A device buffer of no bytes, which grows when it is asked to."""
        return DeviceBuffer(self)

    def pinned(self) -> PinnedBuffer:
        """A page-locked host buffer of no bytes, which grows when it is asked to."""
        return PinnedBuffer(self)

    def copy_to_device(self, to: int, source: NDArray[Any], stream: Stream) -> None:
        """Queue a copy of a contiguous page-locked array to a device address.

        The array must stay as it is until the stream has passed the copy. Does not block.
        """
        if source.nbytes:
            with cuda_errors("copy to the GPU"):
                self._cuda.memcpy_htod_async(to, source, stream.raw)

    def copy_to_host(self, to: NDArray[Any], source: int, stream: Stream) -> None:
        """Queue a copy from a device address to a contiguous page-locked array.

        The array holds the data once the stream has passed the copy. Does not block.
        """
        if to.nbytes:
            with cuda_errors("copy from the GPU"):
                self._cuda.memcpy_dtoh_async(to, source, stream.raw)

    def copy_on_device(self, to: int, source: int, size: int, stream: Stream) -> None:
        """Queue a copy of ``size`` bytes between two device addresses. Does not block."""
        if size:
            with cuda_errors("copy on the GPU"):
                self._cuda.memcpy_dtod_async(to, source, size, stream.raw)

    def allocate(self, size: int) -> Any:
        """A PyCUDA allocation of at least one byte; for :class:`DeviceBuffer`."""
        with self.current(), cuda_errors(f"allocate {size} bytes of GPU memory"):
            return self._cuda.mem_alloc(max(size, 1))

    def allocate_pinned(self, size: int) -> NDArray[np.uint8]:
        """A page-locked uint8 array of at least one byte; for :class:`PinnedBuffer`."""
        with self.current(), cuda_errors(f"allocate {size} bytes of pinned memory"):
            array: NDArray[np.uint8] = self._cuda.pagelocked_empty(max(size, 1), np.uint8)
            return array


class _Owned:
    """Something of a device that is released once, with its context current."""

    def __init__(self, device: Device, release: Callable[[], None] | None = None) -> None:
        self.device = device
        self._release = release

    def close(self) -> None:
        """Release it. May be called twice, from any thread."""
        release, self._release = self._release, None
        if release is not None:
            with self.device.current(), cuda_errors("release GPU memory"):
                release()


class Stream(_Owned):
    """A non-blocking CUDA stream. ``handle`` is its integer handle, ``raw`` PyCUDA's object."""

    def __init__(self, device: Device, raw: Any) -> None:
        self.raw: Any = raw
        self.handle = int(raw.handle)
        super().__init__(device, self._drop)

    def _drop(self) -> None:
        # PyCUDA has no call for it: the stream is destroyed with the last reference.
        self.raw = None

    def synchronize(self) -> None:
        """Block until everything queued on the stream is over; the GIL is released."""
        with cuda_errors("finish the work on the GPU"):
            self.raw.synchronize()

    def wait_for(self, event: Event) -> None:
        """Queue a wait: later work starts after the event. Does not block."""
        with cuda_errors("queue a wait"):
            self.raw.wait_for_event(event.raw)


class Event(_Owned):
    """A CUDA event."""

    def __init__(self, device: Device, raw: Any) -> None:
        self.raw: Any = raw
        super().__init__(device, self._drop)

    def _drop(self) -> None:
        self.raw = None

    def record(self, stream: Stream) -> None:
        """Queue the event on a stream. Does not block."""
        with cuda_errors("record an event"):
            self.raw.record(stream.raw)

    def synchronize(self) -> None:
        """Block until the event has happened."""
        with cuda_errors("wait for an event"):
            self.raw.synchronize()

    def milliseconds_since(self, start: Event) -> float:
        """GPU time between two events that have happened, both made with ``timing``."""
        with cuda_errors("read an event's time"):
            return float(self.raw.time_since(start.raw))


class DeviceBuffer(_Owned):
    """Device memory that only grows. ``address`` is 0 before the first :meth:`reserve`."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.address = 0
        self.capacity = 0

    def reserve(self, size: int) -> int:
        """The address of at least ``size`` bytes, 256-byte aligned, never 0.

        The content is lost, and the address changes, when it has to grow; nothing queued may
        still use the old memory then.
        """
        if not self.address or size > self.capacity:
            self.close()
            allocation = self.device.allocate(size)
            self._release = allocation.free
            self.address, self.capacity = int(allocation), max(size, 1)
        return self.address

    def close(self) -> None:
        """Free it. May be called twice; :meth:`reserve` allocates again."""
        self.address = self.capacity = 0
        super().close()


class PinnedBuffer(_Owned):
    """Page-locked host memory that only grows, seen as arrays of any type and shape."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._bytes: NDArray[np.uint8] | None = None

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array over the start of the memory, which grows first where it has to.

        Every array from an earlier call is invalid after one that grows, and after ``close``.
        """
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if self._bytes is None or size > self._bytes.nbytes:
            self.close()
            self._bytes = self.device.allocate_pinned(size)
            base: Any = self._bytes.base
            self._release = base.free
        view: NDArray[Any] = self._bytes[:size].view(kind).reshape(shape)
        return view

    def close(self) -> None:
        """Free it. May be called twice; :meth:`array` allocates again."""
        self._bytes = None
        super().close()


def close_with(owner: object, close: Callable[[], None]) -> Callable[[], object]:
    """Run ``close`` once: when the result is called, the owner is collected, or Python exits.

    At exit this runs before PyCUDA is torn down, latest owner first. ``close`` must not refer to
    the owner.
    """
    return weakref.finalize(owner, close)


@contextlib.contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Turn the errors of PyCUDA and of the native operations in the block into this project's.

    Raises:
        MissingDependencyError: out of memory, or the GPU failed the call.
    """
    cuda = _driver()
    try:
        yield
    except cuda.MemoryError as error:
        raise MissingDependencyError(
            f"enough memory to {doing}",
            got=str(error),
            fix="Close other programs on the GPU, or use a smaller batch or image.",
        ) from error
    except (cuda.Error, _core.DriverError) as error:
        raise MissingDependencyError(
            f"a GPU that can {doing}",
            got=str(error),
            fix="Start the program again; where it persists, run visionrt doctor.",
        ) from error


@functools.cache
def _driver() -> Any:
    """``pycuda.driver``, initialized."""
    problem = _core.driver_problem()
    if problem:
        raise MissingDependencyError("an NVIDIA driver", got=problem, fix=_NO_DRIVER)
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "PyCUDA", got=f"no module {error.name}", fix=_NO_PYCUDA
        ) from error
    except ImportError as error:
        raise MissingDependencyError(
            "a working PyCUDA",
            got=str(error),
            fix="Build it again here: python tools/dev/install_pycuda.py, in the sources.",
        ) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise MissingDependencyError(
            "an NVIDIA driver that starts", got=str(error), fix="Run nvidia-smi and follow it."
        ) from error
    return cuda


def _gpu(index: int) -> Any:
    cuda = _driver()
    try:
        count = int(cuda.Device.count())
        if 0 <= index < count:
            return cuda.Device(index)
    except cuda.Error as error:
        raise MissingDependencyError("a GPU", got=str(error), fix=_NO_DRIVER) from error
    raise MissingDependencyError(
        f"GPU {index}", got=f"{count} GPU(s)", fix="Name one that is there, like cuda:0."
    )
