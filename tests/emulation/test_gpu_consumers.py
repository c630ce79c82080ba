"""Results in GPU memory that go to other libraries: by which rules, and how long they live."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import threading
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, both, random_images, yolo_model
from kept_results import KEEP, Consumer, compare, on_host

from visionrt.results import Detections


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


def test_arrays_go_to_other_libraries(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(other_libraries, defers=True, kernels=emulated_kernels)


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
