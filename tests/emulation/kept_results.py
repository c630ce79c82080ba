"""Results that stay in GPU memory, as other libraries read them."""

from __future__ import annotations

import ctypes
from typing import Any

import fake_cuda
import numpy as np
from test_gpu_dlpack import Managed

from visionrt.results import Detections

KEEP = {"keep_on_device": True}


def compare(got: Any, wanted: Any) -> None:
    """A kept result has every number of the twin's, and does what a result does."""
    assert got.image_hw == wanted.image_hw
    for name in ("xyxy", "confidence", "class_id"):
        array = getattr(got, name)
        assert array.dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(array, getattr(wanted, name), err_msg=name)
    assert got.rows() == wanted.rows()
    assert got.summary() == wanted.summary()
    assert type(got[:2]) is Detections


def on_host(array: Any) -> np.ndarray:
    """What a consumer of the CUDA Array Interface copies on the stream it is told."""
    from visionrt.device import open_device

    told = array.__cuda_array_interface__
    assert told["version"] == 3
    kind = np.dtype(told["typestr"])
    extent = sum((n - 1) * step for n, step in zip(told["shape"], told["strides"], strict=True))
    device = open_device(0)
    pinned = device.pinned()
    raw = pinned.array((extent + kind.itemsize,), np.uint8)
    cuda = fake_cuda.library()
    stream = ctypes.c_void_p(told["stream"])
    with device.current():
        address = ctypes.c_uint64(told["data"][0])
        size = ctypes.c_size_t(raw.nbytes)
        assert (
            cuda.cuMemcpyDtoHAsync_v2(raw.ctypes.data_as(ctypes.c_void_p), address, size, stream)
            == 0
        )
        assert cuda.cuStreamSynchronize(stream) == 0
    view = np.lib.stride_tricks.as_strided(
        raw[: kind.itemsize].view(kind), told["shape"], told["strides"]
    )
    out = view.copy()
    pinned.close()
    return out


class Consumer:
    """Another library: reads a capsule on a stream of its own, and frees it when it likes."""

    def __init__(self, capsule: Any) -> None:
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        rename = ctypes.pythonapi.PyCapsule_SetName
        rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
        self.tensor = Managed.from_address(get(capsule, b"dltensor"))
        rename(capsule, b"used_dltensor")

    def read(self, stream: Any) -> np.ndarray:
        """A copy made on the consumer's stream, which alone is waited for."""
        from visionrt.device import open_device

        t = self.tensor
        shape, steps = ((ctypes.c_int64 * t.ndim).from_address(p)[:] for p in (t.shape, t.strides))
        assert (t.device_type, t.device_id, t.bits, t.lanes) == (2, 0, 32, 1)
        kind = np.dtype({2: np.float32, 0: np.int32}[t.code])
        words = 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        device = open_device(0)
        pinned = device.pinned()
        raw = pinned.array((words,), kind)
        with device.current():
            device.copy_to_host(raw, t.data + t.byte_offset, stream)
            stream.synchronize()
        strides = [4 * step for step in steps]
        out = np.lib.stride_tricks.as_strided(raw, shape, strides).copy()
        pinned.close()
        return out

    def free(self) -> None:
        # ctypes lets go of the GIL for the call, as a library's own thread would.
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.tensor.deleter)(ctypes.addressof(self.tensor))
