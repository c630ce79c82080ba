"""Checks of a GPU that the emulated tests do not have; they run on the fake GPU as well.

None takes a fixture, since some run in a process of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import onnx
from gpu_models import (
    BOXES,
    FakePlatform,
    assert_same,
    both,
    error_of,
    graph_counts,
    random_images,
    yolo_model,
)
from real_models import IMAGES, RECIPES, model_path

from trtconvert.passes.half import convert_to_half
from visionrt import _core
from visionrt.backends.trt_lane import Lane
from visionrt.device import Device, DeviceBuffer, open_device
from visionrt.errors import MissingDependencyError
from visionrt.gpu_tables import WeightTables
from visionrt.heads import Frame, head_for
from visionrt.image_io import decode
from visionrt.options import options_for
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

SPECS = {
    "yolo": PreprocessSpec(size=(96, 64)),
    "yolox": PreprocessSpec.parse("yolox,size=64"),
    "stretch": PreprocessSpec.parse("tf,size=77x50"),
    "imagenet": PreprocessSpec.parse("imagenet,size=56"),
    "bytes": PreprocessSpec(size=(48, 48), std=(1, 1, 1), layout="nhwc", dtype="uint8"),
    "halves": PreprocessSpec(size=(40, 56), dtype="float16"),
}
_LEFT_FREE = 48 << 20


def preprocess_bytes(name: str, cases: int) -> None:
    """The kernels write the bytes that the CPU back end writes."""
    device = open_device(0)
    prepare = Preprocessor(SPECS[name])
    stream, source, target = device.stream(), device.buffer(), device.buffer()
    weights = WeightTables(prepare.plan, stream)
    up, down = device.pinned(), device.pinned()
    rng = np.random.default_rng(6)
    with device.current():
        for case in range(cases):
            sizes = [(1, 1)] if case == 0 else rng.integers(1, 400, (rng.integers(1, 4), 2))
            images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes]
            color = ("bgr", "rgb")[case % 2]
            wanted = prepare(images, color=color)
            staged = up.array((sum(image.nbytes for image in images),), np.uint8)
            address = source.reserve(staged.nbytes)
            views, start = [], 0
            for image in images:
                staged[start : start + image.nbytes] = image.reshape(-1)
                views.append((address + start, *image.shape[:2], 3 * image.shape[1]))
                start += image.nbytes
            device.copy_to_device(address, staged, stream)
            tables = weights.addresses([image.shape[:2] for image in images])
            tensor = target.reserve(wanted.nbytes)
            prepare.plan.run_cuda(views, tensor, tables, stream.handle, color)
            got = down.array(wanted.shape, wanted.dtype)
            device.copy_to_host(got, tensor, stream)
            stream.synchronize()
            assert got.tobytes() == wanted.tobytes(), (name, case, sizes)
    for owned in (source, target, weights, up, down, stream):
        owned.close()


def nms_indices(cases: int, most: int) -> None:
    """The kernels keep the indices that the CPU back end keeps, in the same order."""
    device = open_device(0)
    stream, up, down, memory = device.stream(), device.pinned(), device.pinned(), device.buffer()
    rng = np.random.default_rng(7)
    with device.current():
        for case in range(cases):
            n = (1, 2, most)[case] if case < 3 else int(rng.integers(1, most))
            corner = rng.uniform(0, 300, (n, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(1, 80, (n, 2))], 1)
            boxes = boxes.round(int(rng.integers(0, 3))).astype(np.float32)
            # Few different values: most scores are ties.
            scores = (rng.integers(1, 50, n) / 64).astype(np.float32)
            class_ids = rng.integers(0, 4, n).astype(np.int32)
            max_det = int(rng.integers(1, 301))
            iou = float(rng.choice([0.0, 0.25, 0.5, 0.7, 1.0]))
            wanted = _core.nms(boxes, scores, class_ids, iou, max_det)
            parts = [boxes, scores, class_ids, np.arange(n, dtype=np.int32), np.int32([n])]
            starts = np.cumsum([0, *(-(-part.nbytes // 256) * 256 for part in parts)])
            staged = up.array((int(starts[-1]),), np.uint8)
            staged[:] = 0
            for part, start in zip(parts, starts[:-1], strict=True):
                staged[start : start + part.nbytes] = part.reshape(-1).view(np.uint8)
            room = _core.cuda_nms_workspace_bytes(1, n, max_det)
            out_bytes = 4 * (max_det + 1)
            base = memory.reserve(staged.nbytes + room + out_bytes)
            device.copy_to_device(base, staged, stream)
            out = base + staged.nbytes + room
            addresses = [base + int(start) for start in starts[:-1]]
            _core.cuda_nms(
                *addresses, 1, n, iou, max_det, base + staged.nbytes, room, out,
                out + 4 * max_det, stream.handle,
            )  # fmt: skip
            got = down.array((max_det + 1,), np.int32)
            device.copy_to_host(got, out, stream)
            stream.synchronize()
            assert got[-1] == len(wanted), (case, n)
            np.testing.assert_array_equal(got[: len(wanted)], wanted, err_msg=str((case, n)))
    for owned in (memory, up, down, stream):
        owned.close()


def decoded_exactly(form: str) -> None:
    """The results are what the CPU makes of the outputs that the engine left on the GPU."""
    changes: dict[str, Any] = {"head": "yolo", "head_options": {"form": form}}
    if form == "yolox":
        changes = {"head": "yolox"}
    elif form == "obb":  # the last class column is read as an angle
        changes = {"task": "obb", "head": "obb", "labels": BOXES.labels[:2]}
    model = yolo_model() if form == "obb" else yolo_model(form=form)
    with both(model, dataclasses.replace(BOXES, **changes)) as (gpu, _):
        for image in (*random_images(4), *random_images(4)):  # plain, then by a graph
            for confidence in (0.1, 0.6):
                frame_is_exact(gpu, image, confidence=confidence)


def frame_is_exact(gpu: Any, image: np.ndarray, **options: Any) -> None:
    """The tensor is the CPU's, and so is what is made of the outputs, bit for bit."""
    recipe = gpu.recipe
    result = gpu(image, **options)
    tensor, outputs = what_the_lane_holds(gpu, recipe.preprocess)
    prepare = Preprocessor(recipe.preprocess)
    np.testing.assert_array_equal(tensor, prepare([image]))
    frame = Frame(image.shape[:2], prepare.geometry(*image.shape[:2]))
    head = head_for(recipe, gpu.backend.outputs)
    (wanted,) = head.decode(outputs, [frame], options_for(recipe, **options))
    FakePlatform().compare(result, wanted)


