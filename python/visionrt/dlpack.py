"""DLPack: arrays of other libraries, in GPU or in host memory, without a copy.

The protocol is that of the Python array API standard: ``__dlpack_device__`` says where an array
lies, ``__dlpack__(stream=…)`` gives a capsule around a ``DLManagedTensor`` whose data are ready for
that stream. A capsule that nobody consumes frees the tensor when it is collected, so that keeping
it is all that keeps the memory alive.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import InputDataError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
_KINDS = {0: "i", 1: "u", 2: "f"}  # DLDataTypeCode to NumPy's
_CAPSULE = b"dltensor"


class _Tensor(ctypes.Structure):
    """``DLTensor``, which a ``DLManagedTensor`` begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class GpuTensor:
    """A tensor in GPU memory; ``strides_bytes`` is None where it is contiguous."""

    address: int
    shape: tuple[int, ...]
    strides_bytes: tuple[int, ...] | None
    dtype: np.dtype[Any]
    owner: object


def is_on_gpu(source: object) -> bool:
    """Whether an object offers GPU memory by DLPack."""
    ask = getattr(source, "__dlpack_device__", None)
    return ask is not None and int(ask()[0]) in (CUDA, CUDA_MANAGED)


def export_from(source: Any, gpu: int, stream: int) -> GpuTensor:
    """A tensor whose data are ready for what is queued on a stream from now on. Does not block.

    Args:
        source: of which :func:`is_on_gpu` is true.
        gpu: the number of the GPU that will read it.
        stream: integer handle of a stream on that GPU.

    Raises:
        InputDataError: on another GPU, of a type that NumPy lacks, or the owner refuses.
    """
    where = int(source.__dlpack_device__()[1])
    if where != gpu:
        raise InputDataError(
            f"an image on GPU {gpu}, where the model is",
            got=f"one on GPU {where}",
            fix=f'Copy it there, or load the model with device="cuda:{where}".',
        )
    with _owner_errors(source):
        capsule = source.__dlpack__(stream=stream)
        tensor = _Tensor.from_address(_pointer(capsule, _CAPSULE))
    if tensor.code not in _KINDS or tensor.lanes != 1 or tensor.bits not in (8, 16, 32, 64):
        raise InputDataError(
            "a GPU array of uint8 and shape (height, width, 3)",
            got=f"DLPack type {tensor.code} of {tensor.bits} bits and {tensor.lanes} lanes",
            fix="Convert it on the GPU.",
        )
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
    return GpuTensor(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[i] for i in range(tensor.ndim)),
        strides_bytes=strides,
        dtype=dtype,
        owner=capsule,
    )


def is_on_host(source: object) -> bool:
    """Whether an object offers host memory by DLPack."""
    ask = getattr(source, "__dlpack_device__", None)
    return ask is not None and int(ask()[0]) in (CPU, CUDA_HOST)


def host_array(source: Any) -> NDArray[Any]:
    """An array over the memory of an object of which :func:`is_on_host` is true.

    Raises:
        InputDataError: the owner refuses, or NumPy does not take what it gives.
    """
    with _owner_errors(source):
        array: NDArray[Any] = np.from_dlpack(source)
        return array


def _pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))


@contextlib.contextmanager
def _owner_errors(source: object) -> Iterator[None]:
    try:
        yield
    except (BufferError, TypeError, ValueError, RuntimeError) as error:
        raise InputDataError(
            "an array that can be read by DLPack",
            got=f"a {type(source).__module__}.{type(source).__qualname__}: {error}",
            fix="Detach it from what watches it, and give uint8 of shape (height, width, 3).",
        ) from error
