"""Images that other libraries hold, by DLPack: in GPU memory and in host memory.

Each test of GPU memory names a function below it, which runs in a process of its own; see
fake_gpu.py.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, assert_same, both, random_images, yolo_model

from visionrt import image_io
from visionrt.errors import InputDataError

_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    """DLManagedTensor, written down from the specification."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Producer:
    """A library's array: a tensor, the capsules that were given for it, and who frees them."""

    def __init__(self, address: int, shape: tuple[int, ...], **changes: Any) -> None:
        self.sizes = (ctypes.c_int64 * len(shape))(*shape)
        fields = {"device_type": 2, "device_id": 0, "code": 1, "bits": 8, "lanes": 1}
        self.steps: Any = None
        strides = changes.pop("strides", None)
        if strides is not None:
            self.steps = (ctypes.c_int64 * len(strides))(*strides)
        self.tensor = Managed(
            data=address,
            ndim=len(shape),
            shape=ctypes.addressof(self.sizes),
            strides=None if self.steps is None else ctypes.addressof(self.steps),
            **{**fields, **changes},
        )
        self.live = 0
        self.streams: list[Any] = []
        # A capsule that is collected before it was consumed frees what it holds.
        self.freed = _DESTRUCTOR(self._free)

    def _free(self, _: Any) -> None:
        self.live -= 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.tensor.device_type, self.tensor.device_id)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        self.order(stream)
        self.live += 1
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR]
        return make(ctypes.addressof(self.tensor), b"dltensor", self.freed)

    def order(self, stream: Any) -> None:
        """Make a stream wait for what was queued."""


class GpuImage(Producer):
    """An image in device memory, written on a stream of its own that nothing waits for yet."""

    def __init__(self, image: np.ndarray, *, row_gap: int = 0, offset: int = 0) -> None:
        from visionrt.device import open_device

        device = open_device(0)
        height, width, _ = image.shape
        row = 3 * width + row_gap
        self.memory, self.pinned, self.own = device.buffer(), device.pinned(), device.stream()
        data = self.pinned.array((offset + height * row,), np.uint8)
        data[offset:].reshape(height, row)[:, : 3 * width] = image.reshape(height, -1)
        address = self.memory.reserve(data.nbytes)
        with device.current():
            device.copy_to_device(address, data, self.own)
        strides = (row, 3, 1) if row_gap else None
        super().__init__(address, image.shape, strides=strides, byte_offset=offset)

    def order(self, stream: Any) -> None:
        from visionrt import _core
        from visionrt.device import open_device

        assert isinstance(stream, int)
        assert stream > 2  # neither "no order" nor a default stream
        with open_device(0).current():
            _core.wait_for_stream(stream, self.own.handle)

    def close(self) -> None:
        for owned in (self.own, self.memory, self.pinned):
            owned.close()


def test_gpu_memory_is_read_where_it_lies(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(gpu_memory, defers=True, kernels=emulated_kernels)


def gpu_memory() -> None:
    images = random_images(4)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for row_gap, offset in ((0, 0), (7, 0), (0, 5), (7, 3)):
            for image in images:
                array = GpuImage(image, row_gap=row_gap, offset=offset)
                copied = fake_cuda.calls("cuMemcpyHtoDAsync")
                result = gpu(array)
                assert_same(result, cpu(image))
                assert fake_cuda.calls("cuMemcpyHtoDAsync") == copied
                assert "decode" not in result.speed
                gc.collect()
                assert (len(array.streams), array.live) == (1, 0)
                array.close()
        # Replayed frames wait for their own images; two models share no stream.
        first, second = GpuImage(images[0]), GpuImage(images[1])
        for _ in range(3):
            for got, wanted in zip(gpu([first, second]), cpu(images[:2]), strict=True):
                assert_same(got, wanted)
        with gpu.clone() as clone:
            assert_same(clone(first), cpu(images[0]))
        assert len(set(first.streams)) == 2
        first.close()
        second.close()


def test_gpu_memory_that_cannot_be_used(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(unusable_gpu_memory, kernels=emulated_kernels)


def unusable_gpu_memory() -> None:
    with both(yolo_model(), BOXES) as (gpu, cpu):
        array = GpuImage(random_images(1)[0])
        with pytest.raises(InputDataError, match="load the model on the GPU"):
            cpu(array)
        assert array.streams == []
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"device_id": 1}, r'on GPU 1.*device="cuda:1"'),
            ({"code": 2, "bits": 32}, "<f4 of shape"),
            ({"code": 0}, r"\|i1 of shape"),
            ({"code": 4, "bits": 16}, "DLPack type 4"),
            ({"lanes": 4}, "4 lanes"),
            ({"ndim": 2}, "shape"),
        ]
        for changes, words in wrong:
            before = {name: getattr(array.tensor, name) for name in changes}
            for name, value in changes.items():
                setattr(array.tensor, name, value)
            with pytest.raises(InputDataError, match=words):
                gpu(array)
            for name, value in before.items():
                setattr(array.tensor, name, value)
        apart = GpuImage(random_images(1)[0], row_gap=1)
        apart.steps[1] = 4
        with pytest.raises(InputDataError, match="contiguous pixels"):
            gpu(apart)
        array.order = _refuse  # type: ignore[method-assign]
        with pytest.raises(InputDataError, match="it requires a gradient"):
            gpu(array)
        gc.collect()
        assert (array.live, apart.live) == (0, 0)
        array.close()
        apart.close()


def _refuse(_: Any) -> None:
    raise BufferError("it requires a gradient")


class HostImage:
    """An array of another library over host memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)


def test_host_memory_is_not_copied() -> None:
    image = random_images(1)[0]
    decoded = image_io.decode(HostImage(image))  # type: ignore[arg-type]
    assert np.shares_memory(decoded, image)
    np.testing.assert_array_equal(decoded, image)
    assert not image_io.is_encoded(HostImage(image))  # type: ignore[arg-type]
    grey = image_io.decode(HostImage(image[..., 0].copy()))  # type: ignore[arg-type]
    np.testing.assert_array_equal(grey, np.repeat(image[..., :1], 3, axis=2))


def test_host_memory_that_cannot_be_used() -> None:
    with pytest.raises(InputDataError, match="float32"):
        image_io.decode(HostImage(np.zeros((4, 4, 3), np.float32)))  # type: ignore[arg-type]

    class Watched(HostImage):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("it requires a gradient")

    with pytest.raises(InputDataError, match=r"Watched: it requires a gradient"):
        image_io.decode(Watched(np.zeros((4, 4, 3), np.uint8)))  # type: ignore[arg-type]
