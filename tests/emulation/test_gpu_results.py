"""Results that stay in GPU memory: what is copied when, who may read them, and how long they live.

Each test names a function below it, which runs in a process of its own on the fake GPU; the fake
driver fails it where anything is live at its end. See fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, assert_same, both, error_of, random_images, yolo_model
from kept_results import KEEP, compare, on_host
from real_models import MEAN_COLOR_RECIPE, mean_color_model
from test_gpu_dlpack import GpuImage


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
