"""``visionrt.load(…, device="cuda:0")`` and the whole frame path, on the fake GPU.

Real PyCUDA, the extension's own launches, the emulated kernels and CUDA graphs; the engine is the
ONNX graph itself. So the results must be the CPU twin's. Each test names a function below it,
which runs in a process of its own; see fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import device_engines
import fake_cuda
import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu
from onnx import TensorProto, helper, numpy_helper
from real_models import (
    ASTRONAUT,
    CHELSEA,
    COFFEE,
    MEAN_COLOR_RECIPE,
    RECIPES,
    ROCKET,
    mean_color_model,
    model_path,
    write_engine,
)
from test_tensorrt_backend import rtx_plan

import visionrt
from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.manifest import PlanInfo
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

PLAN = PlanInfo("plans/rtx.plan", "tensorrt_rtx", "rtx:sm86", "1.7.1.116", ("86",), 0.0)
SIZE, CELLS = 64, 84  # 8² + 4² + 2²
BOXES = Recipe(
    "detect", "yolo", PreprocessSpec(size=(SIZE, SIZE)), ("red", "green", "blue"), confidence=0.3
)


def yolo_model(
    batch: int | str = "batch", seed: int = 3, infinite_anchor: int | None = None
) -> bytes:
    """A YOLO head of 84 anchors that depends on the image: boxes and 3 class scores."""
    rng = np.random.default_rng(seed)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 7, CELLS])
    xy = rng.uniform(5, 60, (1, 2, CELLS))
    wh = rng.uniform(8, 30, (1, 2, CELLS))
    constants = {
        "axes": np.array([2, 3]),
        "last": np.array([2]),
        "boxes": np.concatenate([xy, wh], 1).astype(np.float32),
        "shift": rng.uniform(-0.3, 0.5, (1, 3, CELLS)).astype(np.float32),
        "zero": np.zeros((1, 4, CELLS), np.float32),
    }
    if infinite_anchor is not None:
        constants["boxes"][:, 0, infinite_anchor] = np.inf
        constants["shift"][:, :, infinite_anchor] = 2
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),  # [n, 3]
        helper.make_node("Unsqueeze", ["mean", "last"], ["mean3"]),
        helper.make_node("Add", ["mean3", "shift"], ["scores"]),  # [n, 3, 84]
        helper.make_node("ReduceMax", ["scores", "one"], ["best"], keepdims=1),
        helper.make_node("Mul", ["best", "zero"], ["zeros"]),  # [n, 4, 84]
        helper.make_node("Add", ["zeros", "boxes"], ["boxes_n"]),
        helper.make_node("Concat", ["boxes_n", "scores"], ["output"], axis=1),
    ]
    constants["one"] = np.array([1])
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "yolo", [image], [output], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def both(model: bytes, recipe: Recipe, **options: Any) -> Iterator[tuple[Any, Any]]:
    """The same engine file on the GPU and as its CPU twin."""
    with (
        tempfile.TemporaryDirectory() as folder,
        device_engines.plans_run(device_engines.Session(model), **options),
    ):
        plans = {PLAN.member: (PLAN, rtx_plan())}
        path = write_engine(Path(folder) / "model.engine", model, recipe, plans=plans)
        with visionrt.load(path, device="cuda:0") as gpu:
            assert gpu.device == "cuda:0"
            with visionrt.load(path, device="cpu") as cpu:
                yield gpu, cpu


def assert_same(got: Any, wanted: Any) -> None:
    assert type(got) is type(wanted)
    assert got.image_hw == wanted.image_hw
    for name in ("class_id", "xyxy", "confidence", "logits", "mask", "keypoints"):
        expected = getattr(wanted, name, None)
        if expected is not None:
            np.testing.assert_array_equal(getattr(got, name), expected, err_msg=name)


def error_of(call: Callable[[], Any]) -> MissingDependencyError | None:
    try:
        call()
    except MissingDependencyError as error:
        return error
    return None


def random_images(count: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 90, (count, 2))
    tones = rng.uniform(0, 255, (count, 3))
    return [
        np.clip(rng.normal(tone, 20, (h, w, 3)), 0, 255).astype(np.uint8)
        for (h, w), tone in zip(sizes, tones, strict=True)
    ]


@pytest.mark.parametrize("defers", [False, True])
def test_detector_frames_equal_the_twins(
    fake_gpu: FakeGpu, emulated_kernels: Path, defers: bool
) -> None:
    fake_gpu.run(detector_frames, defers=defers, kernels=emulated_kernels)


def detector_frames() -> None:
    with both(yolo_model(), BOXES) as (gpu, cpu):
        images = random_images(12)
        # Compared at the end: a result must not change with later frames.
        pairs = [(gpu(image), cpu(image)) for image in images]
        for got, wanted in pairs:
            assert_same(got, wanted)
        assert sum(len(wanted) for _, wanted in pairs) > 20
        # Other options, colours and batches; a list is one batch where it fits.
        assert_same(gpu(images[0], confidence=0.6), cpu(images[0], confidence=0.6))
        assert_same(gpu(images[0], iou=0.1, max_det=3), cpu(images[0], iou=0.1, max_det=3))
        assert_same(gpu(images[0], color="rgb"), cpu(images[0], color="rgb"))
        assert_same(gpu(images[0], classes=["red"]), cpu(images[0], classes=["red"]))
        for _ in range(3):
            for got, wanted in zip(gpu(images[:5]), cpu(images[:5]), strict=True):
                assert_same(got, wanted)
        transposed = images[1].transpose(1, 0, 2)
        assert_same(gpu(transposed), cpu(transposed))
        assert "boxes by kernels on the GPU, CUDA graphs" in gpu.explain()


def test_a_replayed_frame_is_one_launch(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(launches_per_frame, kernels=emulated_kernels)


def launches_per_frame() -> None:
    calls = ("cuLaunchKernel", "cuGraphLaunch", "execute", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
    calls += ("cuMemAlloc", "cuMemHostAlloc", "cuStreamSynchronize", "cuMemsetD8Async")

    def counted(run: Any) -> dict[str, int]:
        before = {name: fake_cuda.calls(name) for name in calls}
        run()
        return {name: fake_cuda.calls(name) - before[name] for name in calls}

    image = random_images(1)[0]
    with both(yolo_model(), BOXES) as (gpu, _):
        plain = counted(lambda: gpu(image))
        assert (plain["cuLaunchKernel"], plain["cuMemsetD8Async"]) == (4, 1)
        assert (plain["cuMemcpyHtoDAsync"], plain["cuMemcpyDtoHAsync"]) == (1, 1)
        gpu(image)  # recorded
        replayed = counted(lambda: gpu(image))
        assert replayed == {
            **dict.fromkeys(calls, 0),
            "cuGraphLaunch": 1,
            "execute": 4,
            "cuStreamSynchronize": 1,
        }
        # Another image of the same size is the same graph; of another size, another.
        assert counted(lambda: gpu(255 - image))["cuLaunchKernel"] == 0
        assert counted(lambda: gpu(image[:-1]))["cuLaunchKernel"] == 4


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_real_models(fake_gpu: FakeGpu, emulated_kernels: Path, name: str) -> None:
    fake_gpu.run(real_model, name, kernels=emulated_kernels, fast=True)


def real_model(name: str) -> None:
    with both(model_path(name).read_bytes(), RECIPES[name]) as (gpu, cpu):
        photos = (COFFEE, CHELSEA, ASTRONAUT, ROCKET, COFFEE, COFFEE)
        for got, wanted in [(gpu(photo), cpu(photo)) for photo in photos]:
            assert_same(got, wanted)


def test_an_infinite_box_goes_the_twins_way(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(infinite_box, kernels=emulated_kernels)


def infinite_box() -> None:
    # Such a box would stand first and take the place of another: max_det=2 shows it.
    with both(yolo_model(infinite_anchor=10), BOXES) as (gpu, cpu):
        for image in (*random_images(4), random_images(1)[0]):
            for max_det in (2, 300):
                results = gpu(image, max_det=max_det)
                assert np.isfinite(results.xyxy).all()
                assert_same(results, cpu(image, max_det=max_det))


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
        fake_cuda.fail("cuStreamBeginCapture", 1, fake_cuda.CAPTURE_UNSUPPORTED)
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


def test_many_sizes_update_graphs_in_place(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(many_sizes, kernels=emulated_kernels)


def many_sizes() -> None:
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for image in random_images(25, seed=8):
            assert_same(gpu(image), cpu(image))
        assert fake_cuda.live("graph_execs") == 8
        assert fake_cuda.calls("cuGraphInstantiateWithFlags") <= 8 + 5  # buffers that grew
        assert fake_cuda.calls("cuGraphExecUpdate") >= 10
    assert fake_cuda.live("graph_execs") == 0


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


def test_the_double_has_no_name_that_the_bindings_lack(fake_gpu: FakeGpu) -> None:
    fake_gpu.run(double_names)


def double_names() -> None:
    import tensorrt_rtx as real

    spec = device_engines.engine_spec(device_engines.Session(mean_color_model()))
    library = device_engines.library_running(spec)
    runtime = library.Runtime(type("Logger", (real.ILogger,), {"log": lambda *_: None})())
    context = runtime.deserialize_cuda_engine
    kinds = [type(runtime), *type(runtime).__mro__]
    assert context is not None
    names = {n for kind in kinds[:-1] for n in vars(kind) if not n.startswith("_")} - {"spec"}
    assert "deserialize_cuda_engine" in names
    assert {n for n in names if not hasattr(real.Runtime, n)} == set()
    for name in ("is_stream_capturable", "execute_async_v3", "set_input_shape", "infer_shapes"):
        assert hasattr(real.IExecutionContext, name)


def test_alternating_batches_never_replay_a_stale_graph(
    fake_gpu: FakeGpu, emulated_kernels: Path
) -> None:
    fake_gpu.run(alternating_batches, kernels=emulated_kernels)


def alternating_batches() -> None:
    images = random_images(3)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for count in (1, 1, 1, 2, 2, 2, 1, 1, 3, 1, 1, 2, 2, 2):
            for got, wanted in zip(gpu(images[:count]), cpu(images[:count]), strict=True):
                assert_same(got, wanted)
        assert fake_cuda.calls("cuGraphLaunch") > 5
        # The back end's own call changes the same execution context.
        tensor = np.zeros((3, 3, SIZE, SIZE), np.float32)
        for count in (2, 2, 1, 1, 1):
            for got, wanted in zip(gpu(images[:count]), cpu(images[:count]), strict=True):
                assert_same(got, wanted)
            gpu.backend.run({"image": tensor})


def test_gpu_arrays_are_read_where_they_lie(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(gpu_arrays, defers=True, kernels=emulated_kernels)


class GpuArray:
    """A (h, w, 3) uint8 image in device memory, written on a stream of its own."""

    def __init__(self, image: np.ndarray, *, row_gap: int = 0, synchronised: bool = False) -> None:
        from visionrt.device import open_device

        device = open_device(0)
        height, width, _ = image.shape
        self.memory, self.pinned, self.stream = device.buffer(), device.pinned(), device.stream()
        row_bytes = 3 * width + row_gap
        rows = self.pinned.array((height, row_bytes), np.uint8)
        rows[:, : 3 * width] = image.reshape(height, -1)
        address = self.memory.reserve(rows.nbytes)
        with device.current():
            device.copy_to_device(address, rows, self.stream)
            if synchronised:
                self.stream.synchronize()
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": image.shape,
            "typestr": "|u1",
            "data": (address, False),
            "strides": (row_bytes, 3, 1) if row_gap else None,
            "stream": None if synchronised else self.stream.handle,
        }

    def close(self) -> None:
        for owned in (self.stream, self.memory, self.pinned):
            owned.close()


def gpu_arrays() -> None:
    images = random_images(4)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for row_gap in (0, 7):
            for synchronised in (False, True):
                options = {"row_gap": row_gap, "synchronised": synchronised}
                for image in images:
                    array = GpuArray(image, **options)
                    copied = fake_cuda.calls("cuMemcpyHtoDAsync")
                    assert_same(gpu(array), cpu(image))
                    assert fake_cuda.calls("cuMemcpyHtoDAsync") == copied
                    array.close()
        # Beside images in host memory, and in the second frame of a size, which is replayed.
        for _ in range(3):
            array = GpuArray(images[0])
            for got, wanted in zip(gpu([array, images[1]]), cpu(images[:2]), strict=True):
                assert_same(got, wanted)
            array.close()
        array = GpuArray(images[0])
        message = "load the model on the GPU"
        with pytest.raises(InputDataError, match=message):
            cpu(array)
        array.__cuda_array_interface__["typestr"] = "<f4"
        with pytest.raises(InputDataError, match="uint8 and shape"):
            gpu(array)
        array.__cuda_array_interface__ |= {"typestr": "|u1", "strides": (1000, 4, 1)}
        with pytest.raises(InputDataError, match="contiguous pixels"):
            gpu(array)
        array.close()


def test_a_fixed_batch_and_a_classifier(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(fixed_batch, kernels=emulated_kernels)


def fixed_batch() -> None:
    images = random_images(5)
    with both(yolo_model(batch=4), BOXES) as (gpu, cpu):
        for got, wanted in zip(gpu(images), cpu(images), strict=True):
            assert_same(got, wanted)
        assert_same(gpu(images[0]), cpu(images[0]))
    with both(mean_color_model(), MEAN_COLOR_RECIPE) as (gpu, cpu):
        pairs = [(gpu(image), cpu(image)) for image in (*images, images[0], images[0])]
        for got, wanted in pairs:
            assert_same(got, wanted)
        assert "outputs on the CPU, CUDA graphs" in gpu.explain()
