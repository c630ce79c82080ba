"""Engine files that run on a GPU and as their CPU twins, images, and how to compare.

The GPU is the fake one, unless ``platform`` is set to another: tests/gpu runs the same checks on a
real one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import device_engines
import fake_cuda
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from real_models import (
    write_engine,
)
from tensorrt_engines import rtx_plan
from tensorrt_versions import full_plan

import visionrt
from visionrt.errors import MissingDependencyError
from visionrt.manifest import PlanInfo
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

PLAN = PlanInfo("plans/rtx.plan", "tensorrt_rtx", "rtx:sm86", "1.7.1.116", ("86",), 0.0)
SIZE, CELLS = 64, 84  # 8² + 4² + 2²
BOXES = Recipe(
    "detect", "yolo", PreprocessSpec(size=(SIZE, SIZE)), ("red", "green", "blue"), confidence=0.3
)


def yolo_model(
    batch: int | str = "batch",
    *,
    form: str = "v8",
    infinite_anchor: int | None = None,
    half: bool = False,
    prototypes: bool = False,
) -> bytes:
    """A detector of 84 anchors whose 3 class scores depend on the image, in any YOLO form.

    ``prototypes`` adds an output [n, 2, 16, 16]: then the last two columns are coefficients.
    ``yolox`` gives offsets and logarithms in the place of centres and sizes.
    """
    rng = np.random.default_rng(3)
    boxes = np.concatenate([rng.uniform(5, 60, (2, CELLS)), rng.uniform(8, 30, (2, CELLS))])
    if form == "yolox":
        boxes = rng.normal(0, 0.7, (4, CELLS))
    columns = [boxes, np.full((1, CELLS), 0.9)] if form in ("v5", "yolox") else [boxes]
    fixed = np.concatenate(columns)[None].astype(np.float32)
    shift = rng.uniform(-0.3, 0.5, (1, 3, CELLS)).astype(np.float32)
    if infinite_anchor is not None:
        fixed[:, 0, infinite_anchor] = np.inf
        shift[:, :, infinite_anchor] = 2
    constants = {
        "axes": np.array([2, 3]),
        "last": np.array([2]),
        "first": np.array([1]),
        "fixed": fixed,
        "shift": shift,
        "zero": np.zeros((1, fixed.shape[1], CELLS), np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),  # [n, 3]
        helper.make_node("Unsqueeze", ["mean", "last"], ["mean_column"]),
        helper.make_node("Add", ["mean_column", "shift"], ["scores"]),  # [n, 3, 84]
        helper.make_node("ReduceMax", ["scores", "first"], ["best"], keepdims=1),
        helper.make_node("Mul", ["best", "zero"], ["zeros"]),  # [n, 4 or 5, 84]
        helper.make_node("Add", ["zeros", "fixed"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "scores"], ["columns"], axis=1),
    ]
    shape: list[int | str] = [batch, fixed.shape[1] + 3, CELLS]
    made = "columns"
    if form != "v8":
        shape = [shape[0], shape[2], shape[1]]
        nodes.append(helper.make_node("Transpose", [made], ["rows"], perm=[0, 2, 1]))
        made = "rows"
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", [made], ["output"], to=kind))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])
    outputs = [helper.make_tensor_value_info("output", kind, shape)]
    if prototypes:
        quarter = {"kernel_shape": [4, 4], "strides": [4, 4]}
        constants |= {"two": np.array([0, 1]), "middle": np.array(0.4, np.float32)}
        nodes += [
            helper.make_node("AveragePool", ["image"], ["small"], **quarter),
            helper.make_node("Gather", ["small", "two"], ["planes"], axis=1),
            helper.make_node("Sub", ["planes", "middle"], ["prototypes"]),
        ]
        planes = [batch, 2, SIZE // 4, SIZE // 4]
        outputs.append(helper.make_tensor_value_info("prototypes", TensorProto.FLOAT, planes))
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "yolo", [image], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


Plans = Mapping[str, tuple[PlanInfo, bytes]]


class Platform(Protocol):
    """What differs between the fake GPU and a real one."""

    def plans(
        self, model: bytes, session: device_engines.Session | None, **options: Any
    ) -> AbstractContextManager[Plans]:
        """Plans of a graph by member name, that load in the block."""
        ...

    def compare(self, got: Any, wanted: Any) -> None:
        """Assert that a result is the twin's."""
        ...

    def calls(self, name: str) -> int:
        """How often a driver function was called; always 0 where nobody counts."""
        ...


class FakePlatform:
    """An engine runs its graph in ONNX Runtime, as the twin does: results are equal bit for bit."""

    @contextlib.contextmanager
    def plans(
        self, model: bytes, session: device_engines.Session | None, **options: Any
    ) -> Iterator[Plans]:
        version = options.get("version", "")
        with device_engines.plans_run(session or device_engines.Session(model), **options):
            if version:
                info = PlanInfo("plans/trt.plan", "tensorrt", "tensorrt", version, ("86",), 0.0)
                yield {info.member: (info, full_plan(version))}
            else:
                yield {PLAN.member: (PLAN, rtx_plan())}

    def compare(self, got: Any, wanted: Any) -> None:
        for name in ("class_id", "xyxy", "confidence", "logits", "mask", "keypoints", "xywhr"):
            expected = getattr(wanted, name, None)
            if expected is not None:
                np.testing.assert_array_equal(getattr(got, name), expected, err_msg=name)

    def calls(self, name: str) -> int:
        return fake_cuda.calls(name)


platform: Platform = FakePlatform()


@contextlib.contextmanager
def both(
    model: bytes, recipe: Recipe, *, session: device_engines.Session | None = None, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """The same engine file on the GPU and as its CPU twin; ``session`` may run the former."""
    with (
        tempfile.TemporaryDirectory() as folder,
        platform.plans(model, session, **options) as plans,
    ):
        path = write_engine(Path(folder) / "model.engine", model, recipe, plans=dict(plans))
        with visionrt.load(path, device="cuda:0") as gpu:
            assert gpu.device == "cuda:0"
            with visionrt.load(path, device="cpu") as cpu:
                yield gpu, cpu


def assert_same(got: Any, wanted: Any) -> None:
    assert isinstance(got, type(wanted))
    assert got.image_hw == wanted.image_hw
    platform.compare(got, wanted)


def graph_counts(gpu: Any) -> tuple[int, int, int]:
    """How many CUDA graphs were made, updated in place and replayed, over all lanes."""
    graphs = [frames.graphs for frames in gpu._pipeline._gpu._frames.values()]
    made = sum(g.made for g in graphs)
    return made, sum(g.updated for g in graphs), sum(g.replayed for g in graphs)


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
