"""Targets: their names, real TensorRT-RTX builds, refusals in words, and cancelling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import tensorrt_rtx as rtx
from onnx import TensorProto, helper, numpy_helper

from trtconvert.passes.half import convert_to_half
from trtconvert.targets import parse_target, parse_targets
from trtconvert.targets import tensorrt as tensorrt_module
from trtconvert.targets.base import ShapeRange
from trtconvert.targets.build_process import BuildRequest
from trtconvert.targets.cpu import CpuTarget
from trtconvert.targets.rtx import DEFAULT_SMS, SUPPORTED_SMS, RtxTarget
from trtconvert.targets.tensorrt import TensorRTTarget
from trtconvert.targets.trt_builder import (
    BuildResult,
    PlanOptions,
    _keep_digits,
    _why_it_failed,
    build_plan,
)
from visionrt.backends.trt_library import logger_of
from visionrt.device import GpuInfo
from visionrt.errors import BuildError, MissingDependencyError, ModelError, UsageError
from visionrt.plan_header import describe

SM86 = PlanOptions(compute_capabilities=("86",))
IMAGES = {"images": ShapeRange((1, 3, 224, 224), (1, 3, 224, 224), (4, 3, 224, 224))}


def model(
    nodes: list[Any],
    inputs: Mapping[str, list[int | str]],
    output: str,
    constants: Mapping[str, np.ndarray] | None = None,
    output_type: int = TensorProto.FLOAT,
    opset: int = 19,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, output_type, None)],
        [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def conv(batch: int | str = 1) -> bytes:
    return model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        {"x": [batch, 3, 8, 8]},
        "y",
        {"w": np.ones((4, 3, 3, 3), np.float32)},
    )


def test_names() -> None:
    names = [t.name for t in parse_target("rtx:sm86,sm89,sm120")]
    assert names == ["rtx:sm86", "rtx:sm89", "rtx:sm120"]
    assert [t.name for t in parse_target("rtx")] == [f"rtx:sm{sm}" for sm in DEFAULT_SMS]
    assert [t.name for t in parse_target(" RTX:SM_86, 8.9 ")] == ["rtx:sm86", "rtx:sm89"]
    targets = parse_targets(["cpu", "tensorrt", "rtx:75"])
    assert [t.backend for t in targets] == ["cpu", "tensorrt", "tensorrt_rtx"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["rtx:sm87"], "Jetson Orin.*--target tensorrt"),
        (["rtx:sm90"], "Hopper.*--target tensorrt"),
        (["rtx:sm100"], "--target tensorrt"),
        (["rtx:sm60"], "sm75, sm80, sm86, sm89, sm120, sm121"),
        (["rtx:"], "SM number"),
        (["rtx:sm86,"], "SM number"),
        (["rtx:sm86,sm86"], "rtx:sm86 twice"),
        (["rtx:sm86", "cpu", "rtx"], "rtx:sm86 twice"),
        (["cpu", "cpu"], "cpu twice"),
        (["rxt"], "Did you mean 'rtx'"),
        (["tensorrt_rtx"], "Did you mean 'rtx'"),
        (["tensort"], "Did you mean 'tensorrt'"),
        (["tpu"], "Did you mean 'cpu'"),
        (["quantum"], "Correct the name"),
        (["cpu:1"], "--target cpu"),
        (["tensorrt:sm86"], "--target tensorrt"),
    ],
)
def test_wrong_names(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_targets(texts)


def test_the_listed_gpus_are_the_librarys() -> None:
    live = {n.removeprefix("SM") for n in rtx.ComputeCapability.__members__ if n[:2] == "SM"}
    assert set(SUPPORTED_SMS) == live


def test_a_cpu_target_has_no_plan() -> None:
    CpuTarget().check()
    with pytest.raises(UsageError, match="CPU twin"):
        CpuTarget().build(conv(), {}, None)


def test_a_real_model_builds_with_progress(models: Path) -> None:
    seen: list[tuple[float, str]] = []

    def progress(done: float, text: str) -> bool:
        seen.append((done, text))
        return True

    (target,) = parse_target("rtx:sm86")
    graph = (models / "efficientnet_lite0.onnx").read_bytes()
    plan = target.build(graph, IMAGES, progress)
    assert plan.info.member == "plans/rtx-sm86.plan"
    assert (plan.info.target, plan.info.backend) == ("rtx:sm86", "tensorrt_rtx")
    assert plan.info.library_version == rtx.__version__
    assert plan.info.compute_capabilities == ("86",)
    assert plan.info.build_seconds > 0
    header = describe(plan.data)
    assert (header.compute_capabilities, header.missing_bytes) == (("86",), 0)
    assert 15e6 < len(plan.data) < 25e6  # 4.65 million float32 weights
    fractions = [done for done, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 10
    # Two builds of one graph are one plan: what is shipped can be reproduced.
    assert target.build(graph, IMAGES, None).data == plan.data


def test_one_plan_for_several_gpus() -> None:
    target = RtxTarget(("86", "120"))
    plan = target.build(conv(), {}, None)
    assert plan.info.member == "plans/rtx-sm86-sm120.plan"
    assert describe(plan.data).compute_capabilities == ("86", "120")
    with pytest.raises(UsageError, match="different GPUs"):
        RtxTarget(("86", "86"))
    with pytest.raises(UsageError):
        RtxTarget(())


def test_turing_refuses_a_float32_matmul() -> None:
    graph = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": [8, 16]},
        "y",
        {"w": np.ones((16, 4), np.float32)},
    )
    RtxTarget(("80",)).build(graph, {}, None)
    with pytest.raises(BuildError, match=r"SM75.*--precision fp16"):
        RtxTarget(("75",)).build(graph, {}, None)
    # One GPU that cannot be built for fails a plan for several.
    with pytest.raises(BuildError, match="SM75"):
        RtxTarget(("75", "80")).build(graph, {}, None)


def nms() -> bytes:
    return model(
        [helper.make_node("NonMaxSuppression", ["b", "s", "k"], ["i"], name="my_nms")],
        {"b": [1, 100, 4], "s": [1, 5, 100]},
        "i",
        {"k": np.array([10], np.int64)},
        TensorProto.INT64,
    )


def deform_conv() -> bytes:
    nodes = [
        helper.make_node("Identity", ["x"], ["z"], name="first"),
        helper.make_node("DeformConv", ["z", "w", "o"], ["y"], name="deform"),
    ]
    shapes: dict[str, list[int | str]] = {"x": [1, 3, 8, 8], "w": [4, 3, 3, 3], "o": [1, 18, 6, 6]}
    return model(nodes, shapes, "y")


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (nms(), "NMS node 'my_nms'"),
        (deform_conv(), "DeformConv node 'deform': .*Plugin not found"),
        (b"garbage", "Failed to parse the ONNX model"),
        (conv()[:-40], "Failed to parse the ONNX model"),
    ],
)
def test_refusals_name_the_node_and_the_reason(graph: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        RtxTarget(("86",)).build(graph, {}, None)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, "a shape range for input 'x'"),
        ({"xx": ShapeRange.fixed((1, 3, 8, 8))}, "Did you mean 'x'"),
        ({"q": ShapeRange.fixed((1, 3, 8, 8))}, r"\['x'\]"),
        ({"x": ShapeRange((4, 3, 8, 8), (2, 3, 8, 8), (8, 3, 8, 8))}, "min ≤ opt ≤ max"),
        ({"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8))}, "min ≤ opt ≤ max"),
        ({"x": ShapeRange((0, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))}, "min ≤ opt ≤ max"),
        ({"x": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 9))}, "only a size shown as -1"),
        ({"x": ShapeRange.fixed((1, 3, 8))}, "min ≤ opt ≤ max"),
    ],
)
def test_wrong_shape_ranges(shapes: dict[str, ShapeRange], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_plan(rtx, conv("n"), shapes, SM86, None)


def test_a_fixed_input_takes_its_own_range_only() -> None:
    assert build_plan(rtx, conv(), {"x": ShapeRange.fixed((1, 3, 8, 8))}, SM86, None).plan
    with pytest.raises(UsageError, match="1 ≤ min"):
        build_plan(rtx, conv(), {"x": ShapeRange.fixed((2, 3, 8, 8))}, SM86, None)


def test_a_model_above_2_gib_is_refused_before_the_parser() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 2**31

    with pytest.raises(ModelError, match="2 GiB"):
        build_plan(rtx, Long(), {}, SM86, None)


def test_no_gpu_to_build_on_is_something_missing() -> None:
    """Full TensorRT builds for the GPU at hand; the RTX library can be asked to, and fails so."""
    logger, log = logger_of(rtx)
    mark = log.mark()
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(conv())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(rtx.ComputeCapability.CURRENT, 0)
    if builder.build_serialized_network(network, config) is not None:
        pytest.skip("there is a GPU here, so it is not missing")
    error = _why_it_failed(network, log.since(mark), log.quote_since(mark))
    assert isinstance(error, MissingDependencyError)
    assert "rtx target" in str(error)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "raised"])
def test_float32_beside_float16_is_no_tf32(precision: str) -> None:
    graph = onnx.load_from_string(
        model(
            [
                helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
                helper.make_node("Conv", ["a", "v"], ["b"], name="second"),
                helper.make_node("Conv", ["b", "v"], ["y"], name="third"),
            ],
            {"x": [1, 3, 8, 8]},
            "y",
            {"w": np.ones((4, 3, 3, 3), np.float32), "v": np.ones((4, 4, 3, 3), np.float32)},
        )
    )
    if precision != "fp32":
        keep = {"first": "digits"} if precision == "raised" else {}
        graph, _ = convert_to_half(graph, keep=keep)
    logger, _ = logger_of(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    config = builder.create_builder_config()
    _keep_digits(rtx, config, network)
    assert config.get_flag(rtx.BuilderFlag.TF32) == (precision == "fp32")
    assert build_plan(rtx, graph.SerializeToString(), {}, SM86, None).plan


def test_an_unknown_gpu_lists_the_librarys() -> None:
    with pytest.raises(UsageError, match="SM75, SM80"):
        build_plan(rtx, conv(), {}, PlanOptions(compute_capabilities=("77",)), None)


def test_full_tensorrt_says_what_is_missing() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        TensorRTTarget().check()
    assert caught.value.exit_code == 6
    with pytest.raises(MissingDependencyError):
        TensorRTTarget().build(conv(), {}, None)


def test_a_full_tensorrt_build_passes_its_options_on(tmp_path: Path) -> None:
    """All but the library's own part, which needs a GPU; ``tests/gpu`` has that."""
    requests: list[BuildRequest] = []

    def build(request: BuildRequest, progress: Any) -> BuildResult:
        requests.append(request)
        # The same code on the library that builds anywhere, for a GPU by name.
        options = PlanOptions(("89",), request.options.workspace_bytes)
        plan = build_plan(rtx, request.model, request.shapes, options, progress).plan
        return BuildResult(plan, "10.13.2.6", b"timings")

    cache = tmp_path / "timing.cache"
    target = TensorRTTarget(workspace_bytes=1 << 28, timing_cache=cache)
    gpu = GpuInfo(0, "L4", "89", 24 << 30, "13.0")
    with (
        mock.patch.object(tensorrt_module, "load_library"),
        mock.patch.object(tensorrt_module.device, "gpu_problem", return_value=""),
        mock.patch.object(tensorrt_module.device, "gpu_info", return_value=gpu),
        mock.patch.object(tensorrt_module, "build_in_child", build),
    ):
        plan = target.build(conv(), {}, None)
        target.build(conv(), {}, None)
        assert plan.info.member == "plans/tensorrt-sm89.plan"
        assert plan.info.compute_capabilities == ("89",)
        assert plan.info.library_version == "10.13.2.6"
        assert [r.options.timing_cache for r in requests] == [b"", b"timings"]
        assert [r.options.workspace_bytes for r in requests] == [1 << 28] * 2
        assert cache.read_bytes() == b"timings"
        tensorrt_module.device.gpu_problem.return_value = "no GPU"
        with pytest.raises(MissingDependencyError, match="--target rtx"):
            target.check()