def kept_results() -> None:
    """Results that stay on the GPU are the twin's when they are read, late and in any order."""
    images = random_images(6)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        kept = [gpu(image, keep_on_device=True) for image in (*images, *images)]
        for got, image in reversed(list(zip(kept, (*images, *images), strict=True))):
            assert_same(got, cpu(image))
            told = got.__cuda_array_interface__
            assert told["shape"] == (len(got), 6)
        last = gpu(images[0], keep_on_device=True)
        wanted = cpu(images[0])
    assert_same(last, wanted)


def what_the_lane_holds(gpu: Any, spec: PreprocessSpec) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Input tensor and outputs of the last frame, of one image, on the lane used last."""
    with gpu.backend.lane() as lane, lane.device.current():
        lane.queue_download()
        pinned = lane.device.pinned()
        tensor = pinned.array(spec.tensor_shape(1), spec.dtype)
        lane.device.copy_to_host(tensor, lane.input_address(), lane.stream)
        lane.stream.synchronize()
        outputs = {name: array[:1].copy() for name, array in lane.host_outputs().items()}
        copied = tensor.copy()
        pinned.close()
    return copied, outputs


def graph(name: str, precision: str) -> bytes:
    """A real model, or its graph typed for FP16."""
    model = model_path(name).read_bytes()
    if precision == "fp32":
        return model
    typed, _ = convert_to_half(onnx.load_from_string(model))
    return bytes(typed.SerializeToString())


def rounding(model: bytes, precision: str) -> float:
    """Expected error of an engine against FP32, as a share of an output's largest value.

    TF32, which TensorRT uses for FP32 convolutions, and FP16 have 10 bits: 2⁻¹¹ per rounding, and
    the errors of the layers add up as a random walk. FP16 rounds weights, sums and activations.
    """
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    layers = sum(node.op_type in kinds for node in onnx.load_from_string(model).graph.node)
    return 2**-11 * (layers * (3 if precision == "fp16" else 1)) ** 0.5


def output_errors(
    head: str, got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> dict[str, float]:
    """The root mean square of the difference of each output, as a share of its largest value.

    Of keypoints (y, x, score) only those that the model is sure of are compared: the place of
    another is the largest of nearly equal values.
    """
    out = {}
    for name, array in wanted.items():
        difference = got[name].astype(np.float64) - array
        if head == "keypoints":
            difference = difference[array[..., 2] >= 0.3]
        if difference.size:
            largest = max(float(np.abs(array).max()), 1e-9)
            out[name] = float(np.sqrt((difference**2).mean()) / largest)
    return out


def photos() -> Iterator[np.ndarray]:
    for name in ("coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg"):
        yield decode(IMAGES / name)


def real_model(name: str, precision: str) -> None:
    """Frames are exact given the outputs, which are the FP32 twin's within the rounding."""
    model = graph(name, precision)
    limit = rounding(model, precision)
    recipe = RECIPES[name]
    with both(model, recipe) as (gpu, _), both(graph(name, "fp32"), recipe) as (_, twin):
        prepare = Preprocessor(recipe.preprocess)
        input_name = twin.backend.inputs[0].name
        for image in photos():
            for _ in range(3):
                frame_is_exact(gpu, image)
            _, outputs = what_the_lane_holds(gpu, recipe.preprocess)
            wanted = twin.backend.run({input_name: prepare([image])})
            errors = output_errors(recipe.head, outputs, wanted)
            assert max(errors.values(), default=0.0) <= limit, (name, errors, limit)


