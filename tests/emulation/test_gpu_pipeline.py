"""``visionrt.load(…, device="cuda:0")`` and the whole frame path, on the fake GPU.

Real PyCUDA, the extension's own launches, the emulated kernels and CUDA graphs; the engine is the
ONNX graph itself. So the results must be the CPU twin's. Each test names a function below it,
which runs in a process of its own; see fake_gpu.py.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import device_engines
import fake_cuda
import gpu_models
import numpy as np
import pytest
import tensorrt_contract as contract
from fake_gpu import FakeGpu
from gpu_models import BOXES, SIZE, assert_same, both, graph_counts, random_images, yolo_model
from real_models import (
    MEAN_COLOR_RECIPE,
    mean_color_model,
)

from visionrt import gpu_tables
from visionrt.errors import InputDataError
from visionrt.spec import PreprocessSpec


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


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
def test_a_replayed_frame_is_one_launch(
    fake_gpu: FakeGpu, emulated_kernels: Path, interpolation: str
) -> None:
    fake_gpu.run(launches_per_frame, interpolation, kernels=emulated_kernels)


def launches_per_frame(interpolation: str) -> None:
    calls = ("cuLaunchKernel", "cuGraphLaunch", "execute", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
    calls += ("cuMemAlloc", "cuMemHostAlloc", "cuStreamSynchronize", "cuMemsetD8Async")

    def counted(run: Any) -> dict[str, int]:
        before = {name: fake_cuda.calls(name) for name in calls}
        run()
        return {name: fake_cuda.calls(name) - before[name] for name in calls}

    image = random_images(1)[0]
    recipe = dataclasses.replace(
        BOXES, preprocess=PreprocessSpec(size=(SIZE, SIZE), interpolation=interpolation)
    )
    tables = int(interpolation == "pil")  # uploaded once for each size of image
    with both(yolo_model(), recipe) as (gpu, _):
        plain = counted(lambda: gpu(image))
        assert (plain["cuLaunchKernel"], plain["cuMemsetD8Async"]) == (5, 1)
        assert (plain["cuMemcpyHtoDAsync"], plain["cuMemcpyDtoHAsync"]) == (1 + tables, 1)
        gpu(image)  # recorded
        replayed = counted(lambda: gpu(image))
        assert replayed == {
            **dict.fromkeys(calls, 0),
            "cuGraphLaunch": 1,
            "execute": 5,
            "cuStreamSynchronize": 1,
        }
        # Another image of the same size is the same graph; of another size, another.
        assert counted(lambda: gpu(255 - image))["cuLaunchKernel"] == 0
        assert counted(lambda: gpu(image[:-1]))["cuLaunchKernel"] == 5


def test_pil_frames_equal_the_twins(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(pil_frames, kernels=emulated_kernels, fast=True)


def pil_frames() -> None:
    """More sizes than tables are kept, one by one and side by side, and sizes that come back."""
    spec = PreprocessSpec(size=(SIZE, SIZE), interpolation="pil")
    images = random_images(gpu_tables.LIMIT + 4)
    with both(yolo_model(), dataclasses.replace(BOXES, preprocess=spec)) as (gpu, cpu):
        for image in (*images, images[0], images[0], images[-1]):
            assert_same(gpu(image), cpu(image))
        for start in (0, 4, 0):
            batch = images[start : start + 8]
            for got, wanted in zip(gpu(batch), cpu(batch), strict=True):
                assert_same(got, wanted)
        (frames,) = gpu._pipeline._gpu._frames.values()
        assert len(frames._tables._tables) == gpu_tables.LIMIT


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


@pytest.mark.parametrize("version", contract.stored_versions())
def test_frames_by_full_tensorrt(fake_gpu: FakeGpu, emulated_kernels: Path, version: str) -> None:
    fake_gpu.run(full_tensorrt_frames, version, kernels=emulated_kernels, fast=True)


def full_tensorrt_frames(version: str) -> None:
    with both(yolo_model(), BOXES, version=version) as (gpu, cpu):
        assert gpu.backend.name == "tensorrt"
        images = random_images(3)
        for image in (*images, *images):
            assert_same(gpu(image), cpu(image))
            assert_same(gpu(image, keep_on_device=True), cpu(image))
        for got, wanted in zip(gpu(images), cpu(images), strict=True):
            assert_same(got, wanted)
        assert gpu.explain().endswith("CUDA graphs")


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
        assert graph_counts(gpu)[2] > 5
        # The back end's own call changes the same execution context.
        tensor = np.zeros((3, 3, SIZE, SIZE), np.float32)
        for count in (2, 2, 1, 1, 1):
            for got, wanted in zip(gpu(images[:count]), cpu(images[:count]), strict=True):
                assert_same(got, wanted)
            gpu.backend.run({"image": tensor})


def test_two_lanes_overlap(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(two_lanes, kernels=emulated_kernels)


class Meeting(device_engines.Session):
    """An engine that waits, once ``meets`` is set, until another lane is in it as well."""

    meets = False
    barrier = threading.Barrier(2, timeout=30)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.meets:
            self.barrier.wait()
        return super().__call__(feeds)


def two_lanes() -> None:
    session = Meeting(yolo_model())
    first, second = random_images(2)
    with both(yolo_model(), BOXES, session=session) as (gpu, cpu):
        gpu(first)
        session.meets = True
        for _ in range(4):  # plain, recorded and replayed frames
            futures = [gpu.submit(first), gpu.submit(second)]
            for future, image in zip(futures, (first, second), strict=True):
                assert_same(future.result(60), cpu(image))
        session.meets = False


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
                    copied = gpu_models.platform.calls("cuMemcpyHtoDAsync")
                    assert_same(gpu(array), cpu(image))
                    assert gpu_models.platform.calls("cuMemcpyHtoDAsync") == copied
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


def test_graphs_survive_alternating_batches(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(graphs_survive, kernels=emulated_kernels)


def graphs_survive() -> None:
    images = [np.full((40, 50, 3), tone, np.uint8) for tone in range(0, 250, 25)]
    with both(yolo_model(), BOXES) as (gpu, cpu):
        wanted = cpu(images[:4])

        def turn(counts: tuple[int, ...]) -> None:
            for count in counts:
                for got, expected in zip(gpu(images[:count]), wanted, strict=False):
                    assert_same(got, expected)

        turn((4, 4, 4, 1, 2, 3))  # the largest first: then no buffer grows
        turn((1, 2, 3, 4))
        before = fake_cuda.calls("cuGraphInstantiateWithFlags"), fake_cuda.calls("cuMemAlloc")
        launched = fake_cuda.calls("cuGraphLaunch")
        turn((1, 2, 3, 4) * 5)
        after = fake_cuda.calls("cuGraphInstantiateWithFlags"), fake_cuda.calls("cuMemAlloc")
        assert after == before
        assert fake_cuda.calls("cuGraphLaunch") == launched + 20
        # Neither does the back end's own call disturb them.
        gpu.backend.run({"image": np.zeros((4, 3, SIZE, SIZE), np.float32)})
        turn((1, 2))
        assert fake_cuda.calls("cuGraphInstantiateWithFlags") == before[0]
        # A larger one moves the tensors, and nothing else that a graph was recorded with.
        gpu.backend.run({"image": np.zeros((8, 3, SIZE, SIZE), np.float32)})
        turn((1, 2, 3, 4) * 3)
        # A fifth shape takes the place of the oldest, and costs the graphs; no buffer grows then.
        wanted = cpu(images[:5])
        turn((5, 5, 5))
        before = fake_cuda.calls("cuGraphInstantiateWithFlags"), fake_cuda.calls("cuMemAlloc")
        turn((4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 5, 5, 5, 4, 4, 4))
        after = fake_cuda.calls("cuGraphInstantiateWithFlags"), fake_cuda.calls("cuMemAlloc")
        assert (after[0] > before[0], after[1]) == (True, before[1])


def test_compiled_kernels_are_kept(
    fake_gpu: FakeGpu, emulated_kernels: Path, tmp_path: Path
) -> None:
    fake_gpu.run(kept_kernels, str(tmp_path / "cache"), kernels=emulated_kernels)


def kept_kernels(folder: str) -> None:
    import os

    import tensorrt_double

    os.environ["VISIONRT_CACHE"] = folder
    image = random_images(1)[0]

    def compilations() -> int:
        before = len(tensorrt_double.compiled)
        with both(yolo_model(), BOXES) as (gpu, cpu):
            assert_same(gpu(image), cpu(image))
        return len(tensorrt_double.compiled) - before

    assert compilations() == 1
    (kept,) = Path(folder).iterdir()
    assert compilations() == 0
    # Damage, and what the library refuses, cost a compilation.
    kept.write_bytes(kept.read_bytes()[:-1])
    assert compilations() == 1
    assert kept.read_bytes().endswith(tensorrt_double.KERNELS)
    tensorrt_double.KERNELS = b"of another driver"
    assert (compilations(), compilations()) == (1, 0)
    os.environ["VISIONRT_CACHE"] = __file__  # no folder
    assert (compilations(), compilations()) == (1, 1)
