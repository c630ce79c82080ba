"""Launches kernels by name through the driver's own calls, for tests of the driver."""

from __future__ import annotations

import ctypes
import functools

_FATBIN_MAGIC = (0xBA55ED50).to_bytes(4, "little") + bytes(12)


@functools.cache
def kernel(name: str) -> ctypes.c_void_p:
    """A CUkernel of the emulated kernels."""
    cuda = ctypes.CDLL("libcuda.so.1")
    library, found = ctypes.c_void_p(), ctypes.c_void_p()
    status = cuda.cuLibraryLoadData(
        ctypes.byref(library), _FATBIN_MAGIC, None, None, 0, None, None, 0
    )
    assert status == 0, status
    status = cuda.cuLibraryGetKernel(ctypes.byref(found), library, name.encode())
    assert status == 0, status
    return found


def launch(name: str, stream: int, *arguments: ctypes._SimpleCData, threads: int = 32) -> int:
    """Queue a kernel in one block; returns the CUresult."""
    addresses = (ctypes.c_void_p * max(len(arguments), 1))(
        *(ctypes.addressof(argument) for argument in arguments)
    )
    return ctypes.CDLL("libcuda.so.1").cuLaunchKernel(
        kernel(name), 1, 1, 1, threads, 1, 1, 0, ctypes.c_void_p(stream), addresses, None
    )


def add(address: int, count: int, amount: float, stream: int) -> None:
    """Queue ``data[:count] += amount`` on float32 data."""
    status = launch(
        "add", stream, ctypes.c_uint64(address), ctypes.c_int(count), ctypes.c_float(amount)
    )
    assert status == 0, status
