"""Images that lie in GPU memory already, by the CUDA Array Interface (version 3).

PyTorch, CuPy, Numba and PyCUDA arrays have it. Nothing is copied: the preprocess kernel reads the
caller's memory, after the work that the caller queued on the stream it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

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
    return hasattr(source, "__cuda_array_interface__")


def device_image(source: Any) -> DeviceImage:
    """A view of an object with ``__cuda_array_interface__``.

    Raises:
        InputDataError: not uint8, not (height, width, 3), or pixels that are not contiguous.
    """
    interface: Mapping[str, Any] = source.__cuda_array_interface__
    shape = tuple(interface["shape"])
    kind = interface["typestr"]
    if kind != "|u1" or len(shape) != 3 or shape[2] != _CHANNELS or 0 in shape:
        raise InputDataError(
            "a GPU array of uint8 and shape (height, width, 3)",
            got=f"{kind} of shape {shape}",
            fix="Convert it on the GPU; for a batch give a list of images.",
        )
    height, width, _ = shape
    strides = interface.get("strides") or (width * _CHANNELS, _CHANNELS, 1)
    contiguous = strides[2] == 1 and (strides[1] == _CHANNELS or width == 1)
    if not contiguous or strides[0] < width * _CHANNELS:
        raise InputDataError(
            "a GPU array with contiguous pixels, rows at any distance",
            got=f"strides {tuple(strides)}",
            fix="Make it contiguous on the GPU first.",
        )
    stream = interface.get("stream")
    return DeviceImage(
        address=int(interface["data"][0]),
        height=height,
        width=width,
        row_bytes=int(strides[0]),
        stream=None if stream is None else int(stream),
        owner=source,
    )
