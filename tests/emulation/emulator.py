"""The emulated kernels from Python: device buffers that are watched, launches, findings."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Dim = tuple[int, ...]
_GUARD = 4096  # bytes on both sides of a buffer, in no buffer: an overrun lands there
_ALIGNMENT = 256  # what cuMemAlloc gives
_UNWRITTEN = 0xA5


class EmulationError(AssertionError):
    """What the checker found in a launch, one finding a line."""


class Emulator:
    """One library of emulated kernels. ``library`` comes from ``build.kernel_library``."""

    def __init__(self, library: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        self._c.emu_findings.restype = ctypes.c_char_p
        self._c.emu_seed.argtypes = [ctypes.c_uint64]
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._c.emu_register.argtypes = [pointer, size, ctypes.c_char_p, ctypes.c_int]
        self._c.emu_mark_written.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._c.emu_unregister.argtypes = [ctypes.c_void_p]

    def has_kernel(self, name: str) -> bool:
        """True when a kernel of this name was compiled."""
        return bool(self._c.emu_has_kernel(name.encode()))

    def seed(self, seed: int) -> None:
        """Fixes the order of blocks and threads from here on."""
        self._c.emu_seed(seed % 2**64)

    def checking(self, on: bool) -> None:
        """Turns the checker off, for speed, or on again."""
        self._c.emu_set_checking(int(on))

    def findings(self) -> list[str]:
        """What was found since the last call."""
        text: bytes = self._c.emu_findings()
        lines = text.decode("utf-8", "replace").splitlines()
        self._c.emu_clear()
        return lines

    def launch(
        self,
        name: str,
        grid: Dim,
        block: Dim,
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> int:
        """Runs a kernel; returns the number of findings. Arguments are ctypes values or buffers."""
        values = [a.pointer if isinstance(a, Buffer) else a for a in arguments]
        pointers = (ctypes.c_void_p * max(1, len(values)))(
            *[ctypes.cast(ctypes.pointer(v), ctypes.c_void_p) for v in values]
        )
        sizes = [*grid, *[1] * (3 - len(grid)), *block, *[1] * (3 - len(block))]
        return int(self._c.emu_launch(name.encode(), *sizes, shared_bytes, pointers))

    def buffer(self, content: NDArray[Any], name: str = "buffer") -> Buffer:
        """Device memory that holds a copy of ``content``."""
        return Buffer(self, content.shape, content.dtype, name, content)

    def empty(self, shape: int | Sequence[int], dtype: DTypeLike, name: str = "buffer") -> Buffer:
        """Device memory that nobody has written yet."""
        return Buffer(self, shape, dtype, name, None)

    def check(self) -> None:
        """Raises EmulationError when anything was found since the last look."""
        found = self.findings()
        if found:
            raise EmulationError("\n".join(found))

    def register(self, address: int, size: int, name: str, written: bool) -> None:
        """Tells the checker of memory; ``Buffer`` does."""
        self._c.emu_register(address, size, name.encode(), int(written))

    def mark_written(self, address: int, size: int) -> None:
        """Tells the checker that the host wrote there."""
        self._c.emu_mark_written(address, size)

    def unregister(self, address: int) -> None:
        """The checker forgets memory registered at this address."""
        self._c.emu_unregister(address)


class Buffer:
    """Registered memory with guards around it; ``array`` is the NumPy view of it.

    A context manager: the checker forgets it on leaving.
    """

    def __init__(
        self,
        emulator: Emulator,
        shape: int | Sequence[int],
        dtype: DTypeLike,
        name: str,
        content: NDArray[Any] | None,
    ) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._memory = np.full(size + 2 * _GUARD + _ALIGNMENT, _UNWRITTEN, np.uint8)
        start = _GUARD + -(self._memory.ctypes.data + _GUARD) % _ALIGNMENT
        self.array = self._memory[start : start + size].view(dtype).reshape(shape)
        self.address = self._memory.ctypes.data + start
        if content is not None:
            self.array[...] = content
        self._emulator, self._name = emulator, name
        # An empty array still has an address of its own.
        emulator.register(self.address, size, name, content is not None)

    @property
    def pointer(self) -> ctypes.c_void_p:
        """The address as a kernel argument."""
        return ctypes.c_void_p(self.address)

    def close(self) -> None:
        """The checker forgets the buffer. Raises EmulationError when a guard was overwritten."""
        self._emulator.unregister(self.address)
        start = self.address - self._memory.ctypes.data
        for guard in (self._memory[:start], self._memory[start + self.array.nbytes :]):
            if (guard != _UNWRITTEN).any():
                raise EmulationError(f"memory beside '{self._name}' was overwritten")

    def __enter__(self) -> Buffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
