"""Results that stay in GPU memory: what is copied when, who may read them, and how long they live.

Each test names a function below it, which runs in a process of its own on the fake GPU; the fake
driver fails it where anything is live at its end. See fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, assert_same, both, error_of, random_images, yolo_model
from real_models import MEAN_COLOR_RECIPE, mean_color_model
from test_gpu_dlpack import GpuImage, Managed

from visionrt.results import Detections

KEEP = {"keep_on_device": True}


def downloads() -> int:
    return fake_cuda.calls("cuMemcpyDtoHAsync") + fake_cuda.calls("cuMemcpyDtoH")


@pytest.mark.parametrize("defers", [False, True])
def test_rows_come_to_the_host_when_they_are_read(
    fake_gpu: FakeGpu, emulated_kernels: Path, defers: bool
) -> None:
    fake_gpu.run(read_late, defers=defers, kernels=emulated_kernels)


def read_late() -> None:
    images = random_images(6)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        before = downloads()
        # All frames first, in every kind of turn: plain, recorded, replayed, beside ordinary ones.
        kept = [gpu(image, **KEEP) for image in (*images, *images)]
        batch = gpu(images[:3], **KEEP)
        assert downloads() == before
        ordinary = gpu(images[0])
        assert downloads() == before + 1
        for got, image in zip(kept, (*images, *images), strict=True):
            compare(got, cpu(image))
        assert downloads() == before + 1 + 12
        for got, wanted in zip(batch, cpu(images[:3]), strict=True):
            compare(got, wanted)
        assert downloads() == before + 1 + 12 + 1  # a batch has one block
        assert ordinary.on_device is None
        assert sum(len(result) for result in kept) > 20
        assert "boxes by kernels on the GPU, CUDA graphs" in gpu.explain()


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


def test_blocks_are_reused_once_nobody_reads_them(
    fake_gpu: FakeGpu, emulated_kernels: Path
) -> None:
    fake_gpu.run(reused_blocks, kernels=emulated_kernels)


def reused_blocks() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, _):
        for _ in range(4):
            gpu(image, **KEEP)
        gc.collect()
        allocated, graphs = fake_cuda.calls("cuMemAlloc"), fake_cuda.live("graph_execs")
        for _ in range(20):
            gpu(image, **KEEP)
        assert fake_cuda.calls("cuMemAlloc") == allocated
        assert fake_cuda.live("graph_execs") == graphs == 1
        held = [gpu(image, **KEEP) for _ in range(5)]
        assert len({result.on_device.xyxy.address for result in held}) == 5


@pytest.mark.parametrize("how", ["legacy", "own", "interface"])
def test_a_block_that_a_consumer_still_reads_is_not_written(
    fake_gpu: FakeGpu, emulated_kernels: Path, how: str
) -> None:
    fake_gpu.run(still_read, how, defers=True, kernels=emulated_kernels)


def still_read(how: str) -> None:
    from visionrt.device import open_device

    images = random_images(4)
    device = open_device(0)
    own, pinned = device.stream(), device.pinned()
    stream = 1 if how == "legacy" else own.handle
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for image in images:
            gpu(image, **KEEP)  # now nothing but the block may have to be made
        result = gpu(images[1], **KEEP)
        rows = result.on_device.table
        raw = pinned.array((rows.shape[0], rows.strides[0]), np.float32)
        if how == "interface":
            assert rows.__cuda_array_interface__["data"] == (rows.address, False)
        with device.current():
            consumer = None if how == "interface" else Consumer(rows.__dlpack__(stream=stream))
            if consumer is None:
                result.xyxy  # noqa: B018 - the frame is over, so any stream may read
            # Queued and not waited for; then the consumer lets go.
            to = raw.ctypes.data_as(ctypes.c_void_p)
            copy = fake_cuda.library().cuMemcpyDtoHAsync_v2
            size = ctypes.c_size_t(raw.nbytes - 8)  # from the first to the last of the columns
            assert copy(to, ctypes.c_uint64(rows.address), size, ctypes.c_void_p(stream)) == 0
        del result, rows
        if consumer is not None:
            consumer.free()
        gc.collect()
        waits, allocations = (fake_cuda.calls(n) for n in ("cuStreamWaitEvent", "cuMemAlloc"))
        for image in images[2:]:
            gpu(image, **KEEP).xyxy  # noqa: B018 - takes the block again
        # The default stream is waited for on the GPU; for others the memory is given up.
        assert fake_cuda.calls("cuStreamWaitEvent") - waits == (how == "legacy")
        assert fake_cuda.calls("cuMemAlloc") - allocations == (how != "legacy")
        with device.current():
            assert fake_cuda.library().cuStreamSynchronize(ctypes.c_void_p(stream)) == 0
        wanted = cpu(images[1])
        assert len(wanted) > 0
        np.testing.assert_array_equal(raw[: len(wanted), :4], wanted.xyxy)
    own.close()
    pinned.close()


def test_a_result_outlives_its_model(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(outlives_model, defers=True, kernels=emulated_kernels)


def outlives_model() -> None:
    images = random_images(5)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        wanted = [cpu(image) for image in images]
        kept = [gpu(image, **KEEP) for image in images]
    # The model is closed. Read, hand over, drop unread, drop in another thread.
    compare(kept[0], wanted[0])
    array = kept[1].on_device.xyxy
    assert fake_cuda.live("device") == 5
    del kept[1]
    gc.collect()
    assert fake_cuda.live("device") == 5  # the array holds its block
    np.testing.assert_array_equal(on_host(array)[: len(wanted[1])], wanted[1].xyxy)
    del array
    gc.collect()
    assert fake_cuda.live("device") == 4
    others = [kept]
    del kept

    def drop() -> None:
        others.clear()
        gc.collect()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert fake_cuda.leaks() == {}


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


def test_arrays_go_to_other_libraries(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(other_libraries, defers=True, kernels=emulated_kernels)


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


def other_libraries() -> None:
    from visionrt.device import open_device

    images = random_images(3)
    stream = open_device(0).stream()
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for image in (*images, *images):
            wanted = cpu(image)
            count = len(wanted)
            result = gpu(image, **KEEP)
            rows = result.on_device
            waited = fake_cuda.calls("cuEventSynchronize")
            consumers = {
                name: Consumer(getattr(rows, name).__dlpack__(stream=stream.handle))
                for name in ("xyxy", "confidence", "class_id", "count", "table")
            }
            assert fake_cuda.calls("cuEventSynchronize") == waited  # the host did not wait
            got = {name: consumer.read(stream) for name, consumer in consumers.items()}
            assert got["count"].tolist() == [count]
            for name in ("xyxy", "confidence", "class_id"):
                np.testing.assert_array_equal(got[name][:count], getattr(wanted, name))
                assert not got[name][count:].any()
            np.testing.assert_array_equal(got["table"][:count, :4], wanted.xyxy)
            np.testing.assert_array_equal(got["table"][:count, 5], wanted.class_id)
            whole = Consumer(result.to_dlpack(stream.handle))
            assert result.__dlpack_device__() == (2, 0)
            table = whole.read(stream) if count else np.zeros((0, 6), np.float32)
            np.testing.assert_array_equal(table, got["table"][:count])
            if count:
                np.testing.assert_array_equal(on_host(result), table)
            del result, rows
            gc.collect()
            # The consumers hold the memory now, and free it from a thread of theirs.
            for consumer in (*consumers.values(), whole):
                thread = threading.Thread(target=consumer.free)
                thread.start()
                thread.join()
    stream.close()
    gc.collect()
    assert fake_cuda.leaks() == {}


def test_the_protocols_rules(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(protocol_rules, kernels=emulated_kernels)


def protocol_rules() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, _):
        result = gpu(image, **KEEP)
        array = result.on_device.xyxy
        for stream in (None, -1, 1, 2):
            assert b"dltensor" in repr(array.__dlpack__(stream=stream)).encode()
        with pytest.raises(ValueError, match="expected a stream of CUDA"):
            array.__dlpack__(stream=0)
        for wish in ({"copy": True}, {"dl_device": (1, 0)}):
            with pytest.raises(BufferError, match="expected a view on the same GPU"):
                result.__dlpack__(**wish)
        versioned = array.__dlpack__(max_version=(1, 0), dl_device=(2, 0), copy=False)
        assert '"dltensor_versioned"' in repr(versioned)
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        at = get(versioned, b"dltensor_versioned")
        # Version, context and deleter, flags, then the tensor.
        assert (ctypes.c_uint32 * 2).from_address(at)[:] == [1, 0]
        assert ctypes.c_uint64.from_address(at + 32).value == array.address
        none = gpu(np.zeros((5, 5, 3), np.uint8), confidence=1.0, **KEEP)
        assert none.__cuda_array_interface__["shape"] == (0, 6)
        assert none.__cuda_array_interface__["data"] == (0, False)
        # Capsules that nobody consumed free what they hold.
        del versioned, array, none
        again = pickle.loads(pickle.dumps(result))
        assert type(again) is Detections
        compare(again, result)
        compare(copy.deepcopy(result), result)
        result.class_id = result.class_id + 1
        assert (result.class_id == again.class_id + 1).all()
    del result
    gc.collect()
    assert fake_cuda.leaks() == {}


def test_where_boxes_are_not_decoded_on_a_gpu(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(not_on_a_gpu, kernels=emulated_kernels)


def not_on_a_gpu() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (_, cpu):
        assert cpu(image, **KEEP).on_device is None
    with both(mean_color_model(), MEAN_COLOR_RECIPE) as (gpu, cpu):
        assert_same(gpu(image, **KEEP), cpu(image))


def test_images_in_gpu_memory_may_be_overwritten(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(overwritten_images, defers=True, kernels=emulated_kernels)


def overwritten_images() -> None:
    from visionrt.device import open_device

    image = random_images(1)[0]
    device = open_device(0)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for _ in range(3):
            array = GpuImage(image)
            result = gpu(array, **KEEP)
            with device.current():  # at once, on another stream
                staged = array.pinned.array(image.shape, np.uint8)
                staged[:] = 255 - image
                device.copy_to_device(array.tensor.data, staged, array.own)
                array.own.synchronize()
            compare(result, cpu(image))
            array.close()
            del result


def test_lanes_are_shared_while_frames_run(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(shared_lanes, defers=True, kernels=emulated_kernels, fast=True)


def shared_lanes() -> None:
    images = random_images(6)
    failures: list[BaseException] = []
    with both(yolo_model(), BOXES) as (gpu, cpu), contextlib.closing(gpu.clone()) as clone:
        wanted = [cpu(image) for image in images]

        def work(first: int) -> None:
            try:
                kept: list[tuple[Any, int]] = []
                for i in range(60):
                    at = (first + i) % len(images)
                    model = (gpu, clone)[i % 2]
                    options = KEEP if i % 3 else {}
                    kept.append((model(images[at], **options), at))
                    if i % 7 == 0:
                        for result, of in kept:
                            np.testing.assert_array_equal(result.xyxy, wanted[of].xyxy)
                        kept.clear()
                for result, of in kept:
                    np.testing.assert_array_equal(result.xyxy, wanted[of].xyxy)
            except BaseException as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert not failures, failures[0]
        assert not any(thread.is_alive() for thread in threads)
        # More shapes than a lane keeps contexts for, each while the last frame may still run.
        for count in (1, 2, 3, 4, 5, 6, 1, 6):
            for result, expected in zip(gpu(images[:count], **KEEP), wanted, strict=False):
                np.testing.assert_array_equal(result.xyxy, expected.xyxy)
        gpu.backend.run({"image": np.zeros((2, 3, 64, 64), np.float32)})
        last = gpu(images[0], **KEEP)
        gpu.close()
        clone(images[1])
    compare(last, wanted[0])


def test_no_memory_for_a_result(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(no_memory, kernels=emulated_kernels)


def no_memory() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (_, cpu):
        wanted = cpu(image)
    for call, times in (("cuMemAlloc", 2), ("cuEventCreate", 1), ("cuMemHostAlloc", 1)):
        with both(yolo_model(), BOXES) as (gpu, _):
            compare(gpu(image), wanted)
            fake_cuda.fail(call, 1, fake_cuda.OUT_OF_MEMORY, times=times)
            error = error_of(lambda gpu=gpu: gpu(image, **KEEP).xyxy)
            assert error is not None, call
            assert "out of memory" in error.got
            assert "Close other programs on the GPU" in error.fix
            del error  # its frames refer to the result
            fake_cuda.clear()
            for _ in range(3):  # the next frame works
                compare(gpu(image, **KEEP), wanted)
        gc.collect()
        assert not fake_cuda.leaks(), (call, fake_cuda.leaks())


def test_a_failure_is_told_where_the_result_is_read(
    fake_gpu: FakeGpu, emulated_kernels: Path
) -> None:
    fake_gpu.run(late_failure, defers=True, kernels=emulated_kernels, loses_context=True)


def late_failure() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, _):
        gpu(image)
        fake_cuda.fail("execute", 2, fake_cuda.ILLEGAL_ADDRESS)
        result = gpu(image, **KEEP)
        for read in (lambda: result.xyxy, lambda: result.xyxy, lambda: gpu(image, **KEEP)):
            error = error_of(read)
            assert error is not None
            assert "illegal memory access" in error.got
            assert "Start the program again" in error.fix
    # Closing did not raise. What a lost context held cannot be freed: no leak check.
    sys.stdout.flush()
    os._exit(0)