def graphs_are_replayed() -> None:
    """A frame of a known size is one graph launch; sizes past the cache update old graphs."""
    images = random_images(25, seed=8)
    with both(yolo_model(), BOXES) as (gpu, cpu):
        for _ in range(5):
            assert_same(gpu(images[0]), cpu(images[0]))
        assert gpu.explain().endswith("CUDA graphs"), gpu.explain()
        assert graph_counts(gpu) == (1, 0, 4)
        for image in images:
            assert_same(gpu(image), cpu(image))
        made, updated, replayed = graph_counts(gpu)
        assert made + updated >= 25
        assert replayed == 4 + 25


def capture_refused() -> None:
    """Frames are queued piece by piece, and the reason is said."""
    with (
        mock.patch.object(Lane, "capture_problem", return_value="refused for a test"),
        both(yolo_model(), BOXES) as (gpu, cpu),
    ):
        for image in random_images(4):
            assert_same(gpu(image), cpu(image))
        assert "no CUDA graphs: refused for a test" in gpu.explain()
        assert graph_counts(gpu) == (0, 0, 0)


def out_of_memory() -> None:
    """A frame too large for what is left costs one error; the next frame works."""
    device = open_device(0)
    image = random_images(1)[0]
    large = np.full((6000, 6000, 3), 90, np.uint8)  # 108 MB
    with both(yolo_model(), BOXES) as (gpu, cpu):
        assert_same(gpu(image), cpu(image))
        held = _fill(device)
        try:
            error = error_of(lambda: gpu(large))
            assert error is not None
            assert "out of memory" in error.got
            assert "Close other programs on the GPU" in error.fix
            assert_same(gpu(image), cpu(image))
        finally:
            for buffer in held:
                buffer.close()
        assert_same(gpu(large), cpu(large))
        assert_same(gpu(image), cpu(image))


def _fill(device: Device) -> list[DeviceBuffer]:
    """Take the device's memory but for ``_LEFT_FREE``; in smaller pieces where it is in pieces."""
    held: list[DeviceBuffer] = []
    size = device.free_memory_bytes() - _LEFT_FREE
    while size > _LEFT_FREE // 4:
        buffer = device.buffer()
        try:
            buffer.reserve(size)
        except MissingDependencyError:
            size //= 2
            continue
        held.append(buffer)
        size = device.free_memory_bytes() - _LEFT_FREE
    return held


class NotAnImage:
    """Says that it lies on the GPU, at an address where nothing is."""

    def __init__(self) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (40, 50, 3),
            "typestr": "|u1",
            "data": (4096, True),
            "strides": None,
            "stream": None,
        }


def bad_address() -> None:
    """The GPU refuses to work on in this process; every call says so, and nothing hangs."""
    with both(yolo_model(), BOXES) as (gpu, cpu):
        image = random_images(1)[0]
        assert_same(gpu(image), cpu(image))
        for source in (NotAnImage(), image, image):
            error = error_of(lambda source=source: gpu(source))
            assert error is not None
            # Drivers tell it in either way.
            assert re.search("illegal memory access|unspecified launch failure", error.got)
            assert "Start the program again" in error.fix
