"""What goes wrong on a GPU costs one frame and one clear error, and leaks nothing.

Runs on the fake GPU; each test names a function below it, which runs in a process of its own; see
fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, assert_same, both, error_of, random_images, yolo_model


def test_a_lost_context_is_one_clear_error(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(lost_context, kernels=emulated_kernels, loses_context=True)


def lost_context() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, _):
        gpu(image)
        fake_cuda.fail("execute", 2, fake_cuda.ILLEGAL_ADDRESS)
        for _ in range(3):  # nothing works in this process any more, and nothing hangs
            error = error_of(lambda: gpu(image))
            assert error is not None
            assert "illegal memory access" in error.got
            assert "Start the program again" in error.fix
    # Closing did not raise. What a lost context held cannot be freed: no leak check.
    sys.stdout.flush()
    os._exit(0)


@pytest.mark.parametrize("how", ["capturable", "fails_in_capture", "driver"])
def test_capture_refused(fake_gpu: FakeGpu, emulated_kernels: Path, how: str) -> None:
    fake_gpu.run(capture_refused, how, kernels=emulated_kernels)


def capture_refused(how: str) -> None:
    options: dict[str, bool] = {}
    if how == "capturable":
        options = {"capturable": False}
    elif how == "fails_in_capture":
        options = {"fails_in_capture": True}
    else:
        fake_cuda.fail("cuStreamBeginCapture", 1, fake_cuda.CAPTURE_UNSUPPORTED, times=2)
    with both(yolo_model(), BOXES, **options) as (gpu, cpu):
        for image in random_images(4):
            assert_same(gpu(image), cpu(image))
        assert fake_cuda.calls("cuGraphLaunch") == 0
        note = gpu.explain().splitlines()[-1]
        reason = {
            "capturable": "these shapes cannot be captured",
            "fails_in_capture": "no message from the library",
            "driver": "not permitted when stream is capturing",
        }[how]
        assert "no CUDA graphs: " in note
        assert reason in note


def test_one_spoiled_recording_is_tried_again(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(spoiled_recording, kernels=emulated_kernels)


def spoiled_recording() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        gpu(image)
        fake_cuda.fail("cuStreamEndCapture", 1, 901)
        for _ in range(3):
            assert_same(gpu(image), cpu(image))
        assert fake_cuda.calls("cuGraphLaunch") == 2
        assert gpu.explain().endswith("CUDA graphs")


def test_out_of_memory_at_every_allocation(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(out_of_memory, kernels=emulated_kernels)


def out_of_memory() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (_, cpu):
        wanted = cpu(image)
    # PyCUDA asks once more for device memory, not for page-locked memory.
    for call, times in (("cuMemAlloc", 2), ("cuMemHostAlloc", 1)):
        at = 1
        while True:
            with both(yolo_model(), BOXES) as (gpu, _):
                fake_cuda.fail(call, at, fake_cuda.OUT_OF_MEMORY, times=times)
                error = error_of(lambda gpu=gpu: gpu(image))
                missed = fake_cuda.pending_faults()
                assert bool(missed) == (error is None)
                if error is not None:
                    assert "out of memory" in error.got
                    assert "Close other programs on the GPU" in error.fix
                fake_cuda.clear()
                assert_same(gpu(image), wanted)  # the next frame works
                assert_same(gpu(image), wanted)
            assert not fake_cuda.leaks(), (call, at, fake_cuda.leaks())
            if missed:
                break
            at += 1
        assert at > 2, call


@pytest.mark.parametrize("call", ["cuLaunchKernel", "cuGraphLaunch", "cuMemcpyHtoDAsync"])
def test_a_failing_call_costs_one_frame(
    fake_gpu: FakeGpu, emulated_kernels: Path, call: str
) -> None:
    fake_gpu.run(failing_call, call, kernels=emulated_kernels)


def failing_call(call: str) -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for warm in range(3):
            fake_cuda.fail(call, 1, 701)
            if call == "cuGraphLaunch" and warm == 0:
                fake_cuda.clear()
            error = error_of(lambda: gpu(image))
            # While a graph is recorded, a refused launch is a refused recording, and the frame
            # is queued plainly.
            assert error is None or "a GPU that can" in str(error)
            assert error is not None or warm > 0 or call == "cuGraphLaunch"
            fake_cuda.clear()
            assert_same(gpu(image), cpu(image))


def test_eight_threads_over_two_lanes(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(eight_threads, kernels=emulated_kernels, fast=True)


def eight_threads() -> None:
    images = random_images(8)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        wanted = [cpu(image) for image in images]
        failures: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for i in range(200):
                    at = (first + i) % len(images)
                    assert_same(gpu(images[at]), wanted[at])
            except BaseException as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert not failures, failures[0]
        assert not any(thread.is_alive() for thread in threads)


def test_close_during_use_and_exit_without_close(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(close_during_use, kernels=emulated_kernels)
    with pytest.raises(AssertionError, match=r"^exit 1\n[\s\S]*'streams': 2"):
        # Nothing is released yet when the child looks; the exit itself must not crash.
        fake_gpu.run(no_close, kernels=emulated_kernels)


def close_during_use() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        wanted = cpu(image)
        futures = [gpu.submit(image) for _ in range(6)]
        futures[0].result()
        clone = gpu.clone()
        gpu.close()
        for future in futures:
            if not future.cancelled():
                assert_same(future.result(), wanted)
        assert_same(clone(image), wanted)
        clone.close()


_kept: list[Any] = []


def no_close() -> None:
    stack = contextlib.ExitStack()
    gpu, _ = stack.enter_context(both(yolo_model(), BOXES))
    gpu(random_images(1)[0])
    _kept.append(stack)
