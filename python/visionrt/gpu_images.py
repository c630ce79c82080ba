"""Images that lie in GPU memory already, by DLPack or the CUDA Array Interface (version 3).

PyTorch, CuPy, JAX, Numba and PyCUDA arrays have one or both. Nothing is copied: the preprocess
kernel reads the caller's memory, after the work that the caller queued. DLPack is asked first: its
owner is told which stream will read, and orders its own work before that. An array interface names
a stream, or none where the memory is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from visionrt import dlpack
from visionrt.errors import InputDataError

_CHANNELS = 3


@dataclass(frozen=True)
class DeviceImage:
    """A (height, width, 3) uint8 image in device memory.

    Attributes:
        address: of the first pixel.
        row_bytes: from one row to the next.
        stream: integer handle of the stream whose work must be over before it is read; None where
            it is ready.
        owner: what keeps the memory alive.
    """

    address: int
    height: int
    width: int
    row_bytes: int
    stream: int | None
    owner: object

    @property
    def shape(self) -> tuple[int, int, int]:
        """As of the NumPy array it would be."""
        return (self.height, self.width, _CHANNELS)


def is_on_device(source: object) -> TypeGuard[Any]:
    """Whether an object says that it lies in GPU memory."""
    if isinstance(source, (np.ndarray, str, bytes)):
        return False
    return hasattr(source, "__cuda_array_interface__") or dlpack.is_on_gpu(source)


def device_image(source: Any, reader: Callable[[], tuple[int, int]]) -> DeviceImage:
    """A view of an object in GPU memory.

    Args:
        source: with ``__dlpack__`` or ``__cuda_array_interface__``.
        reader: gives the number of the GPU that reads the image, and the handle of a stream of it
            that may be made to wait for it. Called for DLPack alone.

    Raises:
        InputDataError: not uint8, not (height, width, 3), pixels that are not contiguous, or on
            another GPU.
    """
    if dlpack.is_on_gpu(source):
        gpu, waiter = reader()
        tensor = dlpack.export_from(source, gpu, waiter)
        kind, strides = tensor.dtype.str, tensor.strides_bytes
        return _checked(kind, tensor.shape, strides, tensor.address, waiter, tensor.owner)
    interface: Mapping[str, Any] = source.__cuda_array_interface__
    stream = interface.get("stream")
    return _checked(
        interface["typestr"],
        tuple(interface["shape"]),
        interface.get("strides"),
        int(interface["data"][0]),
        None if stream is None else int(stream),
        source,
    )


def _checked(
    kind: str,
    shape: tuple[int, ...],
    strides: Sequence[int] | None,
    address: int,
    stream: int | None,
    owner: object,
) -> DeviceImage:
    if kind != "|u1" or len(shape) != 3 or shape[2] != _CHANNELS or 0 in shape:
        raise InputDataError(
            "a GPU array of uint8 and shape (height, width, 3)",
            got=f"{kind} of shape {shape}",
            fix="Convert it on the GPU; for a batch give a list of images.",
        )
    height, width, _ = shape
    strides = strides or (width * _CHANNELS, _CHANNELS, 1)
    contiguous = strides[2] == 1 and (strides[1] == _CHANNELS or width == 1)
    if not contiguous or (strides[0] < width * _CHANNELS and height > 1):
        raise InputDataError(
            "a GPU array with contiguous pixels, rows at any distance",
            got=f"strides {tuple(strides)}",
            fix="Make it contiguous on the GPU first.",
        )
    return DeviceImage(
        address=address,
        height=height,
        width=width,
        row_bytes=max(int(strides[0]), width * _CHANNELS),
        stream=stream,
        owner=owner,
    )
