"""What a test asks of the fake driver that its process runs on: counts, findings, faults.

Only for processes that were started with the fake ``libcuda.so.1`` on their library path.
"""

from __future__ import annotations

import ctypes
import functools

OUT_OF_MEMORY = 2
INVALID_CONTEXT = 201
ILLEGAL_ADDRESS = 700
LAUNCH_FAILED = 719
CAPTURE_UNSUPPORTED = 900

KINDS = ("device", "pinned", "streams", "events", "graphs", "graph_execs")


@functools.cache
def library() -> ctypes.CDLL:
    """The fake driver; raises AttributeError when ``libcuda.so.1`` is another one."""
    loaded = ctypes.CDLL("libcuda.so.1")
    loaded.fake_cuda_live.restype = ctypes.c_long
    loaded.fake_cuda_calls.restype = ctypes.c_long
    loaded.fake_cuda_pending_faults.restype = ctypes.c_long
    loaded.fake_cuda_findings.restype = ctypes.c_char_p
    loaded.fake_cuda_fail.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    loaded.fake_cuda_set_memory.argtypes = [ctypes.c_size_t]
    return loaded


def live(kind: str) -> int:
    """Objects of a kind that have not been released: one of ``KINDS``, or ``contexts``."""
    return int(library().fake_cuda_live(kind.encode()))


def leaks() -> dict[str, int]:
    """The kinds of which something is live, with how many."""
    return {kind: live(kind) for kind in KINDS if live(kind)}


def calls(name: str) -> int:
    """How often a driver function was called; ``execute`` counts the kernels that ran."""
    return int(library().fake_cuda_calls(name.encode()))


def fail(name: str, nth: int, result: int, *, times: int = 1) -> None:
    """Make the ``nth`` next call of a function, and those right after it, fail with a CUresult.

    PyCUDA collects garbage and asks once more when device memory is short: use ``times=2`` there.
    """
    for _ in range(times):
        library().fake_cuda_fail(name.encode(), nth, result)


def pending_faults() -> int:
    """Faults that have not come due."""
    return int(library().fake_cuda_pending_faults())


def set_memory(size: int) -> None:
    """Give the device this many bytes."""
    library().fake_cuda_set_memory(size)


def mark_written(address: int, size: int) -> None:
    """Device memory that something besides a copy, a fill or a kernel has written."""
    library().fake_cuda_mark_written(ctypes.c_void_p(address), ctypes.c_size_t(size))


def findings() -> list[str]:
    """What the fake driver and the emulated kernels found wrong."""
    return library().fake_cuda_findings().decode().splitlines()


def clear() -> None:
    """Forget findings, counts of calls, and faults."""
    library().fake_cuda_clear()
