"""What goes wrong on a GPU costs one frame and one clear error, and leaks nothing.

Runs on the fake GPU; each test names a function below it, which runs in a process of its own; see
fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import device_engines
import fake_cuda
import pytest
from fake_gpu import FakeGpu
from gpu_models import BOXES, PLAN, assert_same, both, error_of, random_images, yolo_model
from real_models import write_engine
from tensorrt_engines import rtx_plan

import visionrt
from visionrt.errors import VisionrtError


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


def test_what_the_driver_says_of_a_kernel_is_told(
    fake_gpu: FakeGpu, emulated_kernels: Path
) -> None:
    fake_gpu.run(kernel_refused, kernels=emulated_kernels)


def kernel_refused() -> None:
    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        fake_cuda.fail("cuLibraryGetKernel", 1, 999)
        error = error_of(lambda: gpu(image))
        assert error is not None
        assert "cuLibraryGetKernel of preprocess_cv2" in error.got
        assert "unknown error" in error.got
        assert_same(gpu(image), cpu(image))


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
                    kind = "GPU" if call == "cuMemAlloc" else "pinned"
                    assert re.fullmatch(
                        rf"expected enough memory to allocate \d+ bytes of {kind} memory, "
                        rf"got {call} failed: out of memory\. "
                        r"Close other programs on the GPU, or use a smaller batch or image\.",
                        str(error),
                    ), error
                fake_cuda.clear()
                assert_same(gpu(image), wanted)  # the next frame works
                assert_same(gpu(image), wanted)
            assert not fake_cuda.leaks(), (call, at, fake_cuda.leaks())
            if missed:
                break
            at += 1
        assert at > 2, call


def test_out_of_memory_at_a_new_batch_size(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(out_of_memory_at_new_size, kernels=emulated_kernels)


def out_of_memory_at_new_size() -> None:
    images = random_images(4)
    with both(yolo_model(), BOXES) as (_, cpu):
        wanted = cpu(images)
    at, missed = 1, 0
    while not missed:
        with both(yolo_model(), BOXES) as (gpu, _):
            for count in (1, 1, 1, 2, 2, 2):
                gpu(images[:count])
            fake_cuda.fail("cuMemAlloc", at, fake_cuda.OUT_OF_MEMORY, times=2)
            error = error_of(lambda gpu=gpu: gpu(images))
            missed = fake_cuda.pending_faults()
            assert bool(missed) == (error is None)
            fake_cuda.clear()
            for count in (1, 2, 2, 1, 1, 4, 4, 4, 1, 2):
                for got, expected in zip(gpu(images[:count]), wanted, strict=False):
                    assert_same(got, expected)
        assert not fake_cuda.leaks(), (at, fake_cuda.leaks())
        at += 1
    assert at > 3


def test_no_room_for_another_context(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(no_room_for_context, kernels=emulated_kernels)


def no_room_for_context() -> None:
    images = random_images(2)
    session = device_engines.Session(yolo_model())
    with (
        both(yolo_model(), BOXES, session=session) as (gpu, cpu),
        contextlib.closing(gpu.clone()) as clone,
    ):
        spec = gpu.backend._engine._engine.spec
        wanted = cpu(images)
        for model in (gpu, clone, gpu):
            assert_same(model(images[0]), wanted[0])
        spec.contexts, room = 0, spec.contexts
        for _ in range(2):
            error = error_of(lambda: gpu(images))
            assert error is not None
            assert "createExecutionContext: out of memory" in error.got
            assert_same(gpu(images[0]), wanted[0])
        spec.contexts = room
        for got, expected in zip(gpu(images), wanted, strict=True):
            assert_same(got, expected)


_WORDS = "too many resources requested for launch"
_CODE = f"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES ({_WORDS})"
# Call -> what cannot be done (a pattern), what came, and in which frames of three the call is made:
# queued piece by piece, recorded, replayed.
FAILING = {
    "cuLaunchKernel": ("preprocess images", f"preprocess_cv2: {_CODE}", "queued"),
    "cuMemsetD8Async": ("decode boxes", f"cuMemsetD8Async: {_CODE}", "queued"),
    "cuMemcpyHtoDAsync": ("copy to the GPU", f"cuMemcpyHtoDAsync failed: {_WORDS}", "queued"),
    "cuMemcpyDtoHAsync": ("copy from the GPU", f"cuMemcpyDtoHAsync failed: {_WORDS}", "queued"),
    "cuGraphLaunch": ("launch a CUDA graph", f"cuGraphLaunch: {_CODE}", "graph"),
    "cuStreamSynchronize": (
        "finish the work on the GPU",
        f"cuStreamSynchronize failed: {_WORDS}",
        "always",
    ),
    "cuCtxPushCurrent": (
        "make the context current",
        f"cuCtxPushCurrent failed: {_WORDS}",
        "always",
    ),
    "cuCtxPopCurrent": (
        "make the context current|leave the context",
        f"cuCtxPopCurrent failed: {_WORDS}",
        "always",
    ),
}


@pytest.mark.parametrize("call", FAILING)
def test_a_failing_call_costs_one_frame(
    fake_gpu: FakeGpu, emulated_kernels: Path, call: str
) -> None:
    fake_gpu.run(failing_call, call, kernels=emulated_kernels)


def failing_call(call: str) -> None:
    image = random_images(1)[0]
    doing, got, when = FAILING[call]
    # A refused launch in a recording is a refused recording, and the frame is queued plainly.
    failing_frames = {"queued": (0,), "graph": (1, 2), "always": (0, 1, 2)}[when]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        wanted = cpu(image)
        for frame in range(3):
            fake_cuda.fail(call, 1, 701)
            error = error_of(lambda: gpu(image))
            if frame in failing_frames:
                assert re.fullmatch(
                    f"expected a GPU that can ({doing}), got {re.escape(got)}. "
                    "Start the program again; where it persists, run visionrt doctor.",
                    str(error),
                ), error
            else:
                assert error is None
            fake_cuda.clear()
            assert_same(gpu(image), wanted)  # the next frame works
    assert not fake_cuda.leaks()


def test_plans_for_another_gpu_or_version(
    fake_gpu: FakeGpu, emulated_kernels: Path, tmp_path: Path
) -> None:
    fake_gpu.run(wrong_plans, str(tmp_path), kernels=emulated_kernels)


def wrong_plans(folder: str) -> None:
    """By what the manifest says, and, where that is wrong, by the plan's own header."""
    newer = {"library_version": "1.99.0.0"}
    cases: list[tuple[dict[str, Any], bytes, str]] = [
        ({"compute_capabilities": ("89",)}, rtx_plan(), "it was built for SM89, not SM86"),
        ({}, rtx_plan(sm_mask=0b1), "it was built for SM75, not SM86"),
        (newer, rtx_plan(), "it was built by version 1.99.0.0, which is newer than 1.7.1.116"),
        ({}, rtx_plan(version=bytes((2, 0, 0, 1))), "1.7.1.116 is of another major version"),
        ({}, rtx_plan(cut=5), "cut off by 5 bytes"),
        ({}, b"not a plan at all", "unknown bytes"),
    ]
    image, model = random_images(1)[0], yolo_model()
    with device_engines.plans_run(device_engines.Session(model)):
        for number, (changes, plan, words) in enumerate(cases):
            info = dataclasses.replace(PLAN, **changes)
            path = Path(folder) / f"{number}.engine"
            write_engine(path, model, BOXES, plans={info.member: (info, plan)})
            with pytest.raises(VisionrtError, match=re.escape(words)):
                visionrt.load(path, device="cuda:0", rebuild=False)
            assert not fake_cuda.leaks(), words
            # The twin serves, and says why.
            with visionrt.load(path, device="auto", rebuild=False) as twin:
                assert twin.device == "cpu"
                assert words in twin.explain()
                wanted = twin(image)
        with both(model, BOXES) as (gpu, _):
            assert_same(gpu(image), wanted)


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
